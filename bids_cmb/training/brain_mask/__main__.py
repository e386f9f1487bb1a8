"""Command line: ``python -m bids_cmb.training.brain_mask {anatomies,train} ...``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

_LOG = logging.getLogger("bids_cmb.training.brain_mask")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the two commands; return the exit status."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if arguments.command == "anatomies":
        return _anatomies(arguments)
    return _train(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bids_cmb.training.brain_mask", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser(
        "anatomies", help="turn heads and a parcellation into label maps (one npz file)"
    )
    make.add_argument("--gif", type=Path, required=True, help="parcellation in GIF numbering")
    make.add_argument("--t1w", type=Path, nargs="+", required=True, help="whole-head T1-weighted images")
    make.add_argument("--out", type=Path, required=True, help="npz file to write")
    train = commands.add_parser("train", help="train, measure on held-out heads, write weights and manifest")
    train.add_argument("--anatomies", type=Path, required=True, help="npz file of the label maps")
    train.add_argument("--out", type=Path, required=True, help="folder for weights and manifest")
    train.add_argument("--hold-out", nargs="*", default=[], help="heads to leave out in turn and measure on")
    train.add_argument("--steps", type=int, default=3000)
    train.add_argument("--batch", type=int, default=4)
    train.add_argument("--rate", type=float, default=2e-3)
    train.add_argument("--minutes", type=float, default=0, help="limit of each training, 0 for none")
    train.add_argument("--images", type=int, default=200, help="images for each held-out head")
    train.add_argument("--seed", type=int, default=1)
    train.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    train.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's default")
    train.add_argument("--version", default="1.0.0", help="version of the weights")
    return parser


def _anatomies(arguments: argparse.Namespace) -> int:
    from bids_cmb.training.brain_mask import anatomies

    heads = anatomies.build(arguments.gif, arguments.t1w)
    anatomies.save(heads, arguments.out)
    for head in heads:
        brain = ((head.labels > 0) & (head.labels < anatomies.FIRST_OUTER_LABEL)).sum() / 1000
        _LOG.info("%s: brain of %.0f ml", head.name, brain)
    return 0


def _train(arguments: argparse.Namespace) -> int:
    import torch

    from bids_cmb.training.brain_mask import anatomies
    from bids_cmb.training.brain_mask.evaluate import evaluate
    from bids_cmb.training.brain_mask.release import write_release
    from bids_cmb.training.brain_mask.synthesis import to_device
    from bids_cmb.training.brain_mask.train import Schedule, train

    if arguments.threads > 0:
        torch.set_num_threads(arguments.threads)
    name = arguments.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    heads = anatomies.load(arguments.anatomies)
    known = {group for head in heads for group in head.groups}
    unknown = sorted(set(arguments.hold_out) - known)
    if unknown:
        _LOG.error("no such head: %s; there are %s", ", ".join(unknown), ", ".join(sorted(known)))
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(arguments.steps, arguments.batch, arguments.rate, arguments.minutes, arguments.seed)
    ready = {head.name: to_device(head, device) for head in heads}
    figures = []
    for left_out in arguments.hold_out:
        seen = [ready[h.name] for h in heads if left_out not in h.groups]
        # A map made of the held-out head alone if there is one: the others share tissue with training.
        unseen = [ready[h.name] for h in heads if h.groups == (left_out,)]
        unseen = unseen or [ready[h.name] for h in heads if left_out in h.groups]
        _LOG.info("training on %s", ", ".join(a.name for a in seen))
        checkpoint = arguments.out / f"checkpoint_without-{left_out}.safetensors"
        network = train(seen, schedule, device, checkpoint)
        result = evaluate(network, unseen, arguments.images, device)
        _LOG.info("%s", result)
        figures.append(result.as_dict())
        write_release(
            network,
            arguments.out / f"without-{left_out}",
            version=arguments.version,
            heads=[a.name for a in seen],
            training=asdict(schedule) | {"device": device.type},
            held_out=[result.as_dict()],
        )
    _LOG.info("training on all heads")
    network = train(list(ready.values()), schedule, device, arguments.out / "checkpoint_all.safetensors")
    manifest = write_release(
        network,
        arguments.out,
        version=arguments.version,
        heads=[head.name for head in heads],
        training=asdict(schedule) | {"device": device.type},
        held_out=figures,
    )
    _LOG.info("wrote %s", manifest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
