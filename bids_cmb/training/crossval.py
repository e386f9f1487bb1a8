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
from bids_cmb.errors import UsageError
from bids_cmb.evaluation.cases import ScanPair
from bids_cmb.training.datasets import AnnotatedScan, detected_pair
from bids_cmb.training.finetune import FinetuneRecipe, finetune, load_training_scans, split_subjects
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
    items: Sequence[AnnotatedScan],
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
) -> list[ScanPair]:
    """Fine-tune once per fold and judge the fold's subjects; the pairs of all folds are pooled.

    Parameters
    ----------
    items
        Annotated scans.
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
    list of ScanPair
        One per scan, in the order of `items`.

    Notes
    -----
    Operating points are chosen on subjects that are neither trained on nor judged.
    """
    subjects = [item.scan.subject for item in items]
    dealt = subject_folds(subjects, folds, recipe.seed)
    scans = load_training_scans(items, recipe.processes)
    judged: dict[str, ScanPair] = {}
    for number, test in enumerate(dealt, start=1):
        kept, held = split_subjects([s for s in subjects if s not in test], recipe.held_out, recipe.seed)
        home = folder / f"fold-{number}"

        def of(names: set[str]) -> list[TrainingScan]:
            return [scan for scan, subject in zip(scans, subjects, strict=True) if subject in names]

        _log.info("fold %d of %d: %d subjects train, %d calibrate, %d are judged", number, folds, len(kept), len(held), len(test))  # fmt: skip
        manifest = finetune(
            base,
            replace(recipe, name=f"{recipe.name}-fold-{number}"),
            of(kept),
            simulated,
            of(held),
            home,
            simulated_heads=simulated_heads,
            dataset=dataset,
            command=command,
        )
        mine = [item for item in items if item.scan.subject in test]
        judge = partial(_judge, manifest=manifest, with_anatomy=with_anatomy, device=recipe.device)
        for item, pair in zip(mine, _run(judge, mine, recipe.processes), strict=True):
            judged[str(item.scan.path)] = pair
    return [judged[str(item.scan.path)] for item in items]


def _judge(item: AnnotatedScan, manifest: Path, with_anatomy: bool, device: str) -> ScanPair:
    return detected_pair(item, load_model(manifest), device=device, with_anatomy=with_anatomy)


def _run(judge: partial[ScanPair], items: Sequence[AnnotatedScan], processes: int) -> list[ScanPair]:
    if processes == 1:
        return [judge(item) for item in items]
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return list(pool.map(judge, items))
