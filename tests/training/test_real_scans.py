"""Annotated real scans beside simulated ones: drawn in the share asked for, each taken once, none ends the others' work."""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bids_cmb.detector.weights import load_model
from bids_cmb.errors import InputError, UsageError
from bids_cmb.evaluation.cases import ScanPair
from bids_cmb.training import crossval
from bids_cmb.training import finetune as finetuning
from bids_cmb.training import recipe as recipes
from bids_cmb.training.annotations import find_annotation, read_references
from bids_cmb.training.cli import main
from bids_cmb.training.cubes import CubePool, CubeSampler
from bids_cmb.training.datasets import AnnotatedScan, annotated_scans
from bids_cmb.training.finetune import FinetuneRecipe, finetune
from bids_cmb.training.mixing import load_training_scans, mix
from bids_cmb.training.prepared import prepared_scan
from bids_cmb.training.recipe import Recipe, train_model
from bids_cmb.training.samples import TrainingScan
from bids_cmb.training.scan_candidates import ScanCandidates

from .test_evaluate_command import write_results
from .tiny import tiny_scan
from .tiny_dataset import make_tiny_dataset

STEPS = ["--stage1-steps", "2", "--student-steps", "1", "--simulated-share", "0"]


def scans_of(count: int) -> list[TrainingScan]:
    return [prepared_scan(tiny_scan(number), f"scan{number}") for number in range(count)]


def candidates(scan: TrainingScan, labels: list[int], heights: list[float]) -> ScanCandidates:
    cubes, n = torch.arange(len(labels)).reshape(-1, 1, 1, 1, 1).expand(-1, 6, 4, 4, 2), len(labels)
    rows = (cubes.half(), cubes[:, :1], torch.zeros(n, 8), torch.tensor(heights), torch.tensor(labels))
    return ScanCandidates(scan, *rows, missed=0)


# --- each scan once ---------------------------------------------------------------------------------------


def test_a_scan_listed_several_times_is_one_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untrained: Path
) -> None:
    assert untrained.is_file()  # the fixture's small patches are wanted
    one, other = scans_of(2)
    seen: list[str] = []
    collect = recipes.collect_candidates

    def counted(network: Any, scan: TrainingScan, **options: Any) -> ScanCandidates:
        if options["add_missed"]:
            seen.append(scan.name)
        return collect(network, scan, **options)

    monkeypatch.setattr(recipes, "collect_candidates", counted)
    recipe = Recipe("tiny", 1, 1, 1, 1, 0.0)
    manifest = train_model(recipe, [one, one, one, other], [other], tmp_path / "m", trained_on=[], command="none")  # fmt: skip
    assert seen == ["scan0", "scan1"]
    assert json.loads(manifest.read_text(encoding="utf-8"))["training"]["scans"] == 2
    pool = CubePool.load(tmp_path / "m" / "candidates.npz")
    assert sorted(pool.draws.unique().tolist()) == [1, 3]


def test_candidates_are_drawn_as_often_as_their_scan_is_listed() -> None:
    one, other = scans_of(2)
    sets = [candidates(scan, [1, 0, -1, 0], [0.5] * 4) for scan in (one, other)]
    pool = CubePool.of(sets, [5, 1])
    assert len(pool.labels) == 6
    assert pool.draws.tolist() == [5, 5, 5, 1, 1, 1]
    drawn = [group.tolist() for group in CubeSampler(pool, 1)._pools]
    assert drawn == [[1] * 5 + [2] * 5 + [4, 5], [0] * 5 + [3]]
    assert CubePool.of(sets).draws.tolist() == [1] * 6


@pytest.mark.parametrize(
    ("real", "simulated", "share"),
    [(20, 30, 0.5), (20, 448, 0.5), (10, 14, 0.5), (100, 113, 0.5), (7, 3, 0.9), (5, 500, 0.1), (3, 4, 0.25)],
)
def test_repeats_come_near_the_share(real: int, simulated: int, share: float) -> None:
    groups = [f"r{i}" for i in range(real)], [f"s{i}" for i in range(simulated)]
    mixed: list[Any] = mix(*groups, share)  # type: ignore[arg-type]
    assert sum(x.startswith("s") for x in mixed) / len(mixed) == pytest.approx(share, abs=0.011)
    assert set(mixed) == {*groups[0], *groups[1]}


