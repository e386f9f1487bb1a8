"""The N4 bias field algorithm on a small grid, in NumPy alone.

N4 (Tustison 2010, IEEE TMI 29:1310) looks for the smooth field that makes the histogram of log intensities
sharper: the histogram is deconvolved with a Gaussian (Sled 1998), each intensity is moved to what the sharper
histogram expects of it, and the part of these moves that a coarse B-spline can follow (approximated as in
Lee 1997) is the next increment of the field; then the spline's mesh is halved.

It is written here rather than taken from ITK because sums there change with the number of threads. Nothing
here calls a threaded library: the same image gives the same field, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bids_cmb.types import BoolArray, FloatArray

DoubleArray = npt.NDArray[np.float64]

_BINS = 200
#: Full width at half maximum of the deconvolved Gaussian, in log intensity.
_WIDTH = 0.15
#: Noise term of the Wiener deconvolution.
_WIENER = 0.01


def fit_log_field(
    image: FloatArray,
    inside: BoolArray,
    voxel_mm: float,
    *,
    spline_mm: float = 200.0,
    iterations: Sequence[int] = (50, 40, 30),
    tolerance: float = 5e-4,
) -> FloatArray:
    """Fit the logarithm of the bias field.

    Parameters
    ----------
    image
        Intensities, above zero inside; shape (x, y, z), cubic voxels.
    inside
        Voxels to fit to, same shape; some must be set.
    voxel_mm
        Edge of a voxel, mm.
    spline_mm
        Mesh of the spline at the first level, mm; halved at each level.
    iterations
        Most iterations at each level.
    tolerance
        A level ends when an increment varies less than this (standard deviation inside).

    Returns
    -------
    FloatArray
        Logarithm of the field at every voxel, zero on average inside.
    """
    signal = np.log(image[inside].astype(np.float64))
    field = np.zeros(image.shape, dtype=np.float64)
    residual = np.zeros(image.shape, dtype=np.float64)
    for level, most in enumerate(iterations):
        mesh = [max(1, math.ceil(n * voxel_mm / spline_mm)) * 2**level for n in image.shape]
        spline = _Spline(inside, mesh)
        for _ in range(most):
            current = signal - field[inside]
            residual[inside] = current - _sharpened(current)
            step = spline.approximate(residual)
            step -= step[inside].mean()
            field += step
            if step[inside].std() < tolerance:
                break
    return np.asarray(field - field[inside].mean(), dtype=np.float32)


def _sharpened(values: DoubleArray) -> DoubleArray:
    """Move each log intensity to what a histogram deconvolved with a Gaussian expects of it."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9:
        return values
    slope = (high - low) / (_BINS - 1)
    place = (values - low) / slope
    lower = np.minimum(place.astype(np.intp), _BINS - 2)
    part = place - lower
    histogram = np.bincount(lower, 1 - part, _BINS) + np.bincount(lower + 1, part, _BINS)
    length = 2 ** (math.ceil(math.log2(_BINS)) + 1)
    offset = (length - _BINS) // 2
    padded = np.zeros(length)
    padded[offset : offset + _BINS] = histogram
    width = _WIDTH / slope
    steps = np.arange(length)
    steps = np.minimum(steps, length - steps)
    gaussian = 2 * math.sqrt(math.log(2) / math.pi) / width * np.exp(-4 * math.log(2) * (steps / width) ** 2)
    kernel = np.fft.fft(gaussian)
    wiener = np.conj(kernel) / (np.abs(kernel) ** 2 + _WIENER)
    sharp = np.maximum(np.fft.ifft(np.fft.fft(padded) * wiener.real).real, 0)
    centres = low + (np.arange(length) - offset) * slope
    above = np.fft.ifft(np.fft.fft(centres * sharp) * kernel).real
    below = np.fft.ifft(np.fft.fft(sharp) * kernel).real
    expected = np.where(below > 1e-9, above / np.maximum(below, 1e-9), centres)
    return np.asarray(np.interp(values, centres, expected), dtype=np.float64)


class _Spline:
    """Approximation of scattered values by a cubic B-spline over the grid (Lee 1997).

    Parameters
    ----------
    inside
        Voxels that hold values.
    mesh
        Number of spline elements along each axis.
    """

    def __init__(self, inside: BoolArray, mesh: Sequence[int]) -> None:
        self._bases = [_basis(n, elements) for n, elements in zip(inside.shape, mesh, strict=True)]
        x, y, z = ((basis**2).sum(axis=1) for basis in self._bases)
        squares = x[:, None, None] * y[:, None] * z
        self._share = np.where(inside, 1 / squares, 0.0)
        self._weight = _contracted(inside.astype(np.float64), [basis**2 for basis in self._bases])
        self._cubes = [basis**3 for basis in self._bases]

    def approximate(self, values: DoubleArray) -> DoubleArray:
        """Return the spline's value at every voxel for values inside."""
        total = _contracted(values * self._share, self._cubes)
        known = self._weight > 1e-9
        controls = np.where(known, total / np.where(known, self._weight, 1.0), 0.0)
        return _contracted(controls, [np.ascontiguousarray(basis.T) for basis in self._bases])


def _basis(count: int, elements: int) -> DoubleArray:
    """Cubic B-spline weights of ``elements + 3`` control points at ``count`` voxel centres."""
    place = (np.arange(count) + 0.5) / count * elements
    element = np.minimum(place.astype(np.intp), elements - 1)
    t = place - element
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    basis = np.zeros((count, elements + 3))
    for k, weight in enumerate(weights):
        basis[np.arange(count), element + k] = weight / 6
    return basis


def _contracted(values: DoubleArray, matrices: Sequence[DoubleArray]) -> DoubleArray:
    """Sum over each axis of an array with one (from, to) matrix per axis."""
    # Without `optimize` einsum is a plain loop: no BLAS, no threads, one order of summation.
    out = np.einsum("xyz,xi->iyz", values, matrices[0], optimize=False)
    out = np.einsum("iyz,yj->ijz", out, matrices[1], optimize=False)
    result: DoubleArray = np.einsum("ijz,zk->ijk", out, matrices[2], optimize=False)
    return result
