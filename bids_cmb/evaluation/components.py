"""Lesions out of label maps: connected components, their centres, volumes and voxels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.evaluation.cases import Grid, Prediction, VoxelArray
from bids_cmb.types import BoolArray, Candidate, Detection, LabelArray, Point


@dataclass(frozen=True, eq=False)
class Component:
    """One labelled lesion of a map.

    Attributes
    ----------
    label
        Its value in the map.
    position
        Centre of its voxels, world mm.
    volume
        mm³.
    voxels
        Sorted flat indices (C order) into the map.
    """

    label: int
    position: Point
    volume: float
    voxels: VoxelArray


def label_components(mask: BoolArray, *, connectivity: int = 26) -> LabelArray:
    """Number the connected components of a mask of shape (x, y, z) from 1.

    Parameters
    ----------
    mask
        Boolean array.
    connectivity
        6 (faces) or 26 (faces, edges and corners).
    """
    structure = ndimage.generate_binary_structure(3, {6: 1, 26: 3}[connectivity])
    labels, _ = ndimage.label(mask, structure)
    return np.asarray(labels, dtype=np.int32)


def components(labels: npt.NDArray[np.integer], grid: Grid) -> list[Component]:
    """Describe every label of a map, in the order of the labels; 0 is background.

    Parameters
    ----------
    labels
        Integer array of ``grid.shape``.
    grid
        Where its voxels are.
    """
    flat = np.flatnonzero(labels)
    if flat.size == 0:
        return []
    values = labels.reshape(-1)[flat]
    order = np.argsort(values, kind="stable")
    flat, values = flat[order], values[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    found = []
    for voxels in np.split(flat, starts[1:]):
        label = int(labels.reshape(-1)[voxels[0]])
        x, y, z = _centre(voxels, grid)
        found.append(Component(label, (x, y, z), voxels.size * grid.voxel_volume, voxels.astype(np.int64)))
    return found


def _centre(voxels: VoxelArray, grid: Grid) -> tuple[float, float, float]:
    indices = np.stack(np.unravel_index(voxels, grid.shape), axis=1).astype(np.float64)
    x, y, z = grid.to_world(indices.mean(axis=0)[None])[0]
    return float(x), float(y), float(z)


def split(voxels: VoxelArray, grid: Grid, *, connectivity: int) -> list[Component]:
    """Take one outline apart into connected components, looking only at the box around it."""
    indices = np.stack(np.unravel_index(voxels, grid.shape), axis=1)
    low = indices.min(axis=0)
    box = np.zeros(indices.max(axis=0) - low + 1, dtype=np.bool_)
    box[tuple((indices - low).T)] = True
    labels = label_components(box, connectivity=connectivity)[tuple((indices - low).T)]
    parts = []
    for label in range(1, int(labels.max()) + 1):
        part = voxels[labels == label]
        parts.append(Component(label, _centre(part, grid), part.size * grid.voxel_volume, part))
    return parts


def on_grid(labels: npt.NDArray[np.integer], own: Grid, target: Grid) -> LabelArray:
    """Bring a label map to another grid by nearest neighbour.

    Parameters
    ----------
    labels
        Integer array of ``own.shape``.
    own, target
        Where it is and where it is wanted.

    Returns
    -------
    numpy.ndarray
        int32 array of ``target.shape``; 0 where the map does not reach.
    """
    result = np.zeros(target.shape, dtype=np.int32)
    occupied = np.argwhere(labels != 0)
    if occupied.size == 0:
        return result
    if own.matches(target):
        return labels.astype(np.int32)
    low, high = occupied.min(axis=0) - 0.5, occupied.max(axis=0) + 0.5
    corners = np.where(np.indices((2, 2, 2)).reshape(3, -1).T == 0, low, high)
    reach = target.to_index(own.to_world(corners))
    first = np.clip(np.floor(reach.min(axis=0)).astype(np.int64), 0, target.shape)
    last = np.clip(np.ceil(reach.max(axis=0)).astype(np.int64) + 1, 0, target.shape)
    if (last <= first).any():
        return result
    plane = np.stack(np.meshgrid(*map(np.arange, first[1:], last[1:]), indexing="ij"), axis=-1).reshape(-1, 2)
    for x in range(first[0], last[0]):
        points = np.concatenate([np.full((len(plane), 1), x), plane], axis=1).astype(np.float64)
        wanted = np.rint(own.to_index(target.to_world(points))).astype(np.int64)
        inside = ((wanted >= 0) & (wanted < own.shape)).all(axis=1)
        result[x, plane[inside, 0], plane[inside, 1]] = labels[tuple(wanted[inside].T)]
    return result


def predictions_of(
    detection: Detection, grid: Grid, attributes: Callable[[Candidate], Mapping[str, str]]
) -> tuple[Prediction, ...]:
    """Put together what a detector found on a scan, in its order, for `bids_cmb.evaluation.matching`.

    Parameters
    ----------
    detection
        Candidates and their outlines on `grid`.
    grid
        Of the scan.
    attributes
        What else to keep of a candidate.
    """
    outlines = {c.label: c.voxels for c in components(detection.labels, grid)}
    return tuple(
        Prediction(c.position, c.probability, c.volume, outlines.get(c.index), c.accepted, attributes(c))
        for c in detection.candidates
    )
