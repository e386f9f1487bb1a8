"""Samples that the brain mask network learns from: painted heads and simulated scans, on the device that trains.

A painted sample is a head of the simulator in random grey levels, warped, and spoiled in the ways in which real
gradient-echo scans differ: bias field, thick slices, signal loss near air, dark lesions, partial coverage, noise,
skull removed by someone else. Ranges are wider than reality on purpose (SynthSeg's lesson). The others are whole-head
scans of the physical simulation, whose contrast and dark sulci no paint gives, warped and cropped likewise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from bids_cmb.imaging.coarse import to_coarse
from bids_cmb.imaging.mask_network import GRID_MM
from bids_cmb.training.parallel import arrays_of_all
from bids_cmb.training.simulate.corpus import load_scan
from bids_cmb.training.simulate.heads import Head
from bids_cmb.training.simulate.scan import SimulatedScan
from bids_cmb.training.simulate.tissues import Tissue
from bids_cmb.types import BoolArray, Point, Volume

#: Size of a training sample on the network's grid.
SAMPLE_SHAPE = (96, 112, 96)
#: Labels from here on are not brain (`Tissue`).
_FIRST_OUTER = int(Tissue.BONE)
_FLUIDS = (int(Tissue.CSF), int(Tissue.VENTRICLE))
#: Label of the thin space around the brain (fluid, vessels, dura), which no head has, and how far it reaches.
_GAP, _GAP_MM = max(Tissue) + 1, 2.5
_LABELS = _GAP + 1
#: Share of simulated scans among the samples.
_SCANS = 0.5


@dataclass(frozen=True)
class Anatomy:
    """A head on the training device.

    Attributes
    ----------
    labels
        1 mm labels, int32, shape (x, y, z), padded to even sizes.
    outside
        Distance to the brain in mm on the 2 mm grid, 0 inside, shape (x/2, y/2, z/2).
    centre
        Middle of the brain in voxels of the 2 mm grid.
    """

    labels: Tensor
    outside: Tensor
    centre: Point


@dataclass(frozen=True)
class WholeHead:
    """A simulated scan of a whole head on the network's grid.

    Attributes
    ----------
    image, brain
        Intensities and fraction of brain, float16, shape (x, y, z).
    centre
        Middle of the brain in voxels.
    """

    image: Tensor
    brain: Tensor
    centre: Point

    def to(self, device: torch.device) -> WholeHead:
        """Move to a device."""
        return replace(self, image=self.image.to(device), brain=self.brain.to(device))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all as arrays, for `of`."""
        return {"image": self.image.numpy(), "brain": self.brain.numpy(), "centre": np.array(self.centre)}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> WholeHead:
        """Put together what `arrays` gave."""
        x, y, z = (float(v) for v in arrays["centre"])
        return cls(torch.from_numpy(arrays["image"]), torch.from_numpy(arrays["brain"]), (x, y, z))


@dataclass(frozen=True)
class Sample:
    """One training sample; each tensor of shape (1, x, y, z).

    Attributes
    ----------
    image
        Intensities, zero where the scan does not reach.
    coverage
        One where the scan has data.
    brain
        Fraction of brain in each voxel.
    """

    image: Tensor
    coverage: Tensor
    brain: Tensor


def anatomy_of(head: Head, device: torch.device) -> Anatomy:
    """Move a head (1 mm) to the device, with its distance map and a gap between brain and bone."""
    labels = np.pad(head.labels, [(0, n % 2) for n in head.labels.shape])
    brain = (labels > 0) & (labels < _FIRST_OUTER)
    near = ndimage.distance_transform_edt(~brain) <= _GAP_MM
    labels = np.where(near & ~brain, _GAP, labels)
    coarse = brain[::2, ::2, ::2]
    distance = ndimage.distance_transform_edt(~coarse) * GRID_MM
    return Anatomy(
        torch.from_numpy(labels.astype(np.int32)).to(device),
        torch.from_numpy(distance.astype(np.float32)).to(device),
        _middle(coarse),
    )


def whole_head(scan: SimulatedScan) -> WholeHead:
    """Bring a simulated scan to the network's grid."""
    zooms = Volume(scan.image, scan.affine).zooms
    image = to_coarse(scan.image, zooms, GRID_MM)
    brain = to_coarse(scan.brain_mask, zooms, GRID_MM)
    scaled = torch.from_numpy(image / max(float(np.percentile(image, 99.5)), 1e-6))
    return WholeHead(scaled.half(), torch.from_numpy(brain).half(), _middle(brain > 0.5))


