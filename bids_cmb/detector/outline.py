"""The outline of a candidate on the image's own grid, and the figures that describe it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.types import BoolArray, Contrast, Point, Volume

#: A lesion is looked for this far around its peak (mm), its background in the shell beyond.
_REACH = 6.0
_SHELL = 9.0
#: The darkest (QSM: brightest) voxel may lie this far from the peak of the heat map, mm.
_SNAP = 2.0


@dataclass(frozen=True)
class Outline:
    """A candidate on the image grid.

    Attributes
    ----------
    voxels
        (N, 3) image voxels inside.
    position
        Centre of mass in RAS+ world, mm.
    volume, diameter
        mm³ and mm, of the sphere of equal volume.
    contrast
        Largest fractional signal loss against the surround (GRE, SWI), or gain of susceptibility in ppm (QSM).
    elongation
        Longest over shortest axis in the slice, the voxel's own size taken into account; 1 is round.
    """

    voxels: npt.NDArray[np.int64]
    position: Point
    volume: float
    diameter: float
    contrast: float
    elongation: float


def outline_candidate(
    image: Volume, brain_mask: BoolArray, peak: npt.NDArray[np.float64], contrast: Contrast
) -> Outline:
    """Outline a candidate at half of its depth below (QSM: above) the surround.

    Parameters
    ----------
    image, brain_mask
        On one grid.
    peak
        (3,) image voxel coordinates of the heat map's peak.
    contrast
        Decides the polarity.

    Returns
    -------
    Outline
        At least one voxel, connected (26 neighbours), within 6 mm of the peak.
    """
    zooms = np.array(image.zooms)
    low = np.maximum(0, np.floor(peak - _SHELL / zooms)).astype(int)
    high = np.minimum(image.data.shape, np.ceil(peak + _SHELL / zooms).astype(int) + 1)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    axes = np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij")
    distance = np.linalg.norm((np.stack(axes, -1) - peak) * zooms, axis=-1)
    patch, inside = image.data[box].astype(np.float64), brain_mask[box]
    shell = inside & (distance > 0.6 * _REACH) & (distance <= _SHELL)
    background = float(np.median(patch[shell])) if shell.sum() >= 8 else float(np.median(patch))
    depth = patch - background if contrast == "qsm" else (background - patch) / max(background, 1e-9)
    near = distance <= max(_SNAP, 0.6 * float(zooms.max()))
    if not near.any():
        near = distance <= distance.min()
    seed = np.unravel_index(int(np.argmax(np.where(near, depth, -np.inf))), depth.shape)
    deepest = float(depth[seed])
    own = np.zeros(depth.shape, bool)
    own[seed] = True
    if deepest > 0:
        parts, _ = ndimage.label((depth > 0.5 * deepest) & (distance <= _REACH), np.ones((3, 3, 3)))
        own = parts == parts[seed] if parts[seed] else own
    voxels = np.argwhere(own) + low
    weights = np.clip(depth[own], 1e-6, None)
    centre = (voxels * weights[:, None]).sum(0) / weights.sum()
    x, y, z = image.affine[:3, :3] @ centre + image.affine[:3, 3]
    volume = len(voxels) * image.voxel_volume
    return Outline(
        voxels,
        (float(x), float(y), float(z)),
        volume,
        (6 * volume / math.pi) ** (1 / 3),
        deepest,
        _elongation(voxels, zooms),
    )


def _elongation(voxels: npt.NDArray[np.int64], zooms: npt.NDArray[np.float64]) -> float:
    """Axis ratio within the slice plane: a lesion of one voxel counts as round whatever the voxel's shape."""
    plane = (
        [a for a in range(3) if a != int(np.argmax(zooms))]
        if zooms.max() > 1.3 * np.median(zooms)
        else [0, 1, 2]
    )
    points = voxels[:, plane] * zooms[plane]
    size = float(np.mean(zooms[plane]))
    spread = np.cov(points.T, bias=True) if len(points) > 1 else np.zeros((len(plane), len(plane)))
    eigenvalues = np.linalg.eigvalsh(np.atleast_2d(spread)) + size**2 / 12
    return float(np.sqrt(eigenvalues[-1] / eigenvalues[0]))
