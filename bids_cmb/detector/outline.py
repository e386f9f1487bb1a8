"""The outline of a candidate on the image's own grid, and the figures that describe it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.types import BoolArray, Contrast, Point, Volume

#: A lesion is looked for this far around its peak (mm), its background in the shell beyond.
_REACH = 6.0
_SHELL = 9.0
#: The darkest (QSM: brightest) voxel may lie this far from the peak of the heat map, mm.
_SNAP = 2.0
#: An outline runs out if it reaches further from its centre than this many radii of the circle (or ball) of its size,
#: or if its centre lies further from the peak than this share of that radius (and a part of a millimetre).
_COMPACT, _OFF_CENTRE, _PEAK_ERROR = 1.7, 0.3, 0.7
#: Then this many radii of the largest ball inside it are kept, whose centre may lie this far from the peak, mm.
_KEPT, _KERNEL_SNAP = 1.5, 1.5


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
        Longest over shortest axis in the slice, the voxel's own size taken into account, before what it runs into was
        cut off; 1 is round.
    """

    voxels: npt.NDArray[np.int64]
    position: Point
    volume: float
    diameter: float
    contrast: float
    elongation: float


def outline_candidate(
    image: Volume,
    brain_mask: BoolArray,
    peak: npt.NDArray[np.float64],
    contrast: Contrast,
    peaks: npt.NDArray[np.float64] | None = None,
) -> Outline:
    """Outline a candidate at half of its depth below (QSM: above) the surround.

    Where that runs into something as dark (a vein, a sulcus), only the round part of it at the peak is kept; what is
    nearer to another candidate's peak is that one's. An outline does not leave the brain, beyond which a stripped image
    is dark everywhere.

    Parameters
    ----------
    image, brain_mask
        On one grid.
    peak
        (3,) image voxel coordinates of the heat map's peak.
    contrast
        Decides the polarity.
    peaks
        (M, 3) the same of all candidates, this one's among them.

    Returns
    -------
    Outline
        At least one voxel, connected (26 neighbours), within 6 mm of the peak.
    """
    zooms = np.array(image.zooms)
    low = np.maximum(0, np.floor(peak - _SHELL / zooms)).astype(int)
    high = np.minimum(image.data.shape, np.ceil(peak + _SHELL / zooms).astype(int) + 1)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    places = np.stack(
        np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), axis=-1
    )
    distance = _distance(places, peak, zooms)
    patch, inside = image.data[box].astype(np.float64), brain_mask[box]
    shell = inside & (distance > 0.6 * _REACH) & (distance <= _SHELL)
    background = float(np.median(patch[shell])) if shell.sum() >= 8 else float(np.median(patch))
    relative_to = background if background > 0 else 1.0  # all are negative where nothing is around it
    depth = patch - background if contrast == "qsm" else (background - patch) / relative_to
    cell = np.ones(distance.shape, bool)
    if peaks is not None:
        for other in peaks[_distance(peaks, peak, zooms) < 2 * _REACH]:
            cell &= distance <= _distance(places, other, zooms)
    within_snap = distance <= max(_SNAP, 0.6 * float(zooms.max()))
    if (cell & inside & within_snap).any():
        cell &= inside
    near = cell & within_snap
    if not near.any():
        near = distance <= distance.min()
    seed = np.unravel_index(int(np.argmax(np.where(near, depth, -np.inf))), depth.shape)
    deepest = float(depth[seed])
    own, elongation = _part_at(np.zeros(depth.shape, bool), seed), 1.0
    if deepest > 0:
        own = _part_at((depth > 0.5 * deepest) & (distance <= _REACH) & cell, seed)
        whole = np.argwhere(own)
        elongation = _elongation(whole, zooms)
        if _runs_out(whole, zooms, peak - low):
            own = _kernel(own, distance, zooms)
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
        elongation,
    )


