"""Operating points through the whole main job: brain mask, three stages, registration and clean-up on validation scans.

The networks alone cannot tell a mineral of the pallidum from a bleed; the clean-up can, by its place. Thresholds that were
chosen before it would allow for false detections that never reach a table.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import bids_cmb
from bids_cmb.detector.weights import find_manifest
from bids_cmb.errors import UsageError
from bids_cmb.files import is_inside, write_json
from bids_cmb.training.calibrate import choose_definite, choose_threshold
from bids_cmb.training.held_out import HeldOutResult, judge_scans
from bids_cmb.types import CONTRASTS, Contrast

#: With so low a threshold every candidate that no rule forbids is kept, with its final probability.
_OPEN = 1e-3


def manifest_to_change(model: str | os.PathLike[str]) -> Path:
    """Return the manifest of a model that is the user's own to write into.

    Parameters
    ----------
    model
        Path of a model folder or of a manifest (.json).

    Raises
    ------
    UsageError
        If it is the name of a shipped model, or a path into the installed package.
    ModelError
        If a folder has no manifest, or several.
    """
    if not Path(model).exists():
        raise UsageError(
            f"There is no model folder or manifest {model}; thresholds are written into a manifest, so give its path, not a name."
        )
    manifest = find_manifest(model)
    if is_inside(manifest, Path(bids_cmb.__file__).parent):
        raise UsageError(
            f"{manifest} belongs to the installed package, which stays as it is; copy the model to a folder of your own and name that."
        )
    return manifest


def operating_points(
    paths: Sequence[Path], model: str | None, *, false_per_scan: float, processes: int = 1
) -> dict[Contrast, dict[str, float]]:
    """Choose thresholds on validation scans.

    Parameters
    ----------
    paths
        Simulated scans of heads that the model was not trained on.
    model
        Name or path, as for `load_model`.
    false_per_scan
        Allowed false detections per scan, after the clean-up.
    processes
        Scans at once.

    Returns
    -------
    dict
        By contrast: ``threshold``, and ``scans``, ``visible``, ``found`` and ``false`` at it.
    """
    results = [r for _, r in judge_scans(paths, model, processes=processes, threshold=_OPEN)]
    return {
        contrast: _choose([r for r in results if r.contrast == contrast], false_per_scan)
        for contrast in CONTRASTS
        if any(r.contrast == contrast for r in results)
    }


def _choose(results: Sequence[HeldOutResult], false_per_scan: float) -> dict[str, float]:
    from bids_cmb.evaluation.matching import match_scan

    scores, hits = [], []
    for result in results:
        match = match_scan(result.pair)
        kept = np.setdiff1d(np.arange(len(result.pair.predictions)), match.ignored)
        scores += [result.pair.predictions[i].score for i in kept]
        hits += [int(match.ranked_hit[i]) for i in kept]
    threshold = choose_threshold(scores, hits, len(results), false_per_scan=false_per_scan)
    above = [hit for score, hit in zip(scores, hits, strict=True) if score >= threshold]
    return {
        "threshold": threshold,
        "scans": len(results),
        "visible": sum(r.visible for r in results),
        "found": sum(above),
        "false": len(above) - sum(above),
    }


def write_operating_points(
    manifest: Path,
    points: Mapping[Contrast, Mapping[str, float]],
    *,
    heads: Collection[str],
    command: str,
) -> None:
    """Put chosen thresholds into a model's manifest, with the figures that they rest on; *definite* goes with them.

    Parameters
    ----------
    manifest
        Of the model.
    points
        From `operating_points`.
    heads
        Anatomies of the scans, which no longer test the model fairly: `evaluate` says so.
    command
        What was run.
    """
    card: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    for contrast, point in points.items():
        card["thresholds"][contrast] = point["threshold"]
        card["definite"][contrast] = choose_definite(point["threshold"])
    card["operating_points"] = {"command": command, **{c: dict(p) for c, p in points.items()}}
    training = card.setdefault("training", {})
    training["validation_anatomy"] = sorted({*training.get("validation_anatomy", []), *heads})
    write_json(manifest, card)
