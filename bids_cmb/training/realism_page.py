"""The page that shows real and simulated scans side by side, with their differences in figures."""

from __future__ import annotations

import logging
import math
import multiprocessing
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from bids_cmb.detector.weights import Model, load_model
from bids_cmb.errors import UsageError
from bids_cmb.evaluation import charts
from bids_cmb.evaluation.charts import Chart
from bids_cmb.evaluation.page import environment
from bids_cmb.imaging.prepare import prepare
from bids_cmb.report.page import write_page
from bids_cmb.report.pixels import Window, png_uri, to_grey
from bids_cmb.training.lesion_statistics import Bleed, LesionFigure, compare_bleeds, visible_bleeds
from bids_cmb.training.real_image import RealImage, load_real, matched_protocol
from bids_cmb.training.realism import (
    DEPTHS,
    EDGES,
    TISSUES,
    WAVELENGTHS,
    Difference,
    Statistics,
    differences,
    measure,
)
from bids_cmb.training.simulate.corpus import load_scan, scans_in
from bids_cmb.training.simulate.protocol import Protocol
from bids_cmb.types import (
    CONTRASTS,
    Affine,
    BoolArray,
    Contrast,
    FloatArray,
    LabelArray,
    Point,
    Prepared,
    Volume,
)

_log = logging.getLogger(__name__)
_In = TypeVar("_In")
_Out = TypeVar("_Out")

#: Slices shown of each scan, as shares of the height of its brain.
_SHOWN = (0.35, 0.5, 0.62, 0.75)
#: What is shown as black and white: intensity over white matter, ppm.
_WINDOWS = {"magnitude": Window(0.0, 1.6), "qsm": Window(-0.12, 0.25)}
_PIXEL_MM = 0.8
#: A field of view smaller than this in plane, mm, is a crop without a brain's edge: all of it is brain.
_CROP_MM = 90.0
#: A stack lower than this, mm, is a slab: simulated scans are cut to its height around the basal ganglia.
_SLAB_MM = 90.0
_SLAB_PLACE = 0.52
#: Finest grid that scans are simulated on, to be like a real image, mm.
_FINEST = 0.3


@dataclass(frozen=True, eq=False)
class Measured:
    """One scan of the page: its name, statistics and pictures (data URIs)."""

    name: str
    contrast: Contrast
    voxel: Point
    statistics: Statistics
    pictures: tuple[str, ...]


def measure_real(real: RealImage, model: Model) -> tuple[Measured, Protocol, float]:
    """Prepare and measure a real image; also return its protocol and the height of its stack, mm."""
    volume, facts = load_real(real)
    crop = min(n * d for n, d in zip(volume.data.shape[:2], volume.zooms[:2], strict=True)) < _CROP_MM
    own = np.ones(volume.data.shape, np.bool_) if crop else None
    ready = prepare(volume, real.contrast, brain_mask=own, metadata=facts)
    height = volume.data.shape[2] * volume.zooms[2]
    name = real.path.name + (f", volume {real.volume}" if real.volume is not None else "")
    measured = _measured(
        name, ready, real.contrast, volume.zooms, model, regions=height >= _SLAB_MM and not crop
    )
    return measured, matched_protocol(real, volume, facts, ready.snr), height


def measure_simulated(
    image: FloatArray,
    affine: Affine,
    mask: BoolArray,
    contrast: Contrast,
    name: str,
    model: Model,
    *,
    voxel: Point,
    height: float = math.inf,
) -> Measured:
    """Prepare and measure a simulated scan, cut to a slab of some height (mm) through the basal ganglia."""
    if height < _SLAB_MM:
        thickness = float(np.linalg.norm(affine[:3, 2]))
        there = np.flatnonzero(mask.any(axis=(0, 1)))
        middle = there[0] + _SLAB_PLACE * (there[-1] - there[0])
        count = max(1, round(height / thickness))
        first = int(np.clip(round(middle - count / 2), 0, image.shape[2] - count))
        image, mask = image[..., first : first + count], mask[..., first : first + count]
        affine = affine.copy()
        affine[:3, 3] += first * affine[:3, 2]
    ready = prepare(Volume(image, affine), contrast, brain_mask=mask if height < _SLAB_MM else None)
    return _measured(name, ready, contrast, voxel, model, regions=height >= _SLAB_MM)


