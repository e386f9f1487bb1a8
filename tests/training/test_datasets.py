"""Annotated BIDS datasets: masks, label maps and points say the same."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_cmb.errors import InputError, UsageError
from bids_cmb.evaluation.cases import Grid
from bids_cmb.training.annotations import find_annotation, parse_filter, read_references
from bids_cmb.training.datasets import annotated_scans, load_annotated, to_training_scan

from .tiny import tiny_scan
from .tiny_dataset import make_tiny_dataset


def test_every_kind_of_annotation_gives_the_same_lesions(tmp_path: Path) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask", "2": "dseg", "3": "points"})
    items, notes = annotated_scans(images, marks)
    assert [item.scan.subject for item in items] == ["1", "2", "3"]
    assert notes == []
    for number, item in enumerate(items):
        truth = tiny_scan(number)
        ready, references, grid = load_annotated(item)
        assert ready.image.data.shape == grid.shape
        found = sorted(r.position for r in references)
        expected = sorted(x.position for x in truth.lesions)
        assert np.allclose(found, expected, atol=1.6)
        scan = to_training_scan(item)
        assert len(scan.lesions) == 3
        assert int(scan.segmentation.sum()) > 50
        # The heat map peaks where the image is dark: places did not get mirrored.
        at = tuple(np.round(scan.lesions).astype(int).T)
        assert (scan.channels[0].numpy()[at] > 0.3).all()


def test_a_mask_with_several_values_is_a_mask(tmp_path: Path) -> None:
    """As raters write definite and possible, or resampling leaves behind."""
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask"})
    (item,), _ = annotated_scans(images, marks)
    image = nib.load(item.annotation)
    graded = np.asarray(image.dataobj).copy()
    graded[: graded.shape[0] // 2] *= 2
    nib.Nifti1Image(graded, image.affine).to_filename(item.annotation)
    _, references, _ = load_annotated(item)
    expected = sorted(x.position for x in tiny_scan(0).lesions)
    assert np.allclose(sorted(r.position for r in references), expected, atol=1.6)


def test_a_label_map_of_classes_has_a_lesion_for_each_part(tmp_path: Path) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "dseg"})
    (item,), _ = annotated_scans(images, marks)
    image = nib.load(item.annotation)
    labels = np.asarray(image.dataobj)
    expected = sorted(x.position for x in tiny_scan(0).lesions)
    for classes in (
        np.where(labels == 3, 2, labels > 0),
        np.where(labels == 3, 7, -(labels > 0).astype(int)),
    ):
        nib.Nifti1Image(classes.astype(np.int16), image.affine).to_filename(item.annotation)
        _, references, _ = load_annotated(item)
        assert np.allclose(sorted(r.position for r in references), expected, atol=1.6)
    # Two pieces of one bleed that lie side by side are one.
    pieces = np.zeros_like(labels)
    pieces[20, 20, 10] = pieces[22, 20, 10] = 1
    pieces[35, 20, 10] = 2
    nib.Nifti1Image(pieces.astype(np.int16), image.affine).to_filename(item.annotation)
    assert len(load_annotated(item)[1]) == 2


def test_a_scan_without_annotation_is_left_out_and_an_empty_one_is_bleed_free(tmp_path: Path) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask", "2": "none"}, bleeds=0)
    items, notes = annotated_scans(images, marks)
    assert len(items) == 1
    assert "1 of 2 scans have no annotation" in notes[0]
    assert load_annotated(items[0])[1] == ()


def test_two_raters_need_a_choice(tmp_path: Path) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "points"})
    one = marks / "sub-1" / "anat" / "sub-1_desc-rater1_microbleeds.tsv"
    (one.with_name("sub-1_desc-rater2_microbleeds.tsv")).write_text("x\ty\tz\n", encoding="utf-8")
    with pytest.raises(InputError, match="annotation-filter"):
        annotated_scans(images, marks)
    items, _ = annotated_scans(images, marks, wanted=parse_filter(["desc=rater2"]))
    assert items[0].annotation.name.startswith("sub-1_desc-rater2")
    with pytest.raises(UsageError, match="ENTITY=VALUE"):
        parse_filter(["rater1"])


def test_other_masks_are_no_annotations(tmp_path: Path) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask"})
    folder = marks / "sub-1" / "anat"
    (folder / "sub-1_label-CMB_mask.nii.gz").rename(folder / "sub-1_label-WMH_mask.nii.gz")
    for name in ("sub-1_desc-brain_mask.nii.gz", "sub-1_space-MNI152_label-CMB_mask.nii.gz"):
        (folder / name).write_bytes((folder / "sub-1_label-WMH_mask.nii.gz").read_bytes())
    (folder / "sub-1_other.tsv").write_text("volume\n3\n", encoding="utf-8")
    with pytest.raises(UsageError, match="has an annotation"):
        annotated_scans(images, marks)


def test_the_annotation_of_another_image_of_the_session_is_not_taken(tmp_path: Path) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "dseg"})
    scan = annotated_scans(images, marks)[0][0].scan
    folder = marks / "sub-1" / "anat"
    (folder / "sub-1_space-T2starw_seg-CMB_dseg.nii.gz").rename(
        folder / "sub-1_space-Chimap_seg-CMB_dseg.nii.gz"
    )
    assert find_annotation(scan, marks, {}) is None


def test_a_mask_on_a_finer_grid_keeps_every_lesion(tmp_path: Path) -> None:
    # A lesion of one fine voxel falls between the coarse ones, and is still a place.
    fine = np.zeros((40, 40, 40), np.uint8)
    fine[8:14, 8:14, 8:14] = 1
    fine[31, 31, 31] = 1
    nib.save(nib.Nifti1Image(fine, np.diag([0.5, 0.5, 0.5, 1.0])), tmp_path / "m.nii.gz")
    references = read_references(tmp_path / "m.nii.gz", Grid((5, 5, 5), np.diag([4.0, 4.0, 4.0, 1.0])))
    assert sorted(r.voxels is None for r in references) == [False, True]
    assert references[-1].position == pytest.approx((15.5, 15.5, 15.5))


def test_a_broken_table_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    path.write_text("x\ty\tz\n1\t2\t3\n1\t?\t3\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 3"):
        read_references(path, Grid((5, 5, 5), np.eye(4)))


def test_invisible_points_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    path.write_text("x\ty\tz\tvisible\n1\t2\t3\t0\n4\t5\t6\t1\n", encoding="utf-8")
    assert [r.visible for r in read_references(path, Grid((9, 9, 9), np.eye(4)))] == [False, True]
