"""Tab-separated tables: their columns, how cells are written, and how tables are read back."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bids_cmb.files import read_text, write_text
from bids_cmb.types import MARS_REGIONS, Candidate

MISSING: Final = "n/a"
Cell = str | int | float | None
Row = Mapping[str, Cell]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

# fmt: off
LESION_COLUMNS: Final = [
    "index", "name", "probability", "certainty", "mars_region", "mars_category", "hemisphere", "x", "y", "z",
    "x_mni", "y_mni", "z_mni", "volume", "diameter", "contrast", "elongation", "flags",
]
# fmt: on
CANDIDATE_COLUMNS: Final = [*LESION_COLUMNS, "stage1_score", "stage2_probability", "fate"]

#: Decimal places by column; what is not listed is written as it is.
DECIMALS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("probability", "stage1_score", "stage2_probability", "contrast", "elongation"), 4),
    **dict.fromkeys(("x", "y", "z", "x_mni", "y_mni", "z_mni", "volume", "diameter"), 2),
}

#: Which image a row is about; the first columns of every group table.
IDENTITY_COLUMNS: Final[Mapping[str, Mapping[str, Any]]] = {
    "participant_id": {"Description": "Subject."},
    "session_id": {"Description": "Session."},
    "source": {"Description": "The image, as a BIDS URI."},
}
CONTRAST_COLUMN: Final[Mapping[str, Any]] = {
    "Description": "Contrast of the image.",
    "Levels": {
        "swi": "susceptibility-weighted image",
        "gre": "T2*-weighted gradient echo",
        "qsm": "quantitative susceptibility map",
    },
}

_REGION_LEVELS = {code: name for code, name, _ in MARS_REGIONS}
_POINT = {axis: f"Centre of the microbleed along {axis} in the image's own RAS+ world." for axis in "xyz"}

#: Descriptions of the columns for JSON sidecars.
LESION_COLUMN_NOTES: Final[Mapping[str, Mapping[str, Any]]] = {
    "index": {"Description": "Label in the scan's seg-CMB_dseg.", "Format": "integer"},
    "name": {"Description": "What it is: CMB, a cerebral microbleed."},
    "probability": {"Description": "Calibrated probability, 0 to 1, that this is a microbleed."},
    "certainty": {
        "Description": "Grade in the manner of the Microbleed Anatomical Rating Scale: definite from the probability "
        "of the sidecar's Thresholds on and in no zone of mimics (no such flag), else possible.",
        "Levels": {"definite": "a definite microbleed", "possible": "a possible microbleed"},
    },
    "mars_region": {
        "Description": "Region of the Microbleed Anatomical Rating Scale (Gregoire et al. 2009).",
        "Levels": _REGION_LEVELS,
    },
    "mars_category": {
        "Description": "Category of that region.",
        "Levels": {
            "lobar": "cortex and subcortical white matter",
            "deep": "deep grey and white matter",
            "infratentorial": "brainstem and cerebellum",
        },
    },
    "hemisphere": {"Description": "Side.", "Levels": {"L": "left", "R": "right"}},
    **{axis: {"Description": note, "Units": "mm"} for axis, note in _POINT.items()},
    **{
        f"{axis}_mni": {
            "Description": f"Centre along {axis} in MNI152 space (2009a symmetric).",
            "Units": "mm",
        }
        for axis in "xyz"
    },
    "volume": {
        "Description": "Volume of the outline; blooming makes it larger than the lesion.",
        "Units": "mm^3",
    },
    "diameter": {"Description": "Diameter of the sphere of equal volume.", "Units": "mm"},
    "contrast": {
        "Description": "How much it stands out from its surroundings: relative signal loss (GRE, SWI) or "
        "susceptibility difference in ppm (QSM)."
    },
    "elongation": {
        "Description": "Longest over shortest axis of equal inertia, in the plane of the slices where they are thick; "
        "taken with the vein or sulcus that the outline was cut off from."
    },
    "flags": {
        "Description": "Remarks that call for a look, separated by semicolons: zones of mimics that it lies in, and what "
        "else it may belong to (border:<region>, border:other_side)."
    },
}
CANDIDATE_COLUMN_NOTES: Final[Mapping[str, Mapping[str, Any]]] = {
    **LESION_COLUMN_NOTES,
    "index": {"Description": "Label in the scan's seg-candidates_dseg.", "Format": "integer"},
    "name": {
        "Description": "What it is: CMB, a cerebral microbleed, or a candidate that was not taken for one."
    },
    "probability": {
        "Description": "Final calibrated probability; below the operating point if removed, 0 where it cannot be a microbleed."
    },
    "stage1_score": {"Description": "Highest score of the candidate detector inside the component, 0 to 1."},
    "stage2_probability": {"Description": "Probability by the discriminator, before the clean-up rules."},
    "fate": {
        "Description": "'accepted', or what removed it: 'stage2' or the name of a clean-up rule.",
        "Levels": {
            "accepted": "counted as a microbleed",
            "stage2": "the second stage did not take it for a microbleed",
            "outside_brain": "outside the brain mask",
            "too_large": "larger than a microbleed can be",
            "negative_susceptibility": "diamagnetic, as calcifications are",
            "low_contrast": "too faint for a rater to mark",
            "edge": "at the edge of the brain mask, and not probable enough for that",
            **{
                zone: f"{place}, and not probable enough for that"
                for zone, place in (
                    ("ventricle", "in a ventricle"),
                    ("choroid_plexus", "where choroid plexus lies"),
                    ("pineal", "where the pineal gland lies"),
                    ("falx", "at the falx"),
                    ("sinus", "at a venous sinus"),
                    ("dropout", "where air spaces cost signal"),
                    ("pallidum", "where the pallidum takes up minerals"),
                )
            },
        },
    },
}


def lesion_row(candidate: Candidate, index: int) -> dict[str, Cell]:
    """Put one candidate into the columns of the candidate table, of which the lesion table takes a part.

    Parameters
    ----------
    candidate
        The candidate.
    index
        Its label in the map that the table goes with.
    """
    x, y, z = candidate.position
    x_mni, y_mni, z_mni = candidate.mni
    return {
        "index": index,
        "name": "CMB" if candidate.accepted else "candidate",
        "probability": candidate.probability,
        "certainty": candidate.certainty if candidate.accepted else None,
        "mars_region": candidate.mars_region,
        "mars_category": candidate.mars_category,
        "hemisphere": candidate.hemisphere,
        "x": x,
        "y": y,
        "z": z,
        "x_mni": x_mni,
        "y_mni": y_mni,
        "z_mni": z_mni,
        "volume": candidate.volume,
        "diameter": candidate.diameter,
        "contrast": candidate.contrast,
        "elongation": candidate.elongation,
        "flags": ";".join(candidate.flags),
        "stage1_score": candidate.stage1_score,
        "stage2_probability": candidate.stage2_probability,
        "fate": candidate.fate,
    }


def format_cell(value: Cell, decimals: int | None = None) -> str:
    """Write one cell.

    Nothing (None, an empty text, a number that is none) becomes ``n/a``; tabs and line ends become spaces,
    other characters that control terminals and programs go; text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, (int, float)):
        text = str(value) if decimals is None else f"{value:.{decimals}f}"
        return text.removeprefix("-") if text.startswith("-") and float(text) == 0 else text
    text = "".join(char for char in " ".join(value.split()) if char.isprintable())
    if text[:1] in ("=", "+", "-", "@") and not _NUMBER.fullmatch(text):
        text = "'" + text
    return text or MISSING


