"""Subcommands of ``bids-cmb-train`` that work on a user's annotated BIDS dataset."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bids_cmb.cli import at_least
from bids_cmb.errors import BidsCmbError, InputError, UsageError

if TYPE_CHECKING:
    from bids_cmb.detector.weights import Model
    from bids_cmb.evaluation.evaluate import Part
    from bids_cmb.evaluation.page import Failure
    from bids_cmb.training.datasets import AnnotatedScan
    from bids_cmb.training.finetune import FinetuneRecipe
    from bids_cmb.training.samples import TrainingScan

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_log = logging.getLogger(__name__)


def add_user_commands(commands: Commands) -> None:
    """Add ``finetune`` and ``crossval`` to the parser of ``bids-cmb-train``."""
    for name, text, run in (
        ("finetune", "fine-tune a detector on an annotated BIDS dataset; resumes", _finetune),
        ("crossval", "cross-validate fine-tuning over the subjects of an annotated BIDS dataset", _crossval),
    ):
        parser = commands.add_parser(name, help=text, description=text)
        parser.add_argument("bids_dir", type=Path, help="BIDS dataset with the images")
        add_annotation_options(parser, required=True)
        parser.add_argument("--out", type=Path, required=True, help="folder to write")
        parser.add_argument("--model", default=None, help="model to start from (default: the shipped one)")
        parser.add_argument("--name", default="finetuned", help="name of the new model")
        parser.add_argument("--simulated", type=Path, help="folder of simulated scans to mix in")
        parser.add_argument(
            "--simulated-share",
            type=float,
            default=0.5,
            help="share of simulated scans among those drawn (default: 0.5; 0: none)",
        )
        parser.add_argument("--stage1-steps", type=int, default=600)
        parser.add_argument("--student-steps", type=int, default=400)
        parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
        parser.add_argument(
            "--held-out",
            type=float,
            default=0.25,
            help="share of the subjects that calibrate and choose the operating point (default: 0.25)",
        )
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument(
            "--processes", type=at_least(1), default=1, help="processes that share the work (CPU)"
        )
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        if name == "crossval":
            parser.add_argument("--folds", type=int, default=5)
            parser.add_argument("--no-anatomy", action="store_true", help="leave out registration and zones")
        parser.set_defaults(run=run)


def add_annotation_options(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Add the options that say where lesions are marked."""
    parser.add_argument(
        "--annotations",
        type=Path,
        required=required,
        help="derivatives dataset with the lesions of each scan: _mask or _dseg images, or .tsv with x y z in mm",
    )
    parser.add_argument(
        "--annotation-filter",
        nargs="+",
        default=[],
        metavar="ENTITY=VALUE",
        help="entities that an annotation must have, e.g. desc=rater1",
    )
    parser.add_argument(
        "-d",
        "--derivatives",
        nargs="+",
        default=[],
        metavar="[NAME=]PATH",
        help="derivatives datasets to look in for QSM, T1w images and brain masks, as for bids-cmb",
    )


