"""Affine registration by tissue regression: the template says where tissues are, the scan says how bright they are.

A scan is explained as a sum over tissue classes, each with one unknown brightness, plus the outline of its
brain. For a given position the brightnesses follow from least squares, so nothing is assumed about the contrast:
T2*-weighted magnitude, SWI, susceptibility and T1w are all fitted alike. The position follows from damped
Gauss-Newton steps with robust weights (veins, lesions and dropout count little) and weak priors on scale and
shear. It is the correlation ratio of Roche et al. (MICCAI 1998) with soft classes in place of grey-level bins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bids_cmb.anatomy.sampling import Cells, DoubleArray, Sample, apply_matrix, to_voxels
from bids_cmb.anatomy.template import Template
from bids_cmb.types import Affine, FloatArray

#: Prior mean of translation (mm), rotation (rad), log scale, shear and thickness of the rim that the mask lacks
#: (mm). Heads are smaller than the MNI brain by some 7 % and differ by some 5 % in each
#: direction.
PRIOR_MEAN = np.array([0, 0, 0, 0, 0, 0, 0.07, 0.07, 0.07, 0, 0, 0, 0.0])
PRIOR_SD = np.array([np.inf, np.inf, np.inf, 0.4, 0.3, 0.4, 0.05, 0.05, 0.05, 0.04, 0.04, 0.04, 2.0])
#: Longest step of one iteration in each parameter.
LONGEST_STEP = np.array([12, 12, 12, 0.2, 0.2, 0.2, 0.12, 0.12, 0.12, 0.08, 0.08, 0.08, 2.0])
#: Neighbouring points err together: what all points are worth as independent evidence.
EFFECTIVE_POINTS = 1500.0
#: Softness of the template's outline, mm, and a usual misfit of the outline.
OUTLINE_SOFTNESS_MM = 3.0
OUTLINE_SD = 0.5
#: Residuals beyond this many robust standard deviations of the intensity count little (Geman-McClure).
ROBUST_CUT = 3.5


@dataclass(frozen=True)
class Pose:
    """A candidate position of a head in MNI space.

    Attributes
    ----------
    parameters
        float64 (13,): see `PRIOR_MEAN`.
    flip
        Signs of the world axes before everything else: 1 as the header says, -1 reversed.
    centre
        World point about which the head turns, mm.
    """

    parameters: DoubleArray
    flip: tuple[int, int, int]
    centre: DoubleArray

    @property
    def linear(self) -> DoubleArray:
        """3x3 part of world to MNI."""
        return linear_part(self.parameters) * np.asarray(self.flip, np.float64)

    @property
    def matrix(self) -> Affine:
        """4x4 matrix, world to MNI."""
        out = np.eye(4)
        out[:3, :3] = self.linear
        out[:3, 3] = self.parameters[:3] - np.sum(self.linear * self.centre, axis=1)
        return out

    def offsets(self, points: DoubleArray) -> DoubleArray:
        """World points (n, 3) relative to the centre, axes flipped."""
        return np.asarray((points - self.centre) * np.asarray(self.flip, np.float64))


@dataclass(frozen=True)
class Fit:
    """A pose and how well it explains the scan.

    Attributes
    ----------
    pose
        The pose.
    cost
        Value that was minimised: lower is better.
    similarity
        Share of the robust variance of the intensities that the tissues explain, 0..1, mean over channels.
    overlap
        Dice coefficient of the scan's mask and the template's brain within the scan's field of view.
    brightness
        float64 (channels, classes + 1): fitted brightness of each class, last the surround.
    """

    pose: Pose
    cost: float
    similarity: float
    overlap: float
    brightness: DoubleArray


@dataclass(frozen=True)
class Step:
    """Gradient (13,) and Gauss-Newton matrix (13, 13) of the cost at a pose."""

    gradient: DoubleArray
    normal: DoubleArray


def rotation(angles: DoubleArray) -> DoubleArray:
    """Rotation matrix from angles about x, y and z, rad."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def linear_part(parameters: DoubleArray) -> DoubleArray:
    """3x3 matrix: rotation after scale after shear."""
    return np.asarray(rotation(parameters[3:6]) @ _stretch(parameters))


def _stretch(parameters: DoubleArray) -> DoubleArray:
    """Scale after shear (3, 3)."""
    shear = np.eye(3)
    shear[0, 1], shear[0, 2], shear[1, 2] = parameters[9:12]
    return np.asarray(np.exp(parameters[6:9])[:, None] * shear)


