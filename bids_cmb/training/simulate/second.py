"""A second simulation, built differently where the first could teach its own habits; for tests only.

A detector may learn how a simulator draws rather than what a scan shows. Scans of this module have veins of another
construction (curves where two random fields vanish, instead of walks) and susceptibility maps of another background
removal and inversion (a polynomial remainder; Landweber iterations stopped early, instead of SHARP and closed forms or
total variation). The central veins, the bleeds, the other mimics, the tissues and the acquisition are those of the
first. Nothing is trained, calibrated or chosen on them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bids_cmb.training.simulate.grids import gradient, smooth, smooth_field
from bids_cmb.training.simulate.physics import dipole_kernel
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.subject import Subject
from bids_cmb.training.simulate.tissues import PARENCHYMA, Tissue, one_of
from bids_cmb.training.simulate.vessels import Vessels, draw_central_veins

#: Distance between the control points of the fields whose zeros are white-matter and surface veins, mm.
_WHITE_SCALE, _SURFACE_SCALE = (9.0, 16.0), (8.0, 14.0)
#: Radii of the veins, mm: median (drawn per subject) and spread of the logarithm along them.
_WHITE_RADIUS, _SURFACE_RADIUS, _SPREAD = (0.15, 0.35), (0.3, 0.7), 0.4
#: Scale over which a vein's calibre changes, mm.
_CALIBRE_SCALE = 25.0


def draw_field_vessels(subject: Subject, rng: RandomSource, *, density: float = 1.0) -> Vessels:
    """Draw veins as the curves on which two random fields vanish, and flow voids likewise in the basal fluid.

    Parameters
    ----------
    subject
        Property maps.
    rng
        Source of chance.
    density
        Factor on the length of veins in a volume of white matter (it goes with the inverse square of the scale); that
        of surface veins goes with its root.

    Returns
    -------
    Vessels
        Partial volumes on the subject's grid.
    """
    closer = 1 / math.sqrt(density)
    tissue = subject.tissue
    parenchyma = one_of(tissue, PARENCHYMA)
    depth = smooth(parenchyma.float(), (1.5 / subject.spacing,) * 3)
    white = (tissue == int(Tissue.WHITE_MATTER)) | (tissue == int(Tissue.CEREBELLUM_WHITE))
    inner = _tubes(
        subject,
        rng,
        _field(subject, rng, rng.uniform(*_WHITE_SCALE) * closer),
        _field(subject, rng, rng.uniform(*_WHITE_SCALE) * closer),
        rng.uniform(*_WHITE_RADIUS),
    )
    outer = _tubes(
        subject,
        rng,
        depth - rng.uniform(0.35, 0.65),
        _field(subject, rng, rng.uniform(*_SURFACE_SCALE) * closer),
        rng.uniform(*_SURFACE_RADIUS),
    )
    veins = torch.maximum(inner * smooth(white.float(), (1.0, 1.0, 1.0)), outer * subject.brain)
    veins = torch.maximum(veins, draw_central_veins(subject, rng))
    voids = torch.zeros_like(veins)
    if rng.chance(0.75):
        fluid = (tissue == int(Tissue.CSF)).float() * _basal(subject)
        arteries = _tubes(
            subject,
            rng,
            depth - 0.3,
            _field(subject, rng, rng.uniform(8.0, 16.0)),
            rng.uniform(0.5, 1.2),
        )
        voids = arteries * smooth(fluid, (1.0, 1.0, 1.0))
    return Vessels(veins, voids)


def _field(subject: Subject, rng: RandomSource, scale: float) -> Tensor:
    return smooth_field(rng, subject.shape, (subject.spacing,) * 3, scale)


def _tubes(subject: Subject, rng: RandomSource, one: Tensor, other: Tensor, radius: float) -> Tensor:
    """Partial volume of tubes around the curves on which two fields (X, Y, Z) vanish; `radius` in mm.

    The distance to a curve is that of crossing planes at a right angle: where the fields run alike, tubes are flat.
    """
    squared = torch.zeros_like(one)
    for values in (one, other):
        steepness = gradient(values).norm(dim=0) / subject.spacing
        squared += (values / steepness.clamp(min=1e-3)) ** 2
    calibre = radius * torch.exp(_SPREAD * _field(subject, rng, _CALIBRE_SCALE))
    wide = calibre.clamp(min=subject.spacing / 2)
    share = (calibre / wide) ** 2
    return ((wide - squared.sqrt()) / subject.spacing + 0.5).clamp(0, 1) * share


def _basal(subject: Subject) -> Tensor:
    """1 in the basal cisterns and the Sylvian fissures, by place in MNI space."""
    axes = [torch.arange(n, device=subject.chi.device, dtype=torch.float32) for n in subject.shape]
    x, y, z = (
        subject.to_mni[i, 0] * axes[0][:, None, None]
        + subject.to_mni[i, 1] * axes[1][None, :, None]
        + subject.to_mni[i, 2] * axes[2][None, None, :]
        + subject.to_mni[i, 3]
        for i in range(3)
    )
    return ((z < 8) & (z > -40) & (y > -45) & (y < 40) & (x.abs() < 52)).float()


class EarlyStoppedMapping:
    """Susceptibility by Landweber iterations that are stopped early, after a background removal that leaves a bowl.

    Takes the place of `bids_cmb.training.simulate.products.SusceptibilityMapping`, with the same call.

    Parameters
    ----------
    rng
        Draws the number of iterations and the remainder.
    b0
        (3,) unit vector of the main field.
    """

    def __init__(self, rng: RandomSource, b0: Tensor) -> None:
        self.b0 = b0
        self.iterations = rng.integer(15, 120)
        self.bowl = rng.randn(3, 3) * rng.uniform(0.0, 0.03)
        self.offset = rng.normal(0, 0.01)

    def __call__(
        self, _total: Tensor, inner_field: Tensor, mask: Tensor, spacing: tuple[float, float, float]
    ) -> tuple[Tensor, Tensor]:
        """Map a field (ppm) to susceptibility (ppm) in `mask`; see `SusceptibilityMapping`."""
        shape = inner_field.shape[0], inner_field.shape[1], inner_field.shape[2]
        axes = [torch.linspace(-1, 1, n, device=mask.device) for n in shape]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        remainder = torch.einsum("...i,ij,...j->...", places, self.bowl.to(mask.device), places)
        kernel = dipole_kernel(shape, spacing, self.b0)
        # n iterations x <- x + D (f - D x) from zero, in closed form; the largest |D| is 2/3, so that it converges.
        gain = 1 - (1 - kernel**2) ** self.iterations
        blind = kernel.abs() < 1e-4
        response = torch.where(blind, 0.0, gain / torch.where(blind, 1.0, kernel))
        chi = torch.fft.irfftn(torch.fft.rfftn((inner_field + remainder) * mask) * response, s=shape)
        chi = chi - chi[mask].mean() + self.offset if bool(mask.any()) else chi
        return chi * mask, mask
