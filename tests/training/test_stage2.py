"""What stage 2 is trained on: cubes, changed the way scans differ, and the facts of their scans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bids_cmb.detector.discriminate import CUBE_IN_PLANE, CUBE_SLICES, candidate_facts, discriminate
from bids_cmb.detector.grid import WorkingGrid
from bids_cmb.detector.networks import Student, Teacher
from bids_cmb.errors import InputError, UsageError
from bids_cmb.training.cubes import CubePool, CubeSampler
from bids_cmb.training.loop import Pace
from bids_cmb.training.stage2 import STAGE2_RATE, train_student, train_teacher
from bids_cmb.types import Contrast


def whole_brain(slice_mm: float = 1.5, order: tuple[int, int, int] = (0, 1, 2)) -> WorkingGrid:
    """The working grid of a brain of 150 x 180 x 150 mm, its slices across the last image axis of `order`."""
    edges = [(150.0, 180.0, 150.0)[axis] for axis in order]
    spacing = (0.75, 0.75, slice_mm)
    shape = tuple(round(mm / voxel) for mm, voxel in zip(edges, spacing, strict=True))
    return WorkingGrid(order, (0, 0, 0), shape, shape, spacing)  # type: ignore[arg-type]


def facts_of(contrast: Contrast, slice_mm: float, count: int = 1) -> torch.Tensor:
    """Facts of candidates in the middle of a brain."""
    grid = whole_brain(slice_mm)
    middle = torch.tensor([[n // 2 for n in grid.shape]]).expand(count, -1)
    return candidate_facts(contrast, grid, middle)


@pytest.fixture
def pool() -> CubePool:
    """Cubes whose segmentation is where the image is bright, half of each outside the brain (0)."""
    size = (CUBE_IN_PLANE, CUBE_IN_PLANE, CUBE_SLICES)
    image = torch.zeros(12, 6, *size)
    image[:, (0, 3), : CUBE_IN_PLANE // 2] = 0.1
    image[:, 0, 8:12, 14:19, 3:5] = 1.0
    facts = torch.cat([facts_of("swi", 1.5 + i) for i in range(12)])
    labels = torch.tensor([1, 0] * 6, dtype=torch.int64)
    return CubePool(
        image.half(), (image[:, :1] > 0.5).to(torch.uint8), facts, labels, torch.ones_like(labels)
    )


def test_facts_tell_thick_slices_and_contrast_apart() -> None:
    thin, thick, other = (facts_of(*x)[0] for x in (("swi", 1.5), ("swi", 5.0), ("qsm", 5.0)))  # type: ignore[arg-type]
    assert thin[0] < 0 < thick[0]
    assert torch.equal(thin[1:4], thick[1:4])
    assert not torch.equal(thick[1:4], other[1:4])
    assert other[1:4].sum() == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0)], ids=["axial", "sagittal"])
def test_facts_tell_the_place_whatever_way_the_slices_lie(order: tuple[int, int, int]) -> None:
    grid = whole_brain(order=order)
    # Left of the middle by a quarter of the breadth, at the very back, in the middle of the height.
    voxel = {0: 0.25, 1: 0.0, 2: 0.5}
    peak = torch.tensor([[int(voxel[axis] * n) for axis, n in zip(order, grid.shape, strict=True)]])
    known, beside, back, high = candidate_facts("gre", grid, peak)[0, 4:].tolist()
    assert known == 1
    assert [beside, back, high] == pytest.approx([0.5, -1.0, 0.0], abs=0.02)


def test_mirrored_candidates_have_the_same_facts() -> None:
    grid = whole_brain()
    left, right = torch.tensor([[20, 60, 30]]), torch.tensor([[grid.shape[0] - 1 - 20, 60, 30]])
    assert torch.allclose(candidate_facts("swi", grid, left), candidate_facts("swi", grid, right))


def test_the_place_in_part_of_a_brain_is_unknown() -> None:
    slab = WorkingGrid((0, 1, 2), (0, 0, 0), (200, 240, 20), (200, 240, 20), (0.75, 0.75, 2.0))
    assert candidate_facts("gre", slab, torch.tensor([[10, 10, 10]]))[0, 4:].tolist() == [0, 0, 0, 0]


def test_the_student_heeds_the_facts() -> None:
    torch.manual_seed(1)
    student = Student(3, (8, 8, 8)).eval()
    torch.nn.init.ones_(student.features.facts.weight)  # untrained, it hardly listens
    cubes = torch.rand(2, 6, CUBE_IN_PLANE, CUBE_IN_PLANE, CUBE_SLICES)
    one = discriminate(student, cubes, facts_of("gre", 1.5, 2))
    assert not torch.allclose(one, discriminate(student, cubes, facts_of("gre", 6.0, 2)), atol=1e-4)
    assert torch.allclose(one, discriminate(student, cubes.flip(2), facts_of("gre", 1.5, 2)), atol=1e-5)
    with torch.no_grad():  # faster, and the same function
        mirrored = [
            student(view, facts_of("gre", 1.5, 2))
            for view in (cubes, cubes.flip(2), cubes.flip(3), cubes.flip(2, 3))
        ]
    torch.testing.assert_close(one, torch.stack(mirrored).mean(dim=0), atol=1e-5, rtol=1e-4)


def test_a_student_begins_where_its_teacher_stands(pool: CubePool) -> None:
    torch.manual_seed(1)
    teacher = Teacher(3, (4, 4, 4)).eval()
    student = train_student(pool, teacher, Pace(0, STAGE2_RATE), seed=1)
    cubes, facts = pool.cubes.float(), pool.facts
    assert torch.allclose(student(cubes, facts), teacher(cubes, facts)[0], atol=1e-6)


@pytest.mark.parametrize("network", ["teacher", "student"])
def test_a_training_in_bfloat16_is_nearly_that_in_float32(pool: CubePool, network: str) -> None:
    torch.manual_seed(1)
    teacher = Teacher(3, (4, 4, 4)).eval()
    losses: dict[str, float] = {}
    for precision in ("float32", "bfloat16"):
        pace = Pace(1, STAGE2_RATE, precision=precision)

        def keep(_name: str, _step: int, loss: float, precision: str = precision) -> None:
            losses[precision] = loss

        if network == "teacher":
            trained: torch.nn.Module = train_teacher(pool, pace, seed=1, start=teacher, report=keep)
        else:
            trained = train_student(pool, teacher, pace, seed=1, report=keep)
        assert {p.dtype for p in trained.parameters()} == {torch.float32}
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.03)
    assert losses["bfloat16"] != losses["float32"]


def test_places_are_blurred_and_some_kept_back(pool: CubePool) -> None:
    facts = CubeSampler(pool, 4).batch(60)[2]
    known = facts[:, 4] == 1
    assert 30 < known.sum() < 60
    assert (facts[~known, 5:] == 0).all()
    assert facts[known, 5:].std(dim=0).min() > 0.01


def test_segmentation_moves_with_its_cube_and_the_void_stays_void(pool: CubePool) -> None:
    cubes, segmentation, facts, labels = CubeSampler(pool, 4).batch(30)
    assert len(cubes) == len(segmentation) == len(facts) == len(labels) == 30
    sizes = [int(own.sum()) for own in segmentation]
    assert sizes.count(4 * 5 * 2) >= 15
    assert max(sizes) > 1.5 * 4 * 5 * 2  # some are zoomed
    for cube, own, size in zip(cubes, segmentation, sizes, strict=True):
        inside, outside = cube[:1][own > 0], cube[:1][own == 0]
        if size == 4 * 5 * 2:
            assert inside.min() > outside.max()
        else:  # borders between voxels are mixed
            assert inside.min() > outside.median()
            assert inside.mean() > 2 * outside.mean()
        assert (cube[0] == 0).float().mean() >= 0.3


def test_both_views_change_alike_and_only_their_images(pool: CubePool) -> None:
    pool = replace(pool, cubes=pool.cubes.clone())
    pool.cubes[:, 3] = pool.cubes[:, 0]
    cubes = CubeSampler(pool, 4).batch(30)[0]
    assert (cubes[:, (1, 2, 4, 5)] == 0).all()
    assert torch.equal(cubes[:, 0] == 0, cubes[:, 3] == 0)
    quiet = [(near - wide).abs().max() == 0 for near, wide in zip(cubes[:, 0], cubes[:, 3], strict=True)]
    assert 5 < sum(quiet) < 25  # the others carry noise, less of it in the wide view
    assert cubes[:, 0].amax(dim=(1, 2, 3)).std() > 0.05


def test_candidates_of_an_earlier_version_are_refused(pool: CubePool, tmp_path: Path) -> None:
    replace(pool, cubes=pool.cubes[:, :3]).save(tmp_path / "candidates.npz")
    with pytest.raises(InputError, match=r"candidates\.npz .* earlier version"):
        CubePool.load(tmp_path / "candidates.npz")


def test_candidates_kept_before_they_had_draws_are_drawn_alike(pool: CubePool, tmp_path: Path) -> None:
    pool.save(tmp_path / "candidates.npz")
    with np.load(tmp_path / "candidates.npz") as store:
        older = {name: store[name] for name in store.files if name != "draws"}
    np.savez(tmp_path / "candidates.npz", **older)
    assert torch.equal(CubePool.load(tmp_path / "candidates.npz").draws, pool.draws)


def test_a_third_of_a_batch_are_microbleeds(pool: CubePool) -> None:
    assert CubeSampler(pool, 4).batch(30)[3].sum() == 10


@pytest.mark.parametrize("mine", [1, 2, 8])
def test_a_third_are_microbleeds_however_small_the_share_of_one_process(pool: CubePool, mine: int) -> None:
    sampler = CubeSampler(pool, 5)
    drawn = torch.cat([sampler.batch(mine)[3] for _ in range(240 // mine)])
    assert float(drawn.mean()) == pytest.approx(1 / 3, abs=0.1)


def test_more_processes_than_candidates_in_a_batch_are_refused(pool: CubePool) -> None:
    with pytest.raises(UsageError, match="16 processes"):
        train_teacher(pool, Pace(1, 1e-3, processes=16), seed=1, batch=8)


def test_a_pool_survives_its_file(pool: CubePool, tmp_path: Path) -> None:
    pool.save(tmp_path / "candidates.npz")
    loaded = CubePool.load(tmp_path / "candidates.npz")
    assert torch.equal(loaded.cubes, pool.cubes)
    assert torch.equal(loaded.facts, pool.facts)
    assert torch.equal(loaded.labels, pool.labels)
    assert [p.name for p in tmp_path.iterdir()] == ["candidates.npz"]
