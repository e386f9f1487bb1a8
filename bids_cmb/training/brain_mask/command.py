"""``bids-cmb-train brain-mask``: heads and simulated scans in, weights and manifest of the mask network out."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bids_cmb.errors import UsageError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_log = logging.getLogger(__name__)


def add_brain_mask_command(commands: Commands) -> None:
    """Add ``brain-mask`` to the parser of ``bids-cmb-train``."""
    mask = commands.add_parser(
        "brain-mask", help="train the network that finds the brain of whole-head scans; resumes"
    )
    mask.add_argument("--heads", type=Path, nargs="+", required=True, help="heads (.npz) to paint")
    mask.add_argument(
        "--scans",
        type=Path,
        help="folder of simulated scans; the whole heads among them are half of the samples",
    )
    mask.add_argument("--out", type=Path, required=True, help="folder for weights, manifest and checkpoint")
    mask.add_argument("--steps", type=int, default=1600)
    mask.add_argument("--batch", type=int, default=4, help="samples per step, shared by the processes")
    mask.add_argument("--seed", type=int, default=1)
    mask.add_argument("--processes", type=int, default=2, help="processes that share the work (CPU)")
    mask.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="as for train")
    mask.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    mask.set_defaults(run=_brain_mask)


def _brain_mask(arguments: argparse.Namespace) -> int:
    import torch

    from bids_cmb.training.brain_mask.release import write_release
    from bids_cmb.training.brain_mask.synthesis import anatomy_of, whole_heads
    from bids_cmb.training.brain_mask.train import RATE, train
    from bids_cmb.training.checkpoints import begin
    from bids_cmb.training.loop import Pace, log_step
    from bids_cmb.training.simulate.heads import check_heads, load_head

    check_heads(arguments.heads)
    paths = sorted(arguments.scans.glob("*.npz")) if arguments.scans else []
    if arguments.scans and not paths:
        raise UsageError(
            f"{arguments.scans} holds no simulated scans; make some with `bids-cmb-train simulate`."
        )
    processes = arguments.processes if arguments.device == "cpu" else 1
    begin(
        arguments.out,
        {
            "heads": [path.stem for path in arguments.heads],
            "scans": [path.stem for path in paths],
            **{name: getattr(arguments, name) for name in ("steps", "batch", "seed", "precision")},
        },
    )
    heads = [load_head(path) for path in arguments.heads]
    device = torch.device(arguments.device)
    scans = whole_heads(paths, processes)
    _log.info("%d heads and %d simulated whole heads to learn from", len(heads), len(scans))

    network = train(
        [anatomy_of(head, device) for head in heads],
        [scan.to(device) for scan in scans],
        Pace(
            arguments.steps,
            RATE,
            arguments.device,
            processes,
            arguments.out / "brain-mask.ckpt",
            arguments.precision,
        ),
        seed=arguments.seed,
        batch=arguments.batch,
        report=partial(log_step, "brain mask", steps=arguments.steps),
    ).cpu()
    manifest = write_release(
        network,
        arguments.out,
        heads=[head.name for head in heads],
        scans=len(scans),
        training={
            name: getattr(arguments, name) for name in ("steps", "batch", "seed", "precision", "device")
        }
        | {"processes": processes, "command": "bids-cmb-train " + shlex.join(sys.argv[1:])},
    )
    _log.info("wrote %s", manifest)
    return 0
