"""Veins and flow voids: the commonest mimics.

Trees are bundles of random walks with smooth directions. Medullary veins run through white matter towards the
ventricles and thicken on the way; cortical veins lie on the surface and in sulci; subependymal veins line the
ventricles; the internal cerebral, basal and great veins and the sinuses follow their course in MNI space.
`bids_cmb.training.simulate.walkers` draws them; what is known of each kind stands at the top of this file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from bids_cmb.training.simulate.grids import gradient, sample, smooth
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.subject import Subject
from bids_cmb.training.simulate.tissues import PARENCHYMA, Tissue, one_of
from bids_cmb.training.simulate.walkers import Beads, Kind, Steer, Stop, grow, splat

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

#: Lengths and radii, mm.
_MEDULLARY = Kind((12, 55), (0.12, 0.5), wander=0.05, taper=(0.5, 1.1))
_MEDULLARY_BRANCH = Kind((5, 18), (0.08, 0.2), wander=0.08, taper=(1.0, 0.6))
_CORTICAL = Kind((12, 70), (0.25, 1.1), wander=0.06, taper=(0.7, 1.0))
_FINE_CORTICAL = Kind((7, 35), (0.12, 0.5), wander=0.10, taper=(0.7, 1.0))
_CORTICAL_BRANCH = Kind((4, 15), (0.08, 0.3), wander=0.08, taper=(1.0, 0.6))
_PIERCING = Kind((4, 14), (0.08, 0.25), wander=0.06, taper=(1.1, 0.6))
_SUBEPENDYMAL = Kind((8, 45), (0.2, 0.7), wander=0.06, taper=(0.6, 1.0))
_ARTERY = Kind((6, 40), (0.35, 1.6), wander=0.08, taper=(1.0, 0.7))
#: How the vessels of subjects differ: spread of the logarithm of a factor on calibre and on winding, and the greatest
#: unevenness of calibre (see `grow`). No one has measured these; a detector shall not learn one manner of drawing.
_CALIBRES, _WINDINGS, _UNEVEN = 0.2, 0.5, 0.4
#: A vein that leaves the parenchyma (share of it nearby below this) has drained: into a ventricle's wall or the pia.
_DRAINED = 0.4


@dataclass
class Vessels:
    """Partial volumes of vessels on the fine grid, 0..1: veins (deoxygenated blood) and voids (fast flow)."""

    veins: Tensor
    voids: Tensor


@dataclass(frozen=True)
class _Manner:
    """What the vessels of one subject have in common: factors on calibre and winding, and unevenness of calibre.

    The central veins and the sinuses keep theirs.
    """

    calibre: float = 1.0
    winding: float = 1.0
    uneven: float = 0.0

    @classmethod
    def draw(cls, rng: RandomSource) -> _Manner:
        """Draw that of a subject."""
        return cls(
            math.exp(rng.normal(0, _CALIBRES)), math.exp(rng.normal(0, _WINDINGS)), rng.uniform(0, _UNEVEN)
        )

    def of(self, kind: Kind) -> Kind:
        """A kind of vessel as it runs in this subject."""
        thinnest, widest = kind.radius
        return replace(
            kind,
            radius=(thinnest * self.calibre, widest * self.calibre),
            wander=kind.wander * self.winding,
        )


@dataclass
class _Guides:
    """Smooth maps that steer the walkers, on a grid `step` times coarser than the fine one (voxels of `voxel_mm`)."""

    voxel_mm: float
    step: int
    surface: Tensor
    inward: Tensor
    to_ventricle: Tensor
    tissue: Tensor
    manner: _Manner

    def grow(
        self,
        rng: RandomSource,
        kind: Kind,
        starts: Tensor,
        heading: Tensor,
        steer: Steer,
        stop: Stop | None = None,
    ) -> tuple[Beads, Tensor, Tensor]:
        """`bids_cmb.training.simulate.walkers.grow` on these grids."""
        return grow(
            rng,
            self.manner.of(kind),
            starts,
            heading,
            steer,
            voxel_mm=self.voxel_mm,
            step=self.step,
            stop=stop,
            uneven=self.manner.uneven,
        )


def _guides(subject: Subject, manner: _Manner = _Manner()) -> _Guides:
    step = max(1, round(1.2 / subject.spacing))
    tissue = subject.tissue[::step, ::step, ::step].contiguous()
    parenchyma = one_of(tissue, PARENCHYMA).float()
    width = 2.0 / (subject.spacing * step)
    surface = smooth(parenchyma, (width,) * 3)
    ventricle = smooth(one_of(tissue, (Tissue.VENTRICLE,)).float(), (5 * width,) * 3)
    return _Guides(
        subject.spacing,
        step,
        surface,
        _unit(gradient(surface)),
        _unit(gradient(ventricle)),
        tissue,
        manner,
    )


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=0, keepdim=True).clamp(min=1e-8)


def _starts(rng: RandomSource, where: Tensor, count: int) -> Tensor:
    """`count` random points (N, 3) of a coarse mask, jittered inside their voxel; fewer if the mask is empty."""
    voxels = torch.nonzero(where)
    if len(voxels) == 0 or count == 0:
        return torch.zeros(0, 3, device=where.device)
    return voxels[rng.pick(count, len(voxels))].float() + rng.rand(count, 3) - 0.5


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
    guides = _guides(subject, _Manner.draw(rng))
    beads = [
        *_medullary(rng, guides, density),
        *_cortical(rng, guides, density),
        _subependymal(rng, guides, density),
        _central(rng, guides, subject),
    ]
    veins = splat(subject.shape, subject.spacing, Beads.join(beads))
    voids = splat(subject.shape, subject.spacing, _arteries(rng, guides, subject))
    return Vessels(veins, voids)


def _medullary(rng: RandomSource, guides: _Guides, density: float) -> list[Beads]:
    white = one_of(
        guides.tissue,
        (Tissue.WHITE_MATTER, Tissue.CEREBELLUM_WHITE, Tissue.CAUDATE, Tissue.THALAMUS, Tissue.PUTAMEN),
    )
    count = round(rng.uniform(90, 500) * density)
    starts = _starts(rng, white, count)
    toward = sample(guides.to_ventricle, starts).T
    # Half run centrally to the ventricle, the rest to the surface.
    sense = torch.where(rng.rand(len(starts), 1) < 0.65, 1.0, -1.0)

    def steer(points: Tensor, _: Tensor) -> Tensor:
        return 0.12 * sense * sample(guides.to_ventricle, points).T

    def drained(points: Tensor) -> Tensor:
        return sample(guides.surface, points) < _DRAINED

    beads, points, alive = guides.grow(rng, _MEDULLARY, starts, sense * toward, steer, drained)
    return [beads, _branches(rng, guides, _MEDULLARY_BRANCH, points[alive], round(0.8 * count))]


def _branches(rng: RandomSource, guides: _Guides, kind: Kind, points: Tensor, count: int) -> Beads:
    """Side branches that leave their parent's points (N, 3) at an angle and thin out; forks look like dots in a slice."""
    starts = points[rng.pick(count, len(points))] if len(points) else points
    heading = rng.randn(len(starts), 3)
    heading = heading / heading.norm(dim=1, keepdim=True).clamp(min=1e-6)

    def steer(here: Tensor, _: Tensor) -> Tensor:
        on_surface = sample(guides.surface, here)[:, None] < 0.5
        return torch.where(on_surface, 0.4 * sample(guides.inward, here).T, torch.zeros_like(here))

    return guides.grow(rng, kind, starts, heading, steer)[0]


