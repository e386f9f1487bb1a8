"""Places that fail under a run: full disks, other devices, folders that vanish; and several runs in one place."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_run
import pytest
from conftest import head_image
from kills import COMMAND, contents, records

Make = Callable[..., Path]
Run = Callable[..., int]
TWO = {"sub-01/anat/sub-01_T2starw.nii.gz": None, "sub-02/anat/sub-02_swi.nii.gz": None}
_NAMESPACE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]


def _in_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount file systems for itself."""
    return subprocess.run([*_NAMESPACE, "sh", "-c", script], capture_output=True, text=True, check=False)


def _can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return _in_namespace("mount -t tmpfs none /mnt").returncode == 0


_DEVICES = ("/dev/shm", "/run")  # noqa: S108
needs_mount = pytest.mark.skipif(not _can_mount(), reason="file systems cannot be mounted here")


@needs_mount
def test_a_full_disk_is_said_and_leaves_nothing_half_written(dataset: Make, tmp_path: Path) -> None:
    raw, out = (
        dataset({f"sub-{n:02d}/anat/sub-{n:02d}_T2starw.nii.gz": None for n in range(6)}),
        tmp_path / "out",
    )
    out.mkdir()
    command = " ".join([*COMMAND, str(raw), str(out), "participant", "-w", str(tmp_path / "work")])
    done = _in_namespace(
        f"mount -t tmpfs -o size=240k none {out} && {command}; echo status $?; "
        f"find {out} -name '.bids_cmb-*'; cp -r {out} {tmp_path}/kept"
    )
    assert "status 1" in done.stdout, done
    assert "The disk is full" in done.stdout or "No space left on device" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert ".bids_cmb-" not in done.stdout.partition("status")[2]
    assert 1 <= len(fake_run.complete_scans(tmp_path / "kept")) < 6


@needs_mount
def test_a_read_only_disk_is_said(dataset: Make, tmp_path: Path) -> None:
    raw, out = dataset(TWO), tmp_path / "out"
    out.mkdir()
    command = " ".join([*COMMAND, str(raw), str(out), "participant"])
    done = _in_namespace(f"mount -t tmpfs -o ro none {out} && {command}; echo status $?")
    assert "status 2" in done.stdout
    assert "cannot be written to" in done.stderr


@pytest.mark.parametrize("number", range(0, 39, 5))
def test_a_disk_that_fills_at_any_write_costs_what_is_not_written(
    dataset: Make,
    run_here: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw, out = dataset(TWO), tmp_path / "out"
    left = [number]

    def fsync(_: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("bids_cmb.files.os.fsync", fsync)
        assert run_here(raw, out) == 1
    said = capsys.readouterr()
    assert "disk is full" in said.out or "No space left on device" in said.err
    assert "Traceback" not in said.out + said.err
    assert fake_run.unfinished(out) == []
    fake_run.complete_scans(out)
    assert run_here(raw, out) == 0, "with room again, the run is completed"
    assert run_here(raw, tmp_path / "undisturbed") == 0
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_results_and_scratch_may_lie_on_other_devices(dataset: Make, run_here: Run, tmp_path: Path) -> None:
    other = next(
        (p for p in map(Path, _DEVICES) if p.is_dir() and p.stat().st_dev != tmp_path.stat().st_dev),
        None,
    )
    if other is None or not os.access(other, os.W_OK):
        pytest.skip("there is no other device")
    raw = dataset(TWO)
    with tempfile.TemporaryDirectory(dir=other) as name:
        out = Path(name) / "out"
        assert run_here(raw, out, "-w", str(tmp_path / "work")) == 0
        assert run_here(raw, tmp_path / "here", "-w", name) == 0
        named = {key for key in contents(out) if key != "dataset_description.json"}
        assert {key: contents(out)[key] for key in named} == {
            key: contents(tmp_path / "here")[key] for key in named
        }


def test_a_work_folder_that_vanishes_costs_nothing(
    dataset: Make, run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detect(*given: Any, **named: Any) -> Any:
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        return fake_run.detect(*given, **named)

    monkeypatch.setattr(sys.modules["bids_cmb.detector.pipeline"], "detect", detect)
    raw = dataset(TWO)
    assert run_here(raw, tmp_path / "out", "-w", str(tmp_path / "work")) == 0
    assert run_here(raw, tmp_path / "undisturbed") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_an_output_folder_inside_the_dataset_is_never_taken_for_input(
    dataset: Make, run_here: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = dataset(TWO)
    for _ in range(2):
        assert run_here(raw, raw / "derivatives" / "bids_cmb") == 0
    assert "scans: 0 done, 2 skipped, 0 failed" in capsys.readouterr().out
    assert not list(raw.glob("derivatives/bids_cmb/derivatives"))


@pytest.mark.slow
def test_four_workers_and_ten_runs_over_the_same_subjects_write_what_one_does(
    dataset: Make, tmp_path: Path
) -> None:
    labels = [f"{n:02d}" for n in range(5)]
    names = [f"sub-{s}/anat/sub-{s}{end}" for s in labels for end in ("_T2starw.nii.gz", "_swi.nii.gz")]
    raw = dataset(dict.fromkeys(names, head_image((40, 40, 20))))

    def start(out: str, *options: str) -> subprocess.Popen[bytes]:
        command = [*COMMAND, str(raw), str(tmp_path / out), "participant", *options]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start("serial").wait(timeout=300) == 0
    assert start("four", "--nprocs", "4", "--mem-gb", "64").wait(timeout=300) == 0
    # Each subject is done by three or more of the ten, and one of them by all.
    jobs = [
        start("ten", "--participant-label", "00", *{labels[n % 5], labels[(n + 1) % 5], labels[(n + 2) % 5]})
        for n in range(10)
    ]
    assert [job.wait(timeout=500) for job in jobs] == [0] * 10
    serial = contents(tmp_path / "serial")
    assert contents(tmp_path / "four") == serial
    assert contents(tmp_path / "ten") == serial
    assert len(records(tmp_path / "ten")) == len(names)
    assert fake_run.unfinished(tmp_path) == []
