"""What a reader checks before believing a count: acquisition, its distance from the training data, quality."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bids_cmb.report.data import ScanResult, read_number
from bids_cmb.report.figures import LoadedScan
from bids_cmb.report.page import format_number
from bids_cmb.types import Contrast

#: What the detector was trained on: largest slice and in-plane edge in mm, echo times in ms, field strengths in
#: tesla. A scan outside draws a warning; it is processed all the same. Typed, since the report does not import
#: training: rounded outwards from what ``bids_cmb.training.simulate.protocol`` draws, where echo times are 14 to 45 ms
#: (QSM 14 to 26 ms; a susceptibility map depends little on it).
LARGEST_SLICE_MM = 6.0
LARGEST_PIXEL_MM = 1.5
ECHO_TIMES_MS: Mapping[Contrast, tuple[float, float]] = {
    "gre": (10.0, 50.0),
    "swi": (10.0, 50.0),
    "qsm": (3.0, 50.0),
}
FIELDS_TESLA = (1.4, 3.1)
#: Below this similarity of image and template the regions deserve a look: good fits had 0.28 and more
#: (``docs/mars_atlas.md``).
LOWEST_SIMILARITY = 0.28
#: Adult brains are rarely outside these volumes (ml): the mask may be wrong.
BRAIN_ML = (800.0, 1900.0)
_BINS = 80


@dataclass(frozen=True)
class Row:
    """A line of the acquisition table."""

    name: str
    value: str
    warning: str = ""


@dataclass(frozen=True)
class Histogram:
    """Intensities inside the brain, and where the microbleeds lie; drawn in a box of `width` x `height`."""

    width: int
    height: int
    area: str
    lesions: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]
    caption: str
    alt: str


def acquisition(result: ScanResult, loaded: LoadedScan | None) -> list[Row]:
    """Return the acquisition and quality table of a scan; what nobody wrote down is left out or named so."""
    sidecar = result.sidecar
    size = _voxel_size(sidecar, loaded)
    rows = []
    if size:
        slice_edge, pixel = max(size), sorted(size)[1]
        warning = ""
        if slice_edge > LARGEST_SLICE_MM + 0.05:
            warning = f"Slices over {LARGEST_SLICE_MM:g} mm were not in the training data."
        elif pixel > LARGEST_PIXEL_MM + 0.05:
            warning = f"Pixels over {LARGEST_PIXEL_MM:g} mm were not in the training data."
        rows.append(Row("Voxel", " × ".join(f"{edge:.3g}" for edge in size) + " mm", warning))
    if loaded is not None:
        rows.append(Row("Matrix", " × ".join(str(count) for count in loaded.volume.data.shape)))
    echo = read_number(sidecar.get("EchoTime")) * 1000
    low, high = ECHO_TIMES_MS[result.contrast]
    rows.append(_ranged("Echo time", echo, "ms", low, high))
    rows.append(
        _ranged("Field strength", read_number(sidecar.get("MagneticFieldStrength")), "T", *FIELDS_TESLA)
    )
    scanner = " ".join(
        str(sidecar[key]) for key in ("Manufacturer", "ManufacturersModelName") if sidecar.get(key)
    )
    if scanner:
        rows.append(Row("Scanner", scanner))
    volume = read_number(sidecar.get("BrainVolume")) / 1000
    if not math.isnan(volume):
        odd = not BRAIN_ML[0] <= volume <= BRAIN_ML[1]
        warning = (
            "Unusual for an adult brain: look at the mask, or the scan covers part of the brain."
            if odd
            else ""
        )
        rows.append(Row("Brain volume", f"{volume:.0f} ml", warning))
    snr = read_number(sidecar.get("SNR"))
    if not math.isnan(snr):
        rows.append(Row("Signal to noise", f"{snr:.3g}" + (" per ppm" if result.contrast == "qsm" else "")))
    quality = sidecar.get("RegistrationQuality")
    for name, value in sorted(quality.items()) if isinstance(quality, dict) else []:
        number = read_number(value)
        poor = name == "similarity" and number < LOWEST_SIMILARITY
        warning = "The template fits poorly: look at the region borders." if poor else ""
        rows.append(Row(f"Registration, {str(name).replace('_', ' ')}", format_number(number, 2), warning))
    return rows


def _voxel_size(sidecar: Mapping[str, Any], loaded: LoadedScan | None) -> list[float]:
    stated = sidecar.get("VoxelSize")
    edges = [read_number(edge) for edge in stated] if isinstance(stated, list) else []
    if len(edges) == 3 and not any(math.isnan(edge) for edge in edges):
        return edges
    return [round(edge, 4) for edge in loaded.volume.zooms] if loaded is not None else []


def _ranged(name: str, value: float, unit: str, low: float, high: float) -> Row:
    if math.isnan(value):
        return Row(name, "not stated")
    warning = "" if low <= value <= high else f"Outside the training data ({low:.2g} to {high:.2g} {unit})."
    return Row(name, f"{value:.3g} {unit}", warning)


def draw_histogram(loaded: LoadedScan) -> Histogram | None:
    """Draw the intensities inside the brain mask with a tick at the core of each microbleed; None without a mask."""
    if loaded.brain is None or not loaded.brain.any():
        return None
    data, window = loaded.volume.data, loaded.window
    span = window.high - window.low
    low, high = window.low - 0.05 * span, window.high + 0.15 * span
    counts, _ = np.histogram(data[loaded.brain], bins=_BINS, range=(low, high))
    width, height = 340, 90
    scale = (height - 18) / max(int(counts.max()), 1)
    step = width / _BINS
    tops = " ".join(f"H{(k + 1) * step:.1f}V{height - c * scale:.1f}" for k, c in enumerate(counts))
    labels = loaded.labels.get("microbleeds")
    cores = []
    if labels is not None and labels.any():
        inside = labels > 0
        values, owners = data[inside], labels[inside]
        for finding in loaded.result.findings:
            own = values[owners == finding.index]
            if own.size:
                core = float(own.max() if loaded.result.contrast == "qsm" else own.min())
                cores.append(round(min(max((core - low) / (high - low), 0), 1) * width, 1))
    ticks = [(part, window.low + part * span) for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
    unit = f", {window.unit}" if window.unit else ""
    what = "each line is a microbleed’s " + ("peak" if loaded.result.contrast == "qsm" else "darkest voxel")
    return Histogram(
        width=width,
        height=height,
        area=f"M0 {height}{tops.replace('H', f'V{height - counts[0] * scale:.1f}H', 1)}V{height}Z",
        lesions=tuple(cores),
        ticks=tuple(
            (round((value - low) / (high - low) * width, 1), format_number(value, 2 if span < 5 else 0))
            for _, value in ticks
        ),
        caption=f"Intensity inside the brain{unit}" + (f"; {what}." if cores else "."),
        alt="Histogram of the intensities inside the brain mask",
    )
