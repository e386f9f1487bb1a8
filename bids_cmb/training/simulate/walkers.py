"""Tubes drawn by random walks: points that step together, as tensors, with a calibre, splatted onto a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from bids_cmb.training.simulate.random_source import RandomSource

#: Share of its length over which a vein thins out towards an end, and what is left of its calibre there: veins begin
#: as venules and end in other veins, not as the blunt stumps that look like microbleeds.
_FADE, _THINNEST = 0.2, 0.15
#: Distance over which the calibre of an uneven vessel swells and narrows, mm.
_SWELL_MM = 5.0
#: Voxels that balls are drawn into at once, at most.
_AT_ONCE = 4_000_000
#: From points and headings (N, 3) to a correction of the headings.
Steer = Callable[[Tensor, Tensor], Tensor]
#: Which points (N, 3) end their walk (N,).
Stop = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Kind:
    """How one kind of vessel runs.

    Attributes
    ----------
    mm
        Least and greatest length.
    radius
        Least and greatest, mm.
    wander
        Standard deviation of the random change of direction in each step.
    taper
        Factor on the radius at its beginning and at its end.
    """

    mm: tuple[float, float]
    radius: tuple[float, float]
    wander: float
    taper: tuple[float, float]


@dataclass
class Beads:
    """Vessel points (N, 3) in fine voxels with radius (mm) and strength (0..1)."""

    points: Tensor
    radius: Tensor
    strength: Tensor

    @classmethod
    def join(cls, parts: Sequence[Beads]) -> Beads:
        """All points of several."""
        return cls(
            *(torch.cat([getattr(b, name) for b in parts]) for name in ("points", "radius", "strength"))
        )


def _walk(
    rng: RandomSource,
    starts: Tensor,
    heading: Tensor,
    steps: int,
    length: Tensor,
    steer: Steer,
    wander: float,
    stop: Stop | None,
) -> tuple[Tensor, Tensor]:
    """Let all walkers take unit steps of half a coarse voxel.

    Parameters
    ----------
    rng
        Source of chance.
    starts, heading
        (N, 3) coarse voxel coordinates and unit directions.
    steps
        Number of steps.
    length
        (N,) number of steps after which a walker rests.
    steer
        Function of (points, heading) -> correction (N, 3), added to the heading before it is made unit again.
    wander
        See `Kind`.
    stop
        Which points end their walk, or None if only its length does.

    Returns
    -------
    tuple
        Points (N, steps, 3) and a mask (N, steps) of those walked.
    """
    points, alive = [], []
    here, direction = starts, heading
    drift = torch.zeros_like(starts)
    running = torch.ones_like(length, dtype=torch.bool)
    for step in range(steps):
        if stop is not None:
            running = running & ~stop(here)
        points.append(here)
        alive.append(running & (step < length))
        drift = 0.8 * drift + wander * rng.randn(*starts.shape)
        direction = direction + drift + steer(here, direction)
        direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-6)
        here = here + 0.5 * direction
    return torch.stack(points, 1), torch.stack(alive, 1)


def grow(
    rng: RandomSource,
    kind: Kind,
    starts: Tensor,
    heading: Tensor,
    steer: Steer,
    *,
    voxel_mm: float,
    step: int,
    stop: Stop | None = None,
    uneven: float = 0.0,
) -> tuple[Beads, Tensor, Tensor]:
    """Grow a bundle of vessels.

    Parameters
    ----------
    rng
        Source of chance.
    kind
        Lengths and calibres.
    starts, heading
        (N, 3) coarse voxel coordinates and unit directions.
    steer
        Correction of the headings.
    voxel_mm, step
        Edge of a fine voxel, and how many of them a coarse one is wide.
    stop
        Which points end their vessel, or None if only its length does.
    uneven
        Standard deviation of the logarithm of the calibre at points about 5 mm apart; between them it runs straight.

    Returns
    -------
    tuple
        Beads in fine voxels; points (N, steps, 3) in coarse ones and a mask (N, steps) of those walked.
    """
    count = len(starts)
    per_mm = 2.0 / (step * voxel_mm)
    (shortest, longest), (thinnest, widest) = kind.mm, kind.radius
    length = (shortest + (longest - shortest) * rng.rand(count) ** 1.5) * per_mm
    steps = max(2, math.ceil(longest * per_mm))
    points, alive = _walk(rng, starts, heading, steps, length, steer, kind.wander, stop)
    base = torch.exp(math.log(thinnest) + (math.log(widest) - math.log(thinnest)) * rng.rand(count))
    along = torch.linspace(0, 1, steps, device=starts.device)[None] * (steps / length.clamp(min=2.0))[:, None]
    along = along.clamp(max=1)
    to_end = torch.minimum(along, 1 - along) / _FADE
    taper = kind.taper[0] + (kind.taper[1] - kind.taper[0]) * along
    calibre = base[:, None] * taper * to_end.clamp(_THINNEST, 1)
    if uneven and count:
        knots = rng.randn(count, max(2, math.ceil(steps / (_SWELL_MM * per_mm))))
        swell = F.interpolate(knots[:, None], size=steps, mode="linear", align_corners=True)[:, 0]
        calibre = calibre * torch.exp(uneven * swell)
    strength = (0.4 + 0.6 * rng.rand(count))[:, None].expand_as(calibre)
    return Beads(points[alive] * step, calibre[alive], strength[alive]), points, alive


def splat(shape: tuple[int, int, int], spacing: float, beads: Beads) -> Tensor:
    """Draw beads as soft balls and keep the largest coverage in each voxel.

    A vessel thinner than a voxel keeps its cross-section: the ball has the voxel's width and the area's share.
    """
    out = torch.zeros(shape[0] * shape[1] * shape[2], device=beads.points.device)
    half = spacing / 2
    size = torch.tensor(shape, device=beads.points.device)
    widest = float(beads.radius.max()) if len(beads.radius) else 0.0
    edges = [0.0, spacing]
    while edges[-1] <= widest:
        edges.append(2 * edges[-1])
    for low, high in pairwise(edges):
        chosen = (beads.radius >= low) & (beads.radius < high)
        reach = math.ceil(high / spacing + 0.5)
        axis = torch.arange(-reach, reach + 1, device=out.device)
        offsets = torch.cartesian_prod(axis, axis, axis)
        for part in torch.nonzero(chosen)[:, 0].split(max(1, _AT_ONCE // len(offsets))):
            points, radius = beads.points[part], beads.radius[part]
            wide = radius.clamp(min=half)
            share = (radius / wide) ** 2 * beads.strength[part]
            voxel = points.round().long()[:, None] + offsets
            distance = (voxel - points[:, None]).norm(dim=2) * spacing
            cover = ((wide[:, None] - distance) / spacing + 0.5).clamp(0, 1) * share[:, None]
            valid = ((voxel >= 0) & (voxel < size)).all(dim=2) & (cover > 0)
            flat = (voxel[..., 0] * shape[1] + voxel[..., 1]) * shape[2] + voxel[..., 2]
            out.scatter_reduce_(0, flat[valid], cover[valid], reduce="amax")
    return out.reshape(shape)
