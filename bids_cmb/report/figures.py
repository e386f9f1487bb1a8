"""The pictures of a scan: what a card shows of one place, ready for the template.

A picture is a small greyscale PNG at the image's own resolution with vector outlines and marks over it, so that the
page can enlarge, smooth, mirror or bare it without another image. All pictures of a scan share one window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_cmb.report.data import CONTRAST_NAMES, Finding, LabelImage, ScanResult
from bids_cmb.report.outlines import voxel_outline
from bids_cmb.report.pixels import (
    PLANE_AXES,
    Labels,
    Plane,
    Window,
    choose_window,
    cut,
    load_canonical,
    load_labels,
    orient,
    plane_point,
    png_uri,
    project,
    slab_bounds,
    to_grey,
    to_millimetres,
    to_voxel,
)
from bids_cmb.types import BoolArray, Contrast, Point, Volume

#: Edge of a crop and thickness of the slab beside it, mm.
CROP_MM = 30.0
SLAB_MM = 8.0
#: A neighbouring slice is the next one, or where slices are thin the one nearest to this distance, mm.
NEIGHBOUR_MM = 2.0
PROJECTION_NAMES: dict[Contrast, str] = {
    "gre": "minimum intensity",
    "swi": "minimum intensity",
    "qsm": "maximum intensity",
}


@dataclass(frozen=True)
class Mark:
    """A numbered ring on a picture; positions and radius in mm of the frame."""

    x: float
    y: float
    radius: float
    label: str
    label_x: float
    label_y: float
    kind: str
    href: str
    title: str


@dataclass(frozen=True)
class Picture:
    """One picture as the template draws it.

    Attributes
    ----------
    src, alt, caption
        Data URI of the pixels, the words for those who cannot see them, the words below.
    plane
        Decides the letters at the sides.
    frame
        Left, top, width and height in mm of what is shown (the SVG view box).
    box
        The same of the pixels.
    outlines
        (class, SVG path) of each outline.
    ticks
        Whether small ticks at the edges point to the centre.
    reading
        Susceptibility at the centre, ppm, where the picture is a QSM.
    """

    src: str
    alt: str
    caption: str
    plane: Plane
    frame: tuple[float, float, float, float]
    box: tuple[float, float, float, float]
    outlines: tuple[tuple[str, str], ...] = ()
    marks: tuple[Mark, ...] = ()
    ticks: bool = False
    reading: float | None = None

    @property
    def view_box(self) -> str:
        """The frame as SVG writes it."""
        return " ".join(f"{value:.6g}" for value in self.frame)

    @property
    def image_style(self) -> str:
        """Where the pixels lie in the frame, as CSS percentages."""
        left, top, width, height = self.frame
        return (
            f"left:{(self.box[0] - left) / width:.3%};top:{(self.box[1] - top) / height:.3%};"
            f"width:{self.box[2] / width:.3%};height:{self.box[3] / height:.3%}"
        )


@dataclass(frozen=True)
class LoadedScan:
    """A scan with its image and labels in memory, all on one canonical grid; what could not be read is None."""

    result: ScanResult
    volume: Volume
    window: Window
    brain: BoolArray | None
    mars: Labels | None
    labels: dict[LabelImage, Labels] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def load_scan(result: ScanResult) -> LoadedScan | str:
    """Load a scan's image and label images.

    Returns
    -------
    LoadedScan or str
        Or the sentence that says why there are no pictures.
    """
    if result.image is None:
        return (
            f"The image {result.source} is not where the page was made (moved, or its data not fetched), "
            "so there are no pictures; all figures are those of the results."
        )
    try:
        volume = _as_detected(load_canonical(result.image), result)
    except Exception as error:  # noqa: BLE001 - any unreadable file must still leave a page
        return f"The image {result.image.name} could not be read ({error}), so there are no pictures."
    images: dict[LabelImage, Labels] = {}
    problems = []
    kinds: tuple[LabelImage, ...] = ("brain", "mars", "microbleeds", "candidates")
    for kind in kinds:
        labels, problem = _load_label_image(result.label_image(kind), kind, volume.data.shape)
        if labels is not None:
            images[kind] = labels
        if problem:
            problems.append(problem)
    brain = images["brain"] > 0 if "brain" in images else None
    window = choose_window(volume.data, brain, result.contrast)
    return LoadedScan(result, volume, window, brain, images.get("mars"), images, tuple(problems))


def _as_detected(volume: Volume, result: ScanResult) -> Volume:
    """In millimetres, and a QSM in ppm with blood positive, as the detector read the file."""
    affine = volume.affine.copy()
    affine[:3] *= to_millimetres(affine, result.sidecar.get("VoxelSize"))
    data, conversion = volume.data, result.sidecar.get("SusceptibilityConversion")
    if result.contrast == "qsm" and isinstance(conversion, dict):
        factor, offset = (conversion.get(name) for name in ("Factor", "Offset"))
        if isinstance(factor, int | float) and isinstance(offset, int | float):
            data = (data - np.float32(offset)) * np.float32(factor)
    return Volume(data, affine)


def _load_label_image(path: Path | None, kind: str, shape: tuple[int, ...]) -> tuple[Labels | None, str]:
    if path is None:
        return None, f"The {kind} label image is missing, so its outlines are not drawn."
    try:
        labels = load_labels(path)
    except Exception as error:  # noqa: BLE001 - as above
        return None, f"{path.name} could not be read ({error}), so its outlines are not drawn."
    if labels.shape != shape:
        return None, f"{path.name} does not lie on the image's grid, so its outlines are not drawn."
    return labels, ""


def draw_finding(scan: LoadedScan, finding: Finding, kind: LabelImage = "microbleeds") -> list[Picture]:
    """Draw the pictures of one microbleed (or rejected candidate).

    Parameters
    ----------
    scan
        Its scan.
    finding
        The table row.
    kind
        Which label image holds its outline.

    Returns
    -------
    list of Picture
        The slice below, the axial slice, the slice above, the axial slab projection, coronal, sagittal; empty if
        the row has no position.
    """
    if any(np.isnan(finding.position)):
        return []
    volume, contrast = scan.volume, scan.result.contrast
    centre = to_voxel(volume, finding.position)
    labels = scan.labels.get(kind)
    name = f"{'microbleed' if kind == 'microbleeds' else 'candidate'} {finding.index}"
    slice_z, zoom_z = round(centre[2]), volume.zooms[2]
    step = max(1, round(NEIGHBOUR_MM / zoom_z))

    def draw(plane: Plane, through: slice | int, caption: str, alt: str) -> Picture:
        piece, box = cut(volume.data, volume.zooms, plane, centre, CROP_MM, through)
        outline = ""
        if labels is not None:
            around, _ = cut(labels, volume.zooms, plane, centre, CROP_MM, through)
            mask = around == finding.index
            outline = voxel_outline(orient(mask.any(axis=2) if mask.ndim == 3 else mask), box)
        if piece.ndim == 3:
            piece = project(piece, contrast)
        return Picture(
            src=png_uri(to_grey(orient(piece), scan.window)),
            alt=f"{alt} of {name}, {CONTRAST_NAMES[contrast]}, {finding.place}",
            caption=caption,
            plane=plane,
            frame=_frame(volume, plane, centre),
            box=box,
            outlines=((f"lesion {finding.certainty or 'possible'}", outline),) if outline else (),
            ticks=True,
        )

    pictures = []
    for offset, word in ((-step, "below"), (0, ""), (step, "above")):
        where = f"{abs(offset) * zoom_z:.2g} mm {word}"
        if not 0 <= slice_z + offset < volume.data.shape[2]:
            continue
        caption, alt = (where.capitalize(), f"Axial slice {where}") if offset else ("Axial", "Axial slice")
        pictures.append(draw("axial", slice_z + offset, caption, alt))
    slab = slab_bounds(volume.data.shape[2], slice_z, zoom_z, SLAB_MM)
    thickness = (slab.stop - slab.start) * zoom_z
    short = "MIP" if contrast == "qsm" else "minIP"
    pictures.append(
        draw("axial", slab, f"{short}, {thickness:.2g} mm", f"Axial {PROJECTION_NAMES[contrast]} projection")
    )
    pictures.append(draw("coronal", round(centre[1]), "Coronal", "Coronal slice"))
    pictures.append(draw("sagittal", round(centre[0]), "Sagittal", "Sagittal slice"))
    return pictures


def draw_companion(
    volume: Volume, window: Window, name: str, position: Point, contrast: Contrast | None
) -> Picture | None:
    """Draw the same place, by scanner coordinates, on another image of the session; None where it does not reach."""
    if any(np.isnan(position)):
        return None
    centre = to_voxel(volume, position)
    if not all(-0.5 <= index <= size - 0.5 for index, size in zip(centre, volume.data.shape, strict=True)):
        return None
    piece, box = cut(volume.data, volume.zooms, "axial", centre, CROP_MM, round(centre[2]))
    value = susceptibility_at(volume, position) if contrast == "qsm" and window.unit == "ppm" else None
    reading = "" if value is None else f"{value:+.2f} ppm"
    return Picture(
        src=png_uri(to_grey(orient(piece), window)),
        alt=f"Axial slice at the same place on {name}" + (f", {reading}" if reading else ""),
        caption=name + (f", {reading}" if reading else ""),
        plane="axial",
        frame=_frame(volume, "axial", centre),
        box=box,
        ticks=True,
        reading=value,
    )


def susceptibility_at(volume: Volume, position: Point, radius: float = 2.5) -> float:
    """Return the strongest susceptibility within a small sphere: the value farthest from that of its surroundings.

    Parameters
    ----------
    volume
        Susceptibility map.
    position
        World position, mm.
    radius
        Of the sphere, mm; the surroundings reach out to three times as far.

    Returns
    -------
    float
        In the map's unit.
    """
    centre = np.array(to_voxel(volume, position))
    reach = np.ceil(3 * radius / np.array(volume.zooms)).astype(int)
    start = np.maximum(np.rint(centre).astype(int) - reach, 0)
    stop = np.minimum(np.rint(centre).astype(int) + reach + 1, volume.data.shape)
    block = volume.data[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    grid = np.indices(block.shape).reshape(3, -1).T + start
    distance = np.linalg.norm((grid - centre) * np.array(volume.zooms), axis=1)
    values = block.reshape(-1)
    around = float(np.median(values))
    # At least the nearest voxel is inside, however thick the slices are.
    inside = values[distance <= max(radius, float(distance.min()) + 1e-6)]
    return float(inside[np.argmax(np.abs(inside - around))])


def _frame(volume: Volume, plane: Plane, centre: Point) -> tuple[float, float, float, float]:
    """Return the square of `CROP_MM` round a voxel's centre."""
    rounded = (float(round(centre[0])), float(round(centre[1])), float(round(centre[2])))
    x, y = plane_point(volume.data.shape, volume.zooms, plane, rounded)
    return (x - CROP_MM / 2, y - CROP_MM / 2, CROP_MM, CROP_MM)


def brain_box(
    mask: npt.NDArray[Any] | None, shape: Sequence[int], margin: tuple[int, int, int] = (3, 3, 3)
) -> tuple[slice, slice, slice]:
    """Return the slices that hold a mask with a margin in voxels; all of the image for an empty mask."""
    if mask is None or not mask.any():
        return (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    found = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        places = np.flatnonzero(mask.any(axis=others))
        first, last = int(places[0]) - margin[axis], int(places[-1]) + margin[axis]
        found.append(slice(max(first, 0), min(last + 1, shape[axis])))
    return (found[0], found[1], found[2])


def slice_box(
    bounds: tuple[slice, slice, slice], shape: Sequence[int], zooms: Point, plane: Plane
) -> tuple[float, float, float, float]:
    """Return the box in mm of a plane that index bounds cover."""
    across, down, _ = PLANE_AXES[plane]
    return (
        (shape[across] - bounds[across].stop) * zooms[across],
        (shape[down] - bounds[down].stop) * zooms[down],
        (bounds[across].stop - bounds[across].start) * zooms[across],
        (bounds[down].stop - bounds[down].start) * zooms[down],
    )
