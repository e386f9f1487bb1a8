"""Registration: a T1w image of the session, failures that are said, and regions that never run out."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from bids_cmb.anatomy import rigid
from bids_cmb.anatomy.affine_fit import (
    Fit,
    Pose,
    composite,
    evaluate,
    linear_derivatives,
    linear_part,
    rotation,
)
from bids_cmb.anatomy.deform import Deformation, Deformed, lattice
from bids_cmb.anatomy.locate import edge_zone, find_zones, locate, region_map
from bids_cmb.anatomy.registration import (
    Registration,
    _believed,
    coarse_template,
    register,
    starts,
    tissue_shares,
)
from bids_cmb.anatomy.sampling import apply_affine, take_sample
from bids_cmb.anatomy.shading import without_shading
from bids_cmb.anatomy.template import load_mars, load_template
from bids_cmb.types import Affine, BoolArray, Volume


def drawn(seed: int, affine: Affine | None = None) -> tuple[Volume, BoolArray]:
    """The template with a random brightness of its tissues, and its brain."""
    template = load_template()
    rng = np.random.default_rng(seed)
    picture = composite(template, rng.permutation(np.linspace(0.4, 1.2, template.classes.shape[-1] + 1)))
    brain = template.depth > 0
    data = np.where(brain, picture + 2.0 + 0.03 * rng.standard_normal(picture.shape), 0)
    return Volume(data.astype(np.float32), template.affine if affine is None else affine), brain


def test_a_t1w_image_is_brought_to_the_scan_and_used() -> None:
    scan, brain = drawn(1)
    moved = np.eye(4)
    moved[:3, :3] = rotation(np.array([0.05, -0.04, 0.06]))
    moved[:3, 3] = (7.0, -5.0, 4.0)
    t1w, _ = drawn(2, moved @ scan.affine)
    alone = register(scan, brain)
    sample = take_sample(scan, brain, spacing_mm=3.0)
    found = rigid.align(t1w, sample.points, tissue_shares(sample, load_template(), alone), sample.inside)
    points = sample.points[::50]
    error = points @ (found.matrix - moved)[:3, :3].T + (found.matrix - moved)[:3, 3]
    assert np.linalg.norm(error, axis=1).max() < 1.5
    both = register(scan, brain, t1w=t1w)
    assert both.warnings == ()
    assert both.quality["t1w_used"] == 1
    assert "t1w_used" not in alone.quality
    assert not np.array_equal(both.world_to_mni, alone.world_to_mni)


@pytest.mark.parametrize("seed", range(6))
def test_a_slab_is_found_at_its_height_and_never_upside_down(seed: int) -> None:
    scan, brain = drawn(seed)
    low = 8 + 4 * seed
    part = np.s_[:, :, low : low + 24]  # 72 mm
    affine = scan.affine.copy()
    affine[2, 3] += low * scan.affine[2, 2]
    shifted = affine.copy()
    shifted[:3, 3] += (4.0, -12.0, 35.0)  # where the scanner's centre was tells nothing
    found = register(Volume(np.ascontiguousarray(scan.data[part]), shifted), brain[part])
    assert not found.failed
    voxels = np.argwhere(brain[part])[::50].astype(np.float64)
    error = found(apply_affine(shifted, voxels)) - apply_affine(affine, voxels)
    assert np.linalg.norm(error, axis=1).mean() < 4.0


def test_only_a_whole_head_is_tried_with_reversed_axes() -> None:
    scan, brain = drawn(1)
    slab = brain.copy()
    slab[:, :, 40:] = False
    slab[:, :, :16] = False
    tried = [
        list(starts(take_sample(scan, mask, spacing_mm=6.0), coarse_template())) for mask in (brain, slab)
    ]
    assert [len({pose.flip for pose in poses}) for poses in tried] == [4, 1]
    assert len({float(pose.parameters[2]) for pose in tried[1]}) > 2  # heights


def test_shading_is_taken_off_and_the_tissues_stay() -> None:
    scan, brain = drawn(4)
    x, y, z = np.indices(scan.data.shape) / 30.0 - 1.0
    shaded = Volume(
        (scan.data + np.where(brain, 0.3 * x * y + 0.2 * z**3, 0)).astype(np.float32), scan.affine
    )
    template = load_template()
    plain, sample = (take_sample(volume, brain, spacing_mm=3.0) for volume in (scan, shaded))
    fit, _ = evaluate(sample, template, Pose(np.zeros(13), (1, 1, 1), np.zeros(3)))
    inside = plain.inside > 0.5

    def likeness(values: np.ndarray) -> float:
        return float(np.corrcoef(values[inside, 0], plain.values[inside, 0])[0, 1])

    assert likeness(sample.values) < 0.95
    assert likeness(without_shading(sample, template, fit).values) > 0.975


def test_a_t1w_image_of_something_else_is_left_out_with_a_sentence() -> None:
    scan, brain = drawn(1)
    noise = np.random.default_rng(0).normal(size=scan.data.shape).astype(np.float32)
    found = register(scan, brain, t1w=Volume(noise, scan.affine))
    assert any("T1w" in sentence for sentence in found.warnings)
    assert found.quality["t1w_used"] == 0
    assert np.array_equal(found.world_to_mni, register(scan, brain).world_to_mni)


def test_a_scan_that_is_no_brain_falls_back_and_says_so() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((70, 40, 40), bool)
    mask[2:68, 10:30, 10:30] = True
    scan = Volume(rng.normal(size=mask.shape).astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]))
    anatomy = locate(scan, mask, "gre")
    assert anatomy.quality["fallback"] == 2
    assert any("failed" in sentence for sentence in anatomy.warnings)
    assert set(anatomy.zones) == {"edge"}, "no penalty for a place that is not known"
    assert anatomy.registration is None, "no MNI coordinates either"
    assert (anatomy.mars[mask] > 0).all()


def test_a_deformation_that_folds_space_is_not_believed() -> None:
    pose = Pose(np.zeros(13), (1, 1, 1), np.zeros(3))
    fit = Fit(pose, 0.0, 0.5, 0.95, np.zeros((1, 2)))
    flat = lattice(load_template())
    wild = np.random.default_rng(0).normal(0, 6, flat.displacement.shape).astype(np.float32)
    for deformation, similarity, good in (
        (flat, 0.5, True),
        (Deformation(wild, flat.affine), 0.9, False),
        (flat, 0.4, False),
    ):
        found, complaint = _believed(Deformed(deformation, similarity, 0.95, np.zeros((1, 2))), fit)
        assert (found is not None) == good
        assert bool(complaint) != good


@pytest.mark.parametrize("zooms", [(1.0, 1.0, 5.0), (0.45, 0.9, 2.0)])
def test_every_voxel_of_the_brain_gets_the_region_of_its_place(zooms: tuple[float, ...]) -> None:
    atlas = load_mars()
    linear = rotation(np.array([0.2, 0.1, -0.15])) @ np.diag(zooms)
    shape = tuple(int(n) for n in np.array([120.0, 100.0, 90.0]) / zooms)
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = np.array([10.0, -20.0, 15.0]) - linear @ (np.asarray(shape) / 2)
    field = lattice(load_template())
    bend = ndimage.gaussian_filter(
        np.random.default_rng(1).normal(0, 30, field.displacement.shape), (3, 3, 3, 0)
    )
    registration = Registration(np.eye(4), Deformation(bend.astype(np.float32), field.affine))
    mask = np.ones(shape, bool)
    mask[: shape[0] // 4] = False
    found = region_map(Volume(np.zeros(shape, np.float32), affine), mask, registration)
    assert ((found > 0) == mask).all()
    voxels = np.argwhere(mask)[::97]
    mni = registration(voxels @ linear.T + affine[:3, 3])
    index = np.rint((mni - atlas.affine[:3, 3]) / np.diag(atlas.affine)[:3]).astype(int)
    inside = np.all((index >= 0) & (index < atlas.labels.shape), axis=1)
    direct = atlas.labels[tuple(index[inside].T)]
    same = found[tuple(voxels[inside].T)] == direct
    assert same[direct > 0].mean() > (0.97 if min(zooms) >= 1 else 0.93)


def test_zones_of_mimics_lie_where_they_should() -> None:
    scan, brain = drawn(3)
    zones = find_zones(scan, brain, Registration(np.eye(4)), "swi")

    def at(name: str, *mni: float) -> float:
        index = np.rint((np.array(mni) - scan.affine[:3, 3]) / 3.0).astype(np.intp)
        return float(zones[name](index[None])[0])

    assert at("pineal", 0, -30, 0) > 0.3 > at("pineal", 30, 20, 30)
    assert at("pallidum", -19, -3, 0) > 0.3 > at("pallidum", -30, 40, 20)
    assert at("ventricle", -14, -36, 14) > 0.3 > at("ventricle", -35, -20, 45)
    for name, strength in zones.items():
        values = strength(np.argwhere(brain)[::211])
        assert values.min() >= 0, name
        assert values.max() <= 1, name


def test_the_edge_is_strong_at_the_surface_only() -> None:
    brain = np.zeros((20, 20, 20), bool)
    brain[4:16, 4:16, :] = True
    strength = edge_zone(brain, (1.0, 1.0, 1.0), 2.0)
    voxels = np.array([[4, 10, 10], [5, 10, 10], [9, 10, 10], [10, 10, 0], [0, 0, 0]])
    assert strength(voxels).tolist() == [0.75, 0.25, 0.0, 0.0, 0.0]


def test_a_thick_slice_is_as_deep_as_its_middle() -> None:
    brain = np.zeros((20, 20, 8), bool)
    brain[2:18, 2:18, 2:6] = True
    strength = edge_zone(brain, (1.0, 1.0, 5.0), 2.0)
    # The lowest slice of the brain: its middle lies 2.5 mm from below, and half a millimetre from the side.
    assert strength(np.array([[10, 10, 2], [2, 10, 2]])).tolist() == [0.0, 0.75]


def test_the_slopes_of_the_pose_are_those_of_differences() -> None:
    parameters = np.array([0, 0, 0, 0.2, -0.1, 0.3, 0.05, 0.1, -0.02, 0.03, -0.04, 0.02, 0])
    for k, slope in enumerate(linear_derivatives(parameters)):
        step = np.zeros(13)
        step[3 + k] = 1e-5
        expected = (linear_part(parameters + step) - linear_part(parameters - step)) / 2e-5
        assert np.allclose(slope, expected, atol=1e-8)


@pytest.mark.slow
def test_any_number_of_threads_gives_the_same_bytes() -> None:
    code = (
        f"import hashlib, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_registration import drawn\n"
        "from bids_cmb.anatomy.locate import locate\n"
        "found = locate(*drawn(5), 'swi')\n"
        "print(hashlib.sha256(found.mars.tobytes() + found.world_to_mni.tobytes()).hexdigest())\n"
    )
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    results = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | dict.fromkeys(names, threads),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "3")
    }
    assert len(results) == 1
    assert len(results.pop().strip()) == hashlib.sha256().digest_size * 2
