"""Loading: orientation there and back, units, odd values, and one sentence for each thing that is wrong."""

import gzip
import itertools
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import inv_ornt_aff

from bids_cmb.errors import InputError
from bids_cmb.imaging.volume import load_image

SHAPE = (20, 18, 6)
ORIENTATIONS = [
    np.array(list(zip(axes, flips, strict=True)), dtype=float)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def _values(shape=SHAPE, dtype=np.float32):
    return (np.random.default_rng(3).random(shape) * 1000).astype(dtype)


def _save(path: Path, data, affine=None) -> Path:
    image = nib.Nifti1Image(data, np.diag([0.9, 0.8, 2.0, 1]) if affine is None else affine)
    nib.save(image, path)
    return path


def _patched(path: Path, offset: int, raw: bytes) -> Path:
    """Overwrite header bytes of an uncompressed file, as a broken converter would."""
    content = bytearray(path.read_bytes())
    content[offset : offset + len(raw)] = raw
    path.write_bytes(bytes(content))
    return path


def _refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_image(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


# --- orientation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
def test_all_48_orientations_come_to_ras_and_go_back(tmp_path, oblique):
    shape = (20, 18, 17)
    canonical = _values(shape)
    affine = np.diag([0.9, 0.8, 2.0, 1.0])
    if oblique:
        turn = np.deg2rad(17)
        rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = [-11.5, 7.25, 3.125]
    for orientation in ORIENTATIONS:
        turned = nib.orientations.apply_orientation(canonical, orientation)
        source_affine = affine @ inv_ornt_aff(orientation, shape)
        path = _save(tmp_path / "scan.nii", turned, source_affine)
        source = nib.load(path)
        loaded = load_image(path)
        np.testing.assert_array_equal(loaded.volume.data, canonical)
        np.testing.assert_allclose(loaded.volume.affine, affine, atol=1e-5)
        np.testing.assert_array_equal(loaded.affine, source.affine)
        assert nib.aff2axcodes(loaded.volume.affine) == ("R", "A", "S")
        np.testing.assert_array_equal(loaded.restore(loaded.volume.data), turned)
        assert loaded.restore(loaded.volume.data > 500).dtype == bool


def test_a_voxel_keeps_its_world_position(tmp_path):
    data = np.zeros(SHAPE, np.float32)
    data[3, 15, 4] = 1
    affine = np.array([[0, 0, -2.0, 30], [-0.9, 0, 0, 12], [0, 0.8, 0, -7], [0, 0, 0, 1]])
    loaded = load_image(_save(tmp_path / "scan.nii.gz", data, affine))
    (where,) = np.argwhere(loaded.volume.data)
    np.testing.assert_allclose(loaded.volume.affine @ [*where, 1], affine @ [3, 15, 4, 1], atol=1e-5)


def test_one_volume_in_four_dimensions_keeps_its_shape(tmp_path):
    data = _values((*SHAPE, 1))
    loaded = load_image(_save(tmp_path / "scan.nii.gz", data))
    assert loaded.volume.data.shape == SHAPE
    assert loaded.shape == (*SHAPE, 1)
    np.testing.assert_array_equal(loaded.restore(loaded.volume.data), data)


def test_restore_refuses_an_array_of_another_grid(tmp_path):
    loaded = load_image(_save(tmp_path / "scan.nii", _values()))
    with pytest.raises(ValueError, match="not on the grid"):
        loaded.restore(np.zeros((4, 4, 4)))


def test_disagreeing_forms_are_noted_and_sform_wins(tmp_path):
    image = nib.Nifti1Image(_values(), np.diag([0.9, 0.8, 2.0, 1]))
    image.set_sform(np.diag([0.9, 0.8, 2.0, 1]), 1)
    image.set_qform(np.diag([-0.9, 0.8, 2.0, 1]), 1)
    nib.save(image, tmp_path / "scan.nii")
    loaded = load_image(tmp_path / "scan.nii")
    assert any("disagree" in note for note in loaded.notes)
    np.testing.assert_allclose(loaded.affine, image.get_sform())


def test_agreeing_forms_give_no_note(tmp_path):
    image = nib.Nifti1Image(_values(), np.diag([0.9, 0.8, 2.0, 1]))
    image.set_qform(image.affine, 1)
    nib.save(image, tmp_path / "scan.nii")
    assert load_image(tmp_path / "scan.nii").notes == ()


def test_a_header_without_orientation_is_noted(tmp_path):
    path = _patched(_save(tmp_path / "scan.nii", _values()), 252, struct.pack("<2h", 0, 0))
    loaded = load_image(path)
    assert any("orientation" in note for note in loaded.notes)
    np.testing.assert_array_equal(loaded.affine, nib.load(path).affine)


# --- units -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "scale", "noted"),
    [("mm", 1, False), ("meter", 0.001, True), ("micron", 1000, True), ("unknown", 1, False)],
)
def test_units_become_millimetres(tmp_path, unit, scale, noted):
    affine = np.diag([0.9 * scale, 0.8 * scale, 2.0 * scale, 1])
    image = nib.Nifti1Image(_values(), affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "scan.nii")
    loaded = load_image(tmp_path / "scan.nii")
    np.testing.assert_allclose(loaded.volume.zooms, (0.9, 0.8, 2.0), rtol=1e-5)
    np.testing.assert_allclose(loaded.affine, affine, rtol=1e-6)
    assert bool(loaded.unit_note) == noted
    assert bool(loaded.notes) == noted


def test_a_wrong_unit_is_seen_by_the_voxel_size(tmp_path):
    image = nib.Nifti1Image(_values(), np.diag([0.9, 0.8, 2.0, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "scan.nii")
    loaded = load_image(tmp_path / "scan.nii")
    np.testing.assert_allclose(loaded.volume.zooms, (0.9, 0.8, 2.0), rtol=1e-5)
    assert "only make sense in millimetres" in loaded.unit_note


def test_voxels_of_no_plausible_size_are_refused(tmp_path):
    assert "in no unit" in _refused(_save(tmp_path / "scan.nii", _values(), np.diag([1e-9, 1, 500, 1])))


# --- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_stored_types_and_byte_orders(tmp_path, dtype, order):
    data = (np.random.default_rng(0).random(SHAPE) * 200).astype(np.dtype(dtype).newbyteorder(order))
    image = nib.Nifti1Image(data, np.eye(4), nib.Nifti1Header(endianness=order), dtype=data.dtype)
    nib.save(image, tmp_path / "scan.nii")
    loaded = load_image(tmp_path / "scan.nii")
    np.testing.assert_allclose(loaded.volume.data, data.astype(np.float32), rtol=1e-6)
    assert loaded.volume.data.dtype == np.float32
    assert loaded.volume.data.dtype.isnative


def test_slope_and_intercept_are_applied(tmp_path):
    stored = (_values() / 10).astype(np.int16)
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.25, -3)
    nib.save(image, tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(
        load_image(tmp_path / "scan.nii.gz").volume.data,
        nib.load(tmp_path / "scan.nii.gz").get_fdata(),
        rtol=1e-6,
    )


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_a_slope_of_zero_or_nan_means_unscaled(tmp_path, slope):
    stored = _values(dtype=np.int16)
    path = _patched(_save(tmp_path / "scan.nii", stored), 112, struct.pack("<ff", slope, 5.0))
    np.testing.assert_array_equal(load_image(path).volume.data, stored)


def test_large_integers_lose_nothing_that_matters(tmp_path):
    stored = (2**40 + np.arange(np.prod(SHAPE)).reshape(SHAPE) * 2**20).astype(np.int64)
    image = nib.Nifti1Image(stored, np.eye(4), dtype=np.int64)
    nib.save(image, tmp_path / "scan.nii")
    np.testing.assert_allclose(load_image(tmp_path / "scan.nii").volume.data, stored, rtol=1e-6)


def test_nan_in_tissue_is_filled_and_nan_around_becomes_background(tmp_path):
    data = np.full((24, 24, 12), 100, np.float32)
    data[:6] = np.nan
    data[15, 15, 6] = np.inf
    data[18:20, 15, 6] = np.nan
    data[16, 16, 8] = 101
    loaded = load_image(_save(tmp_path / "scan.nii.gz", data))
    assert np.isfinite(loaded.volume.data).all()
    assert loaded.volume.data[15, 15, 6] == 100
    assert loaded.volume.data[18, 15, 6] == 100
    assert (loaded.volume.data[:5] == 0).all()
    assert any("NaN" in note for note in loaded.notes)


@pytest.mark.parametrize("value", [0, 7, np.nan])
def test_an_empty_image_is_refused(tmp_path, value):
    message = _refused(_save(tmp_path / "scan.nii", np.full(SHAPE, value, np.float32)))
    assert "empty" in message or "no valid number" in message


def test_nifti2_is_read(tmp_path):
    nib.save(nib.Nifti2Image(_values(), np.eye(4)), tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(load_image(tmp_path / "scan.nii.gz").volume.data, _values())


# --- files that are not what they claim --------------------------------------------------------------------


def test_a_link_without_its_data_names_the_way_to_fetch_them(tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.symlink_to(tmp_path / ".git" / "annex" / "gone")
    assert "datalad get" in _refused(path)


def test_an_annex_pointer_names_the_way_to_fetch_it(tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.write_text("/annex/objects/MD5E-s123--abc.nii.gz\n")
    assert "datalad get" in _refused(path)


def test_missing_empty_and_misnamed_files(tmp_path):
    assert "no such file" in _refused(tmp_path / "scan.nii.gz")
    (tmp_path / "empty.nii.gz").touch()
    assert "empty" in _refused(tmp_path / "empty.nii.gz")
    (tmp_path / "folder.nii.gz").mkdir()
    assert "folder" in _refused(tmp_path / "folder.nii.gz")
    (tmp_path / "scan.mgz").write_bytes(b"x")
    assert "NIfTI" in _refused(tmp_path / "scan.mgz")


def test_text_named_nii_gz(tmp_path):
    (tmp_path / "scan.nii.gz").write_text("<html>404</html>")
    assert "text" in _refused(tmp_path / "scan.nii.gz")
    (tmp_path / "scan2.nii.gz").write_bytes(gzip.compress(b"just words, " * 100))
    assert "not a NIfTI" in _refused(tmp_path / "scan2.nii.gz")
    (tmp_path / "scan3.nii").write_text("no")
    assert "not a NIfTI" in _refused(tmp_path / "scan3.nii")


def test_compression_must_match_the_name(tmp_path):
    path = _save(tmp_path / "scan.nii", _values())
    (tmp_path / "plain.nii.gz").write_bytes(path.read_bytes())
    assert "not gzip" in _refused(tmp_path / "plain.nii.gz")
    (tmp_path / "packed.nii").write_bytes(gzip.compress(path.read_bytes()))
    assert "rename" in _refused(tmp_path / "packed.nii")


@pytest.mark.parametrize("keep", [100, 400, 2000, -1])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_truncated_files(tmp_path, name, keep):
    path = _save(tmp_path / name, _values())
    path.write_bytes(path.read_bytes()[:keep])
    message = _refused(path)
    assert "truncated" in message or "damaged" in message


def test_a_flipped_bit_in_compressed_data(tmp_path):
    path = _save(tmp_path / "scan.nii.gz", _values())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    assert "damaged" in _refused(path)


def test_a_header_that_declares_far_more_than_the_file_is_refused_at_once(tmp_path):
    path = _save(tmp_path / "scan.nii", _values())
    _patched(path, 40, struct.pack("<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1))
    assert "more than any brain scan" in _refused(path)
    _patched(path, 40, struct.pack("<8h", 3, 700, 700, 700, 1, 1, 1, 1))
    assert "can hold" in _refused(path)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert "can hold" in _refused(tmp_path / "bomb.nii.gz")


def test_wrong_magic_and_pairs(tmp_path):
    path = _patched(_save(tmp_path / "scan.nii", _values()), 344, b"ni1\x00")
    assert "two files" in _refused(path)
    assert "not a NIfTI" in _refused(_patched(path, 344, b"abcd"))


@pytest.mark.parametrize("offset", [np.nan, np.inf, -5.0, 1e12, 10.0])
def test_an_impossible_data_offset(tmp_path, offset):
    path = _patched(_save(tmp_path / "scan.nii", _values()), 108, struct.pack("<f", offset))
    assert "impossible position" in _refused(path)


def test_shapes_that_hold_no_volume(tmp_path):
    assert "2 volumes" in _refused(_save(tmp_path / "a.nii", _values((*SHAPE, 2))))
    assert "3 volumes" in _refused(_save(tmp_path / "b.nii", _values((*SHAPE, 1, 3))))
    assert "single slice" in _refused(_save(tmp_path / "c.nii", _values((20, 18, 1))))
    assert "single slice" in _refused(_save(tmp_path / "d.nii", _values((20, 18))))
    assert "too small" in _refused(_save(tmp_path / "e.nii", _values((3, 4, 5))))
    path = _patched(_save(tmp_path / "f.nii", _values()), 40, struct.pack("<8h", 3, 20, -18, 6, 1, 1, 1, 1))
    assert "dimensions" in _refused(path)
    assert "dimensions" in _refused(_patched(path, 40, struct.pack("<h", 99)))


def test_colours_and_complex_numbers(tmp_path):
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "colours" in _refused(_save(tmp_path / "rgb.nii", rgb))
    assert "magnitude" in _refused(_save(tmp_path / "complex.nii", _values().astype(np.complex64)))
    assert "data type" in _refused(
        _patched(_save(tmp_path / "odd.nii", _values()), 70, struct.pack("<h", 999))
    )


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.diag([1, 1, 0, 1]), np.full((4, 4), np.nan)])
def test_unusable_affines(tmp_path, affine):
    path = _save(tmp_path / "scan.nii", _values())
    rows = np.asarray(affine, dtype="<f4")[:3].tobytes()
    assert "affine" in _refused(_patched(path, 280, rows))


def test_sheared_to_a_plane(tmp_path):
    path = _save(tmp_path / "scan.nii", _values())
    rows = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], dtype="<f4").tobytes()
    assert "affine" in _refused(_patched(path, 280, rows))


@pytest.mark.parametrize("size", [0.0, -0.8, np.nan])
def test_odd_pixdim_with_a_sound_sform_does_no_harm(tmp_path, size):
    path = _patched(_save(tmp_path / "scan.nii", _values()), 80, struct.pack("<f", size))
    np.testing.assert_allclose(load_image(path).volume.zooms, (0.9, 0.8, 2.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("qform_code", "place", "value"), [(1, 76, 0.0), (1, 80, -0.9), (0, 76, 0.0), (0, 80, -0.9)]
)
def test_without_a_sform_the_place_is_that_of_every_reader(tmp_path, qform_code, place, value):
    sound = _patched(_save(tmp_path / "scan.nii", _values()), 252, struct.pack("<2h", qform_code, 0))
    path = _patched(sound, place, struct.pack("<f", value))
    np.testing.assert_allclose(load_image(path).affine, nib.load(path).affine, atol=1e-5)


def test_zero_pixdim_without_any_form_is_refused(tmp_path):
    path = _patched(_save(tmp_path / "scan.nii", _values()), 252, struct.pack("<2h", 0, 0))
    assert "affine" in _refused(_patched(path, 80, struct.pack("<f", 0.0)))


def test_any_damage_to_a_header_ends_in_an_image_or_in_a_sentence(tmp_path):
    path = _save(tmp_path / "scan.nii", _values())
    sound = path.read_bytes()
    rng = np.random.default_rng(11)
    outcomes = set()
    for _ in range(400):
        content = bytearray(sound)
        for position in rng.integers(0, 348, rng.integers(1, 6)):
            content[position] = rng.integers(256)
        path.write_bytes(bytes(content))
        try:
            loaded = load_image(path)
        except InputError:
            outcomes.add("refused")
        else:
            assert np.isfinite(loaded.volume.data).all()
            outcomes.add("read")
    assert outcomes == {"refused", "read"}
