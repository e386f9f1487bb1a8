"""To a coarser grid of cubic voxels and back, along the image's own axes.

Everything is elementwise NumPy, so that the result is the same for any number of threads.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bids_cmb.types import FloatArray, Point


def coarse_shape(shape: tuple[int, ...], zooms: Point, size: float) -> tuple[int, int, int]:
    """Number of cubic voxels of edge ``size`` (mm) that cover a grid."""
    x, y, z = (max(1, math.ceil(n * zoom / size - 1e-3)) for n, zoom in zip(shape, zooms, strict=True))
    return x, y, z


def to_coarse(data: npt.NDArray[np.generic], zooms: Point, size: float) -> FloatArray:
    """Resample an array to cubic voxels that start at the same corner.

    Axes finer than ``size`` are averaged over each voxel's extent, coarser ones are interpolated linearly.

    Parameters
    ----------
    data
        Array of shape (x, y, z); booleans become fractions.
    zooms
        Its voxel edges, mm.
    size
        Edge of the cubic voxels, mm.

    Returns
    -------
    FloatArray
        Array of `coarse_shape`.
    """
    out = data
    # The slowest axis first: the large array is then read once, in whole planes.
    for axis, (count, zoom) in enumerate(zip(coarse_shape(data.shape, zooms, size), zooms, strict=True)):
        out = _averaged(out, axis, count, zoom, size) if zoom < size else _taken(out, axis, count, zoom, size)
    return np.ascontiguousarray(out)


def from_coarse(coarse: FloatArray, shape: tuple[int, ...], zooms: Point, size: float) -> FloatArray:
    """Interpolate an array of `to_coarse`'s grid linearly back to the fine grid.

    Parameters
    ----------
    coarse
        Array of ``coarse_shape(shape, zooms, size)``.
    shape, zooms
        The fine grid: number and edges (mm) of its voxels.
    size
        Edge of the coarse voxels, mm.

    Returns
    -------
    FloatArray
        Array of ``shape``.
    """
    out = coarse
    # The slowest axis last: the large array is then written once.
    for axis in (2, 1, 0):
        out = _taken(out, axis, shape[axis], size, zooms[axis])
    return np.ascontiguousarray(out)


def _averaged(data: npt.NDArray[np.generic], axis: int, count: int, step: float, size: float) -> FloatArray:
    """Average along one axis over cells of ``size`` mm."""
    length = data.shape[axis]
    edges = np.minimum(np.arange(count + 1) * size / step, length)
    first = np.minimum(edges[:-1].astype(np.intp), length - 1)
    width = edges[1:] - edges[:-1]
    form = [-1 if k == axis else 1 for k in range(data.ndim)]
    out = np.zeros([count if k == axis else n for k, n in enumerate(data.shape)], np.float32)
    for k in range(int(np.ceil(edges[1:] - first).max())):
        slab = first + k
        # What of this voxel lies in the cell, as a share of the cell.
        part = np.clip(np.minimum(edges[1:], slab + 1) - np.maximum(edges[:-1], slab), 0, None) / width
        out += np.take(data, np.minimum(slab, length - 1), axis) * part.astype(np.float32).reshape(form)
    return out


def _taken(data: npt.NDArray[np.generic], axis: int, count: int, step: float, size: float) -> FloatArray:
    """Interpolate linearly along one axis at the centres of ``count`` cells of ``size`` mm."""
    length = data.shape[axis]
    centres = np.clip((np.arange(count) + 0.5) * size / step - 0.5, 0, length - 1)
    low = np.minimum(centres.astype(np.intp), max(0, length - 2))
    high = np.minimum(low + 1, length - 1)
    form = [1, 1, 1]
    form[axis] = count
    part = (centres - low).astype(np.float32).reshape(form)
    out = np.take(data, low, axis).astype(np.float32)
    out += (np.take(data, high, axis) - out) * part
    return out
