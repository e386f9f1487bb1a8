"""Coarse samples of a scan, and look-ups in coarse maps: what the registration computes with.

Everything is summed in one fixed order (no BLAS, no threads), so that a registration gives the same bytes whatever
the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.types import Affine, BoolArray, FloatArray, Volume

DoubleArray = npt.NDArray[np.float64]

#: How far around the brain the mask is compared with the template's, mm.
SURROUND_MM = 12.0
#: Intensities further from the median than this many robust standard deviations are clipped: veins, lesions, air.
CLIP = 5.0


@dataclass(frozen=True)
class Sample:
    """Points of a scan with what was measured there.

    Attributes
    ----------
    points
        float64 (n, 3): RAS+ world, mm.
    values
        float32 (n, c): intensity of each channel in robust standard deviations from its median; 0 off the brain.
    inside
        float32 (n,): share of the point's block that is brain.
    known
        float32 (n, c): 1 where the channel has a value, else 0.
    """

    points: DoubleArray
    values: FloatArray
    inside: FloatArray
    known: FloatArray

    @property
    def centre(self) -> DoubleArray:
        """Centroid of the brain, mm."""
        weight = self.inside.astype(np.float64)
        return np.asarray(np.sum(self.points * weight[:, None], axis=0) / np.sum(weight))

    def channels(self) -> list[tuple[FloatArray, FloatArray]]:
        """Values (n,) of each channel, and how much its points count (n,)."""
        return [
            (np.ascontiguousarray(self.values[:, c]), self.inside * self.known[:, c])
            for c in range(self.values.shape[1])
        ]

    def thinned(self, limit: int) -> Sample:
        """Every n-th point, so that no more than about ``limit`` are left."""
        step = max(1, -(-len(self.points) // limit))
        keep = slice(None, None, step)
        return Sample(self.points[keep], self.values[keep], self.inside[keep], self.known[keep])


def block_factors(zooms: tuple[float, float, float], spacing_mm: float) -> tuple[int, int, int]:
    """How many voxels to average along each axis to come near a spacing."""
    x, y, z = (max(1, round(spacing_mm / zoom)) for zoom in zooms)
    return x, y, z


def block_sum(array: FloatArray | BoolArray, factors: tuple[int, int, int]) -> FloatArray:
    """Sum over blocks of voxels; an incomplete last block counts as it is."""
    out: FloatArray | BoolArray = array
    for axis, factor in enumerate(factors):
        every = [slice(None)] * 3
        every[axis] = slice(None, None, factor)
        total = out[tuple(every)].astype(np.float32)
        for first in range(1, factor):
            every[axis] = slice(first, None, factor)
            part = out[tuple(every)]
            whole = [slice(None)] * 3
            whole[axis] = slice(part.shape[axis])
            total[tuple(whole)] += part
        out = total
    return np.asarray(out, np.float32)


def block_count(shape: tuple[int, ...], factors: tuple[int, int, int]) -> FloatArray:
    """Number of voxels in each block."""
    x, y, z = (np.minimum(f, n - np.arange(0, n, f)) for n, f in zip(shape, factors, strict=True))
    return np.asarray(x[:, None, None] * y[:, None] * z, np.float32)


def bounding_box(mask: BoolArray, margin: tuple[int, int, int] = (0, 0, 0)) -> tuple[slice, slice, slice]:
    """The box around the voxels of a mask, with a margin inside the grid; empty without any."""
    box = []
    for axis, extra in enumerate(margin):
        there = np.flatnonzero(mask.any(axis=tuple(k for k in range(3) if k != axis)))
        low, high = (int(there[0]), int(there[-1]) + 1) if len(there) else (0, 0)
        box.append(slice(max(0, low - extra), min(mask.shape[axis], high + extra)))
    return box[0], box[1], box[2]


def block_affine(affine: Affine, factors: tuple[int, int, int]) -> Affine:
    """Affine of the grid of block centres."""
    scale = np.diag([*map(float, factors), 1.0])
    scale[:3, 3] = [(f - 1) / 2 for f in factors]
    return np.asarray(affine @ scale)


def take_sample(
    volume: Volume, mask: BoolArray, *, spacing_mm: float, extra: FloatArray | None = None
) -> Sample:
    """Average a scan over blocks and keep the brain and its near surround.

    Parameters
    ----------
    volume
        The scan.
    mask
        Brain voxels, same shape.
    spacing_mm
        Edge of a block, about.
    extra
        A second channel on the same grid (NaN where it has no value), e.g. a T1w brought to the scan.

    Returns
    -------
    Sample
        Points in a fixed order.
    """
    factors = block_factors(volume.zooms, spacing_mm)
    affine = block_affine(volume.affine, factors)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # Only the brain's surroundings are read, in whole blocks of the full grid.
    margin = [f * (1 + int(SURROUND_MM / edge)) for f, edge in zip(factors, spacing, strict=True)]
    box = bounding_box(mask, (margin[0], margin[1], margin[2]))
    x, y, z = (slice(side.start - side.start % f, side.stop) for side, f in zip(box, factors, strict=True))
    window = (x, y, z)
    affine[:3, 3] += affine[:3, :3] @ [side.start / f for side, f in zip(window, factors, strict=True)]
    inside, data = mask[window], volume.data[window]
    brain = block_sum(inside, factors)
    full = block_count(inside.shape, factors)
    near = ndimage.distance_transform_edt(brain == 0, sampling=spacing) <= SURROUND_MM
    channels = [_channel(np.where(inside, data, np.float32(0)), brain, factors)]
    if extra is not None:
        second = extra[window]
        own = inside & np.isfinite(second)
        channels.append(_channel(np.where(own, second, np.float32(0)), block_sum(own, factors), factors))
    index = np.argwhere(near)
    points = apply_affine(affine, index.astype(np.float64))
    values = np.stack([value[near] for value, _ in channels], axis=-1)
    known = np.stack([has[near] for _, has in channels], axis=-1)
    return Sample(points, values, (brain / full)[near], known)


def _channel(
    data: FloatArray, count: FloatArray, factors: tuple[int, int, int]
) -> tuple[FloatArray, FloatArray]:
    """Block means of data that are zero where not known, centred and scaled robustly, and where they are known."""
    known = count > 0
    mean = block_sum(data, factors) / np.maximum(count, 1)
    inner = mean[known]
    if inner.size == 0:
        return np.zeros_like(mean), known.astype(np.float32)
    middle = np.median(inner)
    spread = 1.4826 * np.median(np.abs(inner - middle))
    if spread <= 0:
        spread = np.std(inner) or 1.0
    scaled = np.clip((mean - middle) / spread, -CLIP, CLIP)
    return np.where(known, scaled, 0).astype(np.float32), known.astype(np.float32)


def to_voxels(points: DoubleArray, affine: Affine) -> DoubleArray:
    """World points (n, 3) as voxel coordinates of an axis-aligned grid."""
    return np.asarray((points - affine[:3, 3]) / np.diag(affine)[:3])


@dataclass(frozen=True)
class Cells:
    """Where some points lie among the voxels of a grid: worked out once, used for any number of maps.

    Arrays have the points last, so that all arithmetic runs along memory. Points outside are clamped.

    Attributes
    ----------
    index
        intp (8, n): flat index of the eight voxels around each point.
    fraction
        float32 (3, n): place between them along each axis, 0..1.
    weights
        float32 (8, n): trilinear weights.
    """

    index: npt.NDArray[np.intp]
    fraction: FloatArray
    weights: FloatArray

    @classmethod
    def of(cls, voxels: DoubleArray, shape: tuple[int, ...]) -> Cells:
        """The cells of a grid that hold some voxel coordinates (n, 3)."""
        top = np.asarray(shape[:3], np.float64)[:, None] - 1
        clamped = np.clip(voxels.T, 0, top - 1e-3)
        base = clamped.astype(np.intp)
        fraction = (clamped - base).astype(np.float32)
        plane, row = shape[1] * shape[2], shape[2]
        origin = base[0] * plane + base[1] * row + base[2]
        offsets = np.array([dx * plane + dy * row + dz for dx in (0, 1) for dy in (0, 1) for dz in (0, 1)])
        x, y, z = np.stack([1 - fraction, fraction], axis=1)
        weights = (x[:, None, None] * y[:, None] * z).reshape(8, -1)
        return cls(origin + offsets[:, None], fraction, weights)

    def gather(self, maps: FloatArray) -> FloatArray:
        """Values (k, 8, n) of flattened maps (k, voxels) at the eight voxels."""
        out = np.empty((len(maps), *self.index.shape), np.float32)
        for one, into in zip(maps, out, strict=True):
            one.take(self.index, out=into, mode="clip")
        return out

    def blend(self, corners: FloatArray) -> FloatArray:
        """Trilinear values (k, n) of what was gathered (k, 8, n)."""
        return np.einsum("kcn,cn->kn", corners, self.weights)

    def slopes(self, corners: FloatArray) -> FloatArray:
        """Slopes (3, n) per voxel of one map's gathered values (8, n)."""
        cube = corners.reshape(2, 2, 2, -1)
        along = np.stack([1 - self.fraction, self.fraction], axis=1)
        out = np.empty((3, corners.shape[1]), np.float32)
        for axis in range(3):
            low, high = cube.take(0, axis), cube.take(1, axis)
            first, second = (along[k] for k in range(3) if k != axis)
            np.einsum("abn,an,bn->n", high - low, first, second, out=out[axis])
        return out


