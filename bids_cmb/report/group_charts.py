"""Charts of the group page: counts, lobar against deep, regions, and strips of quality; one linked dot per scan."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bids_cmb.report.data import known, read_number
from bids_cmb.types import MARS_REGIONS

Row = Mapping[str, str]
#: Bands of counts, as trials report them.
_BANDS = (("0", 0, 0), ("1", 1, 1), ("2-4", 2, 4), ("5-10", 5, 10), ("more than 10", 11, math.inf))
#: The plot of lobar against deep counts: its side and the margin on its left and below, px.
_SIDE = 260
_MARGIN = 34
#: Turn between neighbouring dots that share a place: they fill a disc evenly, as the seeds of a sunflower.
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
#: A strip: width of the plot, height of one group, space for the names of the groups, px.
_WIDTH, _HEIGHT, _NAMES = 420, 26, 190
#: Groups drawn per strip; the smallest share the last one.
_MOST_GROUPS = 12


@dataclass(frozen=True)
class Strip:
    """A measure drawn for all groups: heading, unit factor, column, and the words in ``outliers`` that mark it."""

    title: str
    column: str
    factor: float
    marked_by: str
    logarithmic: bool = False


STRIPS = (
    Strip("Microbleeds", "n_cmb", 1.0, "number of microbleeds", logarithmic=True),
    Strip("Brain volume (ml)", "brain_volume", 1e-3, "brain volume"),
    # A QSM's, one over ppm, is tens of times that of a magnitude.
    Strip("Signal to noise", "snr", 1.0, "signal to noise", logarithmic=True),
    Strip("Registration, similarity", "registration_similarity", 1.0, "registration"),
)


def count(row: Row, column: str) -> int:
    """Count in a cell; what is not known counts as none."""
    value = read_number(row.get(column))
    return 0 if math.isnan(value) else int(value)


def scan_name(row: Row) -> str:
    """Name a scan: participant, session, contrast, as far as they are known."""
    parts = (row.get("participant_id", ""), known(row.get("session_id")), row.get("contrast", ""))
    return " ".join(part for part in parts if part)


def page_of(row: Row, links: Mapping[str, str]) -> str:
    """Return the page of a scan's participant; empty where there is none."""
    return links.get(row.get("participant_id", ""), "")


