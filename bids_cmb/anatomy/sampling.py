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

    def thinned(self, limit: int) -> Sample:
        """Every n-th point, so that no more than about ``limit`` are left."""
        step = max(1, -(-len(self.points) // limit))
        keep = slice(None, None, step)
        return Sample(self.points[keep], self.values[keep], self.inside[keep], self.known[keep])


def block_factors(zooms: tuple[float, float, float], spacing_mm: float) -> tuple[int, int, int]:
    """How many voxels to average along each axis to come near a spacing."""
    x, y, z = (max(1, round(spacing_mm / zoom)) for zoom in zooms)
    return x, y, z


def block_sum(array: FloatArray, factors: tuple[int, int, int]) -> FloatArray:
    """Sum over blocks of voxels; an incomplete last block counts as it is."""
    out = array
    for axis, factor in enumerate(factors):
        starts = np.arange(0, out.shape[axis], factor)
        out = np.add.reduceat(out, starts, axis=axis)
    return out


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
    full = block_sum(np.ones(mask.shape, np.float32), factors)
    weight = mask.astype(np.float32)
    brain = block_sum(weight, factors)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    near = ndimage.distance_transform_edt(brain == 0, sampling=spacing) <= SURROUND_MM
    channels = [_channel(volume.data, weight, brain, factors)]
    if extra is not None:
        finite = np.isfinite(extra)
        own = weight * finite
        channels.append(_channel(np.where(finite, extra, 0), own, block_sum(own, factors), factors))
    index = np.argwhere(near)
    points = apply_matrix(affine[:3, :3], index.astype(np.float64)) + affine[:3, 3]
    values = np.stack([value[near] for value, _ in channels], axis=-1)
    known = np.stack([has[near] for _, has in channels], axis=-1)
    return Sample(points, values, (brain / full)[near], known)


def _channel(
    data: FloatArray, weight: FloatArray, count: FloatArray, factors: tuple[int, int, int]
) -> tuple[FloatArray, FloatArray]:
    """Block means inside the brain, centred and scaled robustly, and where they are known."""
    known = count > 0
    mean = block_sum(data * weight, factors) / np.maximum(count, 1)
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


def corners(voxels: DoubleArray, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Flat indices (8, n) and fractions (n, 3) of the cells that hold some points; points outside are clamped."""
    top = np.asarray(shape[:3]) - 1
    clamped = np.clip(voxels, 0, top - 1e-3)
    base = np.floor(clamped).astype(np.intp)
    fraction = (clamped - base).astype(np.float32)
    strides = np.array([shape[1] * shape[2], shape[2], 1], np.intp)
    origin = base @ strides
    offsets = [dx * strides[0] + dy * strides[1] + dz for dx in (0, 1) for dy in (0, 1) for dz in (0, 1)]
    return np.stack([origin + offset for offset in offsets]), fraction


def interpolate(maps: FloatArray, voxels: DoubleArray) -> FloatArray:
    """Trilinear values (n, k) of maps (x, y, z, k) at voxel coordinates (n, 3)."""
    index, fraction = corners(voxels, maps.shape)
    flat = maps.reshape(-1, maps.shape[-1])
    weights = corner_weights(fraction)
    out = flat[index[0]] * weights[0][:, None]
    for corner in range(1, 8):
        out += flat[index[corner]] * weights[corner][:, None]
    return out


def corner_weights(fraction: FloatArray) -> list[FloatArray]:
    """Trilinear weights of the eight corners, in the order of `corners`."""
    x, y, z = fraction.T
    return [
        (x if dx else 1 - x) * (y if dy else 1 - y) * (z if dz else 1 - z)
        for dx in (0, 1)
        for dy in (0, 1)
        for dz in (0, 1)
    ]


def slopes_at(maps: FloatArray, voxels: DoubleArray, spacing_mm: float) -> tuple[FloatArray, FloatArray]:
    """Trilinear values (n, k) and slopes (n, 3, k) per mm of maps (x, y, z, k) at voxel coordinates (n, 3)."""
    index, fraction = corners(voxels, maps.shape)
    flat = maps.reshape(-1, maps.shape[-1])
    value = np.zeros((len(voxels), maps.shape[-1]), np.float32)
    slope = np.zeros((len(voxels), 3, maps.shape[-1]), np.float32)
    for corner in range(8):
        bits = (corner >> 2 & 1, corner >> 1 & 1, corner & 1)
        along = [fraction[:, k] if bits[k] else 1 - fraction[:, k] for k in range(3)]
        here = flat[index[corner]]
        value += here * (along[0] * along[1] * along[2])[:, None]
        for k in range(3):
            others = along[(k + 1) % 3] * along[(k + 2) % 3] * (1 if bits[k] else -1)
            slope[:, k] += here * others[:, None]
    return value, slope / np.float32(spacing_mm)


def apply_matrix(matrix: DoubleArray, vectors: DoubleArray) -> DoubleArray:
    """3x3 matrix times each row vector (n, 3), summed in a fixed order."""
    first = vectors[:, :1] * matrix[:, 0]
    return np.asarray(first + vectors[:, 1:2] * matrix[:, 1] + vectors[:, 2:] * matrix[:, 2])
