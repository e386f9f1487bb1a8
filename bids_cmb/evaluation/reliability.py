"""Is a probability of 0.7 right seven times in ten? Reliability curve, Brier score, expected calibration error.

Every candidate with a probability counts, accepted or not, but for the ignored ones; it is right if it adds a
found lesion (one to one). Sources: Brier, Mon Weather Rev 1950;78:1-3; expected calibration error with equal bins,
Naeini et al., AAAI 2015.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bids_cmb.evaluation.bootstrap import Figure, FloatMatrix, Resamples, divide, ratio, wilson
from bids_cmb.evaluation.matching import ScanMatch

BINS = 10
#: Most candidates are surely nothing and hide how well the others are calibrated: these are summed up apart.
_SURE = 0.1
_SURE_NAME = ", candidates of 0.1 or more"


@dataclass(frozen=True)
class ReliabilityBin:
    """Candidates whose probabilities lie in one tenth: how many, mean probability, share that is right with interval."""

    low: float
    high: float
    count: int
    mean: float
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True, eq=False)
class Reliability:
    """The curve and its summaries."""

    bins: tuple[ReliabilityBin, ...]
    figures: tuple[Figure, ...]


def judged(
    matches: Sequence[ScanMatch],
) -> tuple[FloatMatrix, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return probability, whether it is right, and scan number of every candidate that is not ignored."""
    rows = [
        (prediction.score, bool(match.ranked_hit[index]), number)
        for number, match in enumerate(matches)
        for index, prediction in enumerate(match.pair.predictions)
        if index not in match.ignored
    ]
    return (
        np.array([row[0] for row in rows], dtype=np.float64),
        np.array([row[1] for row in rows], dtype=np.bool_),
        np.array([row[2] for row in rows], dtype=np.int64),
    )


def reliability(matches: Sequence[ScanMatch], resamples: Resamples) -> Reliability:
    """Compare probabilities with what came true.

    Parameters
    ----------
    matches
        One per scan; scores must be probabilities.
    resamples
        Draws of subjects, made for the same scans.
    """
    probability, right, scan = judged(matches)
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    every = probability, right, scan
    likely = probability >= _SURE
    sure = probability[likely], right[likely], scan[likely]
    bins = []
    for number in range(BINS):
        mine = place == number
        count, hits = int(mine.sum()), float(right[mine].sum())
        mean = float(probability[mine].mean()) if count else math.nan
        low, high = wilson(hits, count)
        share = hits / count if count else math.nan
        bins.append(ReliabilityBin(number / BINS, (number + 1) / BINS, count, mean, share, low, high))
    return Reliability(
        tuple(bins),
        (*_scores("", *every, len(matches), resamples), *_scores(_SURE_NAME, *sure, len(matches), resamples)),
    )


def _scores(
    suffix: str,
    probability: FloatMatrix,
    right: npt.NDArray[np.bool_],
    scan: npt.NDArray[np.int64],
    scans: int,
    resamples: Resamples,
) -> tuple[Figure, Figure]:
    """Brier score and expected calibration error of some candidates."""
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    error, ones = np.zeros(scans), np.zeros(scans)
    np.add.at(error, scan, (probability - right) ** 2)
    np.add.at(ones, scan, 1.0)
    brier = ratio(
        "calibration", f"Brier score{suffix}", error, ones, resamples, unit="predictions", proportion=False
    )
    excess = np.zeros((scans, BINS))
    np.add.at(excess, (scan, place), probability - right)
    value = float(_calibration_error(excess.sum(axis=0)[None], ones.sum()[None])[0])
    # No interval: a sum of absolute values is too large in a sample, and larger still in resamples of it.
    name = f"expected calibration error{suffix}"
    return brier, Figure(
        "calibration", name, value, math.nan, math.nan, len(probability), "predictions", "none"
    )


def _calibration_error(excess: FloatMatrix, count: FloatMatrix) -> FloatMatrix:
    """Mean over candidates of |mean probability - share right| of their bin; `excess` (replicates, bins) is summed."""
    return divide(np.abs(excess).sum(axis=1), count)
