"""How simulated microbleeds compare with published ones: size, place and contrast of those that a rater would see.

Published figures are medians and shares over 600 to 957 lesions of five cohorts with GRE and SWI (per-lesion tables of
MicrobleedNet; the contrast from the cohorts with drawn outlines). None are known for QSM: it is compared with them too,
but bleeds are smaller there, since nothing blooms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.evaluation.bootstrap import interval
from bids_cmb.training.simulate.lesions import CATEGORIES
from bids_cmb.training.simulate.scan import SimulatedScan
from bids_cmb.types import CONTRASTS, Contrast

#: Ring around an outline that its mean signal is compared with, mm.
_RING = (0.5, 2.0)
#: Name and published value of each figure; only the loss of signal differs between contrasts.
_SIZES = {"diameter, 5 % below, mm": 2.16, "diameter, 25 % below, mm": 2.56, "diameter, median, mm": 2.84,
          "diameter, 75 % below, mm": 3.31, "diameter, 95 % below, mm": 4.83}  # fmt: skip
_SHARES = {
    "share of 5 to 10 mm": 0.04,
    "share lobar": 0.74,
    "share deep": 0.135,
    "share infratentorial": 0.126,
}
_LOSS: dict[Contrast, float] = {"gre": 0.45, "swi": 0.55}


@dataclass(frozen=True)
class Bleed:
    """A visible simulated microbleed: contrast, diameter as seen (mm), MARS category, signal lost (share; nan on QSM)."""

    contrast: Contrast
    diameter: float
    category: str
    loss: float


@dataclass(frozen=True)
class LesionFigure:
    """One figure of the bleeds of a contrast: published, simulated, its 95 % interval over bleeds (not over subjects: too narrow), and their number."""

    contrast: Contrast
    name: str
    published: float
    simulated: float
    low: float
    high: float
    count: int


def visible_bleeds(scan: SimulatedScan) -> list[Bleed]:
    """List the bleeds of a scan that a rater would see."""
    contrast = scan.protocol.contrast
    return [
        Bleed(
            contrast,
            x.diameter,
            CATEGORIES[x.deposit.place],
            math.nan if contrast == "qsm" else _signal_loss(scan, x.index),
        )
        for x in scan.lesions
        if x.visible
    ]


def _signal_loss(scan: SimulatedScan, index: int) -> float:
    """Mean loss of signal inside an outline against the ring around it."""
    zooms = np.linalg.norm(scan.affine[:3, :3], axis=0)
    found = ndimage.find_objects(scan.lesion_labels, max_label=index)[-1]
    if found is None:  # its neighbours took all of its voxels
        return math.nan
    margin = np.ceil((_RING[1] + 1) / zooms).astype(int).tolist()
    box = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(found, margin, strict=True))
    own = scan.lesion_labels[box] == index
    distance = ndimage.distance_transform_edt(~own, zooms)
    # Where slices are thick, the ring is what lies beside the outline in its own slices.
    ring = (distance > _RING[0]) & (distance <= _RING[1]) & scan.brain_mask[box]
    image = scan.image[box]
    return 1.0 - float(image[own].mean()) / float(image[ring].mean()) if ring.any() else math.nan


def compare_bleeds(bleeds: Iterable[Bleed]) -> list[LesionFigure]:
    """Compare visible simulated bleeds with published ones, contrast by contrast.

    Returns
    -------
    list of LesionFigure
        Intervals by bootstrap over bleeds, as if each were of another subject; nothing for a contrast without any.
    """
    listed = list(bleeds)
    out: list[LesionFigure] = []
    for contrast in CONTRASTS:
        mine = [b for b in listed if b.contrast == contrast]
        if not mine:
            continue
        diameters = np.array([b.diameter for b in mine])
        for (name, published), q in zip(_SIZES.items(), (0.05, 0.25, 0.5, 0.75, 0.95), strict=True):
            out.append(_figure(contrast, name, published, diameters, partial(np.quantile, q=q)))
        shares = (
            (diameters > 5.0) & (diameters <= 10.0),
            *(
                np.array([b.category == category for b in mine])
                for category in ("lobar", "deep", "infratentorial")
            ),
        )
        for (name, published), own in zip(_SHARES.items(), shares, strict=True):
            out.append(_figure(contrast, name, published, own, np.mean))
        losses = np.array([b.loss for b in mine if math.isfinite(b.loss)])
        if contrast in _LOSS and len(losses):
            out.append(_figure(contrast, "share of signal lost, median", _LOSS[contrast], losses, np.median))
    return out


def _figure(
    contrast: Contrast,
    name: str,
    published: float,
    values: npt.NDArray[np.generic],
    of: Callable[..., Any],
) -> LesionFigure:
    rng = np.random.default_rng(1)
    drawn = [of(values[rng.integers(0, len(values), len(values))]) for _ in range(500)]
    low, high = interval(np.array(drawn, dtype=np.float64))
    return LesionFigure(contrast, name, published, float(of(values)), low, high, len(values))


def as_lines(figures: Sequence[LesionFigure]) -> list[str]:
    """Say the figures in plain lines."""
    return [
        f"{f.contrast}  {f.name:30} published {f.published:6.3f}  simulated {f.simulated:6.3f} "
        f"({f.low:.3f} to {f.high:.3f}), {f.count} bleeds"
        for f in figures
    ]
