"""The whole detector on simulated scans that no network saw, through the same rooms as the main job."""

from __future__ import annotations

import logging
import math
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from bids_cmb.detector.cleanup import clean_up
from bids_cmb.detector.pipeline import detect
from bids_cmb.detector.weights import Model, load_model
from bids_cmb.errors import InputError
from bids_cmb.evaluation.bootstrap import Resamples, ratio
from bids_cmb.evaluation.cases import Grid, Reference, ScanPair
from bids_cmb.evaluation.components import components, predictions_of
from bids_cmb.evaluation.matching import match_scan
from bids_cmb.imaging.prepare import prepare
from bids_cmb.training.simulate.corpus import load_scan
from bids_cmb.training.simulate.lesions import CATEGORIES
from bids_cmb.training.simulate.scan import SimulatedScan
from bids_cmb.training.simulate.surround import cause_at
from bids_cmb.types import CONTRASTS, Anatomy, Contrast, Detection, Prepared, Volume

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOutResult:
    """One scan: what was there and what was found, with the names of the mimics that fooled the detector."""

    contrast: Contrast
    pair: ScanPair
    found: int
    visible: int
    small_found: int
    small_visible: int
    false: int
    false_names: tuple[str, ...]
    stage1_found: int
    candidates: int


def judge_scan(path: Path, model: Model, *, with_anatomy: bool = True) -> HeldOutResult:
    """Run one simulated scan through prepare, detect, locate and clean-up, and match it.

    Parameters
    ----------
    path
        From `bids_cmb.training.simulate.corpus.save_scan`.
    model
        The detector.
    with_anatomy
        Register to MNI for the zones of the clean-up (a few seconds per scan).
    """
    scan = load_scan(path)
    contrast = scan.protocol.contrast
    try:
        ready: Prepared = prepare(Volume(scan.image, scan.affine), contrast)
    except InputError as error:  # the main job refuses the scan: all its bleeds are missed
        _log.warning("%s: %s", path.name, error)
        return compared(path.stem, scan, Detection((), np.zeros(scan.image.shape, np.int32)))
    detection = detect(ready.image, ready.brain_mask, contrast, model, device="cpu")
    zones: Anatomy | None = None
    if with_anatomy:
        from bids_cmb.anatomy.locate import locate

        zones = locate(ready.image, ready.brain_mask, contrast)
    detection = clean_up(detection, ready.brain_mask, zones.zones if zones else {}, contrast, model)
    return compared(path.stem, scan, detection)


def judge_scans(
    paths: Sequence[Path],
    model: str | None,
    *,
    with_anatomy: bool = True,
    processes: int = 1,
    threshold: float | None = None,
) -> Iterator[tuple[Path, HeldOutResult]]:
    """Judge scans one after the other, or several at once with one thread each, in the given order.

    Parameters
    ----------
    paths
        Simulated scans.
    model
        Name or path of the detector, as for `load_model`.
    with_anatomy
        As for `judge_scan`.
    processes
        Scans at once.
    threshold
        Operating point; None for the model's own.
    """
    judge = partial(_judge_with, model=model, threshold=threshold, with_anatomy=with_anatomy)
    if processes == 1:
        yield from zip(paths, map(judge, paths), strict=True)
        return
    with multiprocessing.get_context("spawn").Pool(processes, _one_thread) as pool:
        yield from zip(paths, pool.imap(judge, paths), strict=True)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _judge_with(
    path: Path, *, model: str | None, threshold: float | None, with_anatomy: bool
) -> HeldOutResult:
    return judge_scan(path, _model(model, threshold), with_anatomy=with_anatomy)


@lru_cache(maxsize=1)
def _model(name: str | None, threshold: float | None) -> Model:
    model = load_model(name)
    return model if threshold is None else model.at(threshold)


def compared(name: str, scan: SimulatedScan, detection: Detection) -> HeldOutResult:
    """Match what was found on a scan, of that name, with its truth."""
    x, y, z = scan.image.shape
    grid = Grid((x, y, z), scan.affine)
    drawn = {c.label: c.voxels for c in components(scan.lesion_labels, grid)}
    references = tuple(
        Reference(
            x.position,
            math.pi / 6 * max(x.diameter, 1.0) ** 3,
            drawn.get(x.index),
            visible=x.visible,
            attributes={"mars_category": CATEGORIES.get(x.deposit.place, "")},
        )
        for x in scan.lesions
    )
    predictions = predictions_of(
        detection,
        grid,
        lambda c: {"cause": cause_at(np.array(c.position), scan.mimics, scan.surround, scan.affine)},
    )
    protocol = scan.protocol
    attributes = {
        "contrast": protocol.contrast,
        "slice_thickness": f"{protocol.voxel[2]:.2f}",
        "field_strength": f"{protocol.field_strength:g}",
    }
    # The contrasts of one seed and head are scans of one subject: intervals resample subjects.
    pair = ScanPair(f"{scan.head}_{scan.seed}", name, references, predictions, grid, attributes=attributes)
    match = match_scan(pair)
    found = {m.reference for m in match.matches}
    small = {i for i in match.counted if scan.lesions[i].diameter < 3.0}
    names = tuple(predictions[i].attributes["cause"] for i in match.false)
    return HeldOutResult(
        scan.protocol.contrast,
        pair,
        len(found),
        len(match.counted),
        len(found & small),
        len(small),
        len(match.false),
        names,
        int(match.ranked_hit.sum()),
        len(predictions),
    )


def summarise(results: Sequence[HeldOutResult]) -> Iterator[str]:
    """Lines of a table: per contrast, counts, sensitivity and false detections per scan with 95 % intervals over subjects."""
    yield f"{'contrast':9}{'scans':>6}{'visible':>8}{'found':>7}{'sensitivity (95 % CI)':>24}{'<3 mm':>9}{'FP/scan (95 % CI)':>21}{'FP in clean':>12}{'stage 1':>9}{'cand.':>7}"
    for contrast in CONTRASTS:
        mine = [r for r in results if r.contrast == contrast]
        if not mine:
            continue
        found, visible, false = (
            np.array([getattr(r, k) for r in mine], np.float64) for k in ("found", "visible", "false")
        )
        resamples = Resamples.of([r.pair.subject for r in mine])
        sensitivity = ratio(contrast, "sensitivity", found, visible, resamples, unit="lesions")
        scans = np.ones(len(mine))
        rate = ratio(contrast, "false", false, scans, resamples, unit="scans", proportion=False)
        clean = [r.false for r in mine if not r.pair.references]
        small = f"{sum(r.small_found for r in mine)}/{sum(r.small_visible for r in mine)}"
        yield (
            f"{contrast:9}{len(mine):6}{visible.sum():8.0f}{found.sum():7.0f}"
            f"{sensitivity.value:10.3f} ({sensitivity.low:.3f}-{sensitivity.high:.3f})"
            f"{small:>9}{rate.value:9.2f} ({rate.low:.2f}-{rate.high:.2f}){np.mean(clean) if clean else np.nan:9.2f} ({len(clean)})"
            f"{sum(r.stage1_found for r in mine) / max(1, visible.sum()):8.3f}{np.mean([r.candidates for r in mine]):7.1f}"
        )
    names = Counter(name for r in results for name in r.false_names)
    if names:
        yield "false detections by cause: " + ", ".join(
            f"{name} {count}" for name, count in names.most_common()
        )
