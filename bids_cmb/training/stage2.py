"""Training of stage 2: a multi-task teacher, and a student distilled from it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from bids_cmb.detector.discriminate import CUBE_IN_PLANE, CUBE_SLICES, discriminate
from bids_cmb.detector.networks import Student, Teacher
from bids_cmb.training.checkpoints import Checkpoint
from bids_cmb.training.cubes import CubePool, CubeSampler
from bids_cmb.training.losses import distillation_loss, segmentation_loss
from bids_cmb.training.parallel import average_gradients, train_together
from bids_cmb.training.scan_candidates import ScanCandidates
from bids_cmb.training.stage1 import Average

Report = Callable[[str, int, float], None]
#: Peak learning rate of teacher and student.
STAGE2_RATE = 2e-3


def _cycle(
    network: nn.Module, steps: int, rate: float
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-2)
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=steps + 1, pct_start=0.15
    )


def train_teacher(
    pool: CubePool,
    *,
    steps: int,
    seed: int,
    start: Teacher | None = None,
    batch: int = 32,
    rate: float = STAGE2_RATE,
    device: str = "cpu",
    processes: int = 1,
    checkpoint: Path | None = None,
    report: Report = lambda _name, _step, _loss: None,
) -> Teacher:
    """Train the teacher to classify candidates and to segment their microbleeds; from `start` on."""

    def newborn() -> Teacher:
        return Teacher() if start is None else copy.deepcopy(start)

    def train(rank: int) -> Teacher:
        torch.manual_seed(seed)
        network = newborn().to(device)
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # a third less time on a CPU
        average = Average(network)
        optimiser, schedule = _cycle(network, steps, rate)
        store = Checkpoint(
            checkpoint,
            {"network": network, "average": average.network, "optimiser": optimiser, "schedule": schedule},
        )
        first = average.steps = store.resume()
        sampler = CubeSampler(pool, seed + 7919 * first + 104729 * rank)
        network.train()
        for step in range(first, steps):
            cubes, segmentation, facts, labels = (x.to(device) for x in sampler.batch(batch // processes))
            cubes = cubes.contiguous(memory_format=torch.channels_last_3d)
            logits, voxels = network(cubes, facts)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels) + segmentation_loss(
                voxels, segmentation
            )
            _step(network, loss, optimiser, schedule, average)
            if rank == 0:
                report("teacher", step + 1, float(loss.detach()))
            if rank == 0 and ((step + 1) % 100 == 0 or step + 1 == steps):
                store.save(step + 1)
        return average.network.eval()  # type: ignore[return-value]

    return train_together(train, processes, newborn())


def train_student(
    pool: CubePool,
    teacher: Teacher | None,
    *,
    steps: int,
    seed: int,
    start: Student | None = None,
    batch: int = 32,
    rate: float = STAGE2_RATE,
    device: str = "cpu",
    processes: int = 1,
    checkpoint: Path | None = None,
    report: Report = lambda _name, _step, _loss: None,
) -> Student:
    """Train the student from the labels and, if there is one, from a teacher that no longer changes; from `start` on."""

    def train(rank: int) -> Student:
        torch.manual_seed(seed + 1)
        network = _newborn(start, teacher).to(device)
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        average = Average(network)
        optimiser, schedule = _cycle(network, steps, rate)
        store = Checkpoint(
            checkpoint,
            {"network": network, "average": average.network, "optimiser": optimiser, "schedule": schedule},
        )
        first = average.steps = store.resume()
        sampler = CubeSampler(pool, seed + 1 + 7919 * first + 104729 * rank)
        network.train()
        for step in range(first, steps):
            cubes, _, facts, labels = (x.to(device) for x in sampler.batch(batch // processes))
            cubes = cubes.contiguous(memory_format=torch.channels_last_3d)
            logits = network(cubes, facts)
            if teacher is None:
                loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
            else:
                with torch.no_grad():
                    told = teacher.classify(cubes, facts)
                loss = distillation_loss(logits, told, labels)
            _step(network, loss, optimiser, schedule, average)
            if rank == 0:
                report("student", step + 1, float(loss.detach()))
            if rank == 0 and ((step + 1) % 100 == 0 or step + 1 == steps):
                store.save(step + 1)
        return average.network.eval()  # type: ignore[return-value]

    return train_together(train, processes, _newborn(start, teacher))


def _newborn(start: Student | None, teacher: Teacher | None) -> Student:
    """Return a copy of `start`, else a student that begins with the encoder and the classifier of its teacher."""
    if start is not None:
        return copy.deepcopy(start)
    return Student() if teacher is None else Student(teacher.channels, teacher.widths).begin_with(teacher)


def _step(
    network: nn.Module,
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    average: Average,
) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(network)
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    schedule.step()
    average.update(network)


def judge(student: Student, candidates: ScanCandidates) -> Tensor:
    """Student's logits (N,) for the candidates of a scan, as in the main job."""
    assert candidates.cubes.shape[2:] == (CUBE_IN_PLANE, CUBE_IN_PLANE, CUBE_SLICES)  # noqa: S101
    return discriminate(student, candidates.cubes.float(), candidates.facts)
