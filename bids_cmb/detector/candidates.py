"""Stage 1: a network run over the whole brain, and the peaks of its heat map."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bids_cmb.detector.inference import folded
from bids_cmb.detector.networks import CandidateNet

#: Most slices computed at once (a whole brain has 95 to 105 of 1.5 mm), and how far the network reaches across slices:
#: so many beside a block are computed twice.
_BLOCK_SLICES = 112
_HALO = 16
#: Two peaks nearer than this are one candidate, mm.
PEAK_DISTANCE = 3.5
#: No scan keeps more candidates than this, the best first.
MOST_CANDIDATES = 500


@torch.inference_mode()
def heat_map(network: CandidateNet, channels: Tensor) -> Tensor:
    """Run the candidate network fully convolutionally.

    Parameters
    ----------
    network
        In evaluation mode.
    channels
        (C, x, y, z) from `network_input`.

    Returns
    -------
    Tensor
        (x, y, z) in 0..1.
    """
    network = folded(network)
    x, y, z = channels.shape[1:]
    padded = F.pad(channels, (0, z % 2, 0, -y % 8, 0, -x % 8))
    out = torch.empty((x, y, z), device=channels.device)
    step = math.ceil(z / math.ceil(z / _BLOCK_SLICES))
    step += step % 2  # slices are pooled in pairs
    for first in range(0, z, step):
        count, low = min(step, z - first), max(0, first - _HALO)
        block = padded[None, ..., low : first + step + _HALO]
        block = block.contiguous(memory_format=torch.channels_last_3d)  # a third less time on a CPU
        heat = torch.sigmoid(network(block))[0, 0, :x, :y]
        out[..., first : first + count] = heat[..., first - low : first - low + count]
    return out


def find_peaks(heat: Tensor, spacing: tuple[float, float, float], threshold: float) -> tuple[Tensor, Tensor]:
    """Local maxima of a heat map, at least `PEAK_DISTANCE` mm apart.

    Parameters
    ----------
    heat
        (x, y, z).
    spacing
        Voxel edges, mm.
    threshold
        Least height.

    Returns
    -------
    tuple
        Voxel coordinates (N, 3) long and heights (N,), highest first.
    """
    highest = heat[None, None]
    for axis, edge in enumerate(spacing):  # one axis after the other: the same in half the time
        reach = [0, 0, 0]
        reach[axis] = max(1, round(2.0 / edge))
        highest = F.max_pool3d(highest, [2 * r + 1 for r in reach], stride=1, padding=reach)
    highest = highest[0, 0]
    voxels = torch.nonzero((heat == highest) & (heat >= threshold))
    heights = heat[tuple(voxels.T)]
    order = torch.sort(heights, descending=True, stable=True).indices[: 4 * MOST_CANDIDATES]
    voxels, heights = voxels[order], heights[order]
    scale = torch.tensor(spacing, device=heat.device)
    kept: list[int] = []
    places = voxels.float() * scale
    for i in range(len(voxels)):
        if len(kept) == MOST_CANDIDATES:
            break
        if not kept or float((places[kept] - places[i]).norm(dim=1).min()) >= PEAK_DISTANCE:
            kept.append(i)
    return voxels[kept], heights[kept]
