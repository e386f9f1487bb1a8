"""Sulci: opened where a label map has closed them, and widened as age does.

A parcellation of an average brain has hardly any: the banks of a sulcus lie within a voxel of each other and the cortex
between two blades of white matter comes as one piece, several times as thick as cortex is. Where its middle is, there
the sulcus was. What a sulcus holds, bright fluid and small veins, is what a detector must learn to pass over.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bids_cmb.training.simulate.grids import smooth_field
from bids_cmb.training.simulate.heads import LabelMap, without_specks
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.tissues import BRAIN, Tissue

#: Cortex is this thick at least and at most (mm); the upper bound is drawn for each subject.
_THINNEST, _THICKEST = 2.0, (3.0, 6.0)
#: Half the width that is opened around the middle of thick cortex (mm), drawn for each subject; how much it varies over
#: the brain, and over how many millimetres; and in how many subjects nothing is opened.
_HALF_WIDTH, _VARIATION, _EXTENT, _CLOSED = (0.4, 1.4), 0.35, 12.0, 0.15
#: The middle is where nothing within this distance is deeper, voxels.
_REACH = 2


def open_sulci(labels: LabelMap, zooms: tuple[float, float, float], rng: RandomSource) -> LabelMap:
    """Turn the middle of thick cortex, and what is too deep to be cortex, into fluid.

    Depth is the distance from what lies under the cortex. Fluid is what is deeper than `_THICKEST`, and around the
    ridges of depth, where two banks meet, whatever lies less than `_HALF_WIDTH` below the ridge; the first `_THINNEST`
    millimetres stay cortex. The widths differ from subject to subject, and within one from place to place.

    Parameters
    ----------
    labels
        (X, Y, Z) `Tissue` labels.
    zooms
        Voxel edges, mm.
    rng
        Source of chance.

    Returns
    -------
    LabelMap
        A copy without islands (`without_specks`), or the labels themselves in the subjects whose sulci stay closed.
    """
    if rng.chance(_CLOSED):
        return labels
    thickest, half_width = rng.uniform(*_THICKEST), rng.uniform(*_HALF_WIDTH)
    cortex = labels == Tissue.CORTEX
    banks = cortex | (labels == Tissue.CSF)
    under = np.isin(labels, BRAIN) & ~banks
    depth = ndimage.distance_transform_edt(~under, sampling=zooms).astype(np.float32)
    ridge = ndimage.maximum_filter(np.where(banks, depth, 0), size=2 * _REACH + 1)
    shape = labels.shape[0], labels.shape[1], labels.shape[2]
    uneven: np.ndarray = smooth_field(rng, shape, zooms, _EXTENT).cpu().numpy() * _VARIATION
    fluid = (depth > thickest + uneven) | (depth > ridge - half_width + uneven)
    out = labels.copy()
    out[cortex & fluid & (depth > _THINNEST)] = Tissue.CSF
    return without_specks(out, zooms)
