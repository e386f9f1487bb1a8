"""A made-up study: lesions and detections with known counts."""

from __future__ import annotations

from bids_cmb.evaluation.cases import Prediction, Reference, ScanPair


def made_up_scan(
    subject: str,
    *,
    lesions: int,
    found: int,
    false: int,
    contrast: str = "swi",
    scan: str | None = None,
    diameter: float = 3.0,
    thickness: str = "1.00",
) -> ScanPair:
    """A scan of which `found` of `lesions` are detected, with `false` false detections, all scores distinct."""
    references = tuple(
        Reference.ball((20.0 * i, 0.0, 0.0), diameter / 2, mars_category="deep" if i else "lobar")
        for i in range(lesions)
    )
    true = [Prediction((20.0 * i + 0.5, 0.0, 0.0), 0.9 - 0.01 * i, volume=14.0) for i in range(found)]
    wrong = [
        Prediction((20.0 * i, 50.0, 0.0), 0.6 - 0.01 * i, volume=14.0, attributes={"cause": "vein"})
        for i in range(false)
    ]
    attributes = {"contrast": contrast, "slice_thickness": thickness, "field_strength": "3"}
    return ScanPair(
        subject, scan or f"sub-{subject}_{contrast}", references, (*true, *wrong), attributes=attributes
    )
