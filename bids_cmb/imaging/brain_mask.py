"""Where the brain is, on any contrast, with or without a skull, for the whole head or a slab of it.

An image that someone has masked already keeps its own support: cutting it again could only lose tissue. In any
other the brain is found by thresholds and shapes, with a warning. Very dark bleeds never leave holes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_cmb.errors import InputError
from bids_cmb.imaging.classical_mask import GRID_MM, brain_by_thresholds
from bids_cmb.imaging.coarse import coarse_shape, from_coarse, to_coarse
from bids_cmb.imaging.morphology import closed, depth_mm, dilated, filled, parts_of_size
from bids_cmb.types import BoolArray, Contrast, FloatArray, MaskMethod, Point, Volume

#: A scan at least this high (mm, along z) and wide (x, y) covers the whole brain.
FULL_COVERAGE_MM = (130.0, 150.0, 110.0)
#: Brain volume in ml that a fully covered adult head can have.
PLAUSIBLE_ML = (600.0, 2200.0)
#: Less brain than this, in ml, is none.
LEAST_ML = 5.0

_ZOOMS: Point = (GRID_MM, GRID_MM, GRID_MM)
#: Share of exactly equal voxels around the head that tells a mask was applied.
_LEAST_BACKGROUND = 0.08
#: Median signal of the darkest layer under the surface over the median of the depth: a skull is dark.
_SKULL_RATIO = 0.45
_NO_SKULL_RATIO = 0.7
_LAYER_MM = 2.0
_SKULL_DEPTH_MM = (3.0, 15.0)
_DEEP_MM = 25.0
#: Signal, over that of tissue, below which a stripped magnitude image shows ripples rather than brain, where more than
#: a share of its support is so faint, and more than a share of what is faint lies beside background.
_FAINT, _MOST_FAINT, _MOST_PERFORATED = 0.1, 0.05, 0.8
#: Largest hole of one slice that is filled, mm².
_SLICE_HOLE_MM2 = 150.0

_BY_THRESHOLDS = "The brain mask was found by thresholds and shapes: look at it."


@dataclass(frozen=True)
class BrainMask:
    """A brain mask and how it came about.

    Attributes
    ----------
    mask
        Brain voxels.
    method
        How it came about.
    warnings
        Sentences for the user.
    """

    mask: BoolArray
    method: MaskMethod
    warnings: tuple[str, ...] = ()


def mask_brain(volume: Volume, contrast: Contrast) -> BrainMask:
    """Find the brain voxels of a scan, without holes, and say how.

    Parameters
    ----------
    volume
        Closest canonical image; GRE and SWI with a background near zero.
    contrast
        ``gre``, ``swi`` or ``qsm``.

    Returns
    -------
    BrainMask
        Mask of the same shape, method and warnings.

    Raises
    ------
    InputError
        If no brain can be found.
    """
    coarse = to_coarse(volume.data, volume.zooms, GRID_MM)
    signal = _signal(volume.data)
    support = _outline(signal, volume.zooms)
    stripped = False if support is None else _looks_stripped(coarse, support, contrast)
    if stripped:
        return BrainMask(_own_support(signal, volume, contrast), "support")
    found = brain_by_thresholds(coarse, contrast)
    if support is not None and stripped is None and _agrees(found, support):
        return BrainMask(_own_support(signal, volume, contrast), "support")
    if _plausible(found, coarse.shape):
        return BrainMask(_to_fine(found, volume), "thresholds", (_BY_THRESHOLDS,))
    raise InputError(
        "No brain could be found in the image; give a brain mask, or check that it is a head scan."
    )


# --- images that are masked already ------------------------------------------------------------------------


def background_value(data: FloatArray) -> float | None:
    """Return the value that a mask left around the head, or None if there is none.

    Parameters
    ----------
    data
        Array of shape (x, y, z).

    Returns
    -------
    float or None
        Zero, or the commonest value of the eight corners' surroundings, if enough voxels equal it exactly.
    """
    corners = [float(data[x, y, z]) for x in (0, -1) for y in (0, -1) for z in (0, data.shape[2] // 2, -1)]
    for value in (0.0, max(set(corners), key=corners.count)):
        if float((data == value).mean()) >= _LEAST_BACKGROUND:
            return value
    return None


def _signal(data: FloatArray) -> BoolArray:
    """Return the voxels that are not background; none without a background."""
    value = background_value(data)
    return np.zeros(data.shape, dtype=bool) if value is None else np.asarray(data != np.float32(value))


def _outline(signal: BoolArray, zooms: Point) -> BoolArray | None:
    """Return the coarse outline of a signal, or None where there is none."""
    if not signal.any():
        return None
    outline = parts_of_size(to_coarse(signal, zooms, GRID_MM) > 0.5, 500)
    return closed(filled(outline), _ZOOMS, 4.0) if outline.any() else None


def _looks_stripped(coarse: FloatArray, support: BoolArray, contrast: Contrast) -> bool | None:
    """Whether a support is a brain's rather than a head's, or None if intensities alone cannot tell.

    Under the surface of a head lies the skull, dark on every magnitude image; under the surface of a stripped
    brain lies cortex.
    """
    millilitres = support.sum() * GRID_MM**3 / 1000
    if millilitres > PLAUSIBLE_ML[1] or millilitres < LEAST_ML:
        return False
    if contrast == "qsm":
        # Susceptibility is computed inside a mask, and nobody keeps the scalp in it.
        return True
    depth = depth_mm(support, _ZOOMS)
    inner = coarse[depth > min(_DEEP_MM, 0.6 * float(depth.max()))]
    if inner.size == 0 or not np.isfinite(depth).all():
        return None
    layers = [
        float(np.median(coarse[(depth > low) & (depth <= low + _LAYER_MM)]))
        for low in np.arange(*_SKULL_DEPTH_MM, _LAYER_MM)
        if ((depth > low) & (depth <= low + _LAYER_MM)).sum() > 50
    ]
    deep = float(np.median(inner))
    if not layers or deep <= 0:
        return None
    ratio = min(layers) / deep
    if ratio < _SKULL_RATIO:
        return False
    return True if ratio > _NO_SKULL_RATIO else None


def _agrees(found: BoolArray, support: BoolArray) -> bool:
    """Whether a support is about what was found to be brain, so that nothing but brain is in it."""
    if found.sum() < 0.5 * support.sum():
        return False
    return bool((support & ~dilated(found, _ZOOMS, 6.0)).sum() < 0.05 * support.sum())


def _own_support(signal: BoolArray, volume: Volume, contrast: Contrast) -> BoolArray:
    """Return the signal of a stripped image without holes, specks and ripples.

    Resampling after masking leaves ripples around the brain, faint and full of holes. Susceptibility is as faint in
    tissue, so that a QSM keeps them.
    """
    kept = signal
    if contrast != "qsm":
        faint = signal & (volume.data < _FAINT * np.percentile(volume.data[signal], 75))
        if faint.sum() > _MOST_FAINT * signal.sum():
            # Every second ripple is below zero, and so background by now; lost signal is a solid patch.
            perforated = faint & np.asarray(ndimage.binary_dilation(~signal))
            if perforated.sum() > _MOST_PERFORATED * faint.sum():
                kept = signal & ~faint
    return filled(parts_of_size(kept, 500 / volume.voxel_volume), volume.zooms, _SLICE_HOLE_MM2)


def _plausible(mask: BoolArray, shape: tuple[int, ...]) -> bool:
    """Whether a coarse mask has a brain's volume, given how much of the head the scan can hold."""
    millilitres = float(mask.sum()) * GRID_MM**3 / 1000
    if millilitres < LEAST_ML or millilitres > PLAUSIBLE_ML[1]:
        return False
    full = all(n * GRID_MM >= least for n, least in zip(shape, FULL_COVERAGE_MM, strict=True))
    return not full or millilitres >= PLAUSIBLE_ML[0]


def _to_fine(mask: BoolArray, volume: Volume) -> BoolArray:
    """Bring a coarse mask to the image's grid, without its holes and specks."""
    solid = filled(mask, _ZOOMS, _SLICE_HOLE_MM2).astype(np.float32)
    fine = from_coarse(solid, volume.data.shape, volume.zooms, GRID_MM) > 0.5
    box = ndimage.find_objects(fine.astype(np.uint8))
    if not box:
        return fine
    window = box[0]
    fine[window] = filled(parts_of_size(fine[window], 2000 / volume.voxel_volume))
    return fine


def covers_whole_brain(volume: Volume) -> bool:
    """Whether a scan is large enough to hold a whole brain."""
    shape = coarse_shape(volume.data.shape, volume.zooms, GRID_MM)
    return all(n * GRID_MM >= least for n, least in zip(shape, FULL_COVERAGE_MM, strict=True))
