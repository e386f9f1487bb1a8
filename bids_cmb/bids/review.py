"""What human readers say: the tables that the subject pages save, counted beside the automatic results.

A reader's table lies in ``OUTPUT_DIR/review/`` and has the columns of `REVIEW_COLUMNS`. ``index`` is that of
``seg-CMB_dseg.tsv``, with ``verdict`` ``cmb``, ``not_cmb`` or ``unsure``; ``x``, ``y``, ``z`` repeat its position
(mm), so that a verdict on an earlier result is recognised. ``index`` ``n/a`` with the verdict ``cmb`` is a
microbleed that was missed; with no verdict, the row says that the reader went through the whole scan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bids_cmb.bids.results import ScanOutcome
from bids_cmb.bids.tables import IDENTITY_COLUMNS, MISSING, Cell, read_table, to_number

REVIEW_FOLDER: Final = "review"
REVIEW_COLUMNS: Final = (
    "participant_id",
    "session_id",
    "source",
    "index",
    "verdict",
    "x",
    "y",
    "z",
    "notes",
)
VERDICTS: Final = ("cmb", "not_cmb", "unsure")
#: A verdict belongs to a microbleed of the same index that lies no further away than this, mm.
SAME_PLACE_MM: Final = 0.5

GROUP_REVIEW_COLUMNS: Final[Mapping[str, Mapping[str, Any]]] = {
    **IDENTITY_COLUMNS,
    "review": {"Description": "The reader's table in review/."},
    "n_cmb": {"Description": "Microbleeds found automatically."},
    "n_reviewed": {"Description": "Of these, how many the reader judged."},
    "n_confirmed": {"Description": "Of these, how many the reader took for microbleeds."},
    "n_rejected": {"Description": "Of these, how many the reader took for something else."},
    "n_unsure": {"Description": "Of these, how many the reader was unsure about."},
    "n_added": {"Description": "Microbleeds that the reader added."},
    "n_cmb_reviewed": {"Description": "Microbleeds by the reader: confirmed and added."},
    "scan_read": {
        "Description": "Whether the reader went through the whole scan.",
        "Levels": {"yes": "said so", "no": "did not say so"},
    },
    "n_outdated": {"Description": "Verdicts that belong to an earlier result and were not counted."},
}


def count_reviews(output_dir: Path, scans: Sequence[ScanOutcome]) -> tuple[list[dict[str, Cell]], list[str]]:
    """Count the verdicts of all readers.

    Parameters
    ----------
    output_dir
        The output folder.
    scans
        Its results.

    Returns
    -------
    list
        One row (`GROUP_REVIEW_COLUMNS`) for each table and scan in it, by scan.
    list of str
        A sentence for each table or row that can't be used.
    """
    by_source = {(scan.participant_id, scan.source): scan for scan in scans if scan.status == "done"}
    rows: list[dict[str, Cell]] = []
    problems: list[str] = []
    for path in sorted((output_dir / REVIEW_FOLDER).glob("*.tsv")):
        try:
            table = read_table(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        if table and not set(REVIEW_COLUMNS) <= set(table[0]):
            problems.append(f"The table {path} is no review table: its columns differ.")
            continue
        groups: dict[tuple[str, str], list[dict[str, str]]] = {}
        for row in table:
            groups.setdefault((row["participant_id"], row["source"]), []).append(row)
        for key, verdicts in groups.items():
            scan = by_source.get(key)
            if scan is None:
                problems.append(f"{path} judges {key[1]} of {key[0]}, of which there are no results.")
            else:
                rows.append(_count(path.name, scan, verdicts))
    rows.sort(key=lambda row: tuple(str(row[name] or "") for name in list(GROUP_REVIEW_COLUMNS)[:4]))
    return rows, problems


def _count(review: str, scan: ScanOutcome, table: Sequence[Mapping[str, str]]) -> dict[str, Cell]:
    lesions = {row["index"]: row for row in scan.lesions}
    judged: dict[str, str] = {}
    added = outdated = 0
    read = False
    for row in table:
        if row["index"] != MISSING:
            if row["verdict"] in VERDICTS and _same_place(lesions.get(row["index"]), row):
                judged[row["index"]] = row["verdict"]
            elif row["verdict"] in VERDICTS:
                outdated += 1
        elif row["verdict"] == "cmb":
            added += 1
        elif row["verdict"] == MISSING:
            read = True
    counts = Counter(judged.values())
    return {
        **scan.identity,
        "review": review,
        "n_cmb": len(lesions),
        "n_reviewed": len(judged),
        "n_confirmed": counts["cmb"],
        "n_rejected": counts["not_cmb"],
        "n_unsure": counts["unsure"],
        "n_added": added,
        "n_cmb_reviewed": counts["cmb"] + added,
        "scan_read": "yes" if read else "no",
        "n_outdated": outdated,
    }


def _same_place(lesion: Mapping[str, str] | None, row: Mapping[str, str]) -> bool:
    """Whether a verdict is about this microbleed; a verdict without coordinates goes by its index alone."""
    if lesion is None:
        return False
    pairs = [(to_number(lesion.get(axis)), to_number(row[axis])) for axis in "xyz"]
    return all(
        there is None or (here is not None and abs(here - there) <= SAME_PLACE_MM) for here, there in pairs
    )
