"""Whether what stands out in one half of the brain stands out in the other too, as mineral of the pallidum does."""

from __future__ import annotations

from itertools import product

import numpy as np

from bids_cmb.anatomy.registration import Registration
from bids_cmb.anatomy.sampling import DoubleArray, interpolate, undo_affine
from bids_cmb.types import Contrast, FloatArray, Volume

#: The mirror place is known to about this: the most that stands out so near it is taken, mm.
NEARBY_MM = 2.5
#: What a place is compared with lies this far around it, mm.
SURROUND_MM = 7.0
#: Standing out half as much on the other side is symmetric; a quarter and less is not.
ALIKE, UNLIKE = 0.5, 0.25
_DIRECTIONS = np.array([d for d in product((-1.0, 0.0, 1.0), repeat=3) if any(d)])
_DIRECTIONS /= np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True)


def symmetry(
    volume: Volume, points: DoubleArray, registration: Registration, contrast: Contrast
) -> FloatArray:
    """How much the mirror places of points stand out from their surround, beside the points themselves.

    Iron and calcium of the basal ganglia come on both sides, a microbleed on one (Greenberg 2009, Lancet Neurol 8:165).

    Parameters
    ----------
    volume
        The scan.
    points
        (n, 3) RAS+ world, mm.
    registration
        Says where the other half is.
    contrast
        Decides whether dark or bright stands out.

    Returns
    -------
    ndarray
        float32 (n,): 1 where both sides stand out alike, 0 where the mirror place does not.
    """
    mirrored = registration(points)
    mirrored[:, 0] *= -1
    sign = 1.0 if contrast == "qsm" else -1.0
    own, _ = _standing_out(volume, points, sign)
    _, other = _standing_out(volume, registration.back(mirrored), sign)
    # Where nothing stands out, nothing tells the sides apart: alike.
    share = np.divide(other, own, out=np.full_like(own, ALIKE), where=own > 0)
    alike = (share - UNLIKE) / (ALIKE - UNLIKE)
    return np.clip(alike, 0, 1).astype(np.float32)


def _standing_out(volume: Volume, points: DoubleArray, sign: float) -> tuple[DoubleArray, DoubleArray]:
    """By how much points (n,), and the most outstanding place near each (n,), exceed their surround."""
    around = np.median(_values(volume, points, SURROUND_MM * _DIRECTIONS), axis=1)
    near = _values(volume, points, np.concatenate([np.zeros((1, 3)), NEARBY_MM * _DIRECTIONS]))
    return sign * (near[:, 0] - around), np.max(sign * near, axis=1) - sign * around


def _values(volume: Volume, points: DoubleArray, offsets: DoubleArray) -> DoubleArray:
    """Intensities (n, k) at points moved by each of k offsets (mm), trilinear."""
    places = (points[:, None] + offsets).reshape(-1, 3)
    values = interpolate(volume.data[..., None], undo_affine(volume.affine, places))[:, 0]
    return values.astype(np.float64).reshape(len(points), len(offsets))
