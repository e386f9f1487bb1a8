"""Training of stage 2: a multi-task teacher, and a student distilled from it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from bids_cmb.detector.discriminate import CUBE_IN_PLANE, CUBE_SLICES, discriminate
from bids_cmb.detector.networks import Student, Teacher
from bids_cmb.training.cubes import CubePool, CubeSampler
from bids_cmb.training.loop import Pace, fit, share_of_batch
from bids_cmb.training.losses import distillation_loss, segmentation_loss
from bids_cmb.training.scan_candidates import ScanCandidates

Report = Callable[[str, int, float], None]
#: Peak learning rate of teacher and student.
STAGE2_RATE = 2e-3
_WEIGHT_DECAY = 1e-2


def train_teacher(
    pool: CubePool,
    pace: Pace,
    *,
    seed: int,
    start: Teacher | None = None,
    batch: int = 32,
    report: Report = lambda _name, _step, _loss: None,
) -> Teacher:
    """Train the teacher to classify candidates and to segment their microbleeds; from `start` on."""
    mine = share_of_batch(batch, pace)

    def losses(batch_seed: int) -> Callable[[Teacher], Tensor]:
        sampler = CubeSampler(pool, batch_seed)

        def loss(network: Teacher) -> Tensor:
            cubes, segmentation, facts, labels = (x.to(pace.device) for x in sampler.batch(mine))
            logits, voxels = network(cubes.contiguous(memory_format=torch.channels_last_3d), facts)
            return nn.functional.binary_cross_entropy_with_logits(logits, labels) + segmentation_loss(
                voxels, segmentation
            )

        return loss

    return fit(
        lambda: Teacher() if start is None else copy.deepcopy(start),
        losses,
        pace,
        weight_decay=_WEIGHT_DECAY,
        seed=seed,
        report=partial(report, "teacher"),
    )


def train_student(
    pool: CubePool,
    teacher: Teacher | None,
    pace: Pace,
    *,
    seed: int,
    start: Student | None = None,
    batch: int = 32,
    report: Report = lambda _name, _step, _loss: None,
) -> Student:
    """Train the student from the labels and, if there is one, from a teacher that no longer changes; from `start` on."""
    mine = share_of_batch(batch, pace)

    def losses(batch_seed: int) -> Callable[[Student], Tensor]:
        sampler = CubeSampler(pool, batch_seed)

        def loss(network: Student) -> Tensor:
            cubes, _, facts, labels = (x.to(pace.device) for x in sampler.batch(mine))
            cubes = cubes.contiguous(memory_format=torch.channels_last_3d)
            logits = network(cubes, facts)
            if teacher is None:
                return nn.functional.binary_cross_entropy_with_logits(logits, labels)
            with torch.no_grad():
                told = teacher.classify(cubes, facts)
            return distillation_loss(logits, told, labels)

        return loss

    return fit(
        lambda: _newborn(start, teacher),
        losses,
        pace,
        weight_decay=_WEIGHT_DECAY,
        seed=seed + 1,
        report=partial(report, "student"),
    )


def _newborn(start: Student | None, teacher: Teacher | None) -> Student:
    """Return a copy of `start`, else a student that begins with the encoder and the classifier of its teacher."""
    if start is not None:
        return copy.deepcopy(start)
    return Student() if teacher is None else Student(teacher.channels, teacher.widths).begin_with(teacher)


def judge(student: Student, candidates: ScanCandidates) -> Tensor:
    """Student's logits (N,) for the candidates of a scan, as in the main job."""
    assert candidates.cubes.shape[2:] == (CUBE_IN_PLANE, CUBE_IN_PLANE, CUBE_SLICES)  # noqa: S101
    return discriminate(student, candidates.cubes.float(), candidates.facts)
