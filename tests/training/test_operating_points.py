"""Operating points through the whole job: chosen from final probabilities, written with their figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bids_cmb
from bids_cmb.detector.weights import load_model
from bids_cmb.errors import UsageError
from bids_cmb.evaluation.cases import Prediction, Reference, ScanPair
from bids_cmb.training import operating_points as module
from bids_cmb.training.calibrate import FALSE_PER_SCAN
from bids_cmb.training.cli import build_parser, main
from bids_cmb.training.held_out import HeldOutResult
from bids_cmb.training.operating_points import (
    _choose,
    manifest_to_change,
    write_operating_points,
)
from bids_cmb.training.simulate.corpus import save_scan

from .tiny import tiny_scan


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
    write_operating_points(
        manifest, {"gre": {"threshold": 0.9, "found": 1.0}}, heads={"b"}, command="the command"
    )
    written = json.loads(manifest.read_text())
    assert written["thresholds"] == {"gre": 0.9, "swi": 0.4}
    assert written["definite"] == {"gre": 0.9, "swi": 0.8}
    assert written["operating_points"]["command"] == "the command"
    assert written["name"] == "m"
    assert written["training"]["validation_anatomy"] == ["b"]
    write_operating_points(manifest, {}, heads={"a"}, command="another")
    assert json.loads(manifest.read_text())["training"]["validation_anatomy"] == ["a", "b"]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder with a scan of the head ball1."""
    folder = tmp_path / "scans"
    folder.mkdir()
    save_scan(tiny_scan(1, 1), folder / "gre_ball1_1.npz")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was allowed, call by call, with a threshold chosen at once instead of through the whole job."""
    allowed: list[float] = []

    def choose(paths: list[Path], model: str, *, false_per_scan: float, processes: int) -> object:
        assert len(paths) == processes == 1
        load_model(model)
        allowed.append(false_per_scan)
        return {"gre": {"threshold": 0.6, "scans": 1, "visible": 1, "found": 1, "false": 0}}

    monkeypatch.setattr(module, "operating_points", choose)
    return allowed


def test_the_heads_that_thresholds_were_set_on_are_kept_and_named_later(
    scans: Path, asked: list[float], untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["operating-points", str(scans), "--model", str(untrained.parent)]) == 0
    assert asked == [FALSE_PER_SCAN]
    model = load_model(untrained)
    assert model.thresholds["gre"] == 0.6
    assert model.card["training"]["validation_anatomy"] == ["another head", "ball1"]
    assert main(["evaluate", str(scans), "--model", str(untrained), "--no-anatomy"]) == 0
    assert "thresholds were chosen on the head ball1" in capsys.readouterr().out


def test_scans_of_heads_that_the_model_was_trained_on_are_refused(
    scans: Path, asked: list[float], untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = json.loads(untrained.read_text())
    untrained.write_text(json.dumps({**card, "training": {"anatomy": ["ball1", "ball2"]}}))
    before = untrained.read_bytes()
    assert main(["operating-points", str(scans), "--model", str(untrained)]) == 2
    assert "trained on the head ball1 of these scans; give scans of other heads" in capsys.readouterr().err
    assert untrained.read_bytes() == before
    assert asked == []


def test_the_shipped_model_is_not_found_by_its_name(
    scans: Path, asked: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["operating-points", str(scans), "--model", "bids-cmb-1"]) == 2
    assert "no model folder or manifest bids-cmb-1" in capsys.readouterr().err
    assert asked == []


def test_a_model_inside_the_package_stays_as_it_is(
    tmp_path: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "bids_cmb"
    package.mkdir(parents=True)
    untrained.parent.rename(package / "models")
    (tmp_path / "link").symlink_to(package / "models")
    monkeypatch.setattr(bids_cmb, "__file__", str(package / "__init__.py"))
    for path in (package / "models", package / "models" / untrained.name, tmp_path / "link"):
        with pytest.raises(UsageError, match="belongs to the installed package"):
            manifest_to_change(path)


def test_the_folder_beside_the_package_of_a_checkout_may_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    assert manifest_to_change("models") == Path("models/bids-cmb-1.json")


def test_the_help_tells_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["operating-points", "--help"])
    assert f"(default: {FALSE_PER_SCAN:g})" in " ".join(capsys.readouterr().out.split())
