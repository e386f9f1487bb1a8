"""Annotated scans for training: read, split by subject, and mixed with simulated ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from math import floor
from multiprocessing import get_context

import numpy as np
import torch

from bids_cmb.errors import BidsCmbError, InputError, UsageError
from bids_cmb.training.datasets import AnnotatedScan, left_out_because, to_training_scan
from bids_cmb.training.samples import TrainingScan

_log = logging.getLogger(__name__)

#: `mix` repeats one of the two groups at most this often, so that lists stay short.
_MOST_REPEATS = 20


def split_subjects(subjects: Sequence[str], share: float, seed: int) -> tuple[set[str], set[str]]:
    """Draw subjects to hold out: at least one, and at least one stays; (kept, held out).

    Raises
    ------
    UsageError
        If there is one subject only.
    """
    names = sorted(set(subjects))
    if len(names) < 2:
        raise UsageError("Annotated scans of at least two subjects are needed: some train, others calibrate.")
    count = min(max(1, round(share * len(names))), len(names) - 1)
    order = np.random.default_rng(seed).permutation(len(names))
    held = {names[i] for i in order[:count]}
    return set(names) - held, held


def subject_names(dataset: str, subjects: Collection[str]) -> set[str]:
    """Subjects of a dataset as manifests name them."""
    return {f"{dataset}/sub-{subject}" for subject in subjects}


def mix(real: Sequence[TrainingScan], simulated: Sequence[TrainingScan], share: float) -> list[TrainingScan]:
    """List scans so that a share of them is simulated: the training draws all of the list equally often.

    Of the numbers of repeats the shortest list is taken whose share is the nearest one, to the percent.

    Parameters
    ----------
    real, simulated
        Scans; both groups stay whole and are repeated.
    share
        Of simulated ones, 0 to below 1; 0 leaves them out.

    Returns
    -------
    list of TrainingScan
        The same objects, some several times.

    Raises
    ------
    UsageError
        If the share is out of bounds, or scans of a wanted kind are missing.
    """
    if not 0 <= share < 1 or not real:
        raise UsageError("Mixing needs real scans and a share of simulated ones from 0 to below 1.")
    if share == 0:
        return list(real)
    if not simulated:
        raise UsageError("A share of simulated scans was asked for, but there are none: give --simulated FOLDER or --simulated-share 0.")  # fmt: skip
    # Repeats of the simulated scans for each repeat of the real ones: rarely a whole number.
    exact = share / (1 - share) * len(real) / len(simulated)

    def preference(times: tuple[int, int]) -> tuple[float, int]:
        counts = times[0] * len(real), times[1] * len(simulated)
        return round(abs(counts[1] / sum(counts) - share), 2), sum(counts)

    few = range(1, _MOST_REPEATS + 1)
    options = chain(
        ((n, max(1, floor(n * exact) + more)) for n in few for more in (0, 1)),
        ((max(1, floor(n / exact) + more), n) for n in few for more in (0, 1)),
    )
    times_real, times_simulated = min(options, key=preference)
    return [*(list(real) * times_real), *(list(simulated) * times_simulated)]


def load_training_scans(
    items: Sequence[AnnotatedScan], processes: int
) -> tuple[list[tuple[AnnotatedScan, TrainingScan]], list[str]]:
    """Prepare annotated scans, several at once; one that can't be used costs no other.

    Returns
    -------
    tuple
        Those that can be used, and a sentence on each of the others, which is a warning in the log as well.

    Raises
    ------
    InputError
        If none can be used.
    """
    if processes == 1:
        made = [_prepared(item) for item in items]
    else:
        # Spawned, not forked: the training forks later and must find no threads.
        with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            made = list(pool.map(_prepared, items))
    loaded = [(item, x) for item, x in zip(items, made, strict=True) if not isinstance(x, str)]
    left_out = [x for x in made if isinstance(x, str)]
    for sentence in left_out:
        _log.warning("%s", sentence)
    if not loaded:
        raise InputError(f"None of the {len(items)} annotated scans can be used. {' '.join(left_out[:1])}")
    return loaded, left_out


def _prepared(item: AnnotatedScan) -> TrainingScan | str:
    try:
        return to_training_scan(item)
    except BidsCmbError as error:
        return left_out_because(item, error)


def describe(scans: Sequence[TrainingScan]) -> str:
    """Count scans by contrast and lesions, for the log."""
    contrasts = Counter(scan.contrast for scan in scans)
    listed = ", ".join(f"{n} {c}" for c, n in sorted(contrasts.items())) or "none"
    return f"{listed}, {sum(len(scan.lesions) for scan in scans)} lesions"
