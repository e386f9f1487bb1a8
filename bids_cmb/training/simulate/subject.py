"""A subject: a head deformed, mirrored, aged and textured, as maps of physical properties on a fine grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bids_cmb.training.simulate.grids import gradient, sample, smooth, smooth_field
from bids_cmb.training.simulate.heads import Head
from bids_cmb.training.simulate.protocol import slice_rotation
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.sulci import open_sulci
from bids_cmb.training.simulate.tissues import BRAIN, PROPERTIES, Tissue, one_of

_TISSUES = tuple(Tissue)
#: Air around the head, mm.
_MARGIN = 6.0
#: Brain with its fluid, litres: heads are brought into this range.
_VOLUME = (1.1, 1.85)
#: Proton signal of fluid in most protocols, whose repetition time leaves it little brighter than white matter.
_USUAL_FLUID = (0.35, 0.85)
#: Fine voxels along x that are sampled at once, to bound memory.
_SLAB = 24


@dataclass
class Subject:
    """Property maps of one simulated subject on the fine grid.

    Attributes
    ----------
    spacing
        Edge of the fine voxels, mm.
    chi, r2star, signal
        (X, Y, Z): susceptibility (ppm), R2* at 3 T (1/s), effective proton signal.
    tissue
        (X, Y, Z) uint8: the dominant `Tissue`.
    brain
        (X, Y, Z) bool: the brain with its CSF.
    to_mni
        4x4: fine voxel index to MNI152 mm, the affine part (elastic deformation left out).
    """

    spacing: float
    chi: Tensor
    r2star: Tensor
    signal: Tensor
    tissue: Tensor
    brain: Tensor
    to_mni: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Fine grid."""
        x, y, z = self.chi.shape
        return x, y, z

    def from_mni(self, points: Tensor) -> Tensor:
        """Fine voxel coordinates of MNI152 points (N, 3), by the affine part."""
        inverse = torch.linalg.inv(self.to_mni.cpu().double()).to(points)
        return points @ inverse[:3, :3].T + inverse[:3, 3]


def make_subject(
    head: Head, rng: RandomSource, *, spacing: float, tilt: tuple[float, float, float]
) -> Subject:
    """Sample a head on a fine grid with random shape, age, sulci, tissue values and texture.

    Parameters
    ----------
    head
        The anatomy.
    rng
        Source of chance; its device is where the maps live.
    spacing
        Fine voxel edge, mm: by default 0.6; 0.75 in the training of the shipped weights, in half the time.
    tilt
        Rotation of the grid against the head about x, y, z, degrees.

    Returns
    -------
    Subject
        Maps on the smallest grid that holds the head.
    """
    device = rng.device
    zooms = tuple(np.linalg.norm(head.affine[:3, :3], axis=0).tolist())
    labels = torch.from_numpy(open_sulci(head.labels, zooms, rng)).to(device)
    linear = _random_linear(rng, tilt)
    linear = linear * _plausible_size(head, labels, linear)
    frame = _frame(head, linear, spacing, labels)
    shape = frame.shape
    displacement = _displacement(frame, rng, spacing, labels)
    ageing = _ageing(rng, labels)
    values = {
        t: [rng.uniform(*r) for r in (PROPERTIES[t].chi, PROPERTIES[t].r2star, PROPERTIES[t].signal)]
        for t in _TISSUES
    }
    if rng.chance(0.85):
        values[Tissue.CSF][2] = rng.uniform(*_USUAL_FLUID)
    values[Tissue.VENTRICLE] = values[Tissue.CSF]
    present = [t for t in _TISSUES if bool((labels == int(t)).any())]
    head_maps = _head_maps(labels, present, values, rng.uniform(0.5, 0.9), rng.chance(0.5))
    air = torch.tensor(values[Tissue.BACKGROUND], device=device)
    properties = torch.empty(3, *shape, device=device)
    tissue = torch.empty(shape, dtype=torch.uint8, device=device)
    for first in range(0, shape[0], _SLAB):
        slab = slice(first, min(first + _SLAB, shape[0]))
        points = _aged(_head_voxels(frame, linear, spacing, displacement, slab), ageing)
        mixed = sample(head_maps, points)
        covered = mixed[3] > 1e-3  # the rest lies beyond the label map
        properties[:, slab] = torch.where(
            covered, mixed[:3] / mixed[3].clamp(min=1e-3), air[:, None, None, None]
        )
        tissue[slab] = _nearest(labels, points)
    chi, r2star, signal = properties
    brain = torch.zeros(256, dtype=torch.bool, device=device)
    brain[list(map(int, BRAIN))] = True
    brain = brain[tissue.long()]
    spacings = (spacing,) * 3
    inside = brain.float()
    texture = (smooth_field(rng, shape, spacings, 6.0) + smooth_field(rng, shape, spacings, 20.0)).mul_(
        0.5 * inside
    )
    chi += texture * rng.uniform(0.002, 0.012)
    fine = smooth_field(rng, shape, spacings, 2.5).mul_(inside * rng.uniform(0.005, 0.06))
    r2star *= 1 + texture * rng.uniform(0.01, 0.05) + fine
    signal *= 1 + smooth_field(rng, shape, spacings, 9.0).mul_(inside) * rng.uniform(0.005, 0.03) + 0.5 * fine
    to_mni = _to_mni(head, linear, spacing, frame).to(device)
    return Subject(spacing, chi, r2star, signal, tissue, brain, to_mni)


