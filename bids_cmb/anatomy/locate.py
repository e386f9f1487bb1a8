"""Where things are in one scan: MARS regions and zones of mimics on the image's own grid."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.anatomy.registration import register
from bids_cmb.anatomy.structures import ZONES
from bids_cmb.types import Affine, Anatomy, BoolArray, Contrast, FloatArray, LabelArray, Volume

#: Below this overlap of the brain with the template's, regions may be wrong.
LEAST_OVERLAP = 0.85
#: Depth of the rim of the brain mask that counts as its edge, mm: cortical veins reach deeper on QSM.
EDGE_MM: dict[Contrast, float] = {"gre": 2.0, "swi": 2.0, "qsm": 3.0}


@lru_cache(maxsize=2)
def _atlas(name: str) -> tuple[npt.NDArray[np.uint8], Affine]:
    import nibabel as nib

    with as_file(files("bids_cmb") / "data" / f"mni_{name}.nii.gz") as path:
        image: Any = nib.load(path)
        return np.asarray(image.dataobj), np.asarray(image.affine, np.float64)


@lru_cache(maxsize=1)
def _everywhere() -> tuple[npt.NDArray[np.uint8], Affine]:
    """The MARS atlas, every voxel beyond the brain carrying the nearest region."""
    labels, affine = _atlas("mars")
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    return labels[tuple(nearest)], affine


def locate(image: Volume, brain_mask: BoolArray, contrast: Contrast, *, t1w: Volume | None = None) -> Anatomy:  # noqa: ARG001
    """Register a scan to MNI space and bring regions and zones onto its grid.

    Parameters
    ----------
    image
        Prepared image.
    brain_mask
        Bool, same shape.
    contrast
        Decides how deep the edge zone is.
    t1w
        The session's T1w image. It is not used yet: the scan itself is registered.

    Returns
    -------
    Anatomy
        Every brain voxel has a region; a poor registration carries a warning.
    """
    found = register(image, brain_mask, deformable=False)
    warnings = []
    overlap = found.quality.get("overlap", 1.0)
    if overlap < LEAST_OVERLAP:
        warnings.append(
            f"The registration to MNI space is poor (overlap {overlap:.2f}): regions may be wrong; look at the page."
        )
    if any(sign < 0 for sign in found.flip):
        warnings.append(
            "The header's axes seem to be reversed (front-back or up-down): check the orientation of this file."
        )
    voxels = np.argwhere(brain_mask)
    to_mni = found.world_to_mni @ image.affine
    mni = (voxels.astype(np.float64) @ to_mni[:3, :3].T + to_mni[:3, 3]).astype(np.float32)
    labels, affine = _everywhere()
    mars: LabelArray = np.zeros(brain_mask.shape, np.int32)
    mars[tuple(voxels.T)] = labels[_nearest(mni, affine, labels.shape)]
    zones = _zones(voxels, mni, brain_mask.shape)
    zones["edge"] = _edge(image, brain_mask, EDGE_MM[contrast])
    return Anatomy(mars, found.world_to_mni, zones, found.quality, tuple(warnings))


def _nearest(mni: FloatArray, affine: Affine, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.intp], ...]:
    """Indices of the atlas voxels nearest to MNI points (N, 3), clipped to the atlas."""
    inverse = np.linalg.inv(affine)
    index = np.rint(mni @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.intp)
    return tuple(np.clip(index[:, k], 0, shape[k] - 1) for k in range(3))


def _zones(voxels: npt.NDArray[np.intp], mni: FloatArray, shape: tuple[int, ...]) -> dict[str, FloatArray]:
    maps, affine = _atlas("zones")
    where = _nearest(mni, affine, maps.shape[:3])
    zones = {}
    for number, name in enumerate(ZONES):
        zone = np.zeros(shape, np.float32)
        zone[tuple(voxels.T)] = maps[..., number][where] / np.float32(255)
        zones[name] = zone
    return zones


def _edge(image: Volume, brain_mask: BoolArray, depth_mm: float) -> FloatArray:
    """1 at the border of the brain mask, falling to 0 at a depth; the ends of a slab are no border."""
    x, y, z = image.zooms
    padded = np.pad(brain_mask, ((1, 1), (1, 1), (0, 0)))
    depth = ndimage.distance_transform_edt(padded, sampling=(x, y, 1e3 * z))[1:-1, 1:-1]
    edge: FloatArray = np.where(brain_mask, np.clip(1.0 - (depth - min(x, y)) / depth_mm, 0, 1), 0).astype(
        np.float32
    )
    return edge
