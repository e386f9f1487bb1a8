"""One simulated scan, from a head to an image with its truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bids_cmb.imaging.susceptibility import MHZ_PER_TESLA
from bids_cmb.training.simulate.grids import smooth, smooth_field
from bids_cmb.training.simulate.heads import Head
from bids_cmb.training.simulate.lesions import (
    USUAL_LARGE,
    Deposit,
    LargeBleeds,
    Maps,
    draw_blob,
    draw_deposits,
)
from bids_cmb.training.simulate.mimics import Mimic, draw_calcifications, draw_mimics
from bids_cmb.training.simulate.physics import Acquisition, decayed, field_shift, signal
from bids_cmb.training.simulate.products import SusceptibilityMapping, susceptibility_weighted
from bids_cmb.training.simulate.protocol import Protocol, draw_protocol, main_field, slice_rotation
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.second import EarlyStoppedMapping, draw_field_vessels
from bids_cmb.training.simulate.subject import Subject, make_subject
from bids_cmb.training.simulate.surround import on_grid, surroundings
from bids_cmb.training.simulate.tissues import Tissue
from bids_cmb.training.simulate.truth import Lesion, outline, world
from bids_cmb.training.simulate.vessels import Vessels, draw_vessels
from bids_cmb.types import Affine, BoolArray, Contrast, FloatArray

#: Share of the typical signal below which a voxel counts as void, and the largest field that is measured, ppm.
_VOID, _LARGEST_FIELD = 0.1, 1.5
#: Fine grid, mm, where none is asked for. The shipped weights were trained on scans at 0.75, in half the time.
FINE_SPACING = 0.6


@dataclass(frozen=True)
class SimulatedScan:
    """A scan and its truth; arrays share one RAS+ grid (X, Y, Z)."""

    image: FloatArray
    affine: Affine
    brain_mask: BoolArray
    lesion_labels: npt.NDArray[np.uint8]
    lesions: tuple[Lesion, ...]
    mimics: tuple[tuple[tuple[float, float, float], float, str], ...]
    surround: npt.NDArray[np.uint8]
    protocol: Protocol
    seed: int
    head: str


def simulate_scan(
    head: Head,
    seed: int,
    contrast: Contrast,
    *,
    count: int | None = None,
    protocol: Protocol | None = None,
    spacing: float = FINE_SPACING,
) -> SimulatedScan:
    """Simulate one scan; see `simulate_session`, of which this is the case with one contrast."""
    protocols = None if protocol is None else {contrast: protocol}
    return simulate_session(head, seed, (contrast,), count=count, protocols=protocols, spacing=spacing)[0]


@torch.no_grad()
def simulate_session(
    head: Head,
    seed: int,
    contrasts: Sequence[Contrast],
    *,
    count: int | tuple[int, int] | None = None,
    protocols: Mapping[Contrast, Protocol] | None = None,
    device: torch.device | str = "cpu",
    spacing: float = FINE_SPACING,
    widen: float = 1.0,
    second: bool = False,
    large: LargeBleeds = USUAL_LARGE,
) -> tuple[SimulatedScan, ...]:
    """Simulate the scans of one subject: one anatomy, one set of microbleeds, one image per acquisition.

    Parameters
    ----------
    head
        Anatomy.
    seed
        Everything random follows from it; a CPU repeats a session bit by bit with the same number of threads.
    contrasts
        One of ``gre``, ``swi``, ``qsm`` per acquisition. Anatomy is a third of the work: a contrast named twice, with
        two protocols, costs less than a second subject.
    count
        Number of microbleeds to draw, or its least and its greatest value; by default none in a quarter of the
        subjects, else 1 to 40.
    protocols
        Per contrast; drawn at random by default. All share the tilt of the first.
    device
        CPU or GPU.
    spacing
        Fine grid, mm.
    widen
        Factor on the protocol ranges.
    second
        Draw the vessels and map the susceptibility by the models of `bids_cmb.training.simulate.second`.
    large
        How many bleeds are wide themselves, and how wide.

    Returns
    -------
    tuple of SimulatedScan
        In the order of `contrasts`: images in arbitrary units (GRE, SWI) or ppm (QSM), with outlines and visibility
        of every bleed.
    """
    rng = RandomSource(seed, device)
    chosen = [(protocols or {}).get(c) or draw_protocol(rng, c, widen=widen) for c in contrasts]
    tilt = chosen[0].tilt
    subject = make_subject(head, rng, spacing=spacing, tilt=tilt)
    mimics, vessels = _furnish(subject, rng, draw_field_vessels if second else draw_vessels)
    mapping = EarlyStoppedMapping if second else SusceptibilityMapping
    if count is None:
        count = 0 if rng.chance(0.25) else min(40, 1 + int(-math.log(max(1e-6, rng.uniform(0, 1))) * 12))
    elif not isinstance(count, int):
        count = rng.integer(*count)
    deposits = draw_deposits(subject, rng, count, large)
    granulomas = draw_calcifications(subject, rng) if "qsm" in contrasts else []
    scans = []
    for protocol in chosen:
        contrast = protocol.contrast
        # On magnitude alone a calcified granuloma cannot be told from blood: it is drawn for QSM only.
        drawn = _with_calcifications(subject, granulomas, rng) if contrast == "qsm" else subject
        shown = [*mimics, *granulomas] if contrast == "qsm" else mimics
        lesioned = Maps(drawn.chi.clone(), drawn.r2star.clone(), drawn.signal, drawn.spacing)
        shapes = RandomSource(seed + 1, device)  # the same deposits on every contrast
        for d in deposits:
            draw_blob(
                lesioned,
                shapes,
                d.centre,
                d.diameter,
                chi=d.chi,
                r2star=d.r2star,
                hollow=0.5 if shapes.chance(0.15) else 0.0,
                flatness=d.flatness,
                unevenness=d.unevenness,
            )
        scene = _Scene(head.name, seed, drawn, lesioned, tuple(deposits), tuple(shown), vessels)
        scans.append(_acquire(scene, replace(protocol, tilt=tilt), rng, mapping))
    return tuple(scans)


@dataclass(frozen=True)
class _Scene:
    """What lies in the scanner: a subject, its maps with microbleeds, and what was drawn into them."""

    head: str
    seed: int
    subject: Subject
    lesioned: Maps
    deposits: tuple[Deposit, ...]
    mimics: tuple[Mimic, ...]
    vessels: Vessels


def _acquire(
    scene: _Scene,
    protocol: Protocol,
    rng: RandomSource,
    mapping: type[SusceptibilityMapping] | type[EarlyStoppedMapping],
) -> SimulatedScan:
    """Acquire one contrast and outline what it shows."""
    subject, lesioned, contrast = scene.subject, scene.lesioned, protocol.contrast
    acquisition = Acquisition(subject.shape, subject.spacing, protocol, rng)
    if contrast == "qsm":
        clean, image, mask, noise = _susceptibility(subject, lesioned, protocol, acquisition, rng, mapping)
        depth_map = image - clean
    else:
        clean, image, mask, noise = _magnitude(subject, lesioned, protocol, acquisition, rng)
        width = tuple(3.0 / v for v in acquisition.voxel)
        local = smooth(clean * mask, width) / smooth(mask.float(), width).clamp(min=0.05)  # type: ignore[arg-type]
        depth_map = (clean - image) / local.clamp(min=1e-6)
        noise = noise / float(local[mask].median())
    affine = _affine(acquisition, protocol)
    factor = np.array([a / f for a, f in zip(acquisition.final_size, subject.shape, strict=True)])
    labels, lesions = outline(
        depth_map.cpu().numpy(),
        clean.cpu().numpy(),
        image.cpu().numpy(),
        mask.cpu().numpy(),
        scene.deposits,
        factor,
        affine,
        acquisition.voxel,
        contrast,
        noise,
    )
    shown = tuple((world(m.centre, factor, affine), m.radius, m.name) for m in scene.mimics)
    return SimulatedScan(
        image.cpu().numpy().astype(np.float32),
        affine,
        mask.cpu().numpy(),
        labels,
        lesions,
        shown,
        surroundings(subject, scene.vessels, acquisition),
        protocol,
        scene.seed,
        scene.head,
    )


def _with_calcifications(subject: Subject, granulomas: list[Mimic], rng: RandomSource) -> Subject:
    maps = Maps(subject.chi.clone(), subject.r2star.clone(), subject.signal, subject.spacing)
    for grain in granulomas:
        draw_blob(
            maps, rng, grain.centre, 2 * grain.radius, chi=rng.uniform(-2.5, -0.4), r2star=rng.uniform(10, 50)
        )
    return replace(subject, chi=maps.chi, r2star=maps.r2star)


def _furnish(
    subject: Subject, rng: RandomSource, draw: Callable[..., Vessels]
) -> tuple[list[Mimic], Vessels]:
    """Add vessels, as `draw` draws them, and mimics to the subject's maps."""
    vessels = draw(subject, rng, density=rng.uniform(0.4, 1.3))
    chi, r2star = rng.uniform(0.2, 0.5), rng.uniform(20, 80)
    maps = Maps(subject.chi, subject.r2star, subject.signal, subject.spacing)
    if rng.chance(0.7):
        _darken_sulci(subject, rng)
    mimics = draw_mimics(subject, maps, rng)
    subject.chi.mul_(1 - vessels.veins).add_(vessels.veins * chi)
    subject.r2star.add_(vessels.veins * r2star)
    subject.signal.mul_(1 - vessels.veins * rng.uniform(-0.1, 0.25))
    if rng.chance(0.75):
        subject.signal.mul_(1 - vessels.voids * rng.uniform(0.5, 1.0))
        subject.r2star.add_(vessels.voids * rng.uniform(0, 80))
    else:
        subject.signal.mul_(1 + vessels.voids * rng.uniform(0.1, 1.0))  # inflow: bright
    return mimics, vessels


