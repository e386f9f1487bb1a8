"""Vessels: tubes that thin out at their ends and keep their cross-section on a coarse grid."""

from __future__ import annotations

import math

import pytest
import torch

from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.walkers import Beads, Kind, grow, splat


def straight(points: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(points)


def test_a_vein_begins_and_ends_as_a_thread() -> None:
    kind = Kind((20, 20), (0.5, 0.5), wander=0.0, taper=(1.0, 1.0))
    starts, heading = torch.full((1, 3), 10.0), torch.tensor([[1.0, 0.0, 0.0]])
    beads, points, alive = grow(RandomSource(1, "cpu"), kind, starts, heading, straight, voxel_mm=1.0, step=1)
    length = float((points[0, alive[0]][-1] - points[0, 0]).norm())
    assert length == pytest.approx(20, abs=1)
    assert beads.radius.max() == pytest.approx(0.5, rel=0.01)
    assert beads.radius[0] < 0.2 * 0.5
    assert beads.radius[-1] < 0.25 * 0.5
    assert (beads.radius > 0.49).sum() > 0.5 * len(beads.radius)


def test_a_vein_ends_where_it_drains() -> None:
    kind = Kind((30, 30), (0.5, 0.5), wander=0.0, taper=(1.0, 1.0))
    starts, heading = torch.full((1, 3), 10.0), torch.tensor([[1.0, 0.0, 0.0]])
    _, points, alive = grow(
        RandomSource(1, "cpu"),
        kind,
        starts,
        heading,
        straight,
        voxel_mm=1.0,
        step=1,
        stop=lambda p: p[:, 0] > 15,
    )
    assert points[0, alive[0]][:, 0].max() <= 15


def test_an_uneven_vein_swells_and_narrows_along_its_course() -> None:
    kind = Kind((60, 60), (0.5, 0.5), wander=0.0, taper=(1.0, 1.0))
    starts, heading = torch.full((40, 3), 10.0), torch.tensor([[1.0, 0.0, 0.0]]).expand(40, 3)
    radii = []
    for uneven in (0.0, 0.4):
        beads, points, alive = grow(
            RandomSource(1, "cpu"), kind, starts, heading, straight, voxel_mm=1.0, step=1, uneven=uneven
        )
        radii.append(beads.radius.reshape(40, -1)[:, 30:-30])  # without the ends, which thin out
        assert alive.all()
        assert points.shape[0] == 40
    even, uneven_radii = radii
    assert torch.allclose(even, torch.full_like(even, 0.5))
    assert 0.2 < float(uneven_radii.log().std(dim=1).mean()) < 0.4
    assert float(uneven_radii.median()) == pytest.approx(0.5, rel=0.1)  # neither thicker nor thinner in all


@pytest.mark.parametrize("radius", [0.2, 0.4, 1.5])
@pytest.mark.parametrize("offset", [0.0, 0.3, 0.5])
def test_a_tube_keeps_its_volume_wherever_it_lies(radius: float, offset: float) -> None:
    # Within half: between four voxels a thin one is drawn 1.4 times too thick.
    spacing, length = 0.75, 30.0
    x = torch.arange(5.0, 5.0 + length / spacing, 0.4)
    points = torch.stack([x, torch.full_like(x, 10 + offset), torch.full_like(x, 10 + offset)], 1)
    beads = Beads(points, torch.full_like(x, radius), torch.ones_like(x))
    volume = float(splat((60, 21, 21), spacing, beads).sum()) * spacing**3
    assert volume == pytest.approx(math.pi * radius**2 * length, rel=0.5)


def test_the_widest_vessels_are_drawn_too() -> None:
    """A sinus on a fine grid is wider than eight voxels."""
    spacing, radius, length = 0.3, 2.7, 6.0
    x = torch.arange(15.0, 15.0 + length / spacing, 0.4)
    points = torch.stack([x, torch.full_like(x, 15.0), torch.full_like(x, 15.0)], 1)
    drawn = splat((50, 31, 31), spacing, Beads(points, torch.full_like(x, radius), torch.ones_like(x)))
    assert float(drawn[25].sum()) * spacing**2 == pytest.approx(math.pi * radius**2, rel=0.1)
