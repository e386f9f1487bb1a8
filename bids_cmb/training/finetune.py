"""Fine-tune a detector on annotated scans: from its weights, at a low rate, mixed with simulated scans."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bids_cmb import __version__
from bids_cmb.detector.networks import Student
from bids_cmb.detector.weights import Model, save_model
from bids_cmb.training.calibrate import choose_candidate_threshold, fit_contrast
from bids_cmb.training.checkpoints import begin
from bids_cmb.training.cubes import CubePool
from bids_cmb.training.loop import Pace, log_step
from bids_cmb.training.mixing import mix
from bids_cmb.training.recipe import Recipe, collect_all, each_once, identities, settings_of
from bids_cmb.training.samples import TrainingScan
from bids_cmb.training.scan_candidates import ScanCandidates
from bids_cmb.training.stage1 import train_candidates
from bids_cmb.training.stage2 import judge, train_student
from bids_cmb.types import CONTRASTS, Contrast

_log = logging.getLogger(__name__)

#: With fewer held-out scans or lesions of a contrast than this, its calibration and operating point stay the base's.
LEAST_SCANS, LEAST_LESIONS = 4, 10
#: What of the base model's manifest does not hold for a model that goes on from it.
_NOT_INHERITED = ("format", "weights", "sha256", "operating_points")


@dataclass(frozen=True)
class FinetuneRecipe:
    """Everything that fine-tuning depends on besides the base model and the scans.

    Attributes
    ----------
    name
        Of the new model.
    stage1_steps, student_steps
        Steps of the two networks.
    stage1_rate, student_rate
        Peak learning rates; a tenth of those of a training from scratch.
    simulated_share
        Share of simulated scans among those drawn, 0 to below 1.
    held_out
        Share of the subjects that calibrate and choose the operating point.
    seed, device, processes
        As for training.
    """

    name: str
    stage1_steps: int = 600
    student_steps: int = 400
    stage1_rate: float = 3e-4
    student_rate: float = 2e-4
    simulated_share: float = 0.5
    held_out: float = 0.25
    seed: int = 1
    device: str = "cpu"
    processes: int = 1


def finetune(
    base: Model,
    recipe: FinetuneRecipe,
    training: Sequence[TrainingScan],
    simulated: Sequence[TrainingScan],
    held_out: Sequence[TrainingScan],
    folder: Path,
    *,
    simulated_heads: Collection[str] = (),
    subjects: Collection[str] = (),
    dataset: str,
    command: str,
) -> Path:
    """Fine-tune and save a detector.

    Parameters
    ----------
    base
        Model to start from.
    recipe
        What to do.
    training, simulated
        Scans to train on.
    held_out
        Scans of other subjects: they calibrate and choose the operating points and, where stage 1 finds at least
        `LEAST_LESIONS` lesions of all contrasts in at least `LEAST_SCANS` scans, the threshold of its candidates.
    folder
        Where weights, manifest (.json), card (README.md) and checkpoints go.
    simulated_heads, subjects, dataset, command
        For the manifest: heads of the simulated scans, whose the real ones are (`bids_cmb.training.mixing.subject_names`), name of their
        dataset, what was run.

    Returns
    -------
    Path
        The manifest; `--model` takes it or its folder.

    Raises
    ------
    UsageError
        If the folder holds the beginnings of another training.
    """
    started = time.monotonic()
    scans = mix(training, simulated, recipe.simulated_share)
    checkpoints = folder / "checkpoints"
    resumed = (checkpoints / "stage1.ckpt").exists()  # then the time that it took is not known
    groups = [identities(group) for group in (training, simulated, held_out)]
    begin(checkpoints, {"base": base.sha256, "recipe": settings_of(recipe), "scans": groups})
    stage1 = train_candidates(
        scans,
        Pace(
            recipe.stage1_steps,
            recipe.stage1_rate,
            recipe.device,
            recipe.processes,
            checkpoints / "stage1.ckpt",
        ),
        seed=recipe.seed,
        start=base.candidate_net,
        report=partial(log_step, "stage 1"),
    ).cpu()
    # From as low as in a training from scratch: the base's threshold was chosen for another stage 1.
    least = min(base.candidate_threshold, Recipe.candidate_threshold)
    collecting = Recipe(recipe.name, candidate_threshold=least, processes=recipe.processes)
    unique, draws = each_once(scans)
    sets = collect_all(collecting, stage1, unique, add_missed=True)
    student = _student(base, recipe, sets, draws, checkpoints)
    held = collect_all(collecting, stage1, held_out, add_missed=False)
    threshold, notes = choose_height(base, held, least)
    settings, more = recalibrate(base, student, [s.above(threshold) for s in held])
    notes += more
    seen = base.card.get("training", {})
    for note in notes:
        _log.warning("%s", note)
    card = {
        **{k: v for k, v in base.card.items() if k not in _NOT_INHERITED},
        "name": recipe.name,
        "version": __version__,
        "description": f"Fine-tuned from {base.name} on annotated scans of {dataset}. Research use only.",
        "candidate_threshold": threshold,
        **settings,
        "training": {
            "base": {"name": base.name, "version": base.version, "sha256": base.sha256},
            "recipe": asdict(recipe),
            # Heads that the base has seen flatter its descendants too.
            "anatomy": sorted(
                {*seen.get("anatomy", ()), *(simulated_heads if recipe.simulated_share else ())}
            ),
            "validation_anatomy": seen.get("validation_anatomy", []),
            "subjects": sorted({*seen.get("subjects", ()), *subjects}),
            "dataset": dataset,
            "scans": len(training),
            "held_out_scans": len(held_out),
            "simulated_scans": len(simulated) if recipe.simulated_share else 0,
            "command": command,
            "seconds": None if resumed else round(time.monotonic() - started),
            "notes": notes,
        },
    }
    manifest = save_model(folder, card, stage1, student)
    (folder / "README.md").write_text(_card_text(card), encoding="utf-8")
    return manifest


def _student(
    base: Model,
    recipe: FinetuneRecipe,
    sets: Sequence[ScanCandidates],
    draws: Sequence[int],
    checkpoints: Path,
) -> Student:
    labels = torch.cat([s.labels for s in sets])
    if not bool((labels == 1).any()) or not bool((labels == 0).any()):
        _log.warning(
            "The training scans give no microbleeds or no false candidates: stage 2 stays the base's."
        )
        return base.student

    return train_student(
        CubePool.of(sets, draws),
        None,
        Pace(
            recipe.student_steps,
            recipe.student_rate,
            recipe.device,
            recipe.processes,
            checkpoints / "student.ckpt",
        ),
        seed=recipe.seed,
        start=base.student,
        report=log_step,
    ).cpu()


def choose_height(base: Model, held: Sequence[ScanCandidates], least: float) -> tuple[float, list[str]]:
    """Choose the height from which a peak of the new stage 1 is a candidate, on held-out scans of all contrasts.

    Parameters
    ----------
    base
        Its threshold is kept with fewer than `LEAST_SCANS` scans, or `LEAST_LESIONS` lesions that have a candidate.
    held
        Candidates of the held-out scans.
    least
        The height that they were collected with.

    Returns
    -------
    tuple
        The threshold, and a sentence if it is the base's.
    """
    heights = torch.cat([torch.zeros(0), *(s.heights for s in held)]).double().numpy()
    labels = torch.cat([torch.zeros(0, dtype=torch.int64), *(s.labels for s in held)]).numpy()
    found = int((labels == 1).sum())
    if len(held) >= LEAST_SCANS and found >= LEAST_LESIONS:
        return choose_candidate_threshold(heights, labels, len(held), least=least), []
    return base.candidate_threshold, [
        f"{len(held)} held-out scans with {found} lesions among the candidates are too few (at least {LEAST_SCANS} and {LEAST_LESIONS}) to choose the candidates' threshold on: it is that of {base.name}."
    ]


def recalibrate(
    base: Model, student: Student, held: Sequence[ScanCandidates]
) -> tuple[dict[str, Any], list[str]]:
    """Fit calibration and operating points on held-out scans, contrast by contrast.

    Parameters
    ----------
    base
        Where too few scans or lesions are held out, its numbers are kept.
    student
        Gives the logits.
    held
        Candidates of the held-out scans.

    Returns
    -------
    tuple
        ``calibration``, ``thresholds``, ``definite`` and ``validation`` of the manifest, and sentences about what
        was kept.
    """
    calibration: dict[Contrast, Any] = {c: asdict(base.calibration[c]) for c in CONTRASTS}
    thresholds, definite = dict(base.thresholds), dict(base.definite)
    validation: dict[str, Any] = {}
    notes = []
    for contrast in CONTRASTS:
        mine = [s for s in held if s.scan.contrast == contrast]
        lesions = sum(len(s.scan.lesions) for s in mine)
        offered = sum(int((s.labels == 1).sum()) for s in mine)
        if len(mine) < LEAST_SCANS or offered < LEAST_LESIONS:
            if mine:
                notes.append(
                    f"{contrast}: {len(mine)} held-out scans with {offered} lesions among the candidates are too few (at least {LEAST_SCANS} and {LEAST_LESIONS}) to calibrate on: calibration and operating point are those of {base.name} and may not fit."
                )
            continue
        logits = [judge(student, s).double().numpy() for s in mine]
        fitted = fit_contrast(logits, [s.labels.numpy() for s in mine])
        calibration[contrast] = asdict(fitted.calibration)
        thresholds[contrast], definite[contrast] = fitted.threshold, fitted.definite
        validation[contrast] = {"scans": len(mine), "lesions": lesions} | fitted.figures()
    settings = {
        "calibration": calibration,
        "thresholds": thresholds,
        "definite": definite,
        "validation": validation,
    }
    return settings, notes


def _card_text(card: dict[str, Any]) -> str:
    training = card["training"]
    lines = [
        f"# {card['name']}",
        "",
        card["description"],
        "",
        f"- Base: {training['base']['name']} {training['base']['version']}, SHA-256 {training['base']['sha256'][:12]}",
        f"- Trained on {training['scans']} annotated scans, mixed with {training['simulated_scans']} simulated ones; calibrated on {training['held_out_scans']} scans of other subjects",
        f"- Command: `{training['command']}`",
        *([] if training["seconds"] is None else [f"- Time: {training['seconds']} s"]),
        "",
        "Held-out scans of the dataset (they also chose the operating point, so these figures flatter):",
        "",
        "| contrast | scans | lesions | found | false | Brier |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {c} | {v['scans']} | {v['lesions']} | {v['found']} | {v['false']} | {v['brier']} |"
        for c, v in card["validation"].items()
    ]
    lines += ["", *(f"- {note}" for note in training["notes"])]
    return (
        "\n".join(lines).rstrip()
        + "\n\nUse: `bids-cmb BIDS_DIR OUTPUT_DIR participant --model THIS_FOLDER`\n"
    )
