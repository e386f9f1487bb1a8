"""The truth of a simulated scan: every bleed outlined as a rater would draw it, and whether one would see it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.training.simulate.lesions import Deposit
from bids_cmb.types import Affine, BoolArray, Contrast, FloatArray

#: A lesion that takes away less than this (GRE, SWI: of the local signal; QSM: ppm) is not one that a rater would mark.
VISIBLE_FLOOR: dict[Contrast, float] = {"gre": 0.15, "swi": 0.20, "qsm": 0.15}
#: ... nor one whose darkest voxel is below this multiple of the noise, or whose mean is below this multiple of the
#: noise and texture around it ...
_OVER_NOISE, _OVER_TEXTURE = 3.0, 3.0
#: ... nor one of so few voxels that its mean times their root is below this multiple (the criterion of Rose 1948,
#: J Opt Soc Am 38:196: a spot is told from random noise from about five).
_ROSE = 5.0
#: ... nor one that melts into a vein, a border of the brain or another dark thing: this share of the voxels beside
#: its outline is at least half as dark (QSM: bright), or lies outside the brain.
_MERGED = 0.3


@dataclass(frozen=True)
class Lesion:
    """A drawn microbleed as it appears on one image.

    Attributes
    ----------
    index
        Label in `SimulatedScan.lesion_labels` (present even if the lesion cannot be seen, where it has voxels).
    position
        World mm.
    diameter
        Apparent: of the sphere with the volume of the outline at half depth, mm; 0 if it leaves no trace.
    depth
        Largest loss of signal as a fraction of the local tissue (GRE, SWI), or gain in ppm (QSM).
    visible
        Whether a rater would mark it on this image.
    deposit
        What was drawn.
    """

    index: int
    position: tuple[float, float, float]
    diameter: float
    depth: float
    visible: bool
    deposit: Deposit


def world(
    centre: tuple[float, float, float], factor: npt.NDArray[np.float64], affine: Affine
) -> tuple[float, float, float]:
    """World position (mm) of a point in fine voxels; `factor` is the image's voxels per fine voxel, by axis."""
    voxel = (np.array(centre) + 0.5) * factor - 0.5
    x, y, z = affine[:3, :3] @ voxel + affine[:3, 3]
    return float(x), float(y), float(z)


def outline(
    depth: FloatArray,
    clean: FloatArray,
    image: FloatArray,
    mask: BoolArray,
    deposits: Sequence[Deposit],
    factor: npt.NDArray[np.float64],
    affine: Affine,
    voxel: tuple[float, ...],
    contrast: Contrast,
    noise: float,
) -> tuple[npt.NDArray[np.uint8], tuple[Lesion, ...]]:
    """Outline every bleed at half of its depth and say whether a rater would see it."""
    labels = np.zeros(depth.shape, np.uint8)
    lesions = []
    spacing = np.array(voxel)
    for number, deposit in enumerate(deposits, start=1):
        centre = (np.array(deposit.centre) + 0.5) * factor - 0.5
        reach = 0.75 * deposit.diameter + 5.0
        low = np.maximum(0, np.floor(centre - reach / spacing)).astype(int)
        high = np.minimum(depth.shape, np.ceil(centre + reach / spacing).astype(int) + 1)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        if any(a >= b for a, b in zip(low, high, strict=True)):
            continue
        offset = (
            np.stack(
                np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), -1
            )
            - centre
        )
        distance = np.linalg.norm(offset * spacing, axis=-1)
        near = distance <= max(1.5, 0.5 * deposit.diameter + 1.5, 0.75 * spacing.max())
        patch = np.where(mask[box], depth[box], 0.0)
        peak = float(np.where(near, patch, 0.0).max(initial=0.0))
        parts, _ = ndimage.label((patch > 0.5 * peak) & (distance < reach), np.ones((3, 3, 3)))
        at_peak = parts.flat[int(np.argmax(np.where(near, patch, -np.inf)))] if peak > 0 else 0
        own = parts == at_peak if at_peak else np.zeros_like(near)
        visible = peak > VISIBLE_FLOOR[contrast] and stands_out(
            own, distance, clean[box], image[box], mask[box], peak, noise, contrast
        )
        volume = float(own.sum() * np.prod(spacing))
        labels[box][own & (labels[box] == 0)] = number
        diameter = (6 * volume / math.pi) ** (1 / 3)
        position = world(deposit.centre, factor, affine)
        lesions.append(Lesion(number, position, diameter, peak, bool(visible), deposit))
    return labels, tuple(lesions)


def stands_out(
    own: BoolArray,
    distance: FloatArray,
    clean: FloatArray,
    image: FloatArray,
    mask: BoolArray,
    peak: float,
    noise: float,
    contrast: Contrast,
) -> bool:
    """Whether a bleed is darker (QSM: brighter) than noise, texture and what lies around it."""
    ring = mask & ~own & (distance < 7.0)
    if own.sum() == 0 or ring.sum() < 8 or merged_share(image, own, mask, ring, contrast) > _MERGED:
        return False
    level = float(np.median(clean[ring]))
    texture = float(1.48 * np.median(np.abs(clean[ring] - level)))
    if contrast == "qsm":
        greatest, mean = float(image[own].max()) - level, float(image[own].mean()) - level
    else:
        level = max(level, 1e-6)
        texture /= level
        greatest, mean = 1 - float(image[own].min()) / level, 1 - float(image[own].mean()) / level
    clear = max(_OVER_TEXTURE, _ROSE / math.sqrt(own.sum())) * texture
    return peak > _OVER_NOISE * noise and mean > clear and greatest > 0.6 * peak


def merged_share(
    image: FloatArray, own: BoolArray, mask: BoolArray, ring: BoolArray, contrast: Contrast
) -> float:
    """Share of the voxels beside an outline, in its slices, that a rater could not tell from the bleed.

    Parameters
    ----------
    image
        (x, y, z) around the bleed.
    own, mask
        Its outline, and the brain.
    ring
        Brain around it, for the level of the tissue.
    contrast
        On QSM a bleed is bright.
    """
    beside = ndimage.binary_dilation(own, np.ones((3, 3, 1), bool)) & ~own
    level = float(np.median(image[ring]))
    core = float(image[own].max() if contrast == "qsm" else image[own].min())
    half = 0.5 * (level + core)
    alike = image > half if contrast == "qsm" else image < half
    return float((alike | ~mask)[beside].mean()) if beside.any() else 1.0
