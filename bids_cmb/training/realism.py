"""How far simulated scans are from real ones, in figures: the statistics that a detector could lean on.

Everything is measured on what the detector sees, the prepared image on its working grid, so that differences that
preparation removes do not count. Intensities are relative to white matter, whose level is the mode of the brain's
histogram (GRE, SWI), or in ppm against the median (QSM).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from bids_cmb.detector.candidates import find_peaks, heat_map
from bids_cmb.detector.network_input import network_input
from bids_cmb.detector.weights import Model
from bids_cmb.types import MARS_REGIONS, BoolArray, Contrast, FloatArray, LabelArray, Prepared

FloatVector = npt.NDArray[np.float64]
#: Shares of brain voxels below which quantiles of the intensity are taken.
_QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.75, 0.95, 0.99, 0.999)
#: Histogram of intensity over white matter (GRE, SWI) and of susceptibility (QSM, ppm).
EDGES: Mapping[str, FloatVector] = {
    "magnitude": np.linspace(0.0, 2.0, 61),
    "qsm": np.linspace(-0.2, 0.3, 61),
}
#: Groups of MARS regions whose histograms are compared: what a scan alone can tell of its tissues.
TISSUES: Mapping[str, tuple[str, ...]] = {
    "deep white matter": ("DPWM", "Ic", "Ec", "Cc"),
    "deep grey matter": ("Bg", "Th"),
    "lobes": ("F", "P", "T", "O", "I"),
    "brainstem and cerebellum": ("B", "C"),
}
#: Height of the slabs that veins are counted in, mm, and the line strength (in contrast) that counts as a vein.
_SLAB_MM, _VEIN = 10.0, 0.08
#: Bands of the texture spectrum: wavelengths in mm, and the side of the tiles it is taken from.
WAVELENGTHS = (24.0, 16.0, 12.0, 8.0, 6.0, 4.5, 3.5, 2.7, 2.1, 1.7)
_TILE_MM = 36.0
#: Depths below the edge of the brain mask at which the profile is taken, mm.
DEPTHS = np.arange(0.0, 21.0, 1.5)
#: Darkness (GRE, SWI: lost share of the local level) and susceptibility (ppm) that count as "dark" and "very dark".
_DARK: Mapping[str, tuple[float, float]] = {"magnitude": (0.2, 0.4), "qsm": (0.06, 0.15)}
#: Least value of a peak of radial symmetry that is counted, in units of its robust spread.
_SYMMETRY_PEAK = 6.0


@dataclass(frozen=True, eq=False)
class Statistics:
    """Figures of one scan.

    Attributes
    ----------
    values
        By name; nan where the scan does not allow it (too small for tiles, no regions).
    histogram
        Density over the bins of `EDGES`.
    tissues
        The same for each of `TISSUES`; empty without regions.
    spectrum
        log10 of the power at the `WAVELENGTHS`; nan beyond the scan's own resolution.
    profile
        Mean intensity at the `DEPTHS` below the edge of the brain.
    """

    values: Mapping[str, float]
    histogram: FloatVector
    tissues: Mapping[str, FloatVector]
    spectrum: FloatVector
    profile: FloatVector


def measure(
    ready: Prepared,
    contrast: Contrast,
    *,
    mars: LabelArray | None = None,
    model: Model | None = None,
    voxel: Sequence[float] | None = None,
) -> Statistics:
    """Measure a prepared scan.

    Parameters
    ----------
    ready
        From `bids_cmb.imaging.prepare.prepare`.
    contrast
        What it is.
    mars
        Regions on the same grid, for the contrast of deep nuclei; None leaves that out.
    model
        Detector for the density of its candidates; None leaves that out.
    voxel
        Acquired voxel, mm, where it is coarser than the image's: the spectrum ends at its resolution.
    """
    kind = "qsm" if contrast == "qsm" else "magnitude"
    image, mask = _relative(ready, contrast)
    channels, grid = network_input(ready.image, ready.brain_mask, contrast, torch.device("cpu"))
    level, symmetry = (c.numpy().astype(np.float32) for c in channels)
    working = grid.to_working(torch.from_numpy(ready.brain_mask.astype(np.float32))).numpy() > 0.5
    litres = float(working.sum() * np.prod(grid.spacing)) / 1e6
    finest = 2.0 * max(max((voxel or ready.image.zooms)[:2]), grid.spacing[0])
    inside = image[mask]
    values: dict[str, float] = {
        f"intensity, {100 * q:g} % of voxels below": float(np.quantile(inside, q)) for q in _QUANTILES
    }
    values["noise (QSM: ppm; else share of brain level)"] = 1.0 / ready.snr if ready.snr > 0 else math.nan
    spectrum = texture_spectrum(level, working, grid.spacing, finest)
    for wavelength, power in zip(WAVELENGTHS, spectrum, strict=True):
        values[f"texture, log10 power at {wavelength:g} mm"] = float(power)
    depth = _depth(working, grid.spacing)
    values |= _darkness(level if kind == "magnitude" else level * 0.4, working, depth, _DARK[kind])
    lines = line_strength(level, grid.spacing)
    values |= _tails("line strength", lines, working)
    values["vein density in slabs of 10 mm"] = vein_density(lines, working & (depth > 6.0), grid.spacing)
    values |= _tails("radial symmetry", symmetry, working)
    values["symmetry peaks per litre"] = _peaks(symmetry, working, grid.spacing) / litres
    if model is not None:
        heat = heat_map(model.candidate_net, channels)
        found = len(find_peaks(heat, grid.spacing, model.candidate_threshold)[0])
        values["stage-1 candidates per litre"] = found / litres
    if mars is not None:
        values |= _regions(image, mask, mars)
    return Statistics(
        values,
        _histogram(inside, kind),
        {} if mars is None else _tissues(image, mask, mars, kind),
        spectrum,
        _profile(image, mask, ready.image.zooms),
    )


def _histogram(inside: FloatArray, kind: str) -> FloatVector:
    density, _ = np.histogram(inside, EDGES[kind], density=True)
    return density.astype(np.float64)


def _tissues(image: FloatArray, mask: BoolArray, mars: LabelArray, kind: str) -> dict[str, FloatVector]:
    """Histogram of each of `TISSUES` that has voxels."""
    out = {}
    for name, members in TISSUES.items():
        own = image[mask & _of_regions(mars, members)]
        if own.size >= 100:
            out[name] = _histogram(own, kind)
    return out


def _of_regions(mars: LabelArray, codes: Sequence[str]) -> BoolArray:
    """Voxels of the regions with these codes of `MARS_REGIONS`, on both sides."""
    known = [region[0] for region in MARS_REGIONS]
    return np.isin(mars % 100, [known.index(code) + 1 for code in codes])


def vein_density(lines: FloatArray, mask: BoolArray, spacing: Sequence[float]) -> float:
    """Share of a brain that veins cover when one looks through slabs of about 10 mm (whole slices), as on a minimum-intensity projection.

    Parameters
    ----------
    lines
        From `line_strength`.
    mask
        Where to look: the brain without its edge.
    spacing
        mm; slabs are stacked along the last axis.

    Returns
    -------
    float
        0-1; nan without a whole slab.
    """
    thick = max(1, round(_SLAB_MM / spacing[2]))
    covered = seen = 0
    for z in range(0, lines.shape[2] - thick + 1, thick):
        through = mask[..., z : z + thick].all(axis=2)
        covered += int((through & (lines[..., z : z + thick].max(axis=2) > _VEIN)).sum())
        seen += int(through.sum())
    return covered / seen if seen else math.nan


def _relative(ready: Prepared, contrast: Contrast) -> tuple[FloatArray, BoolArray]:
    """Intensity over the mode of the brain's histogram, or ppm against the median; and the brain."""
    data, mask = ready.image.data, ready.brain_mask
    if contrast == "qsm":
        return (data - np.median(data[mask])).astype(np.float32), mask
    inside = data[mask]
    counts, edges = np.histogram(inside, 200, (0.0, float(np.quantile(inside, 0.999))))
    smooth = ndimage.gaussian_filter1d(counts.astype(np.float64), 4)
    first = 30  # the background inside a poor mask is no tissue
    mode = edges[first + int(np.argmax(smooth[first:]))]
    return (data / mode).astype(np.float32), mask


