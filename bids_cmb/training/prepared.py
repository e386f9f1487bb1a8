"""Simulated scans as the networks are shown them: prepared by the main job's own code, and kept beside the scans."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bids_cmb.detector.grid import WorkingGrid
from bids_cmb.errors import InputError, UsageError
from bids_cmb.imaging.prepare import prepare
from bids_cmb.training.samples import TrainingScan, targets_of, training_scan
from bids_cmb.training.simulate.corpus import load_scan, scans_in
from bids_cmb.training.simulate.scan import SimulatedScan
from bids_cmb.types import BoolArray, Prepared, Volume

#: A brain mask that misses the truth by more than this (Dice) is a failure to mend, not one to learn from.
_LEAST_DICE = 0.85
#: Share of scans that keep the true mask, as with users who bring their own.
_TRUE_MASKS = 0.25
#: Part of the name of kept files: a change of the preparation makes new ones.
_VERSION = 7
#: What of a prepared scan is no array.
_WORDS = ("name", "contrast", "grid")


def prepare_corpus(
    folder: Path, *, processes: int = 1, report: Callable[[int, int], None] = lambda _done, _all: None
) -> list[TrainingScan]:
    """Bring every simulated scan of a folder onto the working grid, through the main job's preparation.

    Parameters
    ----------
    folder
        Of `bids_cmb.training.simulate.corpus.save_scan`; prepared scans are kept in its subfolder ``prepared``.
    processes
        Scans at once.
    report
        Called with the number done and the number of all.

    Returns
    -------
    list of TrainingScan
        In order of file names.

    Raises
    ------
    UsageError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}; make simulated scans with `bids-cmb-train simulate`.")
    paths = scans_in(folder)
    (folder / "prepared").mkdir(exist_ok=True)
    scans = []
    if processes == 1:
        for path in paths:
            scans.append(load_prepared(_prepared(path)))
            report(len(scans), len(paths))
        return scans
    with multiprocessing.get_context("spawn").Pool(processes, partial(torch.set_num_threads, 1)) as pool:
        for kept in pool.imap(_prepared, paths):
            scans.append(load_prepared(kept))
            report(len(scans), len(paths))
    return scans


def prepared_scan(scan: SimulatedScan, name: str) -> TrainingScan:
    """Prepare one simulated scan; a quarter keep the true brain mask, the others get the one that is found."""
    contrast = scan.protocol.contrast
    volume = Volume(scan.image, scan.affine)
    ready: Prepared | None = None
    if np.random.default_rng(scan.seed).random() >= _TRUE_MASKS:
        with suppress(InputError):  # no brain found: as bad a mask as can be
            ready = prepare(volume, contrast)
    if ready is None or _dice(ready.brain_mask, scan.brain_mask) < _LEAST_DICE:
        ready = prepare(volume, contrast, brain_mask=scan.brain_mask)
    visible = np.zeros(256, np.uint8)
    visible[[x.index for x in scan.lesions if x.visible]] = 1
    return training_scan(
        name,
        contrast,
        ready.image.data,
        scan.affine,
        ready.brain_mask,
        targets_of(scan),
        visible[scan.lesion_labels],
        seed=scan.seed,
    )


def _dice(one: BoolArray, other: BoolArray) -> float:
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))


def _prepared(path: Path) -> Path:
    """Prepare a scan unless that is done, whole or not at all."""
    kept = path.parent / "prepared" / f"{path.stem}.v{_VERSION}.safetensors"
    if not kept.exists():
        save_prepared(prepared_scan(load_scan(path), path.stem), kept)
    return kept


def save_prepared(scan: TrainingScan, path: Path) -> None:
    """Write a prepared scan as safetensors, whole or not at all."""
    arrays = {
        f.name: x if isinstance(x := getattr(scan, f.name), torch.Tensor) else torch.from_numpy(x.copy())
        for f in fields(scan)
        if f.name not in _WORDS
    }
    words = {"name": scan.name, "contrast": scan.contrast, "grid": json.dumps(asdict(scan.grid))}
    partial_file = path.with_name(f".{path.stem}.{os.getpid()}.safetensors")
    save_file({name: x.contiguous() for name, x in arrays.items()}, partial_file, metadata=words)
    partial_file.replace(path)


def load_prepared(path: Path) -> TrainingScan:
    """Open what `save_prepared` wrote; the volumes stay in the file until they are looked at.

    Hundreds of scans (about 27 MB each) need not fit into memory, and the processes of a training share them.
    """
    with safe_open(path, framework="pt") as store:
        words = store.metadata()
        arrays = {name: store.get_tensor(name) for name in store.keys()}  # noqa: SIM118 - not a dictionary
    grid = {name: tuple(value) for name, value in json.loads(words["grid"]).items()}
    volumes = {name: arrays[name] for name in ("channels", "heat", "segmentation", "weight")}
    points = {name: x.numpy() for name, x in arrays.items() if name not in volumes}
    return TrainingScan(
        name=words["name"],
        contrast=words["contrast"],
        grid=WorkingGrid(**grid),
        **volumes,
        **points,
    )
