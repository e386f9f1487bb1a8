"""Stage 2: cubes around the candidates and the student's opinion of them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bids_cmb.detector.networks import Student
from bids_cmb.types import CONTRASTS, Contrast

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


def scan_facts(contrast: Contrast, slice_mm: float) -> Tensor:
    """What stage 2 is told of a scan: how thick its slices are, and which contrast it has.

    A dot that shows on one slice only is a bleed where slices are 5 mm apart and noise where they are 1.5 mm apart;
    the cube, in voxels, does not tell.

    Parameters
    ----------
    contrast
        ``gre``, ``swi`` or ``qsm``.
    slice_mm
        Slice spacing of the working grid, mm.

    Returns
    -------
    Tensor
        (4,): logarithm of the spacing over 2.5 mm, then 1 for the contrast and 0 for the others.
    """
    return torch.tensor([math.log(slice_mm / 2.5), *(float(contrast == c) for c in CONTRASTS)])


@torch.inference_mode()
def discriminate(student: Student, cubes: Tensor, facts: Tensor) -> Tensor:
    """Return the student's logits (N,) for cubes of a scan with `facts` (4,), averaged over the mirror images in plane."""
    logits = []
    for part in cubes.split(_CUBES_AT_ONCE):
        told = facts.to(part).expand(len(part), -1)
        views = (part, part.flip(2), part.flip(3), part.flip(2, 3))
        logits.append(torch.stack([student(view, told) for view in views]).mean(dim=0))
    return torch.cat(logits) if logits else cubes.new_zeros(0)
