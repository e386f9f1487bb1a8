"""What lies around a place of a simulated scan, so that a false detection can be told by its cause."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bids_cmb.training.simulate.grids import smooth
from bids_cmb.training.simulate.physics import Acquisition, apply_along
from bids_cmb.training.simulate.subject import Subject
from bids_cmb.training.simulate.tissues import BRAIN, Tissue, one_of
from bids_cmb.training.simulate.vessels import Vessels

#: Values of the map: a later one wins. 0 is ordinary tissue.
KINDS = ("", "sulcus or ventricle", "iron of a nucleus", "air or bone", "flow void", "vein")
#: Share of a voxel that makes it one of these; a vein darkens a voxel that it fills by a few hundredths.
_SHARES = (0.5, 0.5, 0.3, 0.05, 0.05)
_VESSELS = ("flow void", "vein")
_FLUID = (Tissue.CSF, Tissue.VENTRICLE)
_IRON = (Tissue.PALLIDUM, Tissue.PUTAMEN, Tissue.RED_NUCLEUS, Tissue.SUBSTANTIA_NIGRA, Tissue.DENTATE)


def on_grid(fine: Tensor, acquisition: Acquisition) -> Tensor:
    """Average a fine map over the final voxels: trilinear sampling of a smoothed copy, one axis after the other."""
    out = fine
    for axis in (2, 1, 0):  # slices first: they are fewest
        out = apply_along(out, _averages(fine.shape[axis], acquisition.final_size[axis]), axis)
    return out


def _averages(fine: int, final: int) -> Tensor:
    """Weights (final, fine) of the fine voxels of one axis in each final voxel."""
    factor = fine / final
    near = torch.eye(fine)
    smoothed = smooth(near[:, :, None], (0.4 * factor, 0.0, 0.0))[..., 0]
    place = (torch.arange(final) + 0.5) * factor - 0.5
    # Between the two nearest fine voxels; beyond the border there is nothing.
    between = (1 - (place[:, None] - torch.arange(fine)).abs()).clamp(min=0)
    return between @ smoothed


def surroundings(subject: Subject, vessels: Vessels, acquisition: Acquisition) -> npt.NDArray[np.uint8]:
    """Map what a voxel of the image holds besides ordinary tissue: indices of `KINDS`, (X, Y, Z)."""
    outside = ~one_of(subject.tissue, BRAIN)
    shares = (
        one_of(subject.tissue, _FLUID).float(),
        one_of(subject.tissue, _IRON).float(),
        outside.float(),
        vessels.voids,
        vessels.veins,
    )
    out = torch.zeros(acquisition.final_size, dtype=torch.uint8, device=subject.tissue.device)
    for kind, (share, least) in enumerate(zip(shares, _SHARES, strict=True), start=1):
        out[on_grid(share, acquisition) > least] = kind
    return out.cpu().numpy()


def cause_at(
    position: npt.NDArray[np.float64],
    mimics: tuple[tuple[tuple[float, float, float], float, str], ...],
    surround: npt.NDArray[np.uint8],
    affine: npt.NDArray[np.float64],
) -> str:
    """Name what is likely to have been taken for a microbleed.

    Parameters
    ----------
    position
        World mm.
    mimics
        World position (mm), radius (mm) and name of what was drawn.
    surround
        (X, Y, Z) from `surroundings`.
    affine
        Voxel to world.

    Returns
    -------
    str
        The nearest drawn mimic whose border is within 3 mm, those above 10 mm last; before them a vessel in a voxel
        within 1 mm, or what a tenth of the voxels within 2 mm hold; else ``tissue``.
    """
    borders = (
        (radius > 10, math.dist(position.tolist(), place) - radius, name) for place, radius, name in mimics
    )
    near = sorted(border for border in borders if border[1] <= 3.0)
    if near and not near[0][0]:
        return near[0][2]
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    centre = np.linalg.inv(affine)[:3] @ [*position, 1.0]
    low = np.maximum(0, np.floor(centre - 2 / zooms)).astype(int)
    high = np.minimum(surround.shape, np.ceil(centre + 2 / zooms).astype(int) + 1)
    box = surround[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    index = np.stack(
        np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), -1
    )
    distance = np.linalg.norm((index - centre) * zooms, axis=-1)
    close, near_by = (
        box[distance <= max(1.0, float(zooms.max()) / 2)],
        box[distance <= max(2.0, float(zooms.max()))],
    )
    for kind in reversed(range(1, len(KINDS))):
        found = (
            (close == kind).any()
            if KINDS[kind] in _VESSELS
            else near_by.size and (near_by == kind).mean() >= 0.1
        )
        if found:
            return KINDS[kind]
    return near[0][2] if near else "tissue"
