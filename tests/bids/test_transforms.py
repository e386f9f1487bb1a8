"""The written transform: other tools bring the scan to MNI space with it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from bids_cmb.anatomy.ants import load_ants
from bids_cmb.anatomy.deform import Deformation
from bids_cmb.anatomy.registration import Registration
from bids_cmb.bids.transforms import displacement_field
from bids_cmb.types import Anatomy


def test_ants_applies_the_transform(tmp_path: Path) -> None:
    c, s = np.cos(0.15), np.sin(0.15)
    affine = np.array([[c, -s, 0, 6.0], [s, c, 0, -4.0], [0, 0, 1.04, 3.0], [0, 0, 0, 1]])
    bent = np.zeros((20, 20, 20, 3), np.float32)
    bent[..., 1] = 3.0 * np.sin(np.linspace(0, 3, 20))[:, None, None]
    lattice = np.diag([10.0, 10.0, 10.0, 1.0])
    lattice[:3, 3] = -95.0
    registration = Registration(affine, Deformation(bent, lattice))
    place = np.array([[31.0, -22.0, 14.0]])
    scan_affine = np.diag([-1.5, 1.5, 2.0, 1.0])
    scan_affine[:3, 3] = (90.0, -110.0, -75.0)
    grid = np.moveaxis(np.indices((120, 140, 75)), 0, -1) @ scan_affine[:3, :3].T + scan_affine[:3, 3]
    blob = np.exp(-0.5 * np.sum((grid - registration.back(place)) ** 2, axis=-1) / 3.0**2)
    nib.Nifti1Image(blob.astype(np.float32), scan_affine).to_filename(tmp_path / "scan.nii.gz")  # type: ignore[no-untyped-call]
    mni_affine = np.diag([2.0, 2.0, 2.0, 1.0])
    mni_affine[:3, 3] = (-98.0, -134.0, -72.0)
    nib.Nifti1Image(np.zeros((99, 117, 95), np.float32), mni_affine).to_filename(tmp_path / "mni.nii.gz")  # type: ignore[no-untyped-call]
    (tmp_path / "xfm.nii").write_bytes(
        displacement_field(Anatomy(np.zeros((1, 1, 1), np.int32), affine, registration=registration))
    )
    ants = load_ants()
    fixed, moving = (ants.image_read(str(tmp_path / f"{name}.nii.gz")) for name in ("mni", "scan"))
    out = ants.apply_transforms(fixed, moving, [str(tmp_path / "xfm.nii")]).numpy()
    where = np.argwhere(out > 0.3)
    found = np.average(where, axis=0, weights=out[tuple(where.T)]) * 2.0 + mni_affine[:3, 3]
    assert np.linalg.norm(found - place) < 1.0
    assert out.max() > 0.8  # what sampling leaves of it


def test_without_a_registration_nothing_moves() -> None:
    anatomy = Anatomy(np.zeros((1, 1, 1), np.int32), np.full((4, 4), np.nan))
    image = nib.Nifti1Image.from_bytes(displacement_field(anatomy))  # type: ignore[no-untyped-call]
    assert not np.asarray(image.dataobj).any()
