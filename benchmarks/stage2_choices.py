"""What the choices of stage 2 and of the simulation are worth, with the spread over seeds.

    python benchmarks/stage2_choices.py TRAINED SIMULATED [--implants FOLDER] [--scans NAME=FOLDER ...]
        [--steps 100] [--seeds 1 2 3 4] [--only NAME ...]

TRAINED is a folder of ``bids-cmb-train train``: its stage 1, teacher and training candidates are used. SIMULATED is one of
``bids-cmb-train simulate`` with a head that was not trained on. FOLDER of ``--implants`` is what ``benchmarks/implants.py
--show`` keeps: bleeds put into real images, which the simulator did not make. Every choice trains students of its own, none
of which is kept. All take as many steps, far fewer than the shipped student: differences between choices are what is to be
read, and a student that begins with the teacher's weights has the teacher's training behind it. Rows that begin with "..."
change one thing of the row "labels only, begun anew".

``--scans NAME=FOLDER`` adds rows that learn, from labels and anew, from the candidates of the simulated scans of that folder
alone: the choices of a simulation are compared by simulating with and without them.

Printed as each choice is done, for each contrast: the share of the visible bleeds found at one false candidate per scan,
before the clean-up and from one view of each candidate, as mean (least to greatest) over the seeds; then, at the same
cuts, the share of the implants found and the false candidates per image with implants. A bleed that stage 1 misses counts
as missed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bids_cmb.detector.networks import CandidateNet, Student, Teacher
from bids_cmb.detector.weights import load_model
from bids_cmb.training.calibrate import false_cut, shares_found
from bids_cmb.training.cubes import CubePool
from bids_cmb.training.loop import Pace
from bids_cmb.training.parallel import arrays_of_all
from bids_cmb.training.prepared import prepare_corpus
from bids_cmb.training.recipe import Recipe, collect_all, earlier_networks
from bids_cmb.training.scan_candidates import ScanCandidates
from bids_cmb.training.stage2 import STAGE2_RATE, train_student
from bids_cmb.types import CONTRASTS

FALSE_PER_SCAN = 1.0


@dataclass(frozen=True)
class Choice:
    """How a student is trained: by whom it is taught, what it begins with, what it does not see, from which pool."""

    name: str
    distilled: bool = False
    from_teacher: bool = False
    blind: tuple[int, ...] = ()
    untold: bool = False
    split: bool = False
    times_as_wide: int = 1
    pool: str = ""


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
    Choice("... twice as wide", times_as_wide=2),
)


class PartlyBlind(Student):
    """A student that sees nothing of some channels, or is told nothing of the candidate."""

    def __init__(self, teacher: Teacher, choice: Choice) -> None:
        a, b, c = (choice.times_as_wide * width for width in teacher.widths)
        super().__init__(teacher.channels, (a, b, c))
        self._seen = torch.tensor([float(c not in choice.blind) for c in range(2 * teacher.channels)])
        self._told = float(not choice.untold)

    def forward(self, cube: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
        """Map cubes (N, 6, x, y, z) and facts (N, 8) to logits (N,)."""
        return self.classify(cube * self._seen[:, None, None, None], facts * self._told)


@dataclass(frozen=True)
class Scene:
    """What all choices share: the teacher, candidates to learn from by name of their scans, and those to judge."""

    teacher: Teacher
    pools: dict[str, CubePool]
    held: list[ScanCandidates]

    def logits(self, choice: Choice, seed: int, steps: int) -> npt.NDArray[np.float32]:
        """Train a student (or three) by one choice; its logits for all held-out candidates in order."""
        pool = self.pools[choice.pool]
        torch.manual_seed(seed)
        start = PartlyBlind(self.teacher, choice)
        if choice.from_teacher:
            start.begin_with(self.teacher)
        groups = CONTRASTS if choice.split else (None,)
        students = {
            contrast: train_student(
                pool if contrast is None else of_contrast(pool, CONTRASTS.index(contrast)),
                self.teacher if choice.distilled else None,
                Pace(steps // len(groups), STAGE2_RATE),
                seed=seed,
                start=start,
            )
            for contrast in groups
        }
        with torch.inference_mode():  # without the main job's mirror images, which take four times as long
            judged = [
                students[s.scan.contrast if choice.split else None](s.cubes.float(), s.facts)
                for s in self.held
            ]
        return torch.cat(judged).numpy()


def of_contrast(pool: CubePool, number: int) -> CubePool:
    """Those candidates of a pool that come from one contrast (its column of the facts is 1)."""
    mine = pool.facts[:, 1 + number] > 0.5
    return CubePool(*(getattr(pool, field.name)[mine] for field in fields(pool)))


def above(judged: Sequence[tuple[ScanCandidates, npt.NDArray[np.float32]]], cut: float, label: int) -> int:
    """Candidates of a label above a cut."""
    return sum(int((x[(s.labels == label).numpy()] > cut).sum()) for s, x in judged)


def found_and_false(
    logits: npt.NDArray[np.float32], held: Sequence[ScanCandidates], first: int
) -> dict[str, tuple[float, int, int]]:
    """Per contrast, at `FALSE_PER_SCAN` on the `first` scans: sensitivity there; found and false on the others.

    The others are images with implants.
    """
    parts = np.split(logits, np.cumsum([len(s.labels) for s in held])[:-1])
    judged = list(zip(held, parts, strict=True))
    out = {}
    for contrast in CONTRASTS:
        chosen, rest = (
            [(s, x) for s, x in part if s.scan.contrast == contrast]
            for part in (judged[:first], judged[first:])
        )
        scores, labels = np.concatenate([x for _, x in chosen]), np.concatenate([s.labels for s, _ in chosen])
        cut = false_cut(scores, labels, len(chosen), FALSE_PER_SCAN)
        lesions = sum(len(s.scan.lesions) for s, _ in chosen)
        (share,) = shares_found(scores, labels, len(chosen), lesions, [FALSE_PER_SCAN])
        out[contrast] = share, above(rest, cut, 1), above(rest, cut, 0)
    return out


def row(
    name: str, results: Sequence[npt.NDArray[np.float32]], held: Sequence[ScanCandidates], first: int
) -> str:
    """One line of the table: a choice, over its seeds."""
    each = [found_and_false(logits, held, first) for logits in results]
    cells = [f"{contrast} {spread([e[contrast][0] for e in each])}" for contrast in CONTRASTS]
    implants = sum(len(s.scan.lesions) for s in held[first:])
    if implants:
        found = [sum(e[c][1] for c in CONTRASTS) / implants for e in each]
        false = [sum(e[c][2] for c in CONTRASTS) / (len(held) - first) for e in each]
        cells.append(f"implants {spread(found)}, false {spread(false)}")
    return f"{name:62}" + "  ".join(cells)


def spread(values: Sequence[float]) -> str:
    """Mean (least to greatest)."""
    return f"{np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def pool_of(folder: Path, recipe: Recipe, stage1: CandidateNet) -> CubePool:
    """Candidates to learn from of all simulated scans of a folder."""
    scans = prepare_corpus(folder, processes=recipe.processes)
    learning = replace(recipe, candidate_threshold=Recipe.candidate_threshold)
    return CubePool.of(collect_all(learning, stage1, scans, add_missed=True))


def main() -> None:
    """Train by every choice and seed, and print the table row by row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trained", type=Path)
    parser.add_argument("simulated", type=Path)
    parser.add_argument("--implants", type=Path, help="folder of `benchmarks/implants.py --show`")
    parser.add_argument(
        "--scans", nargs="+", default=[], metavar="NAME=FOLDER", help="simulations to compare"
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--only", nargs="+", default=[], help="choices whose name contains one of these")
    arguments = parser.parse_args()
    recipe = Recipe(
        name="choices",
        continued_from=str(arguments.trained),
        processes=arguments.processes,
        candidate_threshold=load_model(arguments.trained).candidate_threshold,
    )
    earlier = earlier_networks(recipe)
    assert earlier.stage1 is not None and earlier.teacher is not None  # noqa: S101 - a model has both
    stage1 = earlier.stage1.eval()
    scans = prepare_corpus(arguments.simulated, processes=arguments.processes)
    first = len(scans)
    if arguments.implants is not None:
        scans += prepare_corpus(arguments.implants, processes=arguments.processes)
    folders = dict(pair.split("=", 1) for pair in arguments.scans)
    pools = {"": CubePool.load(arguments.trained / "candidates.npz")} | {
        f"learnt from {name}": pool_of(Path(folder), recipe, stage1) for name, folder in folders.items()
    }
    held = collect_all(recipe, stage1, scans, add_missed=False)
    scene = Scene(earlier.teacher.eval(), pools, held)
    bleeds = {c: sum(len(s.scan.lesions) for s in held[:first] if s.scan.contrast == c) for c in CONTRASTS}
    print(
        f"{first} scans, {bleeds} visible bleeds; {len(held) - first} images with "
        f"{sum(len(s.scan.lesions) for s in held[first:])} implants; {arguments.steps} steps, seeds {arguments.seeds}",
        flush=True,
    )
    for choice in (*CHOICES, *(Choice(name, pool=name) for name in pools if name)):
        if arguments.only and not any(part in choice.name for part in arguments.only):
            continue

        def make(i: int, choice: Choice = choice) -> dict[str, np.ndarray]:
            return {"logits": scene.logits(choice, arguments.seeds[i], arguments.steps)}

        results = [r["logits"] for r in arrays_of_all(make, len(arguments.seeds), arguments.processes)]
        print(row(choice.name, results, held, first), flush=True)


if __name__ == "__main__":
    main()
