"""A head from a T1-weighted image: tissue by intensity, deep structures from the registered template."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.training.simulate.build_heads import cropped_head
from bids_cmb.training.simulate.heads import Head, LabelMap
from bids_cmb.training.simulate.t1w_brain import (
    FIRST_OUTER_LABEL,
    GAP_LABEL,
    labels_from_intensity,
    read_t1w,
    segment_t1w,
    template_brain,
    warp,
)
from bids_cmb.training.simulate.tissues import BRAIN, Tissue
from bids_cmb.types import Affine

#: Structures that a T1-weighted image shows too faintly to be told by intensity.
_FROM_TEMPLATE = (
    Tissue.THALAMUS,
    Tissue.CAUDATE,
    Tissue.PUTAMEN,
    Tissue.PALLIDUM,
    Tissue.HIPPOCAMPUS,
    Tissue.VENTRAL_DC,
    Tissue.BRAINSTEM,
    Tissue.CORPUS_CALLOSUM,
)
_HOSTS = {
    Tissue.RED_NUCLEUS: Tissue.VENTRAL_DC,
    Tissue.SUBSTANTIA_NIGRA: Tissue.VENTRAL_DC,
    Tissue.DENTATE: Tissue.CEREBELLUM_WHITE,
}
_CEREBELLUM = (Tissue.CEREBELLUM_CORTEX, Tissue.CEREBELLUM_WHITE)
#: Fluid within this of the template's ventricles is ventricle, mm.
_VENTRICLE_REACH = 5.0


def t1w_head(path: Path, template: Head, name: str) -> Head:
    """Make a head from a T1-weighted whole-head image.

    Parameters
    ----------
    path
        NIfTI file; skull on.
    template
        Head of the MNI template (`bids_cmb.training.simulate.build_heads.template_head`).
    name
        Of the new head, as the model card is to name it.

    Raises
    ------
    InputError
        If the deep structures cannot be placed in MNI space.
    """
    image = read_t1w(path)
    brain_image, brain_mask, affine = template_brain()
    mask, to_head = segment_t1w(image, brain_image, brain_mask)
    classes = labels_from_intensity(image, mask)
    structures = warp(
        _on_grid(template, brain_image.shape, affine), image.shape, to_head, interpolator="nearestNeighbor"
    ).astype(np.uint8)
    grid: Affine = np.eye(4)
    grid[:3, 3] = -np.argwhere(mask).mean(axis=0) + (0, -18, 8)
    return cropped_head(name, _tissues(classes, structures), grid)


def _on_grid(head: Head, shape: tuple[int, ...], affine: Affine) -> npt.NDArray[np.uint8]:
    """Brain tissues of the template's head on the template's own grid."""
    out = np.zeros(shape, np.uint8)
    start = np.round(head.affine[:3, 3] - affine[:3, 3]).astype(int)
    box = tuple(slice(max(0, s), s + n) for s, n in zip(start, head.labels.shape, strict=True))
    inner = tuple(slice(max(0, -s), max(0, -s) + w) for s, w in zip(start, (out[box]).shape, strict=True))
    out[box] = np.where(np.isin(head.labels, BRAIN), head.labels, 0)[inner]
    for nucleus, host in _HOSTS.items():  # they are drawn anew in each head
        out[out == nucleus] = host
    return out


def _tissues(classes: npt.NDArray[np.uint8], structures: npt.NDArray[np.uint8]) -> LabelMap:
    """Merge intensity classes (1-5 brain from fluid to white matter, 16 and up beyond it) with warped structures."""

    def distance(kinds: tuple[Tissue, ...]) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = ndimage.distance_transform_edt(~np.isin(structures, kinds))
        return found

    brain = (classes > 0) & (classes < FIRST_OUTER_LABEL)
    fluid = brain & (classes <= 2)
    white = brain & (
        (classes >= 5)
        | ((classes == 4) & np.isin(structures, (Tissue.WHITE_MATTER, Tissue.CEREBELLUM_WHITE)))
    )
    cerebellum = distance(_CEREBELLUM) < distance((Tissue.CORTEX, Tissue.WHITE_MATTER))
    out = np.zeros(classes.shape, np.uint8)
    out[brain] = Tissue.CORTEX
    out[white] = Tissue.WHITE_MATTER
    out[brain & cerebellum] = Tissue.CEREBELLUM_CORTEX
    out[white & cerebellum] = Tissue.CEREBELLUM_WHITE
    out[fluid] = Tissue.CSF
    out[fluid & (distance((Tissue.VENTRICLE,)) < _VENTRICLE_REACH)] = Tissue.VENTRICLE
    deep = np.isin(structures, _FROM_TEMPLATE) & brain & ~fluid
    out[deep] = structures[deep]
    # The head's rest, dark to bright: bone and air, muscle and skin, fat and marrow.
    out[np.isin(classes, (GAP_LABEL, FIRST_OUTER_LABEL))] = Tissue.BONE
    out[(classes > FIRST_OUTER_LABEL) & (classes <= FIRST_OUTER_LABEL + 4)] = Tissue.MUSCLE
    out[(classes > FIRST_OUTER_LABEL + 4) & (classes < GAP_LABEL)] = Tissue.FAT
    return out
