from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import head_image

from bids_cmb.bids.tables import CANDIDATE_COLUMNS, LESION_COLUMNS, read_table
from bids_cmb.types import MARS_REGIONS

Make = Callable[..., Path]
Run = Callable[..., int]
GROUP_COLUMNS = [
    "participant_id",
    "session_id",
    "source",
    "contrast",
    "status",
    "n_cmb",
    "n_definite",
    "n_possible",
    "n_lobar",
    "n_deep",
    "n_infratentorial",
    "total_volume",
    "field_strength",
    "echo_time",
    "voxel_size",
    "brain_volume",
    "snr",
    "model",
    "warnings",
]


@pytest.fixture
def results(dataset: Make, run_here: Run, tmp_path: Path) -> Path:
    raw = dataset(
        {
            "sub-02/anat/sub-02_T2starw.nii.gz": {"EchoTime": 0.02, "MagneticFieldStrength": 3},
            "sub-01/ses-b/anat/sub-01_ses-b_swi.nii.gz": head_image(spots=()),
            "sub-01/ses-a/anat/sub-01_ses-a_swi.nii.gz": None,
            "sub-03/anat/sub-03_acq-crash_T2starw.nii.gz": {"EchoTime": 0.03},
        }
    )
    out = tmp_path / "out"
    assert run_here(raw, out) == 1
    shutil.rmtree(raw)
    raw.mkdir()
    return out


def group(run_here: Run, out: Path, *options: str) -> int:
    return run_here(out.parent / "raw", out, *options, level="group")


def test_tables_have_the_columns_of_the_contract(results: Path, run_here: Run) -> None:
    assert group(run_here, results) == 0
    cmb = read_table(results / "group_cmb.tsv")
    assert list(cmb[0]) == GROUP_COLUMNS
    assert [(row["participant_id"], row["session_id"], row["status"], row["n_cmb"]) for row in cmb] == [
        ("sub-01", "ses-a", "done", "2"),
        ("sub-01", "ses-b", "done", "0"),
        ("sub-02", "n/a", "done", "2"),
        ("sub-03", "n/a", "failed", "n/a"),
    ]
    done, failed = cmb[2], cmb[3]
    assert (done["n_definite"], done["n_possible"], done["n_lobar"], done["n_deep"]) == ("1", "1", "2", "0")
    assert (done["field_strength"], done["echo_time"], done["snr"]) == ("3.0", "0.02", "21.5")
    assert (done["model"], done["warnings"]) == ("fake 1", "Simulated warning.")
    assert done["source"] == "bids:raw:sub-02/anat/sub-02_T2starw.nii.gz"
    assert "library bug" in failed["warnings"]
    assert failed["echo_time"] == "0.03"

    lesions = read_table(results / "group_lesions.tsv")
    assert list(lesions[0]) == ["participant_id", "session_id", "source", "scan_contrast", *LESION_COLUMNS]
    assert [row["participant_id"] for row in lesions] == ["sub-01", "sub-01", "sub-02", "sub-02"]
    assert sum(float(row["volume"]) for row in lesions[2:]) == pytest.approx(float(done["total_volume"]))

    mars = read_table(results / "group_mars.tsv")
    forms = [
        f"{code}_{side}_{grade}"
        for code, _, _ in MARS_REGIONS
        for side in "LR"
        for grade in ("definite", "possible")
    ]
    assert list(mars[0]) == ["participant_id", "session_id", "source", "contrast", *forms]
    assert sum(int(mars[0][name]) for name in forms) == 2
    assert int(mars[0]["F_L_definite"]) == 1
    assert {mars[1][name] for name in forms} == {"0"}
    assert {mars[3][name] for name in forms} == {"n/a"}
    assert (results / "group_cmb.html").exists()


def test_columns_are_described_with_units(results: Path, run_here: Run) -> None:
    assert group(run_here, results) == 0
    for name in ("group_cmb", "group_lesions", "group_mars"):
        notes = json.loads((results / f"{name}.json").read_text())
        header = (results / f"{name}.tsv").read_text().splitlines()[0].split("\t")
        assert set(header) <= set(notes)
        assert all(notes[column]["Description"] for column in header)
    assert json.loads((results / "group_cmb.json").read_text())["total_volume"]["Units"] == "mm^3"


