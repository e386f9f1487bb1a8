"""Receive bias of GRE and SWI, removed with N4. Never for QSM, whose values are quantities.

The field is smooth, so it is fitted on a copy of about 4 mm voxels and then interpolated: fast, and the same
bytes each time.
"""

from __future__ import annotations

import numpy as np

from bids_cmb.imaging.coarse import from_coarse, to_coarse
from bids_cmb.imaging.n4 import fit_log_field
from bids_cmb.types import BoolArray, FloatArray, Volume

#: Edge of the voxels that the field is fitted on, mm.
FIT_MM = 4.0
#: The field may brighten or darken by this factor at most: beyond it lies noise or a failed fit.
_LARGEST_FACTOR = 8.0


def correct_bias(volume: Volume, mask: BoolArray) -> Volume:
    """Divide an image by its smooth bias field.

    Parameters
    ----------
    volume
        Magnitude image, values of at least zero.
    mask
        Brain voxels; the field is fitted inside.

    Returns
    -------
    Volume
        The image on the same grid; the field has a geometric mean of one in the brain.
    """
    log_field = _fitted(volume, mask)
    fine = from_coarse(log_field, volume.data.shape, volume.zooms, FIT_MM)
    np.exp(-fine, out=fine)
    fine *= volume.data
    return Volume(fine, volume.affine)


def _fitted(volume: Volume, mask: BoolArray) -> FloatArray:
    """Return the logarithm of the field on the coarse grid, averaging zero in the brain."""
    share = to_coarse(mask, volume.zooms, FIT_MM)
    signal = to_coarse(np.where(mask, volume.data, np.float32(0)), volume.zooms, FIT_MM)
    inside = share > 0.3
    image = np.where(inside, signal / np.maximum(share, 1e-3), 0).astype(np.float32)
    inside &= image > 0
    if inside.sum() < 50:
        return np.zeros(share.shape, dtype=np.float32)
    image /= np.float32(np.median(image[inside]))
    log_field = fit_log_field(image, inside, FIT_MM)
    limit = np.log(_LARGEST_FACTOR)
    centred = log_field - log_field[inside].mean(dtype=np.float64)
    return np.asarray(np.clip(centred, -limit, limit), dtype=np.float32)
