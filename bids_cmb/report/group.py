"""The page of the study: reads the group tables of an output folder and writes ``group_cmb.html``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_cmb.report.data import known, read_number, read_tsv
from bids_cmb.report.page import read_asset, render, write_page
from bids_cmb.types import MARS_REGIONS

PAGE = "group_cmb.html"
#: Bands of counts, as trials report them.
_BANDS = (("0", 0, 0), ("1", 1, 1), ("2-4", 2, 4), ("5-10", 5, 10), ("more than 10", 11, math.inf))
#: Columns of the table of scans, with their headings.
COLUMNS = {
    "participant_id": "Participant",
    "session_id": "Session",
    "contrast": "Contrast",
    "status": "Status",
    "n_cmb": "Microbleeds",
    "n_definite": "Definite",
    "n_possible": "Possible",
    "n_lobar": "Lobar",
    "n_deep": "Deep",
    "n_infratentorial": "Infratentorial",
    "total_volume": "Volume (mm³)",
    "brain_volume": "Brain (mm³)",
    "snr": "SNR",
    "warnings": "Warnings",
}
TEXT_COLUMNS = ("participant_id", "session_id", "contrast", "status", "warnings")
#: The plot of lobar against deep counts: its side and the margin on its left and below, px.
_SIDE = 220
_MARGIN = 34


def write_group_page(output_dir: Path) -> Path:
    """Write ``OUTPUT_DIR/group_cmb.html`` from ``group_cmb.tsv`` and ``group_mars.tsv``.

    Parameters
    ----------
    output_dir
        The output folder; nothing but its tables is read.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    OSError
        If the page cannot be written.
    """
    scans = read_tsv(output_dir / "group_cmb.tsv")
    mars = read_tsv(output_dir / "group_mars.tsv")
    done = [row for row in scans if row.get("status") == "done"]
    page = {
        "summary": _summary(scans, done),
        "pooled": len({row.get("participant_id") for row in done}) < len(done),
        "columns": [(heading, name not in TEXT_COLUMNS) for name, heading in COLUMNS.items()],
        "rows": [_row(row, output_dir) for row in scans],
        "bands": _bands(done),
        "mars": _mars(mars),
        "plot": _plot(done),
        "failed": [row for row in scans if row.get("status") == "failed"],
    }
    text = render(
        "group.html.jinja",
        [read_asset("base.css"), read_asset("group.css")],
        [read_asset("group.js")],
        page=page,
        side="radiological",
    )
    path = output_dir / PAGE
    write_page(path, text)
    return path


def _count(row: Mapping[str, str], column: str) -> int:
    value = read_number(row.get(column))
    return 0 if math.isnan(value) else int(value)


def _summary(scans: Sequence[Mapping[str, str]], done: Sequence[Mapping[str, str]]) -> str:
    people = len({row.get("participant_id") for row in scans})
    positive = sum(_count(row, "n_cmb") > 0 for row in done)
    total = sum(_count(row, "n_cmb") for row in done)
    failed = len(scans) - len(done)
    text = f"{len(done)} scan{'' if len(done) == 1 else 's'} of {people} participant{'' if people == 1 else 's'}: "
    text += f"{total} microbleed{'' if total == 1 else 's'}, at least one in {positive} scan{'' if positive == 1 else 's'}"
    if done:
        text += f" ({100 * positive / len(done):.0f} %)"
    return text + (f"; {failed} scan{'' if failed == 1 else 's'} failed." if failed else ".")


def _row(row: Mapping[str, str], output_dir: Path) -> dict[str, Any]:
    participant = row.get("participant_id", "")
    page = f"{participant}.html"
    linked = participant.replace("-", "").replace("+", "").isalnum() and (output_dir / page).is_file()
    return {
        "link": page if linked else "",
        "cells": [(known(row.get(name)) or "–", name not in TEXT_COLUMNS) for name in COLUMNS],
    }


def _bands(done: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    counts = [_count(row, "n_cmb") for row in done]
    numbers = [sum(low <= n <= high for n in counts) for _, low, high in _BANDS]
    most = max(numbers, default=0) or 1
    return [
        {"name": name, "count": n, "share": round(100 * n / most, 1)}
        for (name, _, _), n in zip(_BANDS, numbers, strict=True)
    ]


def _plot(done: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Place each pair of lobar and deep counts, on axes that grow with log(1 + n); area: the number of scans."""
    pairs = Counter((_count(row, "n_lobar"), _count(row, "n_deep")) for row in done)
    top = max((max(pair) for pair in pairs), default=0)
    ticks = [0, 1, 2, 5]
    while ticks[-1] < top:
        ticks.append(10 * ticks[-3])

    def along(count: float) -> float:
        return round(_SIDE * math.log1p(count) / math.log1p(ticks[-1]), 1)

    most = max(pairs.values(), default=1)
    points = [
        {
            "x": _MARGIN + along(lobar),
            "y": 12 + _SIDE - along(deep),
            "r": round(4 + 8 * math.sqrt((scans - 1) / most), 1),
            "text": f"{lobar} lobar, {deep} deep: {scans} scan{'' if scans == 1 else 's'}",
        }
        for (lobar, deep), scans in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    ]
    return {
        "points": points,
        "ticks": [{"text": n, "x": _MARGIN + along(n), "y": 12 + _SIDE - along(n)} for n in ticks],
        "left": _MARGIN,
        "bottom": 12 + _SIDE,
        "right": _MARGIN + _SIDE,
    }


def _mars(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Sum the MARS form over all scans; the shade of a cell is its share of the largest."""
    sums: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for code, _, _ in MARS_REGIONS:
            for side in ("R", "L"):
                sums[code, side] += sum(
                    _count(row, f"{code}_{side}_{certainty}") for certainty in ("definite", "possible")
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