def texture_spectrum(
    level: FloatArray, mask: BoolArray, spacing: Sequence[float], finest: float
) -> FloatVector:
    """Radial power spectrum in plane, averaged over tiles that lie inside the brain.

    Parameters
    ----------
    level, mask
        (x, y, z) on the working grid.
    spacing
        mm.
    finest
        Shortest wavelength that the scan resolves, mm; bands below it are nan.

    Returns
    -------
    numpy.ndarray
        log10 of the power density at the `WAVELENGTHS`; all nan without a tile.
    """
    side = round(_TILE_MM / spacing[0])
    window = np.outer(np.hanning(side), np.hanning(side))
    frequency = np.fft.fftfreq(side, spacing[0])
    radius = np.hypot(frequency[:, None], frequency[None, :])
    total, tiles = np.zeros((side, side)), 0
    for z in range(level.shape[2]):
        for x in range(0, level.shape[0] - side + 1, side // 2):
            for y in range(0, level.shape[1] - side + 1, side // 2):
                if mask[x : x + side, y : y + side, z].mean() < 0.98:
                    continue
                tile = level[x : x + side, y : y + side, z]
                total += np.abs(np.fft.fft2((tile - tile.mean()) * window)) ** 2
                tiles += 1
    out = np.full(len(WAVELENGTHS), math.nan)
    if not tiles:
        return out
    power = total / tiles / (window**2).sum() * spacing[0] ** 2
    for index, wavelength in enumerate(WAVELENGTHS):
        ring = np.abs(radius * wavelength - 1.0) < 0.18
        if wavelength >= finest and ring.any():
            out[index] = math.log10(max(float(power[ring].mean()), 1e-12))
    return out


def line_strength(level: FloatArray, spacing: Sequence[float], *, width: float = 1.0) -> FloatArray:
    """How much a bright line (in local contrast: a vessel) runs through each voxel, from the Hessian at one width.

    The smaller of the two strongest negative curvatures less the third, as in the line filter of Sato et al.,
    Med Image Anal 1998;2:143-168; in units of the contrast.
    """
    smooth = ndimage.gaussian_filter(level, [width / s for s in spacing])
    hessian = np.empty((*level.shape, 3, 3), np.float32)
    for i in range(3):
        bend = ndimage.correlate1d(smooth, [1.0, -2.0, 1.0], axis=i, mode="nearest")
        hessian[..., i, i] = bend * (width / spacing[i]) ** 2
        slope = np.gradient(smooth, spacing[i], axis=i)
        for j in range(i + 1, 3):
            hessian[..., i, j] = hessian[..., j, i] = np.gradient(slope, spacing[j], axis=j) * width**2
    curvature = np.linalg.eigvalsh(hessian)  # ascending
    across, along = -curvature[..., 1], np.abs(curvature[..., 2])
    return np.maximum(across - along, 0.0).astype(np.float32)


def _tails(name: str, map_: FloatArray, mask: BoolArray) -> dict[str, float]:
    inside = map_[mask]
    return {
        f"{name}, {100 * q:g} % of voxels below": float(np.quantile(inside, q)) for q in (0.9, 0.99, 0.999)
    }


def _depth(mask: BoolArray, spacing: Sequence[float]) -> FloatArray:
    """Depth below the mask's in-plane edge, mm: the ends of a slab are no edge."""
    depth = np.stack(
        [ndimage.distance_transform_edt(np.pad(mask[..., z], 1), spacing[:2])[1:-1, 1:-1] for z in range(mask.shape[2])],
        axis=-1,
    )  # fmt: skip
    return np.asarray(depth, dtype=np.float32)


def _darkness(
    level: FloatArray, mask: BoolArray, depth: FloatArray, bounds: tuple[float, float]
) -> dict[str, float]:
    out = {}
    for name, place in (("near the edge (< 6 mm)", depth < 6.0), ("deep (> 15 mm)", depth > 15.0)):
        inside = level[mask & place]
        for word, bound in zip(("dark", "very dark"), bounds, strict=True):
            share = float((inside > bound).mean()) if inside.size else math.nan
            out[f"share {word}, {name}"] = share
    return out


def _peaks(symmetry: FloatArray, mask: BoolArray, spacing: Sequence[float]) -> int:
    """Count local maxima of radial symmetry that stand out of its own spread."""
    spread = 1.48 * float(np.median(np.abs(symmetry[mask] - np.median(symmetry[mask]))))
    size = [2 * max(1, round(2.0 / s)) + 1 for s in spacing]
    highest = ndimage.maximum_filter(symmetry, size)
    return int(((symmetry == highest) & mask & (symmetry > _SYMMETRY_PEAK * max(spread, 1e-6))).sum())


def _regions(image: FloatArray, mask: BoolArray, mars: LabelArray) -> dict[str, float]:
    """Median intensity of deep regions against that of deep white matter, and the spread inside the basal ganglia."""

    def voxels(code: str) -> FloatArray:
        return image[mask & _of_regions(mars, (code,))]

    white = voxels("DPWM")
    if white.size < 100:
        return {}
    out = {}
    for code, name in (("Bg", "basal ganglia"), ("Th", "thalamus"), ("Cc", "corpus callosum"), ("B", "brainstem"), ("C", "cerebellum"), ("F", "frontal lobe")):  # fmt: skip
        own = voxels(code)
        if own.size >= 100:
            out[f"median of {name} minus white matter"] = float(np.median(own) - np.median(white))
    ganglia = voxels("Bg")
    if ganglia.size >= 100:
        low, high = np.quantile(ganglia, [0.05, 0.95])
        out["basal ganglia, spread of 5 to 95 %"] = float(high - low)
    low, high = np.quantile(white, [0.05, 0.95])
    out["white matter, spread of 5 to 95 %"] = float(high - low)
    return out


def _profile(image: FloatArray, mask: BoolArray, spacing: Sequence[float]) -> FloatVector:
    depth = _depth(mask, spacing)
    place = np.digitize(depth[mask], DEPTHS[1:])
    inside = image[mask]
    return np.array(
        [inside[place == k].mean() if (place == k).any() else math.nan for k in range(len(DEPTHS))]
    )


@dataclass(frozen=True)
class Difference:
    """One statistic of a real scan among those of simulated ones.

    Attributes
    ----------
    name
        Of the statistic.
    real
        Value of the real scan.
    median, low, high
        Of the simulated scans: median, 10th and 90th percentile.
    distance
        From the median, in units of the simulated scans' spread (half of the 10 to 90 % range over 1.28).
    """

    name: str
    real: float
    median: float
    low: float
    high: float
    distance: float


def differences(real: Statistics, simulated: Sequence[Statistics]) -> list[Difference]:
    """Compare a real scan with simulated ones, the largest difference first; undefined statistics are left out."""
    found = []
    for name, value in real.values.items():
        others = np.array([s.values.get(name, math.nan) for s in simulated])
        others = others[np.isfinite(others)]
        if not math.isfinite(value) or others.size < 3:
            continue
        low, median, high = (float(v) for v in np.quantile(others, [0.1, 0.5, 0.9]))
        # A spread of nearly nothing must not make a trifle the largest difference.
        spread = max((high - low) / 2 / 1.28, 0.03 * abs(median), 1e-6)
        found.append(Difference(name, value, median, low, high, (value - median) / spread))
    return sorted(found, key=lambda d: -abs(d.distance))