def test_tables_are_rebuilt_and_say_the_same_each_time(results: Path, run_here: Run) -> None:
    assert group(run_here, results) == 0
    first = {path.name: path.read_bytes() for path in results.glob("group_*")}
    (results / "group_cmb.tsv").write_text("edited")
    assert group(run_here, results) == 0
    assert {path.name: path.read_bytes() for path in results.glob("group_*")} == first


def test_another_echo_takes_the_place_of_the_earlier_one(
    dataset: Make, run_here: Run, tmp_path: Path
) -> None:
    raw = dataset({f"sub-1/anat/sub-1_echo-{n}_MEGRE.nii.gz": None for n in (1, 2, 3)})
    out = tmp_path / "out"
    assert run_here(raw, out) == 0

    def echoes() -> list[str]:
        assert group(run_here, out) == 0
        return re.findall(r"echo-\d", (out / "group_cmb.tsv").read_text(encoding="utf-8"))

    assert echoes() == ["echo-2"]
    for n, seconds in ((1, 0.005), (2, 0.05), (3, 0.02)):
        (raw / f"sub-1/anat/sub-1_echo-{n}_MEGRE.json").write_text(
            f'{{"EchoTime": {seconds}, "MagneticFieldStrength": 3}}'
        )
    assert run_here(raw, out) == 0
    assert echoes() == ["echo-3"]
    for n in (1, 2, 3):
        (raw / f"sub-1/anat/sub-1_echo-{n}_MEGRE.json").unlink()
    assert run_here(raw, out) == 0
    assert echoes() == ["echo-2"]


