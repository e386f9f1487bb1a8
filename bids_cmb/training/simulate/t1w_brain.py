"""The brain of a T1-weighted head: its mask, its tissue by intensity, and the way to the template.

The mask is parenchyma closed by `CLOSING_MM` and filled, so that sulci and ventricles belong to it and the wider
subarachnoid space and the sinuses do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.anatomy.ants import load_ants
from bids_cmb.errors import InputError
from bids_cmb.types import Affine, BoolArray, FloatArray

ByteArray = npt.NDArray[np.uint8]
#: Transform files in the order that ants wants them.
Chain = tuple[str, ...]

#: Radius in mm of the closing that makes a brain mask out of parenchyma.
CLOSING_MM = 6.0
#: Erosion in mm that parts brain from scalp and muscle.
PARTING_MM = 3.2
#: First label value that is not brain.
FIRST_OUTER_LABEL = 16
#: Label of the thin dark space around the brain: fluid, vessels, dura and inner table alike.
GAP_LABEL = 24
#: How far, in mm, that space reaches from the brain.
GAP_MM = 3.5
#: Head kept above the level of this many mm below the vertex.
HEAD_HEIGHT_MM = 205


def _canonical(path: Path) -> tuple[FloatArray, Affine]:
    """Read a NIfTI file as closest canonical float32.

    Raises
    ------
    InputError
        If it is not three-dimensional.
    """
    import nibabel

    nib: Any = nibabel
    image = nib.as_closest_canonical(nib.load(path))
    if image.ndim < 3 or any(n != 1 for n in image.shape[3:]):
        raise InputError(f"The T1-weighted image {path} is not three-dimensional.")
    data = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
    return data, np.asarray(image.affine, dtype=np.float64)


def template_brain() -> tuple[FloatArray, BoolArray, Affine]:
    """Return nilearn's MNI152 T1 template at 1 mm, its brain mask and its affine."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    template = load_mni152_template(resolution=1)
    image = np.asarray(template.dataobj, dtype=np.float32)
    mask = np.asarray(load_mni152_brain_mask(resolution=1).dataobj) > 0
    return image * mask, mask, np.asarray(template.affine, np.float64)


def read_t1w(path: Path) -> FloatArray:
    """Return a head of 1 mm voxels without the shoulders, bias-corrected."""
    data, affine = _canonical(path)
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    data = np.clip(data, 0, None)
    if not np.allclose(zooms, 1, atol=1e-3):
        data = ndimage.zoom(data, zooms, order=1)
    high = float(np.percentile(data, 98))
    top = int(np.flatnonzero((data > 0.15 * high).sum((0, 1)) > 800)[-1])
    data = data[:, :, max(0, top - HEAD_HEIGHT_MM) : top + 12]
    ants = load_ants()
    head = ndimage.binary_fill_holes(data > 0.12 * high).astype(np.float32)
    corrected = ants.n4_bias_field_correction(
        ants.from_numpy(data),
        mask=ants.from_numpy(head),
        shrink_factor=4,
        convergence={"iters": [20, 20, 20], "tol": 1e-6},
    )
    return np.asarray(corrected.numpy(), dtype=np.float32)


# --- brain masks of T1-weighted heads ----------------------------------------------------------------------


def segment_t1w(image: FloatArray, template: FloatArray, template_mask: BoolArray) -> tuple[BoolArray, Chain]:
    """Find the brain of a T1-weighted head and the transforms that bring the template onto it.

    Brain-like intensities are eroded until scalp and brain part, the template is registered to what is left,
    and the eroded brain is grown back inside the template's own outline.
    """
    white = _white_level(image, _middle(image.shape))
    like = (image > 0.45 * white) & (image < 1.35 * white)
    seed = _largest(_eroded(like, PARTING_MM))
    rough = _closed(_dilated(seed, PARTING_MM + 1) & like)
    transforms = _register(np.where(_dilated(rough, 4), image, 0).astype(np.float32), template)
    outline = warp(template_mask.astype(np.float32), image.shape, transforms) > 0.5
    inside = _dilated(outline, 3.0)
    near = _dilated(_largest(seed & inside), PARTING_MM + 1) & like & inside
    # Thin gyri lie further from the seed; the template's outline keeps the growth off the scalp.
    tight = like & _dilated(outline, 1.0)
    grown = ndimage.binary_dilation(near, mask=tight | near, iterations=8)
    mask = _closed(_largest(_opened(grown, 1.0)))
    return mask, transforms


