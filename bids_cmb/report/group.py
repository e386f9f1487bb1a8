"""The page of the study: reads the group tables of an output folder and writes ``group_cmb.html``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_cmb.report.data import known, read_number, read_tsv
from bids_cmb.report.group_charts import Row, bands, count, lobar_deep, page_of, regions, scan_name, strips
from bids_cmb.report.page import read_asset, render, write_page
from bids_cmb.types import OUTLIER_Z
from bids_cmb.wording import counted

PAGE = "group_cmb.html"
#: Columns of the table of scans, with their headings.
COLUMNS = {
    "participant_id": "Participant",
    "session_id": "Session",
    "contrast": "Contrast",
    "status": "Status",
    "n_cmb": "Microbleeds",
    "n_cmb_reviewed": "Reviewed",
    "n_definite": "Definite",
    "n_possible": "Possible",
    "n_lobar": "Lobar",
    "n_deep": "Deep",
    "n_infratentorial": "Infratentorial",
    "total_volume": "Volume (mm³)",
    "field_strength": "Field (T)",
    "voxel_size": "Voxel (mm)",
    "brain_volume": "Brain (ml)",
    "snr": "SNR",
    "outliers": "Unusual",
    "warnings": "Warnings",
}
TEXT_COLUMNS = ("participant_id", "session_id", "contrast", "status", "voxel_size", "outliers", "warnings")


def write_group_page(output_dir: Path) -> Path:
    """Write ``OUTPUT_DIR/group_cmb.html`` from the group tables.

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
    quality = read_tsv(output_dir / "group_quality.tsv")
    reviewed = _reviewed(read_tsv(output_dir / "group_review.tsv"))
    unusual = {_scan(row): known(row.get("outliers")) for row in quality}
    done = [row for row in scans if row.get("status") == "done"]
    links = _links(scans, output_dir)
    mars = regions(read_tsv(output_dir / "group_mars.tsv"))
    columns = {k: v for k, v in COLUMNS.items() if k != "n_cmb_reviewed" or reviewed}
    page = {
        "summary": _summary(scans, done),
        "reviewed": _review_summary(reviewed),
        "pooled": len({row.get("participant_id") for row in done}) < len(done),
        "columns": [(heading, name not in TEXT_COLUMNS) for name, heading in columns.items()],
        "rows": [
            _row(row, list(columns), links, reviewed.get(_scan(row), ""), unusual.get(_scan(row), ""))
            for row in scans
        ],
        "bands": bands(done),
        "mars": mars,
        "unplaced": max(
            0,
            sum(count(row, "n_cmb") for row in done)
            - sum(cell["count"] for row in mars for cell in row["cells"]),
        ),
        "plot": lobar_deep(done, links),
        "strips": strips(quality, links),
        "outlier_z": f"{OUTLIER_Z:g}",
        "unusual": [
            {
                "name": scan_name(row),
                "link": page_of(row, links),
                "why": unusual[_scan(row)],
            }
            for row in quality
            if unusual[_scan(row)]
        ],
        "failed": [{**row, "link": page_of(row, links)} for row in scans if row.get("status") == "failed"],
    }
    text = render(
        "group.html.jinja",
        [read_asset("base.css"), read_asset("group.css")],
        [read_asset("display.js"), read_asset("group.js")],
        page=page,
        side="radiological",
    )
    path = output_dir / PAGE
    write_page(path, text)
    return path


def _scan(row: Row) -> tuple[str, str]:
    return row.get("participant_id", ""), row.get("source", "")


def _links(scans: Sequence[Row], output_dir: Path) -> dict[str, str]:
    """Pages of the participants that have one; a name that is no label is never made a link."""
    links = {}
    for participant in {row.get("participant_id", "") for row in scans}:
        label = participant.replace("-", "").replace("+", "")
        if label.isalnum() and (output_dir / f"{participant}.html").is_file():
            links[participant] = f"{participant}.html"
    return links


def _reviewed(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """Microbleeds by the readers of each scan; several readers are listed with a slash."""
    counts: dict[tuple[str, str], str] = {}
    for row in rows:
        number = known(row.get("n_cmb_reviewed"))
        counts[_scan(row)] = f"{counts[_scan(row)]} / {number}" if _scan(row) in counts else number
    return counts


def _review_summary(reviewed: Mapping[tuple[str, str], str]) -> str:
    if not reviewed:
        return ""
    numbers = [read_number(text) for text in reviewed.values()]
    total = sum(int(n) for n in numbers if not math.isnan(n))
    scans = counted(len(reviewed), "scan")
    if any(math.isnan(n) for n in numbers):
        return (
            f"Readers judged {scans}; where several readers judged a scan, their counts stand side by side."
        )
    return f"Readers judged {scans} and counted {counted(total, 'microbleed')} there."


def _summary(scans: Sequence[Row], done: Sequence[Row]) -> str:
    people = len({row.get("participant_id") for row in scans})
    positive = sum(count(row, "n_cmb") > 0 for row in done)
    total = sum(count(row, "n_cmb") for row in done)
    failed = len(scans) - len(done)
    text = f"{counted(len(done), 'scan')} of {counted(people, 'participant')}: "
    text += f"{counted(total, 'microbleed')}, at least one in {counted(positive, 'scan')}"
    if done:
        text += f" ({100 * positive / len(done):.0f} %)"
    return text + (f"; {counted(failed, 'scan')} failed." if failed else ".")


def _row(
    row: Row, columns: Sequence[str], links: Mapping[str, str], reviewed: str, unusual: str
) -> dict[str, Any]:
    volume = read_number(row.get("brain_volume"))
    shown = {
        **row,
        "brain_volume": "" if math.isnan(volume) else f"{volume / 1000:.0f}",
        "n_cmb_reviewed": reviewed,
        "outliers": unusual,
    }
    return {
        "link": page_of(row, links),
        "cells": [(known(shown.get(name)) or "–", name not in TEXT_COLUMNS) for name in columns],
    }
