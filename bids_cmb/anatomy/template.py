"""The atlases that the package carries, read once and kept.

Maps lie in MNI152 2009a symmetric space. ``docs/mars_atlas.md`` says how they were made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.anatomy.structures import TISSUE_CLASSES, ZONES
from bids_cmb.types import Affine, FloatArray

DATA_DIR = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Template:
    """What the registration fits to a scan.

    Attributes
    ----------
    classes
        float32 (x, y, z, k): share of each tissue class, in the order of `TISSUE_CLASSES`.
    depth
        float32 (x, y, z): depth inside the brain, mm; negative outside.
    affine
        Voxel to MNI, mm.
    """

    classes: FloatArray
    depth: FloatArray
    affine: Affine

    @property
    def spacing(self) -> float:
        """Edge of a voxel, mm."""
        return float(self.affine[0, 0])

    @cached_property
    def stack(self) -> FloatArray:
        """The classes and, last, the depth as float32 (k + 1, voxels): what the fits look up."""
        both = np.concatenate([self.classes, self.depth[..., None]], axis=-1)
        return np.ascontiguousarray(np.moveaxis(both, -1, 0).reshape(both.shape[-1], -1), np.float32)


@dataclass(frozen=True)
class LabelAtlas:
    """A label map in MNI space."""

    labels: npt.NDArray[np.uint8]
    affine: Affine


@dataclass(frozen=True)
class ZoneAtlas:
    """Soft zones in MNI space: float32 (x, y, z, zone) in 0..1, in the order of `ZONES`."""

    zones: FloatArray
    affine: Affine


def _read(name: str) -> tuple[npt.NDArray[np.uint8], Affine]:
    """Read one atlas file of the package."""
    import nibabel as nib

    image = nib.loadsave.load(DATA_DIR / name)
    assert isinstance(image, nib.nifti1.Nifti1Image)  # noqa: S101 - our own file
    return np.asarray(image.dataobj, np.uint8), np.asarray(image.affine, np.float64)


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Tissue classes and depth map of the MNI brain on a 3 mm grid."""
    data, affine = _read("mni_classes.nii.gz")
    classes = data.astype(np.float32) / np.float32(255)
    if classes.shape[-1] != len(TISSUE_CLASSES):
        raise RuntimeError("mni_classes.nii.gz does not belong to this version of the package")
    share = classes.sum(axis=-1)
    inside = share > 0.5
    spacing = float(affine[0, 0])
    depth = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    # Half a voxel: the surface lies between the last voxel inside and the first outside.
    depth = (depth - 0.5 * np.sign(depth)) * spacing
    return Template(classes, ndimage.gaussian_filter(depth, 0.7).astype(np.float32), affine)


@lru_cache(maxsize=1)
def load_mars() -> LabelAtlas:
    """The MARS regions on the 1 mm grid."""
    return LabelAtlas(*_read("mni_mars.nii.gz"))


@lru_cache(maxsize=1)
def load_endless_mars() -> LabelAtlas:
    """The MARS regions with every voxel off the brain given to the nearest region (found on every second voxel)."""
    atlas = load_mars()
    thin = atlas.labels[::2, ::2, ::2]
    nearest = ndimage.distance_transform_edt(thin == 0, return_distances=False, return_indices=True)
    around = thin[tuple(nearest)]
    for axis in range(3):
        around = np.repeat(around, 2, axis=axis)
    x, y, z = atlas.labels.shape
    return LabelAtlas(np.where(atlas.labels > 0, atlas.labels, around[:x, :y, :z]), atlas.affine)


@lru_cache(maxsize=1)
def load_structures() -> LabelAtlas:
    """The structures of `bids_cmb.anatomy.structures.STRUCTURES` on the 1 mm grid."""
    return LabelAtlas(*_read("mni_structures.nii.gz"))


@lru_cache(maxsize=1)
def load_zones() -> ZoneAtlas:
    """Soft zones of mimics on a 2 mm grid."""
    data, affine = _read("mni_zones.nii.gz")
    if data.shape[-1] != len(ZONES):
        raise RuntimeError("mni_zones.nii.gz does not belong to this version of the package")
    return ZoneAtlas(data.astype(np.float32) / np.float32(255), affine)