def _darken_sulci(subject: Subject, rng: RandomSource) -> None:
    """Fill the fluid of the sulci with what is too fine to draw: pia, trabeculae and small veins."""
    fluid = (subject.tissue == int(Tissue.CSF)).float()
    # They run on along a sulcus: fields of a few millimetres would make dots of them.
    extent = rng.uniform(5.0, 15.0)
    strands = torch.sigmoid(3 * smooth_field(rng, subject.shape, (subject.spacing,) * 3, extent)) * fluid
    subject.signal.mul_(1 - strands * rng.uniform(0.0, 0.7))
    subject.r2star.add_(strands * rng.uniform(0, 60))
    subject.chi.add_(strands * rng.uniform(0.0, 0.1))


def _magnitude(
    subject: Subject, lesioned: Maps, protocol: Protocol, acquisition: Acquisition, rng: RandomSource
) -> tuple[Tensor, Tensor, Tensor, float]:
    """GRE magnitude or SWI without and with lesions, brain mask, and standard deviation of the noise."""
    b0 = torch.from_numpy(main_field(protocol.tilt)).to(subject.chi)
    spacing = (subject.spacing,) * 3
    noise_free = acquisition.sample(
        signal(subject.signal, subject.r2star, field_shift(subject.chi, spacing, b0), protocol)
    )
    full = acquisition.sample(
        signal(lesioned.signal, lesioned.r2star, field_shift(lesioned.chi, spacing, b0), protocol)
    )
    mask = on_grid(subject.brain.float(), acquisition) > 0.5
    tissue_level = float(acquisition.zero_fill(noise_free).abs()[mask].median())
    deviation = tissue_level / protocol.snr
    size = tuple(noise_free.shape)
    noise = torch.complex(rng.noise(*size), rng.noise(*size)) * deviation
    bias = torch.exp(
        rng.uniform(0.0, 0.3) * smooth_field(rng, acquisition.final_size, acquisition.voxel, 90.0)
    )
    window, power = rng.uniform(0.08, 0.3), 4 if rng.chance(0.8) else rng.integer(2, 5)
    products = []
    for acquired in (noise_free, full):
        image = acquisition.zero_fill(acquired + noise)
        if protocol.contrast == "swi":
            products.append(susceptibility_weighted(image, window=window, power=power) * bias)
        else:
            products.append(image.abs() * bias)
    scale = 1000.0 / tissue_level
    clean, image = products[0] * scale, products[1] * scale
    if protocol.stripped:
        mask = _stripped_mask(mask, image, acquisition, rng)
        clean, image = clean * mask, image * mask
    return clean, image, mask, deviation * scale


