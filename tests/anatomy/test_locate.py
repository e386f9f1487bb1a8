"""Regions: the atlas, and where planted points end up on a scan."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_cmb.anatomy.locate import locate
from bids_cmb.anatomy.mars import assign_regions
from bids_cmb.anatomy.registration import Registration, register
from bids_cmb.anatomy.sampling import apply_affine
from bids_cmb.anatomy.template import load_mars
from bids_cmb.types import MARS_REGIONS, Anatomy, Candidate, Detection, Volume, mars_label, mars_region


def test_the_atlas_has_every_region_on_its_side() -> None:
    atlas = load_mars()
    labels, affine = atlas.labels, atlas.affine
    for code, _, _ in MARS_REGIONS:
        for side, sign in (("L", -1), ("R", 1)):
            x = np.argwhere(labels == mars_label(code, side)).mean(0) @ affine[0, :3] + affine[0, 3]  # type: ignore[arg-type]
            assert np.sign(x) == sign, (code, side)


@pytest.mark.parametrize("zooms", [(2, 2, 2), (1, 1, 4)])
def test_planted_points_keep_their_region(zooms: tuple[int, ...]) -> None:
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    template, brain = load_mni152_template(resolution=1), load_mni152_brain_mask(resolution=1)
    moved = np.array([[0.95, 0.05, 0, 7], [-0.05, 1.04, 0.1, -12], [0, -0.1, 0.97, 9], [0, 0, 0, 1.0]])
    step = tuple(slice(None, None, z) for z in zooms)
    scale = np.diag([*map(float, zooms), 1.0])
    affine = moved @ template.affine @ scale
    image = Volume(np.asarray(template.dataobj, np.float32)[step], affine)
    mask = np.asarray(brain.dataobj)[step] > 0
    anatomy = locate(image, mask, "gre")
    assert (anatomy.mars[mask] > 0).all()
    error = anatomy.world_to_mni @ affine - template.affine @ scale
    corners = np.argwhere(mask)[::5000]
    assert np.linalg.norm(corners @ error[:3, :3].T + error[:3, 3], axis=1).mean() < 6.0
    truth = load_mars().labels[step]
    rng = np.random.default_rng(0)
    deep = np.argwhere(ndimage.binary_erosion(truth > 0, iterations=2))
    points = tuple(deep[rng.permutation(len(deep))[:400]].T)
    categories = [
        mars_region(a)[1:] == mars_region(b)[1:]
        for a, b in zip(anatomy.mars[points], truth[points], strict=True)
        if a
    ]
    assert np.mean(categories) > 0.85


def test_a_lesion_at_a_border_names_both_regions() -> None:
    mars = np.full((20, 20, 20), mars_label("F", "L"), np.int32)
    mars[10:] = mars_label("P", "L")
    labels = np.zeros(mars.shape, np.int32)
    labels[8:11, 9:12, 9:12] = 1
    labels[2:4, 9:12, 9:12] = 2
    image = Volume(np.zeros(mars.shape, np.float32), np.eye(4))
    candidates = tuple(
        Candidate(i, (float(x), 10.0, 10.0), 0.9, 0.9, 27.0, 3.7, 0.5, 1.0) for i, x in ((1, 9), (2, 3))
    )
    shifted = Registration(np.array([[1.0, 0, 0, -5], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]))
    anatomy = Anatomy(mars, shifted.world_to_mni, registration=shifted)
    first, second = assign_regions(Detection(candidates, labels), anatomy, image).candidates
    assert (first.mars_region, first.hemisphere, first.flags) == ("F", "L", ("border:P",))
    assert (second.mars_region, second.mars_category, second.flags) == ("F", "lobar", ())
    assert second.mni == (-2.0, 10.0, 12.0)


@pytest.mark.parametrize(("border", "flags"), [(10, ("border:other_side",)), (13, ())])
def test_a_lesion_between_the_sides_says_so(border: int, flags: tuple[str, ...]) -> None:
    mars = np.full((20, 20, 20), mars_label("Cc", "L"), np.int32)
    mars[border:] = mars_label("Cc", "R")
    labels = np.zeros(mars.shape, np.int32)
    labels[8:11, 9:12, 9:12] = 1
    image = Volume(np.zeros(mars.shape, np.float32), np.eye(4))
    candidate = Candidate(1, (9.0, 10.0, 10.0), 0.9, 0.9, 27.0, 3.7, 0.5, 1.0)
    (found,) = assign_regions(Detection((candidate,), labels), Anatomy(mars, np.eye(4)), image).candidates
    assert (found.mars_region, found.hemisphere, found.flags) == ("Cc", "L", flags)


@pytest.mark.slow
def test_the_finer_registration_finds_a_warp_more_exactly_and_the_same_each_time() -> None:
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    template, brain = load_mni152_template(resolution=2), load_mni152_brain_mask(resolution=2)
    data, inside = np.asarray(template.dataobj, np.float32), np.asarray(brain.dataobj, np.float32)
    # Waves of 3 mm every 40 mm: finer than the fast registration follows.
    grid = np.indices(data.shape).astype(np.float64)
    x, y, z = 4 * np.pi * grid / 40
    grid += 1.5 * np.stack([np.sin(y) * np.cos(z), np.sin(z) * np.cos(x), np.sin(x) * np.cos(y)])
    warped = ndimage.map_coordinates(data, grid, order=1)
    mask = ndimage.map_coordinates(inside, grid, order=1) > 0.5
    image = Volume(warped, template.affine)
    fast = register(image, mask)
    finer = [register(image, mask, finer=True) for _ in range(2)]
    assert finer[0].quality["similarity"] >= fast.quality["similarity"]
    assert finer[0].quality["syn_taken"] == 1
    some = np.argwhere(mask)[::500]
    points = apply_affine(template.affine, some.astype(np.float64))
    true = apply_affine(template.affine, np.stack([axis[tuple(some.T)] for axis in grid], axis=-1))
    error = [float(np.linalg.norm(found(points) - true, axis=1).mean()) for found in (fast, finer[0])]
    assert error[1] < 0.8 * error[0]
    assert "syn_taken" not in fast.quality
    assert np.array_equal(finer[0](points), finer[1](points))


def test_without_a_brain_there_are_no_mni_coordinates() -> None:
    image = Volume(np.zeros((20, 20, 20), np.float32), np.eye(4))
    mask = np.zeros(image.data.shape, bool)
    mask[5:15, 5:15, 5:15] = True
    anatomy = locate(image, mask, "swi")
    labels = np.zeros(mask.shape, np.int32)
    labels[9:11, 9:11, 9:11] = 1
    candidate = Candidate(1, (9.5, 9.5, 9.5), 1, 1, 8.0, 2.5, 1, 1)
    (found,) = assign_regions(Detection((candidate,), labels), anatomy, image).candidates
    assert np.isnan(found.mni).all()
    assert found.mars_region == ""
    assert "no regions" in anatomy.warnings[0]
    assert anatomy.zones["edge"](np.array([[5, 9, 9], [9, 9, 9]]))[0] > 0.3, "the edge needs no registration"
