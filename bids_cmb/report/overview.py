"""The whole brain at a glance: the slab mosaic, the outline in three projections and the check pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bids_cmb.report.data import Finding
from bids_cmb.report.figures import LoadedScan, Mark, Picture, brain_box, slice_box
from bids_cmb.report.outlines import Box, smooth_outline
from bids_cmb.report.pixels import (
    PLANE_AXES,
    Plane,
    orient,
    plane_point,
    png_uri,
    project,
    shrink,
    to_grey,
    to_voxel,
)
from bids_cmb.types import MARS_REGIONS, MARS_RIGHT_OFFSET
from bids_cmb.wording import counted

#: Slab thickness and pixel size of the mosaic, mm, and its grey levels: a map to find places on, not to read.
MOSAIC_SLAB_MM = 6.0
MOSAIC_PIXEL_MM = 0.8
MOSAIC_LEVELS = 64
#: At this many microbleeds the outline's dots go without numbers.
NUMBERED_DOTS = 25
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
_CATEGORY_LABELS = {
    category: [
        value
        for number, region in enumerate(MARS_REGIONS, start=1)
        if region[2] == category
        for value in (number, number + MARS_RIGHT_OFFSET)
    ]
    for category in ("lobar", "deep", "infratentorial")
}
Link = Callable[[Finding], str]


@dataclass(frozen=True)
class Projection:
    """The brain's outline seen along one axis, with a dot per microbleed; mm of the plane."""

    plane: Plane
    frame: Box
    brain: str
    regions: tuple[tuple[str, str], ...]
    dots: tuple[Mark, ...]
    alt: str

    @property
    def view_box(self) -> str:
        """The frame as SVG writes it."""
        return " ".join(f"{value:.6g}" for value in self.frame)


def draw_mosaic(scan: LoadedScan, link: Link) -> list[Picture]:
    """Draw the axial slabs that cover the brain, bottom to top, every microbleed ringed and numbered in its slab."""
    volume = scan.volume
    shape, zooms = volume.data.shape, volume.zooms
    bounds = brain_box(scan.brain, shape)
    count = max(1, round(MOSAIC_SLAB_MM / zooms[2]))
    box = slice_box(bounds, shape, zooms, "axial")
    size = (max(1, round(box[2] / MOSAIC_PIXEL_MM)), max(1, round(box[3] / MOSAIC_PIXEL_MM)))
    placed = [
        (f, to_voxel(volume, f.position)) for f in scan.result.findings if not any(np.isnan(f.position))
    ]
    pictures = []
    first, last = bounds[2].start, bounds[2].stop
    for start in range(first, last, count):
        stop = min(start + count, last)
        piece = project(volume.data[bounds[0], bounds[1], start:stop], scan.result.contrast)
        inside = [
            (f, v)
            for f, v in placed
            if start <= min(max(round(v[2]), first), last - 1) < stop
        ]  # fmt: skip
        centres = [(f, *plane_point(shape, zooms, "axial", v)) for f, v in inside]
        z = (volume.affine @ [shape[0] / 2, shape[1] / 2, (start + stop - 1) / 2, 1])[2]
        numbers = ", ".join(str(f.index) for f, _ in inside)
        pictures.append(
            Picture(
                src=png_uri(to_grey(shrink(orient(piece), size), scan.window, MOSAIC_LEVELS)),
                alt=f"Axial slab at z {z:.0f} mm, "
                + (f"microbleeds {numbers}" if numbers else "no microbleeds"),
                caption=f"z {z:.0f}",
                plane="axial",
                frame=box,
                box=box,
                marks=place_marks(centres, box, link),
            )
        )
    return pictures


def slab_centres(scan: LoadedScan) -> list[float]:
    """Return the voxel coordinate along z of the middle of each picture of `draw_mosaic`."""
    bounds = brain_box(scan.brain, scan.volume.data.shape)
    count = max(1, round(MOSAIC_SLAB_MM / scan.volume.zooms[2]))
    first, last = bounds[2].start, bounds[2].stop
    return [(start + min(start + count, last) - 1) / 2 for start in range(first, last, count)]


def place_marks(centres: Sequence[tuple[Finding, float, float]], frame: Box, link: Link) -> tuple[Mark, ...]:
    """Ring each place and put its number beside it where it covers no other ring or number.

    Parameters
    ----------
    centres
        Finding and its place in the frame's plane, mm.
    frame
        Left, top, width, height, mm.
    link
        Gives the target of a finding's link.
    """
    taken = [(x, y, _ring(f)) for f, x, y in centres]
    marks = []
    for finding, x, y in centres:
        radius = _ring(finding)
        label = str(finding.index)
        half = 2.1 * len(label)
        best, least = (x, y - radius - 4.0), np.inf
        for turn in (-0.25, -0.75, 0.25, 0.75, 0.0, 1.0, -0.5, 0.5):
            angle = np.pi * turn
            spot_x = x + np.cos(angle) * (radius + 1.2 + half)
            spot_y = y + np.sin(angle) * (radius + 4.2)
            cost = sum(max(0.0, other + 4.2 - np.hypot(spot_x - ox, spot_y - oy)) for ox, oy, other in taken)
            inside = (
                frame[0] + half < spot_x < frame[0] + frame[2] - half
                and frame[1] + 4 < spot_y < frame[1] + frame[3] - 4
            )
            cost += 0 if inside else 100
            if cost < least - 1e-9:
                best, least = (float(spot_x), float(spot_y)), cost
        taken.append((*best, half))
        marks.append(_mark(finding, (x, y), radius, best, link))
    return tuple(marks)


