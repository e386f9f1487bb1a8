"""How much was found and how much of it is real, by each convention of the field, pooled and per subject.

The conventions differ only in what counts as found and as true (see `bids_cmb.evaluation.matching`); the figures
made from the counts are the same: sensitivity, precision, F1, false detections per scan, and false detections in
scans without a bleed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bids_cmb.evaluation.bootstrap import Figure, FloatMatrix, Resamples, bounds, divide, quantile, ratio
from bids_cmb.evaluation.matching import VALDO_MM, Counts, ScanMatch, touch_counts, valdo_counts

#: The conventions by name, the primary one first.
ONE_TO_ONE, VALDO, TOUCH = (
    "one-to-one, optimal (overlap, or centres within max(3 mm, radius + 1 mm))",
    f"VALDO 2021 (centres < {VALDO_MM:g} mm, nearest first, components by faces)",
    "any overlap (many to one)",
)


@dataclass(frozen=True, eq=False)
class CountTable:
    """Counts of all scans by one convention, one entry per scan.

    Attributes
    ----------
    references, found
        Lesions to find, and those found.
    predictions, true
        Accepted predictions, and those that are true. They differ from `found` where one may hit several.
    clean
        1 for a scan without any lesion, an uncertain one or one that does not count included, else 0.
    """

    references: FloatMatrix
    found: FloatMatrix
    predictions: FloatMatrix
    true: FloatMatrix
    clean: FloatMatrix

    @classmethod
    def of(cls, counts: Sequence[Counts], clean: FloatMatrix) -> CountTable:
        """Collect the counts of scans."""
        names = ("references", "found", "predictions", "true")
        columns = {name: np.array([getattr(c, name) for c in counts], dtype=np.float64) for name in names}
        return cls(**columns, clean=clean)

    @property
    def false(self) -> FloatMatrix:
        """False detections of each scan."""
        return self.predictions - self.true


def one_to_one_counts(match: ScanMatch) -> Counts:
    """Count by the primary rule."""
    found = len(match.matches)
    return Counts(len(match.counted), found, found + len(match.false), found)


def tables_by_convention(matches: Sequence[ScanMatch]) -> Mapping[str, CountTable]:
    """Count all scans by each convention."""
    clean = bleed_free(matches)
    return {
        ONE_TO_ONE: CountTable.of([one_to_one_counts(match) for match in matches], clean),
        VALDO: CountTable.of([valdo_counts(match.pair) for match in matches], clean),
        TOUCH: CountTable.of([touch_counts(match.pair) for match in matches], clean),
    }


def bleed_free(matches: Sequence[ScanMatch]) -> FloatMatrix:
    """1 for each scan in which the reference has no lesion at all, else 0."""
    return np.array([not match.pair.references for match in matches], dtype=np.float64)


def detection_figures(group: str, table: CountTable, resamples: Resamples) -> tuple[Figure, ...]:
    """Make the pooled figures of one convention.

    Parameters
    ----------
    group
        Name of the convention.
    table
        Its counts.
    resamples
        Draws of subjects, made for the same scans.

    Returns
    -------
    tuple of Figure
        Sensitivity, precision, F1, false detections per scan, in scans with and in scans without a bleed.
    """
    scans = np.ones_like(table.references)
    with_bleeds = (table.references > 0).astype(np.float64)

    def rate(name: str, kept: FloatMatrix) -> Figure:
        return ratio(group, name, table.false * kept, kept, resamples, unit="scans", proportion=False)

    return (
        ratio(group, "sensitivity", table.found, table.references, resamples, unit="lesions"),
        ratio(group, "precision", table.true, table.predictions, resamples, unit="predictions"),
        _f1(group, table, resamples),
        rate("false per scan", scans),
        rate("false per scan with bleeds", with_bleeds),
        rate("false per bleed-free scan", table.clean),
    )


def subject_figures(group: str, table: CountTable, resamples: Resamples) -> tuple[Figure, ...]:
    """Make medians and quartiles over subjects of sensitivity, precision and F1 (undefined without lesions)."""
    columns = np.stack([table.references, table.found, table.predictions, table.true], axis=1)
    references, found, predictions, true = resamples.by_subject(columns).T
    values = {
        "sensitivity": divide(found, references),
        "precision": np.where(references > 0, divide(true, predictions), np.nan),
        "F1": f1(references, found, predictions, true),
    }
    shares = (("median", 0.5), ("lower quartile", 0.25), ("upper quartile", 0.75))
    return tuple(
        quantile(group, f"{name}, {word} over subjects", per_subject, share, resamples)
        for name, per_subject in values.items()
        for word, share in shares
    )


def f1(
    references: FloatMatrix, found: FloatMatrix, predictions: FloatMatrix, true: FloatMatrix
) -> FloatMatrix:
    """Return the harmonic mean of sensitivity and precision; nan without lesions, 0 if none is found.

    One to one this is ``2 TP / (2 TP + FP + FN)``.
    """
    sensitivity = divide(found, references)
    precision = np.nan_to_num(divide(true, predictions))
    score = np.where(sensitivity + precision > 0, 0.0, 0.0 * sensitivity)
    positive = sensitivity + precision > 0
    np.divide(2 * sensitivity * precision, sensitivity + precision, out=score, where=positive)
    return np.where(np.isnan(sensitivity), np.nan, score)


def _f1(group: str, table: CountTable, resamples: Resamples) -> Figure:
    columns = np.stack([table.references, table.found, table.predictions, table.true], axis=1)
    value = float(f1(*columns.sum(axis=0)[:, None])[0])
    low, high, kind = bounds(f1(*resamples.totals(columns).T), resamples)
    return Figure(group, "F1", value, low, high, int(table.references.sum()), "lesions", kind)


def matched_dice(matches: Sequence[ScanMatch]) -> tuple[FloatMatrix, list[str]]:
    """Return Dice's overlap of each matched pair of which both have an outline, and the subject of each pair."""
    values, subjects = [], []
    for match in matches:
        for found in match.matches:
            one = match.pair.references[found.reference].voxels
            other = match.pair.predictions[found.prediction].voxels
            if one is not None and other is not None:
                values.append(2 * found.overlap / (one.size + other.size))
                subjects.append(match.pair.subject)
    return np.array(values, dtype=np.float64), subjects