def _distance(
    places: npt.NDArray[Any],
    point: npt.NDArray[Any],
    zooms: npt.NDArray[np.float64],
    slack: npt.NDArray[np.float64] | float = 0.0,
) -> npt.NDArray[np.float64]:
    """Distance of voxels (..., 3) from a point, mm; so much of it along each axis as `slack` says counts nothing."""
    apart = np.abs(places - point) * zooms
    return np.asarray(np.linalg.norm(np.maximum(apart - slack, 0.0), axis=-1))


def _plane(zooms: npt.NDArray[np.float64]) -> list[int]:
    """Axes to judge shapes by: those of the slice where slices are thick, else all three."""
    thick = int(np.argmax(zooms))
    return [a for a in range(3) if a != thick] if zooms.max() > 1.3 * np.median(zooms) else [0, 1, 2]


def _part_at(mask: BoolArray, seed: tuple[np.intp, ...]) -> BoolArray:
    """The connected part (26 neighbours) that holds a voxel; that voxel alone if it is not in the mask."""
    parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    if parts[seed]:
        return np.asarray(parts == parts[seed])
    alone = np.zeros_like(mask)
    alone[seed] = True
    return alone


def _slack(zooms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Half the thickness of thick slices, 0 along other axes: distances there are to the slab, not to its middle."""
    return np.where(np.isin(range(3), _plane(zooms)), 0.0, 0.5 * zooms)


def _runs_out(
    voxels: npt.NDArray[np.int64], zooms: npt.NDArray[np.float64], peak: npt.NDArray[np.float64]
) -> bool:
    """Whether an outline reaches much further from its centre than a round one would, or does not lie at its peak."""
    plane = _plane(zooms)
    points = np.unique(voxels[:, plane], axis=0) * zooms[plane]
    size = len(points) * float(np.prod(zooms[plane]))
    radius = math.sqrt(size / math.pi) if len(plane) == 2 else (3 * size / (4 * math.pi)) ** (1 / 3)
    furthest = float(np.linalg.norm(points - points.mean(0), axis=1).max())
    apart = np.maximum(np.abs(voxels.mean(0) - peak) * zooms - _slack(zooms), 0.0)
    off = float(np.linalg.norm(apart))
    edge = 0.5 * float(zooms[plane].max())
    return furthest > _COMPACT * radius + edge or off > _OFF_CENTRE * radius + max(_PEAK_ERROR, edge)


def _kernel(own: BoolArray, distance: npt.NDArray[np.float64], zooms: npt.NDArray[np.float64]) -> BoolArray:
    """The round part of an outline at its peak, of which `distance` (mm) tells how far each voxel lies."""
    inside = ndimage.distance_transform_edt(np.pad(own, 1), sampling=zooms)[1:-1, 1:-1, 1:-1]
    near = own & (distance <= max(_KERNEL_SNAP, float(distance[own].min())))
    centre = np.unravel_index(int(np.argmax(np.where(near, inside, -1.0))), own.shape)
    away = _distance(np.moveaxis(np.indices(own.shape), 0, -1), np.array(centre), zooms, _slack(zooms))
    reach = _KEPT * float(inside[centre]) + 0.5 * float(zooms[_plane(zooms)].max())
    return _part_at(own & (away <= reach), centre)


def _elongation(voxels: npt.NDArray[np.int64], zooms: npt.NDArray[np.float64]) -> float:
    """Axis ratio within the slice plane: a lesion of one voxel counts as round whatever the voxel's shape."""
    plane = _plane(zooms)
    points = voxels[:, plane] * zooms[plane]
    size = float(np.mean(zooms[plane]))
    spread = np.cov(points.T, bias=True) if len(points) > 1 else np.zeros((len(plane), len(plane)))
    eigenvalues = np.linalg.eigvalsh(np.atleast_2d(spread)) + size**2 / 12
    return float(np.sqrt(eigenvalues[-1] / eigenvalues[0]))
