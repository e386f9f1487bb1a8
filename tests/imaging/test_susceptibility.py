"""QSM: units and sign are read off the brain; what is no susceptibility map is refused."""

import numpy as np
import pytest

from bids_cmb.errors import InputError
from bids_cmb.imaging.susceptibility import SIGN_MARGIN, TURN_OVER, conversion_to_ppm, converted, sign_score
from bids_cmb.types import Volume

from .phantoms import susceptibility


def read_susceptibility(volume, mask, metadata):
    """The map as `prepare` makes it, and the warnings."""
    conversion, warnings = conversion_to_ppm(volume, mask, metadata)
    return converted(volume, *conversion), warnings


def _scaled(volume, factor, offset=0.0):
    return Volume((volume.data * factor + offset).astype(np.float32), volume.affine)


def test_a_map_in_ppm_is_left_alone():
    volume, mask = susceptibility()
    out, warnings = read_susceptibility(volume, mask, {})
    np.testing.assert_array_equal(out.data, volume.data)
    assert warnings == ()
    assert read_susceptibility(volume, mask, {"Units": "ppm"})[1] == ()


@pytest.mark.parametrize(
    ("factor", "units", "warned"),
    [
        (1000, None, "ppb"),
        (1000, "ppb", ""),
        (1000, "ppm", "ppb"),
        (1, "ppb", "ppm"),
        (1, "Hz", "ppm"),
        (1, "n/a", ""),
        (1e-6, None, "absolute"),
        (1e-6, "1", ""),
    ],
)
def test_other_units_come_to_ppm(factor, units, warned):
    volume, mask = susceptibility()
    metadata = {} if units is None else {"Units": units}
    out, warnings = read_susceptibility(_scaled(volume, factor), mask, metadata)
    np.testing.assert_allclose(out.data, volume.data, atol=1e-5)
    assert bool(warnings) == bool(warned)
    assert warned in " ".join(warnings)


@pytest.mark.parametrize("field", [1.5, 3, 7])
def test_hertz_are_divided_by_the_frequency_of_the_field(field):
    volume, mask = susceptibility()
    stored = _scaled(volume, 42.577 * field)
    out, warnings = read_susceptibility(stored, mask, {"Units": "Hz", "MagneticFieldStrength": field})
    np.testing.assert_allclose(out.data, volume.data, atol=1e-4)
    assert f"{field:g} T" in warnings[0]
    # Without the field they are not taken for ppb, whose spread is near theirs at 7 T.
    out, warnings = read_susceptibility(stored, mask, {"Units": "Hz"})
    assert "approximate" in warnings[0]


def test_a_spread_too_wide_for_ppm_is_said():
    volume, mask = susceptibility()
    inner = volume.data[mask]
    wide = 0.2 / (1.4826 * np.median(np.abs(inner - np.median(inner))))
    assert any("check the unit" in w for w in read_susceptibility(_scaled(volume, wide), mask, {})[1])


def test_an_arbitrary_scale_is_brought_near_and_said():
    volume, mask = susceptibility()
    out, warnings = read_susceptibility(_scaled(volume, 12.0), mask, {"Units": "arbitrary"})
    assert "approximate" in warnings[0]
    assert 0.5 < out.data[mask].std() / volume.data[mask].std() < 2


@pytest.mark.parametrize("factor", [1, 1000])
def test_a_reversed_sign_is_turned_over(factor):
    volume, mask = susceptibility()
    out, warnings = read_susceptibility(_scaled(volume, -factor), mask, {})
    np.testing.assert_allclose(out.data, volume.data, atol=1e-5)
    assert any("sign" in w for w in warnings)


def test_a_sign_that_cannot_be_told_is_kept_and_said():
    volume, mask = susceptibility()
    noise = 0.03 * np.random.default_rng(2).standard_normal(volume.data.shape)
    out, warnings = read_susceptibility(Volume(noise.astype(np.float32), volume.affine), mask, {})
    assert any("could not be verified" in w for w in warnings)
    np.testing.assert_array_equal(out.data, noise.astype(np.float32))


def test_a_poor_map_is_not_turned_over_on_weak_evidence():
    volume, mask = susceptibility()
    noise = 0.06 * np.random.default_rng(2).standard_normal(volume.data.shape).astype(np.float32)
    noise[noise < -0.08] *= 1.2  # streaks and calcium: the lower tail is a little longer
    poor = Volume(noise, volume.affine)
    assert TURN_OVER < sign_score(poor, mask) < -SIGN_MARGIN
    out, warnings = read_susceptibility(poor, mask, {})
    np.testing.assert_array_equal(out.data, noise)
    assert any("could not be verified" in w for w in warnings)


def test_unsigned_storage_with_an_offset():
    volume, mask = susceptibility()
    stored = Volume(np.round(volume.data * 1000 + 2048).astype(np.float32), volume.affine)
    out, warnings = read_susceptibility(stored, mask, {})
    np.testing.assert_allclose(out.data, volume.data, atol=1e-3)
    assert any("2048" in w for w in warnings)


def test_negative_voxels_stay():
    volume, mask = susceptibility(masked=False)
    out, _ = read_susceptibility(volume, mask, {})
    assert (out.data < 0).sum() == (volume.data < 0).sum()
    assert (out.data[mask] < 0).mean() > 0.3


def test_a_magnitude_image_is_refused():
    volume, mask = susceptibility()
    magnitude = np.where(mask, 500 + 300 * volume.data, 0).astype(np.float32)
    with pytest.raises(InputError, match="susceptibility map"):
        read_susceptibility(Volume(magnitude, volume.affine), mask, {})


def test_a_label_map_is_refused():
    volume, mask = susceptibility()
    with pytest.raises(InputError, match="one value"):
        read_susceptibility(Volume(mask.astype(np.float32), volume.affine), mask, {})


@pytest.mark.shared_data
@pytest.mark.parametrize("factor", [1.0, -1000.0])
def test_a_real_map(shared_data, factor):
    from bids_cmb.imaging.volume import load_image

    volume = load_image(shared_data / "qsm_hemorrhage" / "msQSM.nii.gz").volume
    mask = volume.data != 0
    out, warnings = read_susceptibility(_scaled(volume, factor), mask, {})
    np.testing.assert_allclose(out.data, volume.data, atol=1e-6)
    assert len(warnings) == (0 if factor == 1 else 2)
