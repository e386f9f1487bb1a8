"""What motion does to an image, against what is known of it."""

from __future__ import annotations

import math

import torch

from bids_cmb.training.simulate.motion import Motion, draw_motion, moved
from bids_cmb.training.simulate.random_source import RandomSource

LINES = 64


def square() -> torch.Tensor:
    image = torch.zeros(48, LINES, 2, dtype=torch.complex64)
    image[18:30, 28:36] = 1
    return image


def still() -> Motion:
    return Motion(torch.zeros(LINES, 2, dtype=torch.float64), torch.zeros(LINES, dtype=torch.float64))


def test_without_motion_the_image_stays() -> None:
    torch.testing.assert_close(moved(square(), still(), (0.8, 0.8)), square(), atol=1e-5, rtol=0)


def test_a_head_that_lay_elsewhere_all_the_time_is_shifted() -> None:
    motion = Motion(still().shift + torch.tensor([1.6, -0.8]), still().phase)
    expected = square().roll((2, -1), dims=(0, 1))
    torch.testing.assert_close(moved(square(), motion, (0.8, 0.8)), expected, atol=1e-4, rtol=0)


def test_a_breath_every_few_lines_makes_ghosts_along_the_phase_encoding() -> None:
    breaths = 16
    time = torch.arange(LINES, dtype=torch.float64) / LINES
    motion = Motion(still().shift, 0.1 * torch.sin(2 * math.pi * breaths * time))
    ghosts = (moved(square(), motion, (0.8, 0.8)) - square()).abs()[..., 0]
    assert ghosts[24, 32 + breaths] > 0.03  # J1(0.1), half of the phase
    assert ghosts[24, 32 - breaths] > 0.03
    assert ghosts[:16].max() < 1e-3  # none across


def test_a_jump_blurs_but_leaves_the_place_and_the_energy() -> None:
    shift = torch.zeros(LINES, 2, dtype=torch.float64)
    shift[50:] = 1.5  # after the centre of k-space, which says where the image lies
    out = moved(square(), Motion(shift, still().phase), (0.8, 0.8))
    assert math.isclose(float(out.abs().square().sum()), float(square().abs().square().sum()), rel_tol=1e-4)
    weight = out.abs()[..., 0]
    axis = torch.arange(48.0)
    assert abs(float((weight.sum(1) * axis).sum() / weight.sum()) - 23.5) < 0.4
    assert float((out - square()).abs().max()) > 0.05


def test_drawn_motion_starts_from_the_centre_of_k_space_and_spares_most_scans() -> None:
    rng = RandomSource(5)
    drawn = [draw_motion(rng, LINES, breathing=True) for _ in range(60)]
    some = [m for m in drawn if m is not None]
    assert 15 < len(some) < 55
    for motion in some:
        assert float(motion.shift[LINES // 2].abs().max()) == 0
        assert float(motion.phase[LINES // 2]) == 0
        assert float(motion.shift.abs().max()) < 5  # mm: a scan that a rater would still read
    silent = [draw_motion(rng, LINES, breathing=False) for _ in range(30)]
    assert all(float(m.phase.abs().max()) == 0 for m in silent if m is not None)
