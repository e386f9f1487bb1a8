"""A smooth deformation on top of the affine: local Gauss-Newton steps of the same tissue regression.

Around every node of a 6 mm lattice the residuals of the fit vote, in a Gaussian window, for a small displacement
(Lucas and Kanade 1981, in three dimensions and with robust weights). The windows shrink as the fit improves: first
the ventricles and the outline of an old brain fall into place, then the deep grey matter. Folds of the cortex are
not matched and not meant to be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from bids_cmb.anatomy.affine_fit import (
    OUTLINE_SD,
    Fit,
    Look,
    fit_channel,
    map_points,
    robust_loss,
    robust_weight,
)
from bids_cmb.anatomy.sampling import Cells, DoubleArray, Sample, interpolate, to_voxels
from bids_cmb.anatomy.template import Template
from bids_cmb.types import Affine, FloatArray

#: Spacing of the lattice of displacements, mm.
LATTICE_MM = 6.0
#: Standard deviation of the windows and number of steps with each, mm.
SCHEDULE = ((20.0, 4), (14.0, 6), (10.0, 6), (7.0, 6))
#: How far one step may move, and how far a node is likely to move in one, mm.
LONGEST_STEP_MM = 3.0
STEP_SD_MM = 3.0
#: Points err together: what one is worth as independent evidence.
EVIDENCE = 0.06
#: The whole field is smoothed after every step, mm.
ELASTIC_MM = 5.0
#: Points that are looked at, at most.
POINTS = 40000
#: Iterations that undo a deformation, at most; how much of each step is taken, so that they end where displacements
#: change by more than a millimetre per millimetre too; and how near is near enough, mm.
_TURNS_BACK, _TURN, _NEAR_MM = 60, 0.6, 0.02


@dataclass(frozen=True)
class Deformation:
    """Displacements in MNI space: float32 (x, y, z, 3) in mm on a lattice; outside it the nearest counts."""

    displacement: FloatArray
    affine: Affine

    def at(self, points: DoubleArray) -> FloatArray:
        """Displacement (n, 3) at MNI points (n, 3), mm."""
        return interpolate(self.displacement, to_voxels(points, self.affine))

    def __call__(self, points: DoubleArray) -> DoubleArray:
        """MNI points (n, 3) after the affine, moved to their final place."""
        return np.asarray(points + self.at(points), np.float64)

    def undone(self, points: DoubleArray) -> DoubleArray:
        """Final MNI points (n, 3) back to where the affine had put them, by fixed-point iteration."""
        before = np.asarray(points, np.float64)
        for _ in range(_TURNS_BACK):
            off = points - self(before)
            if not off.size or float(np.abs(off).max()) < _NEAR_MM:
                break
            before = before + _TURN * off
        return before

    def smallest_jacobian(self) -> float:
        """Smallest local change of volume on the lattice: one without deformation, negative where space folds."""
        slopes = [np.gradient(self.displacement[..., k].astype(np.float64), LATTICE_MM) for k in range(3)]
        (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = slopes
        xx, yy, zz = xx + 1, yy + 1, zz + 1
        volume = xx * (yy * zz - yz * zy) - xy * (yx * zz - yz * zx) + xz * (yx * zy - yy * zx)
        return float(volume.min())


@dataclass(frozen=True)
class Deformed:
    """A deformation with the figures of its fit (see `bids_cmb.anatomy.affine_fit.Fit`)."""

    deformation: Deformation
    similarity: float
    overlap: float
    brightness: DoubleArray


def lattice(template: Template) -> Deformation:
    """A lattice of zero displacement that covers the template's brain with a margin."""
    inside = np.argwhere(template.depth > -15.0)
    low = inside.min(axis=0) * template.spacing + template.affine[:3, 3]
    high = inside.max(axis=0) * template.spacing + template.affine[:3, 3]
    shape = tuple(int(n) for n in np.ceil((high - low) / LATTICE_MM) + 1)
    affine = np.diag([LATTICE_MM] * 3 + [1.0])
    affine[:3, 3] = low
    return Deformation(np.zeros((*shape, 3), np.float32), affine)


def deform(sample: Sample, template: Template, fit: Fit) -> Deformed:
    """Fit a smooth deformation, starting from an affine fit.

    Parameters
    ----------
    sample
        The scan.
    template
        The tissue maps.
    fit
        The affine fit.

    Returns
    -------
    Deformed
        Displacements and figures.
    """
    sample = sample.thinned(POINTS)
    mapped = map_points(fit.pose, sample.points)
    rim = float(fit.pose.parameters[12])
    field = lattice(template)
    # The points keep their places among the nodes: only what the nodes carry changes.
    nodes = Cells.of(to_voxels(mapped, field.affine), field.displacement.shape)
    for sigma, steps in SCHEDULE:
        for _ in range(steps):
            look = Look.at(template, mapped + _shift(nodes, field))
            force, stiffness = _votes(sample, look, nodes, field, rim)
            step = _solve(force, stiffness, sigma)
            moved = ndimage.gaussian_filter(
                field.displacement + step, (*[ELASTIC_MM / LATTICE_MM] * 3, 0), mode="nearest"
            )
            field = replace(field, displacement=moved.astype(np.float32))
    return figures(sample, template, mapped, field, rim)


