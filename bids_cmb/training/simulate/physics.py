"""The physics between tissue and image: dipole field, signal, acquisition.

Salomir 2003 and Marques & Bowtell 2005 for the field of a susceptibility distribution; Haacke's *Magnetic Resonance
Imaging* for the signal and for sampling in k-space.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bids_cmb.imaging.susceptibility import MHZ_PER_TESLA
from bids_cmb.training.simulate.motion import draw_motion, moved
from bids_cmb.training.simulate.protocol import Protocol
from bids_cmb.training.simulate.random_source import RandomSource


def dipole_kernel(shape: tuple[int, int, int], spacing: tuple[float, float, float], b0: Tensor) -> Tensor:
    """Field of a unit dipole in k-space, ``1/3 - (k.b)^2 / k^2``, on the half grid of `torch.fft.rfftn`.

    Parameters
    ----------
    shape
        Grid.
    spacing
        Voxel edges, mm.
    b0
        (3,) unit vector of the main field on the grid's axes.
    """
    kx = torch.fft.fftfreq(shape[0], spacing[0], device=b0.device)[:, None, None]
    ky = torch.fft.fftfreq(shape[1], spacing[1], device=b0.device)[None, :, None]
    kz = torch.fft.rfftfreq(shape[2], spacing[2], device=b0.device)[None, None, :]
    squared = kx**2 + ky**2 + kz**2
    along = kx * b0[0] + ky * b0[1] + kz * b0[2]
    kernel = 1.0 / 3.0 - along**2 / squared.clamp(min=1e-12)
    kernel[0, 0, 0] = 0.0
    return kernel


def field_shift(chi: Tensor, spacing: tuple[float, float, float], b0: Tensor) -> Tensor:
    """Relative field shift dB/B0 (ppm) of a susceptibility map (ppm), by one multiplication in k-space."""
    shape = chi.shape[0], chi.shape[1], chi.shape[2]
    return torch.fft.irfftn(torch.fft.rfftn(chi) * dipole_kernel(shape, spacing, b0), s=shape)


def relaxation_scale(field_strength: float) -> float:
    """R2* at a field strength over R2* at 3 T: about 0.6 at 1.5 T, linear between and beyond."""
    return max(0.2, 0.2 + 0.8 * field_strength / 3.0)


def decayed(m0: Tensor, r2star: Tensor, protocol: Protocol) -> Tensor:
    """Magnitude ``M0 exp(-TE R2*)`` at the echo of a protocol, in a field without slope; R2* at 3 T (1/s)."""
    return m0 * torch.exp(-protocol.echo_time * relaxation_scale(protocol.field_strength) * r2star)


def signal(m0: Tensor, r2star: Tensor, shift: Tensor, protocol: Protocol) -> Tensor:
    """Complex gradient-echo signal ``M0 exp(-TE R2*) exp(2 pi i gamma B0 TE dB/B0)`` of each fine voxel.

    Within a fine voxel the field changes too: its slope dephases the voxel's own signal, by the sinc of the phase that
    it gains from one side to the other along each axis. Without this, steep fields around iron and air would come out
    as noise and rings instead of dark.

    Parameters
    ----------
    m0, r2star, shift
        (x, y, z) proton signal, R2* at 3 T (1/s) and relative field shift (ppm).
    protocol
        Echo time and field strength.
    """
    decay = decayed(m0, r2star, protocol)
    turns = (MHZ_PER_TESLA * protocol.field_strength * protocol.echo_time) * shift
    for axis in range(turns.ndim):
        if turns.shape[axis] > 1:
            decay = decay * torch.sinc(torch.gradient(turns, dim=axis)[0]).abs_()
    return torch.polar(decay, 2 * math.pi * turns)


def encoding_matrix(fine: int, acquired: int, *, partial: float = 1.0, window: float = 0.0) -> Tensor:
    """Sampling of one axis by k-space: (acquired, fine) complex matrix.

    Keeps the central `acquired` frequencies of `fine` samples and transforms back: the point spread (and Gibbs ringing)
    of a real acquisition. With `acquired` above `fine` it zero-fills.

    Parameters
    ----------
    fine, acquired
        Number of samples before and after, on the same field of view.
    partial
        Fraction of k-space that was acquired along this axis (partial Fourier), 0.5-1.
    window
        Strength 0-1 of a Hann filter over the kept frequencies.
    """
    kept = min(fine, acquired)
    frequencies = torch.arange(kept, dtype=torch.float64) - kept // 2
    weight = torch.ones(kept, dtype=torch.float64)
    if partial < 1.0:
        weight[: round((1 - partial) * kept)] = 0.0
    if window > 0:
        weight = weight * (1 - window * (1 - torch.cos(math.pi * frequencies / (kept / 2))) / 2)
    source = (torch.arange(fine, dtype=torch.float64) + 0.5) / fine
    target = (torch.arange(acquired, dtype=torch.float64) + 0.5) / acquired
    forward = torch.polar(
        torch.full((kept, fine), 1.0 / fine, dtype=torch.float64),
        -2 * math.pi * frequencies[:, None] * source,
    )
    back = torch.polar(
        torch.ones(acquired, kept, dtype=torch.float64), 2 * math.pi * target[:, None] * frequencies
    )
    return ((back * weight) @ forward).to(torch.complex64)


def slice_matrix(fine: int, slices: int, *, sharpness: float) -> Tensor:
    """Slice selection of a 2-D acquisition: (slices, fine) matrix of normalised profiles, `sharpness` from 2 to 10."""
    width = fine / slices
    centre = (torch.arange(slices, dtype=torch.float64) + 0.5) * width - 0.5
    offset = (torch.arange(fine, dtype=torch.float64) - centre[:, None]) / width
    profile = 1.0 / (1.0 + (2 * offset.abs()) ** (2 * sharpness))
    return (profile / profile.sum(dim=1, keepdim=True)).to(torch.complex64)


def apply_along(volume: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply one axis of an (X, Y, Z) volume by a (out, in) matrix; both real or both complex."""
    matrix = matrix.to(volume.device)
    if axis == 0:
        return (matrix @ volume.flatten(1)).unflatten(1, volume.shape[1:])
    return matrix @ volume if axis == 1 else volume @ matrix.T


