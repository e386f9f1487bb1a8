"""What is dark or bright and not a microbleed: minerals, calcifications, large lesions, damaged white matter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bids_cmb.training.simulate.grids import smooth, smooth_field
from bids_cmb.training.simulate.lesions import Maps, draw_blob
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.subject import Subject
from bids_cmb.training.simulate.tissues import PARENCHYMA, Tissue, one_of


@dataclass(frozen=True)
class Mimic:
    """Something that is not a microbleed: fine-voxel centre, radius (mm) and name."""

    centre: tuple[float, float, float]
    radius: float
    name: str


def draw_mimics(subject: Subject, maps: Maps, rng: RandomSource) -> list[Mimic]:
    """Draw what is dark or bright and not a microbleed: minerals, large lesions, fluid spaces, white-matter damage.

    Returns
    -------
    list of Mimic
        Named places, so that false detections can be told by their cause.
    """
    mimics: list[Mimic] = []
    _white_matter_damage(subject, maps, rng, mimics)
    _minerals(subject, maps, rng, mimics)
    _large_lesions(subject, maps, rng, mimics)
    return mimics


def draw_calcifications(subject: Subject, rng: RandomSource) -> list[Mimic]:
    """Choose places for up to four calcified granulomas in the parenchyma."""
    pool = torch.nonzero(one_of(subject.tissue, PARENCHYMA))
    places = pool[rng.pick(rng.integer(0, 4), len(pool))].tolist() if len(pool) else []
    return [
        Mimic((float(x), float(y), float(z)), rng.uniform(0.5, 2.0), "calcification") for x, y, z in places
    ]


def _speckle(
    maps: Maps,
    rng: RandomSource,
    pool: Tensor,
    count: int,
    size: tuple[float, float],
    chi: tuple[float, float],
    r2star: tuple[float, float],
    spread: float,
    name: str,
    mimics: list[Mimic],
) -> None:
    """Draw `count` grains around one random point of a pool (N, 3) of fine voxels, all of them inside it."""
    if len(pool) == 0 or count == 0:
        return
    places = pool.float()
    heart = places[int(rng.pick(1, len(pool)))]
    for _ in range(count):
        wanted = heart + rng.randn(3) * spread / maps.spacing
        x, y, z = places[(places - wanted).norm(dim=1).argmin()].tolist()
        diameter = rng.uniform(*size)
        draw_blob(
            maps, rng, (x, y, z), diameter, chi=rng.uniform(*chi), r2star=rng.uniform(*r2star), flatness=0.4
        )
        mimics.append(Mimic((x, y, z), diameter / 2, name))


def _near(
    subject: Subject,
    centre: tuple[float, float, float],
    reach: float,
    kinds: tuple[Tissue, ...] | None = None,
) -> Tensor:
    """Fine voxels (N, 3) within `reach` mm of an MNI point, of some tissues."""
    middle = subject.from_mni(torch.tensor([centre], device=subject.chi.device))[0]
    steps = math.ceil(reach / subject.spacing)
    low = (middle - steps).long().clamp(min=0)
    box = tuple(slice(int(a), int(a) + 2 * steps + 1) for a in low)
    patch = subject.tissue[box]
    inside = torch.ones_like(patch, dtype=torch.bool) if kinds is None else one_of(patch, kinds)
    voxels = torch.nonzero(inside) + low
    distance = (voxels.float() - middle).norm(dim=1) * subject.spacing
    return voxels[distance < reach]


def _minerals(subject: Subject, maps: Maps, rng: RandomSource, mimics: list[Mimic]) -> None:
    if rng.chance(0.3):  # both pallida, about alike
        grains, calcium = rng.integer(2, 9), rng.chance(0.7)
        for side in (-1.0, 1.0):
            pool = _near(subject, (side * 20, -2, -1), 10, (Tissue.PALLIDUM, Tissue.PUTAMEN))
            chi = (-2.0, -0.2) if calcium else (0.1, 0.6)
            _speckle(maps, rng, pool, grains, (0.8, 3.0), chi, (15, 90), 2.2, "pallidal mineral", mimics)
    for side in (-1.0, 1.0):
        if rng.chance(0.6):
            _plexus(subject, maps, rng, side, mimics)
        if rng.chance(0.5):
            pool = _near(subject, (side * 24, -42, 12), 13, (Tissue.VENTRICLE,))
            chi = (-2.0, -0.2) if rng.chance(0.7) else (0.1, 0.8)
            _speckle(
                maps, rng, pool, rng.integer(2, 14), (0.8, 3.0), chi, (10, 70), 2.5, "choroid plexus", mimics
            )
        if rng.chance(0.08):
            pool = _near(subject, (side * 15.5, -57, -35), 9, (Tissue.DENTATE,))
            _speckle(
                maps,
                rng,
                pool,
                rng.integer(1, 6),
                (0.8, 3.0),
                (-1.5, -0.2),
                (10, 50),
                2.0,
                "dentate mineral",
                mimics,
            )
    if rng.chance(0.65):
        pool = _near(subject, (0, -29, 1), 5)
        _speckle(
            maps, rng, pool, rng.integer(1, 4), (1.0, 5.0), (-3.0, -0.3), (20, 60), 1.5, "pineal", mimics
        )
    if rng.chance(0.25):
        for _ in range(rng.integer(1, 3)):
            pool = _near(
                subject, (0, rng.uniform(-30, 60), rng.uniform(35, 60)), 8, (Tissue.CSF, Tissue.BONE)
            )
            _speckle(
                maps, rng, pool, rng.integer(1, 4), (1.0, 5.0), (-3.0, -0.3), (20, 60), 2.0, "falx", mimics
            )


def _plexus(subject: Subject, maps: Maps, rng: RandomSource, side: float, mimics: list[Mimic]) -> None:
    """Draw the body of the choroid plexus in one atrium: large, dim on magnitude, bright on QSM."""
    pool = _near(subject, (side * 24, -42, 12), 13, (Tissue.VENTRICLE,))
    if len(pool) == 0:
        return
    chi, r2star = rng.uniform(0.05, 0.3), rng.uniform(3, 35)
    for _ in range(rng.integer(1, 4)):
        x, y, z = (pool[int(rng.pick(1, len(pool)))].float() + rng.rand(3) - 0.5).tolist()
        diameter = rng.uniform(3.0, 9.0)
        draw_blob(maps, rng, (x, y, z), diameter, chi=chi, r2star=r2star, flatness=0.45)
        mimics.append(Mimic((x, y, z), diameter / 2, "choroid plexus"))


def _white_matter_damage(subject: Subject, maps: Maps, rng: RandomSource, mimics: list[Mimic]) -> None:
    white = one_of(subject.tissue, (Tissue.WHITE_MATTER,))
    pool = torch.nonzero(white)
    if rng.chance(0.6):
        ventricle = smooth(
            one_of(subject.tissue, (Tissue.VENTRICLE,)).float()[::2, ::2, ::2].contiguous(), (3.0, 3.0, 3.0)
        )
        near = torch.nn.functional.interpolate(ventricle[None, None], size=subject.shape, mode="trilinear")[
            0, 0
        ]
        amount = (
            smooth_field(rng, subject.shape, (subject.spacing,) * 3, 9.0) + 6 * near - rng.uniform(0.8, 2.2)
        )
        damage = torch.sigmoid(4 * amount) * white
        maps.r2star *= 1 - damage * rng.uniform(0.1, 0.5)
        maps.signal *= 1 + damage * rng.uniform(0.0, 0.3)
    fluid = (
        float(maps.signal[subject.tissue == int(Tissue.VENTRICLE)].mean())
        if bool((subject.tissue == int(Tissue.VENTRICLE)).any())
        else 0.9
    )
    for _ in range(rng.integer(0, 5) if rng.chance(0.4) else 0):
        where = pool[int(rng.pick(1, max(len(pool), 1)))].float() if len(pool) else None
        if where is None:
            break
        x, y, z = where.tolist()
        diameter = rng.uniform(2.5, 10)
        draw_blob(maps, rng, (x, y, z), diameter, chi=0.02, r2star=-15.0, signal=fluid, flatness=0.35)
        mimics.append(Mimic((x, y, z), diameter / 2, "lacune"))
    maps.r2star.clamp_(min=0.5)


def _large_lesions(subject: Subject, maps: Maps, rng: RandomSource, mimics: list[Mimic]) -> None:
    parenchyma = torch.nonzero(one_of(subject.tissue, PARENCHYMA)) if rng.chance(0.15) else None
    if parenchyma is None or len(parenchyma) == 0:
        return
    where = parenchyma[int(rng.pick(1, len(parenchyma)))].float()
    x, y, z = where.tolist()
    kind = rng.choice((0.55, 0.15, 0.3))
    if kind == 0:
        diameter = rng.uniform(16, 40)
        draw_blob(
            maps,
            rng,
            (x, y, z),
            diameter,
            chi=rng.uniform(0.3, 1.5),
            r2star=rng.uniform(30, 150),
            hollow=rng.uniform(0.3, 1.0),
            signal=rng.uniform(0.3, 1.2),
            flatness=0.35,
        )
        mimics.append(Mimic((x, y, z), 0.75 * diameter, "macrobleed"))
    elif kind == 1:
        for _ in range(rng.integer(5, 14)):
            shifted = (where + rng.randn(3) * 2.0 / maps.spacing).tolist()
            draw_blob(
                maps,
                rng,
                (shifted[0], shifted[1], shifted[2]),
                rng.uniform(2, 7),
                chi=rng.uniform(0.2, 1.5),
                r2star=rng.uniform(20, 150),
                signal=rng.uniform(0.4, 1.2),
            )
        mimics.append(Mimic((x, y, z), 9.0, "cavernoma"))
    else:  # superficial siderosis: a film on the cortex
        reach = rng.uniform(12, 35)
        surface = smooth(one_of(subject.tissue, PARENCHYMA).float(), (1.0, 1.0, 1.0))
        axes = [torch.arange(n, device=surface.device, dtype=torch.float32) for n in subject.shape]
        squared = (
            (axes[0] - x)[:, None, None] ** 2
            + (axes[1] - y)[None, :, None] ** 2
            + (axes[2] - z)[None, None, :] ** 2
        )
        film = torch.exp(-(((surface - 0.5) / 0.22) ** 2)) * (squared.sqrt() * subject.spacing < reach)
        film *= torch.sigmoid(3 * smooth_field(rng, subject.shape, (subject.spacing,) * 3, 8.0))
        maps.chi += film * rng.uniform(0.2, 0.8)
        maps.r2star += film * rng.uniform(20, 80)
        mimics.append(Mimic((x, y, z), reach, "superficial siderosis"))