def whole_heads(paths: Sequence[Path], processes: int) -> list[WholeHead]:
    """Read simulated scans; those that are stripped already teach nothing and are left out."""

    def make(i: int) -> dict[str, np.ndarray]:
        scan = load_scan(paths[i])
        return {} if scan.protocol.stripped or scan.protocol.contrast == "qsm" else whole_head(scan).arrays()

    return [WholeHead.of(arrays) for arrays in arrays_of_all(make, len(paths), processes) if arrays]


def _middle(brain: BoolArray) -> Point:
    bounds = ndimage.find_objects(brain.astype(np.uint8))[0]
    x, y, z = ((b.start + b.stop - 1) / 2 for b in bounds)
    return x, y, z


class Painter:
    """Makes samples from heads and from simulated scans.

    Parameters
    ----------
    anatomies
        Heads to paint.
    scans
        Simulated scans to draw from: half of the samples; may be empty.
    seed
        Seed of every random number used.
    device
        Where the samples are made.
    """

    def __init__(
        self,
        anatomies: Sequence[Anatomy],
        scans: Sequence[WholeHead],
        seed: int,
        device: torch.device,
    ) -> None:
        self.anatomies = anatomies
        self.scans = scans
        self.shape = SAMPLE_SHAPE
        self.device = device
        self._seed = seed
        self._numbers = np.random.default_rng(seed)
        self._fields = torch.Generator(device=device)

    def sample(self, index: int) -> Sample:
        """Make sample number ``index``: the same one each time, whatever was made before."""
        self._numbers = np.random.default_rng([self._seed, index])
        self._fields.manual_seed(int(self._numbers.integers(2**62)))
        if self.scans and self._chance(_SCANS):
            return self._scanned(self.scans[int(self._numbers.integers(len(self.scans)))])
        return self._painted_sample(self.anatomies[int(self._numbers.integers(len(self.anatomies)))])

    def _painted_sample(self, anatomy: Anatomy) -> Sample:
        tissue, brain, outside = self._painted(anatomy)
        image = self._with_lesions(tissue, brain)
        image = self._with_dropout(image, brain, outside)
        image = self._with_bias(image)
        image = self._with_slices(image)
        image = self._with_noise(image)
        image = self._like_susceptibility(image, outside)
        image = self._stripped(image, brain, outside)
        coverage = self._coverage()
        return Sample(image * coverage, coverage, brain * coverage)

    def _scanned(self, scan: WholeHead) -> Sample:
        """Warp a simulated scan: its own field of view, cropped further now and then, is what is covered."""
        stack = torch.stack([scan.image.float(), scan.brain.float(), torch.ones_like(scan.brain).float()])
        image, brain, seen = functional.grid_sample(
            stack[None], self._warp(scan.centre, scan.brain.shape), mode="bilinear", align_corners=False
        )[0].split(1)
        coverage = self._coverage() * (seen > 0.5)
        return Sample(self._with_bias(image) * coverage, coverage, brain * coverage)

    # --- random numbers ------------------------------------------------------------------------------------

    def _chance(self, probability: float) -> bool:
        return bool(self._numbers.random() < probability)

    def _between(self, low: float, high: float) -> float:
        return float(self._numbers.uniform(low, high))

    def _normal(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self._fields, device=self.device)

    def _smooth(self, points: int, shape: Sequence[int], channels: int = 1) -> Tensor:
        """Smooth random field of about unit variance, shape (channels, x, y, z)."""
        longest = max(shape)
        knots = [max(2, round(points * n / longest)) for n in shape]
        field = functional.interpolate(
            self._normal((1, channels, *knots)), size=tuple(shape), mode="trilinear", align_corners=True
        )
        return field[0] * 1.3

    # --- tissue --------------------------------------------------------------------------------------------

    def _painted(self, anatomy: Anatomy) -> tuple[Tensor, Tensor, Tensor]:
        """Paint a head, warp it to the sample's grid: (intensity, brain fraction, distance to brain)."""
        levels = self._levels()
        is_brain = torch.zeros(_LABELS, device=self.device)
        is_brain[1:_FIRST_OUTER] = 1
        labels = self._atrophied(anatomy.labels)
        fraction = self._pooled(is_brain, labels)
        inner = self._pooled(levels * is_brain, labels)
        if self._chance(0.3):
            outer = (1 - fraction) * self._shells(anatomy.outside)
        else:
            outer = self._pooled(levels * (1 - is_brain), labels)
        if self._chance(0.5):
            # The receive field of a surface coil, or fat that one protocol suppresses and another does not.
            outer = outer * self._between(0.2, 1.6)
        stack = torch.stack([inner + outer, fraction, anatomy.outside])
        warped = functional.grid_sample(
            stack[None],
            self._warp(anatomy.centre, anatomy.outside.shape),
            mode="bilinear",
            align_corners=False,
        )[0]
        outside = torch.where(warped[1] + warped[2] > 0, warped[2], 99.0)
        texture = self._between(0, 0.06) * self._smooth(int(self._between(30, 60)), self.shape)[0]
        image = (warped[0] + texture * (warped[0] > 0.02)).clamp(min=0)
        return image[None], warped[1:2], outside[None]

    def _levels(self) -> Tensor:
        """Draw a grey level for each label: any contrast at all, or one like gradient echo."""
        draw = self._numbers.uniform
        levels = draw(0, 1, _LABELS)
        if self._chance(0.6):
            base = draw(0.6, 1.0)
            fluid = base * draw(0.1, 1.5)
            levels[1:_FIRST_OUTER] = base * draw(0.75, 1.1, _FIRST_OUTER - 1)
            levels[list(_FLUIDS)] = fluid
            levels[[Tissue.MUSCLE, Tissue.FAT]] = np.sort(draw(0, 1, 2)) * draw(0.3, 1.4)
            levels[[Tissue.BONE, Tissue.AIR]] = draw(0, 0.25), draw(0, 0.05)
            levels[_GAP] = draw(0, 1) * fluid
        levels[0] = draw(0, 0.05) if self._chance(0.9) else draw(0, 0.3)
        return torch.as_tensor(levels, dtype=torch.float32, device=self.device)

    def _pooled(self, levels: Tensor, labels: Tensor) -> Tensor:
        """Paint 1 mm labels and average them into 2 mm voxels."""
        painted = levels.index_select(0, labels.flatten()).view(1, 1, *labels.shape)
        return functional.avg_pool3d(painted, 2)[0, 0]

    def _atrophied(self, labels: Tensor) -> Tensor:
        """Let fluid eat into the parenchyma, as age does; the mask stays."""
        if not self._chance(0.35):
            return labels
        fluid = ((labels == _FLUIDS[0]) | (labels == _FLUIDS[1])).to(torch.float32)[None, None]
        for _ in range(int(self._numbers.integers(1, 4))):
            fluid = functional.max_pool3d(fluid, 3, stride=1, padding=1)
        wet = (fluid[0, 0] > 0) & (labels > 0) & (labels < _FIRST_OUTER)
        return torch.where(wet, torch.full_like(labels, int(Tissue.CSF)), labels)

    def _shells(self, outside: Tensor) -> Tensor:
        """Invent skull and scalp as shells of random thickness and brightness around the brain."""
        thickness = [
            self._between(0, 6),  # fluid
            self._between(1, 4),  # inner table
            self._between(0, 5),  # marrow
            self._between(1, 4),  # outer table
            self._between(1, 8),  # fat
            self._between(0, 8),  # muscle and skin
        ]
        bright = self._numbers.uniform(0, 1, 6)
        if self._chance(0.8):
            bright[[1, 3]] = self._numbers.uniform(0, 0.2, 2)
        wobble = self._smooth(8, outside.shape)[0] * self._between(0, 3)
        distance = outside + wobble
        image = torch.full_like(outside, self._between(0, 0.04))
        edge = 0.0
        for width, level in zip(thickness, bright, strict=True):
            shell = (distance >= edge) & (distance < edge + width)
            image = torch.where(shell, torch.full_like(image, float(level)), image)
            edge += width
        return image

    def _warp(self, centre: Point, shape: Sequence[int]) -> Tensor:
        """Random position, pose, size and shape as a sampling grid, shape (1, x, y, z, 3)."""
        matrix = self._affine()
        axes = [torch.arange(n, device=self.device, dtype=torch.float32) - (n - 1) / 2 for n in self.shape]
        place = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        shift = torch.as_tensor(self._numbers.uniform(-8, 8, 3), dtype=torch.float32, device=self.device)
        place = (place + shift) @ torch.as_tensor(matrix.T, dtype=torch.float32, device=self.device)
        for points, reach in ((4, 4.0), (9, 1.5)):
            bend = self._smooth(points, self.shape, 3) * self._between(0, reach) / GRID_MM
            place = place + bend.permute(1, 2, 3, 0)
        place = place + torch.tensor(centre, device=self.device)
        size = torch.tensor(shape, device=self.device, dtype=torch.float32)
        grid = (place + 0.5) / size * 2 - 1
        # grid_sample wants the last axis of the array first.
        return grid.flip(-1)[None]

    def _affine(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """Random rotation, anisotropic scale, shear and flips, 3x3."""
        turn = np.eye(3)
        for axis, angle in enumerate(np.deg2rad(self._numbers.normal(0, 10, 3))):
            a, b = [k for k in range(3) if k != axis]
            step = np.eye(3)
            step[a, a] = step[b, b] = math.cos(angle)
            step[a, b], step[b, a] = -math.sin(angle), math.sin(angle)
            turn = turn @ step
        scale = np.diag(self._between(0.94, 1.24) * self._numbers.uniform(0.93, 1.07, 3))
        shear = np.eye(3) + np.triu(self._numbers.normal(0, 0.03, (3, 3)), 1)
        # Some headers have front and back or top and bottom swapped.
        flips = np.diag([-1.0 if self._chance(p) else 1.0 for p in (0.5, 0.08, 0.04)])
        matrix: np.ndarray[tuple[int, int], np.dtype[np.float64]] = turn @ scale @ shear @ flips
        return matrix

    # --- what spoils a scan --------------------------------------------------------------------------------

    def _spheres(self, centre: Tensor, radius: float, stretch: Tensor) -> Tensor:
        """Soft ellipsoid: one inside, falling to zero over a voxel or two."""
        axes = [torch.arange(n, device=self.device, dtype=torch.float32) for n in self.shape]
        grid = torch.meshgrid(*axes, indexing="ij")
        square = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, stretch, strict=True))
        return torch.sigmoid((radius - torch.as_tensor(square).sqrt()) * 2)

    def _places(self, where: Tensor, count: int) -> Tensor:
        """Random voxels of a mask, shape (count, 3); none if it is empty."""
        found = where.nonzero()
        if len(found) == 0:
            return found.to(torch.float32)
        pick = self._numbers.integers(0, len(found), count)
        return found[torch.as_tensor(pick, device=self.device)].to(torch.float32)

    def _stretch(self) -> Tensor:
        return torch.as_tensor(self._numbers.uniform(0.6, 1.6, 3), dtype=torch.float32, device=self.device)

    def _with_lesions(self, image: Tensor, brain: Tensor) -> Tensor:
        """Dark and bright lesions anywhere in the brain, up to large bleeds that open to its surface."""
        if not self._chance(0.4):
            return image
        for place in self._places(brain[0] > 0.5, int(self._numbers.integers(1, 5))):
            radius = self._between(1, 4) if self._chance(0.7) else self._between(4, 12)
            level = self._between(0, 0.3) if self._chance(0.7) else self._between(0.3, 1.3)
            blob = self._spheres(place, radius, self._stretch()) * (brain[0] > 0.3)
            image = image * (1 - blob) + level * blob
        return image

    def _with_dropout(self, image: Tensor, brain: Tensor, outside: Tensor) -> Tensor:
        """Loss of signal near the air of sinuses and petrous bone, at the lower surface of the brain."""
        if not self._chance(0.5):
            return image
        rows = (brain[0] > 0.5).any(0).any(0).nonzero()
        if len(rows) == 0:
            return image
        low, high = int(rows[0]), int(rows[-1])
        limit = low + int(0.55 * (high - low + 1))
        rim = (outside[0] > 0) & (outside[0] <= 6)
        rim[:, :, limit:] = False
        for place in self._places(rim, int(self._numbers.integers(1, 5))):
            blob = self._spheres(place, self._between(2, 10), self._stretch())
            soft = functional.avg_pool3d(blob[None, None], 5, stride=1, padding=2)[0, 0]
            image = image * (1 - self._between(0.4, 1.0) * soft)
        return image

    def _with_bias(self, image: Tensor) -> Tensor:
        field = self._smooth(int(self._numbers.integers(2, 6)), self.shape) * self._between(0, 0.5)
        curved = image.clamp(min=0) ** math.exp(self._between(-0.35, 0.35))
        return curved * torch.exp(field)

    def _with_slices(self, image: Tensor) -> Tensor:
        """Blur in plane and through thick slices, then interpolate as the network's input will be."""
        image = self._blurred(image, [self._between(0, 0.9) for _ in range(3)])
        if not self._chance(0.7):
            return image
        axis = int(self._numbers.choice(3, p=(0.1, 0.15, 0.75)))
        thick = self._between(1, 7) / GRID_MM
        if thick <= 1:
            return image
        image = self._blurred(image, [thick / 2.4 if k == axis else 0.0 for k in range(3)])
        size = list(self.shape)
        size[axis] = max(2, round(size[axis] / thick))
        few = functional.interpolate(image[None], size=size, mode="trilinear", align_corners=False)
        if self._chance(0.3):
            # Interleaved slices are not equally bright.
            form = [1, 1, 1]
            form[axis] = size[axis]
            few = few * (1 + self._between(0, 0.1) * self._normal(form))
        return functional.interpolate(few, size=self.shape, mode="trilinear", align_corners=False)[0]

    def _blurred(self, image: Tensor, sigmas: Sequence[float]) -> Tensor:
        for axis, sigma in enumerate(sigmas):
            if sigma < 0.2:
                continue
            reach = max(1, math.ceil(2.5 * sigma))
            steps = torch.arange(-reach, reach + 1, device=self.device, dtype=torch.float32)
            kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
            form = [1, 1, 1, 1, 1]
            form[axis + 2] = -1
            padding = [reach if k == axis else 0 for k in range(3)]
            image = functional.conv3d(image[None], (kernel / kernel.sum()).view(form), padding=padding)[0]
        return image

    def _with_noise(self, image: Tensor) -> Tensor:
        """Noise of a magnitude image, sometimes of a real-valued one."""
        level = 10 ** self._between(-3, -0.9)
        if self._chance(0.15):
            return image + level * self._normal(image.shape)
        real = image + level * self._normal(image.shape)
        return torch.sqrt(real**2 + (level * self._normal(image.shape)) ** 2)

    def _like_susceptibility(self, image: Tensor, outside: Tensor) -> Tensor:
        """Sometimes little contrast in the brain and nothing but noise around it: an unmasked QSM."""
        if not self._chance(0.06):
            return image
        flat = (image - 0.5) * self._between(0.05, 0.3)
        noise = self._normal(image.shape) * self._between(0.1, 0.6)
        return torch.where(outside > self._between(0, 6), noise, flat + 0.1 * noise)

    def _stripped(self, image: Tensor, brain: Tensor, outside: Tensor) -> Tensor:
        """Sometimes the background is exactly zero, or the skull has been taken off, well or badly."""
        if self._chance(0.12):
            margin = self._between(0, 8) + self._smooth(6, self.shape) * self._between(0, 3)
            return image * (outside <= margin.clamp(min=0)) * (brain + outside > 0)
        if self._chance(0.3):
            return torch.where(image < self._between(0.02, 0.12), torch.zeros_like(image), image)
        return image

    def _coverage(self) -> Tensor:
        """Box that the scan covers: often the whole head, sometimes a slab."""
        coverage = torch.zeros((1, *self.shape), device=self.device)
        low, high = [0, 0, 0], list(self.shape)
        for axis, chance in enumerate((0.1, 0.15, 0.45)):
            if not self._chance(chance):
                continue
            length = self.shape[axis]
            if axis == 2 and self._chance(0.5):
                extent = int(self._between(7, 50))
                low[axis] = int(self._between(0.15 * length, 0.85 * length - min(extent, 0.5 * length)))
                high[axis] = low[axis] + extent
            else:
                low[axis] = int(self._between(0, 0.25 * length))
                high[axis] = length - int(self._between(0, 0.25 * length))
        coverage[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]] = 1
        return coverage
