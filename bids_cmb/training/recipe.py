"""The whole training: corpus in, model folder out. One code path for the shipped weights and for users."""

from __future__ import annotations

import copy
import logging
import time
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bids_cmb import __version__
from bids_cmb.detector.networks import CandidateNet, Student, Teacher
from bids_cmb.detector.weights import Model, find_manifest, load_model, save_model
from bids_cmb.errors import InputError
from bids_cmb.training.calibrate import (
    choose_candidate_threshold,
    fit_contrast,
)
from bids_cmb.training.checkpoints import begin
from bids_cmb.training.cubes import CubePool
from bids_cmb.training.grow import grown
from bids_cmb.training.loop import Pace, log_step
from bids_cmb.training.parallel import arrays_of_all
from bids_cmb.training.samples import TrainingScan
from bids_cmb.training.scan_candidates import ScanCandidates, collect_candidates
from bids_cmb.training.stage1 import STAGE1_RATE, train_candidates
from bids_cmb.training.stage2 import STAGE2_RATE, judge, train_student, train_teacher
from bids_cmb.types import CONTRASTS

if TYPE_CHECKING:
    from bids_cmb.training.finetune import FinetuneRecipe

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything that a training depends on besides its scans.

    ``real_scans`` names the dataset of annotated real scans among them; empty if all are simulated. Of several
    ``students``, which begin alike and see other batches, the weights are averaged; ``averaged_with_start`` averages
    them half and half with the student that the training goes on from (Wortsman 2022). The networks of stage 2 have
    ``stage2_widths`` maps (None: as those they go on from, else the default); those of narrower ones grow.
    """

    name: str
    seed: int = 1
    stage1_steps: int = 3000
    teacher_steps: int = 500
    student_steps: int = 1000
    candidate_threshold: float = 0.06
    distil: bool = True
    device: str = "cpu"
    processes: int = 1
    real_scans: str = ""
    stage1_rate: float = STAGE1_RATE
    stage2_rate: float = STAGE2_RATE
    continued_from: str = ""
    students: int = 1
    averaged_with_start: bool = False
    precision: str = "float32"
    stage2_widths: tuple[int, int, int] | None = None


def train_model(
    recipe: Recipe,
    training: Sequence[TrainingScan],
    validation: Sequence[TrainingScan],
    folder: Path,
    *,
    trained_on: Sequence[str],
    validated_on: Sequence[str] = (),
    subjects: Collection[str] = (),
    command: str,
) -> Path:
    """Train, calibrate and save a detector.

    Parameters
    ----------
    recipe
        What to do.
    training, validation
        Scans of different heads. A training scan that is listed several times is drawn as often as that.
    folder
        Where weights, manifest and checkpoints go.
    trained_on, validated_on
        Sources of the anatomy, for the manifest.
    subjects
        Whose the real scans are (`bids_cmb.training.mixing.subject_names`), those of an earlier training too.
    command
        What was run, for the manifest.

    Returns
    -------
    Path
        The manifest.

    Raises
    ------
    UsageError
        If the folder holds the beginnings of another training.
    """
    started = time.monotonic()
    kept = folder / "candidates.npz"
    # What was begun earlier took a time that is not known.
    resumed = kept.exists() or any(folder.glob("*.ckpt"))
    earlier = earlier_networks(recipe)
    begin(folder, {"recipe": settings_of(recipe), "scans": identities(training)})
    scans, draws = each_once(training)

    def pace(name: str, steps: int, rate: float) -> Pace:
        return Pace(steps, rate, recipe.device, recipe.processes, folder / f"{name}.ckpt", recipe.precision)

    stage1 = train_candidates(
        training,
        pace("stage1", recipe.stage1_steps, recipe.stage1_rate),
        start=earlier.stage1,
        seed=recipe.seed,
        report=partial(log_step, "stage 1", steps=recipe.stage1_steps),
    ).cpu()
    if not kept.exists():
        CubePool.of(collect_all(recipe, stage1, scans, add_missed=True), draws).save(kept)
    pool = CubePool.load(kept)
    _log.info(
        "stage 1 done: %d candidates on %d training scans, %d of them microbleeds (%.0f s)",
        len(pool.labels),
        len(scans),
        int(pool.labels.sum()),
        time.monotonic() - started,
    )

    teacher = (
        train_teacher(
            pool,
            pace("teacher", recipe.teacher_steps, recipe.stage2_rate),
            start=earlier.teacher,
            seed=recipe.seed,
            report=log_step,
        )
        if recipe.distil
        else None
    )
    # Students are averaged, so they begin alike: with their teacher, or from one network.
    start = None if teacher is not None else earlier.student or _seeded_student(recipe.seed)
    students = [
        train_student(
            pool,
            teacher,
            pace(f"student-{number + 1}" if number else "student", recipe.student_steps, recipe.stage2_rate),
            start=start,
            seed=recipe.seed + number,
            report=log_step,
        ).cpu()
        for number in range(recipe.students)
    ]
    student = averaged(students)
    if recipe.averaged_with_start and earlier.student is not None:
        student = averaged([student, earlier.student.eval()])
    return finish_model(
        recipe,
        stage1,
        student,
        validation,
        folder,
        trained_on=trained_on,
        validated_on=validated_on,
        subjects=subjects,
        command=command,
        seconds=None if resumed else round(time.monotonic() - started),
        training_scans=len(scans),
    )


def _seeded_student(seed: int) -> Student:
    torch.manual_seed(seed + 1)
    return Student()


def settings_of(recipe: Recipe | FinetuneRecipe) -> dict[str, Any]:
    """What of a recipe its networks depend on: a training may go on with other processes, or on another device."""
    return asdict(recipe) | {"processes": 1, "device": "cpu"}


def identities(scans: Sequence[TrainingScan]) -> list[list[str]]:
    """Names of scans and a checksum of the lesions that are marked on each: others make another training."""
    checksums = {id(scan): _checksum(scan) for scan in each_once(scans)[0]}
    return sorted([scan.name, checksums[id(scan)]] for scan in scans)


def _checksum(scan: TrainingScan) -> str:
    value = 0
    for marks in (scan.lesions, scan.diameters, scan.ignored, scan.ignored_diameters, scan.segmentation):
        value = zlib.crc32(np.ascontiguousarray(marks).tobytes(), value)
    return f"{value:08x}"


def each_once(scans: Sequence[TrainingScan]) -> tuple[list[TrainingScan], list[int]]:
    """Return the different scans of a list in their order, and how often each is in it."""
    unique = {id(scan): scan for scan in scans}
    listed = Counter(id(scan) for scan in scans)
    return list(unique.values()), [listed[key] for key in unique]


@dataclass(frozen=True)
class Earlier:
    """Networks of a training that this one goes on from; None for what begins anew."""

    stage1: CandidateNet | None = None
    teacher: Teacher | None = None
    student: Student | None = None


def earlier_networks(recipe: Recipe) -> Earlier:
    """Networks of the model that this training goes on from, if it names one.

    The teacher is that of the training beside the model; without one, it begins with the encoder and the classifier
    of the model's student. A student that is taught begins with its teacher.

    Raises
    ------
    ModelError
        If there is no such model.
    InputError
        If the teacher is another network than today's.
    """
    widths = recipe.stage2_widths
    torch.manual_seed(
        recipe.seed
    )  # the decoder of a teacher that a model lacks, and what grows, begin at random
    if not recipe.continued_from:
        return Earlier() if widths is None else Earlier(None, Teacher(widths=widths), Student(widths=widths))
    model = load_model(recipe.continued_from)
    teacher = Teacher(model.student.channels, model.student.widths).begin_with(model.student)
    path = find_manifest(recipe.continued_from).parent / "teacher.ckpt"
    if path.is_file():
        try:
            teacher.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["average"])
        except RuntimeError as error:
            raise InputError(
                f"{path} holds another network than this version trains: remove it, and the teacher begins with "
                "what the student knows."
            ) from error
    if widths is None:
        return Earlier(model.candidate_net, teacher, model.student)
    return Earlier(model.candidate_net, grown(teacher, widths), grown(model.student, widths))


def averaged(students: Sequence[Student]) -> Student:
    """Average the weights of students that began alike, or of one and what it began with.

    Steadier than any of them, and no slower (Wortsman et al., ICML 2022); with the beginning, little of what it knew
    is lost (Wortsman et al., CVPR 2022).
    """
    states = [student.state_dict() for student in students]
    mean = copy.deepcopy(students[0])
    mean.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(dim=0) if x.is_floating_point() else x
            for name, x in states[0].items()
        }
    )
    return mean


def earlier_anatomy(folder: Path | None) -> set[str]:
    """Heads that the networks of an earlier training or model have seen, by its manifest; none without one."""
    return set() if folder is None else set(load_model(folder).card.get("training", {}).get("anatomy", []))


def known_subjects(model: Model) -> set[str]:
    """Subjects whose real scans trained or calibrated a model, by its manifest."""
    return set(model.card.get("training", {}).get("subjects", ()))


def collect_all(
    recipe: Recipe, stage1: CandidateNet, scans: Sequence[TrainingScan], *, add_missed: bool
) -> list[ScanCandidates]:
    """Candidates of all scans, in order; the scans themselves stay where they are."""

    def make(i: int) -> dict[str, np.ndarray]:
        found = collect_candidates(
            stage1, scans[i], threshold=recipe.candidate_threshold, add_missed=add_missed
        )
        return found.arrays()

    parts = arrays_of_all(make, len(scans), recipe.processes)
    return [ScanCandidates.of(scan, arrays) for scan, arrays in zip(scans, parts, strict=True)]


def judge_all(recipe: Recipe, student: Student, sets: Sequence[ScanCandidates]) -> list[torch.Tensor]:
    """Student's logits for the candidates of every scan, in order."""
    parts = arrays_of_all(lambda i: {"logits": judge(student, sets[i]).numpy()}, len(sets), recipe.processes)
    return [torch.from_numpy(arrays["logits"]) for arrays in parts]


