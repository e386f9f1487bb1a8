"""Which way a brain is found, what happens when that fails, and that no bleed leaves a hole."""

import numpy as np
import pytest
from scipy import ndimage

from bids_cmb.errors import InputError
from bids_cmb.imaging.brain_mask import background_value, mask_brain
from bids_cmb.types import Volume

from .phantoms import dice, head, susceptibility


def test_a_stripped_image_keeps_its_support():
    volume, inside = head(stripped=True)
    found = mask_brain(volume, "swi")
    assert found.method == "support"
    np.testing.assert_array_equal(found.mask, inside)


def test_a_black_bleed_in_a_stripped_image_leaves_no_hole():
    volume, inside = head((160, 180, 40), (1.0, 1.0, 4.0), stripped=True)
    data = volume.data.copy()
    data[80:88, 90:98, 18:22] = 0
    data[60:66, 60:66, :] = np.where(np.arange(40) < 30, data[60:66, 60:66, :], 0)
    found = mask_brain(Volume(data, volume.affine), "gre")
    assert found.mask[84, 94, 20]
    assert (found.mask & ~inside).sum() == 0
    assert found.mask.sum() > 0.999 * inside.sum()


def test_specks_of_a_stripped_image_are_dropped():
    volume, inside = head(stripped=True)
    data = volume.data.copy()
    data[1:3, 1:3, 1:3] = 50
    np.testing.assert_array_equal(mask_brain(Volume(data, volume.affine), "swi").mask, inside)


def test_a_whole_head_with_a_background_of_zeros_is_not_taken_for_stripped():
    volume, inside = head()
    data = np.where(volume.data < 6, 0, volume.data).astype(np.float32)
    found = mask_brain(Volume(data, volume.affine), "gre")
    assert found.method == "thresholds"
    assert dice(found.mask, inside) > 0.95


def test_a_visible_skull_is_not_taken_for_a_masked_head_even_where_the_brain_leaks_into_it(monkeypatch):
    volume, _ = head()
    data = np.where(volume.data < 6, 0, volume.data).astype(np.float32)
    monkeypatch.setattr("bids_cmb.imaging.brain_mask.brain_by_thresholds", lambda coarse, _: coarse > 0)
    with pytest.raises(InputError, match="No brain"):
        mask_brain(Volume(data, volume.affine), "gre")


@pytest.mark.parametrize("contrast", ["gre", "swi"])
def test_black_bleeds_in_a_head_leave_no_hole(contrast):
    volume, _ = head()
    data = volume.data.copy()
    data[40:44, 50:54, 40:44] = 0
    assert mask_brain(Volume(data, volume.affine), contrast).mask[38:46, 48:56, 38:46].all()


@pytest.mark.parametrize("contrast", ["gre", "swi"])
def test_the_brain_of_a_whole_head_is_found_and_it_is_said_how(contrast):
    volume, inside = head()
    found = mask_brain(volume, contrast)
    assert found.method == "thresholds"
    assert any("thresholds and shapes" in w for w in found.warnings)
    assert dice(found.mask, inside) > 0.95


def test_a_wide_sulcus_that_is_dark_on_swi_belongs_to_the_brain():
    volume, inside = head()
    top = int(np.flatnonzero(inside.any(axis=(0, 1)))[-1])
    data = volume.data.copy()
    data[44:52, :, top - 14 : top + 1] *= 0.2  # 16 mm wide, from the vertex 30 mm down
    found = mask_brain(Volume(data, volume.affine), "swi").mask
    sulcus = np.zeros_like(inside)
    sulcus[44:52, :, top - 14 : top - 4] = True
    assert (found & sulcus & inside).sum() > 0.8 * (sulcus & inside).sum()


def test_no_brain_at_all_is_a_sentence():
    rng = np.random.default_rng(0)
    noise = Volume(np.abs(rng.standard_normal((96, 112, 96))).astype(np.float32), np.diag([2.0, 2, 2, 1]))
    with pytest.raises(InputError, match="No brain"):
        mask_brain(noise, "gre")


def test_a_masked_map_keeps_its_support_and_its_negative_voxels():
    volume, inside = susceptibility()
    data = volume.data.copy()
    data[48, 56, 48] = 0
    found = mask_brain(Volume(data, volume.affine), "qsm")
    assert found.method == "support"
    np.testing.assert_array_equal(found.mask, inside)
    assert (data[found.mask] < 0).any()


def test_a_map_masked_with_another_value():
    volume, inside = susceptibility()
    data = np.where(inside, volume.data, -1).astype(np.float32)
    np.testing.assert_array_equal(mask_brain(Volume(data, volume.affine), "qsm").mask, inside)


