"""Fine-tuning and cross-validation on tiny made-up datasets, a few steps each."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from bids_cmb.detector.weights import load_model
from bids_cmb.errors import UsageError
from bids_cmb.training import finetune as module
from bids_cmb.training import recipe
from bids_cmb.training.cli import main
from bids_cmb.training.crossval import subject_folds
from bids_cmb.training.mixing import mix, split_subjects
from bids_cmb.training.prepared import prepared_scan
from bids_cmb.training.scan_candidates import collect_candidates
from bids_cmb.training.simulate.corpus import save_scan

from .tiny import tiny_scan
from .tiny_dataset import make_tiny_dataset

STEPS = ["--stage1-steps", "2", "--student-steps", "1", "--simulated-share", "0"]


def test_subjects_never_lie_on_both_sides() -> None:
    names = [f"{i:02}" for i in range(10)] * 2
    kept, held = split_subjects(names, 0.25, 1)
    assert len(held) == 2
    assert kept | held == set(names)
    assert not kept & held
    folds = subject_folds(names, 3, 1)
    assert sorted(len(f) for f in folds) == [3, 3, 4]
    assert set.union(*folds) == set(names)
    with pytest.raises(UsageError, match="two subjects"):
        split_subjects(["a", "a"], 0.5, 1)
    with pytest.raises(UsageError, match="folds"):
        subject_folds(["a", "b"], 5, 1)


@pytest.mark.parametrize(("real", "simulated", "share"), [(3, 30, 0.5), (10, 2, 0.25), (4, 100, 0.8)])
def test_the_stated_share_is_the_share(real: int, simulated: int, share: float) -> None:
    named = [f"r{i}" for i in range(real)], [f"s{i}" for i in range(simulated)]
    mixed = mix(named[0], named[1], share)  # type: ignore[arg-type]
    count = sum(str(x).startswith("s") for x in mixed)
    assert count / len(mixed) == pytest.approx(share, abs=0.07)
    assert set(mixed) == {*named[0], *named[1]}  # type: ignore[comparison-overlap]


def test_a_fine_tuned_model_is_a_folder_that_the_command_takes(
    tmp_path: Path,
    untrained: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask", "2": "dseg", "3": "points"})
    out = tmp_path / "model"
    with caplog.at_level(logging.WARNING):
        status = main(["finetune", str(images), "--annotations", str(marks), "--out", str(out), "--model", str(untrained), *STEPS])  # fmt: skip
    assert status == 0
    base, tuned = load_model(untrained), load_model(out)
    assert tuned.name == "finetuned"
    assert tuned.sha256 != base.sha256
    assert any(
        not torch.equal(a, b)
        for a, b in zip(base.candidate_net.parameters(), tuned.candidate_net.parameters(), strict=True)
    )
    # One held-out scan is too few to choose an operating point on: the base's is kept, and the user is told.
    assert tuned.thresholds == base.thresholds
    assert tuned.calibration == base.calibration
    assert "too few" in caplog.text
    assert "too few" in (out / "README.md").read_text(encoding="utf-8")
    card = json.loads((out / "finetuned.json").read_text(encoding="utf-8"))
    assert card["training"]["base"]["sha256"] == base.sha256
    assert "simulated scans only" not in card["description"]
    # What the base has seen, the fine-tuned model has seen.
    assert card["training"]["anatomy"] == ["a head"]
    assert card["training"]["validation_anatomy"] == ["another head"]
    # The same command goes on from its checkpoints; another one must not.
    command = [
        "finetune",
        str(images),
        "--annotations",
        str(marks),
        "--out",
        str(out),
        "--model",
        str(untrained),
    ]
    assert main([*command, *STEPS]) == 0
    assert load_model(out).sha256 == tuned.sha256
    assert main([*command, *STEPS, "--seed", "7"]) == 2
    assert "other scans or settings" in capsys.readouterr().err
    # What it has learnt from it does not cross-validate on.
    cv = ["crossval", str(images), "--annotations", str(marks), "--out", str(tmp_path / "cv")]
    assert main([*cv, "--model", str(out), "--folds", "3", *STEPS]) == 2
    assert "has learnt from raw/sub-1 and 2 more" in capsys.readouterr().err
    # Another fine-tuning may hold out what it has learnt from.
    caplog.clear()
    again = ["finetune", str(images), "--annotations", str(marks), "--out", str(tmp_path / "again"), "--model", str(out)]  # fmt: skip
    assert main([*again, *STEPS]) == 0
    assert "was made with raw/sub-" in caplog.text
    # Nor does it go on with lesions that were marked otherwise since.
    points = next(marks.glob("sub-3/anat/*.tsv"))
    points.write_text("\n".join(points.read_text().splitlines()[:-1]) + "\n")
    assert main([*command, *STEPS]) == 2
    assert "other scans or settings" in capsys.readouterr().err


def test_with_enough_held_out_scans_the_operating_point_is_chosen_anew(
    untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_SCANS", 1)
    monkeypatch.setattr(module, "LEAST_LESIONS", 3)
    base = load_model(untrained)
    scan = prepared_scan(tiny_scan(0), "x")
    held = [collect_candidates(base.candidate_net, scan, threshold=0.0, add_missed=True)]
    settings, notes = module.recalibrate(base, base.student, held)
    assert notes == []
    assert settings["validation"]["gre"]["lesions"] == 3
    assert settings["calibration"]["gre"] != {"scale": 1.0, "offset": 0.0}
    assert settings["thresholds"]["swi"] == base.thresholds["swi"]


def test_missing_simulated_scans_are_a_sentence(tmp_path: Path, untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask", "2": "mask"})
    assert main(["finetune", str(images), "--annotations", str(marks), "--out", str(tmp_path / "m"), "--model", str(untrained)]) == 2  # fmt: skip
    assert "--simulated" in capsys.readouterr().err


@pytest.mark.slow
def test_cross_validation_judges_every_scan_once(tmp_path: Path, untrained: Path) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask", "2": "dseg", "3": "points", "4": "mask"})
    out = tmp_path / "cv"
    command = ["crossval", str(images), "--annotations", str(marks), "--out", str(out), "--model", str(untrained), "--folds", "2", "--no-anatomy"]  # fmt: skip
    assert main([*command, *STEPS]) == 0
    scans = (out / "scans.tsv").read_text(encoding="utf-8").splitlines()
    assert len(scans) == 5
    assert (out / "fold-2" / "finetuned-fold-2.json").is_file()
    assert "Cross-validated" in (out / "evaluation.html").read_text(encoding="utf-8")


def test_train_mixes_annotated_scans_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask", "2": "dseg", "3": "mask"})
    # One that cannot be read costs no other.
    (images / "sub-3" / "anat" / "sub-3_T2starw.nii.gz").write_bytes(b"no image")
    folders = [tmp_path / "train", tmp_path / "validation"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        save_scan(tiny_scan(10 + number), folder / f"gre_ball_{number}.npz")
    seen: list[Any] = []
    whose: list[set[str]] = []

    def trained(*given: Any, subjects: set[str], **_: object) -> Path:
        seen.extend(given)
        whose.append(subjects)
        return tmp_path

    monkeypatch.setattr(recipe, "train_model", trained)
    command = ["train", *map(str, folders), "--bids", str(images), "--annotations", str(marks), "--out", str(tmp_path / "m"), "--processes", "1"]  # fmt: skip
    assert main(command) == 0
    given, training, validation, _ = seen
    assert given.real_scans == "raw"
    assert given.name == "m", "a model is named after its folder, not after the shipped one"
    assert whose == [{"raw/sub-1", "raw/sub-2"}]
    names = [sorted(scan.name for scan in scans) for scans in (training, validation)]
    assert {names[0][0], names[1][0]} == {"gre_ball_0", "gre_ball_1"}
    assert {names[0][1], names[1][1]} == {"sub-1_T2starw", "sub-2_T2starw"}
    with pytest.raises(SystemExit):
        main([*command, "--simulated-share", "much"])
    assert main([c for c in command if c not in ("--annotations", str(marks))]) == 2