class Acquisition:
    """The sampling of one protocol on one fine grid, reusable for scans with and without lesions.

    Parameters
    ----------
    shape, spacing
        Fine grid and its voxel edge (mm).
    protocol
        What to acquire.
    rng
        Draws partial Fourier, filter, slice profile and motion.
    """

    def __init__(
        self, shape: tuple[int, int, int], spacing: float, protocol: Protocol, rng: RandomSource
    ) -> None:
        extent = [n * spacing for n in shape]
        self.matrix_size = tuple(
            max(4, min(n, round(e / v))) for e, v, n in zip(extent, protocol.voxel, shape, strict=True)
        )
        partial = rng.uniform(0.75, 1.0) if rng.chance(0.3) else 1.0
        window = rng.uniform(0.0, 1.0) if rng.chance(0.5) else 0.0
        along_z = (
            encoding_matrix(shape[2], self.matrix_size[2], window=max(window, 0.3))
            if protocol.three_d
            else slice_matrix(shape[2], self.matrix_size[2], sharpness=rng.uniform(2, 8))
        )
        self._axes = (
            encoding_matrix(shape[0], self.matrix_size[0], window=window),
            encoding_matrix(shape[1], self.matrix_size[1], partial=partial, window=window),
            along_z,
        )
        self.final_size = (
            round(self.matrix_size[0] * protocol.interpolation),
            round(self.matrix_size[1] * protocol.interpolation),
            self.matrix_size[2],
        )
        x, y, z = (e / n for e, n in zip(extent, self.final_size, strict=True))
        self.voxel: tuple[float, float, float] = (x, y, z)
        # A map of susceptibility comes from echoes whose common phase has been taken out.
        self._motion = draw_motion(rng, self.matrix_size[1], breathing=protocol.contrast != "qsm")
        self._acquired_voxel = extent[0] / self.matrix_size[0], extent[1] / self.matrix_size[1]

    def sample(self, fine: Tensor) -> Tensor:
        """Acquire a complex fine volume: (X, Y, Z) complex64 of `matrix_size`."""
        out = fine
        for axis in (2, 1, 0):
            out = apply_along(out, self._axes[axis], axis)
        return out if self._motion is None else moved(out, self._motion, self._acquired_voxel)

    def zero_fill(self, acquired: Tensor) -> Tensor:
        """Interpolate an acquired volume in plane by zero-filling to `final_size`."""
        out = acquired
        for axis in (0, 1):
            if self.final_size[axis] != self.matrix_size[axis]:
                out = apply_along(out, encoding_matrix(self.matrix_size[axis], self.final_size[axis]), axis)
        return out
