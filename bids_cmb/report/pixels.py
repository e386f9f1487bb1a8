"""Volumes in, small greyscale pictures out: orientation, windows, slabs and PNG.

Every picture is drawn from a closest-canonical (RAS+) volume with both in-plane axes reversed, so that anterior
or superior is at the top and the patient's right is at the left of axial and coronal pictures (the radiological
convention). Positions inside a picture are millimetres from its top left corner.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image

from bids_cmb.types import Affine, BoolArray, Contrast, FloatArray, Point, Volume

Plane = Literal["axial", "coronal", "sagittal"]
#: Array axes of each plane: across the picture, down the picture, through it.
PLANE_AXES: dict[Plane, tuple[int, int, int]] = {
    "axial": (0, 1, 2),
    "coronal": (0, 2, 1),
    "sagittal": (1, 2, 0),
}
Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Window:
    """The intensities shown as black and as white, and their unit (empty where the image has none)."""

    low: float
    high: float
    unit: str = ""

    @property
    def text(self) -> str:
        """The window as a reader would write it."""
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.low:.3g} to {self.high:.3g}{unit}"


def load_canonical(path: Path) -> Volume:
    """Read an image as float32 on its closest-canonical grid; a 4-D file with one volume is 3-D.

    Raises
    ------
    ValueError
        If the image is not three-dimensional.
    """
    data, affine = _canonical_array(path)
    return Volume(np.asarray(data, dtype=np.float32), affine)


def to_millimetres(affine: Affine, stated: object) -> float:
    """Return the factor from the unit of a file's affine to mm, a power of 1000.

    Parameters
    ----------
    affine
        As the file has it, in metres, millimetres or micrometres.
    stated
        ``VoxelSize`` of the results, mm; anything else, and the file is taken to be in mm.
    """
    if not (
        isinstance(stated, list) and len(stated) == 3 and all(isinstance(s, int | float) for s in stated)
    ):
        return 1.0
    volume, own = float(np.prod(np.abs(stated))), abs(float(np.linalg.det(affine[:3, :3])))
    if not (volume > 0 and own > 0):
        return 1.0
    return float(1000.0 ** round(math.log10(volume / own) / 9))


def load_labels(path: Path) -> Labels:
    """Read a mask or label image as integers on its closest-canonical grid (the file's own type if that is one)."""
    data, _ = _canonical_array(path)
    return data if np.issubdtype(data.dtype, np.integer) else np.rint(data).astype(np.int32)


def _canonical_array(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    image: Any = nib.as_closest_canonical(nib.load(path))
    data = np.asanyarray(image.dataobj)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise ValueError(f"{path.name} has {data.ndim} dimensions, not three")
    if not np.issubdtype(data.dtype, np.integer):
        data = np.nan_to_num(data, posinf=0, neginf=0)
    return data, np.asarray(image.affine, dtype=np.float64)


def to_voxel(volume: Volume, position: Point) -> Point:
    """Return the continuous voxel index of a world position in mm."""
    index = np.linalg.solve(volume.affine, np.array([*position, 1.0]))
    return (float(index[0]), float(index[1]), float(index[2]))


def choose_window(data: FloatArray, brain: BoolArray | None, contrast: Contrast) -> Window:
    """Choose one window for all pictures of a scan.

    GRE and SWI run from zero (or the darkest half per cent of an image that goes below it) to the brightest half
    per cent of the brain; QSM is symmetric, so that mid-grey is no susceptibility.
    """
    inside = data[brain] if brain is not None and brain.any() else data[data != 0]
    if inside.size == 0:
        return Window(0.0, 1.0)
    if contrast == "qsm":
        limit = float(np.percentile(np.abs(inside), 99.5))
        # Susceptibility in ppm does not pass a few units in tissue: larger figures are ppb or of no unit.
        return Window(-limit or -1.0, limit or 1.0, "ppm" if limit < 5 else "")
    low = float(np.percentile(inside, 0.5)) if inside.min() < 0 else 0.0
    high = float(np.percentile(inside, 99.5))
    return Window(low, high if high > low else low + 1.0)


def to_grey(data: npt.NDArray[np.floating[Any]], window: Window, levels: int = 256) -> Pixels:
    """Map intensities to 8-bit grey, optionally on fewer levels (fewer bytes for a picture that is only a map)."""
    scaled = np.clip((data - window.low) / (window.high - window.low), 0, 1)
    if levels < 256:
        scaled = np.rint(scaled * (levels - 1)) / (levels - 1)
    grey: Pixels = np.rint(scaled * 255).astype(np.uint8)
    return grey


def orient(plane_data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn a slice indexed (across, up) of a canonical volume into picture rows and columns."""
    return plane_data[::-1, ::-1].T


def plane_point(shape: tuple[int, ...], zooms: Point, plane: Plane, voxel: Point) -> tuple[float, float]:
    """Where the centre of a voxel lies in a plane: mm from the left and from the top of the whole slice."""
    across, down, _ = PLANE_AXES[plane]
    return (
        (shape[across] - 0.5 - voxel[across]) * zooms[across],
        (shape[down] - 0.5 - voxel[down]) * zooms[down],
    )


def cut(
    data: npt.NDArray[Any], zooms: Point, plane: Plane, voxel: Point, size_mm: float, through: slice | int
) -> tuple[npt.NDArray[Any], tuple[float, float, float, float]]:
    """Cut a square of at least `size_mm` round a voxel out of a slice or a stack of slices.

    Parameters
    ----------
    data, zooms
        Canonical array (x, y, z) and its voxel size in mm.
    plane, voxel, size_mm
        The plane, the centre (voxel index) and the edge of the square.
    through
        The slice, or the slices, along the third axis; clipped to the image.

    Returns
    -------
    tuple
        The piece indexed (across, down[, through]), still unoriented, and its box in the plane, mm.
    """
    across, down, third = PLANE_AXES[plane]
    shape = data.shape
    starts, stops = {}, {}
    for axis in (across, down):
        centre = round(voxel[axis])
        half = int(np.ceil(size_mm / 2 / zooms[axis]))
        starts[axis] = min(max(centre - half, 0), shape[axis] - 1)
        stops[axis] = max(min(centre + half + 1, shape[axis]), starts[axis] + 1)
    index: list[slice | int] = [slice(None)] * 3
    index[across] = slice(starts[across], stops[across])
    index[down] = slice(starts[down], stops[down])
    if isinstance(through, slice):
        index[third] = through
        piece = np.moveaxis(data[tuple(index)], third, 2)
    else:
        index[third] = min(max(through, 0), shape[third] - 1)
        piece = data[tuple(index)]
    box = (
        (shape[across] - stops[across]) * zooms[across],
        (shape[down] - stops[down]) * zooms[down],
        (stops[across] - starts[across]) * zooms[across],
        (stops[down] - starts[down]) * zooms[down],
    )
    return piece, box


def slab_bounds(count: int, centre: int, zoom: float, thickness: float, least: int = 3) -> slice:
    """Slices of a slab round `centre`: an odd number, at least `least`, about `thickness` mm, inside the image."""
    half = max(least // 2, round((thickness / zoom - 1) / 2))
    return slice(max(centre - half, 0), min(centre + half + 1, count))


def project(stack: npt.NDArray[Any], contrast: Contrast) -> npt.NDArray[Any]:
    """Project a stack (across, down, through): the minimum, where microbleeds are dark, or on QSM the maximum."""
    projected: npt.NDArray[Any] = stack.max(axis=2) if contrast == "qsm" else stack.min(axis=2)
    return projected


def shrink(data: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Average a picture (rows, columns) down to `size` (columns, rows); never enlarges."""
    columns, rows = min(size[0], data.shape[1]), min(size[1], data.shape[0])
    if (rows, columns) == data.shape:
        return data.astype(np.float32)
    picture = Image.fromarray(np.ascontiguousarray(data, dtype=np.float32))
    return np.asarray(picture.resize((columns, rows), Image.Resampling.BOX))


def png_uri(pixels: Pixels) -> str:
    """Encode 8-bit grey pixels as a PNG data URI; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
