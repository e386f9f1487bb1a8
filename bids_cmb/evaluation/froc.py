"""The free-response curve: lesions found against false detections per scan, as the threshold falls.

Components and their scores are frozen: they are not cut out anew at each threshold, so the curve never falls.
Summaries as in LUNA16 (Setio et al., Med Image Anal 2017): sensitivity at 1/8 ... 8 false detections per scan
and the mean of the seven. A step is read at its foot: the sensitivity at a rate is the highest of any threshold
with at most that many false detections, nothing is interpolated between thresholds that exist.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bids_cmb.evaluation.bootstrap import Figure, Resamples, bounds, interval
from bids_cmb.evaluation.matching import ScanMatch

FloatMatrix = npt.NDArray[np.float64]

#: False detections per scan at which sensitivity is reported.
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
#: The partial area goes up to this many false detections per scan.
AREA_LIMIT = 2.0
#: Rates at which the band is drawn.
_BAND = np.geomspace(1 / 16, 16.0, 49)


@dataclass(frozen=True, eq=False)
class Froc:
    """A curve and what it is summed up in.

    Attributes
    ----------
    thresholds, sensitivity, false_per_scan
        One point per distinct score, from the highest down; shape (points,).
    band_rates, band_low, band_high
        95 % confidence band of the sensitivity at fixed rates.
    figures
        Sensitivity at the `RATES`, their mean, and the partial area, with intervals.
    lesions, scans
        What the curve is about.
    """

    thresholds: FloatMatrix
    sensitivity: FloatMatrix
    false_per_scan: FloatMatrix
    band_rates: FloatMatrix
    band_low: FloatMatrix
    band_high: FloatMatrix
    figures: tuple[Figure, ...]
    lesions: int
    scans: int


def froc(matches: Sequence[ScanMatch], resamples: Resamples) -> Froc:
    """Draw the curve of a set of scans.

    Parameters
    ----------
    matches
        One per scan, in the order in which `resamples` was made.
    resamples
        Draws of subjects.

    Returns
    -------
    Froc
        The curve; without lesions its sensitivities are nan.
    """
    scores, scan, hit, false = _ranked(matches)
    lesions = np.array([len(match.counted) for match in matches], dtype=np.float64)
    ends = np.flatnonzero(np.r_[scores[1:] != scores[:-1], np.ones(min(1, scores.size), dtype=np.bool_)])
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = np.cumsum(hit)[ends] / lesions.sum()
        rate = np.cumsum(false)[ends] / max(1, len(matches))
    queries = np.r_[RATES, _BAND]
    drawn, drawn_area = _replicates(scan, hit, false, ends, lesions, resamples, queries)
    seven = drawn[:, : len(RATES)]
    values = [_at_rate(rate, sensitivity, query, float(lesions.sum())) for query in RATES]
    count = int(lesions.sum())

    def figure(name: str, value: float, estimates: FloatMatrix, *, proportion: bool = False) -> Figure:
        low, high, kind = bounds(estimates, resamples, counts=(value * count, count) if proportion else None)
        return Figure("FROC", name, value, low, high, count, "lesions", kind)

    area = _area(rate, sensitivity, float(lesions.sum()))
    figures = [
        figure(f"sensitivity at {query:g} false per scan", value, seven[:, index], proportion=True)
        for index, (query, value) in enumerate(zip(RATES, values, strict=True))
    ]
    figures.append(figure("mean of the seven", float(np.mean(values)), seven.mean(axis=1)))
    figures.append(figure(f"partial area up to {AREA_LIMIT:g} false per scan", area, drawn_area))
    band = np.array([interval(column) for column in drawn[:, len(RATES) :].T])
    low, high = band.T if resamples.subjects > 1 else np.full((2, len(_BAND)), math.nan)
    return Froc(scores[ends], sensitivity, rate, _BAND, low, high, tuple(figures), count, len(matches))


def _ranked(
    matches: Sequence[ScanMatch],
) -> tuple[FloatMatrix, npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return score, scan number, hit and false of all predictions, from the highest score down."""
    rows = [
        (prediction.score, number, bool(match.ranked_hit[index]), index in match.ignored)
        for number, match in enumerate(matches)
        for index, prediction in enumerate(match.pair.predictions)
    ]
    scores = np.array([row[0] for row in rows], dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    scan = np.array([row[1] for row in rows], dtype=np.int64)[order]
    hit = np.array([row[2] for row in rows], dtype=np.bool_)[order]
    ignored = np.array([row[3] for row in rows], dtype=np.bool_)[order]
    return scores[order], scan, hit, ~hit & ~ignored


def _at_rate(rate: FloatMatrix, sensitivity: FloatMatrix, query: float, lesions: float) -> float:
    """Return the highest sensitivity at `query` false per scan or fewer."""
    if lesions == 0:
        return math.nan
    place = int(np.searchsorted(rate, query + 1e-9, side="right"))
    return float(sensitivity[place - 1]) if place else 0.0


def _area(rate: FloatMatrix, sensitivity: FloatMatrix, lesions: float) -> float:
    """Return the mean sensitivity over 0..AREA_LIMIT false per scan, the area under the steps over its width."""
    if lesions == 0:
        return math.nan
    inside = rate < AREA_LIMIT
    heights = sensitivity[inside]
    widths = np.diff(np.r_[rate[inside], AREA_LIMIT])
    return float((heights * widths).sum() / AREA_LIMIT)


def _replicates(
    scan: npt.NDArray[np.int64],
    hit: npt.NDArray[np.bool_],
    false: npt.NDArray[np.bool_],
    ends: npt.NDArray[np.int64],
    lesions: FloatMatrix,
    resamples: Resamples,
    queries: FloatMatrix,
) -> tuple[FloatMatrix, FloatMatrix]:
    """Return sensitivities at the queried rates, shape (replicates, queries), and partial areas."""
    per_subject = resamples.by_subject(np.stack([lesions, np.ones_like(lesions)], axis=1))
    weights = resamples.weights
    total_lesions, total_scans = (weights @ per_subject).T
    subject = resamples.owner[scan] if scan.size else scan
    drawn = np.zeros((len(weights), len(queries)))
    area = np.zeros(len(weights))
    for number, weight in enumerate(weights):
        if total_lesions[number] == 0:
            drawn[number], area[number] = math.nan, math.nan
            continue
        each = weight[subject]
        sensitivity = np.cumsum(each * hit)[ends] / total_lesions[number]
        rate = np.cumsum(each * false)[ends] / total_scans[number]
        place = np.searchsorted(rate, queries + 1e-9, side="right")
        drawn[number] = np.r_[0.0, sensitivity][place]
        area[number] = _area(rate, sensitivity, total_lesions[number])
    return drawn, area