def linear_derivatives(parameters: DoubleArray) -> DoubleArray:
    """Derivatives (9, 3, 3) of `linear_part` in rotation, scale and shear."""
    turn, stretch = rotation(parameters[3:6]), _stretch(parameters)
    out = np.empty((9, 3, 3))
    for k in range(3):
        # A rotation's derivative in one angle is the rotation with a quarter turn more, less what it leaves in place.
        further = parameters[3:6].copy()
        further[k] += np.pi / 2
        back = parameters[3:6].copy()
        back[k] -= np.pi / 2
        out[k] = 0.5 * (rotation(further) - rotation(back)) @ stretch
    scale = np.exp(parameters[6:9])
    for k in range(3):
        out[3 + k] = np.outer(turn[:, k], stretch[k])
    for k, (row, column) in enumerate(((0, 1), (0, 2), (1, 2))):
        out[6 + k] = 0.0
        out[6 + k][:, column] = turn[:, row] * scale[row]
    return out


def map_points(pose: Pose, points: DoubleArray) -> DoubleArray:
    """World points (n, 3) to MNI."""
    return apply_matrix(linear_part(pose.parameters), pose.offsets(points)) + pose.parameters[:3]


def solve_brightness(shares: FloatArray, values: FloatArray, weights: FloatArray) -> DoubleArray:
    """Weighted ridge regression of one channel on the shares of the tissue classes.

    Parameters
    ----------
    shares
        float32 (k, n): shares of the classes, the last one the surround; they sum to one at each point.
    values, weights
        float32 (n,).

    Returns
    -------
    ndarray
        float64 (k,): brightness of each class.
    """
    weighted = shares * weights
    normal = np.einsum("in,jn->ij", weighted, shares).astype(np.float64)
    right = np.einsum("in,n->i", weighted, values).astype(np.float64)
    total = max(float(np.sum(weights, dtype=np.float64)), 1e-6)
    mean = float(np.sum(weights * values, dtype=np.float64)) / total
    ridge = 2e-4 * total
    normal[np.diag_indices_from(normal)] += ridge
    return np.asarray(np.linalg.solve(normal, right + ridge * mean))


def with_surround(shares: FloatArray) -> FloatArray:
    """Append what is not brain as a class of its own (k + 1, n), so that shares (k, n) sum to one."""
    rest = np.clip(1.0 - shares.sum(axis=0, keepdims=True), 0, 1)
    return np.concatenate([shares, rest]).astype(np.float32)


def robust_loss(residual: FloatArray) -> FloatArray:
    """Geman-McClure loss: a square near zero, level far out."""
    square = residual**2
    return np.asarray(square / (1 + square / ROBUST_CUT**2), np.float32)


def robust_weight(residual: FloatArray) -> FloatArray:
    """Weight of a residual in the iterated least squares that belong to `robust_loss`."""
    return np.asarray(1 / (1 + (residual / ROBUST_CUT) ** 2) ** 2, np.float32)


def fit_channel(shares: FloatArray, values: FloatArray, base: FloatArray) -> tuple[DoubleArray, FloatArray]:
    """Brightness of the classes in one channel, outliers weighed down, and the residuals (n,)."""
    weights = base
    for _ in range(3):
        brightness = solve_brightness(shares, values, weights)
        residual = values - np.einsum("kn,k->n", shares, brightness.astype(np.float32))
        weights = base * robust_weight(residual)
    return brightness, residual


