"""What the networks see: local contrast with blood bright, and its radial symmetry. Training and inference share it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bids_cmb.detector.grid import WorkingGrid, prepare_for_grid
from bids_cmb.detector.radial_symmetry import radial_symmetry
from bids_cmb.types import BoolArray, Contrast, Volume

#: Width of the local tissue level (standard deviation, mm), and the susceptibility that maps to 1 (ppm).
_LEVEL_WIDTH = 15.0
_QSM_SCALE = 0.4
#: Radii of the symmetry channel, mm: the apparent sizes of microbleeds.
RADII = (1.0, 1.5, 2.0, 3.0)


def local_contrast(
    image: Tensor, mask: Tensor, spacing: tuple[float, float, float], contrast: Contrast
) -> Tensor:
    """Scale an image so that tissue is about 0 and a microbleed positive, outside the mask 0.

    GRE and SWI: ``1 - I / local level``, the level being a masked Gaussian mean of 15 mm. QSM: ``chi / 0.4 ppm``
    against the median of the brain; never inverted.

    Parameters
    ----------
    image, mask
        (X, Y, Z) on one grid; mask is bool.
    spacing
        Voxel edges, mm.
    contrast
        Decides the polarity.

    Returns
    -------
    Tensor
        float32 (X, Y, Z), within -1..1 (GRE, SWI) or -1.5..4 (QSM).
    """
    inside = mask.to(image.dtype)
    if contrast == "qsm":
        typical = image[mask].median() if bool(mask.any()) else image.new_zeros(())
        return ((image - typical) / _QSM_SCALE).clamp(-1.5, 4.0) * inside
    typical = image[mask].median() if bool(mask.any()) else image.new_ones(())
    if typical > 0:  # the unit of an image means nothing
        image, typical = image / typical, typical.new_ones(())
    limited = torch.minimum(
        torch.maximum(image, 0.3 * typical), 2.0 * typical
    )  # one bleed or vessel must not set the level
    level = _wide_mean(limited * inside, spacing) / _wide_mean(inside, spacing).clamp(min=1e-3)
    return (1 - image / level.clamp(min=1e-6)).clamp(-1.0, 1.0) * inside


def _wide_mean(image: Tensor, spacing: tuple[float, float, float]) -> Tensor:
    """Gaussian smoothing by `_LEVEL_WIDTH` mm, computed on a grid of about 4 mm."""
    coarse = [max(2, round(n * d / 4.0)) for n, d in zip(image.shape, spacing, strict=True)]
    out = F.adaptive_avg_pool3d(image[None, None], (coarse[0], coarse[1], coarse[2]))
    for axis, (n, d, c) in enumerate(zip(image.shape, spacing, coarse, strict=True)):
        width = _LEVEL_WIDTH / (n * d / c)
        reach = max(1, round(2.5 * width))
        offsets = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
        kernel = torch.exp(-0.5 * (offsets / width) ** 2)
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = -1
        pad = [0] * 6
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = reach
        out = F.conv3d(F.pad(out, pad), (kernel / kernel.sum()).reshape(shape))
    return F.interpolate(out, size=tuple(image.shape), mode="trilinear", align_corners=False)[0, 0]


def network_input(
    image: Volume, brain_mask: BoolArray, contrast: Contrast, device: torch.device
) -> tuple[Tensor, WorkingGrid]:
    """Make the two channels of the networks on the working grid.

    Parameters
    ----------
    image
        Prepared image.
    brain_mask
        Bool (X, Y, Z), not empty.
    contrast
        Decides the polarity.
    device
        Where to compute.

    Returns
    -------
    tuple
        (2, x, y, z): local contrast and radial symmetry, and the grid they lie on.
    """
    grid = WorkingGrid.around(image.affine, brain_mask)
    mask = grid.to_working(torch.from_numpy(brain_mask).to(device).float()) > 0.5
    level = local_contrast(grid.to_working(prepare_for_grid(image, device)), mask, grid.spacing, contrast)
    symmetry = radial_symmetry(level, grid.spacing, radii=RADII, polarity="bright", mask=mask)
    return torch.stack([level, symmetry]), grid
