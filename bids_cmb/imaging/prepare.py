"""A scan made ready for the detector: brain mask, bias or units, and a word on its quality."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_cmb.errors import InputError
from bids_cmb.imaging.bias import correct_bias
from bids_cmb.imaging.brain_mask import PLAUSIBLE_ML, BrainMask, covers_whole_brain, mask_brain
from bids_cmb.imaging.morphology import filled
from bids_cmb.imaging.susceptibility import conversion_to_ppm, converted
from bids_cmb.types import BoolArray, Contrast, Prepared, Volume

#: Slices thicker than this, mm, hide microbleeds of the usual size.
THICK_SLICE_MM = 6.0
#: Pixels larger than this, mm, do so as well.
COARSE_PIXEL_MM = 1.2
#: Scans lower than this along z, mm, miss parts of the brain.
LOW_COVERAGE_MM = 100.0
#: Signal to noise below which small bleeds drown.
LOW_SNR = 8.0
#: Noise of a QSM, ppm, above which small bleeds drown.
HIGH_QSM_NOISE_PPM = 0.06
#: Share of negative voxels in a magnitude image that is worth a sentence.
_NEGATIVE_SHARE = 0.01
_NO_METADATA: Mapping[str, Any] = MappingProxyType({})


def prepare(
    volume: Volume,
    contrast: Contrast,
    *,
    brain_mask: BoolArray | None = None,
    metadata: Mapping[str, Any] = _NO_METADATA,
) -> Prepared:
    """Find the brain, remove the bias (GRE, SWI) or read the units (QSM), and look at the quality.

    Parameters
    ----------
    volume
        Closest canonical image as loaded.
    contrast
        ``gre``, ``swi`` or ``qsm``.
    brain_mask
        The user's own mask on the same canonical grid; its holes are filled, else it is taken as it is.
    metadata
        Sidecar fields; only ``Units`` of a QSM are used.

    Returns
    -------
    Prepared
        Image, brain mask, signal-to-noise ratio and warnings.

    Raises
    ------
    InputError
        If the image is a phase image, holds no brain, or the given mask does not fit.
    """
    warnings: list[str] = []
    if contrast != "qsm":
        volume, note = _magnitude(volume)
        warnings.extend(note)
    found = mask_brain(volume, contrast) if brain_mask is None else _given(brain_mask, volume)
    warnings.extend(found.warnings)
    mask = found.mask
    if contrast == "qsm":
        conversion, notes = conversion_to_ppm(volume, mask, metadata)
        image = converted(volume, *conversion)
        warnings.extend(notes)
    else:
        conversion, image = (1.0, 0.0), correct_bias(volume, mask)
    noise = noise_level(image, mask)
    level = 1.0 if contrast == "qsm" else float(np.median(image.data[mask]))
    snr = level / noise if noise > 0 else math.nan
    warnings.extend(_geometry_warnings(volume, mask))
    warnings.extend(_noise_warnings(contrast, snr))
    return Prepared(image, mask, snr, found.method, tuple(warnings), conversion)


def _given(mask: BoolArray, volume: Volume) -> BrainMask:
    """Check and fill the user's own mask."""
    if mask.shape != volume.data.shape:
        raise InputError(
            f"The brain mask's grid {mask.shape} is not the image's {volume.data.shape}; resample it first."
        )
    if not mask.any():
        raise InputError("The brain mask given for the image is empty.")
    return BrainMask(filled(np.asarray(mask, dtype=bool)), "given")


def _magnitude(volume: Volume) -> tuple[Volume, tuple[str, ...]]:
    """Return a magnitude image without negative values, or refuse what cannot be one.

    Negative values come from interpolation (cut at zero), from storage with an offset (removed), or from a
    phase or real-part image (refused).
    """
    data = volume.data
    lowest = float(data.min())
    if lowest >= 0:
        return volume, ()
    share = float((data < 0).mean())
    low, high = (float(v) for v in np.percentile(data, (1, 99)))
    at_bottom = float((data <= lowest + 0.02 * (high - lowest)).mean())
    if at_bottom > 0.1 and lowest < -0.02 * (high - lowest):
        shifted = Volume((data - np.float32(lowest)).astype(np.float32), volume.affine)
        return shifted, (f"The image's background lies at {lowest:g}; it was moved to zero.",)
    if low < -0.5 * abs(high):
        raise InputError(
            "The image has as many negative as positive values, as a phase image does; give the magnitude."
        )
    cut = Volume(np.maximum(data, 0), volume.affine)
    if share < _NEGATIVE_SHARE:
        return cut, ()
    return cut, (f"{share:.0%} of the voxels were negative, as no magnitude is; they were set to zero.",)


def noise_level(image: Volume, mask: BoolArray) -> float:
    """Estimate the noise of an image from the finest diagonal detail inside a mask.

    Parameters
    ----------
    image
        Any image.
    mask
        Voxels to judge by.

    Returns
    -------
    float
        Standard deviation, in the image's unit, by the median absolute value of diagonal second differences
        in the plane of the two finest axes (Donoho & Johnstone 1994); 0 if there is nothing to judge.
        Interpolated images have less of it than the scanner had.
    """
    axes = sorted(np.argsort(image.zooms, kind="stable")[:2])
    first, second = (int(a) for a in axes)
    detail = _step(_step(image.data, first, minus=True), second, minus=True) / 2
    inside = _step(_step(mask, first, minus=False), second, minus=False)
    values = np.abs(detail[inside])
    return float(np.median(values) / 0.6745) if values.size else 0.0


def _step(data: npt.NDArray[Any], axis: int, *, minus: bool) -> npt.NDArray[Any]:
    """Difference of neighbours along an axis, or for masks whether both are set."""
    left = data[tuple(slice(None, -1) if k == axis else slice(None) for k in range(3))]
    right = data[tuple(slice(1, None) if k == axis else slice(None) for k in range(3))]
    return np.asarray(right - left if minus else right & left)


def _geometry_warnings(volume: Volume, mask: BoolArray) -> list[str]:
    """Sentences on voxels, coverage and brain size."""
    warnings = []
    fine, middle, thick = sorted(volume.zooms)
    if thick > THICK_SLICE_MM:
        warnings.append(
            f"Slices of {thick:.1f} mm are thick: vessels look like microbleeds and small ones vanish."
        )
    if middle > COARSE_PIXEL_MM:
        warnings.append(
            f"Pixels of {fine:.2g} x {middle:.2g} mm are coarse: small microbleeds may be missed."
        )
    height = volume.data.shape[2] * volume.zooms[2]
    millilitres = float(mask.sum()) * volume.voxel_volume / 1000
    if height < LOW_COVERAGE_MM:
        warnings.append(f"The scan is {height:.0f} mm high: only part of the brain was searched.")
    elif covers_whole_brain(volume) and not PLAUSIBLE_ML[0] <= millilitres <= PLAUSIBLE_ML[1]:
        warnings.append(f"The brain mask of {millilitres:.0f} ml is not plausible for an adult; look at it.")
    return warnings


def _noise_warnings(contrast: Contrast, snr: float) -> list[str]:
    """Sentences on noise."""
    if math.isnan(snr):
        return []
    if contrast == "qsm" and snr < 1 / HIGH_QSM_NOISE_PPM:
        return [f"The QSM is noisy ({1 / snr:.3f} ppm): faint microbleeds may be missed."]
    if contrast != "qsm" and snr < LOW_SNR:
        return [f"The image is noisy (signal-to-noise ratio {snr:.1f}): faint microbleeds may be missed."]
    return []
