"""The detector's working grid: one voxel size for all scans, cropped to the brain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bids_cmb.types import Affine, BoolArray, Volume

#: In-plane voxel of the working grid and the thinnest slice, mm. Thinner slices are averaged, thicker ones kept.
IN_PLANE = 0.75
THINNEST_SLICE = 1.5
_KEEP_BELOW = 1.4
#: Slices lie along the axis whose voxels are longer than the others by this factor; else along z.
_ANISOTROPIC = 1.3
_MARGIN = 5.0


@dataclass(frozen=True)
class WorkingGrid:
    """How image voxels relate to working voxels.

    Attributes
    ----------
    order
        Image axis of each working axis; the last one is the slice direction.
    start, stop
        Image voxels that are covered, per working axis.
    shape
        Working grid.
    spacing
        Working voxel edges, mm.
    """

    order: tuple[int, int, int]
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @classmethod
    def around(cls, affine: Affine, brain_mask: BoolArray) -> WorkingGrid:
        """Lay the grid around a brain mask.

        Parameters
        ----------
        affine
            Image voxel to world, mm.
        brain_mask
            Bool (X, Y, Z) on the image grid, not empty.
        """
        zooms = np.linalg.norm(affine[:3, :3], axis=0)
        longest = int(np.argmax(zooms))
        others = [float(zooms[a]) for a in range(3) if a != longest]
        slices = longest if zooms[longest] > _ANISOTROPIC * max(others) else 2
        order = (*[a for a in range(3) if a != slices], slices)
        start, stop, shape, spacing = [], [], [], []
        for position, axis in enumerate(order):
            occupied = np.flatnonzero(brain_mask.any(axis=tuple(a for a in range(3) if a != axis)))
            margin = math.ceil(_MARGIN / zooms[axis])
            low, high = (
                max(0, int(occupied[0]) - margin),
                min(brain_mask.shape[axis], int(occupied[-1]) + 1 + margin),
            )
            length = (high - low) * float(zooms[axis])
            if position < 2:
                wanted = IN_PLANE
            else:
                wanted = THINNEST_SLICE if zooms[axis] < _KEEP_BELOW else float(zooms[axis])
            count = max(1, round(length / wanted))
            start.append(low)
            stop.append(high)
            shape.append(count)
            spacing.append(length / count)
        return cls(_three(order), _three(start), _three(stop), _three(shape), _three(spacing))

    def to_working(self, image: Tensor) -> Tensor:
        """Resample (X, Y, Z) from the image grid to the working grid, averaging where it gets coarser."""
        out = image.permute(self.order)
        out = out[tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))]
        for axis, count in enumerate(self.shape):
            matrix = resize_matrix(out.shape[axis], count).to(out)
            out = (out.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
        return out.contiguous()

    def image_voxels(self, working: Tensor) -> Tensor:
        """Image voxel coordinates (N, 3) of working voxel coordinates (N, 3)."""
        out = torch.empty_like(working)
        for position, axis in enumerate(self.order):
            scale = (self.stop[position] - self.start[position]) / self.shape[position]
            out[:, axis] = (working[:, position] + 0.5) * scale - 0.5 + self.start[position]
        return out

    @property
    def extent(self) -> tuple[float, float, float]:
        """Edges of the grid along the image axes, mm."""
        edges = {axis: self.shape[i] * self.spacing[i] for i, axis in enumerate(self.order)}
        return edges[0], edges[1], edges[2]

    def places(self, working: Tensor) -> Tensor:
        """Where working voxel coordinates (N, 3) lie in the grid, along the image axes: (N, 3) from -1 to 1."""
        out = torch.empty_like(working)
        for position, axis in enumerate(self.order):
            out[:, axis] = 2 * (working[:, position] + 0.5) / self.shape[position] - 1
        return out

    def working_voxels(self, image: Tensor) -> Tensor:
        """Working voxel coordinates (N, 3) of image voxel coordinates (N, 3): the inverse of `image_voxels`."""
        out = torch.empty_like(image)
        for position, axis in enumerate(self.order):
            scale = (self.stop[position] - self.start[position]) / self.shape[position]
            out[:, position] = (image[:, axis] - self.start[position] + 0.5) / scale - 0.5
        return out


def prepare_for_grid(volume: Volume, device: torch.device) -> Tensor:
    """Bring an image to the device as float32."""
    return torch.from_numpy(np.ascontiguousarray(volume.data, dtype=np.float32)).to(device)


def resize_matrix(source: int, target: int) -> Tensor:
    """Linear interpolation of one axis over the same extent, as a (target, source) matrix.

    The triangle is as wide as the coarser of the two voxels, so that nothing is skipped; voxel centres of both
    grids are placed symmetrically, so that flips commute with resizing.
    """
    scale = source / target
    width = max(1.0, scale)
    centre = (torch.arange(target, dtype=torch.float64) + 0.5) * scale - 0.5
    distance = (torch.arange(source, dtype=torch.float64) - centre[:, None]).abs() / width
    weight = (1 - distance).clamp(min=0)
    return (weight / weight.sum(dim=1, keepdim=True)).float()


def _three(values: list[int] | tuple[int, ...] | list[float]) -> tuple:  # type: ignore[type-arg]
    a, b, c = values
    return a, b, c
