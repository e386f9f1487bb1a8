"""Figures with their uncertainty: resampling of subjects, and intervals of proportions.

Scans of one subject are not independent, so subjects are what is resampled (percentile bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatMatrix = npt.NDArray[np.float64]

REPLICATES = 2000
_Z = 1.959963984540054


@dataclass(frozen=True)
class Figure:
    """One number of an evaluation.

    Attributes
    ----------
    group, name
        Where it belongs and what it is.
    value
        The estimate; nan if it is not defined (say, sensitivity without lesions).
    low, high
        95 % confidence interval; nan if there is none.
    n
        Number of `unit` that it is about.
    unit
        ``lesions``, ``predictions``, ``scans`` or ``subjects``.
    interval
        How the interval was made: ``bootstrap``, ``Wilson`` or ``none``.
    """

    group: str
    name: str
    value: float
    low: float
    high: float
    n: int
    unit: str
    interval: str = "bootstrap"


@dataclass(frozen=True, eq=False)
class Resamples:
    """Draws of subjects with replacement.

    Attributes
    ----------
    owner
        Subject number of each scan, shape (scans,).
    draws
        Subject numbers of each replicate, int64, shape (replicates, subjects).
    """

    owner: npt.NDArray[np.int64]
    draws: npt.NDArray[np.int64]

    @classmethod
    def of(cls, subjects: Sequence[str], *, replicates: int = REPLICATES, seed: int = 0) -> Resamples:
        """Draw subjects; `subjects` names the subject of each scan."""
        names, owner = np.unique(np.asarray(subjects, dtype=np.str_), return_inverse=True)
        generator = np.random.default_rng(seed)
        size = (replicates, len(names))
        return cls(owner.astype(np.int64), generator.integers(0, max(1, len(names)), size=size))

    @property
    def subjects(self) -> int:
        """Number of subjects."""
        return int(self.draws.shape[1])

    @property
    def weights(self) -> FloatMatrix:
        """How often each subject was drawn, shape (replicates, subjects)."""
        replicates, subjects = self.draws.shape
        cells = self.draws + np.arange(replicates)[:, None] * subjects
        counts = np.bincount(cells.reshape(-1), minlength=replicates * subjects)
        return counts.reshape(replicates, subjects).astype(np.float64)

    def by_subject(self, values: FloatMatrix) -> FloatMatrix:
        """Add up values of scans, shape (scans, columns), to subjects."""
        total = np.zeros((self.subjects, values.shape[1]))
        np.add.at(total, self.owner, values)
        return total

    def totals(self, values: FloatMatrix) -> FloatMatrix:
        """Return column sums of values of scans in each replicate, shape (replicates, columns)."""
        return self.weights @ self.by_subject(values)


def interval(replicates: FloatMatrix) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of what is defined, or nan if half of it is not."""
    defined = replicates[np.isfinite(replicates)]
    if defined.size == 0 or 2 * defined.size < replicates.size:
        return math.nan, math.nan
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def wilson(successes: float, total: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion (J Am Stat Assoc 1927;22:209-212)."""
    if total <= 0:
        return math.nan, math.nan
    share = successes / total
    centre = share + _Z**2 / (2 * total)
    spread = _Z * math.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2))
    scale = 1 + _Z**2 / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def bounds(
    replicates: FloatMatrix, resamples: Resamples, *, counts: tuple[float, float] | None = None
) -> tuple[float, float, str]:
    """Return the interval of a figure and how it was made.

    Where resampling cannot vary it (all found, none found, or one subject), a proportion gets Wilson's interval, since
    all found of three lesions is no certainty, and anything else none.

    Parameters
    ----------
    replicates
        The figure in each replicate.
    resamples
        What they were made from.
    counts
        Successes and total, if the figure is a proportion.
    """
    low, high = interval(replicates)
    if resamples.subjects > 1 and low < high:
        return low, high, "bootstrap"
    if counts is None or counts[1] <= 0:
        return math.nan, math.nan, "none"
    return *wilson(*counts), "Wilson"


def divide(above: FloatMatrix, below: FloatMatrix) -> FloatMatrix:
    """Divide; 0/0 and x/0 are nan."""
    out: FloatMatrix = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=out, where=np.asarray(below) > 0)
    return out


def ratio(
    group: str,
    name: str,
    above: FloatMatrix,
    below: FloatMatrix,
    resamples: Resamples,
    *,
    unit: str,
    proportion: bool = True,
) -> Figure:
    """Estimate a pooled ratio, the sum of `above` over the sum of `below`, each given per scan."""
    total = float(above.sum()), float(below.sum())
    value = total[0] / total[1] if total[1] > 0 else math.nan
    sums = resamples.totals(np.stack([above, below], axis=1))
    low, high, kind = bounds(divide(sums[:, 0], sums[:, 1]), resamples, counts=total if proportion else None)
    return Figure(group, name, value, low, high, round(total[1]), unit, kind)


def median_of_items(group: str, name: str, values: FloatMatrix, resamples: Resamples, *, unit: str) -> Figure:
    """Estimate the median of items of which a subject has several; `resamples.owner` tells whose each is."""
    order = np.argsort(values)
    weights = resamples.weights[:, resamples.owner[order]].cumsum(axis=1)
    half = weights[:, -1:] / 2
    ranked = values[order]
    # The mean of the two middle items where their number is even.
    lower, upper = (weights < half).sum(axis=1), (weights <= half).sum(axis=1)
    low, high = interval((ranked[lower] + ranked[upper]) / 2)
    return Figure(group, name, float(np.median(values)), low, high, values.size, unit)


def quantile(
    group: str, name: str, values: FloatMatrix, share: float, resamples: Resamples, *, unit: str = "subjects"
) -> Figure:
    """Estimate a quantile over subjects; `values` has one entry per subject, nan where undefined."""
    defined = int(np.isfinite(values).sum())
    if defined == 0:
        return Figure(group, name, math.nan, math.nan, math.nan, 0, unit, "none")
    drawn = np.sort(values[resamples.draws], axis=1)  # nan goes last
    count = np.isfinite(drawn).sum(axis=1)
    place = np.maximum(count - 1, 0) * share
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    rows = np.arange(len(drawn))
    estimates = drawn[rows, below] + (place - below) * (drawn[rows, above] - drawn[rows, below])
    low, high = interval(estimates) if defined > 1 else (math.nan, math.nan)
    kind = "bootstrap" if defined > 1 else "none"
    return Figure(group, name, float(np.nanquantile(values, share)), low, high, defined, unit, kind)
