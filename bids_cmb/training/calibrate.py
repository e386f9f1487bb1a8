"""Calibration and operating points, from validation heads that no network was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from bids_cmb.detector.probability import Calibration, probabilities

#: Operating point: the most sensitive one with at most this many false detections per scan, unless told otherwise.
FALSE_PER_SCAN = 0.5
#: Least probability of a *definite* microbleed, where the operating point is not above it.
DEFINITE = 0.8
#: Share of the lesions found by stage 1 that its threshold keeps, and candidates per scan that stage 2 has time for.
KEPT, CANDIDATES_PER_SCAN = 0.99, 48
#: A microbleed that is counted has at least this probability, however few false detections that leaves, and operating
#: points end here.
LEAST_COUNTED, HIGHEST_POINT = 0.2, 0.9


@dataclass(frozen=True)
class Fitted:
    """What validation scans of one contrast give a detector, before the clean-up.

    Attributes
    ----------
    calibration, threshold, definite
        See `fit_calibration`, `choose_threshold` and `choose_definite`.
    found, false
        Candidates at the operating point.
    brier
        Brier score over all candidates; None without any.
    """

    calibration: Calibration
    threshold: float
    definite: float
    found: int
    false: int
    brier: float | None

    def figures(self) -> dict[str, Any]:
        """Return ``found``, ``false`` and ``brier``, for a manifest."""
        return {"found": self.found, "false": self.false, "brier": self.brier}


def fit_contrast(
    logits: Sequence[npt.NDArray[np.float64]], labels: Sequence[npt.NDArray[np.int64]]
) -> Fitted:
    """Calibrate a detector and choose its operating point for one contrast.

    Parameters
    ----------
    logits, labels
        Of the candidates of each scan, (N,); labels 1 microbleed, 0 not, -1 ignored (judged, but not counted).
    """
    every = np.concatenate([*labels, np.zeros(0, np.int64)])
    counted = every >= 0
    truth = every[counted]
    calibration = fit_calibration(np.concatenate([*logits, np.zeros(0)])[counted], truth)
    if 0 < truth.sum() < len(truth):
        # Of all candidates, as in a scan whose truth no one knows: those that are ignored here are candidates there.
        plain = np.concatenate([probabilities(z, calibration) for z in logits])
        calibration = replace(calibration, prevalence=float(plain.mean()))
    p = np.concatenate([*(probabilities(z, calibration) for z in logits), np.zeros(0)])[counted]
    threshold = choose_threshold(p.tolist(), truth.tolist(), max(len(logits), 1))
    accepted = p >= threshold
    return Fitted(
        calibration,
        threshold,
        choose_definite(threshold),
        int((accepted & (truth == 1)).sum()),
        int((accepted & (truth == 0)).sum()),
        round(float(np.mean((p - truth) ** 2)), 4) if len(truth) else None,
    )


def fit_calibration(logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> Calibration:
    """Fit Platt's sigmoid to logits: of candidates at 0.7, 7 in 10 are microbleeds on scans like these.

    The calibration has no prevalence: see `fit_contrast`.

    Parameters
    ----------
    logits, labels
        (N,); labels 0 or 1.

    Returns
    -------
    Calibration
        The identity if either class is missing.
    """
    if len(np.unique(labels)) < 2:
        return Calibration(1.0, 0.0)

    def cost(parameters: npt.NDArray[np.float64]) -> float:
        z = parameters[0] * logits + parameters[1]
        return float((np.logaddexp(0, z) - labels * z).mean() + 1e-3 * (parameters[0] - 1) ** 2)

    scale, offset = minimize(cost, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return Calibration(float(max(scale, 0.05)), float(offset))


def choose_candidate_threshold(
    heights: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], scans: int, *, least: float
) -> float:
    """Choose the height from which a peak of stage 1 is a candidate.

    The highest that keeps `KEPT` of the lesions found, or a lower one that gives `CANDIDATES_PER_SCAN`: on other heads
    lesions are lower than on those of the validation.

    Parameters
    ----------
    heights, labels
        Of the peaks of all validation scans (labels 1 microbleed, 0 not, -1 ignored).
    scans
        Number of those scans.
    least
        The height that they were collected with; returned where there is no lesion.
    """
    found = np.sort(heights[labels == 1])
    if len(found) == 0:
        return least
    kept = float(found[int((1 - KEPT) * len(found))]) - 5e-4
    all_heights, affordable = np.sort(heights)[::-1], CANDIDATES_PER_SCAN * scans
    low = float(all_heights[affordable]) if len(all_heights) > affordable else least
    return round(max(least, min(kept, low)), 3)


def choose_threshold(
    probabilities: Sequence[float],
    labels: Sequence[int],
    scans: int,
    *,
    false_per_scan: float = FALSE_PER_SCAN,
) -> float:
    """Choose the operating point: the lowest threshold that keeps false detections within bounds.

    From `LEAST_COUNTED` to `HIGHEST_POINT`: what is most likely something else is not counted on the chance of a bleed.

    Parameters
    ----------
    probabilities, labels
        Of all candidates (1 microbleed, 0 not).
    scans
        Number of scans that they come from.
    false_per_scan
        Allowed false detections per scan.
    """
    cut = false_cut(np.asarray(probabilities), np.asarray(labels), scans, false_per_scan)
    return round(float(np.clip(cut + 1e-3, LEAST_COUNTED, HIGHEST_POINT)), 3)


def false_cut(
    scores: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    scans: int,
    false_per_scan: float,
) -> float:
    """Score of the first false candidate too many: at most `false_per_scan` lie above it; -inf if there are no more.

    Parameters
    ----------
    scores, labels
        (N,) of all candidates (1 microbleed, 0 not, -1 ignored).
    scans
        Number of scans that they come from.
    false_per_scan
        Allowed false candidates per scan.
    """
    false = np.sort(scores[labels == 0])[::-1]
    allowed = int(false_per_scan * scans)
    return float(false[allowed]) if len(false) > allowed else -np.inf


def shares_found(
    scores: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    scans: int,
    lesions: int,
    false_per_scan: Sequence[float],
) -> list[float]:
    """Share of the lesions found where at most so many candidates per scan are false.

    Parameters
    ----------
    scores, labels, scans
        As for `false_cut`.
    lesions
        Number of lesions of these scans, those without a candidate too.
    false_per_scan
        Allowed false candidates per scan, for each share.
    """
    cuts = [false_cut(scores, labels, scans, level) for level in false_per_scan]
    return [float((scores[labels == 1] > cut).sum() / max(1, lesions)) for cut in cuts]


def choose_definite(threshold: float) -> float:
    """Choose the least probability of a *definite* microbleed: `DEFINITE`, or an operating point above it."""
    return round(max(DEFINITE, threshold), 3)
