"""To a coarse grid and back."""

import numpy as np
import pytest

from bids_cmb.imaging.coarse import coarse_shape, from_coarse, to_coarse


def test_the_coarse_grid_covers_the_image():
    assert coarse_shape((256, 256, 160), (0.8, 0.8, 1.0), 2.0) == (103, 103, 80)
    assert coarse_shape((10, 10, 7), (2.0, 2.0, 2.0), 2.0) == (10, 10, 7)
    assert coarse_shape((3, 3, 1), (0.1, 0.1, 0.1), 4.0) == (1, 1, 1)


@pytest.mark.parametrize("zooms", [(0.5, 0.7, 3.0), (2.0, 2.0, 2.0), (1.3, 0.9, 6.5)])
def test_a_straight_ramp_survives_the_way_there_and_back(zooms):
    shape = (50, 44, 12)
    axes = [(np.arange(n) + 0.5) * z for n, z in zip(shape, zooms, strict=True)]
    ramp = sum(g * f for g, f in zip(np.meshgrid(*axes, indexing="ij"), (0.3, -0.2, 0.1), strict=True))
    back = from_coarse(to_coarse(ramp, zooms, 2.0), shape, zooms, 2.0)
    inner = tuple(slice(5, -5) if z < 2 else slice(2, -2) for z in zooms)
    np.testing.assert_allclose(back[inner], ramp[inner], atol=0.05)


def test_averages_conserve_the_sum():
    data = np.random.default_rng(0).random((40, 30, 20)).astype(np.float32)
    coarse = to_coarse(data, (0.5, 1.0, 0.4), 2.0)
    np.testing.assert_allclose(coarse.mean(dtype=float), data.mean(dtype=float), rtol=1e-5)


def test_a_mask_becomes_fractions():
    mask = np.zeros((8, 8, 8), bool)
    mask[:3] = True
    np.testing.assert_allclose(to_coarse(mask, (1.0, 1.0, 1.0), 2.0)[:, 0, 0], [1, 0.5, 0, 0])
