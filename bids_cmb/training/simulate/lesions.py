"""Microbleeds and the lesions that imitate them, drawn as deposits into the property maps.

Only the deposit is drawn; how large and dark it looks follows from the physics. Numbers, places and sizes follow the
published per-lesion statistics (lobar 0.74, deep 0.135, infratentorial 0.126; apparent diameter 2.2-4.8 mm).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bids_cmb.training.simulate.grids import smooth, smooth_field
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.subject import Subject
from bids_cmb.training.simulate.tissues import PARENCHYMA, Tissue, one_of

#: Share of bleeds by place, and the tissues that make it up.
PLACES: dict[str, tuple[float, tuple[Tissue, ...]]] = {
    "cortex": (0.34, (Tissue.CORTEX, Tissue.HIPPOCAMPUS)),
    "white matter": (0.40, (Tissue.WHITE_MATTER, Tissue.CORPUS_CALLOSUM)),
    "basal ganglia": (0.08, (Tissue.CAUDATE, Tissue.PUTAMEN, Tissue.PALLIDUM)),
    "thalamus": (0.055, (Tissue.THALAMUS,)),
    "cerebellum": (0.08, (Tissue.CEREBELLUM_CORTEX, Tissue.CEREBELLUM_WHITE, Tissue.DENTATE)),
    "brainstem": (0.045, (Tissue.BRAINSTEM, Tissue.VENTRAL_DC)),
}

#: MARS category of each of `PLACES`.
CATEGORIES = {
    "cortex": "lobar",
    "white matter": "lobar",
    "basal ganglia": "deep",
    "thalamus": "deep",
    "cerebellum": "infratentorial",
    "brainstem": "infratentorial",
}

#: Diameter of a deposit, log-normal: median (mm) and spread; and its susceptibility, log-uniform (ppm). With blooming
#: these give apparent diameters as published on GRE and SWI (`bids-cmb-train realism` compares them).
DIAMETER, STRENGTH = (1.57, 0.35), (0.2, 2.2)
#: Greatest spread of the semi-axes of large deposits (one may be twice as long as another), and of the susceptibility
#: inside.
_LARGE_FLATNESS, _LARGE_UNEVENNESS = 0.5, 0.5
#: R2* at 3 T per susceptibility, 1/s per ppm: 2 pi / (9 sqrt 3) x 2 pi x 42.58 MHz/T x 3 T x 1e-6; and its upper end.
STATIC_DEPHASING = 323.0
_FASTEST_R2STAR = 500.0


@dataclass(frozen=True)
class LargeBleeds:
    """Deposits that are several millimetres wide themselves, instead of by blooming.

    Attributes
    ----------
    share
        Of all deposits. The default gives about as many bleeds that look wider than 5 mm as were published.
    least, most
        Diameter, mm.
    """

    share: float = 0.03
    least: float = 3.0
    most: float = 10.0


USUAL_LARGE = LargeBleeds()


@dataclass(frozen=True)
class Deposit:
    """One microbleed as drawn: fine-voxel centre, diameter (mm), susceptibility (ppm), extra R2* (1/s), place.

    ``flatness`` and ``unevenness`` are those of `draw_blob`.
    """

    centre: tuple[float, float, float]
    diameter: float
    chi: float
    r2star: float
    place: str
    flatness: float = 0.25
    unevenness: float = 0.0


@dataclass(frozen=True)
class Mimic:
    """Something that is not a microbleed: fine-voxel centre, radius (mm) and name."""

    centre: tuple[float, float, float]
    radius: float
    name: str


@dataclass
class Maps:
    """The three property maps, changed in place while lesions are drawn."""

    chi: Tensor
    r2star: Tensor
    signal: Tensor
    spacing: float


def draw_deposits(
    subject: Subject, rng: RandomSource, count: int, large: LargeBleeds = USUAL_LARGE
) -> list[Deposit]:
    """Choose places, sizes and strengths of `count` microbleeds, kept apart by 2 mm or more."""
    deposits: list[Deposit] = []
    names = list(PLACES)
    pools = {name: torch.nonzero(one_of(subject.tissue, PLACES[name][1])) for name in names}
    for _ in range(count):
        wide = rng.chance(large.share)
        diameter = (
            rng.uniform(large.least, large.most)
            if wide
            else math.exp(rng.normal(math.log(DIAMETER[0]), DIAMETER[1]))
        )
        for _attempt in range(20):
            name = names[rng.choice([PLACES[n][0] for n in names])]
            pool = pools[name]
            if len(pool) == 0:
                continue
            where = pool[int(rng.pick(1, len(pool)))].float() + rng.rand(3) - 0.5
            x, y, z = where.tolist()
            apart = (math.dist((x, y, z), d.centre) * subject.spacing - d.diameter / 2 for d in deposits)
            if all(distance > max(4.0, diameter / 2 + 2.0) for distance in apart):
                break
        else:
            continue
        strength = math.exp(rng.uniform(math.log(STRENGTH[0]), math.log(STRENGTH[1])))
        flatness, unevenness = 0.25, 0.0
        if wide:  # old, resorbed blood: wide, weaker and less regular, as large on QSM as on T2*
            strength = math.exp(rng.uniform(math.log(0.12), math.log(1.5)))
            flatness, unevenness = rng.uniform(0.25, _LARGE_FLATNESS), rng.uniform(0.0, _LARGE_UNEVENNESS)
        else:
            deep = name in ("basal ganglia", "thalamus")
            diameter = min(6.0, max(0.5, diameter * (math.exp(0.12) if deep else 1.0)))
        # Iron in grains dephases the water between them: static dephasing, see STATIC_DEPHASING (Yablonskiy
        # & Haacke 1994), more or less as the grains lie.
        relaxation = max(40.0, min(_FASTEST_R2STAR, STATIC_DEPHASING * strength * rng.uniform(0.5, 1.2)))
        deposits.append(Deposit((x, y, z), diameter, strength, relaxation, name, flatness, unevenness))
    return deposits


def draw_blob(
    maps: Maps,
    rng: RandomSource,
    centre: tuple[float, float, float],
    diameter: float,
    *,
    chi: float,
    r2star: float,
    signal: float | None = None,
    hollow: float = 0.0,
    flatness: float = 0.25,
    unevenness: float = 0.0,
) -> None:
    """Blend an irregular ball into the maps.

    Parameters
    ----------
    maps
        Changed in place.
    rng
        Shape of the ball.
    centre
        Fine voxels.
    diameter
        Of the sphere of about equal volume, mm.
    chi, r2star
        Added to the tissue's own where the ball covers a voxel fully.
    signal
        Proton signal that replaces the tissue's, or None to leave it.
    hollow
        0-1: how much lighter the centre is.
    flatness
        Spread of the three semi-axes (log-normal).
    unevenness
        Spread of susceptibility and R2* inside the ball (log-normal).
    """
    radius = diameter / 2
    reach = math.ceil(math.exp(2.2 * flatness) * radius / maps.spacing + 2)
    low = [max(0, math.floor(c) - reach) for c in centre]
    high = [min(n, math.floor(c) + reach + 1) for c, n in zip(centre, maps.chi.shape, strict=True)]
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return
    axes = [
        torch.arange(a, b, device=maps.chi.device, dtype=torch.float32)
        for a, b in zip(low, high, strict=True)
    ]
    offset = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) - torch.tensor(
        centre, device=maps.chi.device
    )
    offset = offset * maps.spacing
    wide = max(radius, maps.spacing / 2)
    share = (radius / wide) ** 3
    best = torch.zeros(offset.shape[:3], device=maps.chi.device)
    lobes = 1 + (rng.integer(0, 2) if diameter > 1.2 else 0)
    for lobe in range(lobes):
        shift = rng.randn(3) * (0.0 if lobe == 0 else 0.45 * radius)
        turn = torch.linalg.qr(rng.randn(3, 3).cpu())[0].to(best.device)
        stretch = torch.exp(rng.randn(3) * flatness)
        stretch = stretch / stretch.prod() ** (1 / 3) * (1.0 if lobe == 0 else rng.uniform(0.5, 0.85))
        distance = (((offset - shift) @ turn) / stretch).norm(dim=-1)
        best = torch.maximum(best, ((wide - distance) / maps.spacing + 0.5).clamp(0, 1))
    cover = best * share
    inner = 1 - hollow * torch.exp(-((offset.norm(dim=-1) / (0.55 * wide)) ** 2))
    if unevenness:
        shape = (high[0] - low[0], high[1] - low[1], high[2] - low[2])
        texture = smooth_field(rng, shape, (maps.spacing,) * 3, max(2.0, 0.6 * radius))
        inner = inner * torch.exp(unevenness * texture)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    maps.chi[box] += cover * inner * chi
    maps.r2star[box] += cover * inner * r2star
    if signal is not None:
        maps.signal[box] = maps.signal[box] * (1 - cover) + cover * signal


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
