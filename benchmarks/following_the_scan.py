"""What it is worth that probabilities follow the share of microbleeds among a scan's other candidates, and how far.

    python benchmarks/following_the_scan.py VALIDATION SPARSE [--model NAME_OR_PATH] [--processes 4]

Both are folders of ``bids-cmb-train simulate`` with a head that was not trained on; SPARSE with few microbleeds in each
subject (``--microbleeds 1 3``). Printed for several extents, from 0 (not at all) to 1 (as if the share were known), and each
contrast: share of the visible bleeds of VALIDATION found at 0.25, 0.5, 1, 2 and 4 false candidates per scan and the Brier
score there; then, at the cut that gives 0.75 false per scan there, what is found and false on SPARSE. All before the
clean-up; the calibration is fitted on VALIDATION, so that it flatters there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bids_cmb.detector.probability import Calibration, probabilities
from bids_cmb.detector.weights import load_model
from bids_cmb.training.calibrate import false_cut, fit_contrast, shares_found
from bids_cmb.training.prepared import prepare_corpus
from bids_cmb.training.recipe import Recipe, collect_all, judge_all
from bids_cmb.types import CONTRASTS

EXTENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0)
CUT = 0.75
#: Logits and labels of a scan's candidates, and its visible bleeds.
Judged = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], int]


def above(scans: list[Judged], p: list[npt.NDArray[np.float64]], cut: float, label: int) -> int:
    """Candidates of a label above a cut."""
    return sum(int((x[y == label] > cut).sum()) for x, (_, y, _) in zip(p, scans, strict=True))


def line(validation: list[Judged], sparse: list[Judged], calibration: Calibration, extent: float) -> str:
    """Figures of one contrast at one extent."""
    p, q = ([probabilities(z, calibration, followed=extent) for z, _, _ in x] for x in (validation, sparse))
    bleeds, few = (max(1, sum(n for _, _, n in x)) for x in (validation, sparse))
    labels, scores = np.concatenate([y for _, y, _ in validation]), np.concatenate(p)
    found = shares_found(scores, labels, len(validation), bleeds, LEVELS)
    cut = false_cut(scores, labels, len(validation), CUT)
    brier = float(np.mean((scores - labels)[labels >= 0] ** 2))
    return (
        f"{' '.join(f'{x:.3f}' for x in found)}  Brier {brier:.4f}  sparse: {above(sparse, q, cut, 1)} of {few} found, "
        f"{above(sparse, q, cut, 0) / max(1, len(sparse)):.2f} false per scan"
    )


def main() -> None:
    """Judge both sets of scans and print a line for each extent and contrast."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("validation", type=Path)
    parser.add_argument("sparse", type=Path)
    parser.add_argument("--model", default=None)
    parser.add_argument("--processes", type=int, default=4)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    recipe = Recipe(
        name="following", processes=arguments.processes, candidate_threshold=model.candidate_threshold
    )
    sets: list[dict[str, list[Judged]]] = []
    for folder in (arguments.validation, arguments.sparse):
        scans = prepare_corpus(folder, processes=arguments.processes)
        held = collect_all(recipe, model.candidate_net, scans, add_missed=False)
        sets.append({c: [] for c in CONTRASTS})
        for scan, logits in zip(held, judge_all(recipe, model.student, held), strict=True):
            sets[-1][scan.scan.contrast].append(
                (logits.double().numpy(), scan.labels.numpy(), len(scan.scan.lesions))
            )
    for contrast in CONTRASTS:
        validation, sparse = (x[contrast] for x in sets)
        calibration = fit_contrast([z for z, _, _ in validation], [y for _, y, _ in validation]).calibration
        for extent in EXTENTS:
            print(f"{contrast} {extent:4.2f}  {line(validation, sparse, calibration, extent)}", flush=True)


if __name__ == "__main__":
    main()