@dataclass(frozen=True)
class Look:
    """The template as the points of a sample meet it in one position.

    Attributes
    ----------
    cells
        Where the points lie in the template.
    corners
        float32 (k + 1, 8, n): the tissue classes and the depth around each point.
    shares
        float32 (k + 1, n): shares of the tissues and of the surround at each point.
    depth
        float32 (n,): depth in the brain, mm.
    spacing
        Edge of the template's voxels, mm.
    """

    cells: Cells
    corners: FloatArray
    shares: FloatArray
    depth: FloatArray
    spacing: float

    @classmethod
    def at(cls, template: Template, mni: DoubleArray) -> Look:
        """Look the template up at MNI points (n, 3)."""
        cells = Cells.of(to_voxels(mni, template.affine), template.depth.shape)
        corners = cells.gather(template.stack)
        here = cells.blend(corners)
        return cls(cells, corners, with_surround(here[:-1]), here[-1], template.spacing)

    def expected(self, rim: float) -> FloatArray:
        """How much of each point should be brain (n,)."""
        inside = 0.5 + 0.5 * np.tanh((self.depth - np.float32(rim)) / np.float32(OUTLINE_SOFTNESS_MM))
        return np.asarray(inside, np.float32)

    def outline_slopes(self, expected: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Slopes of `expected`: in depth (n,), and in space (3, n), per mm."""
        steepness = np.asarray(2.0 / OUTLINE_SOFTNESS_MM * expected * (1.0 - expected), np.float32)
        return steepness, self.cells.slopes(self.corners[-1]) * (steepness / np.float32(self.spacing))

    def drawn_slopes(self, brightness: DoubleArray) -> FloatArray:
        """Slopes (3, n) per mm of the template drawn with some brightness of its classes and surround."""
        contrast = (brightness[:-1] - brightness[-1]).astype(np.float32)
        drawn = np.einsum("kcn,k->cn", self.corners[:-1], contrast)
        return self.cells.slopes(drawn) / np.float32(self.spacing)


def composite(template: Template, brightness: DoubleArray) -> FloatArray:
    """Template drawn in the contrast of a scan, relative to its surround (x, y, z)."""
    contrast = (brightness[:-1] - brightness[-1]).astype(np.float32)
    return np.einsum("xyzk,k->xyz", template.classes, contrast)


def evaluate(sample: Sample, template: Template, pose: Pose) -> tuple[Fit, Step]:
    """Cost of a pose, with gradient and Gauss-Newton matrix in the parameters.

    Parameters
    ----------
    sample
        The scan.
    template
        The tissue maps.
    pose
        Where the head is thought to be.

    Returns
    -------
    Fit
        The pose and its figures.
    Step
        How the cost changes.
    """
    look = Look.at(template, map_points(pose, sample.points))
    project = _Projector(pose, sample.points)

    expected = look.expected(float(pose.parameters[12]))
    steepness, slope = look.outline_slopes(expected)
    miss = sample.inside - expected
    scale = EFFECTIVE_POINTS / (len(miss) * OUTLINE_SD**2)
    rows = project(slope, extra=-steepness)
    cost = 0.5 * scale * float(np.sum(miss**2, dtype=np.float64))
    gradient = -scale * np.einsum("pn,n->p", rows, miss.astype(np.float64))
    normal = scale * np.einsum("pn,qn->pq", rows, rows)

    channels = sample.channels()
    similarity, colours = 0.0, []
    for values, base in channels:
        brightness, residual = fit_channel(look.shares, values, base)
        colours.append(brightness)
        total = max(float(np.sum(base * robust_loss(values), dtype=np.float64)), 1e-6)
        unexplained = float(np.sum(base * robust_loss(residual), dtype=np.float64)) / total
        weights = (base * robust_weight(residual)).astype(np.float64)
        part = EFFECTIVE_POINTS / (total * len(channels))
        rows = project(look.drawn_slopes(brightness))
        cost += 0.5 * EFFECTIVE_POINTS / len(channels) * unexplained
        gradient -= part * np.einsum("pn,n->p", rows, weights * residual)
        normal += part * np.einsum("pn,qn->pq", rows * weights, rows)
        similarity += (1.0 - unexplained) / len(channels)
    deviation = (pose.parameters - PRIOR_MEAN) / PRIOR_SD
    cost += 0.5 * float(np.sum(deviation**2))
    gradient += deviation / PRIOR_SD
    normal[np.diag_indices_from(normal)] += 1.0 / PRIOR_SD**2
    fit = Fit(pose, cost, similarity, _dice(sample.inside, expected), np.stack(colours))
    return fit, Step(gradient, normal)


class _Projector:
    """Turns slopes in MNI space (3, n) into rows of the Jacobian in the parameters, float64 (13, n)."""

    def __init__(self, pose: Pose, points: DoubleArray) -> None:
        self.offsets = np.ascontiguousarray(pose.offsets(points).T, np.float32)
        self.derivatives = linear_derivatives(pose.parameters).reshape(9, 9).astype(np.float32)

    def __call__(self, slopes: FloatArray, extra: FloatArray | None = None) -> DoubleArray:
        products = (slopes[:, None] * self.offsets).reshape(9, -1)
        rows = np.zeros((13, slopes.shape[1]))
        rows[:3] = slopes
        rows[3:12] = np.einsum("pm,mn->pn", self.derivatives, products)
        if extra is not None:
            rows[12] = extra
        return rows


def _dice(a: FloatArray, b: FloatArray) -> float:
    """Soft Dice coefficient."""
    both = float(np.sum(np.minimum(a, b), dtype=np.float64))
    return 2 * both / max(float(np.sum(a, dtype=np.float64) + np.sum(b, dtype=np.float64)), 1e-6)


def refine(sample: Sample, template: Template, pose: Pose, *, iterations: int) -> Fit:
    """Improve a pose by damped Gauss-Newton steps; it never gets worse.

    Parameters
    ----------
    sample
        The scan.
    template
        The tissue maps.
    pose
        Start.
    iterations
        Evaluations of the cost at most.

    Returns
    -------
    Fit
        The best pose met.
    """
    best, step = evaluate(sample, template, pose)
    damping = 0.01
    for _ in range(iterations):
        damped = step.normal + damping * np.diag(np.diag(step.normal))
        move = np.linalg.solve(damped, -step.gradient)
        move /= max(1.0, float(np.max(np.abs(move) / LONGEST_STEP)))
        trial, next_step = evaluate(
            sample, template, replace(best.pose, parameters=best.pose.parameters + move)
        )
        if trial.cost < best.cost:
            gain = best.cost - trial.cost
            best, step = trial, next_step
            damping = max(damping / 4, 1e-4)
            if gain < 1e-3:
                break
        else:
            damping *= 6
            if damping > 1e4:
                break
    return best
