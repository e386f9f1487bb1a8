"""The pallidum's mineral is told by its other side; a microbleed there is not held to be mineral."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bids_cmb.anatomy.deform import lattice
from bids_cmb.anatomy.locate import find_zones
from bids_cmb.anatomy.registration import Registration
from bids_cmb.anatomy.template import load_template
from bids_cmb.types import BoolArray, Contrast, Volume

#: Middle of the right pallidum, MNI mm; the left one is its mirror image.
_PALLIDUM = np.array([20.0, -4.0, -1.0])


def turned() -> Registration:
    """A head that is turned, shifted and bent, where mirroring the grid would go wrong."""
    c, s = np.cos(0.12), np.sin(0.12)
    affine = np.array([[c, -s, 0, 6.0], [s, c, 0, -4.0], [0, 0, 1.04, 3.0], [0, 0, 0, 1]])
    flat = lattice(load_template())
    bent = np.zeros_like(flat.displacement)
    bent[..., 0] = 3.0 * np.sin(np.linspace(0, 3, bent.shape[0]))[:, None, None]
    return Registration(affine, replace(flat, displacement=bent))


def scan_with(places: list[np.ndarray], registration: Registration, sign: float) -> tuple[Volume, BoolArray]:
    """Noise with a blob of 3 mm at each MNI place."""
    affine = np.diag([1.0, 1.0, 1.5, 1.0])
    affine[:3, 3] = (-75.0, -105.0, -70.0)
    data = 1.0 + 0.03 * np.random.default_rng(1).standard_normal((150, 190, 100))
    grid = np.moveaxis(np.indices(data.shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    for place in registration.back(np.array(places)):
        data += sign * 0.5 * np.exp(-0.5 * np.sum((grid - place) ** 2, axis=-1) / 1.5**2)
    return Volume(data.astype(np.float32), affine), np.ones(data.shape, bool)


def strength_at(volume: Volume, brain: BoolArray, registration: Registration, contrast: Contrast) -> float:
    """Of the pallidum's zone on the blob at the right."""
    zone = find_zones(volume, brain, registration, contrast)["pallidum"]
    centre = (registration.back(_PALLIDUM[None])[0] - volume.affine[:3, 3]) / np.diag(volume.affine)[:3]
    voxels = np.rint(centre).astype(np.intp) + np.argwhere(np.ones((3, 3, 1))) - [1, 1, 0]
    return float(zone(voxels).mean())


@pytest.mark.parametrize(("contrast", "sign"), [("gre", -1.0), ("qsm", 1.0)])
def test_only_what_is_on_both_sides_is_held_to_be_mineral(contrast: Contrast, sign: float) -> None:
    registration = turned()
    other = _PALLIDUM * [-1, 1, 1] + [1.0, 1.0, -1.0]  # not quite the mirror image
    both = strength_at(*scan_with([_PALLIDUM, other], registration, sign), registration, contrast)
    one = strength_at(*scan_with([_PALLIDUM], registration, sign), registration, contrast)
    assert both > 0.9
    assert one < 0.2
    # Stored in another unit, it is the same mineral.
    volume, brain = scan_with([_PALLIDUM, other], registration, sign)
    small = replace(volume, data=volume.data * np.float32(1e-8))
    assert strength_at(small, brain, registration, contrast) > 0.9


@pytest.mark.filterwarnings("error")
def test_a_place_fainter_than_its_surround_is_alike_without_a_complaint() -> None:
    registration = turned()
    volume, brain = scan_with([_PALLIDUM], registration, -1.0)  # dark, where a QSM's mineral is bright
    volume = replace(volume, data=volume.data * np.float32(1e4))  # some scanners store thousands
    assert strength_at(volume, brain, registration, "qsm") > 0.9


def test_a_deformation_is_undone() -> None:
    registration = turned()
    points = np.random.default_rng(0).uniform(-60, 60, (200, 3))
    np.testing.assert_allclose(registration(registration.back(points)), points, atol=0.05)


def test_a_deformation_that_stretches_is_undone_too() -> None:
    flat = lattice(load_template())
    steep = np.zeros_like(flat.displacement)
    x = np.arange(steep.shape[0])
    steep[..., 0] = np.clip(1.2 * 6.0 * (x - x.mean()), -14, 14)[:, None, None]
    registration = Registration(np.eye(4), replace(flat, displacement=steep))
    points = np.random.default_rng(0).uniform(-60, 60, (200, 3))
    np.testing.assert_allclose(registration(registration.back(points)), points, atol=0.1)
