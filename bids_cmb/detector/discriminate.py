"""Stage 2: cubes around the candidates and the student's opinion of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bids_cmb.detector.networks import Student

#: Edge of a cube in plane, and how far it reaches across slices (mm; at least five slices).
CUBE_IN_PLANE = 36
CUBE_SLICES = 10
_CUBES_AT_ONCE = 32


def cut_cubes(channels: Tensor, centres: Tensor) -> Tensor:
    """Cut cubes around voxels, zero beyond the grid.

    Parameters
    ----------
    channels
        (C, x, y, z) on the working grid.
    centres
        (N, 3) voxel coordinates, long.

    Returns
    -------
    Tensor
        (N, C, 36, 36, 10); the candidate lies at index 18, 18, 5.
    """
    half, deep = CUBE_IN_PLANE // 2, CUBE_SLICES // 2
    padded = F.pad(channels, (deep, deep, half, half, half, half))
    cubes = [
        padded[:, x : x + CUBE_IN_PLANE, y : y + CUBE_IN_PLANE, z : z + CUBE_SLICES]
        for x, y, z in centres.tolist()
    ]
    return (
        torch.stack(cubes)
        if cubes
        else channels.new_zeros((0, channels.shape[0], CUBE_IN_PLANE, CUBE_IN_PLANE, CUBE_SLICES))
    )


@torch.inference_mode()
def discriminate(student: Student, cubes: Tensor) -> Tensor:
    """Return the student's logits (N,) for cubes, averaged over the mirror images in plane."""
    logits = [
        torch.stack(
            [student(part), student(part.flip(2)), student(part.flip(3)), student(part.flip(2, 3))]
        ).mean(dim=0)
        for part in cubes.split(_CUBES_AT_ONCE)
    ]
    return torch.cat(logits) if logits else cubes.new_zeros(0)
