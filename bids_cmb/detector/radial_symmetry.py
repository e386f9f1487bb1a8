"""Fast radial symmetry: every edge votes for the centre of the round thing that it may belong to.

Method of Loy & Zelinsky (IEEE TPAMI 2003;25:959-973), computed slice by slice as in Sundaresan et al. (Front
Neuroinform 2023;17:1204186), written anew from those descriptions with lengths in millimetres:

* a vote lands at a real-valued position, shared by bilinear weights among four voxels, never rounded;
* the map is a density of votes divided by what a perfect ring would give, so that it is 0..1 and means the
  same for any voxel size;
* gradients are divided by their own median, so that 0-1, 0-1000 and ppm images give the same map.

Votes are added as integers. Integer sums do not depend on their order: the map is the same, byte for byte,
for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Polarity = Literal["bright", "dark"]

#: Smoothing of the votes as a share of the radius (Loy & Zelinsky), and the least for coarse voxels, mm.
_SMOOTHING = 0.25
_LEAST_SMOOTHING = 0.5
#: An edge votes if its slope exceeds this multiple of the median slope, and weighs no more beyond the second.
_TINY = 0.5
_STEEP = 6.0
#: Slopes below this share of the steepest are blank background and stay out of the median.
_BLANK = 1e-4
#: Fixed-point steps: 1/128 voxel in position, 1/1024 in slope; both sums share one 64-bit word.
_POSITION_BITS = 7
_SLOPE_BITS = 10
_WORD_SHIFT = 36
#: Farthest vote, voxels: keeps both sums inside their part of the word.
_FARTHEST = 100
#: Voxels worked on at once: a slab that stays in a CPU's cache, or one large enough to fill a GPU.
_SLAB = {"cpu": 400_000}
_SLAB_ACCELERATOR = 16_000_000


def radial_symmetry(
    image: Tensor,
    spacing: tuple[float, float, float],
    *,
    radii: Sequence[float] = (1.0, 1.5, 2.0, 3.0),
    polarity: Polarity = "bright",
    strictness: float = 2.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Say how much each voxel is the centre of something round in its axial slice.

    Parameters
    ----------
    image
        Tensor of shape (x, y, z), any real type and intensity unit. Voxels that are not finite cast no votes.
    spacing
        Voxel edge lengths along x, y, z, mm.
    radii
        Distances from edge to centre to look for, mm.
    polarity
        ``"bright"`` for targets brighter than their surround, ``"dark"`` for darker ones; the dark map of an
        image is the bright map of its negative.
    strictness
        Exponent on the share of the ring that votes: 1 accepts half rings and lines, above 2 hardly any.
    mask
        Boolean tensor of shape (x, y, z). Only edges wholly inside vote; the map is zero outside. None: all.

    Returns
    -------
    Tensor
        Shape (x, y, z), float32 on the device of `image`, 0..1: mean over the radii of the ring's slope (1 is
        steep: six times the median) times its share of votes raised to `strictness`. Zero for a flat image.

    Raises
    ------
    ValueError
        If shapes, spacing, radii or polarity make no sense.
    """
    _check(image, spacing, radii, polarity, mask)
    if image.numel() == 0:
        return torch.zeros(image.shape, dtype=torch.float32, device=image.device)
    slices = image.detach().to(torch.float32).permute(2, 0, 1).contiguous()
    inside = (
        None if mask is None else mask.detach().to(image.device, torch.bool).permute(2, 0, 1).contiguous()
    )
    pixel = (float(spacing[0]), float(spacing[1]))
    sign = 1.0 if polarity == "bright" else -1.0
    depth = max(1, _SLAB.get(image.device.type, _SLAB_ACCELERATOR) // (slices.shape[1] * slices.shape[2]))
    slabs = [slice(start, start + depth) for start in range(0, slices.shape[0], depth)]

    slope = torch.empty_like(slices)
    for slab in slabs:
        slope[slab] = _gradient(slices[slab], None if inside is None else inside[slab], pixel)[2]
    typical = _typical_slope(slope)

    result = torch.zeros_like(slices)
    if typical > 0.0:
        rings = [_Ring.of(radius, pixel) for radius in radii]
        margin = (max(ring.margin[0] for ring in rings), max(ring.margin[1] for ring in rings))
        for slab in slabs:
            voters = _voters(slices[slab], slope[slab], typical * sign, pixel, margin)
            for ring in rings:
                result[slab] += _ring_score(voters, slices[slab].shape, ring, margin, strictness)
        result /= len(radii)
        if inside is not None:
            result *= inside
    return result.permute(1, 2, 0).contiguous()


def _check(
    image: Tensor,
    spacing: Sequence[float],
    radii: Sequence[float],
    polarity: str,
    mask: Tensor | None,
) -> None:
    """Raise ValueError on arguments that make no sense."""
    if image.ndim != 3:
        raise ValueError(f"radial symmetry needs a 3-D image, not one of shape {tuple(image.shape)}")
    if mask is not None and mask.shape != image.shape:
        raise ValueError(f"mask of shape {tuple(mask.shape)} on an image of shape {tuple(image.shape)}")
    if len(spacing) != 3 or not all(math.isfinite(edge) and edge > 0 for edge in spacing):
        raise ValueError(f"voxel edges must be three positive lengths in mm, not {tuple(spacing)}")
    if not radii or not all(0 < radius <= _FARTHEST * min(spacing[:2]) for radius in radii):
        raise ValueError(f"radii must be positive and at most {_FARTHEST} voxels, not {tuple(radii)} mm")
    if polarity not in ("bright", "dark"):
        raise ValueError(f"polarity is 'bright' or 'dark', not {polarity!r}")


def _gradient(
    slices: Tensor, inside: Tensor | None, pixel: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return d/dx, d/dy (per mm) and the slope of slices (z, x, y); slope 0 where a neighbour is missing."""
    along_x = torch.zeros_like(slices)
    along_y = torch.zeros_like(slices)
    along_x[:, 1:-1, :] = (slices[:, 2:, :] - slices[:, :-2, :]) / (2.0 * pixel[0])
    along_y[:, :, 1:-1] = (slices[:, :, 2:] - slices[:, :, :-2]) / (2.0 * pixel[1])
    known = torch.zeros_like(slices, dtype=torch.bool)
    if inside is None:
        known[:, 1:-1, 1:-1] = True
    else:
        # The edge of a brain mask is a border of knowledge, not of tissue: it must not vote.
        across = inside[:, :-2, 1:-1] & inside[:, 2:, 1:-1] & inside[:, 1:-1, :-2] & inside[:, 1:-1, 2:]
        known[:, 1:-1, 1:-1] = across & inside[:, 1:-1, 1:-1]
    slope = torch.sqrt(along_x * along_x + along_y * along_y)
    known &= torch.isfinite(slope)
    return along_x, along_y, torch.where(known, slope, torch.zeros_like(slope))


def _typical_slope(slope: Tensor) -> float:
    """Return the median slope of what is not blank, or 0 for a flat image."""
    present = slope[slope > _BLANK * slope.max()]
    return float(present.median()) if present.numel() else 0.0


class _Ring(NamedTuple):
    """One radius on one pixel grid."""

    reach: tuple[float, float]
    """Radius along x and y, voxels."""
    taps: tuple[list[float], list[float]]
    """Smoothing kernels along x and y."""
    full: float
    """Votes per voxel at the centre of a perfect ring."""
    margin: tuple[int, int]
    """Voxels by which votes and smoothing reach beyond the image."""

    @classmethod
    def of(cls, radius: float, pixel: tuple[float, float]) -> _Ring:
        """Work out a radius (mm) on pixels of the given size (mm)."""
        wanted = max(_SMOOTHING * radius, _LEAST_SMOOTHING)
        taps_x, reached_x = _taps(wanted, pixel[0])
        taps_y, reached_y = _taps(wanted, pixel[1])
        reach = (radius / pixel[0], radius / pixel[1])
        margin = (max(math.ceil(reach[0]) + 1, len(taps_x)), max(math.ceil(reach[1]) + 1, len(taps_y)))
        return cls(reach, (taps_x, taps_y), full_ring(radius, math.sqrt(reached_x * reached_y)), margin)


class _Voters(NamedTuple):
    """The edges of a slab that vote, one element each."""

    home: Tensor
    """Flat index into the slab widened by its margin, int64."""
    towards: tuple[Tensor, Tensor]
    """Unit direction to the centre along x and y, float32."""
    steepness: Tensor
    """Slope in fixed point, int64."""


def _voters(
    slices: Tensor, slope: Tensor, typical: float, pixel: tuple[float, float], margin: tuple[int, int]
) -> _Voters:
    """Pick the edges of a slab (z, x, y) that vote; a negative `typical` turns them, to dark centres."""
    along_x, along_y, _ = _gradient(slices, None, pixel)
    where = torch.nonzero((slope > _TINY * abs(typical)).reshape(-1)).squeeze(1)
    depth, size_x, size_y = slices.shape
    wide_x, wide_y = size_x + 2 * margin[0], size_y + 2 * margin[1]
    rows = torch.arange(depth, device=slices.device)[:, None] * wide_x
    rows = rows + torch.arange(margin[0], margin[0] + size_x, device=slices.device)
    home = rows[:, :, None] * wide_y + torch.arange(margin[1], margin[1] + size_y, device=slices.device)
    steepness = slope.reshape(-1)[where]
    signed = torch.copysign(steepness, torch.full_like(steepness, typical))
    towards = (along_x.reshape(-1)[where] / signed, along_y.reshape(-1)[where] / signed)
    weight = (steepness / (_STEEP * abs(typical))).clamp(max=1.0) * (1 << _SLOPE_BITS)
    return _Voters(home.reshape(-1)[where], towards, torch.round(weight).to(torch.int64))


def _ring_score(
    voters: _Voters, shape: Sequence[int], ring: _Ring, margin: tuple[int, int], strictness: float
) -> Tensor:
    """Return the map (z, x, y) of one radius: slope of the ring times a power of its share of votes."""
    count, slope = _cast(voters, shape, ring.reach, margin)
    share = (_smooth(count, ring.taps, margin) / ring.full).clamp(max=1.0)
    mean_slope = (_smooth(slope, ring.taps, margin) / ring.full).clamp(max=1.0)
    return mean_slope * (share * share if strictness == 2.0 else share**strictness)


def _cast(
    voters: _Voters, shape: Sequence[int], reach: tuple[float, float], margin: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Add up the votes on the slab widened by `margin`: their number and slopes, (z, x, y) float32."""
    depth, wide_x, wide_y = shape[0], shape[1] + 2 * margin[0], shape[2] + 2 * margin[1]
    one = 1 << _POSITION_BITS
    # Rounding the offset, not the position, treats left and right alike: flipped image, flipped map.
    offset_x = torch.round(voters.towards[0] * (reach[0] * one)).to(torch.int64)
    offset_y = torch.round(voters.towards[1] * (reach[1] * one)).to(torch.int64)
    corner = voters.home + (offset_x >> _POSITION_BITS) * wide_y + (offset_y >> _POSITION_BITS)
    far_x, far_y = offset_x & (one - 1), offset_y & (one - 1)
    # Number and slope ride in the high and low part of one word, so that each corner costs one addition.
    word = voters.steepness + (1 << _WORD_SHIFT)
    far = far_x * word
    near = word * one - far
    total = torch.zeros(depth * wide_x * wide_y, dtype=torch.int64, device=corner.device)
    for at, share in ((corner, near), (corner + wide_y, far)):
        beyond = share * far_y
        total.index_add_(0, at, share * one - beyond)
        total.index_add_(0, at + 1, beyond)
    total = total.reshape(depth, wide_x, wide_y)
    count = (total >> _WORD_SHIFT).to(torch.float32) * (1.0 / one**2)
    slope = (total & ((1 << _WORD_SHIFT) - 1)).to(torch.float32) * (1.0 / (one**2 << _SLOPE_BITS))
    return count, slope


def _taps(wanted: float, edge: float) -> tuple[list[float], float]:
    """Return one half (centre first) of a smoothing kernel in voxels, and the sigma reached with it, mm.

    Sharing a vote between two neighbours has already blurred it by 1/6 of a squared voxel; the rest is added.
    """
    rest = (wanted / edge) ** 2 - 1.0 / 6.0
    if rest <= 0.0:
        return [1.0], edge / math.sqrt(6.0)
    if rest <= 0.5:
        return [1.0 - rest, rest / 2.0], wanted
    half = [math.exp(-(step**2) / (2.0 * rest)) for step in range(math.ceil(3.0 * math.sqrt(rest)) + 1)]
    total = half[0] + 2.0 * sum(half[1:])
    return [tap / total for tap in half], wanted


def _smooth(votes: Tensor, taps: tuple[list[float], list[float]], margin: tuple[int, int]) -> Tensor:
    """Smooth the widened slab (z, x, y) and cut its margin off."""
    return _smooth_axis(_smooth_axis(votes, taps[0], 1, margin[0]), taps[1], 2, margin[1])


def _smooth_axis(votes: Tensor, taps: list[float], axis: int, margin: int) -> Tensor:
    """Smooth along one axis by shifted sums: plain products give the same bytes for any thread count."""
    size = votes.shape[axis] - 2 * margin
    result = votes.narrow(axis, margin, size) * taps[0]
    for step, tap in enumerate(taps[1:], start=1):
        pair = votes.narrow(axis, margin - step, size) + votes.narrow(axis, margin + step, size)
        result += pair.mul_(tap)
    return result


def full_ring(radius: float, sigma: float) -> float:
    """Return the votes per voxel at the centre if every edge around it votes for it.

    The integral over the plane of a 2-D normal density of width `sigma` at distance (rho - radius) from the
    centre, rho being the distance of the edge that votes:
    exp(-r^2 / 2 s^2) + sqrt(2 pi) (r / s) Phi(r / s).

    Parameters
    ----------
    radius
        Distance from edge to centre, mm.
    sigma
        Width of the smoothing, mm.

    Returns
    -------
    float
        Number of votes; it does not depend on the voxel size.
    """
    ratio = radius / sigma
    normal = 0.5 * (1.0 + math.erf(ratio / math.sqrt(2.0)))
    return math.exp(-0.5 * ratio * ratio) + math.sqrt(2.0 * math.pi) * ratio * normal