def _measured(
    name: str, ready: Prepared, contrast: Contrast, voxel: Point, model: Model, *, regions: bool
) -> Measured:
    mars: LabelArray | None = None
    if regions:
        from bids_cmb.anatomy.locate import locate

        mars = locate(ready.image, ready.brain_mask, contrast).mars
    statistics = measure(ready, contrast, mars=mars, model=model, voxel=voxel)
    return Measured(name, contrast, voxel, statistics, _pictures(ready, contrast))


def _pictures(ready: Prepared, contrast: Contrast) -> tuple[str, ...]:
    from scipy import ndimage

    from bids_cmb.training.realism import _relative

    shown, mask = _relative(ready, contrast)
    there = np.flatnonzero(mask.any(axis=(0, 1)))
    scale = [z / _PIXEL_MM for z in ready.image.zooms[:2]]
    uris = []
    for share in _SHOWN:
        slice_ = shown[..., round(there[0] + share * (there[-1] - there[0]))]
        turned = ndimage.zoom(slice_, scale, order=1).T[::-1, ::-1]
        uris.append(png_uri(to_grey(turned, _WINDOWS["qsm" if contrast == "qsm" else "magnitude"])))
    return tuple(uris)


@dataclass(frozen=True)
class _Job:
    """A simulated scan to measure: a file, or a protocol and seed to simulate."""

    contrast: Contrast
    path: Path | None
    protocol: Protocol | None
    seed: int
    height: float
    model: str | None


def _simulated(job: _Job) -> Measured:
    import torch

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
    model = load_model(job.model)
    if job.path is not None:
        scan, name = load_scan(job.path), job.path.stem
    else:
        from bids_cmb.training.simulate.heads import shipped_head
        from bids_cmb.training.simulate.scan import FINE_SPACING, simulate_scan

        fine = (
            float(np.clip(min(job.protocol.voxel[:2]), _FINEST, FINE_SPACING))
            if job.protocol
            else FINE_SPACING
        )
        scan = simulate_scan(shipped_head(), job.seed, job.contrast, protocol=job.protocol, spacing=fine)
        name = f"simulated like it, seed {job.seed}"
    return measure_simulated(
        scan.image, scan.affine, scan.brain_mask, job.contrast, name, model, voxel=scan.protocol.voxel, height=job.height
    )  # fmt: skip


def write_realism_page(
    reals: Sequence[RealImage],
    folder: Path | None,
    path: Path,
    *,
    model: str | None = None,
    most: int = 8,
    matched: int = 0,
    processes: int = 1,
    command: str = "",
) -> tuple[list[tuple[str, list[Difference]]], list[LesionFigure]]:
    """Write the page; return the differences of each real image, the largest first, and the figures of the bleeds.

    Parameters
    ----------
    reals
        Real images.
    folder
        Simulated scans to compare with, or None.
    path
        The page; it holds pictures of the real images, so keep it where they may be.
    model
        Detector for candidates.
    most
        Scans taken from the folder per contrast.
    matched
        Scans simulated with the acquisition of each real image.
    processes
        Simulated scans at once.
    command
        What was run, for the page.

    Raises
    ------
    UsageError
        If there is nothing simulated to compare a real image with.
    """
    detector = load_model(model)
    scans = [path for c in CONTRASTS for path in scans_in(folder, c)] if folder else []
    bleeds = compare_bleeds(bleed for one in _run(_bleeds_of, scans, processes) for bleed in one)
    sections, found = [], []
    for real in reals:
        mine, protocol, height = measure_real(real, detector)
        paths = scans_in(folder, real.contrast)[:most] if folder else []
        jobs = [_Job(real.contrast, p, None, 0, height, model) for p in paths]
        jobs += [_Job(real.contrast, None, protocol, 70_000 + n, height, model) for n in range(matched)]
        if len(jobs) < 3:
            raise UsageError(
                f"There are {len(jobs)} simulated {real.contrast} scans to compare {real.path.name} with; at least three are needed (a folder of them, or --matched)."
            )
        others = _run(_simulated, jobs, processes)
        listed = differences(mine.statistics, [o.statistics for o in others])
        found.append((mine.name, listed))
        sections.append(_section(mine, others, listed, protocol))
        _log.info("%s: %d simulated scans compared", mine.name, len(others))
    text = environment().get_template("realism.html.jinja").render(
        title="Real and simulated scans",
        command=command,
        sections=sections,
        bleeds=bleeds,
        **charts.FRAME,
    ) + "\n"  # fmt: skip
    write_page(path, text)
    return found, bleeds