def _random_linear(rng: RandomSource, tilt: tuple[float, float, float]) -> Tensor:
    """3x3 matrix from the scan's millimetres to the head's: rotation, scale, shear, mirror."""
    rotation = torch.from_numpy(slice_rotation(tilt))
    scale = torch.diag(torch.tensor([rng.uniform(0.92, 1.1) for _ in range(3)], dtype=torch.float64))
    if rng.chance(0.5):
        scale[0, 0] *= -1
    shear = torch.eye(3, dtype=torch.float64)
    shear[0, 1], shear[1, 2] = rng.normal(0, 0.015), rng.normal(0, 0.03)
    return shear @ scale @ rotation


def _plausible_size(head: Head, labels: Tensor, linear: Tensor) -> float:
    """Factor on the head's millimetres that brings the brain's volume into `_VOLUME`."""
    brain = one_of(labels, BRAIN).sum()
    litres = float(brain) * abs(float(np.linalg.det(head.affine[:3, :3]))) * 1e-6
    litres /= abs(float(torch.linalg.det(linear)))
    wanted = min(max(litres, _VOLUME[0]), _VOLUME[1])
    return float((litres / wanted) ** (1 / 3))


def _centre(labels: Tensor) -> Tensor:
    brain = one_of(labels, BRAIN)
    return torch.nonzero(brain).double().mean(dim=0).cpu()


@dataclass(frozen=True)
class _Frame:
    """Where the fine grid lies: head voxel size, brain centre (head voxels), first corner (scan mm), fine shape."""

    voxel: Tensor
    centre: Tensor
    low: Tensor
    shape: tuple[int, int, int]


