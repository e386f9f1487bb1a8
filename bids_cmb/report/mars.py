"""The Microbleed Anatomical Rating Scale form: counts by region, side and certainty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bids_cmb.report.data import Finding
from bids_cmb.types import MARS_REGIONS, Category

_CATEGORIES: tuple[Category, ...] = ("infratentorial", "deep", "lobar")
#: Columns of the form: definite right, definite left, possible right, possible left.
COLUMNS = (("definite", "R"), ("definite", "L"), ("possible", "R"), ("possible", "L"))


@dataclass(frozen=True)
class MarsRow:
    """One region: its name and a count per column."""

    name: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class MarsGroup:
    """One category: its regions and their sum per column."""

    name: str
    rows: tuple[MarsRow, ...]
    total: tuple[int, ...]


def mars_form(findings: Sequence[Finding]) -> tuple[list[MarsGroup], int]:
    """Count microbleeds as the form of Gregoire 2009 does.

    Parameters
    ----------
    findings
        The microbleeds of one scan.

    Returns
    -------
    tuple
        The three categories, and the number of microbleeds without a region or a side.
    """
    counts = Counter((f.region, f.certainty, f.hemisphere) for f in findings)
    groups = []
    for category in _CATEGORIES:
        rows = tuple(
            MarsRow(
                name[:1].upper() + name[1:],
                tuple(counts[code, certainty, side] for certainty, side in COLUMNS),
            )
            for code, name, own in MARS_REGIONS
            if own == category
        )
        total = tuple(sum(values) for values in zip(*(row.counts for row in rows), strict=True))
        groups.append(MarsGroup(category[:1].upper() + category[1:], rows, total))
    placed = sum(sum(group.total) for group in groups)
    return groups, len(findings) - placed
