"""Causes of false detections: what was drawn there, or what lies around."""

from __future__ import annotations

import numpy as np
import pytest

from bids_cmb.training.simulate.surround import KINDS, cause_at

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