def add_real_scan_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``train`` that mix annotated real scans in."""
    parser.add_argument(
        "--bids",
        type=Path,
        metavar="BIDS_DIR",
        help="mix in the annotated scans of this dataset (--annotations)",
    )
    add_annotation_options(parser)
    parser.add_argument(
        "--simulated-share", type=float, default=0.5, help="share of simulated scans then (default: 0.5)"
    )
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.25,
        help="share of the subjects that join the validation scans then",
    )


def with_real_scans(
    arguments: argparse.Namespace,
    training: list[TrainingScan],
    validation: list[TrainingScan],
    base: Model | None,
) -> tuple[list[TrainingScan], list[TrainingScan], str, set[str]]:
    """Mix a user's scans into those of ``train``, which may go on from a model.

    Returns
    -------
    tuple
        Training and validation scans, the name of the dataset, empty without one, and whose real scans the new model will
        have seen.
    """
    from bids_cmb.training.recipe import known_subjects

    known = set() if base is None else known_subjects(base)
    if arguments.bids is None:
        if arguments.annotations is not None or arguments.annotation_filter or arguments.derivatives:
            raise UsageError("--annotations, --annotation-filter and --derivatives are of the scans of --bids: name their dataset.")  # fmt: skip
        return training, validation, "", known
    if not 0 < arguments.held_out < 1:
        raise UsageError("--held-out is between 0 and 1.")
    from bids_cmb.training.mixing import load_training_scans, mix, split_subjects, subject_names

    if arguments.annotations is None:
        raise UsageError("--bids needs --annotations, the derivatives dataset that marks the lesions.")
    items, _ = find_items(arguments, arguments.bids)
    loaded, _ = load_training_scans(items, arguments.processes)
    kept, held = split_subjects([i.scan.subject for i, _ in loaded], arguments.held_out, arguments.seed)
    real, held_out = _scans_of(loaded, kept), _scans_of(loaded, held)
    mixed = mix(real, training, arguments.simulated_share)
    name = arguments.bids.resolve().name
    if base is not None:
        warn_of_known(base, subject_names(name, held))
    return mixed, [*validation, *held_out], name, known | subject_names(name, kept | held)


def warn_of_known(base: Model, held: set[str]) -> None:
    """Say so where the scans that will calibrate may have trained the model that a training goes on from."""
    from bids_cmb.training.recipe import known_subjects

    if known := sorted(held & known_subjects(base)):
        _log.warning(
            "%s was made with %s and %d more of the subjects that are held out: probabilities and operating points "
            "may flatter.",
            base.name,
            known[0],
            len(known) - 1,
        )


def _scans_of(loaded: Sequence[tuple[AnnotatedScan, TrainingScan]], subjects: set[str]) -> list[TrainingScan]:
    return [scan for item, scan in loaded if item.scan.subject in subjects]


def find_items(arguments: argparse.Namespace, bids_dir: Path) -> tuple[list[AnnotatedScan], list[str]]:
    """Find the annotated scans that the options name, and sentences on what was left out.

    Raises
    ------
    UsageError
        If there are none, or a folder is missing.
    """
    from bids_cmb.training.annotations import parse_filter
    from bids_cmb.training.datasets import annotated_scans

    derivatives = []
    for text in arguments.derivatives:
        name, is_, path = text.partition("=")
        derivatives.append((name, Path(path)) if is_ else (Path(text).name, Path(text)))
    for folder in (bids_dir, arguments.annotations, *(path for _, path in derivatives)):
        if not folder.is_dir():
            raise UsageError(f"There is no folder {folder}.")
    items, notes = annotated_scans(
        bids_dir,
        arguments.annotations,
        derivatives=derivatives,
        wanted=parse_filter(arguments.annotation_filter),
    )
    for note in notes:
        _log.warning("%s", note)
    _log.info("%d annotated scans of %d subjects", len(items), len({i.scan.subject for i in items}))
    return items, notes


def command_line() -> str:
    """Return what was run."""
    return "bids-cmb-train " + shlex.join(sys.argv[1:])


def write_evaluation(
    parts: tuple[Part, ...],
    out: Path,
    title: str,
    facts: dict[str, str],
    notes: list[str],
    gallery: Sequence[Failure] = (),
) -> None:
    """Write tables and page of an evaluation, and print its main figures."""
    from bids_cmb.evaluation.detection import ONE_TO_ONE
    from bids_cmb.evaluation.page import show, write_evaluation_page
    from bids_cmb.evaluation.tables import write_tables

    write_tables(parts, out)
    page = write_evaluation_page(
        parts, out / "evaluation.html", title=title, facts=facts, notes=notes, gallery=gallery
    )
    for part in parts:
        main = [f"{name} {show(part.figure(ONE_TO_ONE, name))}" for name in ("sensitivity", "precision", "F1", "false per scan")]  # fmt: skip
        sys.stdout.write(f"{part.name} ({len(part.matches)} scans): {', '.join(main)}\n")
    _log.info("wrote %s and its tables", page)


def evaluate_dataset(arguments: argparse.Namespace) -> int:
    """Compare the outputs of ``bids-cmb`` with a user's annotations; 1 if a scan could not be compared, else 0."""
    from bids_cmb.evaluation.evaluate import evaluate
    from bids_cmb.training.datasets import left_out_because, written_model, written_pair

    if ignored := _of_simulated_scans(arguments):
        raise UsageError(f"With --annotations the results that bids-cmb wrote to --results are evaluated, and {', '.join(ignored)} would do nothing; run bids-cmb with another model or fewer scans instead.")  # fmt: skip
    if arguments.results is None or arguments.out is None:
        raise UsageError("A BIDS dataset is evaluated with --results (the output folder of bids-cmb), --annotations and --out.")  # fmt: skip
    items, notes = find_items(arguments, arguments.folder)
    missing, done, left_out = [], [], []
    models: Counter[str] = Counter()
    for item in items:
        try:
            pair = written_pair(item, arguments.results)
        except BidsCmbError as error:
            left_out.append(left_out_because(item, error))
            _log.warning("%s", left_out[-1])
            continue
        if pair is None:
            missing.append(item.name)
            continue
        done.append(pair)
        models[written_model(item, arguments.results) or "not stated"] += 1
    if missing:
        notes.append(f"{len(missing)} annotated scans have no results in {arguments.results} and are left out: {', '.join(missing[:5])}. Run bids-cmb on them.")  # fmt: skip
        _log.warning("%s", notes[-1])
    if not done and left_out:
        raise InputError(f"None of the {len(items)} annotated scans can be compared. {left_out[0]}")
    if not done:
        raise UsageError(f"{arguments.results} has no results of the annotated scans; run bids-cmb first.")
    facts = {
        "Data": f"{len(done)} scans of {arguments.folder.name}, annotated in {arguments.annotations.name}",
        "Results": arguments.results.name,
        "Model": "; ".join(f"{name} ({n} scans)" for name, n in models.most_common()),
        "Command": command_line(),
    }
    if len(models) > 1:
        notes.append("The results are of several models: run bids-cmb anew on the scans of all but one.")
        _log.warning("%s", notes[-1])
    notes += left_out
    write_evaluation(evaluate(done), arguments.out, "Detection compared with annotations", facts, notes)
    return 1 if left_out else 0