def _susceptibility(
    subject: Subject,
    lesioned: Maps,
    protocol: Protocol,
    acquisition: Acquisition,
    rng: RandomSource,
    method: type[SusceptibilityMapping] | type[EarlyStoppedMapping],
) -> tuple[Tensor, Tensor, Tensor, float]:
    """QSM without and with lesions, its mask, and an estimate of its noise (ppm)."""
    b0 = torch.from_numpy(main_field(protocol.tilt)).to(subject.chi)
    spacing = (subject.spacing,) * 3
    total = field_shift(subject.chi, spacing, b0)
    inner = field_shift(torch.where(subject.brain, subject.chi, torch.zeros_like(subject.chi)), spacing, b0)
    # What current methods leave of the background is less than the truncated SHARP of the simulation leaves.
    total = inner + (total - inner) * (rng.uniform(0.15, 0.5) if rng.chance(0.88) else 1.0)
    extra = field_shift(lesioned.chi - subject.chi, spacing, b0)
    mapping = method(rng, b0)
    mask = _stripped_mask(on_grid(subject.brain.float(), acquisition) > 0.5, None, acquisition, rng)
    if rng.chance(0.7):
        mask = _without_worst_field(mask, on_grid((total - inner).abs(), acquisition), acquisition, rng)
    size = acquisition.final_size
    unit_noise = rng.noise(*size)
    results = []
    for maps, shift in (
        (Maps(subject.chi, subject.r2star, subject.signal, subject.spacing), torch.zeros_like(extra)),
        (lesioned, extra),
    ):
        weight = decayed(maps.signal, maps.r2star, protocol)
        level = acquisition.sample(weight.to(torch.complex64)).real
        typical = float(level[mask].median())
        level = level.clamp(
            min=_VOID * typical
        )  # in a void the phase is lost: the field fades instead of exploding
        fields = [
            (acquisition.sample((weight * (f + shift)).to(torch.complex64)).real / level).clamp(
                -_LARGEST_FIELD, _LARGEST_FIELD
            )
            for f in (total, inner)
        ]
        phase_noise = (typical / level).clamp(max=8.0) / protocol.snr
        noise = (
            unit_noise
            * phase_noise
            / (2 * math.pi * MHZ_PER_TESLA * protocol.field_strength * protocol.echo_time)
        )
        results.append(mapping(fields[0] + noise, fields[1] + noise, mask, acquisition.voxel))
    (clean, inside), (image, _) = results
    rough = (image - smooth(image, (1.0, 1.0, 1.0)))[inside]
    return clean, image, inside, float(rough.abs().median()) * 1.5


