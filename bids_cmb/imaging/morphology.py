"""Shapes of masks in millimetres: growing, shrinking, parts and holes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.types import BoolArray, Point


def dilated(mask: BoolArray, zooms: Point, radius: float) -> BoolArray:
    """Grow a mask by a ball of ``radius`` mm."""
    if not mask.any():
        return mask.copy()
    rows = _rows_of_ball(zooms, radius)
    if len(rows) > _MOST_ROWS:
        return np.asarray(ndimage.distance_transform_edt(~mask, sampling=zooms) <= radius)
    x, y, z = (int(radius / zoom + 1e-9) for zoom in zooms)
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    window = tuple(
        slice(max(0, side.start - far), side.stop + far) for side, far in zip(box, (x, y, z), strict=True)
    )
    out = np.zeros_like(mask)
    out[window] = _grown_by_rows(mask[window], rows)
    return out


#: Balls of more rows than this are cheaper by distance.
_MOST_ROWS = 120


def _rows_of_ball(zooms: Point, radius: float) -> list[tuple[int, int, int]]:
    """Rows along x of the voxels within a radius (mm): half length and offsets in y and z."""
    y, z = (int(radius / zoom + 1e-9) for zoom in zooms[1:])
    rows = []
    for dy in range(-y, y + 1):
        for dz in range(-z, z + 1):
            left = radius**2 - (dy * zooms[1]) ** 2 - (dz * zooms[2]) ** 2
            if left > -1e-9:
                rows.append((int(math.sqrt(max(left, 0.0)) / zooms[0] + 1e-9), dy, dz))
    return rows


def _grown_by_rows(mask: BoolArray, rows: list[tuple[int, int, int]]) -> BoolArray:
    """Grow a mask by a shape made of rows along x."""
    out = np.zeros_like(mask)
    along = mask.copy()
    for half in range(max(row[0] for row in rows) + 1):
        if half:
            along[half:] |= mask[:-half]
            along[:-half] |= mask[half:]
        for length, dy, dz in rows:
            if length == half:
                y_to, y_from = _shifted(dy)
                z_to, z_from = _shifted(dz)
                out[:, y_to, z_to] |= along[:, y_from, z_from]
    return out


def _shifted(by: int) -> tuple[slice, slice]:
    """Where an array moved by some voxels lands, and what of it."""
    return slice(max(0, by), min(0, by) or None), slice(max(0, -by), min(0, -by) or None)


def eroded(mask: BoolArray, zooms: Point, radius: float, *, edge_is_outside: bool = False) -> BoolArray:
    """Shrink a mask by a ball of ``radius`` mm; the scan's own edge takes nothing away unless asked to."""
    if not edge_is_outside:
        return ~dilated(~mask, zooms, radius)
    return ~dilated(~np.pad(mask, 1), zooms, radius)[1:-1, 1:-1, 1:-1]


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


def filled(mask: BoolArray, zooms: Point = (1.0, 1.0, 1.0), largest_in_slice: float = 0.0) -> BoolArray:
    """Fill every hole, and in each slice along each axis holes up to a size.

    Parameters
    ----------
    mask
        Array of shape (x, y, z).
    zooms
        Voxel edges, mm.
    largest_in_slice
        Holes of a slice up to this many mm² are filled also where they open to the outside in the third
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
            pixel = math.prod(zooms[k] for k in range(3) if k != axis)
            found |= _holes(inner, plane, axis=axis, largest=largest_in_slice / pixel)
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
