"""How far the students of several seeds differ, and what their averaged weights give.

    python benchmarks/seeds.py TRAINED SIMULATED [--processes 4]

TRAINED is a folder of ``bids-cmb-train train --students N``: its students began alike and saw other batches. SIMULATED is
a folder of ``bids-cmb-train simulate``. Stage 1 is the same for all. Printed for each student and for the model, whose
student has their averaged weights: the share of the visible bleeds found at 0.5, 1 and 2 false candidates per scan, with
probabilities that follow the scan, before the clean-up; a bleed that stage 1 misses counts as missed. The calibration is
the model's own for all.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bids_cmb.detector.networks import Student
from bids_cmb.detector.probability import probabilities
from bids_cmb.detector.weights import Model, load_model
from bids_cmb.training.calibrate import false_cut
from bids_cmb.training.prepared import prepare_corpus
from bids_cmb.training.recipe import Recipe, collect_all, judge_all
from bids_cmb.training.scan_candidates import ScanCandidates
from bids_cmb.types import CONTRASTS

FALSE_PER_SCAN = (0.5, 1.0, 2.0)


def students_of(folder: Path, model: Model) -> dict[str, Student]:
    """Students of a training by name, and the model's own."""
    out = {}
    for path in sorted(folder.glob("student*.ckpt")):
        student = copy.deepcopy(model.student)
        student.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["average"])
        out[path.stem] = student.eval()
    return out | {"averaged weights": model.student}


def sensitivities(scores: Sequence[npt.NDArray[np.float64]], scans: Sequence[ScanCandidates]) -> list[float]:
    """Share of the visible bleeds of some scans found at each of `FALSE_PER_SCAN`."""
    p = np.concatenate(scores)
    labels = np.concatenate([s.labels.numpy() for s in scans])
    lesions = max(1, sum(len(s.scan.lesions) for s in scans))
    cuts = [false_cut(p, labels, len(scans), level) for level in FALSE_PER_SCAN]
    return [float((p[labels == 1] > cut).sum() / lesions) for cut in cuts]


def main() -> None:
    """Judge all candidates by every student, and print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trained", type=Path)
    parser.add_argument("simulated", type=Path)
    parser.add_argument("--processes", type=int, default=4)
    arguments = parser.parse_args()
    model = load_model(arguments.trained)
    recipe = Recipe(
        name="seeds", processes=arguments.processes, candidate_threshold=model.candidate_threshold
    )
    scans = prepare_corpus(arguments.simulated, processes=arguments.processes)
    held = collect_all(recipe, model.candidate_net, scans, add_missed=False)
    print(
        f"{len(held)} scans; sensitivity at {', '.join(map(str, FALSE_PER_SCAN))} false per scan", flush=True
    )
    for name, student in students_of(arguments.trained, model).items():
        judged = list(zip(held, judge_all(recipe, student, held), strict=True))
        cells = []
        for contrast in CONTRASTS:
            mine = [(s, x.double().numpy()) for s, x in judged if s.scan.contrast == contrast]
            scores = [probabilities(x, model.calibration[contrast]) for _, x in mine]
            found = sensitivities(scores, [s for s, _ in mine])
            cells.append(f"{contrast} " + " ".join(f"{x:.3f}" for x in found))
        print(f"{name:20}" + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()
