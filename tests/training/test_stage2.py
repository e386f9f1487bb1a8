"""What stage 2 is trained on: cubes, changed the way scans differ, and the facts of their scans."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bids_cmb.detector.discriminate import CUBE_IN_PLANE, CUBE_SLICES, discriminate, scan_facts
from bids_cmb.detector.networks import Student
from bids_cmb.training.stage2 import CubePool, CubeSampler


@pytest.fixture
def pool() -> CubePool:
    """Cubes whose segmentation is where the image is bright, half of each outside the brain (0)."""
    size = (CUBE_IN_PLANE, CUBE_IN_PLANE, CUBE_SLICES)
    image = torch.zeros(12, 3, *size)
    image[:, 0, : CUBE_IN_PLANE // 2] = 0.1
    image[:, 0, 8:12, 14:19, 3:5] = 1.0
    facts = torch.stack([scan_facts("swi", 1.5 + i) for i in range(12)])
    return CubePool(
        image.half(), (image[:, :1] > 0.5).to(torch.uint8), facts, torch.tensor([1, 0] * 6, dtype=torch.int64)
    )


def test_facts_tell_thick_slices_and_contrast_apart() -> None:
    thin, thick, other = scan_facts("swi", 1.5), scan_facts("swi", 5.0), scan_facts("qsm", 5.0)
    assert thin[0] < 0 < thick[0]
    assert torch.equal(thin[1:], thick[1:])
    assert not torch.equal(thick[1:], other[1:])
    assert other[1:].sum() == 1


def test_the_student_heeds_the_facts() -> None:
    torch.manual_seed(1)
    student = Student(3, (8, 8, 8)).eval()
    torch.nn.init.ones_(student.features.facts.weight)  # untrained, it hardly listens
    cubes = torch.rand(2, 3, CUBE_IN_PLANE, CUBE_IN_PLANE, CUBE_SLICES)
    one = discriminate(student, cubes, scan_facts("gre", 1.5))
    assert not torch.allclose(one, discriminate(student, cubes, scan_facts("gre", 6.0)), atol=1e-4)
    assert torch.allclose(one, discriminate(student, cubes.flip(2), scan_facts("gre", 1.5)), atol=1e-5)


def test_segmentation_moves_with_its_cube_and_the_void_stays_void(pool: CubePool) -> None:
    cubes, segmentation, facts, labels = CubeSampler(pool, 4).batch(30)
    assert len(cubes) == len(segmentation) == len(facts) == len(labels) == 30
    for cube, own in zip(cubes, segmentation, strict=True):
        assert own.sum() == 4 * 5 * 2
        assert cube[:1][own > 0].min() > cube[:1][own == 0].max()
        assert (cube[0] == 0).float().mean() >= 0.45


def test_a_third_of_a_batch_are_microbleeds(pool: CubePool) -> None:
    assert CubeSampler(pool, 4).batch(30)[3].sum() == 10


def test_a_pool_survives_its_file(pool: CubePool, tmp_path: Path) -> None:
    pool.save(tmp_path / "candidates.npz")
    loaded = CubePool.load(tmp_path / "candidates.npz")
    assert torch.equal(loaded.cubes, pool.cubes)
    assert torch.equal(loaded.facts, pool.facts)
    assert torch.equal(loaded.labels, pool.labels)
    assert [p.name for p in tmp_path.iterdir()] == ["candidates.npz"]
