"""Subcommands of ``bids-cmb-train`` for evaluation and for users' own datasets."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bids_cmb.cli import at_least
from bids_cmb.errors import UsageError
from bids_cmb.training.user_commands import (
    add_annotation_options,
    add_user_commands,
    command_line,
    evaluate_dataset,
    write_evaluation,
)

if TYPE_CHECKING:
    from bids_cmb.detector.weights import Model
    from bids_cmb.training.held_out import HeldOutResult

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_log = logging.getLogger(__name__)


def add_commands(commands: Commands) -> None:
    """Add ``evaluate`` (also called ``test``), ``operating-points``, ``realism``, ``finetune`` and ``crossval`` to the parser of ``bids-cmb-train``."""
    evaluate = commands.add_parser(
        "evaluate",
        aliases=["test"],
        help="compare a detector with the truth: on simulated scans, or on a BIDS dataset with annotations",
        description="On a folder of simulated scans: run the detector and compare it with what was simulated. On a "
        "BIDS dataset (--results, --annotations): compare the outputs of bids-cmb with lesion masks or points.",
    )
    evaluate.add_argument("folder", type=Path, help="folder of simulated scans, or a BIDS dataset")
    evaluate.add_argument("--out", type=Path, help="folder for tables (.tsv) and page (.html)")
    evaluate.add_argument("--model", default=None, help="model name or path (default: the shipped one)")
    evaluate.add_argument("--most", type=int, default=None, help="at most this many scans per contrast")
    evaluate.add_argument("--no-anatomy", action="store_true", help="leave out registration and zones")
    evaluate.add_argument("--processes", type=at_least(1), default=1, help="scans at once, one thread each")
    evaluate.add_argument("--results", type=Path, help="output folder of bids-cmb (BIDS dataset)")
    add_annotation_options(evaluate)
    evaluate.set_defaults(run=_evaluate)

    points = commands.add_parser(
        "operating-points",
        help="choose a model's thresholds on validation scans, through the whole job, and write them into its manifest",
    )
    points.add_argument(
        "folder", type=Path, help="simulated scans of heads that the model was not trained on"
    )
    points.add_argument("--model", required=True, help="path of a model folder or manifest (.json)")
    points.add_argument(
        "--false-per-scan", type=float, help="allowed false detections per scan (default: 0.5)"
    )
    points.add_argument("--processes", type=at_least(1), default=1, help="scans at once, one thread each")
    points.set_defaults(run=_operating_points)

    realism = commands.add_parser(
        "realism", help="a page with real and simulated scans side by side, and their differences in figures"
    )
    realism.add_argument("folder", type=Path, nargs="?", help="simulated scans to compare with")
    realism.add_argument(
        "--real",
        nargs="+",
        required=True,
        metavar="CONTRAST=FILE[@VOLUME]",
        help="real images, e.g. gre=mag.nii.gz@4 for the fifth volume; numbers of a sidecar beside it are used",
    )
    realism.add_argument(
        "--out", type=Path, required=True, help="page to write (.html); holds the real images"
    )
    realism.add_argument("--model", default=None, help="model whose candidates are counted")
    realism.add_argument("--most", type=int, default=8, help="scans of the folder per contrast")
    realism.add_argument(
        "--matched", type=int, default=0, help="scans to simulate with the acquisition of each real image"
    )
    realism.add_argument("--processes", type=at_least(1), default=1)
    realism.set_defaults(run=_realism)
    add_user_commands(commands)


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.annotations is not None:
        return evaluate_dataset(arguments)
    if arguments.results is not None or arguments.annotation_filter or arguments.derivatives:
        raise UsageError(
            "--results, --annotation-filter and --derivatives go with --annotations: what is true of a BIDS dataset is "
            "not known without."
        )
    from bids_cmb.detector.weights import load_model
    from bids_cmb.evaluation.evaluate import evaluate
    from bids_cmb.training.gallery import failure_gallery, failure_sheet
    from bids_cmb.training.held_out import judge_scans, summarise
    from bids_cmb.training.simulate.corpus import scans_in
    from bids_cmb.types import CONTRASTS

    paths = [p for c in CONTRASTS for p in scans_in(arguments.folder, c)[: arguments.most]]
    if not paths:
        raise UsageError(
            f"There are no simulated scans in {arguments.folder}; make some with `bids-cmb-train simulate`; a BIDS dataset needs --annotations."
        )
    model = load_model(arguments.model)
    results = []
    for path, r in judge_scans(
        paths, arguments.model, with_anatomy=not arguments.no_anatomy, processes=arguments.processes
    ):
        results.append(r)
        _log.info(
            "%d of %d %s: %d of %d visible found, %d false %s",
            len(results),
            len(paths),
            path.stem,
            r.found,
            r.visible,
            r.false,
            list(r.false_names),
        )
    notes = _seen(results, model)
    sys.stdout.write("\n".join([*summarise(results), *notes]) + "\n")
    if arguments.out is not None:
        facts = {
            "Data": f"{len(paths)} simulated scans of {arguments.folder.name}",
            "Model": f"{model.name} {model.version}, SHA-256 {model.sha256[:12]}",
            "Command": command_line(),
        }
        failures = failure_gallery(zip(paths, results, strict=True))
        write_evaluation(
            evaluate([r.pair for r in results]),
            arguments.out,
            "Detection on simulated scans",
            facts,
            notes,
            failures,
        )
        if (sheet := failure_sheet(failures)) is not None:
            sheet.save(arguments.out / "failures.png", optimize=True)
    return 0


def _operating_points(arguments: argparse.Namespace) -> int:
    from bids_cmb.training.calibrate import FALSE_PER_SCAN
    from bids_cmb.training.operating_points import (
        manifest_to_change,
        operating_points,
        write_operating_points,
    )
    from bids_cmb.training.recipe import earlier_anatomy
    from bids_cmb.training.simulate.corpus import heads_in, scans_in

    allowed = FALSE_PER_SCAN if arguments.false_per_scan is None else arguments.false_per_scan
    manifest = manifest_to_change(arguments.model)
    paths = scans_in(arguments.folder)
    if not paths:
        raise UsageError(
            f"There are no simulated scans in {arguments.folder}; make some with `bids-cmb-train simulate`."
        )
    heads = heads_in(arguments.folder)
    if shared := sorted(heads & earlier_anatomy(manifest)):
        raise UsageError(
            f"The model was trained on the head {', '.join(shared)} of these scans; give scans of other heads."
        )
    found = operating_points(paths, str(manifest), false_per_scan=allowed, processes=arguments.processes)
    write_operating_points(manifest, found, heads=heads, command=command_line())
    for contrast, point in found.items():
        sys.stdout.write(
            f"{contrast}: threshold {point['threshold']:g}, {point['found']:g} of {point['visible']:g} visible found, "
            f"{point['false']:g} false on {point['scans']:g} scans\n"
        )
        if point["false"] > allowed * point["scans"]:
            _log.warning(
                "%s: even the highest threshold allows more than %g false per scan.", contrast, allowed
            )
    return 0


def _seen(results: list[HeldOutResult], model: Model) -> list[str]:
    """Say so if the model was trained, or its thresholds chosen, on the anatomy of the scans: their figures flatter it."""
    training = model.card.get("training", {})
    heads = {r.pair.subject.rsplit("_", 1)[0] for r in results}
    notes = []
    for key, what in (
        ("anatomy", "The model was trained"),
        ("validation_anatomy", "The model's thresholds were chosen"),
    ):
        known = set(training.get(key, [])) if isinstance(training, dict) else set()
        if shared := sorted(heads & known):
            notes.append(f"{what} on the head {', '.join(shared)}, so that these figures flatter it.")
    return notes


def _realism(arguments: argparse.Namespace) -> int:
    from bids_cmb.training.lesion_statistics import as_lines
    from bids_cmb.training.real_image import RealImage
    from bids_cmb.training.realism_page import write_realism_page

    found, bleeds = write_realism_page(
        [RealImage.parse(text) for text in arguments.real],
        arguments.folder,
        arguments.out,
        model=arguments.model,
        most=arguments.most,
        matched=arguments.matched,
        processes=arguments.processes,
        command=command_line(),
    )
    lines = as_lines(bleeds)
    if lines:
        lines.insert(0, "visible bleeds; 95 % intervals over bleeds, not over subjects, and so too narrow")
    for name, differences in found:
        lines.append(f"{name}: the largest differences, in units of the simulated scans' spread")
        lines += [
            f"{d.distance:8.1f}  {d.name:52} real {d.real:9.4f}  simulated {d.median:9.4f} ({d.low:.4f} to {d.high:.4f})"
            for d in differences[:12]
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
