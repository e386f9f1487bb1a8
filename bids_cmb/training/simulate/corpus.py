"""A folder of simulated scans to train and test on: one .npz each, made in parallel, resumable."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bids_cmb.errors import InputError
from bids_cmb.files import TEMPORARY_PREFIX, private_prefix, remove_abandoned
from bids_cmb.memory import keep_freed_memory
from bids_cmb.training.simulate.heads import UNREADABLE, load_head
from bids_cmb.training.simulate.lesions import USUAL_LARGE, Deposit, LargeBleeds
from bids_cmb.training.simulate.protocol import Protocol
from bids_cmb.training.simulate.scan import FINE_SPACING, SimulatedScan, simulate_session
from bids_cmb.training.simulate.truth import Lesion
from bids_cmb.types import CONTRASTS, Contrast


@dataclass(frozen=True)
class Order:
    """One subject to simulate: contrast and path of every scan, from which head, with which seed."""

    paths: tuple[tuple[Contrast, Path], ...]
    head: Path
    seed: int
    spacing: float
    widen: float
    count: tuple[int, int] | None = None
    second: bool = False
    large: LargeBleeds = USUAL_LARGE


def plan(
    folder: Path,
    heads: Sequence[Path],
    subjects: int,
    *,
    first_seed: int,
    contrasts: Sequence[Contrast] = CONTRASTS,
    spacing: float = FINE_SPACING,
    widen: float = 1.0,
    count: tuple[int, int] | None = None,
    second: bool = False,
    large: LargeBleeds = USUAL_LARGE,
) -> list[Order]:
    """List the subjects of a corpus: heads in turn, seeds counting up, one scan for each time a contrast is named."""
    number = [list(contrasts[:i]).count(c) + 1 for i, c in enumerate(contrasts)]
    orders = []
    for seed in range(first_seed, first_seed + subjects):
        head = heads[seed % len(heads)]
        paths = tuple(
            (c, folder / (f"{c}_{head.stem}_{seed}" + (f"_{n}" if n > 1 else "") + ".npz"))
            for c, n in zip(contrasts, number, strict=True)
        )
        orders.append(Order(paths, head, seed, spacing, widen, count, second, large))
    return orders


def make_corpus(orders: Sequence[Order], *, processes: int, device: str = "cpu") -> Iterator[Order]:
    """Simulate what is not there yet and yield each subject as it is done, present ones first.

    What killed runs have left unfinished in the folders is removed.

    Parameters
    ----------
    orders
        From `plan`.
    processes
        Subjects at once; with a GPU use 1.
    device
        ``cpu`` or ``cuda``.
    """
    for folder in {path.parent for order in orders for _, path in order.paths}:
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
    missing = [o for o in orders if not _is_there(o)]
    yield from (o for o in orders if _is_there(o))
    if processes == 1:
        for order in missing:
            yield _make((order, device))
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(_make, [(o, device) for o in missing])


def _is_there(order: Order) -> bool:
    return all(path.exists() for _, path in order.paths)


def _make(job: tuple[Order, str]) -> Order:
    order, device = job
    keep_freed_memory()
    if device == "cpu" and multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
    contrasts = [contrast for contrast, _ in order.paths]
    scans = simulate_session(
        load_head(order.head),
        order.seed,
        contrasts,
        count=order.count,
        device=device,
        spacing=order.spacing,
        widen=order.widen,
        second=order.second,
        large=order.large,
    )
    for scan, (_, path) in zip(scans, order.paths, strict=True):
        save_scan(scan, path)
    return order


def save_scan(scan: SimulatedScan, path: Path) -> None:
    """Write a scan as a compressed .npz (image in half precision), whole or not at all."""
    facts = {
        "lesions": [asdict(x) for x in scan.lesions],
        "mimics": scan.mimics,
        "protocol": asdict(scan.protocol),
        "seed": scan.seed,
        "head": scan.head,
    }
    # No scan's name begins like this, and `remove_abandoned` knows from it whether its writer still runs.
    partial = path.with_name(f"{private_prefix(TEMPORARY_PREFIX)}{path.stem}.npz")
    try:
        np.savez_compressed(
            partial,
            image=scan.image.astype(np.float16),
            affine=scan.affine,
            brain_mask=scan.brain_mask,
            lesion_labels=scan.lesion_labels,
            surround=scan.surround,
            facts=np.array(json.dumps(facts)),
        )
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def scans_in(folder: Path, contrast: Contrast | None = None) -> list[Path]:
    """List the scans of a folder, of one contrast or all, in order of file names; hidden files are unfinished ones."""
    pattern = "*.npz" if contrast is None else f"{contrast}_*.npz"
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


@contextmanager
def _open_scan(path: Path) -> Iterator[Mapping[str, Any]]:
    """Open the file of a scan; what goes wrong while it is read becomes an `InputError`."""
    try:
        with np.load(path, allow_pickle=False) as store:
            yield store
    except UNREADABLE as error:
        raise InputError(
            f"{path} is not a simulated scan ({error}); make it again with `bids-cmb-train simulate`."
        ) from error


def _head_of(path: Path) -> str:
    """Read the name of the head that a scan was made from, and nothing else of the file."""
    with _open_scan(path) as store:
        return str(json.loads(str(store["facts"]))["head"])


def heads_in(folder: Path) -> set[str]:
    """Read the names of the heads that the scans of a folder were made from.

    Raises
    ------
    InputError
        If one of its files is not such a scan.
    """
    return {_head_of(path) for path in scans_in(folder)}


def load_scan(path: Path) -> SimulatedScan:
    """Read a scan written by `save_scan`.

    Raises
    ------
    InputError
        If the file is not such a scan.
    """
    with _open_scan(path) as store:
        facts = json.loads(str(store["facts"]))
        lesions = tuple(
            Lesion(
                **{
                    **x,
                    "position": tuple(x["position"]),
                    "deposit": Deposit(**{**x["deposit"], "centre": tuple(x["deposit"]["centre"])}),
                }
            )
            for x in facts["lesions"]
        )
        mimics = tuple((tuple(p), r, name) for p, r, name in facts["mimics"])
        known = {x.name for x in fields(Protocol)}  # older scans say more
        said = {name: value for name, value in facts["protocol"].items() if name in known}
        protocol = Protocol(**{**said, "voxel": tuple(said["voxel"]), "tilt": tuple(said["tilt"])})
        return SimulatedScan(
            store["image"].astype(np.float32),
            store["affine"],
            store["brain_mask"],
            store["lesion_labels"],
            lesions,
            mimics,
            store["surround"] if "surround" in store else np.zeros_like(store["lesion_labels"]),
            protocol,
            facts["seed"],
            facts["head"],
        )
