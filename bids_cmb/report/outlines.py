"""Masks in, SVG paths out. Coordinates are millimetres of the plane (see `pixels`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.measure import approximate_polygon, find_contours

Box = tuple[float, float, float, float]


def voxel_outline(mask: npt.NDArray[Any], box: Box) -> str:
    """Draw the edge of a mask along its voxel borders, exactly as it was labelled.

    Parameters
    ----------
    mask
        Picture rows and columns, true inside.
    box
        Left, top, width and height of the picture in mm.

    Returns
    -------
    str
        Path data of straight runs; empty for an empty mask.
    """
    padded = np.pad(mask.astype(bool), 1)
    step_x, step_y = box[2] / mask.shape[1], box[3] / mask.shape[0]
    parts = []
    for row, first, last in _runs(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        parts.append(
            f"M{_n(box[0] + first * step_x)} {_n(box[1] + row * step_y)}h{_n((last - first) * step_x)}"
        )
    for column, first, last in _runs((padded[1:-1, 1:] != padded[1:-1, :-1]).T):
        parts.append(
            f"M{_n(box[0] + column * step_x)} {_n(box[1] + first * step_y)}v{_n((last - first) * step_y)}"
        )
    return "".join(parts)


def smooth_outline(mask: npt.NDArray[Any], box: Box, tolerance: float = 0.5, smallest: int = 8) -> str:
    """Draw the edge of a large mask as closed polygons with few corners.

    Parameters
    ----------
    mask, box
        As in `voxel_outline`.
    tolerance
        Largest deviation from the edge, in pixels.
    smallest
        Contours with fewer points than this are left out as specks.
    """
    padded = np.pad(mask.astype(np.float32), 1)
    step_x, step_y = box[2] / mask.shape[1], box[3] / mask.shape[0]
    parts = []
    for contour in find_contours(padded, 0.5):
        if len(contour) < smallest:
            continue
        corners = approximate_polygon(contour, tolerance)
        points = [
            f"{_n(box[0] + (column - 0.5) * step_x)} {_n(box[1] + (row - 0.5) * step_y)}"
            for row, column in corners[:-1]
        ]
        if len(points) >= 3:
            parts.append("M" + "L".join(points) + "Z")
    return "".join(parts)


def _runs(edges: npt.NDArray[np.bool_]) -> Iterable[tuple[int, int, int]]:
    """Yield (row, first, last) of every run of true values, row by row."""
    for row in np.flatnonzero(edges.any(axis=1)):
        flips = np.flatnonzero(np.diff(np.concatenate(([0], edges[row].astype(np.int8), [0]))))
        for first, last in zip(flips[::2], flips[1::2], strict=True):
            yield int(row), int(first), int(last)


def _n(value: float) -> str:
    """Write a number with at most two decimals and no useless zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".").replace("-0.", "-.").lstrip("0") or "0"
