"""Scans as the networks see them in training: channels, targets, weights and places to sample from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bids_cmb.detector.grid import WorkingGrid
from bids_cmb.detector.network_input import network_input
from bids_cmb.training.simulate.scan import SimulatedScan
from bids_cmb.types import Affine, BoolArray, Contrast, FloatArray, Volume

#: Patch of stage 1, working voxels.
PATCH = (48, 48, 16)
#: Share of patches around microbleeds, around what looks like one, and anywhere in the brain.
_SHARES = (0.5, 0.25, 0.25)
#: A bleed this wide is still taught as a microbleed, mm: by another outline it would be 10 mm.
_MICROBLEED = 12.0
#: One that reaches this far is no microbleed for sure, mm (with what it darkens around it).
_MACROBLEED = 30.0


@dataclass(frozen=True)
class Target:
    """One annotated lesion: world position (mm), diameter (mm) and whether it counts (else it is ignored)."""

    position: tuple[float, float, float]
    diameter: float
    counts: bool


@dataclass(frozen=True)
class TrainingScan:
    """One scan on the working grid.

    Attributes
    ----------
    name, contrast
        What it is.
    grid
        Working grid.
    channels
        (2, x, y, z) float16, from `network_input`.
    heat
        (x, y, z) uint8: 255 at the centre of a lesion, falling off with its size.
    segmentation
        (x, y, z) uint8: 1 in a lesion's outline.
    weight
        (x, y, z) bool: False where nothing is learnt (lesions too faint for a rater, beyond the brain).
    lesions
        (N, 3) float working voxel coordinates of the lesions that count.
    ignored
        (M, 3) the same for those that do not, or that the brain mask cut away.
    diameters, ignored_diameters
        (N,) and (M,) mm.
    lookalikes
        (K, 3) int16 voxels of high symmetry that are no lesion.
    brain
        (B, 3) int16 random voxels of the brain.
    """

    name: str
    contrast: Contrast
    grid: WorkingGrid
    channels: Tensor
    heat: Tensor
    segmentation: Tensor
    weight: Tensor
    lesions: npt.NDArray[np.float32]
    ignored: npt.NDArray[np.float32]
    diameters: npt.NDArray[np.float32]
    ignored_diameters: npt.NDArray[np.float32]
    lookalikes: npt.NDArray[np.int16]
    brain: npt.NDArray[np.int16]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Working voxel edges, mm."""
        return self.grid.spacing


def targets_of(scan: SimulatedScan) -> list[Target]:
    """Lesions of a simulated scan to learn from.

    What a rater would not see does not count, nor what is between a microbleed and a macrobleed: nothing is learnt of it.
    """
    bleeds = [Target(x.position, x.diameter, x.visible and x.diameter <= _MICROBLEED) for x in scan.lesions]
    between = [
        Target(position, 2 * radius, False)
        for position, radius, name in scan.mimics
        if name == "macrobleed" and 2 * radius <= _MACROBLEED
    ]
    return [*bleeds, *between]


def training_scan(
    name: str,
    contrast: Contrast,
    image: FloatArray,
    affine: Affine,
    brain_mask: BoolArray,
    targets: Sequence[Target],
    outlines: npt.NDArray[np.uint8],
    *,
    seed: int,
) -> TrainingScan:
    """Bring an annotated scan onto the working grid.

    Parameters
    ----------
    name, contrast
        What it is.
    image, affine, brain_mask
        Prepared scan on its own grid.
    targets
        Lesions.
    outlines
        Image grid: above 0 inside a lesion that counts.
    seed
        Of the choice of places.
    """
    channels, grid = network_input(Volume(image, affine), brain_mask, contrast, torch.device("cpu"))
    segmentation = grid.to_working(torch.from_numpy((outlines > 0).astype(np.float32))) > 0.35
    inverse = np.linalg.inv(affine)
    world = np.array([t.position for t in targets], np.float64).reshape(-1, 3)
    voxels = grid.working_voxels(torch.from_numpy(world @ inverse[:3, :3].T + inverse[:3, 3]).float()).numpy()
    diameters = np.array([t.diameter for t in targets], np.float32)
    counts = np.array([t.counts for t in targets], bool)
    size = np.array(channels.shape[1:])
    heat = np.zeros(tuple(size), np.float32)
    weight = grid.to_working(torch.from_numpy(brain_mask.astype(np.float32))).numpy() > 0.2
    inside: npt.NDArray[np.bool_] = np.all((voxels >= 0) & (voxels <= size - 1), axis=1)
    # A lesion that the brain mask cut away cannot be learnt, but what it left inside is no other thing either.
    inside &= weight[tuple(np.clip(np.round(voxels).astype(int), 0, size - 1).T)]
    learnt = inside & counts
    spacing, brain = np.array(grid.spacing), weight.copy()
    for centre, diameter, real in zip(voxels, diameters, learnt, strict=True):
        _stamp(heat if real else None, weight, centre, float(diameter), spacing)
    weight |= brain & (heat >= 0.5)  # one that does not count must not hide its neighbour
    rng = np.random.default_rng(seed)
    symmetry = channels[1].numpy()
    strong = (
        (symmetry > np.quantile(symmetry[weight], 0.995)) & weight & (heat < 0.05) if weight.any() else weight
    )
    return TrainingScan(
        name,
        contrast,
        grid,
        channels.half(),
        torch.from_numpy((heat * 255).round().astype(np.uint8)),
        segmentation.to(torch.uint8),
        torch.from_numpy(weight),
        voxels[learnt].astype(np.float32),
        voxels[~learnt].astype(np.float32),
        diameters[learnt],
        diameters[~learnt],
        _some(rng, np.argwhere(strong), 800),
        _some(rng, np.argwhere(weight), 800),
    )


