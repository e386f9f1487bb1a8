"""Heads: what a parcellation leaves behind in small islands is no anatomy."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_cmb.errors import InputError
from bids_cmb.training.cli import main
from bids_cmb.training.simulate.heads import Head, load_head, save_head, shipped_head, without_specks
from bids_cmb.training.simulate.lesions import Maps
from bids_cmb.training.simulate.mimics import draw_mimics
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.subject import make_subject
from bids_cmb.training.simulate.tissues import Tissue


def block() -> np.ndarray:
    labels = np.full((30, 30, 30), Tissue.WHITE_MATTER, np.uint8)
    labels[:4] = Tissue.BONE
    labels[4:7] = Tissue.CSF
    return labels


def test_small_islands_take_the_label_beside_them() -> None:
    clean = block()
    speckled = clean.copy()
    speckled[15, 15, 15] = Tissue.CSF
    speckled[20:22, 20:22, 20] = Tissue.BONE
    speckled[5, 10, 10] = Tissue.CORTEX
    np.testing.assert_array_equal(without_specks(speckled, (1.0, 1.0, 1.0)), clean)


def test_large_islands_and_borders_between_tissues_stay() -> None:
    labels = block()
    labels[14:20, 14:20, 14:20] = Tissue.VENTRICLE
    labels[24:26, 24:26, 24:26] = Tissue.CAUDATE  # small, but tissue in tissue: a nucleus
    np.testing.assert_array_equal(without_specks(labels, (1.0, 1.0, 1.0)), labels)


def test_islands_are_measured_in_millimetres() -> None:
    labels = block()
    labels[14:20, 14:20, 14:20] = Tissue.VENTRICLE
    assert (without_specks(labels, (0.5, 0.5, 0.4)) == Tissue.VENTRICLE).sum() == 0


def test_a_head_is_read_without_specks(tmp_path) -> None:  # type: ignore[no-untyped-def]
    head = shipped_head()
    speckled = head.labels.copy()
    white = np.argwhere(speckled == Tissue.WHITE_MATTER)
    inside = white[len(white) // 2]
    speckled[tuple(inside)] = Tissue.AIR
    save_head(Head("x", speckled, head.affine, head.world_to_mni), tmp_path / "x.npz")
    assert load_head(tmp_path / "x.npz").labels[tuple(inside)] != Tissue.AIR


def test_calcified_choroid_plexus_lies_in_the_ventricle() -> None:
    rng = RandomSource(1)
    subject = make_subject(shipped_head(), rng, spacing=2.5, tilt=(0.0, 0.0, 0.0))
    maps = Maps(subject.chi, subject.r2star, subject.signal, subject.spacing)
    plexus = [m for m in draw_mimics(subject, maps, rng) if m.name == "choroid plexus"]
    for mimic in plexus:
        x, y, z = (round(c) for c in mimic.centre)
        assert subject.tissue[x, y, z] == int(Tissue.VENTRICLE)
    assert plexus


def test_an_image_that_is_no_label_map_makes_no_head(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "sub-1_T1w.nii.gz"
    nib.Nifti1Image(rng.integers(0, 255, (60, 70, 60)).astype(np.int16), np.eye(4)).to_filename(path)  # type: ignore[no-untyped-call]
    assert main(["heads", str(path), "--out", str(tmp_path / "head.npz")]) == 1
    assert "check --scheme" in capsys.readouterr().err
    nib.Nifti1Image(np.zeros((9, 9, 9, 2), np.int16), np.eye(4)).to_filename(path)  # type: ignore[no-untyped-call]
    assert main(["heads", str(path), "--out", str(tmp_path / "head.npz")]) == 1
    assert "is not three-dimensional" in capsys.readouterr().err
    path.write_bytes(b"no image")
    assert main(["heads", str(path), "--out", str(tmp_path / "head.npz")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert main(["heads", str(path), "--out", str(tmp_path / "nowhere" / "head.npz")]) == 2
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match="is not a simulator head"):
        load_head(tmp_path / "broken.npz")
