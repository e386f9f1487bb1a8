from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import AFFINE, head_image

from bids_cmb.bids.entities import join_name, parse_name
from bids_cmb.bids.tables import CANDIDATE_COLUMNS, LESION_COLUMNS, read_table

Make = Callable[..., Path]
Run = Callable[..., int]
MAPS = (
    "desc-brain_mask",
    "label-CMB_probseg",
    "label-CMB_mask",
    "seg-CMB_dseg",
    "seg-candidates_dseg",
    "seg-MARS_dseg",
)


def test_names_keep_the_order_of_entities() -> None:
    entities, suffix, extension = parse_name("sub-1_acq-a_echo-2_chunk-3_T2starw.nii.gz") or ((), "", "")
    name = join_name((*entities, ("space", suffix), ("label", "CMB")), "mask", extension)
    assert name == "sub-1_acq-a_echo-2_space-T2starw_chunk-3_label-CMB_mask.nii.gz"


@pytest.mark.parametrize(
    "name", ["T2starw.nii", "sub_T2starw.nii", "sub-1_sub-2_T2starw.nii", "sub-1_T1-w.nii", "x"]
)
def test_other_names_are_no_bids_names(name: str) -> None:
    parsed = parse_name(name)
    assert parsed is None or parsed[0] == ()


def _images() -> dict[str, Any]:
    flipped = head_image(affine=AFFINE @ np.diag([-1, 1, 1, 1]))
    oblique = head_image(
        affine=np.array([[0, 0.3, 1.9, 3], [-0.9, 0.1, 0.1, 2], [0.1, 0.9, -0.5, 1], [0, 0, 0, 1.0]])
    )
    qform_only = head_image()
    qform_only.header["sform_code"] = 0
    one_volume = head_image((32, 32, 16, 1))
    second = nib.Nifti2Image(np.asanyarray(head_image().dataobj), AFFINE / 3 + np.diag([0, 0, 0, 2 / 3]))
    big_endian = nib.Nifti1Image(
        np.asanyarray(head_image().dataobj), AFFINE, nib.Nifti1Header(endianness=">")
    )
    return {
        "plain": head_image(),
        "flipped": flipped,
        "oblique": oblique,
        "qform only": qform_only,
        "one volume in 4-D": one_volume,
        "NIfTI-2": second,
        "big-endian": big_endian,
        "float": head_image(dtype="float32"),
    }


@pytest.mark.parametrize("kind", list(_images()))
def test_maps_lie_bit_by_bit_on_the_grid_of_the_image(kind: str, tmp_path: Path, run_here: Run) -> None:
    image = _images()[kind]
    source = tmp_path / "raw/sub-1/anat/sub-1_T2starw.nii.gz"
    source.parent.mkdir(parents=True)
    nib.save(image, source)
    assert run_here(tmp_path / "raw", tmp_path / "out") == 0
    stored = nib.load(source)
    for name in MAPS:
        made = nib.load(tmp_path / f"out/sub-1/anat/sub-1_space-T2starw_{name}.nii.gz")
        assert made.shape == stored.shape
        assert np.array_equal(made.affine, stored.affine)
        for field in ("sform_code", "qform_code", "pixdim", "quatern_b", "qoffset_x", "xyzt_units"):
            assert np.array_equal(made.header[field], stored.header[field]), field
    mask = nib.load(tmp_path / "out/sub-1/anat/sub-1_space-T2starw_label-CMB_mask.nii.gz")
    assert mask.get_data_dtype() == np.uint8
    spots = np.squeeze(np.asanyarray(stored.dataobj)) == 20
    found = np.squeeze(np.asanyarray(mask.dataobj)).astype(bool)
    assert found.any()
    assert not (found & ~spots).any(), "microbleeds lie on the dark spots of the file, not mirrored"


def test_maps_and_tables_agree(dataset: Make, run_here: Run, tmp_path: Path) -> None:
    root = dataset({"sub-1/anat/sub-1_T2starw.nii.gz": {"EchoTime": 0.02}})
    assert run_here(root, tmp_path / "out") == 0
    folder = tmp_path / "out/sub-1/anat"

    def load(name: str) -> np.ndarray:
        return np.asanyarray(nib.load(folder / f"sub-1_space-T2starw_{name}.nii.gz").dataobj)

    lesions = read_table(folder / "sub-1_space-T2starw_seg-CMB_dseg.tsv")
    candidates = read_table(folder / "sub-1_space-T2starw_seg-candidates_dseg.tsv")
    assert list(lesions[0]) == LESION_COLUMNS
    assert list(candidates[0]) == CANDIDATE_COLUMNS
    assert [row["index"] for row in lesions] == ["1", "2"]
    assert [row["fate"] for row in candidates] == ["accepted", "accepted", "stage2"]
    assert set(np.unique(load("seg-CMB_dseg"))) == {0, 1, 2}
    assert set(np.unique(load("seg-candidates_dseg"))) == {0, 1, 2, 3}
    assert np.array_equal(load("label-CMB_mask"), load("seg-CMB_dseg") > 0)
    probability = load("label-CMB_probseg")
    assert probability.dtype == np.float32
    for row in lesions:
        own = probability[load("seg-CMB_dseg") == int(row["index"])]
        assert np.allclose(own, float(row["probability"]))
    image = nib.load(root / "sub-1/anat/sub-1_T2starw.nii.gz")
    world = np.array([float(lesions[0][axis]) for axis in "xyz"] + [1.0])
    voxel = tuple(np.round(np.linalg.inv(image.affine) @ world)[:3].astype(int))
    assert load("seg-CMB_dseg")[voxel] == 1


