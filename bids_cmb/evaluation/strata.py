"""The same figures for parts of the data: by size and place of the lesion, by slices, field and contrast of the scan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from bids_cmb.evaluation.bootstrap import Figure, FloatMatrix, Resamples, ratio
from bids_cmb.evaluation.cases import Prediction, Reference, ScanPair
from bids_cmb.evaluation.matching import ScanMatch

#: Bounds of the strata: name, least, below.
SIZES = (
    ("below 2 mm", 0.0, 2.0),
    ("2 to 3 mm", 2.0, 3.0),
    ("below 3 mm", 0.0, 3.0),
    ("3 to 5 mm", 3.0, 5.0),
    ("5 to 10 mm", 5.0, 10.0 + 1e-9),
    ("2 to 10 mm", 2.0, 10.0 + 1e-9),
)
SLICES = (("up to 1.5 mm", 0.0, 1.5 + 1e-6), ("1.5 to 3 mm", 1.5 + 1e-6, 3.0 + 1e-6), ("above 3 mm", 3.0 + 1e-6, math.inf))  # fmt: skip
FIELDS = (("below 2 T", 0.0, 2.0), ("2 to 4 T", 2.0, 4.0), ("above 4 T", 4.0, math.inf))
_CATEGORIES = ("lobar", "deep", "infratentorial")


def lesion_strata(matches: Sequence[ScanMatch], resamples: Resamples) -> tuple[Figure, ...]:
    """Sensitivity by diameter and by MARS category of the lesion; strata without a lesion are left out."""
    figures = [
        _sensitivity("size", name, matches, resamples, _of_size(least, below)) for name, least, below in SIZES
    ]
    figures += [
        _sensitivity(
            "MARS category",
            category,
            matches,
            resamples,
            _of_category(category),
        )
        for category in _CATEGORIES
    ]
    return tuple(figure for figure in figures if figure.n)


def scan_strata(matches: Sequence[ScanMatch], resamples: Resamples) -> tuple[Figure, ...]:
    """Sensitivity and false detections per scan by slice thickness, field strength and contrast of the scan."""
    figures: list[Figure] = []
    for group, key, bounds in (
        ("slice thickness", "slice_thickness", SLICES),
        ("field strength", "field_strength", FIELDS),
    ):
        values = np.array([number(match.pair, key) for match in matches])
        for name, least, below in bounds:
            inside = np.array([least <= value < below for value in values], dtype=np.float64)
            figures.extend(_scan_figures(f"{group} {name}", matches, inside, resamples))
    for contrast in sorted({match.pair.attributes.get("contrast", "") for match in matches}):
        inside = np.array([m.pair.attributes.get("contrast", "") == contrast for m in matches], np.float64)
        if contrast:
            figures.extend(_scan_figures(f"contrast {contrast}", matches, inside, resamples))
    return tuple(figures)


def places_right(matches: Sequence[ScanMatch], resamples: Resamples) -> tuple[Figure, ...]:
    """Share of the matched lesions whose MARS category is right, where reference and prediction have one."""
    right, both = [], []
    for match in matches:
        pairs = [
            (match.pair.references[m.reference], match.pair.predictions[m.prediction]) for m in match.matches
        ]
        named = [tuple(_category(lesion) for lesion in pair) for pair in pairs]
        named = [pair for pair in named if all(pair)]
        both.append(len(named))
        right.append(sum(one == other for one, other in named))
    above, below = np.array(right, np.float64), np.array(both, np.float64)
    figure = ratio("place", "MARS category of matched lesions", above, below, resamples, unit="lesions")
    return (figure,) if figure.n else ()


def number(pair: ScanPair, key: str) -> float:
    """Return a number among a scan's attributes, or nan."""
    try:
        return float(pair.attributes.get(key, "nan"))
    except ValueError:
        return math.nan


def _of_size(least: float, below: float) -> Callable[[Reference], bool]:
    return lambda reference: least <= reference.diameter < below


def _of_category(category: str) -> Callable[[Reference], bool]:
    return lambda reference: _category(reference) == category


def _category(lesion: Reference | Prediction) -> str:
    """MARS category of a lesion; empty where none is given (``n/a`` in tables)."""
    named = lesion.attributes.get("mars_category", "").strip().lower()
    return named if named in _CATEGORIES else ""


def _sensitivity(
    group: str,
    name: str,
    matches: Sequence[ScanMatch],
    resamples: Resamples,
    belongs: Callable[[Reference], bool],
) -> Figure:
    counted, found = [], []
    for match in matches:
        chosen = {i for i in match.counted if belongs(match.pair.references[i])}
        counted.append(len(chosen))
        found.append(len(chosen & {m.reference for m in match.matches}))
    above, below = np.array(found, np.float64), np.array(counted, np.float64)
    return ratio(f"{group} {name}", "sensitivity", above, below, resamples, unit="lesions")


def _scan_figures(
    group: str, matches: Sequence[ScanMatch], inside: FloatMatrix, resamples: Resamples
) -> list[Figure]:
    if not inside.any():
        return []
    found = np.array([len(match.matches) for match in matches]) * inside
    lesions = np.array([len(match.counted) for match in matches]) * inside
    false = np.array([len(match.false) for match in matches]) * inside
    return [
        ratio(group, "sensitivity", found, lesions, resamples, unit="lesions"),
        ratio(group, "false per scan", false, inside, resamples, unit="scans", proportion=False),
    ]
