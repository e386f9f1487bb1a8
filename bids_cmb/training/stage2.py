"""Training of stage 2: candidates of whole scans, a multi-task teacher, and a student distilled from it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bids_cmb.detector.candidates import find_peaks, heat_map
from bids_cmb.detector.discriminate import (
    CUBE_IN_PLANE,
    CUBE_SLICES,
    candidate_facts,
    cut_cubes,
    discriminate,
)
from bids_cmb.detector.networks import CandidateNet, Student, Teacher
from bids_cmb.detector.pipeline import stage2_cubes
from bids_cmb.errors import InputError
from bids_cmb.training.checkpoints import Checkpoint
from bids_cmb.training.losses import distillation_loss, segmentation_loss
from bids_cmb.training.parallel import average_gradients, train_together
from bids_cmb.training.samples import TrainingScan
from bids_cmb.training.stage1 import Average

Report = Callable[[str, int, float], None]
#: Candidates kept per scan for training, highest first: more would only repeat easy ones.
_MOST = 80
#: Peak learning rate of teacher and student.
STAGE2_RATE = 2e-3
#: Share of candidates whose place is kept back in training, and the blur of the others (half the box is 1).
_PLACES_KEPT_BACK, _PLACE_BLUR = 0.15, 0.05
#: Share of candidates that are zoomed, and the logarithms of the least and the greatest zoom: few simulated bleeds are
#: as wide as the largest real ones.
_ZOOMED, _ZOOMS = 0.25, (-0.1, 0.5)


#: The tensors of `ScanCandidates`, a row for each candidate.
_ROWS = ("cubes", "segmentation", "facts", "heights", "labels")


@dataclass(frozen=True)
class ScanCandidates:
    """Stage-1 candidates of one scan.

    Attributes
    ----------
    scan
        Where they come from.
    cubes
        (N, 3, 28, 28, 10) float16.
    segmentation
        (N, 1, 28, 28, 10) uint8.
    facts
        (N, 8) from `candidate_facts`.
    heights
        (N,) stage-1 scores; 0 for lesions that stage 1 missed (training only).
    labels
        (N,) 1 microbleed, 0 not, -1 ignore.
    missed
        Number of lesions without a candidate.
    """

    scan: TrainingScan
    cubes: Tensor
    segmentation: Tensor
    facts: Tensor
    heights: Tensor
    labels: Tensor
    missed: int

    def above(self, height: float) -> ScanCandidates:
        """Return those at least so high; lesions whose peak is lower count as missed."""
        kept = self.heights >= height
        lost = int((self.labels[~kept] == 1).sum())
        rows = {name: getattr(self, name)[kept] for name in _ROWS}
        return replace(self, missed=self.missed + lost, **rows)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the scan, for `of`."""
        return {name: getattr(self, name).numpy() for name in _ROWS} | {"missed": np.array(self.missed)}

    @classmethod
    def of(cls, scan: TrainingScan, arrays: Mapping[str, np.ndarray]) -> ScanCandidates:
        """Put together a scan and what `arrays` gave."""
        rows = {name: torch.from_numpy(arrays[name]) for name in _ROWS}
        return cls(scan=scan, missed=int(arrays["missed"]), **rows)


def collect_candidates(
    network: CandidateNet, scan: TrainingScan, *, threshold: float, add_missed: bool
) -> ScanCandidates:
    """Run stage 1 on a whole scan and match its candidates to the lesions.

    Parameters
    ----------
    network
        Stage 1.
    scan
        With lesions.
    threshold
        Least peak height.
    add_missed
        For training: keep the highest `_MOST` candidates and return missed lesions as positives too.
    """
    channels = scan.channels.float()
    heat = heat_map(network, channels)
    peaks, heights = find_peaks(heat, scan.spacing, threshold)
    if add_missed:
        peaks, heights = peaks[:_MOST], heights[:_MOST]
    labels, found = _match(peaks.numpy(), scan)
    missing = torch.from_numpy(scan.lesions[~found]).round().long()
    missed = len(missing)
    if add_missed and missed:
        size = torch.tensor(heat.shape)
        peaks = torch.cat([peaks, torch.minimum(missing.clamp(min=0), size - 1)])
        heights = torch.cat([heights, torch.zeros(missed)])
        labels = np.concatenate([labels, np.ones(missed, np.int64)])
    cubes = stage2_cubes(channels, heat, peaks).half()
    return ScanCandidates(
        scan,
        cubes,
        cut_cubes(scan.segmentation[None], peaks),
        candidate_facts(scan.contrast, scan.grid, peaks),
        heights,
        torch.from_numpy(labels),
        missed,
    )