def bands(done: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the number of scans in each band of counts; a bar's length is relative to the longest."""
    counts = [count(row, "n_cmb") for row in done]
    numbers = [sum(low <= n <= high for n in counts) for _, low, high in _BANDS]
    most = max(numbers, default=0) or 1
    return [
        {"name": name, "count": n, "share": round(100 * n / most, 1)}
        for (name, _, _), n in zip(_BANDS, numbers, strict=True)
    ]


def lobar_deep(done: Sequence[Row], links: Mapping[str, str]) -> dict[str, Any]:
    """Place every scan by its lobar and deep counts, on axes that grow with log(1 + n).

    Parameters
    ----------
    done
        Rows of ``group_cmb``.
    links
        Page of each participant, where it is there.
    """
    pairs = Counter((count(row, "n_lobar"), count(row, "n_deep")) for row in done)
    top = max((max(pair) for pair in pairs), default=0)
    ticks = [0, 1, 2, 5]
    while ticks[-1] < top:
        ticks.append(10 * ticks[-3])

    def along(number: float) -> float:
        return _SIDE * math.log1p(number) / math.log1p(ticks[-1])

    # A crowd of equal counts fills a disc that stays clear of its neighbours: half of the way to the next count.
    room = 0.42 * along(1) if top else 0.42 * _SIDE
    seen: Counter[tuple[int, int]] = Counter()
    points = []
    for row in done:
        pair = count(row, "n_lobar"), count(row, "n_deep")
        turn, crowd = seen[pair], pairs[pair]
        seen[pair] += 1
        distance = min(room, 3.2 * math.sqrt(crowd)) * math.sqrt(turn / crowd)
        points.append(
            {
                "x": round(_MARGIN + 16 + along(pair[0]) + distance * math.cos(turn * _GOLDEN_ANGLE), 1),
                "y": round(12 + _SIDE - along(pair[1]) - distance * math.sin(turn * _GOLDEN_ANGLE), 1),
                "text": f"{scan_name(row)}: {pair[0]} lobar, {pair[1]} deep",
                "link": page_of(row, links),
            }
        )
    return {
        "points": points,
        "ticks": [
            {"text": n, "x": round(_MARGIN + 16 + along(n), 1), "y": round(12 + _SIDE - along(n), 1)}
            for n in ticks
        ],
        "left": _MARGIN,
        "bottom": 12 + _SIDE + 16,
        "right": _MARGIN + 16 + _SIDE,
    }


def regions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Sum the MARS form over all scans; the shade of a cell is its share of the largest."""
    sums: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for code, _, _ in MARS_REGIONS:
            for side in ("R", "L"):
                sums[code, side] += sum(
                    count(row, f"{code}_{side}_{certainty}") for certainty in ("definite", "possible")
                )
    most = max(sums.values(), default=0) or 1
    return [
        {
            "name": name,
            "category": category,
            "cells": [
                {"count": sums[code, side], "share": round(sums[code, side] / most, 2)} for side in ("R", "L")
            ],
        }
        for code, name, category in MARS_REGIONS
    ]


def strips(rows: Sequence[Row], links: Mapping[str, str]) -> list[dict[str, Any]]:
    """Draw every measure of ``group_quality`` by contrast, field strength and scanner.

    Parameters
    ----------
    rows
        Of ``group_quality``.
    links
        Page of each participant, where it is there.

    Returns
    -------
    list
        One chart per measure that any scan has: groups with their dots, and ticks.
    """
    sizes = Counter(_group(row) for row in rows)
    shown = [name for name, _ in sizes.most_common(_MOST_GROUPS)]
    charts = []
    for strip in STRIPS:
        values = [(row, read_number(row.get(strip.column)) * strip.factor) for row in rows]
        values = [(row, v) for row, v in values if not math.isnan(v)]
        if values:
            charts.append(_strip(strip, values, sorted(shown), links))
    return charts


def _strip(
    strip: Strip, values: Sequence[tuple[Row, float]], shown: Sequence[str], links: Mapping[str, str]
) -> dict[str, Any]:
    ticks = _ticks(min(v for _, v in values), max(v for _, v in values), logarithmic=strip.logarithmic)

    def across(value: float) -> float:
        low, high, now = ((math.log1p(x) if strip.logarithmic else x) for x in (ticks[0], ticks[-1], value))
        return round(_NAMES + 10 + (_WIDTH - 20) * (now - low) / ((high - low) or 1.0), 1)

    groups = []
    names = [*shown, "others"] if any(_group(row) not in shown for row, _ in values) else list(shown)
    for place, name in enumerate(names):
        mine = [(row, v) for row, v in values if (_group(row) if _group(row) in shown else "others") == name]
        middle = 6 + _HEIGHT * (place + 0.5)
        groups.append(
            {
                "name": f"{name} ({len(mine)})",
                "y": middle,
                "dots": [
                    {
                        "x": across(value),
                        "y": round(middle + ((0.618034 * turn) % 1 - 0.5) * 0.62 * _HEIGHT, 1),
                        "text": f"{scan_name(row)}: {value:.4g}",
                        "link": page_of(row, links),
                        "outlier": strip.marked_by in row.get("outliers", "").split("; "),
                    }
                    for turn, (row, value) in enumerate(mine)
                ],
            }
        )
    bottom = 6 + _HEIGHT * len(names)
    return {
        "title": strip.title,
        "groups": groups,
        "ticks": [{"x": across(t), "text": f"{t:g}"} for t in ticks],
        "left": _NAMES,
        "right": _NAMES + _WIDTH,
        "bottom": bottom,
    }


def _ticks(low: float, high: float, *, logarithmic: bool) -> list[float]:
    """Round numbers that span the values: 0 1 2 5 10 20 50 ..., or four to eight even steps."""
    if logarithmic:
        ticks = [0.0, 1.0, 2.0, 5.0]
        while ticks[-1] < high:
            ticks.append(10 * ticks[-3])
        return ticks
    span = max(high - low, 1e-3 * abs(high), 1e-6)
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(f for f in (1, 2, 5, 10) if span / (f * step) <= 7)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(k * step, 10) for k in range(first, max(last, first + 1) + 1)]


def _group(row: Row) -> str:
    field = read_number(row.get("field_strength"))
    parts = (
        row.get("contrast", "").upper(),
        "" if math.isnan(field) else f"{field:g} T",
        known(row.get("scanner")),
    )
    name = " ".join(part for part in parts if part)
    return name if len(name) <= 30 else name[:29] + "…"
