"""Heads from what others provide: the MNI template that ships with nilearn, and any whole-brain parcellation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.errors import InputError
from bids_cmb.training.annotations import read_label_image
from bids_cmb.training.simulate.heads import FREESURFER, GIF, Head, LabelMap, complete_head, relabel
from bids_cmb.training.simulate.tissues import Tissue
from bids_cmb.types import Affine

#: Tissue probability above which a template voxel is grey or white matter.
_TISSUE = 0.42
_FIXED = (
    Tissue.VENTRICLE,
    Tissue.THALAMUS,
    Tissue.CAUDATE,
    Tissue.PUTAMEN,
    Tissue.PALLIDUM,
    Tissue.HIPPOCAMPUS,
    Tissue.VENTRAL_DC,
    Tissue.BRAINSTEM,
    Tissue.CORPUS_CALLOSUM,
)


def template_head(aparc: npt.NDArray[np.integer], affine: Affine) -> Head:
    """Make the head of the MNI template: its tissue maps, and the deep structures of a parcellation on its grid.

    Parameters
    ----------
    aparc
        FreeSurfer aparc+aseg numbers on the grid of nilearn's 1 mm MNI152 template.
    affine
        Of that grid.
    """
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template, load_mni152_wm_template

    grey = load_mni152_gm_template(resolution=1).get_fdata()
    white = load_mni152_wm_template(resolution=1).get_fdata()
    brain = load_mni152_brain_mask(resolution=1).get_fdata() > 0
    if aparc.shape != grey.shape:
        raise InputError(
            f"The parcellation has the grid {aparc.shape}, the template {grey.shape}; warp it to the template first."
        )
    labels = relabel(aparc, FREESURFER, 1000)
    cerebellum = ndimage.distance_transform_edt(
        ~np.isin(labels, (Tissue.CEREBELLUM_CORTEX, Tissue.CEREBELLUM_WHITE))
    )
    cerebrum = ndimage.distance_transform_edt(~np.isin(labels, (Tissue.CORTEX, Tissue.WHITE_MATTER)))
    below = (cerebellum < 6) & (cerebellum < cerebrum)
    is_white = brain & (white >= grey) & (white > _TISSUE)
    is_grey = brain & (grey > white) & (grey > _TISSUE)
    out = np.where(brain, int(Tissue.CSF), 0).astype(np.uint8)
    out[is_grey] = Tissue.CORTEX
    out[is_white] = Tissue.WHITE_MATTER
    out[is_grey & below] = Tissue.CEREBELLUM_CORTEX
    out[is_white & below] = Tissue.CEREBELLUM_WHITE
    deep = np.isin(labels, _FIXED)
    out[deep] = labels[deep]
    out[brain & (out == Tissue.CSF) & ndimage.binary_dilation(labels == Tissue.VENTRICLE, iterations=2)] = (
        Tissue.VENTRICLE
    )
    return cropped_head("MNI152 2009a symmetric template", out, affine)


def parcellated_head(path: Path, scheme: str, name: str) -> Head:
    """Make a head from a parcellation file.

    Parameters
    ----------
    path
        NIfTI label map of a whole brain.
    scheme
        ``freesurfer`` or ``gif``.
    name
        Whose head it is.

    Raises
    ------
    InputError
        If the file cannot be read, or lacks the structures that place it in MNI space.
    """
    numbers, grid = read_label_image(path)
    table, cortex = (GIF, 96) if scheme == "gif" else (FREESURFER, 1000)
    return cropped_head(name, relabel(numbers, table, cortex), grid.affine)


def cropped_head(name: str, labels: LabelMap, affine: Affine) -> Head:
    """Complete a tissue map (`complete_head`) and cut away the air around it."""
    full, world_to_mni = complete_head(labels, affine)
    occupied = np.argwhere(full > 0)
    low, high = occupied.min(0), occupied.max(0) + 1
    shifted = affine.copy()
    shifted[:3, 3] = (affine @ [*low, 1.0])[:3]
    return Head(name, full[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], shifted, world_to_mni)
