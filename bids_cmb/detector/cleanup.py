"""Stage 3: anatomical and morphological constraints, soft, in millimetres, each removal with its reason.

Hard rules remove only what cannot be a microbleed. The rest are penalties on the log-odds of the probability: a
candidate in a doubtful place needs more evidence, and carries a flag that says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bids_cmb.detector.weights import Model
from bids_cmb.types import BoolArray, Candidate, Certainty, Contrast, Detection, Zone

#: A microbleed is at most 10 mm across (Greenberg 2009).
LARGEST_DIAMETER = 10.0
#: Less contrast than this and no rater would mark it (fraction of the surround; QSM: ppm).
LEAST_CONTRAST: Mapping[Contrast, float] = {"gre": 0.12, "swi": 0.15, "qsm": 0.06}
#: Penalty at the edge of the brain mask: rims of stripped brains, cortical veins on QSM.
EDGE_PENALTY = 1.5
#: Penalty on the log-odds where a zone's map is 1.
ZONE_PENALTY: Mapping[str, float] = {
    "ventricle": 2.25,
    "choroid_plexus": 3.0,
    "pineal": 3.75,
    "falx": 2.25,
    "sinus": 2.25,
    "dropout": 1.5,
    "pallidum": 1.5,
}
#: Probabilities are rounded to four places.
_NEARLY_ONE = 1 - 0.5e-4
#: A zone is worth a flag from this value on.
_FLAG_FROM = 0.3


def clean_up(
    detection: Detection,
    brain_mask: BoolArray,
    zones: Mapping[str, Zone],
    contrast: Contrast,
    model: Model,
) -> Detection:
    """Apply the constraints to every candidate.

    Parameters
    ----------
    detection
        From stages 1 and 2, regions assigned.
    brain_mask
        Bool, image grid.
    zones
        Strength at voxels by name (`bids_cmb.types.Anatomy`); unknown names are ignored.
    contrast
        Decides the limits.
    model
        Gives operating point and the bound of *definite*.

    Returns
    -------
    Detection
        Same labels; candidates with final probability, fate, flags and certainty, most probable first.
    """
    in_brain = set(np.unique(detection.labels[brain_mask]).tolist())
    shares = _zone_shares(detection, zones)
    judged = [_judge(c, c.index in in_brain, shares, contrast, model) for c in detection.candidates]
    judged.sort(key=lambda c: (-c.probability, c.index))
    return replace(detection, candidates=tuple(judged))


def _zone_shares(detection: Detection, zones: Mapping[str, Zone]) -> dict[str, npt.NDArray[np.float64]]:
    """Mean of each zone's map over each candidate's voxels: by zone, an array over candidate indices."""
    voxels = np.argwhere(detection.labels)
    own = detection.labels[tuple(voxels.T)]
    sizes = np.maximum(1, np.bincount(own))
    return {
        name: np.bincount(own, weights=zones[name](voxels)) / sizes
        for name in (*ZONE_PENALTY, "edge")
        if name in zones
    }


def _judge(
    candidate: Candidate,
    in_brain: bool,
    shares: Mapping[str, npt.NDArray[np.float64]],
    contrast: Contrast,
    model: Model,
) -> Candidate:
    threshold = model.thresholds[contrast]
    impossible = _impossible(candidate, in_brain, contrast)
    penalties: dict[str, float] = {}
    if impossible is None:
        for name, of in shares.items():
            share = float(of[candidate.index])
            weight = EDGE_PENALTY if name == "edge" else ZONE_PENALTY[name]
            penalties[name] = weight * share if share >= _FLAG_FROM else 0.0
    flags = (*candidate.flags, *(name for name, size in penalties.items() if size > 0))
    probability = _lowered(candidate.stage2_probability, sum(penalties.values()))
    fate = candidate.fate
    if impossible is not None:
        fate, probability = impossible, 0.0
    elif candidate.stage2_probability < threshold:
        fate = "stage2"
    elif probability < threshold:
        fate = max(penalties, key=lambda name: penalties[name])
    else:
        fate = "accepted"
    certain: Certainty = (
        "definite" if probability >= model.definite[contrast] and not any(penalties.values()) else "possible"
    )
    return replace(candidate, probability=round(probability, 4), fate=fate, flags=flags, certainty=certain)


def _impossible(candidate: Candidate, in_brain: bool, contrast: Contrast) -> str | None:
    """Name the hard rule that a candidate breaks."""
    if not in_brain:
        return "outside_brain"
    if candidate.diameter > LARGEST_DIAMETER:
        return "too_large"
    if contrast == "qsm" and candidate.contrast <= 0:
        return "negative_susceptibility"
    if candidate.contrast < LEAST_CONTRAST[contrast]:
        return "low_contrast"
    return None


def _lowered(probability: float, penalty: float) -> float:
    """Subtract a penalty from the log-odds; a probability that was rounded to 1 is not beyond it."""
    if penalty <= 0 or probability <= 0:
        return probability
    certain = min(probability, _NEARLY_ONE)
    odds = math.log(certain / (1 - certain)) - penalty
    return 1 / (1 + math.exp(-odds))
