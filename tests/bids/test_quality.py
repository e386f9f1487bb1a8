"""Outliers of a study: what is flagged, and what is not."""

from __future__ import annotations

from typing import Any

from bids_cmb.bids.quality import QUALITY_COLUMNS, quality_rows
from bids_cmb.bids.results import ScanOutcome


def _scan(number: int, contrast: str = "swi", lesions: int = 0, **sidecar: Any) -> ScanOutcome:
    facts = {
        "BrainVolume": 1.2e6 + 1e4 * (number % 5),
        "SNR": 20.0 + number % 3,
        "RegistrationQuality": {"similarity": 0.8 + 0.01 * (number % 3), "overlap": 0.95},
        **sidecar,
    }
    return ScanOutcome(
        f"sub-{number:02d}", None, f"bids:raw:{number}", contrast, "done", facts, ({},) * lesions
    )


def _outliers(scans: list[ScanOutcome]) -> dict[str, Any]:
    return {str(row["participant_id"]): row["outliers"] for row in quality_rows(scans) if row["outliers"]}


def test_a_scan_unlike_the_others_is_named_with_its_reasons() -> None:
    scans = [_scan(n) for n in range(12)]
    assert _outliers(scans) == {}
    odd = _scan(20, lesions=60, BrainVolume=6e5)
    low = _scan(21, SNR=2.0, RegistrationQuality={"similarity": 0.1, "overlap": 0.5})
    assert _outliers([*scans, odd, low]) == {
        "sub-20": "brain volume; number of microbleeds",
        "sub-21": "signal to noise; registration",
    }


def test_scans_are_compared_within_their_contrast_and_only_if_there_are_enough() -> None:
    qsm = [_scan(n, "qsm", SNR=300.0) for n in range(30, 34)]
    assert _outliers([*(_scan(n) for n in range(12)), *qsm]) == {}
    assert _outliers([*(_scan(n) for n in range(5)), _scan(9, BrainVolume=3e5)]) == {}


def test_rows_have_the_columns_and_failed_scans_none() -> None:
    failed = ScanOutcome("sub-50", None, "bids:raw:50", "gre", "failed", problem="Damaged.")
    rows = quality_rows([_scan(1, Manufacturer="Maker", ManufacturersModelName="One"), failed])
    assert [list(row) for row in rows] == [list(QUALITY_COLUMNS)]
    assert rows[0]["scanner"] == "Maker One"
