"""``bids-cmb-train evaluate`` on simulated scans."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_cmb.bids.records import ScanRecord, write_record
from bids_cmb.training.cli import main
from bids_cmb.training.simulate.corpus import save_scan
from bids_cmb.training.simulate.scan import SimulatedScan

from .tiny import tiny_scan
from .tiny_dataset import make_tiny_dataset


def test_evaluate_prints_the_table_and_writes_tables_and_page(
    tmp_path: Path, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed, bleeds in ((1, 3), (2, 0)):
        save_scan(tiny_scan(seed, bleeds), folder / f"gre_ball{seed}_{seed}.npz")
    options = [str(folder), "--model", str(untrained.parent), "--no-anatomy"]
    assert main(["test", *options, "--out", str(tmp_path / "out")]) == 0
    assert "gre           2       3" in capsys.readouterr().out
    figures = (tmp_path / "out" / "figures.tsv").read_text(encoding="utf-8")
    assert "VALDO" in figures
    assert "simulated" in (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("anatomy", "trained on the head ball1"),
        ("validation_anatomy", "thresholds were chosen on the head ball1"),
    ],
)
def test_a_head_that_the_model_has_seen_is_named(
    key: str, sentence: str, tmp_path: Path, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    save_scan(tiny_scan(1, 1), folder / "gre_ball1_1.npz")
    card = json.loads(untrained.read_text(encoding="utf-8"))
    untrained.write_text(json.dumps({**card, "training": {key: ["ball1"]}}), encoding="utf-8")
    command = ["test", str(folder), "--model", str(untrained), "--no-anatomy", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert sentence in capsys.readouterr().out
    assert sentence in (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")


def test_an_empty_folder_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "bids-cmb-train simulate" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", [["--annotation-filter", "desc=rater1"], ["-d", "marks"], ["--results", "out"]]
)
def test_options_of_a_bids_dataset_are_not_passed_over_on_simulated_scans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert main(["evaluate", str(tmp_path), *option]) == 2
    assert "go with --annotations" in capsys.readouterr().err


def test_results_of_the_command_are_compared_with_annotations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask", "2": "points", "3": "dseg"})
    results = tmp_path / "out"
    for number, label in enumerate(("1", "2")):
        write_results(results, label, tiny_scan(number), found=2)
    command = ["evaluate", str(images), "--annotations", str(marks), "--results", str(results)]
    assert main([*command, "--out", str(tmp_path / "e")]) == 0
    assert "gre (2 scans): sensitivity 0.67" in capsys.readouterr().out
    page = (tmp_path / "e" / "evaluation.html").read_text(encoding="utf-8")
    assert "1 annotated scans have no results" in page
    figures = (tmp_path / "e" / "figures.tsv").read_text(encoding="utf-8")
    # The masks are the lesions themselves: where both sides have an outline, they agree.
    assert "Dice of matched pairs, median\t1.0000" in figures
    assert "not stated (2 scans)" in page
    assert main(command) == 2


def test_results_of_an_earlier_run_do_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask", "2": "mask", "3": "mask"})
    results = tmp_path / "out"
    for number, label in enumerate(("1", "2", "3")):
        write_results(results, label, tiny_scan(number), found=2)
    (results / "sub-2/anat/sub-2_space-T2starw_seg-CMB_dseg.json").unlink()  # never finished
    record = ScanRecord(
        "sub-3_T2starw", "sub-3", None, "bids:raw:x", "gre", "failed", "", "It broke.", "", "", 1, {}
    )
    write_record(results, record)
    command = ["evaluate", str(images), "--annotations", str(marks), "--results", str(results)]
    assert main([*command, "--out", str(tmp_path / "e")]) == 0
    assert "gre (1 scans)" in capsys.readouterr().out
    assert "2 annotated scans have no results" in (tmp_path / "e/evaluation.html").read_text(encoding="utf-8")


def test_the_page_names_the_models_that_made_the_results(tmp_path: Path) -> None:
    images, marks = make_tiny_dataset(tmp_path, {"1": "mask", "2": "mask", "3": "mask"})
    results = tmp_path / "out"
    for number, (label, name) in enumerate((("1", "mine"), ("2", "mine"), ("3", "other"))):
        write_results(results, label, tiny_scan(number), found=2)
        sidecar = results / f"sub-{label}" / "anat" / f"sub-{label}_space-T2starw_seg-candidates_dseg.json"
        model = {"Name": name, "Version": "1.2", "SHA256": "0123456789abcdef"}
        sidecar.write_text(json.dumps({"Model": model}), encoding="utf-8")
    command = ["evaluate", str(images), "--annotations", str(marks), "--results", str(results), "--out", str(tmp_path / "e")]  # fmt: skip
    assert main(command) == 0
    page = (tmp_path / "e" / "evaluation.html").read_text(encoding="utf-8")
    assert "mine 1.2, SHA-256 0123456789ab (2 scans); other 1.2, SHA-256 0123456789ab (1 scans)" in page
    assert "of several models" in page


def write_results(results: Path, label: str, scan: SimulatedScan, *, found: int) -> None:
    """What ``bids-cmb`` writes of candidates, as far as an evaluation reads it: `found` lesions and a false one."""
    folder = results / f"sub-{label}" / "anat"
    folder.mkdir(parents=True)
    stem = folder / f"sub-{label}_space-T2starw_seg-candidates_dseg"
    labels = np.where(scan.lesion_labels <= found, scan.lesion_labels, 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, scan.affine), f"{stem}.nii.gz")
    rows = ["index\tx\ty\tz\tprobability\tvolume\tfate\tmars_category"]
    rows += [
        "\t".join([str(x.index), *(f"{v:.2f}" for v in x.position), "0.9", "100", "accepted", "lobar"])
        for x in scan.lesions[:found]
    ]
    rows.append("9\t0\t0\t25\t0.2\t10\tstage2\tdeep")
    Path(f"{stem}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / f"sub-{label}_space-T2starw_seg-CMB_dseg.json").write_text("{}", encoding="utf-8")


def test_a_scan_without_a_brain_counts_as_missed_and_the_others_go_on(
    tmp_path: Path, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    scan = tiny_scan(1, 2)
    save_scan(replace(scan, image=np.zeros_like(scan.image)), folder / "gre_ball1_1.npz")
    save_scan(tiny_scan(2, 1), folder / "gre_ball2_2.npz")
    command = ["test", str(folder), "--model", str(untrained), "--no-anatomy", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "gre           2       3" in capsys.readouterr().out
    assert (tmp_path / "out" / "evaluation.html").is_file()
