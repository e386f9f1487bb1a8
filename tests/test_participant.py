from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_run
import pytest
from conftest import head_image

import bids_cmb
from bids_cmb.bids.records import record_path
from bids_cmb.bids.superseded import forget_failures
from bids_cmb.cli import main, parse
from bids_cmb.participant import run_participant

FAKE_COMMAND = str(Path(__file__).parent / "fake_command.py")
Make = Callable[..., Path]
Run = Callable[..., int]
TWO = {
    "sub-01/anat/sub-01_T2starw.nii.gz": {"EchoTime": 0.02},
    "sub-02/ses-a/anat/sub-02_ses-a_swi.nii.gz": None,
}


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those in logs/, which hold times."""
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: content for name, content in named.items() if not name.startswith("logs/")}


def run_for_real(raw: Path, out: Path, *options: str) -> int:
    """The run with worker processes, in which stand-ins do the work."""
    return run_participant(parse([str(raw), str(out), "participant", *options]), work=fake_run.work)


def test_a_run_writes_exactly_these_files(dataset: Make, run_here: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_here(dataset(TWO), out) == 0
    files = {
        f"{stem}_{name}"
        for stem in ("sub-01/anat/sub-01_space-T2starw", "sub-02/ses-a/anat/sub-02_ses-a_space-swi")
        for name in (
            "desc-brain_mask.nii.gz",
            "desc-brain_mask.json",
            "label-CMB_probseg.nii.gz",
            "label-CMB_probseg.json",
            "label-CMB_mask.nii.gz",
            "label-CMB_mask.json",
            "seg-CMB_dseg.nii.gz",
            "seg-CMB_dseg.json",
            "seg-CMB_dseg.tsv",
            "seg-candidates_dseg.nii.gz",
            "seg-candidates_dseg.json",
            "seg-candidates_dseg.tsv",
            "seg-MARS_dseg.nii.gz",
            "seg-MARS_dseg.json",
        )
    }
    root = {
        "dataset_description.json",
        "README.md",
        ".bidsignore",
        "descriptions.tsv",
        "seg-MARS_dseg.tsv",
        "sub-01.html",
        "sub-02.html",
    }
    assert set(contents(out)) == files | root
    logs = sorted(path.relative_to(out / "logs").as_posix() for path in (out / "logs").rglob("*.*"))
    assert [name.partition("/")[2] for name in logs[:5]] == [
        "config.json",
        "run.log",
        "sub-01_T2starw.log",
        "sub-01_report.log",
        "sub-02_report.log",
    ]
    assert logs[6:] == ["scans/sub-01_T2starw.json", "scans/sub-02_ses-a_swi.json"]


def test_same_bytes_twice_and_for_any_number_of_processes(dataset: Make, tmp_path: Path) -> None:
    raw = dataset(TWO)
    assert run_for_real(raw, tmp_path / "one") == 0
    assert run_for_real(raw, tmp_path / "two", "--nprocs", "2", "--mem-gb", "64") == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_run_resumes_and_redoes_what_is_not_current(
    dataset: Make,
    run_here: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw, out = dataset(TWO), tmp_path / "out"

    def counts(*options: str) -> str:
        assert run_here(raw, out, *options) == 0
        return capsys.readouterr().out.split("bids-cmb: ")[1].split(". ")[0]

    assert counts() == "scans: 2 done, 0 skipped, 0 failed"
    assert counts() == "scans: 0 done, 2 skipped, 0 failed"
    assert counts("--force") == "scans: 2 done, 0 skipped, 0 failed"
    assert counts("--model", "recalibrated") == "scans: 2 done, 0 skipped, 0 failed"
    assert counts("--model", "a") == "scans: 2 done, 0 skipped, 0 failed"
    assert counts("--threshold", "0.9", "--model", "a") == "scans: 2 done, 0 skipped, 0 failed"
    assert counts() == "scans: 2 done, 0 skipped, 0 failed"
    os.utime(raw / "sub-01/anat/sub-01_T2starw.nii.gz", (1, 1))
    assert counts() == "scans: 1 done, 1 skipped, 0 failed"
    (raw / "sub-01/anat/sub-01_T2starw.json").write_text('{"EchoTime": 0.03}')
    assert counts() == "scans: 1 done, 1 skipped, 0 failed"
    (out / "sub-01/anat/sub-01_space-T2starw_label-CMB_mask.nii.gz").unlink()
    assert counts() == "scans: 1 done, 1 skipped, 0 failed"
    assert counts("--save-preproc") == "scans: 2 done, 0 skipped, 0 failed"
    assert counts() == "scans: 0 done, 2 skipped, 0 failed"
    monkeypatch.setattr(bids_cmb, "__version__", "9.9")
    assert counts() == "scans: 2 done, 0 skipped, 0 failed"
    assert not list(out.rglob("*preproc*")), "what is no longer wanted does not stay beside newer results"


def test_threshold_moves_the_operating_point(dataset: Make, run_here: Run, tmp_path: Path) -> None:
    raw, out = dataset({"sub-01/anat/sub-01_T2starw.nii.gz": None}), tmp_path / "out"
    table = out / "sub-01/anat/sub-01_space-T2starw_seg-CMB_dseg.tsv"
    assert run_here(raw, out) == 0
    assert len(table.read_text().splitlines()) == 3
    assert run_here(raw, out, "--threshold", "0.9") == 0
    assert len(table.read_text().splitlines()) == 2


def test_one_bad_scan_costs_one_scan(
    dataset: Make, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = dataset(
        {
            **TWO,
            "sub-01/anat/sub-01_acq-crash_T2starw.nii.gz": {"EchoTime": 0.02},
            "sub-01/anat/sub-01_acq-annexed_T2starw.nii.gz": "../../.git/annex/objects/ab",
            "sub-01/anat/sub-01_acq-empty_T2starw.nii.gz": b"",
        }
    )
    out = tmp_path / "out"
    assert run_here(raw, out) == 1
    said = capsys.readouterr()
    assert "scans: 2 done, 0 skipped, 3 failed" in said.out
    lines = [line for line in said.out.splitlines() if line.startswith("failed: ")]
    assert len(lines) == 3
    assert "datalad get" in lines[0]
    assert "Unexpected RuntimeError: library bug" in lines[1]
    assert "Traceback" not in said.out + said.err
    log = Path(lines[1].split("Log: ")[1])
    assert "Traceback" in log.read_text()
    assert "second line" in log.read_text()
    record = json.loads((out / "logs/scans/sub-01_acq-crash_T2starw.json").read_text())
    assert record["status"] == "failed"
    assert record["echo_time"] == 0.02
    assert record["source"] == "bids:raw:sub-01/anat/sub-01_acq-crash_T2starw.nii.gz"
    assert run_here(raw, out) == 1, "a failed scan is tried again"
    assert "scans: 0 done, 2 skipped, 3 failed" in capsys.readouterr().out


def test_traceback_in_the_terminal_only_if_asked_for(
    dataset: Make, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = dataset({"sub-01/anat/sub-01_acq-crash_T2starw.nii.gz": None})
    assert run_here(raw, tmp_path / "out", "-v") == 1
    assert "Traceback" in capsys.readouterr().err


def test_stop_on_first_crash(
    dataset: Make, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = dataset({"sub-00/anat/sub-00_acq-crash_T2starw.nii.gz": None, **TWO})
    assert run_here(raw, tmp_path / "out", "--stop-on-first-crash") == 1
    assert "scans: 0 done, 0 skipped, 1 failed, 2 not started" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--stop-on-first-crash", "--no-report"])
def test_no_page_shows_the_earlier_result_of_a_scan_that_failed(
    option: str, dataset: Make, run_here: Run, tmp_path: Path
) -> None:
    raw = dataset({"sub-02/anat/sub-02_T2starw.nii.gz": None})
    out = tmp_path / "out"
    assert run_here(raw, out) == 0
    assert (out / "sub-02.html").exists()
    image = raw / "sub-02/anat/sub-02_T2starw.nii.gz"
    image.write_bytes(image.read_bytes()[:400])
    assert run_here(raw, out, option) == 1
    assert not (out / "sub-02.html").exists()


def test_a_process_that_is_killed_costs_its_scan_only(
    dataset: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = dataset({"sub-00/anat/sub-00_acq-die_T2starw.nii.gz": None, **TWO})
    assert run_for_real(raw, tmp_path / "out") == 1
    said = capsys.readouterr().out
    assert "scans: 2 done, 0 skipped, 1 failed" in said
    assert "killed" in said
    assert "memory" in said


def test_nothing_to_do_says_why(
    dataset: Make, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = dataset({"sub-01/anat/sub-01_T1w.nii.gz": None})
    assert run_here(raw, tmp_path / "out") == 1
    assert "nothing to do: no SWI, GRE or QSM scan was found" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_scan_that_may_not_fit_into_memory_is_said(
    dataset: Make, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = dataset({"sub-01/anat/sub-01_T2starw.nii.gz": None})
    assert run_here(raw, tmp_path / "out", "--mem-gb", "0.2") == 0
    assert "more than --mem-gb 0.2" in capsys.readouterr().err
    assert run_here(raw, tmp_path / "out", "--mem-gb", "16", "--force") == 0
    assert "--mem-gb" not in capsys.readouterr().err


def test_dry_run_lists_scans_and_writes_nothing(
    dataset: Make, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(dataset(TWO), tmp_path / "out", "--dry-run") == 0
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    table = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(row["participant_id"], row["session_id"], row["contrast"], row["outputs"]) for row in table] == [
        ("sub-01", "n/a", "gre", "sub-01/anat/sub-01_space-T2starw_*"),
        ("sub-02", "ses-a", "swi", "sub-02/ses-a/anat/sub-02_ses-a_space-swi_*"),
    ]
    assert not (tmp_path / "out").exists()


def test_reports(dataset: Make, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = dataset(TWO), tmp_path / "out"
    assert run_here(raw, out, "--no-report") == 0
    assert not list(out.glob("*.html"))
    assert run_here(raw, out) == 0
    assert len(list(out.glob("*.html"))) == 2, "pages that are missing are made though no scan is redone"
    for page in out.glob("*.html"):
        page.write_text("old")
    assert run_here(raw, out, "--reports-only", "--participant-label", "02") == 0
    assert (out / "sub-02.html").read_text() == "<title>sub-02</title>"
    assert (out / "sub-01.html").read_text() == "old"
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run_here(raw, out, "--reports-only", "--dry-run") == 0
    assert "sub-01: page to be made" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert run_here(raw, out, "--reports-only", "--participant-label", "77") == 2
    assert "sub-77" in capsys.readouterr().err


def test_a_folder_that_cannot_be_read_costs_no_other_scan(
    dataset: Make,
    run_here: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listing, locked = os.scandir, dataset(TWO) / "sub-01" / "anat"

    def scandir(path: Path) -> object:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr("bids_cmb.bids.listing.os.scandir", scandir)
    out = tmp_path / "out"
    assert run_here(locked.parents[1], out) == 1
    assert list(out.rglob("sub-02*_seg-CMB_dseg.tsv"))
    closing = capsys.readouterr().out
    assert f"{locked} cannot be read (Permission denied)" in closing
    assert "1 done, 0 skipped, 0 failed" in closing


def test_a_models_mistake_shows_before_the_first_scan(
    dataset: Make, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(dataset(TWO), tmp_path / "out", "--model", "nosuch") == 2
    assert "no model 'nosuch'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_run_keeps_its_configuration_and_leaves_no_scratch(
    dataset: Make, run_here: Run, tmp_path: Path
) -> None:
    raw, out, work = dataset(TWO), tmp_path / "out", tmp_path / "work"
    before = dict(os.environ)
    assert run_here(raw, out, "--work-dir", str(work), "--threshold", "0.6") == 0
    assert list(work.iterdir()) == []
    assert dict(os.environ) == before
    (config,) = out.glob("logs/*/config.json")
    content: dict[str, Any] = json.loads(config.read_text())
    assert content["options"]["threshold"] == 0.6
    assert content["model"]["name"] == "fake"
    assert content["scans"] == ["sub-01_T2starw", "sub-02_ses-a_swi"]


def test_results_may_go_to_a_folder_that_is_a_link(dataset: Make, run_here: Run, tmp_path: Path) -> None:
    raw, out, elsewhere = dataset(TWO), tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(elsewhere)
    assert run_here(raw, out) == 0
    assert run_here(raw, tmp_path / "link") == 0
    assert contents(elsewhere) == contents(out)
    assert run_here(raw, tmp_path / "link", level="group") == 0


def test_unfinished_files_of_a_killed_run_are_tidied_up(dataset: Make, run_here: Run, tmp_path: Path) -> None:
    raw, out = dataset(TWO), tmp_path / "out"
    left = [out / ".bids_cmb-x-1-ab-README.md", out / "sub-01/anat/.bids_cmb-x-1-ab-mask.nii.gz"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1, 1))
    assert run_here(raw, out) == 0
    assert not any(path.exists() for path in left)


def test_an_interrupted_write_never_looks_complete(
    dataset: Make, run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bids_cmb.bids.outputs as outputs

    raw, out = dataset({"sub-01/anat/sub-01_T2starw.nii.gz": None}), tmp_path / "out"
    assert run_here(raw, out) == 0
    real = outputs.write_bytes

    def break_down(path: Path, content: bytes) -> None:
        if "MARS" in path.name:
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(outputs, "write_bytes", break_down)
    with pytest.raises(KeyboardInterrupt):
        run_here(raw, out, "--threshold", "0.9")
    assert not (out / "sub-01/anat/sub-01_space-T2starw_seg-CMB_dseg.json").exists()
    # Nothing vouches for the earlier files any more, nor would it if the threshold were as before.
    assert not record_path(out, "sub-01_T2starw").exists()
    assert run_here(raw, out, level="group") == 0
    assert "\tfailed\t" in (out / "group_cmb.tsv").read_text()
    monkeypatch.setattr(outputs, "write_bytes", real)
    assert run_here(raw, out) == 0
    assert run_here(raw, out, level="group") == 0
    assert "\tdone\t" in (out / "group_cmb.tsv").read_text()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_run_at_once_and_cleanly(
    dataset: Make, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    raw = dataset({"sub-01/anat/sub-01_acq-slow_T2starw.nii.gz": None})
    out, work = tmp_path / "out", tmp_path / "work"
    process = subprocess.Popen(
        [sys.executable, FAKE_COMMAND, str(raw), str(out), "participant", "-w", str(work)],
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not list(out.glob("logs/*/sub-01_acq-slow_T2starw.log")) and time.monotonic() < until:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    start = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - start < 3
    assert process.returncode == status
    assert said.count("\n") == 1
    assert number.name in said
    assert list(work.iterdir()) == []
    assert children
    assert not any(Path(f"/proc/{child}/root").exists() for child in children)


def test_ten_processes_write_into_one_folder_what_one_process_writes(dataset: Make, tmp_path: Path) -> None:
    labels = [f"{n:02d}" for n in range(10)]
    raw = dataset({f"sub-{label}/anat/sub-{label}_T2starw.nii.gz": head_image() for label in labels})
    together, alone = tmp_path / "together", tmp_path / "alone"
    command = [sys.executable, FAKE_COMMAND, str(raw), str(together), "participant", "--participant-label"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    jobs = [subprocess.Popen([*command, label], **quiet) for label in labels]
    assert run_for_real(raw, alone) == 0
    assert [job.wait(timeout=300) for job in jobs] == [0] * 10
    assert not list(together.rglob(".bids_cmb-*"))
    assert contents(together) == contents(alone)
    kept = [sorted(path.name for path in (out / "logs/scans").iterdir()) for out in (together, alone)]
    assert kept[0] == kept[1] == [f"sub-{label}_T2starw.json" for label in labels]
    for out in (together, alone):
        assert main([str(raw), str(out), "group", "--no-report"]) == 0
    assert contents(together) == contents(alone)


def test_a_failed_image_that_is_gone_no_longer_counts(dataset: Make, run_here: Run, tmp_path: Path) -> None:
    bad, good = (f"sub-01/anat/sub-01_{entities}_T2starw.nii.gz" for entities in ("acq-crash", "run-2"))
    raw, out = dataset({bad: None, good: None}), tmp_path / "out"
    assert run_here(raw, out) == 1
    record = record_path(out, "sub-01_acq-crash_T2starw")
    assert record.is_file()
    # On another copy that holds other subjects, nothing is known of this one.
    elsewhere = tmp_path / "elsewhere" / "sub-02" / "anat"
    elsewhere.mkdir(parents=True)
    assert forget_failures(out, tmp_path / "elsewhere", []) == []
    assert forget_failures(out, raw, ["02"]) == []
    assert record.is_file()
    # A link to data that was dropped is still an image of the dataset.
    (raw / bad).unlink()
    (raw / bad).symlink_to("nowhere")
    assert forget_failures(out, raw, []) == []
    (raw / bad).unlink()
    assert run_here(raw, out) == 0
    assert not record.exists()
    assert "acq-crash" not in (out / "sub-01.html").read_text()
    assert main([str(raw), str(out), "group"]) == 0
    assert "acq-crash" not in (out / "group_cmb.tsv").read_text()


def test_a_record_of_another_scan_than_its_file_is_not_believed(
    dataset: Make, run_here: Run, tmp_path: Path
) -> None:
    raw, out = dataset({"sub-01/anat/sub-01_acq-crash_T2starw.nii.gz": None}), tmp_path / "out"
    assert run_here(raw, out) == 1
    record = record_path(out, "sub-01_acq-crash_T2starw")
    content = json.loads(record.read_text())
    (raw / "sub-02").mkdir()
    (out / "sub-02.html").write_text("precious")
    gone = {"participant_id": "sub-02", "source": "bids:raw:sub-02/anat/sub-02_T2starw.nii.gz"}
    record.write_text(json.dumps({**content, **gone}))
    assert forget_failures(out, raw, []) == []
    assert (out / "sub-02.html").read_text() == "precious"


def test_pages_of_subjects_whose_scans_all_failed_can_be_made_again(
    dataset: Make, run_here: Run, tmp_path: Path
) -> None:
    raw, out = dataset({"sub-01/anat/sub-01_acq-crash_T2starw.nii.gz": None}), tmp_path / "out"
    assert run_here(raw, out) == 1
    (out / "sub-01.html").unlink()
    assert run_here(raw, out, "--reports-only", "--participant-label", "01") == 0
    assert (out / "sub-01.html").is_file()


def test_a_viewer_that_is_asked_for_later_is_made(dataset: Make, run_here: Run, tmp_path: Path) -> None:
    raw, out = dataset({"sub-01/anat/sub-01_T2starw.nii.gz": None}), tmp_path / "out"
    assert run_here(raw, out) == 0
    (out / "sub-01.html").write_text("plain")
    assert run_here(raw, out) == 0
    assert (out / "sub-01.html").read_text() == "plain"
    assert run_here(raw, out, "--report-viewer") == 0
    assert (out / "sub-01.html").read_text() != "plain"