def finish_model(
    recipe: Recipe,
    stage1: CandidateNet,
    student: Student,
    validation: Sequence[TrainingScan],
    folder: Path,
    *,
    trained_on: Sequence[str],
    validated_on: Sequence[str],
    subjects: Collection[str],
    command: str,
    seconds: int | None,
    training_scans: int,
) -> Path:
    """Calibrate on validation scans, choose operating points and write the model folder."""
    held = collect_all(recipe, stage1, validation, add_missed=False)
    least = choose_candidate_threshold(
        torch.cat([s.heights for s in held]).double().numpy(),
        torch.cat([s.labels for s in held]).numpy(),
        len(held),
        least=recipe.candidate_threshold,
    )
    held = [s.above(least) for s in held]
    logits = judge_all(recipe, student, held)
    calibration, thresholds, definite, figures = {}, {}, {}, {}
    for contrast in CONTRASTS:
        mine = [(s, x) for s, x in zip(held, logits, strict=True) if s.scan.contrast == contrast]
        if not mine:
            _log.warning(
                "No validation scan is %s: its probabilities are not calibrated and its operating point is the least.",
                contrast.upper(),
            )
        fitted = fit_contrast([x.double().numpy() for _, x in mine], [s.labels.numpy() for s, _ in mine])
        calibration[contrast] = asdict(fitted.calibration)
        thresholds[contrast], definite[contrast] = fitted.threshold, fitted.definite
        figures[contrast] = _stage1_figures([s for s, _ in mine]) | fitted.figures()
        _log.info("validation %s: %s", contrast, figures[contrast])
    card: dict[str, Any] = {
        "name": recipe.name,
        "version": __version__,
        "licence": "Apache-2.0",
        "description": f"Microbleed detector for SWI, T2*-weighted GRE and QSM, trained on {_sources(recipe)}. Research use only.",
        "contrasts": list(CONTRASTS),
        "grid": {"in_plane_mm": 0.75, "thinnest_slice_mm": 1.5},
        "candidate_net": {"channels": stage1.channels, "widths": list(stage1.widths)},
        "student": {"channels": student.channels, "widths": list(student.widths)},
        "candidate_threshold": least,
        "thresholds": thresholds,
        "definite": definite,
        "calibration": calibration,
        "training": {
            "recipe": asdict(recipe),
            "anatomy": list(trained_on),
            "validation_anatomy": list(validated_on),
            **({"subjects": sorted(subjects)} if subjects else {}),
            "scans": training_scans,
            "command": command,
            "seconds": seconds,
            "device": recipe.device,
        },
        "validation": figures,
    }
    return save_model(folder, card, stage1, student)


def _sources(recipe: Recipe) -> str:
    if not recipe.real_scans:
        return "simulated scans only"
    return f"simulated scans and annotated scans of {recipe.real_scans}"


def _stage1_figures(sets: Sequence[ScanCandidates]) -> dict[str, Any]:
    lesions = sum(len(s.scan.lesions) for s in sets)
    return {
        "scans": len(sets),
        "lesions": lesions,
        "stage1_found": int(lesions - sum(s.missed for s in sets)),
        "candidates_per_scan": round(float(np.mean([len(s.labels) for s in sets])), 1) if sets else None,
    }