def _ring(finding: Finding) -> float:
    diameter = 0.0 if np.isnan(finding.diameter) else finding.diameter
    return max(3.2, diameter / 2 + 1.8)


def _mark(
    finding: Finding, centre: tuple[float, float], radius: float, label: tuple[float, float], link: Link
) -> Mark:
    probability = "" if np.isnan(finding.probability) else f", probability {finding.probability:.2f}"
    return Mark(
        x=round(centre[0], 2),
        y=round(centre[1], 2),
        radius=round(radius, 2),
        label=str(finding.index),
        label_x=round(label[0], 2),
        label_y=round(label[1], 2),
        kind=finding.certainty or "possible",
        href=link(finding),
        title=f"{finding.index}: {finding.place}, {finding.certainty or 'certainty not known'}{probability}",
    )


def draw_projections(scan: LoadedScan, link: Link) -> list[Projection]:
    """Draw the brain's silhouette along the three axes with a dot per microbleed; none without a brain mask."""
    if scan.brain is None or not scan.brain.any():
        return []
    shape, zooms = scan.volume.data.shape, scan.volume.zooms
    bounds = brain_box(scan.brain, shape)
    numbered = len(scan.result.findings) <= NUMBERED_DOTS
    projections = []
    for plane in PLANES:
        third = PLANE_AXES[plane][2]
        box = slice_box(bounds, shape, zooms, plane)
        regions = []
        if scan.mars is not None:
            for category in ("deep", "infratentorial"):
                seen = np.isin(scan.mars[bounds], _CATEGORY_LABELS[category]).any(axis=third)
                regions.append(
                    (category, smooth_outline(orient(np.asarray(seen)), box, tolerance=0.8, smallest=20))
                )
        dots = []
        for finding in scan.result.findings:
            if any(np.isnan(finding.position)):
                continue
            x, y = plane_point(shape, zooms, plane, to_voxel(scan.volume, finding.position))
            dots.append(_mark(finding, (x, y), 2.6, (x + 3.6, y - 2.6), link))
        if not numbered:
            dots = [Mark(**{**vars(dot), "label": ""}) for dot in dots]
        projections.append(
            Projection(
                plane=plane,
                frame=(box[0] - 6, box[1] - 6, box[2] + 12, box[3] + 12),
                brain=smooth_outline(
                    orient(np.asarray(scan.brain[bounds].any(axis=third))), box, tolerance=0.8
                ),
                regions=tuple(regions),
                dots=tuple(dots),
                alt=f"{plane.capitalize()} outline of the brain with {counted(len(dots), 'microbleed')}",
            )
        )
    return projections


def draw_checks(scan: LoadedScan) -> list[Picture]:
    """Draw whole slices with the border of the brain mask and of the regions: four axial, a coronal, a sagittal."""
    volume = scan.volume
    bounds = brain_box(scan.brain, volume.data.shape)
    places: list[tuple[Plane, float]] = [
        ("axial", 0.22),
        ("axial", 0.4),
        ("axial", 0.55),
        ("axial", 0.72),
        ("coronal", 0.5),
        ("sagittal", 0.57),
    ]
    return [_draw_check(scan, plane, part, bounds) for plane, part in places]


def _draw_check(scan: LoadedScan, plane: Plane, part: float, bounds: tuple[slice, slice, slice]) -> Picture:
    volume = scan.volume
    third = PLANE_AXES[plane][2]
    at = min(
        round(bounds[third].start + part * (bounds[third].stop - bounds[third].start)), bounds[third].stop - 1
    )
    index: list[slice | int] = list(bounds)
    index[third] = at
    where = tuple(index)
    box = slice_box(bounds, volume.data.shape, volume.zooms, plane)
    size = (max(1, round(box[2] / MOSAIC_PIXEL_MM)), max(1, round(box[3] / MOSAIC_PIXEL_MM)))
    outlines = []
    if scan.mars is not None:
        regions = orient(scan.mars[where])
        for category, values in _CATEGORY_LABELS.items():
            paths = [smooth_outline(regions == v, box, tolerance=0.7) for v in values if (regions == v).any()]
            outlines.append((f"region {category}", "".join(paths)))
    if scan.brain is not None:
        outlines.append(("brain", smooth_outline(orient(scan.brain[where]), box, tolerance=0.6)))
    return Picture(
        src=png_uri(to_grey(shrink(orient(volume.data[where]), size), scan.window, MOSAIC_LEVELS)),
        alt=f"{plane.capitalize()} slice with the borders of the brain mask and of the regions",
        caption=plane.capitalize(),
        plane=plane,
        frame=box,
        box=box,
        outlines=tuple(o for o in outlines if o[1]),
    )
