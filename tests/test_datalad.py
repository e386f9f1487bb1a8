"""A dataset as DataLad clones it: images are links into ``.git/annex``, and those not fetched lead nowhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import head_image

SCANS = ("sub-01/anat/sub-01_T2starw.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_acq-swi_T2starw.nii.gz")
GUIDE = Path(__file__).parents[1] / "docs" / "openneuro.md"
Make = Callable[..., Path]
Run = Callable[..., int]


@pytest.fixture
def clone(dataset: Make, tmp_path: Path) -> Path:
    """Of two scans, the first is fetched."""
    images = dataset({SCANS[0]: None, SCANS[1]: head_image(spots=())}, name="server")
    root = dataset({"T2starw.json": {"EchoTime": 0.02, "MagneticFieldStrength": 3}}, name="ds000001")
    for name in SCANS:
        content = (images / name).read_bytes()
        key = f"MD5E-s{len(content)}--{hashlib.md5(content, usedforsecurity=False).hexdigest()}.nii.gz"
        place = root / ".git/annex/objects/0f/Gz" / key / key
        link = root / name
        link.parent.mkdir(parents=True)
        link.symlink_to(Path("../" * (len(link.relative_to(root).parts) - 1)) / place.relative_to(root))
    fetch(root, tmp_path, SCANS[0])
    return root


def fetch(root: Path, tmp_path: Path, name: str) -> None:
    """What ``datalad get`` does: content that nobody may write to."""
    place = (root / name).parent / (root / name).readlink()
    place.parent.mkdir(parents=True)
    place.write_bytes((tmp_path / "server" / name).read_bytes())
    place.chmod(0o444)
    place.parent.chmod(0o555)


def test_the_plan_names_what_to_fetch(
    clone: Path, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line of the documentation, with a stand-in for DataLad."""
    assert run_here(clone, tmp_path / "out", "--dry-run") == 0
    (tmp_path / "plan.tsv").write_text(capsys.readouterr().out)
    (line,) = [text for text in GUIDE.read_text().splitlines() if "xargs datalad get" in text]
    datalad = tmp_path / "bin" / "datalad"
    datalad.parent.mkdir()
    datalad.write_text('#!/bin/sh\necho "$PWD" "$@" > ../fetched\n')
    datalad.chmod(0o755)
    environment = {**os.environ, "PATH": f"{datalad.parent}:{os.environ['PATH']}"}
    subprocess.run(
        ["bash", "-c", line.replace("ds00XXXX", clone.name)], cwd=tmp_path, env=environment, check=True
    )
    assert (tmp_path / "fetched").read_text().split() == [str(clone), "get", *SCANS]


def test_what_is_not_fetched_is_one_sentence_and_is_done_once_it_is(
    clone: Path, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    before = sorted(clone.rglob("*"))
    assert run_here(clone, out, "--nprocs", "2") == 1
    said = capsys.readouterr()
    (line,) = [line for line in said.out.splitlines() if line.startswith("failed: ")]
    assert f"a link whose data are not here; fetch them first, for example with `datalad get {clone}" in line
    assert "scans: 1 done, 0 skipped, 1 failed" in said.out
    assert "Traceback" not in said.out + said.err
    assert sorted(clone.rglob("*")) == before, "the clone is only read"
    sidecar = json.loads((out / "sub-01/anat/sub-01_space-T2starw_seg-CMB_dseg.json").read_text())
    assert sidecar["Sources"][0] == f"bids:raw:{SCANS[0]}"
    assert sidecar["EchoTime"] == 0.02

    fetch(clone, tmp_path, SCANS[1])
    assert run_here(clone, out) == 0
    assert "scans: 1 done, 1 skipped, 0 failed" in capsys.readouterr().out


def test_a_pointer_file_of_an_unlocked_dataset(
    clone: Path, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = clone / SCANS[1]
    scan.unlink()
    scan.write_text("/annex/objects/MD5E-s1--00.nii.gz\n")
    assert run_here(clone, tmp_path / "out") == 1
    (line,) = [text for text in capsys.readouterr().out.splitlines() if text.startswith("failed: ")]
    assert "datalad get" in line


def test_nothing_fetched_at_all(
    clone: Path, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(clone, tmp_path / "out", "--participant-label", "02") == 1
    said = capsys.readouterr().out
    assert said.count("datalad get") == 1
    assert "scans: 0 done, 0 skipped, 1 failed" in said


def test_what_was_dropped_since_stays_done(
    clone: Path, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_here(clone, out, "--participant-label", "01") == 0
    content = (clone / SCANS[0]).resolve()
    content.parent.chmod(0o755)
    content.unlink()  # as `datalad drop` does
    assert run_here(clone, out, "--participant-label", "01") == 0
    assert "scans: 0 done, 1 skipped, 0 failed" in capsys.readouterr().out
    content.parent.rmdir()
    fetch(clone, tmp_path, SCANS[0])
    assert run_here(clone, out, "--participant-label", "01") == 0
    assert capsys.readouterr().out.count("0 done, 1 skipped, 0 failed") == 1