def table_text(columns: Sequence[str], rows: Iterable[Row], decimals: Mapping[str, int] = DECIMALS) -> str:
    """Lay out a table: a header, then one line per row; columns that a row lacks are ``n/a``."""
    lines = ["\t".join(columns)]
    lines += ["\t".join(format_cell(row.get(name), decimals.get(name)) for name in columns) for row in rows]
    return "\n".join(lines) + "\n"


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a table whole or not at all."""
    write_text(path, table_text(columns, rows))


def read_table(path: Path, required: Collection[str] = ()) -> list[dict[str, str]]:
    """Read a table as text cells by column name; ``n/a`` stays as it is.

    Parameters
    ----------
    path
        The file.
    required
        Columns that it must have, with or without rows.

    Raises
    ------
    ValueError
        If the file can't be read or isn't a table, with a sentence that says why.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(f"The table {path} cannot be read ({reason}).") from error
    # Not splitlines(): a cell may hold separators of other kinds that are no end of a row.
    first, *others = (line.removesuffix("\r").split("\t") for line in text.split("\n"))
    if first == [""]:
        raise ValueError(f"The table {path} is empty.")
    rows: list[dict[str, str]] = []
    for number, cells in enumerate(others, start=2):
        if cells == [""]:
            continue
        if len(cells) != len(first):
            raise ValueError(
                f"The table {path} is damaged: line {number} has not as many cells as its header."
            )
        rows.append(dict(zip(first, cells, strict=True)))
    missing = sorted(set(required) - set(first))
    if missing:
        raise ValueError(f"The table {path} lacks the columns {', '.join(missing)}.")
    return rows


def finite_number(value: object) -> int | float | None:
    """Return a value of a sidecar if it is a number that a table can hold, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def to_number(cell: str | None) -> float | None:
    """Return the number in a cell, or None if it holds none."""
    try:
        number = float(cell) if cell is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
