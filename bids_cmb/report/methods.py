"""The methods text of a page: what was done, with versions and citations, ready to paste into a paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bids_cmb import __version__
from bids_cmb.report.data import CONTRAST_NAMES, ScanResult, read_number
from bids_cmb.types import CONTRASTS

REFERENCES: Mapping[str, str] = {
    "bids": "Gorgolewski KJ et al. The brain imaging data structure, a format for organizing and describing outputs "
    "of neuroimaging experiments. Sci Data 2016;3:160044.",
    "n4": "Tustison NJ et al. N4ITK: improved N3 bias correction. IEEE Trans Med Imaging 2010;29:1310-1320.",
    "mni": "Fonov V et al. Unbiased average age-appropriate atlases for pediatric studies. NeuroImage 2011;54:313-327.",
    "syn": "Avants BB et al. Symmetric diffeomorphic image registration with cross-correlation: evaluating automated "
    "labeling of elderly and neurodegenerative brain. Med Image Anal 2008;12:26-41.",
    "ants": "Tustison NJ et al. The ANTsX ecosystem for quantitative biological and medical imaging. Sci Rep "
    "2021;11:9068.",
    "mars": "Gregoire SM et al. The Microbleed Anatomical Rating Scale (MARS): reliability of a tool to map brain "
    "microbleeds. Neurology 2009;73:1759-1766.",
    "microbleednet": "Sundaresan V et al. Automated detection of cerebral microbleeds on MR images using knowledge "
    "distillation framework. Front Neuroinform 2023;17:1204186.",
}


@dataclass(frozen=True)
class Methods:
    """Paragraphs and the numbered references they cite."""

    paragraphs: tuple[str, ...]
    references: tuple[str, ...]


def describe(scans: Sequence[ScanResult]) -> Methods:
    """Write the methods text that fits the scans of a page."""
    cited: list[str] = []

    def cite(*keys: str) -> str:
        cited.extend(key for key in keys if key not in cited)
        return "[" + ",".join(str(cited.index(key) + 1) for key in keys) + "]"

    contrasts = [c for c in CONTRASTS if any(s.contrast == c for s in scans)]
    names = _join([CONTRAST_NAMES[c] for c in contrasts]) or "SWI, T2*-GRE and QSM"
    versions = sorted({str(_field(s.sidecar, "Software", "Version")) for s in scans} - {"None"}) or [
        __version__
    ]
    paragraphs = [
        f"Cerebral microbleeds were detected on {names} with bids_cmb {_join(versions)}, a BIDS App {cite('bids')} "
        "for research use."
    ]
    if any(c != "qsm" for c in contrasts):
        paragraphs.append(
            "Magnitude images (T2*-GRE, SWI) were corrected for intensity non-uniformity with N4 "
            f"{cite('n4')} inside a brain mask."
        )
    if "qsm" in contrasts:
        paragraphs.append(
            "Susceptibility maps were used in parts per million with blood products positive; unit and sign were "
            "checked before detection."
        )
    paragraphs.append(
        "Detection had three stages, as in microbleednet "
        f"{cite('microbleednet')}: a convolutional network proposed candidates, a second one told microbleeds from "
        "mimics, and rules on size, contrast and place removed what remained of vessels, calcifications, sinuses "
        f"and brain edges. {_models(scans)}"
    )
    paragraphs.append(
        f"Each image was aligned with the MNI152 template {cite('mni')} by an affine and a smooth deformable "
        f"registration of its tissue classes{_refinement(scans, cite)}{_failures(scans)}, and each microbleed was placed in "
        f"one of the thirteen regions of the Microbleed Anatomical Rating Scale {cite('mars')} on either side and "
        "graded definite or possible from its calibrated probability and from whether it lies where mimics do. Sizes are those of the sphere of equal "
        "volume; blooming makes them larger than the deposit."
    )
    return Methods(tuple(paragraphs), tuple(REFERENCES[key] for key in cited))


def _refinement(scans: Sequence[ScanResult], cite: Callable[..., str]) -> str:
    """Say on how many scans ANTs' registration was taken; nothing where it was on none."""
    refined = sum(_field(scan.sidecar, "RegistrationQuality", "syn_taken") == 1 for scan in scans)
    if not refined:
        return ""
    share = "" if refined == len(scans) else f" on {refined} of {len(scans)} scans"
    return f", refined{share} by symmetric diffeomorphic normalisation {cite('syn')} as implemented in ANTs {cite('ants')}"


def _failures(scans: Sequence[ScanResult]) -> str:
    """Say on how many scans the registration stopped at the affine, or failed; nothing where it did on none."""
    levels = [
        _field(scan.sidecar, "RegistrationQuality", "fallback")
        for scan in scans
        if "RegistrationQuality" in scan.sidecar
    ]
    texts = {
        1: "on {} by the affine alone",
        2: "on {} by the position of the head alone",
        None: "not on {} with too little brain",
    }
    counts = [(levels.count(level), text) for level, text in texts.items()]
    said = [text.format(f"{count} of {len(scans)} scans") for count, text in counts if count]
    return f" ({_join(said)})" if said else ""


def _models(scans: Sequence[ScanResult]) -> str:
    """Say which weights and operating points were used."""
    used: dict[str, list[str]] = {}
    for scan in scans:
        name, version = _field(scan.sidecar, "Model", "Name"), _field(scan.sidecar, "Model", "Version")
        if name is None:
            continue
        sha = _field(scan.sidecar, "Model", "SHA256")
        model = (
            f"{name}" + (f" {version}" if version else "") + (f" (SHA-256 {str(sha)[:12]}…)" if sha else "")
        )
        point = operating_point(scan)
        text = f"{point} for {CONTRAST_NAMES[scan.contrast]}" if point else ""
        points = used.setdefault(model, [])
        if text and text not in points:
            points.append(text)
    sentences = [
        f"The weights were {model}" + (f", at an operating point of {_join(points)}." if points else ".")
        for model, points in used.items()
    ]
    return " ".join(sentences)


def operating_point(scan: ScanResult) -> str:
    """Return the probability from which a candidate counts, as text; empty if the sidecar does not say."""
    thresholds = scan.sidecar.get("Thresholds")
    number = read_number(thresholds.get("operating_point")) if isinstance(thresholds, dict) else math.nan
    return "" if math.isnan(number) else f"{number:.3g}"


def _field(sidecar: Mapping[str, Any], name: str, key: str) -> object:
    value = sidecar.get(name)
    return value.get(key) if isinstance(value, dict) else None


def _join(words: Sequence[str]) -> str:
    """Join words as a sentence does."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
