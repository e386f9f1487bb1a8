"""Operating points through the whole job: chosen from final probabilities, written with their figures."""

from __future__ import annotations

import json
from pathlib import Path

from bids_cmb.evaluation.cases import Prediction, Reference, ScanPair
from bids_cmb.training.held_out import HeldOutResult
from bids_cmb.training.operating_points import _choose, write_operating_points


def _result(number: int, false_scores: tuple[float, ...], found_score: float) -> HeldOutResult:
    reference = Reference.ball((0.0, 0.0, 0.0), 1.5)
    predictions = [Prediction((0.0, 0.0, 0.5), found_score, accepted=True)]
    predictions += [
        Prediction((40.0 + 9 * i, 0.0, 0.0), score, accepted=True) for i, score in enumerate(false_scores)
    ]
    pair = ScanPair(f"s{number}", f"scan{number}", (reference,), tuple(predictions))
    return HeldOutResult("gre", pair, 1, 1, 1, 1, len(false_scores), (), 1, len(predictions))


def test_the_threshold_lets_through_as_many_false_ones_as_are_allowed() -> None:
    results = [_result(i, (0.5, 0.3, 0.2), 0.4 if i else 0.25) for i in range(4)]
    one = _choose(results, 1.0)
    assert 0.3 < one["threshold"] < 0.4
    assert (one["found"], one["false"], one["visible"], one["scans"]) == (3, 4, 4, 4)
    two = _choose(results, 2.0)
    assert 0.2 < two["threshold"] < 0.25
    assert (two["found"], two["false"]) == (4, 8)


def test_the_manifest_keeps_everything_else(tmp_path: Path) -> None:
    manifest = tmp_path / "m.json"
    card = {"name": "m", "thresholds": {"gre": 0.5, "swi": 0.4}, "definite": {"gre": 0.8, "swi": 0.8}}
    manifest.write_text(json.dumps(card))
    write_operating_points(manifest, {"gre": {"threshold": 0.9, "found": 1.0}}, command="the command")
    written = json.loads(manifest.read_text())
    assert written["thresholds"] == {"gre": 0.9, "swi": 0.4}
    assert written["definite"] == {"gre": 0.9, "swi": 0.8}
    assert written["operating_points"]["command"] == "the command"
    assert written["name"] == "m"
