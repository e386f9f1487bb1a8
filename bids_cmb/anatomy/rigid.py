"""Bring a T1w image of the same session to a scan: a rigid step by the same tissue regression.

After the scan has been fitted to the template, every point of it has shares of tissue. The T1w image is moved until
those tissues explain its intensities best; it needs no brain mask of its own and no assumption on its contrast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_cmb.anatomy.affine_fit import fit_channel, robust_loss, robust_weight, rotation
from bids_cmb.anatomy.sampling import (
    CLIP,
    Cells,
    DoubleArray,
    apply_affine,
    apply_matrix,
    block_affine,
    block_count,
    block_factors,
    block_sum,
)
from bids_cmb.types import Affine, BoolArray, FloatArray, Volume

#: Block means of the T1w image that the fit reads, mm, from coarse to fine.
LEVELS_MM = (6.0, 3.0)
#: Points of the scan that the fit looks at, at most.
POINTS = 12000
#: The T1w image is used when the tissues explain at least this share of it.
LEAST_SIMILARITY = 0.25
#: Patients move between images by this much, mm and rad (prior standard deviation).
MOVEMENT_SD = np.array([10, 10, 10, 0.1, 0.1, 0.1])
_EVIDENCE = 600.0


@dataclass(frozen=True)
class RigidFit:
    """Scan world to T1w world, 4x4, and the share of the T1w image that tissues explain."""

    matrix: Affine
    similarity: float


@dataclass(frozen=True)
class _Level:
    """A blurred T1w image and its grid."""

    data: FloatArray
    to_voxel: Affine


def _level(t1w: Volume, spacing_mm: float) -> _Level:
    """Block means of a T1w image, lightly blurred."""
    factors = block_factors(t1w.zooms, spacing_mm)
    count = block_count(t1w.data.shape, factors)
    data = ndimage.gaussian_filter(block_sum(t1w.data, factors) / count, 0.7)
    return _Level(
        data.astype(np.float32), np.asarray(np.linalg.inv(block_affine(t1w.affine, factors)), np.float64)
    )


def _matrix(parameters: DoubleArray, centre: DoubleArray) -> Affine:
    """Rigid 4x4 from translation and angles about a centre."""
    out = np.eye(4)
    out[:3, :3] = rotation(parameters[3:])
    out[:3, 3] = centre + parameters[:3] - np.sum(out[:3, :3] * centre, axis=1)
    return out


def _look_up(level: _Level, points: DoubleArray) -> tuple[FloatArray, FloatArray, BoolArray]:
    """T1w values (n,), slopes in world space (n, 3) and whether the point lies in the image."""
    linear = level.to_voxel[:3, :3]
    voxels = apply_affine(level.to_voxel, points)
    inside = np.all((voxels >= 0) & (voxels <= np.asarray(level.data.shape) - 1), axis=1)
    cells = Cells.of(voxels, level.data.shape)
    corners = cells.gather(level.data.reshape(1, -1))
    world = apply_matrix(np.ascontiguousarray(linear.T), cells.slopes(corners[0]).T.astype(np.float64))
    return cells.blend(corners)[0], world.astype(np.float32), inside


def _evaluate(
    level: _Level, points: DoubleArray, shares: FloatArray, weight: FloatArray, parameters: DoubleArray
) -> tuple[float, float, DoubleArray, DoubleArray]:
    """Cost, similarity, gradient and Gauss-Newton matrix of a rigid pose."""
    centre = points.mean(axis=0)
    matrix = _matrix(parameters, centre)
    moved = apply_affine(matrix, points)
    value, slope, inside = _look_up(level, moved)
    base = (weight * inside).astype(np.float32)
    seen = value[base > 0.5]
    if seen.size < 100:
        return np.inf, 0.0, np.zeros(6), np.eye(6)
    middle = float(np.median(seen))
    spread = 1.4826 * float(np.median(np.abs(seen - middle))) or 1.0
    scaled = np.clip((value - middle) / spread, -CLIP, CLIP).astype(np.float32)
    _, residual = fit_channel(shares, scaled, base)
    total = max(float(np.sum(base * robust_loss(scaled), dtype=np.float64)), 1e-6)
    unexplained = float(np.sum(base * robust_loss(residual), dtype=np.float64)) / total
    arm = (moved - centre - parameters[:3]).astype(np.float32)
    slope = slope / np.float32(spread)
    rows = np.concatenate([slope, np.cross(arm, slope)], axis=1)
    weights = base * robust_weight(residual)
    part = _EVIDENCE / total
    cost = 0.5 * _EVIDENCE * unexplained + 0.5 * float(np.sum((parameters / MOVEMENT_SD) ** 2))
    gradient = part * np.einsum("np,n->p", rows, weights * residual, dtype=np.float64)
    gradient += parameters / MOVEMENT_SD**2
    normal = part * np.einsum("np,nq->pq", rows * weights[:, None], rows, dtype=np.float64)
    normal[np.diag_indices(6)] += 1.0 / MOVEMENT_SD**2
    return cost, 1.0 - unexplained, gradient, normal


def align(t1w: Volume, points: DoubleArray, shares: FloatArray, weight: FloatArray) -> RigidFit:
    """Find the rigid map from a scan's world to a T1w image's world.

    Parameters
    ----------
    t1w
        The T1w image, whole head or stripped.
    points
        float64 (n, 3): points of the scan, world mm.
    shares
        float32 (k, n): shares of tissue there, summing to one at each point.
    weight
        float32 (n,): how much of each point is brain.

    Returns
    -------
    RigidFit
        The map and how well tissues explain the T1w image under it.
    """
    step = max(1, -(-len(points) // POINTS))
    points, shares, weight = points[::step], np.ascontiguousarray(shares[:, ::step]), weight[::step]
    parameters, similarity = np.zeros(6), 0.0
    for spacing in LEVELS_MM:
        level = _level(t1w, spacing)
        cost, similarity, gradient, normal = _evaluate(level, points, shares, weight, parameters)
        damping = 0.01
        for _ in range(15):
            move = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -gradient)
            move /= max(1.0, float(np.max(np.abs(move) / np.array([6, 6, 6, 0.1, 0.1, 0.1]))))
            trial = _evaluate(level, points, shares, weight, parameters + move)
            if trial[0] < cost:
                gain = cost - trial[0]
                parameters = parameters + move
                cost, similarity, gradient, normal = trial
                damping = max(damping / 4, 1e-4)
                if gain < 1e-3:
                    break
            else:
                damping *= 6
    return RigidFit(_matrix(parameters, points.mean(axis=0)), similarity)


def resample(t1w: Volume, scan: Volume, matrix: Affine) -> FloatArray:
    """T1w image on a scan's grid (linear), NaN outside its field of view.

    The T1w image is thinned to the scan's spacing first where it is finer.
    """
    factors = block_factors(t1w.zooms, min(scan.zooms))
    count = block_count(t1w.data.shape, factors)
    data = block_sum(t1w.data, factors) / count
    chain = np.linalg.inv(block_affine(t1w.affine, factors)) @ matrix @ scan.affine
    out = ndimage.affine_transform(
        data, chain[:3, :3], chain[:3, 3], output_shape=scan.data.shape, order=1, mode="constant", cval=np.nan
    )
    return np.asarray(out, np.float32)