def _register(fixed: FloatArray, template: FloatArray) -> Chain:
    """Register the template to a brain."""
    ants = load_ants()
    target = ants.resample_image(ants.from_numpy(fixed), (2, 2, 2), use_voxels=False, interp_type=0)
    moving = ants.resample_image(ants.from_numpy(template), (2, 2, 2), use_voxels=False, interp_type=0)
    affine = ants.registration(fixed=target, moving=moving, type_of_transform="Affine", random_seed=1)
    result = ants.registration(
        fixed=target,
        moving=moving,
        type_of_transform="SyNOnly",
        initial_transform=affine["fwdtransforms"][0],
        reg_iterations=(60, 40, 20),
        random_seed=1,
    )
    return tuple(result["fwdtransforms"])


def warp(
    moving: npt.NDArray[Any], shape: tuple[int, ...], chain: Chain, *, interpolator: str = "linear"
) -> FloatArray:
    """Resample an array of 1 mm voxels through a chain of transforms."""
    ants = load_ants()
    out = ants.apply_transforms(
        ants.from_numpy(np.zeros(shape, dtype=np.float32)),
        ants.from_numpy(moving.astype(np.float32)),
        list(chain),
        interpolator=interpolator,
    )
    return np.asarray(out.numpy(), dtype=np.float32)


# --- labels ------------------------------------------------------------------------------------------------


def labels_from_intensity(image: FloatArray, mask: BoolArray) -> ByteArray:
    """Group the voxels inside and outside a brain mask by intensity.

    The brain falls into five groups (values 1..5, dark to bright: cerebrospinal fluid first), the rest of the
    head into eight and the air into 0.
    """
    smooth = ndimage.gaussian_filter(image, 0.4)
    labels = np.zeros(image.shape, dtype=np.uint8)
    white = _white_level(image * mask)
    labels[mask] = 1 + np.digitize(smooth[mask], white * np.array([0.38, 0.55, 0.75, 0.92])).astype(np.uint8)
    head = _head(smooth, white) & ~mask
    edges = np.quantile(smooth[head], np.linspace(0, 1, 9)[1:-1])
    labels[head] = FIRST_OUTER_LABEL + np.digitize(smooth[head], edges).astype(np.uint8)
    labels[head & (labels <= FIRST_OUTER_LABEL + 2) & _dilated(mask, GAP_MM)] = GAP_LABEL
    return labels


def _head(image: FloatArray, white: float) -> BoolArray:
    """Return the head without the air around it; cavities that are closed stay in it."""
    tissue = _opened(image > 0.12 * white, 1.0)
    return _eroded(ndimage.binary_fill_holes(_dilated(_largest(tissue), 4)), 4)


# --- small tools, all on 1 mm voxels -----------------------------------------------------------------------


def _middle(shape: tuple[int, ...]) -> BoolArray:
    """Return an ellipsoid that lies inside the brain of a head whose vertex is near the top of the array."""
    centre = (shape[0] / 2, shape[1] / 2, shape[2] - 87)
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    radii = (50, 60, 40)
    return np.asarray(sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) < 1)


def _white_level(image: FloatArray, where: BoolArray | None = None) -> float:
    """Return the median of the brightest of four Otsu classes: white matter in a T1-weighted brain."""
    from skimage import filters

    tools: Any = filters
    values = image[where] if where is not None else image[image > 0]
    return float(np.median(values[values > tools.threshold_multiotsu(values, 4)[-1]]))


def _dilated(mask: BoolArray, radius: float) -> BoolArray:
    return np.asarray(ndimage.distance_transform_edt(~mask) <= radius)


def _eroded(mask: BoolArray, radius: float) -> BoolArray:
    padded = np.pad(mask, 1)
    return np.asarray(ndimage.distance_transform_edt(padded)[1:-1, 1:-1, 1:-1] > radius)


def _opened(mask: BoolArray, radius: float) -> BoolArray:
    return _dilated(_eroded(mask, radius), radius)


def _closed(mask: BoolArray) -> BoolArray:
    wide = np.pad(mask, 8)
    filled = ndimage.binary_fill_holes(_eroded(_dilated(wide, CLOSING_MM), CLOSING_MM))
    return np.asarray(filled)[8:-8, 8:-8, 8:-8]


def _largest(mask: BoolArray) -> BoolArray:
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())
