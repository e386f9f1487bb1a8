"""One scan as the page of its subject shows it: counts, cards and words, before any picture is drawn."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bids_cmb.report.checks import Histogram, Row
from bids_cmb.report.data import CONTRAST_NAMES, Finding, ScanResult
from bids_cmb.report.figures import Picture
from bids_cmb.report.mars import MarsGroup, mars_form
from bids_cmb.report.methods import operating_point
from bids_cmb.report.overview import Projection
from bids_cmb.report.page import format_number
from bids_cmb.types import MARS_REGIONS
from bids_cmb.wording import counted

#: How many of the rejected candidates are shown.
NEAR_MISSES = 8
_REGION_ORDER = [code for code, _, _ in MARS_REGIONS]
_REASONS = {"stage2": "The second stage did not take it for a microbleed"}


@dataclass
class Card:
    """One microbleed, or one near miss, as the template shows it."""

    finding: Finding
    anchor: str
    key: str
    near: bool
    facts: list[tuple[str, str]]
    reason: str = ""
    order: float = 0.0
    pictures: list[Picture] = field(default_factory=list)
    companions: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class ScanView:
    """One scan as the template shows it."""

    result: ScanResult
    anchor: str
    key: str
    short: str
    eyebrow: str
    headline: str
    split: list[tuple[str, int]]
    warnings: list[str]
    mars: list[MarsGroup]
    unplaced: int
    threshold: str
    acquisition: list[Row]
    cards: list[Card]
    near_misses: list[Card]
    no_pictures: str = ""
    projections: list[Projection] = field(default_factory=list)
    mosaic: list[Picture] = field(default_factory=list)
    mosaic_text: str = ""
    crop_text: str = ""
    checks: list[Picture] = field(default_factory=list)
    histogram: Histogram | None = None
    image: dict[str, Any] | None = None
    viewer: dict[str, Any] | None = None


def build_view(result: ScanResult, number: int, count: int) -> ScanView:
    """Build all of a scan's view that needs no image."""
    anchor = f"scan-{number}"
    findings = result.findings
    session = f"ses-{result.session}" if result.session else ""
    short = " ".join(filter(None, [session, result.title])) if count > 1 else result.title
    form, unplaced = mars_form(findings)
    view = ScanView(
        result=result,
        anchor=anchor,
        key=_scan_key(result),
        short=short,
        eyebrow=" · ".join(filter(None, [session, result.source.split("/")[-1]])),
        headline=f"{CONTRAST_NAMES[result.contrast]}: {count_text(len(findings))}",
        split=[
            *[(name, result.count(certainty=name)) for name in ("definite", "possible")],
            *[(name, result.count(category=name)) for name in ("lobar", "deep", "infratentorial")],
        ],
        warnings=_texts(result.sidecar.get("Warnings")),
        mars=form,
        unplaced=unplaced,
        threshold=operating_point(result),
        acquisition=[],
        cards=[],
        near_misses=[],
    )
    view.cards = [_card(view, finding, near=False) for finding in findings]
    view.near_misses = [_card(view, finding, near=True) for finding in result.rejected[:NEAR_MISSES]]
    return view


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def count_text(count: int) -> str:
    """Write a number of microbleeds as a headline does."""
    return counted(count, "microbleed") if count else "no microbleeds found"


def _scan_key(result: ScanResult) -> str:
    """Name a scan by its source and brain mask: stays the same when the detector runs again on the same image."""
    digest = hashlib.sha256(result.source.encode("utf-8"))
    mask = result.label_image("brain")
    if mask is not None:
        digest.update(mask.read_bytes())
    return digest.hexdigest()[:12]


def _card(view: ScanView, finding: Finding, *, near: bool) -> Card:
    place = ",".join(f"{value:.2f}" for value in finding.position)
    order = _REGION_ORDER.index(finding.region) if finding.region in _REGION_ORDER else len(_REGION_ORDER)
    return Card(
        finding=finding,
        anchor=f"{view.anchor}-{'near' if near else 'cmb'}-{finding.index}",
        key=f"{view.key}:{place}",
        near=near,
        facts=_facts(finding, near=near),
        reason=_reason(finding, view) if near else "",
        order=order + (0.5 if finding.hemisphere == "L" else 0),
        notes=[flag_text(flag) for flag in finding.flags],
    )


def _facts(finding: Finding, *, near: bool) -> list[tuple[str, str]]:
    facts = []
    if near:
        facts.append(
            ("Scores", f"{finding.stage1_score:.2f}, {finding.stage2_probability:.2f}".replace("nan", "–"))
        )
    if not math.isnan(finding.diameter):
        volume = "" if math.isnan(finding.volume) else f" ({format_number(finding.volume, 0)} mm³)"
        facts.append(("Diameter", f"{format_number(finding.diameter)} mm{volume}"))
    facts.append(("World", _point_text(finding.position, "mm")))
    if not any(math.isnan(value) for value in finding.mni):
        facts.append(("MNI", _point_text(finding.mni, "mm", 0)))
    if not math.isnan(finding.contrast):
        facts.append(("Contrast", format_number(finding.contrast, 2)))
    if not math.isnan(finding.elongation):
        facts.append(("Elongation", format_number(finding.elongation, 1)))
    return facts


def _point_text(point: Sequence[float], unit: str, digits: int = 1) -> str:
    return ", ".join(format_number(value, digits) for value in point) + (f" {unit}" if unit else "")


def flag_text(flag: str) -> str:
    """Write a flag of the table as a sentence."""
    name, _, detail = flag.partition(":")
    if flag == "border:other_side":
        return "Near the midline: it may lie on the other side."
    if name == "border":
        region = {code: text for code, text, _ in MARS_REGIONS}.get(detail, detail)
        return f"Near the border with {region or 'another region'}."
    if flag == "edge":
        return "At the edge of the brain mask."
    text = flag.replace("_", " ").replace(":", ": ")
    return text[:1].upper() + text[1:]


def _reason(finding: Finding, view: ScanView) -> str:
    if finding.fate == "stage2":
        point = f", below {view.threshold}" if view.threshold else ""
        score = finding.stage2_probability
        return _REASONS["stage2"] + ("." if math.isnan(score) else f" ({score:.3g}{point}).")
    text = view.result.fates.get(finding.fate) or f"Removed by the rule “{finding.fate.replace('_', ' ')}”"
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
