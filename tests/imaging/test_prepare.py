"""What the detector gets, and what the user is told."""

import math

import numpy as np
import pytest

from bids_cmb.errors import InputError
from bids_cmb.imaging.prepare import noise_level, prepare
from bids_cmb.types import Volume

from .phantoms import head, susceptibility


def _moved(volume, factor=1.0, offset=0.0):
    return Volume((volume.data * factor + offset).astype(np.float32), volume.affine)


def test_a_stripped_scan_comes_out_flat_with_its_noise_measured():
    volume, inside = head(stripped=True, noise=4.0)
    ramp = np.linspace(0.6, 1.4, volume.data.shape[0], dtype=np.float32)[:, None, None]
    out = prepare(Volume(volume.data * ramp, volume.affine), "swi")
    np.testing.assert_array_equal(out.brain_mask, inside)
    values = out.image.data[inside]
    assert values.std() / values.mean() < 0.06
    assert 20 < out.snr < 30
    # 2 mm pixels are coarse; nothing else is wrong with it.
    assert [w for w in out.warnings if "coarse" not in w] == []


def test_a_susceptibility_map_is_never_bias_corrected():
    volume, inside = susceptibility()
    out = prepare(volume, "qsm")
    np.testing.assert_array_equal(out.image.data, volume.data)
    np.testing.assert_array_equal(out.brain_mask, inside)
    assert 25 < out.snr < 40


def test_the_sidecar_unit_is_used():
    volume, _ = susceptibility()
    out = prepare(_moved(volume, 1000), "qsm", metadata={"Units": "ppb"})
    np.testing.assert_allclose(out.image.data, volume.data, atol=1e-5)
    assert not any("ppb" in w for w in out.warnings)


def test_the_users_mask_is_taken_as_it_is_with_its_holes_filled():
    volume, inside = head()
    given = inside.copy()
    given[40:44, 50:54, 40:44] = False
    np.testing.assert_array_equal(prepare(volume, "gre", brain_mask=given).brain_mask, inside)


def test_a_mask_that_does_not_fit_is_refused():
    volume, inside = head(stripped=True)
    with pytest.raises(InputError, match="grid"):
        prepare(volume, "gre", brain_mask=inside[:-1])
    with pytest.raises(InputError, match="empty"):
        prepare(volume, "gre", brain_mask=np.zeros_like(inside))


def test_a_few_negative_voxels_of_interpolation_are_cut_without_a_word():
    volume, _ = head(stripped=True)
    data = volume.data.copy()
    data[45:50, 50, 50] = -2
    out = prepare(Volume(data, volume.affine), "gre")
    assert out.image.data.min() >= 0
    assert not any("negative" in w for w in out.warnings)


def test_many_negative_voxels_are_said():
    volume, inside = head(noise=2.0)
    rng = np.random.default_rng(0)
    data = np.where(volume.data < 7, rng.normal(0, 2, volume.data.shape), volume.data).astype(np.float32)
    out = prepare(Volume(data, volume.affine), "gre", brain_mask=inside)
    assert any("negative" in w for w in out.warnings)
    assert out.image.data.min() >= 0


def test_a_background_stored_below_zero_is_moved_up():
    volume, inside = head(stripped=True)
    plain = prepare(volume, "swi")
    moved = prepare(_moved(volume, offset=-1024), "swi")
    np.testing.assert_array_equal(moved.brain_mask, inside)
    np.testing.assert_allclose(moved.image.data, plain.image.data, atol=0.5)
    assert any("moved to zero" in w for w in moved.warnings)


def test_a_phase_image_is_refused():
    rng = np.random.default_rng(0)
    phase = rng.uniform(-np.pi, np.pi, (40, 40, 20)).astype(np.float32)
    with pytest.raises(InputError, match="phase"):
        prepare(Volume(phase, np.eye(4)), "gre")


@pytest.mark.parametrize(
    ("shape", "zooms", "expected"),
    [
        ((192, 224, 26), (1.0, 1.0, 7.0), "7.0 mm are thick"),
        ((120, 140, 60), (1.5, 1.5, 3.0), "coarse"),
        ((192, 224, 10), (1.0, 1.0, 3.0), "only part"),
    ],
)
def test_geometry_that_limits_what_can_be_found(shape, zooms, expected):
    volume, inside = head(shape, zooms, stripped=True)
    out = prepare(volume, "swi", brain_mask=inside)
    assert any(expected in w for w in out.warnings)


def test_a_tiny_brain_and_a_noisy_image_are_said():
    volume, inside = head(noise=30.0)
    small = np.zeros_like(inside)
    small[40:56, 46:66, 40:56] = True
    out = prepare(volume, "gre", brain_mask=small)
    assert any("not plausible" in w for w in out.warnings)
    assert any("noisy" in w for w in out.warnings)


def test_noise_is_measured_in_the_finest_plane():
    rng = np.random.default_rng(0)
    data = (rng.standard_normal((60, 20, 60)) * 3).astype(np.float32)
    data += (np.arange(20) * 50)[None, :, None]
    volume = Volume(data, np.diag([1.0, 4.0, 1.0, 1.0]))
    assert math.isclose(noise_level(volume, np.ones(data.shape, bool)), 3, rel_tol=0.05)
    assert noise_level(volume, np.zeros(data.shape, bool)) == 0


def test_the_same_bytes_twice():
    volume, _ = head(stripped=True)
    first, second = prepare(volume, "swi"), prepare(volume, "swi")
    assert first.image.data.tobytes() == second.image.data.tobytes()
    assert first.snr == second.snr
