"""Shapes of masks in millimetres: growing, shrinking, parts and holes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.types import BoolArray, Point


def dilated(mask: BoolArray, zooms: Point, radius: float) -> BoolArray:
    """Grow a mask by a ball of ``radius`` mm."""
    if not mask.any():
        return mask.copy()
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=zooms) <= radius)


def eroded(mask: BoolArray, zooms: Point, radius: float, *, edge_is_outside: bool = False) -> BoolArray:
    """Shrink a mask by a ball of ``radius`` mm; the scan's own edge takes nothing away unless asked to."""
    if mask.all() and not edge_is_outside:
        return mask.copy()
    padded = np.pad(mask, 1, constant_values=False) if edge_is_outside else mask
    inner = np.asarray(ndimage.distance_transform_edt(padded, sampling=zooms) > radius)
    return inner[1:-1, 1:-1, 1:-1] if edge_is_outside else inner


def opened(mask: BoolArray, zooms: Point, radius: float) -> BoolArray:
    """Remove what is thinner than a ball of ``radius`` mm."""
    return dilated(eroded(mask, zooms, radius), zooms, radius)


def closed(mask: BoolArray, zooms: Point, radius: float) -> BoolArray:
    """Bridge what is narrower than a ball of ``radius`` mm."""
    return eroded(dilated(mask, zooms, radius), zooms, radius) | mask


def depth_mm(mask: BoolArray, zooms: Point) -> npt.NDArray[np.float32]:
    """Distance of each voxel of a mask to the nearest one outside it, mm; the scan's edge is not outside."""
    if mask.all():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=zooms), dtype=np.float32)


def parts_of_size(mask: BoolArray, least: float, share: float = 0.0) -> BoolArray:
    """Keep the parts (26 neighbours) of at least ``least`` voxels and ``share`` of the largest part.

    The largest part stays whatever its size.
    """
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3), dtype=bool))
    if count <= 1:
        return mask.copy()
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    keep = (sizes >= least) & (sizes >= share * sizes.max())
    keep[sizes.argmax()] = True
    keep[0] = False
    return np.asarray(keep[parts])


def filled(mask: BoolArray, largest_in_slice: float = 0.0) -> BoolArray:
    """Fill every hole, and in each slice along each axis holes of at most a number of voxels.

    Parameters
    ----------
    mask
        Array of shape (x, y, z).
    largest_in_slice
        Holes of a slice up to this many voxels are filled also where they open to the outside in the third
        direction; 0 fills closed holes alone.

    Returns
    -------
    BoolArray
        The mask with its holes.
    """
    bounds = ndimage.find_objects(mask.astype(np.uint8))
    if not bounds:
        return mask.copy()
    out = mask.copy()
    window = tuple(slice(max(0, b.start - 1), b.stop + 1) for b in bounds[0])
    inner = out[window]
    inner |= _holes(inner, np.ones((3, 3, 3), dtype=bool) & _faces(), axis=None, largest=np.inf)
    if largest_in_slice > 0:
        found = np.zeros_like(inner)
        for axis in range(3):
            plane = _faces()
            plane[tuple(slice(0, 3, 2) if k == axis else slice(None) for k in range(3))] = False
            found |= _holes(inner, plane, axis=axis, largest=largest_in_slice)
        inner |= found
    return out


def _faces() -> BoolArray:
    """Neighbourhood of the six faces."""
    structure: BoolArray = ndimage.generate_binary_structure(3, 1)
    return structure


def _holes(mask: BoolArray, structure: BoolArray, axis: int | None, largest: float) -> BoolArray:
    """Background parts that do not touch the border of the window (of the slice, along ``axis``)."""
    parts, count = ndimage.label(~mask, structure=structure)
    hole = np.bincount(parts.ravel(), minlength=count + 1) <= largest
    hole[0] = False
    for k in range(3):
        if k != axis:
            for end in (0, -1):
                hole[np.take(parts, end, axis=k)] = False
    return np.asarray(hole[parts])
