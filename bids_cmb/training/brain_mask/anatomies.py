"""Whole-head label maps that the brain mask network is trained on.

Sources (none is kept in the project): a whole-brain parcellation of one subject (GIF numbering), T1-weighted
heads, and the skull-stripped MNI152 template that nilearn carries. Each becomes a label map of 1 mm voxels:

====== =====================================================================
0      air
1..15  brain: everything inside the mask that the network is to find
16..   other tissue, grouped by intensity, so that no class is a single organ
====== =====================================================================

The mask is the same idea in each: parenchyma closed by `CLOSING_MM` and filled, so that sulci and ventricles
belong to it and the wider subarachnoid space and the sinuses do not. The two sources without a face borrow
the outer head of each T1-weighted head through a deformable registration. The names of all subjects whose
tissue is in a map travel with it: maps that share a subject with a held-out one leave training together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.anatomy.ants import load_ants
from bids_cmb.types import Affine, BoolArray, FloatArray

ByteArray = npt.NDArray[np.uint8]
#: Transform files with whether each is applied inverted, in the order that ants wants them.
Chain = tuple[tuple[str, bool], ...]

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

_CSF = 1
_VENTRICLE_IDS = (5, 12, 16, 50, 51, 52, 53)
#: GIF ids by tissue; what is not listed is cortex.
_GIF_TISSUES: Mapping[int, tuple[int, ...]] = {
    2: _VENTRICLE_IDS,
    4: (41, 42, 45, 46, 66, 67, 81, 82, 83, 84, 85, 86, 87, 89, 90, 91, 92, 93, 94),
    5: (39, 40, 72, 73, 74),
    6: (24, 31, 32, 33, 37, 38, 48, 49, 58, 59, 60, 61),
    7: (56, 57, 62, 63, 76, 77),
    8: (35, 36),
}
_CORTEX = 3


@dataclass(frozen=True)
class Head:
    """One head as labels.

    Attributes
    ----------
    name
        Name of the map.
    groups
        Names of the subjects whose tissue is in it.
    labels
        uint8 array of 1 mm voxels, closest canonical.
    """

    name: str
    groups: tuple[str, ...]
    labels: ByteArray


def build(gif: Path, t1w: Sequence[Path]) -> list[Head]:
    """Make all label maps from the files.

    Parameters
    ----------
    gif
        NIfTI parcellation in GIF numbering.
    t1w
        Whole-head T1-weighted NIfTI files.

    Returns
    -------
    list of Head
        The T1-weighted heads, then the template and the parcellation, each with the outer head of each.
    """
    template, template_mask, _ = template_brain()
    heads: list[Head] = []
    outers: list[tuple[str, ByteArray, Chain]] = []
    for path in t1w:
        name = path.name.split("_")[0]
        image = read_t1w(path)
        mask, to_template, _ = segment_t1w(image, template, template_mask)
        labels = labels_from_intensity(image, mask)
        heads.append(Head(name, (name,), labels))
        outers.append((name, labels, to_template))
    gif_labels = _gif_labels(gif)
    mni_labels = labels_from_intensity(
        template, _closed(template > 0.45 * _white_level(template)), outer=False
    )
    to_gif = _register(_pseudo_t1w(gif_labels), template)[0]
    for name, labels, to_template in outers:
        on_template = _warp_labels(labels, template, to_template)
        heads.append(Head(f"mni+{name}", ("mni", name), _with_outer(mni_labels, on_template)))
        on_gif = _warp_labels(labels, gif_labels, (*to_gif, *to_template))
        heads.append(Head(f"gif+{name}", ("gif", name), _with_outer(gif_labels, on_gif)))
    return heads


def save(heads: Sequence[Head], path: Path) -> None:
    """Write the maps, cropped to the head, into one compressed npz file."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for head in heads:
        arrays[f"{head.name}|{','.join(head.groups)}"] = _cropped(head.labels)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def load(path: Path) -> list[Head]:
    """Read the maps that `save` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        return [
            Head(key.split("|")[0], tuple(key.split("|")[1].split(",")), archive[key])
            for key in sorted(archive.files)
        ]


# --- the sources -------------------------------------------------------------------------------------------


def _canonical(path: Path) -> tuple[FloatArray, Affine]:
    """Read a NIfTI file as closest canonical float32."""
    import nibabel

    nib: Any = nibabel
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=np.float64)


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


def _gif_labels(path: Path) -> ByteArray:
    """Turn a GIF parcellation into our labels."""
    data, _ = _canonical(path)
    ids = np.rint(data).astype(np.int32)
    tissue = np.zeros(ids.shape, dtype=np.uint8)
    tissue[ids >= 5] = _CORTEX
    for value, members in _GIF_TISSUES.items():
        tissue[np.isin(ids, members)] = value
    mask = _closed(tissue > 0)
    tissue[mask & (tissue == 0)] = _CSF
    tissue[~mask] = 0
    outer = np.array([0, 17, 18, 19, *[GAP_LABEL] * 300], dtype=np.uint8)
    return np.where(mask, tissue, outer[ids]).astype(np.uint8)


# --- brain masks of T1-weighted heads ----------------------------------------------------------------------


def segment_t1w(
    image: FloatArray, template: FloatArray, template_mask: BoolArray
) -> tuple[BoolArray, Chain, Chain]:
    """Find the brain of a T1-weighted head, the chain head -> template and the chain template -> head.

    Brain-like intensities are eroded until scalp and brain part, the template is registered to what is left,
    and the eroded brain is grown back inside the template's own outline.
    """
    white = _white_level(image, _middle(image.shape))
    like = (image > 0.45 * white) & (image < 1.35 * white)
    seed = _largest(_eroded(like, PARTING_MM))
    rough = _closed(_dilated(seed, PARTING_MM + 1) & like)
    transforms, inverse = _register(np.where(_dilated(rough, 4), image, 0).astype(np.float32), template)
    outline = warp(template_mask.astype(np.float32), image.shape, transforms) > 0.5
    inside = _dilated(outline, 3.0)
    near = _dilated(_largest(seed & inside), PARTING_MM + 1) & like & inside
    # Thin gyri lie further from the seed; the template's outline keeps the growth off the scalp.
    tight = like & _dilated(outline, 1.0)
    grown = ndimage.binary_dilation(near, mask=tight | near, iterations=8)
    mask = _closed(_largest(_opened(grown, 1.0)))
    return mask, inverse, transforms


def _register(fixed: FloatArray, template: FloatArray) -> tuple[Chain, Chain]:
    """Register the template to a brain; return the chains template -> brain and brain -> template."""
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
    warp, matrix = result["fwdtransforms"]
    _, inverse_warp = result["invtransforms"]
    return ((warp, False), (matrix, False)), ((matrix, True), (inverse_warp, False))


def warp(
    moving: npt.NDArray[Any], shape: tuple[int, ...], chain: Chain, *, interpolator: str = "linear"
) -> FloatArray:
    """Resample an array of 1 mm voxels through a chain of transforms."""
    ants = load_ants()
    out = ants.apply_transforms(
        ants.from_numpy(np.zeros(shape, dtype=np.float32)),
        ants.from_numpy(moving.astype(np.float32)),
        [name for name, _ in chain],
        interpolator=interpolator,
        whichtoinvert=[invert for _, invert in chain],
    )
    return np.asarray(out.numpy(), dtype=np.float32)


# --- labels ------------------------------------------------------------------------------------------------


def labels_from_intensity(image: FloatArray, mask: BoolArray, *, outer: bool = True) -> ByteArray:
    """Group the voxels inside and outside a brain mask by intensity.

    The brain falls into five groups (values 1..5, dark to bright: cerebrospinal fluid first), the rest of the
    head into eight and the air into 0.
    """
    smooth = ndimage.gaussian_filter(image, 0.4)
    labels = np.zeros(image.shape, dtype=np.uint8)
    white = _white_level(image * mask)
    labels[mask] = 1 + np.digitize(smooth[mask], white * np.array([0.38, 0.55, 0.75, 0.92])).astype(np.uint8)
    if not outer:
        return labels
    head = _head(smooth, white) & ~mask
    edges = np.quantile(smooth[head], np.linspace(0, 1, 9)[1:-1])
    labels[head] = FIRST_OUTER_LABEL + np.digitize(smooth[head], edges).astype(np.uint8)
    labels[head & (labels <= FIRST_OUTER_LABEL + 2) & _dilated(mask, GAP_MM)] = GAP_LABEL
    return labels


def _head(image: FloatArray, white: float) -> BoolArray:
    """Return the head without the air around it; cavities that are closed stay in it."""
    tissue = _opened(image > 0.12 * white, 1.0)
    return _eroded(ndimage.binary_fill_holes(_dilated(_largest(tissue), 4)), 4)


def _pseudo_t1w(labels: ByteArray) -> FloatArray:
    """Paint brain labels with the grey levels of a T1-weighted image."""
    levels = np.zeros(256, dtype=np.float32)
    levels[1:9] = (0.25, 0.2, 0.65, 1.0, 0.7, 0.75, 0.9, 0.95)
    return np.asarray(ndimage.gaussian_filter(levels[labels], 0.5), dtype=np.float32)


def _warp_labels(labels: ByteArray, like: npt.NDArray[Any], chain: Chain) -> ByteArray:
    """Bring labels onto another head's grid."""
    return warp(labels, like.shape, chain, interpolator="nearestNeighbor").astype(np.uint8)


def _with_outer(brain: ByteArray, borrowed: ByteArray) -> ByteArray:
    """Put the outer tissue of another head around a brain; where neither is anything, fluid fills the gap."""
    own = brain > 0
    outer = np.where(borrowed >= FIRST_OUTER_LABEL, borrowed, 0)
    gap = (borrowed > 0) & (borrowed < FIRST_OUTER_LABEL)
    merged = np.where(own, brain, np.where(gap, GAP_LABEL, outer))
    return merged.astype(np.uint8)


def _cropped(labels: ByteArray, margin: int = 4) -> ByteArray:
    """Cut away the air around a head."""
    bounds = ndimage.find_objects((labels > 0).astype(np.uint8))[0]
    window = tuple(slice(max(0, b.start - margin), b.stop + margin) for b in bounds)
    return np.ascontiguousarray(labels[window])


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
