"""What the choices of stage 2 are worth: distillation, input channels, what is told of a candidate, one model or three.

    python benchmarks/stage2_choices.py TRAINED SIMULATED [--steps 500] [--seeds 1 2 3] [--processes 4] [--only NAME ...]

TRAINED is a folder of ``bids-cmb-train train`` (its stage 1, teacher and training candidates are used), SIMULATED one of
``bids-cmb-train simulate`` with a head that was not trained on. Every choice trains students of its own, none of which is
kept. All take as many steps, far fewer than the shipped student: differences between choices are what is to be read, and
a student that begins with the teacher's weights has the teacher's training behind it. Rows that begin with "..." change
one thing of the row "labels only, begun anew".

Printed, for each contrast: the share of the visible bleeds found at one false candidate per scan, before the clean-up, as
mean (least to greatest) over the seeds. A bleed that stage 1 misses counts as missed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bids_cmb.detector.discriminate import discriminate
from bids_cmb.detector.networks import Student, Teacher
from bids_cmb.training.cubes import CubePool
from bids_cmb.training.parallel import arrays_of_all
from bids_cmb.training.prepared import prepare_corpus
from bids_cmb.training.recipe import Recipe, collect_all, earlier_networks
from bids_cmb.training.scan_candidates import ScanCandidates
from bids_cmb.training.stage2 import train_student
from bids_cmb.types import CONTRASTS

FALSE_PER_SCAN = 1.0


@dataclass(frozen=True)
class Choice:
    """How a student is trained: by whom it is taught, what it begins with, what it does not see."""

    name: str
    distilled: bool = False
    from_teacher: bool = False
    blind: tuple[int, ...] = ()
    untold: bool = False
    split: bool = False


CHOICES = (
    Choice("distilled, begun with the teacher's weights", distilled=True, from_teacher=True),
    Choice("labels only, begun with the teacher's weights", from_teacher=True),
    Choice("distilled, begun anew", distilled=True),
    Choice("labels only, begun anew"),
    Choice("... without the symmetry channel", blind=(1, 4)),
    Choice("... without the map of stage 1", blind=(2, 5)),
    Choice("... without the wide view", blind=(3, 4, 5)),
    Choice("... without contrast, thickness and place", untold=True),
    Choice("... one network for each contrast, a third of the steps each", split=True),
)


def shown(cubes: torch.Tensor, facts: torch.Tensor, choice: Choice) -> tuple[torch.Tensor, torch.Tensor]:
    """What a student of this choice sees of candidates: cubes (N, 6, x, y, z) and facts (N, 8)."""
    if choice.blind:
        cubes = cubes.clone()
        cubes[:, choice.blind] = 0
    return cubes, torch.zeros_like(facts) if choice.untold else facts


def logits_of(
    choice: Choice, seed: int, steps: int, pool: CubePool, held: Sequence[ScanCandidates], teacher: Teacher
) -> npt.NDArray[np.float32]:
    """Train a student (or three) by one choice; its logits for all held-out candidates in order."""
    cubes, facts = shown(pool.cubes, pool.facts, choice)
    pool = replace(pool, cubes=cubes, facts=facts)
    torch.manual_seed(seed)
    start = Student(teacher.channels, teacher.widths)
    if choice.from_teacher:
        start.begin_with(teacher)
    groups = CONTRASTS if choice.split else (None,)
    students = {}
    for contrast in groups:
        part = pool if contrast is None else of_contrast(pool, CONTRASTS.index(contrast))
        students[contrast] = train_student(
            part, teacher if choice.distilled else None, steps=steps // len(groups), seed=seed, start=start
        )
    out = []
    for scan in held:
        student = students[scan.scan.contrast if choice.split else None]
        seen, told = shown(scan.cubes.float(), scan.facts, choice)
        out.append(discriminate(student, seen, told).numpy())
    return np.concatenate(out)


def of_contrast(pool: CubePool, number: int) -> CubePool:
    """Those candidates of a pool that come from one contrast (its column of the facts is 1)."""
    mine = pool.facts[:, 1 + number] > 0.5
    return CubePool(pool.cubes[mine], pool.segmentation[mine], pool.facts[mine], pool.labels[mine])


def sensitivity(logits: npt.NDArray[np.float32], held: Sequence[ScanCandidates], contrast: str) -> float:
    """Share of the visible bleeds of a contrast found at `FALSE_PER_SCAN`."""
    parts = np.split(logits, np.cumsum([len(s.labels) for s in held])[:-1])
    mine = [(s, x) for s, x in zip(held, parts, strict=True) if s.scan.contrast == contrast]
    false = np.sort(np.concatenate([x[(s.labels == 0).numpy()] for s, x in mine]))[::-1]
    allowed = int(FALSE_PER_SCAN * len(mine))
    least = false[allowed] if len(false) > allowed else -np.inf
    found = sum(int((x[(s.labels == 1).numpy()] > least).sum()) for s, x in mine)
    return found / max(1, sum(len(s.scan.lesions) for s, _ in mine))


def main() -> None:
    """Train by every choice and seed, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trained", type=Path)
    parser.add_argument("simulated", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--only", nargs="+", default=[], help="choices whose name contains one of these")
    arguments = parser.parse_args()
    chosen = [c for c in CHOICES if not arguments.only or any(part in c.name for part in arguments.only)]
    recipe = Recipe(name="choices", continued_from=str(arguments.trained), processes=arguments.processes)
    earlier = earlier_networks(recipe)
    if earlier.stage1 is None or earlier.teacher is None:
        parser.error(f"{arguments.trained} has no stage 1 or no teacher.")
    pool = CubePool.load(arguments.trained / "candidates.npz")
    scans = prepare_corpus(arguments.simulated, processes=arguments.processes)
    held = collect_all(recipe, earlier.stage1.eval(), scans, add_missed=False)
    teacher = earlier.teacher.eval()
    jobs = [(choice, seed) for choice in chosen for seed in arguments.seeds]

    def make(i: int) -> dict[str, np.ndarray]:
        choice, seed = jobs[i]
        return {"logits": logits_of(choice, seed, arguments.steps, pool, held, teacher)}

    results = arrays_of_all(make, len(jobs), arguments.processes)
    bleeds = {c: sum(len(s.scan.lesions) for s in held if s.scan.contrast == c) for c in CONTRASTS}
    print(f"{len(held)} scans, {bleeds} visible bleeds; {arguments.steps} steps, seeds {arguments.seeds}")
    for choice in chosen:
        row = []
        for contrast in CONTRASTS:
            values = [
                sensitivity(r["logits"], held, contrast)
                for r, (c, _) in zip(results, jobs, strict=True)
                if c is choice
            ]
            row.append(f"{contrast} {np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})")
        print(f"{choice.name:62}" + "  ".join(row))


if __name__ == "__main__":
    main()