def _of_simulated_scans(arguments: argparse.Namespace) -> list[str]:
    """Options of ``evaluate`` that were given and concern simulated scans only."""
    given = {
        "--model": arguments.model is not None,
        "--most": arguments.most is not None,
        "--no-anatomy": arguments.no_anatomy,
        "--processes": arguments.processes != 1,
    }
    return [name for name, is_given in given.items() if is_given]


def _recipe(arguments: argparse.Namespace) -> FinetuneRecipe:
    from bids_cmb.training.finetune import FinetuneRecipe

    share = arguments.simulated_share
    if not 0 <= share < 1 or not 0 < arguments.held_out < 1 or not arguments.rate > 0:
        raise UsageError("--simulated-share is 0 to below 1, --held-out between 0 and 1, --rate above 0.")
    if share > 0 and arguments.simulated is None:
        raise UsageError("Give --simulated FOLDER (made with `bids-cmb-train simulate`) to mix simulated scans in, or --simulated-share 0.")  # fmt: skip
    default = FinetuneRecipe(arguments.name)
    return FinetuneRecipe(
        arguments.name,
        arguments.stage1_steps,
        arguments.student_steps,
        default.stage1_rate * arguments.rate,
        default.student_rate * arguments.rate,
        share,
        arguments.held_out,
        arguments.seed,
        arguments.device,
        arguments.processes if arguments.device == "cpu" else 1,
    )


def _simulated(arguments: argparse.Namespace) -> tuple[list[TrainingScan], set[str]]:
    """Simulated scans to mix in, and the heads that they are of."""
    from bids_cmb.training.prepared import prepare_corpus
    from bids_cmb.training.simulate.corpus import heads_in

    if arguments.simulated is None or arguments.simulated_share == 0:
        return [], set()
    return prepare_corpus(arguments.simulated, processes=arguments.processes), heads_in(arguments.simulated)


def _finetune(arguments: argparse.Namespace) -> int:
    from bids_cmb.detector.weights import load_model
    from bids_cmb.training.finetune import finetune
    from bids_cmb.training.mixing import describe, load_training_scans, split_subjects, subject_names

    recipe, base = _recipe(arguments), load_model(arguments.model)
    items, _ = find_items(arguments, arguments.bids_dir)
    loaded, _ = load_training_scans(items, recipe.processes)
    kept, held = split_subjects([item.scan.subject for item, _ in loaded], recipe.held_out, recipe.seed)
    training, held_out = _scans_of(loaded, kept), _scans_of(loaded, held)
    warn_of_known(base, subject_names(arguments.bids_dir.resolve().name, held))
    simulated, heads = _simulated(arguments)
    for word, scans in (("training", training), ("held out", held_out), ("simulated", simulated)):
        _log.info("%s: %s", word, describe(scans))
    manifest = finetune(
        base,
        recipe,
        training,
        simulated,
        held_out,
        arguments.out,
        simulated_heads=heads,
        subjects=subject_names(arguments.bids_dir.resolve().name, kept | held),
        dataset=arguments.bids_dir.resolve().name,
        command=command_line(),
    )
    _log.info("wrote %s; use it with --model %s", manifest, arguments.out)
    return 0


def _crossval(arguments: argparse.Namespace) -> int:
    from bids_cmb.detector.weights import load_model
    from bids_cmb.evaluation.evaluate import evaluate
    from bids_cmb.training.crossval import cross_validate
    from bids_cmb.training.mixing import load_training_scans

    recipe, base = _recipe(arguments), load_model(arguments.model)
    items, notes = find_items(arguments, arguments.bids_dir)
    dataset = arguments.bids_dir.resolve().name
    loaded, left_out = load_training_scans(items, recipe.processes)
    simulated, heads = _simulated(arguments)
    pairs, not_judged = cross_validate(
        loaded,
        base,
        recipe,
        simulated,
        arguments.out,
        folds=arguments.folds,
        simulated_heads=heads,
        dataset=dataset,
        command=command_line(),
        with_anatomy=not arguments.no_anatomy,
    )
    facts = {
        "Data": f"{len(pairs)} scans of {dataset}, annotated in {arguments.annotations.name}",
        "Model": f"fine-tuned from {base.name} {base.version} in {arguments.folds} folds over subjects",
        "Command": command_line(),
    }
    notes += [*left_out, *not_judged]
    write_evaluation(evaluate(pairs), arguments.out, "Cross-validated detection", facts, notes)
    return 0
