"""From complex data and field maps to what a researcher gets: GRE magnitude, SWI and QSM."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bids_cmb.training.simulate.physics import dipole_kernel
from bids_cmb.training.simulate.random_source import RandomSource


def susceptibility_weighted(image: Tensor, *, window: float, power: int) -> Tensor:
    """Susceptibility-weighted magnitude (Haacke 2004).

    The phase is high-passed by dividing by a low-pass copy (homodyne); positive (paramagnetic) phase darkens.

    Parameters
    ----------
    image
        Complex (X, Y, Z).
    window
        Width of the low-pass Hann window as a fraction of k-space in plane, about 0.1-0.4.
    power
        How often the phase mask multiplies the magnitude, usually 4.
    """
    spectrum = torch.fft.fftn(image, dim=(0, 1))
    fx = torch.fft.fftfreq(image.shape[0], device=image.device)[:, None]
    fy = torch.fft.fftfreq(image.shape[1], device=image.device)[None, :]
    radius = (fx**2 + fy**2).sqrt() / window
    keep = torch.where(radius < 1, 0.5 + 0.5 * torch.cos(math.pi * radius), torch.zeros_like(radius))
    low = torch.fft.ifftn(spectrum * keep[..., None], dim=(0, 1))
    phase = torch.angle(image * low.conj())
    mask = torch.where(phase > 0, (math.pi - phase) / math.pi, torch.ones_like(phase))
    return image.abs() * mask**power


def remove_background(
    total: Tensor, mask: Tensor, spacing: tuple[float, float, float], *, radius: float, threshold: float
) -> tuple[Tensor, Tensor]:
    """SHARP background removal (Schweser 2011): what a spherical mean leaves unchanged is not from inside.

    Parameters
    ----------
    total
        Field (ppm), (X, Y, Z).
    mask
        Brain, bool.
    spacing
        Voxel edges, mm.
    radius
        Of the sphere, mm.
    threshold
        Truncation of the deconvolution.

    Returns
    -------
    tuple
        Local field (ppm) and the mask, eroded by the sphere.
    """
    kernel = _sphere_kernel(total.shape[0:3], spacing, radius, total.device)  # type: ignore[arg-type]
    shape = total.shape
    spectrum = torch.fft.rfftn(kernel)
    inside = torch.fft.irfftn(torch.fft.rfftn(mask.float()) * spectrum, s=shape) > 0.97
    difference = total - torch.fft.irfftn(torch.fft.rfftn(total) * spectrum, s=shape)
    difference = difference * inside
    inverse = 1 - spectrum
    inverse = torch.where(
        inverse.abs() > threshold,
        1 / torch.where(inverse.abs() > threshold, inverse, torch.ones_like(inverse)),
        torch.zeros_like(inverse),
    )
    return torch.fft.irfftn(torch.fft.rfftn(difference) * inverse, s=shape) * inside, inside


def _sphere_kernel(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], radius: float, device: torch.device
) -> Tensor:
    axes = [torch.fft.fftfreq(n, 1.0 / n, device=device) * d for n, d in zip(shape, spacing, strict=True)]
    squared = axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2
    ball = (squared <= radius**2).float()
    return ball / ball.sum()


def invert_truncated(
    field: Tensor, spacing: tuple[float, float, float], b0: Tensor, *, threshold: float
) -> Tensor:
    """Truncated k-space division (Shmueli 2009): susceptibility (ppm) of a local field (ppm)."""
    shape = field.shape[0], field.shape[1], field.shape[2]
    kernel = dipole_kernel(shape, spacing, b0)
    safe = torch.where(kernel.abs() < threshold, threshold * torch.where(kernel < 0, -1.0, 1.0), kernel)
    return torch.fft.irfftn(torch.fft.rfftn(field) / safe, s=shape)


def invert_tikhonov(
    field: Tensor, spacing: tuple[float, float, float], b0: Tensor, *, weight: float
) -> Tensor:
    """Closed-form inversion with a gradient penalty (Bilgic 2014)."""
    shape = field.shape[0], field.shape[1], field.shape[2]
    kernel = dipole_kernel(shape, spacing, b0)
    axes = _frequencies(field)
    laplacian = sum((2 * torch.sin(math.pi * a) / d) ** 2 for a, d in zip(axes, spacing, strict=True))
    return torch.fft.irfftn(
        kernel * torch.fft.rfftn(field) / (kernel**2 + weight * laplacian + 1e-4), s=shape
    )


def _frequencies(field: Tensor) -> list[Tensor]:
    """Frequencies of the three axes of `rfftn`, cycles per voxel, each shaped to spread over the others."""
    x, y, z = field.shape
    return [
        torch.fft.fftfreq(x, device=field.device)[:, None, None],
        torch.fft.fftfreq(y, device=field.device)[None, :, None],
        torch.fft.rfftfreq(z, device=field.device)[None, None, :],
    ]


def invert_total_variation(
    field: Tensor, spacing: tuple[float, float, float], b0: Tensor, *, weight: float, iterations: int = 12
) -> Tensor:
    """Inversion with total variation by the alternating direction method (FANSI, Milovic 2018, linear form)."""
    shape = field.shape[0], field.shape[1], field.shape[2]
    kernel = dipole_kernel(shape, spacing, b0)
    axes = _frequencies(field)
    steps = [(torch.exp(2j * math.pi * a) - 1) / d for a, d in zip(axes, spacing, strict=True)]
    penalty = 100 * weight
    data = kernel * torch.fft.rfftn(field)
    bottom = kernel**2 + penalty * sum((s.abs() ** 2 for s in steps), start=torch.zeros_like(kernel)) + 1e-6
    auxiliary = [torch.zeros_like(field) for _ in range(3)]
    dual = [torch.zeros_like(field) for _ in range(3)]
    spectrum = data / bottom
    for _ in range(iterations):
        for i, step in enumerate(steps):
            slope = torch.fft.irfftn(step * spectrum, s=shape)
            auxiliary[i] = F.softshrink(slope + dual[i], weight / penalty)
            dual[i] = dual[i] + slope - auxiliary[i]
        right = sum(
            (s.conj() * torch.fft.rfftn(a - d) for s, a, d in zip(steps, auxiliary, dual, strict=True)),
            start=torch.zeros_like(data),
        )
        spectrum = (data + penalty * right) / bottom
    return torch.fft.irfftn(spectrum, s=shape)


class SusceptibilityMapping:
    """One way to turn a total field into a QSM, drawn once so that scans with and without lesions get the same.

    Parameters
    ----------
    rng
        Draws background removal, inversion and their parameters.
    b0
        (3,) unit vector of the main field.
    """

    def __init__(self, rng: RandomSource, b0: Tensor) -> None:
        self.b0 = b0
        self.sharp = rng.chance(0.6)
        self.radius = rng.uniform(3.0, 7.0)
        self.sharp_threshold = rng.uniform(0.03, 0.1)
        self.method = ("truncated", "tikhonov", "total variation", "mean")[rng.choice((0.3, 0.25, 0.3, 0.15))]
        self.threshold = rng.uniform(0.1, 0.25)
        self.tikhonov = 10 ** rng.uniform(-2.3, -1.2)
        self.variation = 10 ** rng.uniform(-4.2, -3.2)
        self.offset = rng.normal(0, 0.01)

    def __call__(
        self, total: Tensor, inner_field: Tensor, mask: Tensor, spacing: tuple[float, float, float]
    ) -> tuple[Tensor, Tensor]:
        """Map a field to susceptibility.

        Parameters
        ----------
        total
            Measured field with air and skull, ppm.
        inner_field
            The same without the sources outside the brain; used when the background removal is taken as ideal.
        mask
            Brain.
        spacing
            Voxel edges, mm.

        Returns
        -------
        tuple
            Susceptibility (ppm), zero outside, and the mask that it covers.
        """
        if self.sharp:
            local, inside = remove_background(
                total, mask, spacing, radius=self.radius, threshold=self.sharp_threshold
            )
        else:
            local, inside = inner_field * mask, mask
        if self.method == "truncated":
            chi = invert_truncated(local, spacing, self.b0, threshold=self.threshold)
        elif self.method == "tikhonov":
            chi = invert_tikhonov(local, spacing, self.b0, weight=self.tikhonov)
        elif self.method == "total variation":
            chi = invert_total_variation(local, spacing, self.b0, weight=self.variation)
        else:
            chi = 0.5 * invert_truncated(local, spacing, self.b0, threshold=self.threshold)
            chi = chi + 0.5 * invert_tikhonov(local, spacing, self.b0, weight=self.tikhonov)
        chi = chi - chi[inside].mean() + self.offset if bool(inside.any()) else chi
        return chi * inside, inside