def test_damaged_partial_and_foreign_files_cost_a_sentence_each(
    results: Path, run_here: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    one = results / "sub-01/ses-a/anat/sub-01_ses-a_space-swi_seg-CMB_dseg.json"
    one.write_text("{half")
    two = results / "sub-01/ses-b/anat/sub-01_ses-b_space-swi_seg-CMB_dseg.json"
    two.unlink()
    (results / "sub-02/anat/sub-02_space-T2starw_seg-CMB_dseg.tsv").write_bytes(b"\xff\xfe")
    (results / "sub-foreign/anat").mkdir(parents=True)
    (results / "sub-foreign/anat/sub-foreign_desc-x_T1w.nii.gz").touch()
    (results / "sub-file").touch()
    (results / "logs/scans/junk.json").write_text("[]")
    capsys.readouterr()
    assert group(run_here, results) == 0
    said = capsys.readouterr()
    assert said.err.count("WARNING: ") == 4
    assert "not valid JSON" in said.err
    assert "incomplete" in said.err
    assert "not UTF-8" in said.err
    rows = read_table(results / "group_cmb.tsv")
    assert [row["status"] for row in rows] == ["failed"] * 4
    assert all(row["source"].startswith("bids:raw:sub-") for row in rows)
    assert "4 failed" in said.out


@pytest.mark.parametrize("logs", [True, False])
def test_a_table_that_was_cut_off_is_no_scan_without_microbleeds(
    results: Path, run_here: Run, *, logs: bool
) -> None:
    table = results / "sub-02/anat/sub-02_space-T2starw_seg-CMB_dseg.tsv"
    header = table.read_bytes().split(b"\n")[0]
    table.write_bytes(header + b"\n" if logs else header[:30])
    if not logs:
        shutil.rmtree(results / "logs")
    assert group(run_here, results) == 0
    rows = {row["participant_id"]: row for row in read_table(results / "group_cmb.tsv")}
    assert (rows["sub-02"]["status"], rows["sub-02"]["n_cmb"]) == ("failed", "n/a")
    assert ("changed since" if logs else "lacks the columns") in rows["sub-02"]["warnings"]


def test_labels_without_results_are_a_mistake(
    results: Path, run_here: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert group(run_here, results, "--participant-label", "02", "77") == 2
    assert "sub-77 is not in" in capsys.readouterr().err
    assert not (results / "group_cmb.tsv").exists()
    assert group(run_here, results, "--participant-label", "02", "--session-label", "a") == 0
    assert "labels are ignored" in capsys.readouterr().err
    assert len(read_table(results / "group_cmb.tsv")) == 4


def test_complete_results_need_no_logs(results: Path, run_here: Run) -> None:
    shutil.rmtree(results / "logs")
    assert group(run_here, results) == 0
    assert [row["status"] for row in read_table(results / "group_cmb.tsv")] == ["done"] * 3


def test_nothing_to_do(tmp_path: Path, run_here: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    assert run_here(tmp_path / "no raw", tmp_path / "out", level="group") == 1
    assert "nothing to do" in capsys.readouterr().out
    assert not list((tmp_path / "out").iterdir())


def test_reviews_are_counted_beside_the_automatic_results(
    results: Path, run_here: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    lesions = read_table(results / "sub-02/anat/sub-02_space-T2starw_seg-CMB_dseg.tsv")
    identity = "sub-02\tn/a\tbids:raw:sub-02/anat/sub-02_T2starw.nii.gz"
    place = "\t".join(lesions[0][axis] for axis in "xyz")
    (results / "review").mkdir()
    (results / "review/sub-02_review.tsv").write_text(
        "participant_id\tsession_id\tsource\tindex\tverdict\tx\ty\tz\tnotes\n"
        f"{identity}\t1\tcmb\t{place}\tn/a\n"
        f"{identity}\t2\tnot_cmb\t99\t99\t99\tof an earlier result\n"
        f"{identity}\tn/a\tcmb\t1\t2\t3\tmissed\n"
        f"{identity}\tn/a\tn/a\tn/a\tn/a\tn/a\tscan read\n"
        "sub-99\tn/a\tbids:raw:x\t1\tcmb\t1\t2\t3\tn/a\n"
    )
    (results / "review/other.tsv").write_text("a\tb\n1\t2\n")
    capsys.readouterr()
    assert group(run_here, results) == 0
    said = capsys.readouterr().err
    assert "no review table" in said
    assert "sub-99" in said
    (row,) = read_table(results / "group_review.tsv")
    assert row == {
        "participant_id": "sub-02",
        "session_id": "n/a",
        "source": "bids:raw:sub-02/anat/sub-02_T2starw.nii.gz",
        "review": "sub-02_review.tsv",
        "n_cmb": "2",
        "n_reviewed": "1",
        "n_confirmed": "1",
        "n_rejected": "0",
        "n_unsure": "0",
        "n_added": "1",
        "n_cmb_reviewed": "2",
        "scan_read": "yes",
        "n_outdated": "1",
    }
    shutil.rmtree(results / "review")
    assert group(run_here, results) == 0
    assert not (results / "group_review.tsv").exists()


def test_a_page_that_fails_leaves_the_tables(
    results: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    def fail(_: Path) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr(sys.modules["bids_cmb.report.group"], "write_group_page", fail)
    assert group(run_here, results) == 1
    assert "no ink" in capsys.readouterr().out
    assert (results / "group_cmb.tsv").exists()


def test_text_that_a_spreadsheet_would_run_is_made_harmless(results: Path, run_here: Run) -> None:
    path = results / "sub-02/anat/sub-02_space-T2starw_seg-CMB_dseg.json"
    content = json.loads(path.read_text())
    content["Warnings"] = ['=HYPERLINK("http://x")']
    path.write_text(json.dumps(content))
    assert group(run_here, results) == 0
    assert "'=HYPERLINK" in (results / "group_cmb.tsv").read_text()


@pytest.mark.slow
def test_ten_thousand_subjects_in_a_minute(tmp_path: Path) -> None:
    from bids_cmb.bids.results import read_outcomes
    from bids_cmb.group import write_group_tables

    sidecar = {
        "Contrast": "swi",
        "Sources": [""],
        "Model": {"Name": "m", "Version": "1"},
        "VoxelSize": [1, 1, 2],
    }
    notes = {name: {"Description": "x" * 200} for name in CANDIDATE_COLUMNS}
    table = (
        "\t".join(LESION_COLUMNS)
        + "\n"
        + "\t".join(["1", "CMB", "0.9", "definite", "F", "lobar", "L"] + ["1.0"] * 11)
        + "\n"
    )
    for number in range(10_000):
        stem = tmp_path / f"sub-{number:05d}/anat/sub-{number:05d}_space-swi_seg-CMB_dseg"
        stem.parent.mkdir(parents=True)
        source = f"bids:raw:sub-{number:05d}/anat/sub-{number:05d}_swi.nii.gz"
        stem.with_suffix(".json").write_text(json.dumps({**sidecar, "Sources": [source], **notes}))
        stem.with_suffix(".tsv").write_text(table)
    start = time.perf_counter()
    assert write_group_tables(tmp_path, list(read_outcomes(tmp_path))) == []
    assert time.perf_counter() - start < 60
    assert len((tmp_path / "group_cmb.tsv").read_text().splitlines()) == 10_001
