"""Deposits hold as much iron as their size says, on every grid."""

import math

import pytest
import torch

from bids_cmb.training.simulate.lesions import Maps, draw_blob
from bids_cmb.training.simulate.random_source import RandomSource


@pytest.mark.parametrize("spacing", [0.5, 0.75])
@pytest.mark.parametrize("diameter", [0.5, 0.75, 0.95, 1.15])  # of one lobe: more make a deposit irregular
def test_a_deposit_holds_the_iron_of_its_sphere(diameter: float, spacing: float) -> None:
    held = []
    for shift in torch.linspace(0, 1, 12).tolist():  # wherever it lies between voxels
        maps = Maps(torch.zeros(16, 16, 16), torch.zeros(16, 16, 16), torch.ones(16, 16, 16), spacing)
        centre = (8.0 + shift, 8.0 + 0.5 * shift, 8.2)
        draw_blob(maps, RandomSource(1), centre, diameter, chi=2.0, r2star=100.0, flatness=0.0)
        held.append(float(maps.chi.sum()) * spacing**3)
        assert float(maps.r2star.sum()) == pytest.approx(50 * float(maps.chi.sum()), rel=1e-4)
    mean = sum(held) / len(held)
    assert mean == pytest.approx(2.0 * math.pi / 6 * diameter**3, rel=0.08)
