"""Stage 2: cubes around the candidates and the student's opinion of them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bids_cmb.detector.grid import WorkingGrid
from bids_cmb.detector.inference import folded
from bids_cmb.detector.networks import Student
from bids_cmb.types import CONTRASTS, Contrast

#: Edge of a cube in plane (21 mm) and across slices, working voxels.
CUBE_IN_PLANE = 28
CUBE_SLICES = 10
#: Channels of a cube: three of the near view and three of the wide one, see `stage2_cubes`.
CUBE_CHANNELS = 6
#: The wide view joins two slices where they are thinner than this, mm: ten thicker ones reach far enough.
_POOL_SLICES_BELOW = 2.5
_CUBES_AT_ONCE = 32
#: Edges (mm, left-right, back-front, bottom-top) of the box around a whole brain and a margin of 5 mm.
_WHOLE_BRAIN = ((105.0, 195.0), (130.0, 230.0), (95.0, 215.0))


def cut_cubes(channels: Tensor, centres: Tensor, by: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
    """Cut cubes around voxels, zero beyond the grid.

    Parameters
    ----------
    channels
        (C, x, y, z) on the working grid.
    centres
        (N, 3) voxel coordinates, long.
    by
        So many voxels of each axis are averaged into one of the cube, which reaches as much farther.

    Returns
    -------
    Tensor
        (N, C, 28, 28, 10); the candidate lies at index 14, 14, 5.
    """
    edges = [CUBE_IN_PLANE * by[0], CUBE_IN_PLANE * by[1], CUBE_SLICES * by[2]]
    before = [n // 2 for n in edges]
    padded = F.pad(channels, [n for reach in reversed(before) for n in (reach, reach)])
    cubes = [padded[:, x : x + edges[0], y : y + edges[1], z : z + edges[2]] for x, y, z in centres.tolist()]
    if max(by) > 1:
        cubes = [F.avg_pool3d(cube, by) for cube in cubes]
    return (
        torch.stack(cubes)
        if cubes
        else channels.new_zeros((0, channels.shape[0], CUBE_IN_PLANE, CUBE_IN_PLANE, CUBE_SLICES))
    )


def stage2_cubes(
    channels: Tensor, heat: Tensor, peaks: Tensor, spacing: tuple[float, float, float]
) -> Tensor:
    """Cut what teacher and student see of candidates: image, symmetry and stage-1 heat, near by and from afar.

    The near view is 21 mm wide, the wide one 42 mm at half the resolution: a bleed of 10 mm fills the near view, and
    a vein that is cut across shows its course only beyond it.

    Parameters
    ----------
    channels, heat
        (2, x, y, z) from `network_input`, and the heat map (x, y, z) of stage 1.
    peaks
        (N, 3) working voxels of the candidates.
    spacing
        Working voxel edges, mm.

    Returns
    -------
    Tensor
        (N, 6, 28, 28, 10): three channels of the near view and three of the wide one.
    """
    maps = torch.cat([channels, heat[None]])
    by = (2, 2, 2 if spacing[2] < _POOL_SLICES_BELOW else 1)
    return torch.cat([cut_cubes(maps, peaks), cut_cubes(maps, peaks, by)], dim=1)


def candidate_facts(contrast: Contrast, grid: WorkingGrid, peaks: Tensor) -> Tensor:
    """What stage 2 is told of candidates besides their cubes: slice thickness, contrast and place.

    A dot that shows on one slice only is a bleed where slices are 5 mm apart and noise where they are 1.5 mm apart;
    a dot in the midline at the back of the brain is the sagittal sinus. The cube shows neither.

    Parameters
    ----------
    contrast
        ``gre``, ``swi`` or ``qsm``.
    grid
        Working grid of the scan.
    peaks
        (N, 3) working voxels of the candidates.

    Returns
    -------
    Tensor
        (N, 8): logarithm of the slice spacing over 2.5 mm; 1 for the contrast and 0 for the others; 1 if the place is
        known; distance from the midplane, and place from back (-1) to front and from bottom to top of the box around
        the brain. The last four are 0 where the box is not that of a whole brain.
    """
    scan = torch.tensor([math.log(grid.spacing[2] / 2.5), *(float(contrast == c) for c in CONTRASTS)])
    place = grid.places(peaks.float().cpu())
    place[:, 0] = place[:, 0].abs()
    known = float(all(low <= mm <= high for (low, high), mm in zip(_WHOLE_BRAIN, grid.extent, strict=True)))
    return torch.cat([scan.expand(len(peaks), -1), torch.full((len(peaks), 1), known), known * place], dim=1)


@torch.inference_mode()
def discriminate(student: Student, cubes: Tensor, facts: Tensor) -> Tensor:
    """Return the student's logits (N,) for cubes with `facts` (N, 8), averaged over the mirror images in plane."""
    student = folded(student)
    logits = []
    for part, known in zip(cubes.split(_CUBES_AT_ONCE), facts.split(_CUBES_AT_ONCE), strict=True):
        told = known.to(part)
        part = part.contiguous(memory_format=torch.channels_last_3d)
        views = (part, part.flip(2), part.flip(3), part.flip(2, 3))
        logits.append(torch.stack([student(view, told) for view in views]).mean(dim=0))
    return torch.cat(logits) if logits else cubes.new_zeros(0)
