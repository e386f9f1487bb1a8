"""Veins and flow voids: the commonest mimics.

Trees are bundles of random walks with smooth directions. Medullary veins run through white matter towards the
ventricles and thicken on the way; cortical veins lie on the surface and in sulci; subependymal veins line the
ventricles; the internal cerebral, basal and great veins and the sinuses follow their course in MNI space.
All walkers of a kind step together, as tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from bids_cmb.training.simulate.grids import gradient, sample, smooth
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.subject import Subject
from bids_cmb.training.simulate.tissues import PARENCHYMA, Tissue

#: Course of the central veins and sinuses in MNI152 (mm) and their radius (mm); those off the midline are mirrored.
_COURSES: dict[str, tuple[tuple[tuple[float, float, float], ...], float]] = {
    "internal cerebral vein": (
        ((2.5, 0, 10), (2.5, -12, 14), (2.5, -26, 14), (2, -36, 10), (0.5, -42, 8)),
        0.9,
    ),
    "thalamostriate vein": (((17, -14, 19), (13, -5, 18), (8, 0, 14), (3, 0, 10)), 0.6),
    "septal vein": (((4, 26, 6), (2.5, 12, 10), (2.5, 1, 10)), 0.45),
    "basal vein": (((20, -2, -18), (19, -16, -14), (17, -28, -8), (10, -38, 0), (1, -42, 7)), 0.8),
    "great vein": (((0, -40, 7), (0, -46, 10), (0, -52, 12)), 1.7),
    "straight sinus": (((0, -52, 12), (0, -66, 8), (0, -80, 0), (0, -95, -8)), 2.2),
    "transverse sinus": (((0, -97, -8), (20, -95, -14), (42, -78, -22), (54, -58, -28), (55, -44, -34)), 2.6),
    "superior sagittal sinus": (
        (
            (0, 68, 8),
            (0, 70, 30),
            (0, 48, 60),
            (0, 16, 79),
            (0, -20, 85),
            (0, -54, 80),
            (0, -84, 50),
            (0, -102, 16),
            (0, -97, -8),
        ),
        2.6,
    ),
    "inferior sagittal sinus": (((0, 20, 32), (0, 0, 36), (0, -22, 34), (0, -44, 20), (0, -52, 12)), 0.5),
}

#: Share of its length over which a vein thins out towards an end, and what is left of its calibre there: veins begin
#: as venules and end in other veins, not as the blunt stumps that look like microbleeds.
_FADE, _THINNEST = 0.2, 0.15
#: A vein that leaves the parenchyma (share of it nearby below this) has drained: into a ventricle's wall or the pia.
_DRAINED = 0.4

#: From points and headings (N, 3) to a correction of the headings.
Steer = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Vessels:
    """Partial volumes of vessels on the fine grid, 0..1: veins (deoxygenated blood) and voids (fast flow)."""

    veins: Tensor
    voids: Tensor


@dataclass
class _Guides:
    """Smooth maps that steer the walkers, on a grid `step` times coarser than the fine one."""

    step: int
    surface: Tensor
    inward: Tensor
    to_ventricle: Tensor
    tissue: Tensor


def _guides(subject: Subject) -> _Guides:
    step = max(1, round(1.2 / subject.spacing))
    tissue = subject.tissue[::step, ::step, ::step].contiguous()
    parenchyma = _is(tissue, PARENCHYMA)
    width = 2.0 / (subject.spacing * step)
    surface = smooth(parenchyma, (width,) * 3)
    ventricle = smooth(_is(tissue, (Tissue.VENTRICLE,)), (5 * width,) * 3)
    return _Guides(step, surface, _unit(gradient(surface)), _unit(gradient(ventricle)), tissue)


def _is(tissue: Tensor, kinds: tuple[Tissue, ...]) -> Tensor:
    return torch.isin(
        tissue, torch.tensor([int(t) for t in kinds], dtype=tissue.dtype, device=tissue.device)
    ).float()


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=0, keepdim=True).clamp(min=1e-8)


def _starts(rng: RandomSource, where: Tensor, count: int) -> Tensor:
    """`count` random points (N, 3) of a coarse mask, jittered inside their voxel; fewer if the mask is empty."""
    voxels = torch.nonzero(where)
    if len(voxels) == 0 or count == 0:
        return torch.zeros(0, 3, device=where.device)
    return voxels[rng.pick(count, len(voxels))].float() + rng.rand(count, 3) - 0.5


def _walk(
    rng: RandomSource,
    starts: Tensor,
    heading: Tensor,
    steps: int,
    length: Tensor,
    steer: Steer,
    wander: float,
    drained: Callable[[Tensor], Tensor] | None,
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
        Standard deviation of the random change of direction in each step.
    drained
        Which points (N, 3) end their vein (N,), or None if only its length does.

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
        if drained is not None:
            running = running & ~drained(here)
        points.append(here)
        alive.append(running & (step < length))
        drift = 0.8 * drift + wander * rng.randn(*starts.shape)
        direction = direction + drift + steer(here, direction)
        direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-6)
        here = here + 0.5 * direction
    return torch.stack(points, 1), torch.stack(alive, 1)


@dataclass
class _Beads:
    """Vessel points (N, 3) in fine voxels with radius (mm) and strength (0..1)."""

    points: Tensor
    radius: Tensor
    strength: Tensor


def _bundle(
    rng: RandomSource,
    guides: _Guides,
    starts: Tensor,
    heading: Tensor,
    mm: tuple[float, float],
    radius: tuple[float, float],
    steer: Steer,
    wander: float,
    taper: tuple[float, float],
    spacing: float,
    drained: Callable[[Tensor], Tensor] | None = None,
) -> tuple[_Beads, Tensor, Tensor]:
    count = len(starts)
    per_mm = 2.0 / (guides.step * spacing)
    length = (mm[0] + (mm[1] - mm[0]) * rng.rand(count) ** 1.5) * per_mm
    steps = max(2, math.ceil(mm[1] * per_mm))
    points, alive = _walk(rng, starts, heading, steps, length, steer, wander, drained)
    base = torch.exp(math.log(radius[0]) + (math.log(radius[1]) - math.log(radius[0])) * rng.rand(count))
    along = torch.linspace(0, 1, steps, device=starts.device)[None] * (steps / length.clamp(min=2.0))[:, None]
    along = along.clamp(max=1)
    to_end = torch.minimum(along, 1 - along) / _FADE
    calibre = base[:, None] * (taper[0] + (taper[1] - taper[0]) * along) * to_end.clamp(_THINNEST, 1)
    strength = (0.4 + 0.6 * rng.rand(count))[:, None].expand_as(calibre)
    return _Beads((points[alive] + 0.0) * guides.step, calibre[alive], strength[alive]), points, alive


def draw_vessels(subject: Subject, rng: RandomSource, *, density: float = 1.0) -> Vessels:
    """Grow the veins and flow voids of one subject.

    Parameters
    ----------
    subject
        Property maps; steers the trees.
    rng
        Source of chance.
    density
        Factor on the numbers of veins.

    Returns
    -------
    Vessels
        Partial volumes on the subject's grid.
    """
    guides = _guides(subject)
    beads = [
        *_medullary(rng, guides, subject, density),
        *_cortical(rng, guides, subject, density),
        *_subependymal(rng, guides, subject, density),
        _central(rng, guides, subject),
    ]
    veins = splat(subject.shape, subject.spacing, _join(beads))
    voids = splat(subject.shape, subject.spacing, _join(_arteries(rng, guides, subject)))
    return Vessels(veins, voids)


def _join(beads: list[_Beads]) -> _Beads:
    return _Beads(
        *(torch.cat([getattr(b, name) for b in beads]) for name in ("points", "radius", "strength"))
    )


def _medullary(rng: RandomSource, guides: _Guides, subject: Subject, density: float) -> list[_Beads]:
    white = (
        _is(
            guides.tissue,
            (Tissue.WHITE_MATTER, Tissue.CEREBELLUM_WHITE, Tissue.CAUDATE, Tissue.THALAMUS, Tissue.PUTAMEN),
        )
        > 0
    )
    count = round(rng.uniform(90, 500) * density)
    starts = _starts(rng, white, count)
    toward = sample(guides.to_ventricle, starts).T
    # Half run centrally to the ventricle, the rest to the surface.
    sense = torch.where(rng.rand(len(starts), 1) < 0.65, 1.0, -1.0)

    def steer(points: Tensor, _: Tensor) -> Tensor:
        return 0.12 * sense * sample(guides.to_ventricle, points).T

    beads, points, alive = _bundle(
        rng,
        guides,
        starts,
        sense * toward,
        (12, 55),
        (0.12, 0.5),
        steer,
        0.05,
        (0.5, 1.1),
        subject.spacing,
        lambda here: sample(guides.surface, here) < _DRAINED,
    )
    return [
        beads,
        _branches(rng, guides, points, alive, subject, (5, 18), (0.08, 0.2), steer_count=round(0.8 * count)),
    ]


def _branches(
    rng: RandomSource,
    guides: _Guides,
    points: Tensor,
    alive: Tensor,
    subject: Subject,
    mm: tuple[float, float],
    radius: tuple[float, float],
    *,
    steer_count: int,
) -> _Beads:
    """Side branches that leave their parent at an angle and thin out; forks and kinks look like dots in a slice."""
    flat = points[alive]
    starts = flat[rng.pick(steer_count, len(flat))] if len(flat) else flat[:0]
    heading = rng.randn(len(starts), 3)
    heading = heading / heading.norm(dim=1, keepdim=True).clamp(min=1e-6)

    def steer(here: Tensor, _: Tensor) -> Tensor:
        on_surface = sample(guides.surface, here)[:, None] < 0.5
        return torch.where(on_surface, 0.4 * sample(guides.inward, here).T, torch.zeros_like(here))

    beads, _, _ = _bundle(rng, guides, starts, heading, mm, radius, steer, 0.08, (1.0, 0.6), subject.spacing)
    return beads


def _cortical(rng: RandomSource, guides: _Guides, subject: Subject, density: float) -> list[_Beads]:
    rim = (guides.surface > 0.35) & (guides.surface < 0.75)
    beads = []
    for share, mm, radius, wander in ((1.0, (12, 70), (0.25, 1.1), 0.06), (2.0, (7, 35), (0.12, 0.5), 0.10)):
        count = round(rng.uniform(150, 600) * density * share)
        starts = _starts(rng, rim, count)
        heading = rng.randn(len(starts), 3)
        level = 0.4 + 0.35 * rng.rand(len(starts), 1)

        def steer(points: Tensor, direction: Tensor, level: Tensor = level) -> Tensor:
            inward = sample(guides.inward, points).T
            across = (direction * inward).sum(1, keepdim=True)
            return (2.5 * (level - sample(guides.surface, points)[:, None]) - 0.8 * across) * inward

        made, points, alive = _bundle(
            rng, guides, starts, heading, mm, radius, steer, wander, (0.7, 1.0), subject.spacing
        )
        beads += [
            made,
            _branches(rng, guides, points, alive, subject, (4, 15), (0.08, 0.3), steer_count=count // 2),
        ]
    # Short veins that pierce the cortex.
    starts = _starts(rng, rim, round(rng.uniform(50, 300) * density))
    inward = sample(guides.inward, starts).T
    beads.append(
        _bundle(
            rng,
            guides,
            starts,
            inward,
            (4, 14),
            (0.08, 0.25),
            lambda p, _: torch.zeros_like(p),
            0.06,
            (1.1, 0.6),
            subject.spacing,
        )[0]
    )
    return beads


def _subependymal(rng: RandomSource, guides: _Guides, subject: Subject, density: float) -> list[_Beads]:
    ventricle = _is(guides.tissue, (Tissue.VENTRICLE,))
    near = smooth(ventricle, (1.2, 1.2, 1.2))
    inward = _unit(gradient(near))
    starts = _starts(rng, (near > 0.3) & (near < 0.7), round(rng.uniform(6, 40) * density))

    def steer(points: Tensor, direction: Tensor) -> Tensor:
        normal = sample(inward, points).T
        across = (direction * normal).sum(1, keepdim=True)
        return (2.5 * (0.45 - sample(near, points)[:, None]) - 0.8 * across) * normal

    return [
        _bundle(
            rng,
            guides,
            starts,
            rng.randn(len(starts), 3),
            (8, 45),
            (0.2, 0.7),
            steer,
            0.06,
            (0.6, 1.0),
            subject.spacing,
        )[0]
    ]


def _central(rng: RandomSource, guides: _Guides, subject: Subject) -> _Beads:
    points, radii = [], []
    for name, (course, radius) in _COURSES.items():
        middle = all(abs(p[0]) < 0.1 for p in course)
        for side in (1.0,) if middle else (1.0, -1.0):
            if rng.chance(0.1):
                continue
            nodes = torch.tensor(course, dtype=torch.float32, device=rng.device) * torch.tensor(
                [side, 1.0, 1.0], device=rng.device
            )
            nodes = (
                nodes
                + rng.randn(*nodes.shape) * 1.2
                + torch.tensor([rng.normal(0, 0.8), 0.0, 0.0], device=rng.device)
            )
            path = subject.from_mni(_curve(nodes, 0.35))
            if name == "superior sagittal sinus":
                path = _to_surface(path, guides)
            scale = math.exp(rng.normal(0, 0.25))
            points.append(path)
            radii.append(torch.full((len(path),), radius * scale, device=rng.device))
    joined = torch.cat(points)
    return _Beads(joined, torch.cat(radii), torch.ones(len(joined), device=rng.device))


def _to_surface(path: Tensor, guides: _Guides) -> Tensor:
    """Push points out of the brain (or pull them back to it) until they lie on its outer border."""
    here = path / guides.step
    for _ in range(40):
        outward = -sample(guides.inward, here).T
        inside = sample(guides.surface, here)[:, None]
        here = here + torch.where(inside > 0.02, 0.5 * outward, torch.zeros_like(outward))
    return here * guides.step


def _curve(nodes: Tensor, step: float) -> Tensor:
    """Smooth polyline (M, 3) through rough nodes (N, 3), in steps of about `step` mm."""
    length = float((nodes[1:] - nodes[:-1]).norm(dim=1).sum())
    count = max(4, round(length / step))
    line = F.interpolate(nodes.T[None], size=count, mode="linear", align_corners=True)[0]
    reach = max(1, count // (4 * len(nodes)))
    padded = F.pad(line[None], (reach, reach), mode="replicate")
    return F.avg_pool1d(padded, 2 * reach + 1, stride=1)[0].T


def _arteries(rng: RandomSource, guides: _Guides, subject: Subject) -> list[_Beads]:
    """Flow voids in the basal cisterns and the Sylvian fissures."""
    fluid = _is(guides.tissue, (Tissue.CSF,)) > 0
    index = torch.nonzero(fluid).float()
    if len(index) == 0:
        return [_Beads(index, index[:, 0], index[:, 0])]
    matrix = subject.to_mni
    mni = (index * guides.step) @ matrix[:3, :3].T + matrix[:3, 3]
    basal = (
        (mni[:, 2] < 8) & (mni[:, 2] > -40) & (mni[:, 1] > -45) & (mni[:, 1] < 40) & (mni[:, 0].abs() < 52)
    )
    pool = index[basal]
    count = rng.integer(4, 60) if rng.chance(0.75) else 0
    starts = pool[rng.pick(count, len(pool))] if len(pool) else pool[:0]

    def steer(points: Tensor, direction: Tensor) -> Tensor:
        inward = sample(guides.inward, points).T
        across = (direction * inward).sum(1, keepdim=True)
        return (2.0 * (0.35 - sample(guides.surface, points)[:, None]) - 0.8 * across) * inward

    return [
        _bundle(
            rng,
            guides,
            starts,
            rng.randn(len(starts), 3),
            (6, 40),
            (0.35, 1.6),
            steer,
            0.08,
            (1.0, 0.7),
            subject.spacing,
        )[0]
    ]


def splat(shape: tuple[int, int, int], spacing: float, beads: _Beads) -> Tensor:
    """Draw beads as soft balls and keep the largest coverage in each voxel.

    A vessel thinner than a voxel keeps its cross-section: the ball has the voxel's width and the area's share.
    """
    out = torch.zeros(shape[0] * shape[1] * shape[2], device=beads.points.device)
    half = spacing / 2
    size = torch.tensor(shape, device=beads.points.device)
    edges = torch.tensor([0.0, 1.0, 2.0, 4.0, 8.0], device=beads.points.device) * spacing
    for low, high in pairwise(edges):
        chosen = (beads.radius >= low) & (beads.radius < high)
        reach = math.ceil(float(high) / spacing + 0.5)
        axis = torch.arange(-reach, reach + 1, device=out.device)
        offsets = torch.cartesian_prod(axis, axis, axis)
        for part in torch.nonzero(chosen)[:, 0].split(20000):
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