def _match(peaks: np.ndarray, scan: TrainingScan) -> tuple[np.ndarray, np.ndarray]:
    """Label peaks, highest first: a lesion takes the first peak within max(3 mm, radius + 1 mm)."""
    spacing = np.array(scan.spacing)
    labels = np.zeros(len(peaks), np.int64)
    found = np.zeros(len(scan.lesions), bool)
    reach = np.maximum(3.0, scan.diameters / 2 + 1.0)
    for i, peak in enumerate(peaks):
        if len(scan.lesions):
            distance = np.linalg.norm((scan.lesions - peak) * spacing, axis=1)
            hits = np.flatnonzero((distance <= reach) & ~found)
            if len(hits):
                found[hits[np.argmin(distance[hits])]] = True
                labels[i] = 1
                continue
            if (distance <= reach).any():
                labels[i] = -1  # a second peak on a lesion
                continue
        apart = np.linalg.norm((scan.ignored - peak) * spacing, axis=1)
        if (apart <= np.maximum(3.5, scan.ignored_diameters / 2)).any():
            labels[i] = -1
    return labels, found


@dataclass(frozen=True)
class CubePool:
    """Candidates of all scans to train on.

    Attributes
    ----------
    cubes, segmentation
        (N, 3, 28, 28, 10) float16, (N, 1, 28, 28, 10) uint8.
    facts
        (N, 8) from `candidate_facts`.
    labels
        (N,) 0 or 1.
    """

    cubes: Tensor
    segmentation: Tensor
    facts: Tensor
    labels: Tensor

    @classmethod
    def of(cls, sets: Sequence[ScanCandidates]) -> CubePool:
        """Join the candidates of scans, without those to ignore.

        Raises
        ------
        InputError
            If there are not both microbleeds and others: nothing could be learnt.
        """
        keep = [s.labels >= 0 for s in sets]
        cubes, segmentation, facts, labels = (
            torch.cat([getattr(s, name)[k] for s, k in zip(sets, keep, strict=True)])
            for name in ("cubes", "segmentation", "facts", "labels")
        )
        bleeds = int((labels == 1).sum())
        if not 0 < bleeds < len(labels):
            raise InputError(
                f"Stage 2 has {bleeds} microbleeds and {len(labels) - bleeds} other candidates to learn from and needs "
                "both: train stage 1 for longer (--stage1-steps), or on more scans."
            )
        return cls(cubes, segmentation, facts, labels)

    def save(self, path: Path) -> None:
        """Write an uncompressed .npz, whole or not at all."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.npz")
        np.savez(
            partial,
            **{field.name: getattr(self, field.name).numpy() for field in fields(self)},
        )
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> CubePool:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as store:
            return cls(*(torch.from_numpy(store[field.name]) for field in fields(cls)))


class CubeSampler:
    """Batches of augmented cubes, a third of them microbleeds."""

    def __init__(self, pool: CubePool, seed: int) -> None:
        self._pool = pool
        self._rng = np.random.default_rng(seed)
        self._pools = [torch.nonzero(pool.labels == value)[:, 0].numpy() for value in (0, 1)]

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cubes, segmentation, facts and labels of `size` candidates."""
        positives = size // 3
        picks = np.concatenate(
            [
                self._rng.choice(pool, n)
                for pool, n in zip(self._pools, (size - positives, positives), strict=True)
            ]
        )
        chosen = torch.from_numpy(picks)
        cubes, segmentation = self._moved(
            self._pool.cubes[chosen].float(), self._pool.segmentation[chosen].float()
        )
        cubes, segmentation = self._zoomed(cubes, segmentation)
        cubes = torch.cat([self._disturbed(cubes[:, :1]), cubes[:, 1:]], dim=1)
        return cubes, segmentation, self._vague(self._pool.facts[chosen]), self._pool.labels[chosen].float()

    def _vague(self, facts: Tensor) -> Tensor:
        """Blur the places, and keep some back: the box around a brain is a rough guide, and may be wrong."""
        # As `candidate_facts` lays them out: column 4 says whether the place is known, 5 to 7 are the place.
        kept = torch.from_numpy(self._rng.random((len(facts), 1)) >= _PLACES_KEPT_BACK)
        blur = torch.from_numpy(self._rng.normal(0, _PLACE_BLUR, (len(facts), 3)).astype(np.float32))
        known = facts[:, 4:5] * kept
        return torch.cat([facts[:, :4], known, known * (facts[:, 5:] + blur)], dim=1)

    def _moved(self, cubes: Tensor, segmentation: Tensor) -> tuple[Tensor, Tensor]:
        """Shift, mirror and turn each cube: peaks do not always hit the centre, and slices lie any way."""
        moved = []
        for pair in zip(cubes, segmentation, strict=True):
            shift = [int(v) for v in self._rng.integers(-1, 2, 2)]
            flips = [axis for axis in (1, 2, 3) if self._rng.random() < 0.5]
            turn = self._rng.random() < 0.5
            both = [torch.roll(x, shift, (1, 2)).flip(flips) for x in pair]
            moved.append([x.transpose(1, 2) for x in both] if turn else both)
        one, other = zip(*moved, strict=True)
        return torch.stack(one), torch.stack(other)

    def _zoomed(self, cubes: Tensor, segmentation: Tensor) -> tuple[Tensor, Tensor]:
        """Enlarge some of the cubes (and shrink a few) about their middle, in all three directions."""
        chosen = np.flatnonzero(self._rng.random(len(cubes)) < _ZOOMED)
        if not len(chosen):
            return cubes, segmentation
        scale = torch.from_numpy(np.exp(-self._rng.uniform(*_ZOOMS, len(chosen))).astype(np.float32))
        turn = torch.zeros(len(chosen), 3, 4)
        turn[:, range(3), range(3)] = scale[:, None]
        out = []
        for volumes, mode in ((cubes, "bilinear"), (segmentation, "nearest")):
            part = volumes[torch.from_numpy(chosen)]
            grid = nn.functional.affine_grid(turn, list(part.shape), align_corners=False)
            new = volumes.clone()
            new[torch.from_numpy(chosen)] = nn.functional.grid_sample(part, grid, mode, align_corners=False)
            out.append(new)
        return out[0], out[1]

    def _disturbed(self, image: Tensor) -> Tensor:
        """Change contrast and noise of the images (N, 1, x, y, z) within what scanners do; outside the brain stays 0."""
        size = (len(image), 1, 1, 1, 1)
        gain = torch.from_numpy(self._rng.uniform(0.7, 1.4, size).astype(np.float32))
        share = self._rng.random(size) < 0.5
        deviation = torch.from_numpy((share * self._rng.uniform(0, 0.06, size)).astype(np.float32))
        noise = torch.from_numpy(self._rng.standard_normal(image.shape, np.float32))
        return image * gain + noise * deviation * (image != 0)


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

    def train(rank: int) -> Teacher:
        torch.manual_seed(seed)
        network = (Teacher() if start is None else copy.deepcopy(start)).to(device)
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

    return train_together(train, processes, Teacher() if start is None else copy.deepcopy(start))


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
    if teacher is None:
        return Student()
    student = Student(teacher.features.channels, teacher.features.widths)
    student.features.load_state_dict(teacher.features.state_dict())
    student.classifier.load_state_dict(teacher.classifier.state_dict())
    return student


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