def _frame(head: Head, linear: Tensor, spacing: float, labels: Tensor) -> _Frame:
    """Fit the smallest grid around the head, cut at the neck."""
    voxel = torch.from_numpy(np.linalg.norm(head.affine[:3, :3], axis=0))
    occupied = torch.nonzero(labels > 0)
    corners = torch.stack([occupied.min(0).values, occupied.max(0).values]).double().cpu()
    centre = _centre(labels)
    grid = torch.tensor(
        [[corners[i, 0], corners[j, 1], corners[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    )
    scan = (grid - centre) * voxel @ torch.linalg.inv(linear).T
    low, high = scan.min(0).values - _MARGIN, scan.max(0).values + _MARGIN
    low[2] = torch.maximum(low[2], torch.tensor(-78.0, dtype=torch.float64))  # nobody scans the neck
    x, y, z = (_even(float(h - a) / spacing) for a, h in zip(low, high, strict=True))
    return _Frame(voxel, centre, low, (x, y, z))


def _displacement(frame: _Frame, rng: RandomSource, spacing: float, labels: Tensor) -> Tensor:
    """Elastic displacement (3, x, y, z) in head voxels on a grid four times coarser than the fine one."""
    coarse = tuple(max(2, n // 4) for n in frame.shape)
    size = coarse[0], coarse[1], coarse[2]
    spacings = (4 * spacing,) * 3
    parts = [torch.zeros(size, device=labels.device) for _ in range(3)]
    for scale, amplitude in ((55.0, rng.uniform(1.0, 4.0)), (25.0, rng.uniform(0.3, 1.4))):
        for i in range(3):
            parts[i] += smooth_field(rng, size, spacings, scale) * (amplitude / float(frame.voxel[i]))
    return torch.stack(parts)


def _ageing(rng: RandomSource, labels: Tensor) -> Tensor:
    """Displacement (3, X, Y, Z) on the head's grid that widens (or narrows) the ventricles."""
    fluid = (labels == int(Tissue.VENTRICLE)) | (labels == int(Tissue.CSF))
    return gradient(smooth(fluid.float() * _inner(labels), (4.0, 4.0, 4.0))) * rng.uniform(-4.0, 28.0)


def _head_maps(
    labels: Tensor, present: list[Tissue], values: dict[Tissue, list[float]], blur: float, sharp: bool
) -> Tensor:
    """Property maps (4, X, Y, Z) on the head's grid: susceptibility, R2*, signal and coverage, mixed at borders."""
    maps = torch.zeros(4, *labels.shape, device=labels.device)
    total = torch.zeros(labels.shape, device=labels.device)
    for tissue in present:
        fraction = smooth((labels == int(tissue)).float(), (blur,) * 3)
        if sharp:  # a border of about one voxel instead of a gradual one
            fraction.square_()
        total += fraction
        for channel, value in enumerate(values[tissue]):
            maps[channel] += fraction * value
    maps[:3] /= total.clamp(min=1e-8)
    maps[3] = 1.0
    return maps


def _nearest(labels: Tensor, points: Tensor) -> Tensor:
    """Label (uint8) of the head voxel nearest to each point (..., 3); background beyond the map."""
    size = torch.tensor(labels.shape, device=points.device)
    voxel = points.round().long()
    inside = ((voxel >= 0) & (voxel < size)).all(dim=-1)
    x, y, z = torch.minimum(voxel.clamp(min=0), size - 1).unbind(-1)
    return torch.where(inside, labels[x, y, z], torch.zeros_like(x)).to(torch.uint8)


def _aged(points: Tensor, ageing: Tensor) -> Tensor:
    """Add the ageing displacement, which is known on the head's own grid."""
    return points + sample(ageing, points).movedim(0, -1)


def _head_voxels(frame: _Frame, linear: Tensor, spacing: float, displacement: Tensor, slab: slice) -> Tensor:
    """Head voxel coordinates (x, Y, Z, 3) of the fine voxels of one slab along x."""
    device = displacement.device
    axes = [torch.arange(n, device=device, dtype=torch.float32) for n in frame.shape]
    axes[0] = axes[0][slab]
    coarse = torch.meshgrid(
        *[a * ((c - 1) / (n - 1)) for a, n, c in zip(axes, frame.shape, displacement.shape[1:], strict=True)],
        indexing="ij",
    )
    elastic = sample(displacement, torch.stack(coarse, dim=-1))
    matrix = (linear / frame.voxel[:, None]).float().to(device)
    scan = [a * spacing + float(low) for a, low in zip(axes, frame.low, strict=True)]
    points = [
        matrix[i, 0] * scan[0][:, None, None]
        + matrix[i, 1] * scan[1][:, None]
        + matrix[i, 2] * scan[2]
        + float(frame.centre[i])
        + elastic[i]
        for i in range(3)
    ]
    return torch.stack(points, dim=-1)


def _inner(labels: Tensor) -> Tensor:
    """Return 1 well inside the brain, so that only ventricles widen, not the outer CSF."""
    brain = one_of(labels, BRAIN).float()
    return (smooth(brain, (8.0, 8.0, 8.0)) > 0.9).float()


def _even(value: float) -> int:
    """Next size whose prime factors are small, for the Fourier transforms."""
    n = math.ceil(value)
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1 and n % 2 == 0:
            return n
        n += 1


def _to_mni(head: Head, linear: Tensor, spacing: float, frame: _Frame) -> Tensor:
    """Affine fine voxel -> MNI152, without the elastic part."""
    to_voxel = torch.eye(4, dtype=torch.float64)
    to_voxel[:3, :3] = (linear / frame.voxel[:, None]) * spacing
    to_voxel[:3, 3] = (linear @ frame.low) / frame.voxel + frame.centre
    return (torch.from_numpy(head.world_to_mni @ head.affine) @ to_voxel).float()
