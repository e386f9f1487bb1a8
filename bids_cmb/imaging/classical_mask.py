"""The brain by brightness and shape.

On a magnitude image the skull is dark between brain and scalp. What is about as bright as the middle of the head
is eroded until brain, scalp and neck part; the radius at which they do differs between scans, so several are
tried and the one whose part looks most like a brain is grown back.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.imaging.morphology import closed, depth_mm, dilated, eroded, filled, opened, parts_of_size
from bids_cmb.types import BoolArray, Contrast, FloatArray, Point

#: Edge in mm of the voxels on which the brain is looked for.
GRID_MM = 2.0
_ZOOMS: Point = (GRID_MM, GRID_MM, GRID_MM)
#: Brightness of brain relative to the middle of the head.
_BRIGHT = (0.45, 0.6, 0.75)
_BRIGHTEST = 2.5
_DIM = 0.4
_LAST_GROWTH_MM = 6.0
_RIM_MM = 4.1
#: On SWI the fluid is dark, and thresholds leave wide sulci out: those narrower than twice this are brain, mm.
_SULCI_MM = 12.0
#: Radii of the erosion that parts brain from scalp, mm.
_PARTING_MM = (3.5, 5.0, 7.0, 9.0)
#: ... and where these leave brain and scalp in one piece, as slices of 6 mm and more do.
_WIDE_PARTING_MM = (11.0, 13.0)
#: Brain lies at least this deep under the skin, mm.
_SCALP_MM = 4.5
#: Brain and brainstem reach at most this far below the top of the head, mm.
_HEIGHT_MM = 165.0
_MIDDLE_MM = (35.0, 45.0, 30.0)
#: Depth of the brain's middle under the top of the head, mm.
_MIDDLE_DEPTH_MM = 75.0
_LARGEST_ML = 2000.0
#: Voxels across which an unmasked QSM's liveliness is measured, how far such a window reaches beyond what is in it, mm,
#: and liveliness over that of the middle of the head from which on it is brain.
_WINDOW, _WINDOW_MM = 5, 4.0
_LIVELY = 0.35
#: No head holds so much.
_TOO_LARGE_ML = 2200.0


def brain_by_thresholds(coarse: FloatArray, contrast: Contrast) -> BoolArray:
    """Find the brain of a head that is not masked.

    Parameters
    ----------
    coarse
        Image of 2 mm voxels, closest canonical.
    contrast
        A QSM is parted by smoothness instead: around an unmasked head it is noise.

    Returns
    -------
    BoolArray
        Brain voxels; empty if nothing looks like a brain.
    """
    if contrast == "qsm":
        return _smooth_part(coarse)
    head = _head(coarse)
    if not head.any():
        return head
    top = int(np.flatnonzero(head.any(axis=(0, 1)))[-1])
    middle = _middle(head, top)
    if not middle.any():
        return np.zeros_like(head)
    level = float(np.median(coarse[middle]))
    inside = head & (depth_mm(head, _ZOOMS) > _SCALP_MM)
    inside[:, :, : max(0, top - round(_HEIGHT_MM / GRID_MM))] = False
    if not inside.any():
        return inside
    # With a margin: at its border a part wears away, unless the scan itself ends there.
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    window = tuple(slice(max(0, edge.start - 1), edge.stop + 1) for edge in box)
    out = np.zeros_like(head)
    for radii in (_PARTING_MM, _WIDE_PARTING_MM):
        out[window] = _best_part(coarse[window], inside[window], middle[window], level, radii)
        if float(out.sum()) * GRID_MM**3 / 1000 <= _TOO_LARGE_ML:
            break
    return filled(closed(out, _ZOOMS, _SULCI_MM)) if contrast == "swi" else out


def _best_part(
    image: FloatArray, inside: BoolArray, middle: BoolArray, level: float, radii: tuple[float, ...]
) -> BoolArray:
    """Try thresholds and radii, and return the most brain-like part, grown to its outline."""
    best, best_score = np.zeros_like(inside), 0.0
    for share in _BRIGHT:
        bright = inside & (image > share * level) & (image < _BRIGHTEST * level)
        depth = depth_mm(bright, _ZOOMS)
        for radius in radii:
            found = _grown(bright, depth, radius, middle)
            score = _brain_likeness(found)
            if score > best_score:
                best, best_score = found, score
    if best_score == 0:
        return best
    # Dim gyri at the vertex are reached last, with a lower threshold and no further than their own depth.
    dim = inside & (image > _DIM * level) & (image < _BRIGHTEST * level)
    grown = opened(dilated(opened(best, _ZOOMS, 2.0), _ZOOMS, _LAST_GROWTH_MM) & dim, _ZOOMS, 2.0) | best
    solid = filled(closed(parts_of_size(grown, 0, share=1.0), _ZOOMS, 7.0))
    # The outermost cortex is thinner than the opening above lets through; on SWI it is dim besides.
    return filled(solid | (dilated(solid, _ZOOMS, _RIM_MM) & (image > _DIM * level)))


def _head(coarse: FloatArray) -> BoolArray:
    """Return the head with its cavities."""
    low, high = (float(v) for v in np.percentile(coarse, (1, 99)))
    if high <= low:
        return np.zeros(coarse.shape, dtype=bool)
    bright = coarse > 0.5 * otsu(np.clip(coarse, low, high))
    solid = closed(parts_of_size(opened(bright, _ZOOMS, 2.0), 0, share=1.0), _ZOOMS, 12.0)
    # A slab is open at both ends: its slices are filled one by one.
    return np.stack(
        [np.asarray(ndimage.binary_fill_holes(solid[:, :, k])) for k in range(solid.shape[2])], axis=2
    )


def _middle(head: BoolArray, top: int) -> BoolArray:
    """Return the middle of the brain as an ellipsoid in the head, at mid-height of a slab."""
    there = np.flatnonzero(head.any(axis=(0, 1)))
    level = max(top - _MIDDLE_DEPTH_MM / GRID_MM, (there[0] + top) / 2)
    rows = head[:, :, int(level)]
    x, y = (float(np.median(places)) for places in np.nonzero(rows)) if rows.any() else (0.0, 0.0)
    grid = np.ogrid[tuple(slice(0, n) for n in head.shape)]
    square = sum(
        ((g - c) * GRID_MM / r) ** 2 for g, c, r in zip(grid, (x, y, level), _MIDDLE_MM, strict=True)
    )
    return head & (np.asarray(square) < 1)


def _grown(bright: BoolArray, depth: npt.NDArray[np.float32], radius: float, middle: BoolArray) -> BoolArray:
    """Return the eroded part that holds the middle of the head, grown back."""
    parts, count = ndimage.label(depth > radius)
    if count == 0:
        return np.zeros_like(bright)
    sizes = np.bincount(parts[middle], minlength=count + 1)
    sizes[0] = 0
    if sizes.max() == 0:
        return np.zeros_like(bright)
    core = parts == sizes.argmax()
    return dilated(core, _ZOOMS, radius + 1.5) & bright


def _brain_likeness(found: BoolArray) -> float:
    """Score a part by its size and by how solid it is: scalp and neck add much hull and little volume."""
    millilitres = float(found.sum()) * GRID_MM**3 / 1000
    if millilitres < 5 or millilitres > _LARGEST_ML:
        return 0.0
    # Half the resolution is enough for a shape, and eight times faster.
    small = np.pad(found[::2, ::2, ::2], 4)
    zooms = (2 * GRID_MM, 2 * GRID_MM, 2 * GRID_MM)
    hull = eroded(dilated(small, zooms, 14.0), zooms, 14.0) | small
    solidity = float(small.sum() / hull.sum()) if hull.any() else 0.0
    return float(millilitres ** (1 / 3) * solidity**3)


def _smooth_part(coarse: FloatArray) -> BoolArray:
    """Return the brain of a QSM that no mask bounds: calmer than the noise around the head, or livelier than its quiet."""
    mean = ndimage.uniform_filter(coarse, _WINDOW)
    variance = ndimage.uniform_filter(coarse**2, _WINDOW) - mean**2
    rough = np.sqrt(np.maximum(variance, 0))
    low, high = (float(v) for v in np.percentile(rough, (1, 99)))
    if high <= low:
        return np.zeros(coarse.shape, dtype=bool)
    calm = rough < otsu(np.clip(rough, low, high))
    rim = np.ones(coarse.shape, dtype=bool)
    rim[2:-2, 2:-2] = False
    if calm[rim].mean() > 0.5:
        # A map that was resampled or filtered after masking: what surrounds the brain is nearly even.
        lively = rough > _LIVELY * np.median(rough[tuple(slice(n // 3, n - n // 3) for n in rough.shape)])
        solid = filled(closed(parts_of_size(lively, 0, share=1.0), _ZOOMS, 6.0))
        return parts_of_size(eroded(solid, _ZOOMS, _WINDOW_MM), 0, share=1.0)
    core = parts_of_size(eroded(calm, _ZOOMS, 4.0), 0, share=1.0)
    return filled(closed(dilated(core, _ZOOMS, 5.0) & calm, _ZOOMS, 6.0))


def otsu(values: npt.NDArray[np.float32]) -> float:
    """Threshold that parts a histogram into the two classes of least variance (Otsu 1979)."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    total = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = total / below - (total[-1] - total) / above
        between = below * above * gap**2
    return float(centres[int(np.nanargmax(between))])
