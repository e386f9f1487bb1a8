"""Shading that no tissue explains: what bias correction and background-field removal leave behind.

With the affine fit, the tissues' brightness is known, and so is what they leave unexplained in every point. Its smooth part
is taken off before the fit goes on, so that it does not pull on the pose or the deformation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bids_cmb.anatomy.affine_fit import Fit, Look, fit_channel, map_points, robust_weight
from bids_cmb.anatomy.sampling import DoubleArray, Sample
from bids_cmb.anatomy.template import Template

#: Highest degree of the polynomials that shading is made of.
DEGREE = 3
#: Length that coordinates are counted in, so that powers stay near one, mm.
_UNIT_MM = 80.0
#: Ridge of the fit, as a share of the weight of all points: too little to matter where there are many.
_RIDGE = 5e-5


def without_shading(sample: Sample, template: Template, fit: Fit) -> Sample:
    """Take the smooth part of what the tissues leave unexplained off every channel.

    Parameters
    ----------
    sample
        The scan.
    template
        The tissue maps.
    fit
        Where it lies.

    Returns
    -------
    Sample
        The same points with other values.
    """
    look = Look.at(template, map_points(fit.pose, sample.points))
    smooth = polynomials(sample.points)
    values = sample.values.copy()
    for number, (channel, base) in enumerate(sample.channels()):
        _, residual = fit_channel(look.shares, channel, base)
        weight = (base * robust_weight(residual)).astype(np.float64)
        # Sums in one order, whatever the number of threads (`bids_cmb.anatomy.sampling`).
        normal = np.einsum("pn,qn,n->pq", smooth, smooth, weight, optimize=False)
        normal[np.diag_indices_from(normal)] += _RIDGE * float(weight.sum())
        right = np.einsum("pn,n->p", smooth, weight * residual)
        shading = np.einsum("pn,p->n", smooth, np.linalg.solve(normal, right))
        values[:, number] = channel - shading.astype(np.float32)
    return replace(sample, values=values)


def polynomials(points: DoubleArray) -> DoubleArray:
    """Products of powers of the coordinates up to `DEGREE` (k, n), each of mean zero."""
    x, y, z = ((points - points.mean(axis=0)) / _UNIT_MM).T
    degrees = range(DEGREE + 1)
    powers = [(i, j, k) for i in degrees for j in degrees for k in degrees if 0 < i + j + k <= DEGREE]
    out = np.stack([x**i * y**j * z**k for i, j, k in powers])
    return np.asarray(out - out.mean(axis=1, keepdims=True))
