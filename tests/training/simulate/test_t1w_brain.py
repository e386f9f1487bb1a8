"""Tissue of a T1-weighted head by intensity."""

import numpy as np

from bids_cmb.training.simulate.t1w_brain import FIRST_OUTER_LABEL, GAP_LABEL, labels_from_intensity


def test_intensity_groups_inside_and_outside_the_brain():
    axis = np.arange(63) - 31.0
    radius = np.sqrt(sum(g**2 for g in np.meshgrid(axis, axis, axis, indexing="ij")))
    shells = [radius < reach for reach in (4, 12, 20, 22, 26, 30)]
    noise = np.random.default_rng(0).normal(0, 1, radius.shape)
    image = np.select(shells, [20, 100, 70, 10, 5, 130], 0.0) + np.where(radius < 30, noise, 0)
    labels = labels_from_intensity(image.astype(np.float32), radius < 20)
    np.testing.assert_array_equal((labels > 0) & (labels < FIRST_OUTER_LABEL), radius < 20)
    assert labels[31, 31, 31] == 1
    assert (labels[(radius > 20) & (radius < 22)] == GAP_LABEL).mean() > 0.3
    assert labels[0, 0, 0] == 0
