"""The evaluation as tab-separated tables: figures, scans, lesions and predictions."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from bids_cmb.evaluation.detection import one_to_one_counts
from bids_cmb.evaluation.evaluate import Part

_MISSING = "n/a"
FIGURE_COLUMNS = ("scans", "group", "figure", "value", "low", "high", "n", "unit", "interval")
FROC_COLUMNS = ("scans", "threshold", "sensitivity", "false_per_scan")
RELIABILITY_COLUMNS = ("scans", "from", "to", "candidates", "mean_probability", "share_right", "low", "high")
SCAN_COLUMNS = ("subject", "scan", "contrast", "slice_thickness", "field_strength", "references", "found", "false", "candidates")  # fmt: skip
LESION_COLUMNS = (
    "subject",
    "scan",
    "contrast",
    "kind",
    "x",
    "y",
    "z",
    "diameter",
    "probability",
    "category",
    "cause",
)


def write_tables(parts: Sequence[Part], folder: Path) -> list[Path]:
    """Write ``figures.tsv``, ``froc.tsv``, ``reliability.tsv``, ``scans.tsv`` and ``lesions.tsv``.

    Parameters
    ----------
    parts
        From `bids_cmb.evaluation.evaluate.evaluate`.
    folder
        Made if need be.

    Returns
    -------
    list of Path
        The files. ``lesions.tsv`` has each found, missed and ignored lesion and each false detection.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Every scan is in the last part of its contrast; a first part of all scans would repeat it.
    single = parts[1:] if len(parts) > 1 else parts
    tables = {
        "figures.tsv": (FIGURE_COLUMNS, _figures(parts)),
        "froc.tsv": (FROC_COLUMNS, _froc(parts)),
        "reliability.tsv": (RELIABILITY_COLUMNS, _reliability(parts)),
        "scans.tsv": (SCAN_COLUMNS, _scans(single)),
        "lesions.tsv": (LESION_COLUMNS, _lesions(single)),
    }
    paths = []
    for name, (columns, rows) in tables.items():
        path = folder / name
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)
        paths.append(path)
    return paths


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else _MISSING


def _figures(parts: Sequence[Part]) -> Iterable[tuple[object, ...]]:
    for part in parts:
        for f in part.figures:
            values = (_number(v, 4) for v in (f.value, f.low, f.high))
            yield (part.name, f.group, f.name, *values, f.n, f.unit, f.interval)


def _froc(parts: Sequence[Part]) -> Iterable[tuple[object, ...]]:
    for part in parts:
        curve = part.froc
        for point in zip(curve.thresholds, curve.sensitivity, curve.false_per_scan, strict=True):
            yield (part.name, *(_number(float(v), 4) for v in point))


def _reliability(parts: Sequence[Part]) -> Iterable[tuple[object, ...]]:
    for part in parts:
        for b in part.reliability.bins:
            shares = (_number(v, 4) for v in (b.mean, b.share, b.share_low, b.share_high))
            yield (part.name, f"{b.low:g}", f"{b.high:g}", b.count, *shares)


def _scans(parts: Sequence[Part]) -> Iterable[tuple[object, ...]]:
    for part in parts:
        for match in part.matches:
            pair, counts = match.pair, one_to_one_counts(match)
            known = [
                pair.attributes.get(k, _MISSING) for k in ("contrast", "slice_thickness", "field_strength")
            ]
            false = counts.predictions - counts.true
            yield (
                pair.subject,
                pair.scan,
                *known,
                counts.references,
                counts.found,
                false,
                len(pair.predictions),
            )


def _lesions(parts: Sequence[Part]) -> Iterable[tuple[object, ...]]:
    for part in parts:
        for match in part.matches:
            pair = match.pair
            found = {m.reference: m.prediction for m in match.matches}
            start = (pair.subject, pair.scan, pair.attributes.get("contrast", _MISSING))
            for index, lesion in enumerate(pair.references):
                kind = "found" if index in found else "missed" if index in match.counted else "ignored"
                score = pair.predictions[found[index]].score if index in found else math.nan
                place = [_number(v, 2) for v in (*lesion.position, lesion.diameter)]
                yield (*start, kind, *place, _number(score, 4), lesion.attributes.get("mars_category", _MISSING), _MISSING)  # fmt: skip
            for index in match.false:
                prediction = pair.predictions[index]
                place = [_number(v, 2) for v in prediction.position]
                size = _number((6 * prediction.volume / math.pi) ** (1 / 3), 2)
                attributes = [prediction.attributes.get(k, _MISSING) for k in ("mars_category", "cause")]
                yield (*start, "false", *place, size, _number(prediction.score, 4), *attributes)