def _cortical(rng: RandomSource, guides: _Guides, density: float) -> list[Beads]:
    rim = (guides.surface > 0.35) & (guides.surface < 0.75)
    beads = []
    for share, kind in ((1.0, _CORTICAL), (2.0, _FINE_CORTICAL)):
        count = round(rng.uniform(150, 600) * density * share)
        starts = _starts(rng, rim, count)
        heading = rng.randn(len(starts), 3)
        level = 0.4 + 0.35 * rng.rand(len(starts), 1)

        def steer(points: Tensor, direction: Tensor, level: Tensor = level) -> Tensor:
            inward = sample(guides.inward, points).T
            across = (direction * inward).sum(1, keepdim=True)
            return (2.5 * (level - sample(guides.surface, points)[:, None]) - 0.8 * across) * inward

        made, points, alive = guides.grow(rng, kind, starts, heading, steer)
        beads += [made, _branches(rng, guides, _CORTICAL_BRANCH, points[alive], count // 2)]
    # Short veins that pierce the cortex.
    starts = _starts(rng, rim, round(rng.uniform(50, 300) * density))
    inward = sample(guides.inward, starts).T
    beads.append(guides.grow(rng, _PIERCING, starts, inward, lambda points, _: torch.zeros_like(points))[0])
    return beads


def _subependymal(rng: RandomSource, guides: _Guides, density: float) -> Beads:
    ventricle = one_of(guides.tissue, (Tissue.VENTRICLE,)).float()
    near = smooth(ventricle, (1.2, 1.2, 1.2))
    inward = _unit(gradient(near))
    starts = _starts(rng, (near > 0.3) & (near < 0.7), round(rng.uniform(6, 40) * density))

    def steer(points: Tensor, direction: Tensor) -> Tensor:
        normal = sample(inward, points).T
        across = (direction * normal).sum(1, keepdim=True)
        return (2.5 * (0.45 - sample(near, points)[:, None]) - 0.8 * across) * normal

    return guides.grow(rng, _SUBEPENDYMAL, starts, rng.randn(len(starts), 3), steer)[0]


def _central(rng: RandomSource, guides: _Guides, subject: Subject) -> Beads:
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
    return Beads(joined, torch.cat(radii), torch.ones(len(joined), device=rng.device))


def draw_central_veins(subject: Subject, rng: RandomSource) -> Tensor:
    """Partial volume of the internal cerebral, basal and great veins and the sinuses on the subject's grid."""
    return splat(subject.shape, subject.spacing, _central(rng, _guides(subject), subject))


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


def _arteries(rng: RandomSource, guides: _Guides, subject: Subject) -> Beads:
    """Flow voids in the basal cisterns and the Sylvian fissures."""
    fluid = one_of(guides.tissue, (Tissue.CSF,))
    index = torch.nonzero(fluid).float()
    if len(index) == 0:
        return Beads(index, index[:, 0], index[:, 0])
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

    return guides.grow(rng, _ARTERY, starts, rng.randn(len(starts), 3), steer)[0]