def _shift(nodes: Cells, field: Deformation) -> FloatArray:
    """Displacement (n, 3) of the points among the nodes, mm."""
    flat = np.ascontiguousarray(field.displacement.reshape(-1, 3).T)
    return nodes.blend(nodes.gather(flat)).T


def _votes(
    sample: Sample, look: Look, nodes: Cells, field: Deformation, rim: float
) -> tuple[FloatArray, FloatArray]:
    """Force (x, y, z, 3) and stiffness (x, y, z, 6) that the points lay on the lattice."""
    expected = look.expected(rim)
    _, slope = look.outline_slopes(expected)
    worth = np.full(slope.shape[1], EVIDENCE / OUTLINE_SD**2, np.float32)
    force = slope * (worth * (sample.inside - expected))
    stiffness = _outer(slope, worth)
    channels = sample.channels()
    for values, base in channels:
        brightness, residual = fit_channel(look.shares, values, base)
        weight = base * robust_weight(residual)
        mass = max(float(np.sum(base, dtype=np.float64)), 1e-6)
        noise = max(float(np.sum(base * robust_loss(residual), dtype=np.float64)) / mass, 1e-3)
        worth = np.asarray(weight * (EVIDENCE / noise / len(channels)), np.float32)
        slope = look.drawn_slopes(brightness)
        force = force + slope * (worth * residual)
        stiffness = stiffness + _outer(slope, worth)
    both = _splat(np.concatenate([force, stiffness]), nodes, field.displacement.shape[:3])
    return both[..., :3], both[..., 3:]


def _outer(slope: FloatArray, worth: FloatArray) -> FloatArray:
    """Upper triangle (xx, yy, zz, xy, xz, yz) of the outer products of slopes (3, n), weighted."""
    x, y, z = slope
    return np.asarray(np.stack([x * x, y * y, z * z, x * y, x * z, y * z]) * worth, np.float32)


def _splat(rows: FloatArray, nodes: Cells, shape: tuple[int, ...]) -> FloatArray:
    """Share out what each point carries (k, n) among the eight nodes around it."""
    size = int(np.prod(shape))
    index = nodes.index.ravel()
    out = [np.bincount(index, weights=(row * nodes.weights).ravel(), minlength=size) for row in rows]
    return np.stack(out, axis=-1).reshape(*shape, len(rows)).astype(np.float32)


def _solve(force: FloatArray, stiffness: FloatArray, sigma_mm: float) -> FloatArray:
    """Displacement of every node from the votes in its window, with a prior of no movement."""
    sigma = sigma_mm / LATTICE_MM
    # Unit height, so that a window adds up its votes rather than averaging them.
    height = (2 * np.pi) ** 1.5 * sigma**3
    blurred = height * ndimage.gaussian_filter(
        np.concatenate([force, stiffness], axis=-1), (sigma, sigma, sigma, 0), mode="constant"
    )
    f, (xx, yy, zz, xy, xz, yz) = blurred[..., :3], np.moveaxis(blurred[..., 3:], -1, 0)
    prior = 1.0 / STEP_SD_MM**2
    xx, yy, zz = xx + prior, yy + prior, zz + prior
    # Inverse of a symmetric 3x3 matrix by cofactors: no library, one order of sums.
    a, b, c = yy * zz - yz**2, xz * yz - xy * zz, xy * yz - xz * yy
    d, e, g = xx * zz - xz**2, xy * xz - xx * yz, xx * yy - xy**2
    determinant = xx * a + xy * b + xz * c
    fx, fy, fz = np.moveaxis(f, -1, 0)
    step = np.stack([a * fx + b * fy + c * fz, b * fx + d * fy + e * fz, c * fx + e * fy + g * fz], axis=-1)
    step /= determinant[..., None]
    length = np.sqrt(np.sum(step**2, axis=-1, keepdims=True))
    return np.asarray(step / np.maximum(1.0, length / LONGEST_STEP_MM), np.float32)


def figures(
    sample: Sample, template: Template, mapped: DoubleArray, field: Deformation, rim: float
) -> Deformed:
    """Return a deformation with similarity and overlap after it, and the brightness of every tissue."""
    look = Look.at(template, field(mapped))
    shares, colours = [], []
    for values, base in sample.channels():
        brightness, residual = fit_channel(look.shares, values, base)
        total = float(np.sum(base * robust_loss(values), dtype=np.float64))
        left = float(np.sum(base * robust_loss(residual), dtype=np.float64))
        shares.append(1.0 - left / max(total, 1e-6))
        colours.append(brightness)
    expected = look.expected(rim)
    both = float(np.sum(np.minimum(sample.inside, expected), dtype=np.float64))
    sizes = float(np.sum(sample.inside, dtype=np.float64) + np.sum(expected, dtype=np.float64))
    return Deformed(field, float(np.mean(shares)), 2 * both / max(sizes, 1e-6), np.stack(colours))
