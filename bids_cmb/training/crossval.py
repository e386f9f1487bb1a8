"""Subject-level cross-validation of fine-tuning: every annotated scan is judged by a model that never saw its subject."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from bids_cmb.detector.weights import Model, load_model
from bids_cmb.errors import BidsCmbError, InputError, UsageError
from bids_cmb.evaluation.cases import ScanPair
from bids_cmb.training.datasets import AnnotatedScan, detected_pair, left_out_because
from bids_cmb.training.finetune import FinetuneRecipe, finetune
from bids_cmb.training.mixing import split_subjects, subject_names
from bids_cmb.training.recipe import known_subjects
from bids_cmb.training.samples import TrainingScan

_log = logging.getLogger(__name__)


def subject_folds(subjects: Sequence[str], folds: int, seed: int) -> list[set[str]]:
    """Deal subjects out to folds of nearly equal size.

    Raises
    ------
    UsageError
        If there are fewer subjects than folds, or fewer than two folds, or no two subjects are left to train on.
    """
    names = sorted(set(subjects))
    if folds < 2 or len(names) < max(folds, 3):
        raise UsageError(
            f"{len(names)} annotated subjects cannot be dealt into {folds} folds: there must be at least two folds, as many subjects as folds, and three subjects."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    return [{names[i] for i in order[fold::folds]} for fold in range(folds)]


def cross_validate(
    loaded: Sequence[tuple[AnnotatedScan, TrainingScan]],
    base: Model,
    recipe: FinetuneRecipe,
    simulated: Sequence[TrainingScan],
    folder: Path,
    *,
    folds: int,
    simulated_heads: Collection[str] = (),
    dataset: str,
    command: str,
    with_anatomy: bool = True,
) -> tuple[list[ScanPair], list[str]]:
    """Fine-tune once per fold and judge the fold's subjects; the pairs of all folds are pooled.

    Parameters
    ----------
    loaded
        Annotated scans, as `bids_cmb.training.mixing.load_training_scans` returns them.
    base, recipe, simulated, simulated_heads, dataset, command
        As for `bids_cmb.training.finetune.finetune`.
    folder
        Gets one model folder per fold.
    folds
        Number of folds.
    with_anatomy
        Register the judged scans to MNI space, as the main job does.

    Returns
    -------
    tuple
        One pair per scan, in the order of `loaded`, and a sentence on each scan that the detector could not judge,
        which is a warning in the log as well.

    Raises
    ------
    InputError
        If none could be judged.
    UsageError
        If the base model has learnt from one of the subjects.

    Notes
    -----
    Operating points are chosen on subjects that are neither trained on nor judged.
    """
    subjects = [item.scan.subject for item, _ in loaded]
    if known := sorted(subject_names(dataset, subjects) & known_subjects(base)):
        raise UsageError(
            f"{base.name} has learnt from {known[0]} and {len(known) - 1} more of these subjects: start from a model that has not (--model)."
        )
    dealt = subject_folds(subjects, folds, recipe.seed)
    judged: dict[str, ScanPair | str] = {}
    for number, test in enumerate(dealt, start=1):
        kept, held = split_subjects([s for s in subjects if s not in test], recipe.held_out, recipe.seed)
        home = folder / f"fold-{number}"

        def of(names: set[str]) -> list[TrainingScan]:
            return [scan for item, scan in loaded if item.scan.subject in names]

        _log.info("fold %d of %d: %d subjects train, %d calibrate, %d are judged", number, folds, len(kept), len(held), len(test))  # fmt: skip
        manifest = finetune(
            base,
            replace(recipe, name=f"{recipe.name}-fold-{number}"),
            of(kept),
            simulated,
            of(held),
            home,
            simulated_heads=simulated_heads,
            subjects=subject_names(dataset, kept | held),
            dataset=dataset,
            command=command,
        )
        mine = [item for item, _ in loaded if item.scan.subject in test]
        judge = partial(_judge, manifest=manifest, with_anatomy=with_anatomy, device=recipe.device)
        for item, pair in zip(mine, _run(judge, mine, recipe.processes), strict=True):
            judged[str(item.scan.path)] = pair
            if isinstance(pair, str):
                _log.warning("%s", pair)
    every = [judged[str(item.scan.path)] for item, _ in loaded]
    pairs, notes = [x for x in every if not isinstance(x, str)], [x for x in every if isinstance(x, str)]
    if not pairs:
        raise InputError(f"None of the {len(every)} annotated scans could be judged. {notes[0]}")
    return pairs, notes


def _judge(item: AnnotatedScan, manifest: Path, with_anatomy: bool, device: str) -> ScanPair | str:
    model = load_model(manifest)
    try:
        return detected_pair(item, model, device=device, with_anatomy=with_anatomy)
    except BidsCmbError as error:
        return left_out_because(item, error)


def _run(
    judge: partial[ScanPair | str], items: Sequence[AnnotatedScan], processes: int
) -> list[ScanPair | str]:
    if processes == 1:
        return [judge(item) for item in items]
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return list(pool.map(judge, items))
