"""A tiny annotated BIDS dataset: made-up balls, the lesions as masks, label maps or points."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from .tiny import tiny_scan

Kind = Literal["mask", "dseg", "points", "none"]
_DESCRIPTION = {"Name": "made up", "BIDSVersion": "1.11.1"}


def make_tiny_dataset(root: Path, kinds: Mapping[str, Kind], *, bleeds: int = 3) -> tuple[Path, Path]:
    """Write one GRE scan per subject with a brain mask, and its annotation of some kind; (images, annotations)."""
    images, marks = root / "raw", root / "raters"
    for folder in (images, marks):
        folder.mkdir(parents=True)
        (folder / "dataset_description.json").write_text(json.dumps(_DESCRIPTION), encoding="utf-8")
    for number, (label, kind) in enumerate(kinds.items()):
        scan = tiny_scan(number, bleeds)
        stem = f"sub-{label}"
        here, there = images / stem / "anat", marks / stem / "anat"
        here.mkdir(parents=True)
        there.mkdir(parents=True)
        # Stored back to front: what is read must not depend on the order of the file's voxels.
        turn = np.diag([1.0, -1.0, 1.0, 1.0])
        turn[1, 3] = scan.image.shape[1] - 1
        affine = scan.affine @ turn

        def save(array: np.ndarray, path: Path, affine: np.ndarray = affine) -> None:
            nib.save(nib.Nifti1Image(array[:, ::-1], affine), path)

        save(scan.image.astype(np.int16), here / f"{stem}_T2starw.nii.gz")
        (here / f"{stem}_T2starw.json").write_text('{"MagneticFieldStrength": 3}', encoding="utf-8")
        if kind == "mask":
            save((scan.lesion_labels > 0).astype(np.uint8), there / f"{stem}_label-CMB_mask.nii.gz")
        elif kind == "dseg":
            save(scan.lesion_labels, there / f"{stem}_space-T2starw_seg-CMB_dseg.nii.gz")
        elif kind == "points":
            rows = ["\t".join(f"{v:.3f}" for v in (*x.position, x.diameter)) for x in scan.lesions]
            text = "\n".join(["x\ty\tz\tdiameter", *rows]) + "\n"
            (there / f"{stem}_desc-rater1_microbleeds.tsv").write_text(text, encoding="utf-8")
    return images, marks
