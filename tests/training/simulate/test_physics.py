"""The physics against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bids_cmb.imaging.susceptibility import MHZ_PER_TESLA
from bids_cmb.training.simulate.heads import shipped_head
from bids_cmb.training.simulate.physics import (
    Acquisition,
    apply_along,
    encoding_matrix,
    field_shift,
    relaxation_scale,
    signal,
    slice_matrix,
)
from bids_cmb.training.simulate.products import (
    SusceptibilityMapping,
    invert_tikhonov,
    invert_total_variation,
    invert_truncated,
    susceptibility_weighted,
)
from bids_cmb.training.simulate.protocol import Protocol, draw_protocol, main_field
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.scan import simulate_scan

PROTOCOL = Protocol("gre", (1.0, 1.0, 3.0), 1.0, False, 0.02, 3.0, 30.0, False, (0.0, 0.0, 0.0))
B0 = torch.tensor([0.0, 0.0, 1.0])


def ball(size: int, radius: float) -> torch.Tensor:
    axis = torch.arange(size, dtype=torch.float32) - size // 2
    return (
        axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2 <= radius**2
    ).float()


def test_field_outside_a_sphere_is_that_of_a_dipole() -> None:
    radius, chi = 6.0, 2.0
    shift = field_shift(chi * ball(96, radius), (1.0, 1.0, 1.0), B0)
    volume = float(ball(96, radius).sum())
    for offset in ((0, 0, 14), (14, 0, 0), (8, 0, 12)):
        r = math.dist((0, 0, 0), offset)
        cosine = offset[2] / r
        expected = chi * volume / (4 * math.pi * r**3) * (3 * cosine**2 - 1)
        assert float(shift[tuple(48 + o for o in offset)]) == pytest.approx(expected, rel=0.12, abs=0.003)


def test_field_inside_a_sphere_vanishes() -> None:
    shift = field_shift(ball(96, 10.0), (1.0, 1.0, 1.0), B0)
    assert abs(float(shift[48, 48, 48])) < 0.01


def test_field_turns_with_b0() -> None:
    chi = ball(64, 5.0)
    along_z = field_shift(chi, (1.0, 1.0, 1.0), B0)
    along_x = field_shift(chi, (1.0, 1.0, 1.0), torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(along_x.transpose(0, 2), along_z, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tilt", [(0.0, 0.0, 0.0), (10.0, 0.0, 0.0), (8.0, -5.0, 12.0)])
def test_the_main_field_is_the_worlds_z_however_the_slices_are_tilted(
    tilt: tuple[float, float, float],
) -> None:
    scan = simulate_scan(
        shipped_head(), 5, "gre", count=0, protocol=replace(PROTOCOL, tilt=tilt), spacing=2.0
    )
    axes = scan.affine[:3, :3] / np.linalg.norm(scan.affine[:3, :3], axis=0)
    np.testing.assert_allclose(axes @ main_field(tilt), [0, 0, 1], atol=1e-6)


def test_signal_decays_and_turns() -> None:
    out = signal(torch.ones(1), torch.tensor([50.0]), torch.tensor([0.1]), PROTOCOL)
    assert float(out.abs()) == pytest.approx(math.exp(-1.0), rel=1e-5)
    assert float(out.angle()) == pytest.approx(2 * math.pi * MHZ_PER_TESLA * 3.0 * 0.02 * 0.1, rel=1e-4)


def test_a_slope_of_the_field_inside_a_voxel_dephases_it() -> None:
    protocol = replace(PROTOCOL, field_strength=3.0, echo_time=0.02)
    steps = torch.arange(24.0)[:, None, None].expand(24, 6, 6)
    for turns in (0.0, 0.25, 0.5, 1.0):
        slope = turns / (42.577 * 3.0 * 0.02)  # ppm per voxel for so many turns from edge to edge
        found = signal(torch.ones(24, 6, 6), torch.zeros(24, 6, 6), slope * steps, protocol).abs()
        wanted = 1.0 if turns == 0 else abs(math.sin(math.pi * turns)) / (math.pi * turns)
        assert found[4:-4].mean().item() == pytest.approx(wanted, abs=2e-3)


def test_relaxation_is_slower_at_lower_field() -> None:
    assert relaxation_scale(3.0) == pytest.approx(1.0)
    assert 0.55 <= relaxation_scale(1.5) <= 0.65


def test_encoding_keeps_the_mean_and_low_frequencies() -> None:
    fine = torch.sin(2 * math.pi * 3 * (torch.arange(60) + 0.5) / 60).to(torch.complex64) + 2
    coarse = encoding_matrix(60, 20) @ fine
    expected = torch.sin(2 * math.pi * 3 * (torch.arange(20) + 0.5) / 20) + 2
    torch.testing.assert_close(coarse.real, expected, atol=1e-4, rtol=0)
    assert float(coarse.imag.abs().max()) < 1e-4


def test_slices_average_what_they_cover() -> None:
    matrix = slice_matrix(40, 8, sharpness=8)
    torch.testing.assert_close(matrix.real.sum(dim=1), torch.ones(8))
    volume = torch.zeros(2, 2, 40, dtype=torch.complex64)
    volume[..., 12] = 1
    assert int(apply_along(volume, matrix, 2).abs()[0, 0].argmax()) == 2


def test_thick_voxels_lose_less_of_a_small_source() -> None:
    rng = RandomSource(1)
    fine = torch.ones(60, 60, 60, dtype=torch.complex64)
    fine[29:32, 29:32, 29:32] = 0
    depth = []
    for thickness in (1.0, 4.0):
        protocol = Protocol("gre", (1.0, 1.0, thickness), 1.0, False, 0.02, 3.0, 30.0, False, (0.0, 0.0, 0.0))
        image = Acquisition((60, 60, 60), 0.6, protocol, rng).sample(fine).abs()
        depth.append(1 - float(image.min()))
    assert depth[0] > 1.5 * depth[1]


def test_swi_darkens_paramagnetic_phase_only() -> None:
    image = torch.ones(64, 64, 2, dtype=torch.complex64)
    image[30:33, 30:33] = torch.polar(torch.tensor(1.0), torch.tensor(1.0))
    image[10:13, 10:13] = torch.polar(torch.tensor(1.0), torch.tensor(-1.0))
    out = susceptibility_weighted(image, window=0.15, power=4)
    assert float(out[31, 31, 0]) < 0.6
    assert float(out[11, 11, 0]) > 0.9


@pytest.mark.parametrize(
    "invert",
    [
        lambda f: invert_truncated(f, (1.0, 1.0, 1.0), B0, threshold=0.15),
        lambda f: invert_tikhonov(f, (1.0, 1.0, 1.0), B0, weight=0.005),
        lambda f: invert_total_variation(f, (1.0, 1.0, 1.0), B0, weight=2e-4),
    ],
)
def test_inversions_bring_a_source_back(invert) -> None:
    chi = ball(64, 4.0)
    found = invert(field_shift(chi, (1.0, 1.0, 1.0), B0))
    assert float(found[32, 32, 32]) > 0.5
    assert float(found[50, 50, 50].abs()) < 0.1


def test_mapping_is_zero_outside_its_mask() -> None:
    mask = ball(64, 24.0) > 0
    chi = 0.5 * ball(64, 3.0)
    field = field_shift(chi, (1.0, 1.0, 1.0), B0)
    out, inside = SusceptibilityMapping(RandomSource(3), B0)(field, field, mask, (1.0, 1.0, 1.0))
    assert float(out[~inside].abs().max()) == 0
    assert float(out[32, 32, 32]) > 0.2


def test_protocols_stay_within_published_ranges() -> None:
    for seed in range(200):
        for contrast in ("gre", "swi", "qsm"):
            protocol = draw_protocol(RandomSource(seed), contrast)
            assert 0.44 <= protocol.voxel[0] <= 1.06
            assert 0.79 <= protocol.voxel[2] <= 6.01
            assert 0.012 <= protocol.echo_time <= 0.05
