"""Causes of false detections: what was drawn there, or what lies around."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch

from bids_cmb.training.simulate.grids import sample, smooth
from bids_cmb.training.simulate.physics import Acquisition
from bids_cmb.training.simulate.surround import KINDS, cause_at, on_grid

AFFINE = np.diag([0.5, 0.5, 2.0, 1.0])
HERE = np.array([10.0, 10.0, 20.0])


def around(kind: str) -> np.ndarray:
    surround = np.zeros((40, 40, 20), np.uint8)
    surround[19:22, 18:23, 10] = KINDS.index(kind)
    return surround


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_place_is_named_by_what_the_voxels_near_it_hold(kind: str) -> None:
    assert cause_at(HERE, (), around(kind), AFFINE) == kind


def test_a_drawn_mimic_goes_before_what_lies_around_and_a_wide_one_after() -> None:
    small, wide = ((12.0, 10.0, 20.0), 1.0, "pineal"), ((10.0, 10.0, 20.0), 20.0, "superficial siderosis")
    assert cause_at(HERE, (wide, small), around("vein"), AFFINE) == "pineal"
    assert cause_at(HERE, (wide,), around("vein"), AFFINE) == "vein"
    assert cause_at(HERE, (wide,), np.zeros((40, 40, 20), np.uint8), AFFINE) == "superficial siderosis"
    far = ((18.0, 10.0, 20.0), 1.0, "pineal")
    assert cause_at(HERE, (far,), np.zeros((40, 40, 20), np.uint8), AFFINE) == "tissue"


class Final:
    """The grid of an acquisition, which is all that `on_grid` asks for."""

    final_size = (9, 40, 7)  # coarser, finer and coarser than the fine grid


def test_a_map_on_the_image_grid_is_a_smoothed_copy_sampled_between_its_voxels() -> None:
    fine = torch.rand(27, 32, 30, generator=torch.Generator().manual_seed(1))
    factors = [f / n for f, n in zip(fine.shape, Final.final_size, strict=True)]
    axes = [(torch.arange(n) + 0.5) * f - 0.5 for n, f in zip(Final.final_size, factors, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    x, y, z = (0.4 * f for f in factors)
    expected = sample(smooth(fine, (x, y, z)), points)
    torch.testing.assert_close(on_grid(fine, cast("Acquisition", Final())), expected, rtol=0, atol=1e-5)
