"""Which of several models finds more on simulated scans at equal numbers of false candidates; and how far seeds differ.

    python benchmarks/compare_models.py SIMULATED MODEL [MODEL ...] [--students] [--without-heat] [--processes 4]

SIMULATED is a folder of ``bids-cmb-train simulate``: validation scans to choose a model by. Printed for each model and
contrast: the share of the visible bleeds found at 0.25, 0.5, 1, 2 and 4 false candidates per scan, with probabilities that
follow the scan, before the clean-up (a bleed that stage 1 misses counts as missed), what stage 1 found, and candidates
per scan; last, the mean of the shares. With ``--students``, MODEL is a folder of ``bids-cmb-train train --students N``, and
each student gets a row of its own: they began alike and saw other batches; stage 1 and calibration are the model's.
With ``--without-heat`` each judges a second time without the map of stage 1, which shows what stage 2 knows by itself; a
row ``stage 1`` orders the candidates by their peaks in that map alone.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bids_cmb.detector.networks import Student
from bids_cmb.detector.probability import probabilities
from bids_cmb.detector.weights import Model, load_model
from bids_cmb.training.calibrate import shares_found
from bids_cmb.training.prepared import prepare_corpus
from bids_cmb.training.recipe import Recipe, collect_all, judge_all
from bids_cmb.training.scan_candidates import ScanCandidates
from bids_cmb.types import CONTRASTS

FALSE_PER_SCAN = (0.25, 0.5, 1.0, 2.0, 4.0)
#: Channels of the map of stage 1 in the near and the wide view, see `bids_cmb.detector.discriminate.stage2_cubes`.
HEATS = (2, 5)


def students_of(folder: Path, model: Model) -> Iterator[tuple[str, Student]]:
    """Students of a training by name."""
    for path in sorted(folder.glob("student*.ckpt")):
        student = copy.deepcopy(model.student)
        student.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["average"])
        yield path.stem, student.eval()


def judged(
    recipe: Recipe, model: Model, student: Student, held: Sequence[ScanCandidates]
) -> list[np.ndarray]:
    """Probabilities of the candidates of every scan."""
    return [
        probabilities(logits.double().numpy(), model.calibration[scan.scan.contrast])
        for scan, logits in zip(held, judge_all(recipe, student, held), strict=True)
    ]


def without_heat(scan: ScanCandidates) -> ScanCandidates:
    """Candidates with an empty map of stage 1 in both views."""
    cubes = scan.cubes.clone()
    cubes[:, HEATS] = 0
    return replace(scan, cubes=cubes)


def row(held: Sequence[ScanCandidates], scores: Sequence[np.ndarray]) -> str:
    """Figures of scores of the candidates that are there."""
    cells, shares = [], []
    for contrast in CONTRASTS:
        mine = [(s, x) for s, x in zip(held, scores, strict=True) if s.scan.contrast == contrast]
        if not mine:
            continue
        joined = np.concatenate([x for _, x in mine])
        labels = np.concatenate([s.labels.numpy() for s, _ in mine])
        bleeds = sum(len(s.scan.lesions) for s, _ in mine)
        found = shares_found(joined, labels, len(mine), bleeds, FALSE_PER_SCAN)
        shares += found
        offered = bleeds - sum(s.missed for s, _ in mine)
        many = np.mean([len(s.labels) for s, _ in mine])
        cells.append(
            f"{contrast} {' '.join(f'{x:.3f}' for x in found)} (stage 1 {offered}/{bleeds}, {many:.0f} cand.)"
        )
    return "   ".join([*cells, f"mean {np.mean(shares):.3f}"])


def main() -> None:
    """Judge all candidates by every model, and print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("simulated", type=Path)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--students", action="store_true")
    parser.add_argument("--without-heat", action="store_true")
    parser.add_argument("--processes", type=int, default=4)
    arguments = parser.parse_args()
    scans = prepare_corpus(arguments.simulated, processes=arguments.processes)
    levels = ", ".join(f"{x:g}" for x in FALSE_PER_SCAN)
    print(f"{len(scans)} scans; sensitivity at {levels} false per scan", flush=True)
    for name in arguments.models:
        model = load_model(name)
        recipe = Recipe(
            "compared", processes=arguments.processes, candidate_threshold=model.candidate_threshold
        )
        held = collect_all(recipe, model.candidate_net, scans, add_missed=False)
        if arguments.without_heat:
            heights = [s.heights.double().numpy() for s in held]
            print(f"{name}: stage 1  {row(held, heights)}", flush=True)
        students = students_of(Path(name), model) if arguments.students else ()
        for label, student in (*students, ("the model", model.student)):
            print(f"{name}: {label}  {row(held, judged(recipe, model, student, held))}", flush=True)
            if arguments.without_heat:
                blind = judged(recipe, model, student, [without_heat(s) for s in held])
                print(f"{name}: {label}, without heat  {row(held, blind)}", flush=True)


if __name__ == "__main__":
    main()