def interpolate(maps: FloatArray, voxels: DoubleArray) -> FloatArray:
    """Trilinear values (n, k) of maps (x, y, z, k) at voxel coordinates (n, 3); points outside are clamped."""
    cells = Cells.of(voxels, maps.shape)
    flat = np.ascontiguousarray(np.moveaxis(maps, -1, 0), np.float32).reshape(maps.shape[-1], -1)
    return np.ascontiguousarray(cells.blend(cells.gather(flat)).T)


def apply_affine(affine: Affine, points: DoubleArray) -> DoubleArray:
    """4x4 affine on each point (n, 3), summed in a fixed order."""
    return np.asarray(apply_matrix(affine[:3, :3], points) + affine[:3, 3], np.float64)


def undo_affine(affine: Affine, points: DoubleArray) -> DoubleArray:
    """Points (n, 3) back to where an affine had taken them from."""
    return apply_affine(np.asarray(np.linalg.inv(affine), np.float64), points)


def apply_matrix(matrix: DoubleArray, vectors: DoubleArray) -> DoubleArray:
    """3x3 matrix times each row vector (n, 3), summed in a fixed order."""
    first = vectors[:, :1] * matrix[:, 0]
    return np.asarray(first + vectors[:, 1:2] * matrix[:, 1] + vectors[:, 2:] * matrix[:, 2])
