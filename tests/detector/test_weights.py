"""Weights: what is refused, and with which sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bids_cmb.detector.weights import find_manifest, load_model
from bids_cmb.errors import ModelError
from bids_cmb.shipped import models_folder


def test_a_saved_model_loads_from_its_folder_and_its_manifest(manifest: Path) -> None:
    assert load_model(manifest).sha256 == load_model(manifest.parent).sha256


def test_one_operating_point_stands_in_for_those_of_all_contrasts(manifest: Path) -> None:
    model = load_model(manifest)
    other = model.at(0.123)
    assert set(other.thresholds) == set(model.thresholds)
    assert set(other.thresholds.values()) == {0.123}
    assert other.definite == model.definite


def test_a_prevalence_is_read_as_a_number_or_not_at_all(manifest: Path) -> None:
    assert load_model(manifest).calibration["gre"].prevalence is None
    card = json.loads(manifest.read_text())
    card["calibration"]["gre"]["prevalence"] = "0.25"
    manifest.write_text(json.dumps(card))
    assert load_model(manifest).calibration["gre"].prevalence == 0.25


def test_damaged_weights_are_refused(manifest: Path) -> None:
    weights = manifest.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="damaged"):
        load_model(manifest)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 1}, "not a detector manifest of format 2; use a model made for this version"),
        ({"sha256": "0" * 64}, "damaged"),
        ({"weights": "missing.safetensors"}, "cannot be read"),
        ({"student": {"channels": 3, "widths": [4, 4, 4]}}, "does not describe its weights"),
        ({"thresholds": {}}, "does not describe its weights"),
        (
            {"calibration": {"gre": {"scale": 1.0, "offset": 0.0, "prevalence": "x"}}},
            "does not describe its weights",
        ),
    ],
)
def test_a_wrong_manifest_is_refused(manifest: Path, change: dict, sentence: str) -> None:
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    with pytest.raises(ModelError, match=sentence):
        load_model(manifest)


def test_broken_json_and_unknown_names_are_refused(manifest: Path) -> None:
    manifest.write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(manifest)
    with pytest.raises(ModelError, match="There is no model 'nobody'"):
        load_model("nobody")


def test_a_manifest_cannot_point_out_of_its_folder(manifest: Path) -> None:
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "weights": "/etc/passwd"}))
    with pytest.raises(ModelError, match="passwd"):
        load_model(manifest)


def test_the_shipped_model_loads_and_names_its_data() -> None:
    model = load_model()
    assert set(model.thresholds) == {"gre", "swi", "qsm"}
    assert all(0 < t < 1 for t in model.thresholds.values())
    assert "simulated" in model.card["description"]
    assert (models_folder() / f"{model.name}.json").is_file()


def test_the_default_weights_are_the_shipped_ones_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bids-cmb-1").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_manifest() == models_folder() / "bids-cmb-1.json"