def _stripped_mask(mask: Tensor, image: Tensor | None, acquisition: Acquisition, rng: RandomSource) -> Tensor:
    """Brain mask as tools make it: a little small or large, uneven, sometimes eaten where the image is dark."""
    voxel = acquisition.voxel
    soft = smooth(mask.float(), tuple(2.0 / v for v in voxel))  # type: ignore[arg-type]
    uneven = smooth_field(rng, acquisition.final_size, voxel, 15.0) * rng.uniform(0.0, 0.14)
    out = ((soft + uneven) > rng.uniform(0.3, 0.75)) & (soft > 0.05)  # no island far from the brain
    if image is not None and rng.chance(0.3):
        local = smooth(image, tuple(0.7 / v for v in voxel))  # type: ignore[arg-type]
        out &= local > rng.uniform(0.05, 0.25) * float(image[mask].median())
    return out


def _without_worst_field(
    mask: Tensor, strength: Tensor, acquisition: Acquisition, rng: RandomSource
) -> Tensor:
    """Cut away the part of a mask with the steepest background, as pipelines do by the quality of the phase."""
    level = smooth(strength, tuple(2.0 / v for v in acquisition.voxel))  # type: ignore[arg-type]
    inside = level[mask]
    limit = torch.quantile(inside[:: max(1, len(inside) // 100_000)], rng.uniform(0.96, 0.999))
    return mask & (level < limit)


def _affine(acquisition: Acquisition, protocol: Protocol) -> Affine:
    """Voxel to RAS+ world, oblique as the slices are tilted; the grid's middle lies at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = slice_rotation(protocol.tilt) @ np.diag(acquisition.voxel)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(acquisition.final_size) - 1) / 2)
    return affine
