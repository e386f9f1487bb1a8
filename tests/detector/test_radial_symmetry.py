"""Radial symmetry against closed forms, and its behaviour under units, flips, voxel size and threads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bids_cmb.detector.radial_symmetry import full_ring, radial_symmetry

STEEP = 6.0  # a slope of six times the median counts in full


def distance(spacing: tuple[float, float], extent: float = 24.0, centre: tuple[float, float] = (0.0, 0.0)):
    """Distance (mm) to `centre` on a plane of `extent` mm around the origin, shape (x, y)."""
    axes = [torch.arange(int(extent / edge) | 1, dtype=torch.float32) for edge in spacing]
    x, y = ((axis - (len(axis) // 2)) * edge for axis, edge in zip(axes, spacing, strict=True))
    return torch.sqrt((x[:, None] - centre[0]) ** 2 + (y[None, :] - centre[1]) ** 2)


def disk(rho: torch.Tensor, radius: float, blur: float = 0.3) -> torch.Tensor:
    """A bright disk with a soft edge, as one axial slice."""
    return (1.0 / (1.0 + torch.exp((rho - radius) / blur)))[:, :, None]


def middle(array: torch.Tensor) -> float:
    return float(array[array.shape[0] // 2, array.shape[1] // 2, array.shape[2] // 2])


def peak(array: torch.Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(array.argmax()), array.shape))


@pytest.mark.parametrize(("radius", "sigma"), [(1.0, 0.5), (2.0, 0.5), (3.0, 0.75), (0.2, 1.0)])
def test_full_ring_is_the_integral_of_all_votes(radius, sigma):
    rho = np.arange(0.0005, 20.0, 0.001)
    density = np.exp(-((rho - radius) ** 2) / (2 * sigma**2)) / (2 * math.pi * sigma**2)
    assert full_ring(radius, sigma) == pytest.approx(np.sum(2 * math.pi * rho * density) * 0.001, rel=1e-5)


@pytest.mark.parametrize("edge", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("radius", [1.0, 2.0, 3.0])
def test_cone_gives_a_full_ring_of_votes_at_its_tip(edge, radius):
    # Every edge of a cone has the same slope and points to the tip: share of the ring 1, slope 1 / STEEP.
    cone = (10.0 - distance((edge, edge))).clamp(min=0.0)[:, :, None]
    found = radial_symmetry(cone, (edge, edge, 1.0), radii=[radius])
    assert middle(found) == pytest.approx(1 / STEEP, rel=0.1)
    assert peak(found)[:2] == (cone.shape[0] // 2, cone.shape[1] // 2)


@pytest.mark.parametrize("strictness", [1.0, 2.0, 2.5])
def test_ramp_gives_one_vote_per_voxel(strictness):
    ramp = torch.arange(40.0)[:, None, None].expand(40, 40, 2)
    found = radial_symmetry(ramp, (0.5, 0.5, 1.0), radii=[2.0], strictness=strictness)
    assert middle(found) == pytest.approx((1 / full_ring(2.0, 0.5)) ** (1 + strictness) / STEEP, rel=0.01)


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.45, 0.9), (0.8, 0.8)])
def test_disk_peaks_at_its_centre(spacing):
    centre = (3 * spacing[0], -5 * spacing[1])
    image = disk(distance(spacing, centre=centre), 1.5)
    found = radial_symmetry(image, (*spacing, 2.0))
    assert peak(found)[:2] == (image.shape[0] // 2 + 3, image.shape[1] // 2 - 5)
    assert float(found.max()) > 0.6


def test_matching_radius_wins_and_large_disk_is_ignored():
    rho = distance((0.5, 0.5), extent=30.0)
    by_radius = {
        r: middle(radial_symmetry(disk(rho, 2.0), (0.5, 0.5, 1), radii=[r])) for r in (1.0, 2.0, 3.0, 4.0)
    }
    assert by_radius[2.0] == max(by_radius.values())
    assert by_radius[4.0] < 0.05
    assert middle(radial_symmetry(disk(rho, 8.0), (0.5, 0.5, 1.0))) < 0.01


def test_dark_is_bright_of_the_negative():
    image = disk(distance((0.6, 0.6)), 1.5) + 0.01 * torch.randn(41, 41, 1, generator=torch.manual_seed(1))
    assert torch.equal(
        radial_symmetry(image, (0.6, 0.6, 1.0), polarity="bright"),
        radial_symmetry(-image, (0.6, 0.6, 1.0), polarity="dark"),
    )
    assert middle(radial_symmetry(image, (0.6, 0.6, 1.0), polarity="dark")) < 0.01


@pytest.mark.parametrize(("scale", "offset"), [(1000.0, 0.0), (1e-3, 0.0), (250.0, 40.0)])
def test_intensity_unit_does_not_matter(scale, offset):
    image = disk(distance((0.6, 0.6)), 1.5) + 0.05 * torch.rand(41, 41, 1, generator=torch.manual_seed(2))
    wanted = radial_symmetry(image, (0.6, 0.6, 1.0))
    found = radial_symmetry(image * scale + offset, (0.6, 0.6, 1.0))
    assert torch.allclose(found, wanted, atol=0.002)
    assert float(wanted.max()) > 0.5


def test_integer_images_work():
    image = (1000 * disk(distance((0.6, 0.6)), 1.5)).to(torch.int16)
    assert middle(radial_symmetry(image, (0.6, 0.6, 1.0))) > 0.6


def test_flips_and_transposition():
    image = torch.rand(31, 40, 3, generator=torch.manual_seed(3))
    found = radial_symmetry(image, (0.7, 0.9, 2.0))
    for axis in (0, 1, 2):
        assert torch.equal(radial_symmetry(image.flip(axis), (0.7, 0.9, 2.0)).flip(axis), found)
    turned = radial_symmetry(image.transpose(0, 1), (0.9, 0.7, 2.0)).transpose(0, 1)
    assert torch.allclose(turned, found, atol=1e-6)


def test_voxel_size_does_not_matter():
    found = []
    for edge in (0.3, 0.5, 0.8, 1.0):
        rho = distance((edge, edge))
        background = 0.3 * torch.cos(rho / 3.0)  # gives every grid the same typical slope
        image = torch.exp(-(rho**2) / (2 * 1.2**2)) + background
        found.append(middle(radial_symmetry(image[:, :, None], (edge, edge, 1.0))))
    assert max(found) / min(found) < 1.15


@pytest.mark.parametrize("value", [0.0, 700.0])
def test_flat_image_gives_zero(value):
    found = radial_symmetry(torch.full((12, 13, 3), value), (1.0, 1.0, 1.0))
    assert torch.equal(found, torch.zeros(12, 13, 3))


def test_tiny_and_empty_images():
    for shape in ((1, 1, 1), (2, 2, 2), (1, 9, 4), (0, 5, 5)):
        found = radial_symmetry(torch.rand(shape), (1.0, 1.0, 1.0))
        assert found.shape == shape
        assert torch.isfinite(found).all()


def test_values_that_are_not_finite_cast_no_votes():
    image = disk(distance((0.6, 0.6)), 1.5)
    broken = image.clone()
    broken[2, 2, 0], broken[5, 30, 0] = math.nan, math.inf
    found = radial_symmetry(broken, (0.6, 0.6, 1.0))
    assert torch.isfinite(found).all()
    assert middle(found) == pytest.approx(middle(radial_symmetry(image, (0.6, 0.6, 1.0))), rel=0.02)


def test_edge_of_the_mask_does_not_vote():
    image = torch.rand(50, 50, 1, generator=torch.manual_seed(4)) * 0.01
    mask = (distance((0.5, 0.5), extent=25.0)[:50, :50] < 1.6)[:, :, None]
    image[mask] += 10.0  # the step at the mask's edge would be a perfect ring
    found = radial_symmetry(image, (0.5, 0.5, 1.0), mask=mask)
    assert float(found[~mask].abs().max()) == 0.0
    assert float(found.max()) < 0.02
    assert middle(radial_symmetry(image, (0.5, 0.5, 1.0))) > 0.05


def test_lesion_counts_the_same_with_a_mask():
    image = disk(distance((0.5, 0.5)), 1.5) + 0.02 * torch.rand(49, 49, 1, generator=torch.manual_seed(5))
    mask = torch.zeros(49, 49, 1, dtype=torch.bool)
    mask[4:-4, 4:-4] = True
    found = radial_symmetry(image, (0.5, 0.5, 1.0), mask=mask)
    assert middle(found) == pytest.approx(middle(radial_symmetry(image, (0.5, 0.5, 1.0))), rel=0.1)


def test_same_bytes_for_any_number_of_threads():
    image = torch.rand(160, 170, 24, generator=torch.manual_seed(6))
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(radial_symmetry(image, (0.8, 0.8, 1.5)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_gpu_agrees_with_cpu_and_repeats():
    image = torch.rand(96, 112, 30, generator=torch.manual_seed(7))
    first = radial_symmetry(image.cuda(), (0.8, 0.8, 1.5))
    assert torch.equal(first, radial_symmetry(image.cuda(), (0.8, 0.8, 1.5)))
    assert torch.allclose(first.cpu(), radial_symmetry(image, (0.8, 0.8, 1.5)), atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": torch.rand(4, 4)},
        {"spacing": (1.0, 0.0, 1.0)},
        {"radii": ()},
        {"radii": (-1.0,)},
        {"radii": (500.0,)},
        {"polarity": "grey"},
        {"mask": torch.ones(3, 3, 3, dtype=torch.bool)},
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong):
    arguments = {"image": torch.rand(4, 4, 4), "spacing": (1.0, 1.0, 1.0), **wrong}
    image, spacing = arguments.pop("image"), arguments.pop("spacing")
    with pytest.raises(ValueError, match=r"radi|voxel|polarity|mask"):
        radial_symmetry(image, spacing, **arguments)
