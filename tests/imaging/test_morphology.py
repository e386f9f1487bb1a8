"""Masks in millimetres."""

import numpy as np
import pytest

from bids_cmb.imaging.morphology import closed, depth_mm, dilated, eroded, filled, opened, parts_of_size

ZOOMS = (1.0, 1.0, 3.0)


def _block(shape=(30, 30, 12), low=6, high=24, z=(3, 9)):
    mask = np.zeros(shape, bool)
    mask[low:high, low:high, z[0] : z[1]] = True
    return mask


def test_radii_are_millimetres_on_anisotropic_voxels():
    point = np.zeros((21, 21, 9), bool)
    point[10, 10, 4] = True
    grown = dilated(point, ZOOMS, 3.0)
    assert grown[13, 10, 4]
    assert not grown[14, 10, 4]
    assert grown[10, 10, 5]
    assert not grown[10, 10, 6]


def test_the_edge_of_the_scan_takes_nothing_away_unless_asked():
    slab = np.zeros((20, 20, 4), bool)
    slab[5:15, 5:15] = True
    assert eroded(slab, ZOOMS, 2.0)[10, 10].all()
    assert not eroded(slab, ZOOMS, 4.0, edge_is_outside=True)[10, 10, 0]
    full = np.ones((4, 4, 4), bool)
    assert eroded(full, ZOOMS, 5.0).all()
    assert np.isinf(depth_mm(full, ZOOMS)).all()


def test_opening_and_closing():
    mask = _block()
    bridge = mask.copy()
    bridge[24:28, 14, 5] = True
    assert not opened(bridge, ZOOMS, 2.0)[26, 14, 5]
    gap = mask.copy()
    gap[14:16, :, :] = False
    assert closed(gap, ZOOMS, 3.0)[14, 14, 5]
    assert not dilated(np.zeros((4, 4, 4), bool), ZOOMS, 2.0).any()


def test_small_parts_go_and_the_largest_stays():
    mask = _block()
    mask[0, 0, 0] = True
    mask[28:30, 28:30, 0:2] = True
    assert parts_of_size(mask, 4).sum() == mask.sum() - 1
    assert parts_of_size(mask, 10**6).sum() == _block().sum()
    assert not parts_of_size(np.zeros((3, 3, 3), bool), 1).any()


def test_closed_holes_are_filled_whatever_their_size():
    mask = _block()
    holed = mask.copy()
    holed[8:20, 8:20, 4:8] = False
    np.testing.assert_array_equal(filled(holed), mask)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_small_hole_of_a_slice_is_filled_though_it_opens_to_the_side(axis):
    mask = _block((30, 30, 30), z=(6, 24))
    channel = tuple(slice(None) if k == axis else slice(14, 16) for k in range(3))
    holed = mask.copy()
    holed[channel] = False
    assert not filled(holed)[14, 14, 14]
    assert filled(holed, largest_in_slice=4)[14, 14, 14]
    assert not filled(holed, largest_in_slice=3)[14, 14, 14]


def test_holes_at_the_edge_of_a_slab_are_filled_in_their_slice():
    slab = np.zeros((30, 30, 3), bool)
    slab[5:25, 5:25] = True
    slab[12:15, 12:15, 0] = False
    assert filled(slab, largest_in_slice=20)[13, 13, 0]
    assert not filled(np.zeros((3, 3, 3), bool)).any()