def test_no_microbleeds_is_an_empty_table_and_an_empty_mask(
    dataset: Make, run_here: Run, tmp_path: Path
) -> None:
    root = dataset({"sub-1/anat/sub-1_T2starw.nii.gz": head_image(spots=())})
    assert run_here(root, tmp_path / "out") == 0
    folder = tmp_path / "out/sub-1/anat"
    assert (folder / "sub-1_space-T2starw_seg-CMB_dseg.tsv").read_text() == "\t".join(LESION_COLUMNS) + "\n"
    assert not np.asanyarray(nib.load(folder / "sub-1_space-T2starw_label-CMB_mask.nii.gz").dataobj).any()


def test_sidecars_say_where_results_come_from(dataset: Make, run_here: Run, tmp_path: Path) -> None:
    root = dataset(
        {
            "sub-1/ses-a/anat/sub-1_ses-a_T2starw.nii.gz": {"EchoTime": 0.02, "MagneticFieldStrength": 3},
            "sub-1/ses-a/anat/sub-1_ses-a_T1w.nii.gz": None,
        }
    )
    masks = dataset(
        {"sub-1/ses-a/anat/sub-1_ses-a_desc-brain_mask.nii.gz": head_image(spots=())}, name="masks"
    )
    assert run_here(root, tmp_path / "out", "-d", f"own={masks}", "--save-preproc") == 0
    folder = tmp_path / "out/sub-1/ses-a/anat"
    sidecar = json.loads((folder / "sub-1_ses-a_space-T2starw_seg-CMB_dseg.json").read_text())
    image = "bids:raw:sub-1/ses-a/anat/sub-1_ses-a_T2starw.nii.gz"
    assert sidecar["Sources"] == [
        image,
        "bids:own:sub-1/ses-a/anat/sub-1_ses-a_desc-brain_mask.nii.gz",
        "bids:raw:sub-1/ses-a/anat/sub-1_ses-a_T1w.nii.gz",
    ]
    assert sidecar["SpatialReference"] == image
    assert sidecar["Model"] == {"Name": "fake", "Version": "1", "SHA256": "0" * 64}
    assert sidecar["Thresholds"]["operating_point"] == 0.5
    assert (sidecar["EchoTime"], sidecar["MagneticFieldStrength"]) == (0.02, 3.0)
    assert sidecar["volume"]["Units"] == "mm^3"
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        assert content["Description"]
        assert content["Sources"][0] == image
    preproc = json.loads((folder / "sub-1_ses-a_space-T2starw_desc-preproc_T2starw.json").read_text())
    assert preproc["SkullStripped"] is False
    assert (folder / "sub-1_ses-a_from-T2starw_to-MNI152NLin2009aSym_mode-image_xfm.nii.gz").is_file()


def test_an_image_that_came_masked_is_said_to_be_stripped(
    dataset: Make, run_here: Run, tmp_path: Path
) -> None:
    names = ("T2starw", "Chimap")
    root = dataset({f"sub-1/anat/sub-1_{name}.nii.gz": None for name in names})
    assert run_here(root, tmp_path / "out", "--save-preproc") == 0
    sidecars = [
        json.loads((tmp_path / f"out/sub-1/anat/sub-1_space-{name}_desc-preproc_{name}.json").read_text())
        for name in names
    ]
    assert [sidecar["SkullStripped"] for sidecar in sidecars] == [False, True]


def test_compressed_files_carry_neither_name_nor_time(dataset: Make, run_here: Run, tmp_path: Path) -> None:
    assert run_here(dataset({"sub-1/anat/sub-1_swi.nii.gz": None}), tmp_path / "out") == 0
    for path in (tmp_path / "out").rglob("*.nii.gz"):
        head = path.read_bytes()[:10]
        assert head[3] == 0
        assert head[4:8] == b"\0\0\0\0"
        gzip.decompress(path.read_bytes())