def test_an_unmasked_map_is_parted_from_its_noise():
    volume, inside = susceptibility(masked=False)
    found = mask_brain(volume, "qsm")
    assert found.method == "thresholds"
    assert dice(found.mask, inside) > 0.9


def moved(volume: Volume) -> Volume:
    """The image half a voxel on, by cubic splines: they ring around every mask."""
    data = ndimage.shift(volume.data.astype(np.float64), 0.5, order=3)
    return Volume(data.astype(np.float32), volume.affine)


def test_a_map_that_was_resampled_after_masking_is_parted_from_the_quiet_around_it():
    volume, inside = susceptibility()
    resampled = moved(volume)
    assert background_value(resampled.data) is None
    found = mask_brain(resampled, "qsm")
    assert found.method == "thresholds"
    assert found.warnings
    assert dice(found.mask, inside) > 0.9


@pytest.mark.parametrize("scale", [1, 3, 10])
def test_ripples_around_a_stripped_image_that_was_resampled_are_not_brain(scale):
    volume, inside = head((120, 150, 70), (1.5, 1.5, 2.5), stripped=True)
    rounded = np.rint(np.maximum(moved(volume).data * scale, 0))
    found = mask_brain(Volume(rounded.astype(np.float32), volume.affine), "gre")
    assert dice(found.mask, inside) > 0.97
    outside = ndimage.distance_transform_edt(~inside, sampling=volume.zooms)
    assert outside[found.mask].max() < 6.0


def test_where_signal_is_lost_a_stripped_image_keeps_its_support():
    volume, inside = head((120, 150, 70), (1.5, 1.5, 2.5), stripped=True)
    data = volume.data.copy()
    data[20:100, 100:, 5:25] *= 0.04  # above the frontal sinus: a tenth of the brain
    np.testing.assert_array_equal(mask_brain(Volume(data, volume.affine), "swi").mask, inside)


def test_a_slab_of_a_head_with_a_dark_skull_is_not_taken_for_stripped():
    volume, inside = head((160, 190, 24), (1.2, 1.2, 3.0))
    outside_head = volume.data < 15
    outside_head &= ~ndimage.binary_fill_holes(volume.data.max(axis=2) > 60)[..., None]
    found = mask_brain(Volume(np.where(outside_head, 0, volume.data), volume.affine), "gre")
    assert found.method == "thresholds"
    assert dice(found.mask, inside) > 0.9


def test_open_sulci_of_thick_slices_are_no_holes():
    """A hole of a slice is measured in the slice that it is in: 5 mm of height make a narrow cleft no smaller."""
    volume, _ = head((160, 180, 30), (1.0, 1.0, 5.0), stripped=True)
    data = volume.data.copy()
    cleft = np.s_[76:84, 40:140, 10:20]  # 8 x 50 mm in a coronal slice, 100 x 50 mm in a sagittal one
    data[cleft] = 0
    data[76:84, 40:46] = 0  # open in front
    found = mask_brain(Volume(data, volume.affine), "gre").mask
    assert found[cleft].mean() < 0.05


def test_thin_and_thick_voxels_give_the_same_outline():
    fine, inside = head((192, 224, 38), (1.0, 1.0, 5.0))
    assert dice(mask_brain(fine, "swi").mask, inside) > 0.94


@pytest.mark.parametrize(("value", "share", "expected"), [(0, 0.3, 0.0), (-1, 0.3, -1.0), (0, 0.01, None)])
def test_background_value(value, share, expected):
    data = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    data[: round(20 * share)] = value
    data[0, 0, 0] = value
    assert background_value(data) == expected


# --- real images -------------------------------------------------------------------------------------------


@pytest.mark.shared_data
def test_a_real_slab_at_a_late_echo(shared_data):
    import nibabel as nib

    (path,) = sorted((shared_data / "gre_12echo").glob("*.nii.gz"))
    image = nib.as_closest_canonical(nib.load(path))
    volume = Volume(np.asarray(image.dataobj)[..., 5].astype(np.float32), image.affine)
    mask = mask_brain(volume, "gre").mask
    # A slab of 14 mm through the basal ganglia: brain of some 240 ml, head of some 340 ml.
    assert 200 < mask.sum() * volume.voxel_volume / 1000 < 275


@pytest.mark.shared_data
def test_a_real_masked_map(shared_data):
    from bids_cmb.imaging.volume import load_image

    volume = load_image(shared_data / "qsm_hemorrhage" / "msQSM.nii.gz").volume
    found = mask_brain(volume, "qsm")
    assert found.method == "support"
    support = volume.data != 0
    assert (support & ~found.mask).sum() < 0.001 * support.sum()