# --- options without effect -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option", [["--model", "mine"], ["--no-anatomy"], ["--most", "2"], ["--processes", "2"]]
)
def test_options_of_a_detector_are_refused_where_none_runs(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask"})
    write_results(tmp_path / "out", "1", tiny_scan(0), found=2)
    command = ["evaluate", str(images), "--annotations", str(marks), "--results", str(tmp_path / "out")]
    assert main([*command, "--out", str(tmp_path / "e"), *option]) == 2
    assert option[0] in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


# --- fine-tuning ------------------------------------------------------------------------------------------


def test_fine_tuning_resumes_with_other_processes_that_share_all_work(
    tmp_path: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, (one, other, held) = load_model(untrained), scans_of(3)
    shares: list[int] = []
    shared_out = recipes.arrays_of_all

    def noted(make: Any, count: int, processes: int) -> Any:
        shares.append(processes)
        return shared_out(make, count, processes)

    monkeypatch.setattr(recipes, "arrays_of_all", noted)
    tiny = FinetuneRecipe("tiny", 1, 1, simulated_share=0)

    def run(recipe: FinetuneRecipe) -> dict[str, Any]:
        manifest = finetune(base, recipe, [one, other], [], [held], tmp_path / "m", dataset="d", command="c")
        return dict(json.loads(manifest.read_text(encoding="utf-8")))

    first = run(tiny)
    assert isinstance(first["training"]["seconds"], int)
    again = run(replace(tiny, processes=2))
    assert again["sha256"] == first["sha256"]
    # How long the legs before took is not known.
    assert again["training"]["seconds"] is None
    assert "None" not in (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert shares == [1, 1, 2, 2]
    with pytest.raises(UsageError, match="other scans or settings"):
        run(replace(tiny, seed=2))


def test_the_threshold_of_a_retrained_stage_1_is_chosen_on_held_out_scans(untrained: Path) -> None:
    base = replace(load_model(untrained), candidate_threshold=0.5)
    # Three lesions a scan, of which the lowest lies at 0.2, and one peak that is none.
    held = [candidates(scan, [1, 1, 1, 0], [0.9, 0.6, 0.2, 0.1]) for scan in scans_of(4)]
    threshold, notes = finetuning.choose_height(base, held, 0.06)
    assert 0.06 <= threshold < 0.2
    assert notes == []
    for few in (held[:3], [candidates(s.scan, [1, 0], [0.9, 0.1]) for s in held], []):
        threshold, notes = finetuning.choose_height(base, few, 0.06)
        assert threshold == 0.5
        assert "too few" in notes[0]


def test_the_chosen_threshold_is_that_of_the_model(
    tmp_path: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "LEAST_SCANS", 1)
    monkeypatch.setattr(finetuning, "LEAST_LESIONS", 0)
    monkeypatch.setattr(finetuning, "choose_candidate_threshold", lambda *_, **__: 0.123)
    one, held = scans_of(2)
    tiny = FinetuneRecipe("tiny", 1, 1, simulated_share=0)
    manifest = finetune(load_model(untrained), tiny, [one], [], [held], tmp_path, dataset="d", command="c")
    assert load_model(manifest).candidate_threshold == 0.123


# --- files that cannot be read ----------------------------------------------------------------------------


def break_scan(images: Path, label: str) -> None:
    path = images / f"sub-{label}" / "anat" / f"sub-{label}_T2starw.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])


def break_annotation(marks: Path, label: str) -> None:
    (path,) = (marks / f"sub-{label}" / "anat").iterdir()
    broken = path.read_bytes()
    path.write_bytes(b"x\ty\tz\n1\t2\t\xe9\n" if path.suffix == ".tsv" else broken[: len(broken) // 2])


def test_one_unreadable_scan_or_annotation_costs_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask", "2": "mask", "3": "points", "4": "dseg"})
    break_scan(images, "1")
    break_annotation(marks, "3")
    break_annotation(marks, "4")
    items, _ = annotated_scans(images, marks)
    loaded, notes = load_training_scans(items, 1)
    assert [item.scan.subject for item, _ in loaded] == ["2"]
    assert [scan.name for _, scan in loaded] == ["sub-2_T2starw"]
    for label, note in zip("134", notes, strict=True):
        assert f"sub-{label}_T2starw.nii.gz was left out: " in note
        assert note in caplog.text
    with pytest.raises(InputError, match="None of the 1 annotated scans"):
        load_training_scans(items[:1], 1)


def test_a_table_that_is_no_utf8_is_named_when_it_is_read(tmp_path: Path) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "points"})
    (item,), _ = annotated_scans(images, marks)
    item.annotation.write_bytes(b"x\ty\tz\tremark\n1\t2\t3\tf\xe9vrier\n")
    assert find_annotation(item.scan, marks, {}) == item.annotation
    with pytest.raises(InputError, match="cannot be read"):
        read_references(item.annotation, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("folds", [False, True], ids=["finetune", "crossval"])
def test_training_goes_on_without_an_unreadable_scan(
    folds: bool, tmp_path: Path, untrained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, marks = make_tiny_dataset(tmp_path, dict.fromkeys("1234", "mask"))
    break_scan(images, "3")
    out = tmp_path / "m"
    command = ["crossval", "--folds", "3", "--no-anatomy"] if folds else ["finetune"]
    options = [str(images), "--annotations", str(marks), "--out", str(out), "--model", str(untrained)]
    with caplog.at_level(logging.WARNING):
        assert main([*command, *options, *STEPS]) == 0
    assert "sub-3_T2starw.nii.gz was left out" in caplog.text
    if folds:
        with (out / "scans.tsv").open(encoding="utf-8") as table:
            assert len(list(csv.reader(table))) == 4
        assert "sub-3_T2starw.nii.gz was left out" in (out / "evaluation.html").read_text(encoding="utf-8")
    else:
        training = json.loads((out / "finetuned.json").read_text(encoding="utf-8"))["training"]
        assert training["scans"] + training["held_out_scans"] == 3


def test_a_scan_that_cannot_be_judged_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, untrained: Path
) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask", "2": "mask", "3": "mask"})
    loaded, _ = load_training_scans(annotated_scans(images, marks)[0], 1)
    bad = {"2"}

    def detected_pair(item: AnnotatedScan, *_: Any, **__: Any) -> ScanPair:
        if item.scan.subject in bad:
            raise InputError("It cannot be judged.")
        return ScanPair(item.scan.subject, item.name, (), ())

    monkeypatch.setattr(crossval, "finetune", lambda *_, **__: tmp_path)
    monkeypatch.setattr(crossval, "load_model", lambda _: None)
    monkeypatch.setattr(crossval, "detected_pair", detected_pair)

    def run() -> tuple[list[ScanPair], list[str]]:
        options: dict[str, Any] = {"folds": 3, "dataset": "raw", "command": "none"}
        return crossval.cross_validate(
            loaded, load_model(untrained), FinetuneRecipe("x"), [], tmp_path, **options
        )

    pairs, notes = run()
    assert [pair.subject for pair in pairs] == ["1", "3"]
    assert notes == ["sub-2_T2starw.nii.gz was left out: It cannot be judged."]
    assert notes[0] in caplog.messages
    bad |= {"1", "3"}
    with pytest.raises(InputError, match="None of the 3"):
        run()


def test_evaluate_goes_on_says_what_was_left_out_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask", "2": "mask", "3": "dseg"})
    results, out = tmp_path / "out", tmp_path / "e"
    for number, label in enumerate("123"):
        write_results(results, label, tiny_scan(number), found=2)
    break_annotation(marks, "2")
    labels = results / "sub-3" / "anat" / "sub-3_space-T2starw_seg-candidates_dseg.nii.gz"
    labels.write_bytes(b"no image at all")
    command = ["evaluate", str(images), "--annotations", str(marks), "--results", str(results)]
    assert main([*command, "--out", str(out)]) == 1
    assert "gre (1 scans)" in capsys.readouterr().out
    page = (out / "evaluation.html").read_text(encoding="utf-8")
    for label in "23":
        assert f"sub-{label}_T2starw.nii.gz was left out" in page
    break_annotation(marks, "1")
    assert main([*command, "--out", str(tmp_path / "none")]) == 1
    assert "None of the 3 annotated scans" in capsys.readouterr().err
