"""What is unusual about a scan within its study: the table ``group_quality`` of the group level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from bids_cmb.bids.results import ScanOutcome
from bids_cmb.bids.tables import CONTRAST_COLUMN, IDENTITY_COLUMNS, Cell, finite_number
from bids_cmb.types import OUTLIER_Z

#: The fewest scans of a contrast that say what is usual.
FEWEST: Final = 8

QUALITY_COLUMNS: Final[Mapping[str, Mapping[str, Any]]] = {
    **IDENTITY_COLUMNS,
    "contrast": CONTRAST_COLUMN,
    "scanner": {"Description": "Manufacturer and model from the image's sidecar."},
    "field_strength": {"Description": "From the image's sidecar.", "Units": "T"},
    "n_cmb": {"Description": "Number of microbleeds."},
    "brain_volume": {"Description": "Volume of the brain mask.", "Units": "mm^3"},
    "snr": {"Description": "Median brain signal over noise (QSM: 1 over the noise in ppm)."},
    "registration_similarity": {"Description": "Likeness of image and template after registration, up to 1."},
    "registration_overlap": {"Description": "Dice overlap of brain mask and template after registration."},
    "outliers": {
        "Description": "Measures in which the scan is unusual among those of its contrast: robust z-score above "
        f"{OUTLIER_Z:g}, computed from {FEWEST} scans on; n/a if there are none.",
    },
}


@dataclass(frozen=True)
class Measure:
    """One number per scan: column, name, smallest spread that is believed, and which side is unusual.

    ``least`` is a share of the median where `relative`, else in the measure's own unit (counts: of log(1 + n)).
    """

    column: str
    name: str
    least: float
    relative: bool = False
    low: bool = True
    high: bool = True
    counts: bool = False


MEASURES: Final = (
    Measure("brain_volume", "brain volume", 0.05, relative=True),
    Measure("snr", "signal to noise", 0.15, relative=True, high=False),
    Measure("registration_similarity", "registration", 0.03, high=False),
    Measure("n_cmb", "number of microbleeds", 0.75, low=False, counts=True),
)


def quality_rows(scans: Sequence[ScanOutcome]) -> list[dict[str, Cell]]:
    """Return one row (`QUALITY_COLUMNS`) for each scan that is done, with what is unusual about it."""
    rows = [_row(scan) for scan in scans if scan.status == "done"]
    for contrast in {row["contrast"] for row in rows}:
        mine = [row for row in rows if row["contrast"] == contrast]
        for measure in MEASURES:
            for row in outlying(mine, measure):
                row["outliers"] = "; ".join(filter(None, (str(row["outliers"] or ""), measure.name)))
    return rows


def outlying(rows: Sequence[dict[str, Cell]], measure: Measure) -> list[dict[str, Cell]]:
    """Return the rows whose value lies further from the median than `OUTLIER_Z` robust standard deviations."""
    known = [
        (row, _scale(value, measure))
        for row in rows
        if finite_number(value := row[measure.column]) is not None
    ]
    if len(known) < FEWEST:
        return []
    middle = median(value for _, value in known)
    spread = 1.4826 * median(abs(value - middle) for _, value in known)
    spread = max(spread, measure.least * (abs(middle) if measure.relative else 1.0), 1e-9)
    return [
        row
        for row, value in known
        if (measure.high and value - middle > OUTLIER_Z * spread)
        or (measure.low and middle - value > OUTLIER_Z * spread)
    ]


def _row(scan: ScanOutcome) -> dict[str, Cell]:
    sidecar = scan.sidecar
    registration = sidecar.get("RegistrationQuality")
    quality = registration if isinstance(registration, dict) else {}
    names = (sidecar.get(key) for key in ("Manufacturer", "ManufacturersModelName"))
    return {
        **scan.identity,
        "contrast": scan.contrast,
        "scanner": " ".join(name for name in names if isinstance(name, str)) or None,
        "field_strength": _float(sidecar.get("MagneticFieldStrength")),
        "n_cmb": len(scan.lesions),
        "brain_volume": _float(sidecar.get("BrainVolume")),
        "snr": _float(sidecar.get("SNR")),
        "registration_similarity": _float(quality.get("similarity")),
        "registration_overlap": _float(quality.get("overlap")),
        "outliers": None,
    }


def _scale(value: Cell, measure: Measure) -> float:
    number = float(value or 0)
    return math.log1p(number) if measure.counts else number


def _float(value: object) -> float | None:
    number = finite_number(value)
    return None if number is None else float(number)
