"""What moves during an acquisition: the head, and with every breath the field.

Lines along the phase-encoding axis (y) are acquired one after the other; a head that moved in between, or a field that
changed, gives each line another phase (Zaitsev 2015, "Motion artifacts in MRI"; Van de Moortele 2002 for breathing).
Only shifts are drawn: a head that turns blurs most of what lies far from its axis, which a shift stands for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bids_cmb.training.simulate.random_source import RandomSource

#: Share of the scans in which the head moves, and of those in which breathing shows.
_MOVING, _BREATHING = 0.45, 0.4
#: Slow drift (mm, standard deviation at the end), and most sudden shifts and their size (mm): scans that raters would
#: throw away are not wanted.
_DRIFT, _JUMPS, _JUMP = 0.4, 3, 0.5
#: Breaths in an acquisition, and the phase that one gives, radians.
_BREATHS, _BREATH_PHASE = (15.0, 90.0), (0.02, 0.12)


@dataclass(frozen=True)
class Motion:
    """Where the head is at every line of k-space along y, from the lowest frequency to the highest.

    Attributes
    ----------
    shift
        (lines, 2): along x and y, mm, zero at the centre of k-space, which says where the image lies.
    phase
        (lines,): extra phase, radians, zero at the centre of k-space.
    """

    shift: Tensor
    phase: Tensor


def draw_motion(rng: RandomSource, lines: int, *, breathing: bool) -> Motion | None:
    """Draw the motion of one acquisition of so many lines; None in most scans, where nothing is seen of it."""
    moves, breathes = rng.chance(_MOVING), breathing and rng.chance(_BREATHING)
    if not moves and not breathes:
        return None
    time = torch.arange(lines, dtype=torch.float64) / lines
    shift, phase = torch.zeros(lines, 2, dtype=torch.float64), torch.zeros(lines, dtype=torch.float64)
    if moves:
        strength = rng.uniform(0.1, 1.0)
        steps = torch.stack([rng.randn(lines).cpu().double() for _ in range(2)], dim=1)
        shift += steps.cumsum(dim=0) * (strength * _DRIFT / math.sqrt(lines))
        for _ in range(rng.integer(0, _JUMPS)):
            jump = torch.tensor([rng.normal(0, strength * _JUMP) for _ in range(2)], dtype=torch.float64)
            shift += jump * (time > rng.uniform(0, 1))[:, None]
    if breathes:
        turns = rng.uniform(*_BREATHS) * time + rng.uniform(0, 1)
        phase += rng.uniform(*_BREATH_PHASE) * torch.sin(2 * math.pi * turns)
    return Motion(shift - shift[lines // 2], phase - phase[lines // 2])


def moved(image: Tensor, motion: Motion, voxel: tuple[float, float]) -> Tensor:
    """Image of what moved while its lines were acquired.

    Parameters
    ----------
    image
        (X, Y, Z) complex, without motion; Y lines of k-space.
    motion
        Of as many lines.
    voxel
        Edges along x and y, mm.

    Returns
    -------
    Tensor
        (X, Y, Z) complex.
    """
    frequencies = [
        torch.fft.fftfreq(n, d, dtype=torch.float64) for n, d in zip(image.shape, voxel, strict=False)
    ]
    shift, phase = (torch.fft.ifftshift(x, dim=0) for x in (motion.shift, motion.phase))
    turns = frequencies[0][:, None] * shift[None, :, 0] + frequencies[1] * shift[:, 1]
    factor = (
        torch.polar(torch.ones_like(turns), phase - 2 * math.pi * turns).to(torch.complex64).to(image.device)
    )
    out: Tensor = torch.fft.ifft2(torch.fft.fft2(image, dim=(0, 1)) * factor[:, :, None], dim=(0, 1))
    return out
