"""All figures of an evaluation: one part per contrast, and one for all scans where there are several contrasts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bids_cmb.evaluation.agreement import agreement_figures, class_table, counts_of
from bids_cmb.evaluation.bootstrap import REPLICATES, Figure, FloatMatrix, Resamples, median_of_items
from bids_cmb.evaluation.cases import ScanPair
from bids_cmb.evaluation.detection import (
    ONE_TO_ONE,
    bleed_free,
    detection_figures,
    matched_dice,
    subject_figures,
    tables_by_convention,
)
from bids_cmb.evaluation.froc import Froc, froc
from bids_cmb.evaluation.matching import ScanMatch, match_scan
from bids_cmb.evaluation.reliability import Reliability, reliability
from bids_cmb.evaluation.strata import lesion_strata, places_right, scan_strata

#: Name of the part that holds all scans.
ALL = "all"


@dataclass(frozen=True, eq=False)
class Part:
    """The evaluation of some scans.

    Attributes
    ----------
    name
        A contrast, or `ALL`.
    matches
        Scan by scan.
    figures
        Everything that is one number, in the order of the page.
    froc, reliability
        The two curves.
    counts
        Reference and detected number per scan, shape (scans, 2).
    classes
        Cross table of the classes of counts, rows the reference.
    causes
        False detections by their named cause, most frequent first; empty where no cause is known.
    """

    name: str
    matches: tuple[ScanMatch, ...]
    figures: tuple[Figure, ...]
    froc: Froc
    reliability: Reliability
    counts: FloatMatrix
    classes: FloatMatrix
    causes: tuple[tuple[str, int], ...]

    @property
    def subjects(self) -> int:
        """Number of subjects."""
        return len({match.pair.subject for match in self.matches})

    def figure(self, group: str, name: str) -> Figure:
        """Return one figure; KeyError if there is none of that name."""
        for figure in self.figures:
            if (figure.group, figure.name) == (group, name):
                return figure
        raise KeyError((group, name))


def evaluate(pairs: Sequence[ScanPair], *, replicates: int = REPLICATES) -> tuple[Part, ...]:
    """Compare references and predictions of all scans.

    Parameters
    ----------
    pairs
        One per scan; ``attributes["contrast"]`` sorts them into parts.
    replicates
        Bootstrap draws of subjects.

    Returns
    -------
    tuple of Part
        One per contrast by name; first all scans together, if there are several contrasts.
    """
    matches = [match_scan(pair) for pair in pairs]
    contrasts = sorted({pair.attributes.get("contrast", "") for pair in pairs})
    parts = [
        (contrast or ALL, [m for m in matches if m.pair.attributes.get("contrast", "") == contrast])
        for contrast in contrasts
    ]
    if len(contrasts) > 1:
        parts.insert(0, (ALL, matches))
    return tuple(_part(name, mine, replicates) for name, mine in parts)


def _part(name: str, matches: Sequence[ScanMatch], replicates: int) -> Part:
    resamples = Resamples.of([match.pair.subject for match in matches], replicates=replicates)
    tables = tables_by_convention(matches)
    curve = froc(matches, resamples)
    calibration = reliability(matches, resamples)
    counts = counts_of(matches)
    figures = [
        figure
        for convention, table in tables.items()
        for figure in detection_figures(convention, table, resamples)
    ]
    figures += subject_figures(ONE_TO_ONE, tables[ONE_TO_ONE], resamples)
    figures += [*curve.figures, _reached(matches), *lesion_strata(matches, resamples)]
    figures += [*places_right(matches, resamples), *scan_strata(matches, resamples)]
    figures += [
        *agreement_figures(counts, bleed_free(matches), resamples),
        *calibration.figures,
        *_dice(matches),
    ]
    causes = Counter(
        match.pair.predictions[index].attributes["cause"]
        for match in matches
        for index in match.false
        if "cause" in match.pair.predictions[index].attributes
    )
    return Part(
        name,
        tuple(matches),
        tuple(figures),
        curve,
        calibration,
        counts,
        class_table(counts),
        tuple(causes.most_common()),
    )


def _reached(matches: Sequence[ScanMatch]) -> Figure:
    """Sensitivity of all candidates whatever their score: what a later stage can at most keep."""
    lesions = sum(len(match.counted) for match in matches)
    found = sum(int(match.ranked_hit.sum()) for match in matches)
    value = found / lesions if lesions else float("nan")
    return Figure("FROC", "sensitivity of all candidates", value, float("nan"), float("nan"), lesions, "lesions", "none")  # fmt: skip


def _dice(matches: Sequence[ScanMatch]) -> list[Figure]:
    values, subjects = matched_dice(matches)
    if not values.size:
        return []
    return [median_of_items("outlines", "Dice of matched pairs, median", values, Resamples.of(subjects), unit="lesions")]  # fmt: skip