def _some(rng: np.random.Generator, voxels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int16]:
    chosen = voxels[rng.permutation(len(voxels))[:count]]
    return chosen.astype(np.int16)


def _stamp(
    heat: FloatArray | None,
    weight: BoolArray,
    centre: npt.NDArray[np.float32],
    diameter: float,
    spacing: npt.NDArray[np.float64],
) -> None:
    """Draw a Gaussian bump, or blank the weight around a lesion that does not count."""
    width = max(1.0, 0.3 * diameter)
    reach = np.ceil(3 * width / spacing).astype(int) + 1
    low = np.clip(np.round(centre).astype(int) - reach, 0, weight.shape)
    high = np.clip(np.round(centre).astype(int) + reach + 1, 0, weight.shape)
    if (low >= high).any():
        return
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.stack(
        np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), -1
    )
    # From the centre to the voxel's box, not its middle: of two thick slices that share a bleed, both may answer.
    distance = np.linalg.norm(np.maximum(np.abs(grid - centre) - 0.5, 0.0) * spacing, axis=-1)
    if heat is None:
        weight[box] &= distance > max(2.5, diameter)
    else:
        heat[box] = np.maximum(heat[box], np.exp(-0.5 * (distance / width) ** 2).astype(np.float32))


class PatchSampler:
    """Draws batches of augmented patches from scans.

    Parameters
    ----------
    scans
        To draw from, all equally often.
    seed
        Of all choices.
    """

    def __init__(self, scans: Sequence[TrainingScan], seed: int) -> None:
        self._scans = scans
        self._rng = np.random.default_rng(seed)

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs (size, 2, *PATCH), heat targets and weights (size, 1, *PATCH)."""
        parts = [self._patch() for _ in range(size)]
        inputs, heats, weights = (torch.stack(x) for x in zip(*parts, strict=True))
        return inputs, heats, weights

    def _patch(self) -> tuple[Tensor, Tensor, Tensor]:
        scan = self._scans[int(self._rng.integers(len(self._scans)))]
        kind = self._rng.choice(3, p=_SHARES)
        pools = (scan.lesions, scan.lookalikes, scan.brain)
        pool = pools[kind] if len(pools[kind]) else scan.brain
        centre = pool[self._rng.integers(len(pool))].astype(np.float64)
        centre = centre + self._rng.uniform(-0.35, 0.35, 3) * PATCH
        start = [round(c - n / 2) for c, n in zip(centre, PATCH, strict=True)]
        inputs = crop(scan.channels, start, PATCH).float()
        heat = crop(scan.heat[None], start, PATCH).float() / 255
        weight = crop(scan.weight[None].to(torch.uint8), start, PATCH).float()
        flips = [axis for axis in (1, 2, 3) if self._rng.random() < 0.5]
        swap = self._rng.random() < 0.5
        inputs, heat, weight = (_turn(x, flips, swap) for x in (inputs, heat, weight))
        inputs = inputs.clone()
        inputs[0] *= float(self._rng.uniform(0.75, 1.3))
        if self._rng.random() < 0.4:
            inputs[0] += torch.from_numpy(
                self._rng.normal(0, self._rng.uniform(0, 0.06), PATCH).astype(np.float32)
            ) * (inputs[0] != 0)
        return inputs, heat, weight


def _turn(patch: Tensor, flips: list[int], swap: bool) -> Tensor:
    out = patch.flip(flips) if flips else patch
    return out.transpose(1, 2) if swap else out


def crop(volume: Tensor, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """Cut (C, *size) from (C, x, y, z) at `start`, zero beyond the border."""
    out = volume.new_zeros((volume.shape[0], *size))
    source, target = [slice(None)], [slice(None)]
    for s, n, full in zip(start, size, volume.shape[1:], strict=True):
        low, high = max(0, s), min(full, s + n)
        if low >= high:
            return out
        source.append(slice(low, high))
        target.append(slice(low - s, high - s))
    out[tuple(target)] = volume[tuple(source)]
    return out