def _bleeds_of(path: Path) -> list[Bleed]:
    return visible_bleeds(load_scan(path))


def _run(work: Callable[[_In], _Out], jobs: Sequence[_In], processes: int) -> list[_Out]:
    if processes == 1 or not jobs:
        return [work(job) for job in jobs]
    with multiprocessing.get_context("spawn").Pool(min(processes, len(jobs))) as pool:
        return pool.map(work, jobs, chunksize=1)


def _section(
    real: Measured, simulated: Sequence[Measured], listed: Sequence[Difference], protocol: Protocol
) -> dict[str, object]:
    # In an order that does not give away which is real: the captions are below, folded.
    shown = [real, *simulated[:3]]
    random.Random(len(listed)).shuffle(shown)  # noqa: S311 - an order to look in, no secret
    kind = "qsm" if real.contrast == "qsm" else "magnitude"
    edges = EDGES[kind]
    middles = 0.5 * (edges[1:] + edges[:-1])
    unit = "ppm" if kind == "qsm" else "intensity over white matter"
    many = [s.statistics for s in simulated]
    statistics = real.statistics
    return {
        "name": real.name,
        "contrast": real.contrast,
        "voxel": " x ".join(f"{v:.2f}" for v in real.voxel),
        "protocol": f"{1000 * protocol.echo_time:.0f} ms, {protocol.field_strength:g} T",
        "count": len(simulated),
        "scans": [(scan.name, scan is real, scan.pictures) for scan in shown],
        "differences": listed,
        "charts": [
            _compare("Intensity", unit, "density", middles, statistics.histogram, [s.histogram for s in many]),
            *(
                _compare(f"Intensity, {tissue}", unit, "density", middles, statistics.tissues[tissue], [s.tissues[tissue] for s in many if tissue in s.tissues])
                for tissue in TISSUES
                if tissue in statistics.tissues and any(tissue in s.tissues for s in many)
            ),
            _compare("Texture", "log2 of the wavelength, mm", "log10 power", np.log2(WAVELENGTHS), statistics.spectrum, [s.spectrum for s in many]),
            _compare("Edge of the brain", "depth below the edge, mm", "mean intensity", DEPTHS, statistics.profile, [s.profile for s in many]),
        ],
    }  # fmt: skip


def _compare(
    title: str,
    x_label: str,
    y_label: str,
    x: np.ndarray,
    real: np.ndarray,
    simulated: Sequence[np.ndarray],
) -> Chart:
    """Draw a real curve over the 10 to 90 % band and the median of simulated ones."""
    stack = np.array(simulated)
    with np.errstate(all="ignore"):
        low, median, high = (
            np.nanquantile(stack, q, axis=0) if len(stack) else np.full(len(x), np.nan)
            for q in (0.1, 0.5, 0.9)
        )
    every = np.concatenate([low, high, real])
    every = every[np.isfinite(every)]
    bottom, top = (float(every.min()), float(every.max())) if every.size else (0.0, 1.0)
    top = top if top > bottom else bottom + 1.0

    def points(values: np.ndarray) -> list[tuple[float, float]]:
        return [
            (
                charts.LEFT + charts.WIDTH * (a - x.min()) / (x.max() - x.min()),
                charts.TOP + charts.HEIGHT * (1 - (v - bottom) / (top - bottom)),
            )
            for a, v in zip(x.tolist(), values.tolist(), strict=True)
            if math.isfinite(v)
        ]

    ticks = np.linspace(0, 1, 5)
    return Chart(
        title,
        x_label,
        y_label,
        tuple((charts.LEFT + charts.WIDTH * t, f"{x.min() + t * (x.max() - x.min()):.2g}") for t in ticks),
        tuple((charts.TOP + charts.HEIGHT * (1 - t), f"{bottom + t * (top - bottom):.2g}") for t in ticks),
        band=charts.path(points(low) + points(high)[::-1], closed=True),
        line=charts.path(points(median)),
        other=charts.path(points(real)),
    )
