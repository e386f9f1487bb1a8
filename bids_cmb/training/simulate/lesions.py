"""Microbleeds, drawn as deposits into the property maps; `bids_cmb.training.simulate.mimics` draws what imitates them.

Only the deposit is drawn; how large and dark it looks follows from the physics. Numbers, places and sizes follow the
published per-lesion statistics (lobar 0.74, deep 0.135, infratentorial 0.126; apparent diameter 2.2-4.8 mm).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bids_cmb.training.simulate.grids import smooth_field
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.subject import Subject
from bids_cmb.training.simulate.tissues import Tissue, one_of

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


def _soft_ball(radius: float, spacing: float) -> tuple[float, float]:
    """Return radius and share of a ball on a grid that holds as much as the sphere of `radius`, all in mm.

    Its border falls from 1 to 0 over a voxel, so that a ball of radius w holds 4 pi / 3 (w^3 + w h^2 / 4), h being the
    voxel's edge: the mean of the cubes from w - h / 2 to w + h / 2. One of less than half a voxel cannot be drawn; a
    share of it is.
    """
    cube, third = radius**3 / 2, spacing**2 / 12
    root = math.sqrt(cube**2 + third**3)
    wide = (cube + root) ** (1 / 3) - (root - cube) ** (1 / 3)  # Cardano
    if wide >= spacing / 2:
        return wide, 1.0
    return spacing / 2, radius**3 / (spacing**3 / 4)


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
    wide, share = _soft_ball(radius, maps.spacing)
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
