"""`examples/babs`: the command that BABS makes of it is taken by the parser and runs on what BABS leaves of a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import bids_cmb

yaml = pytest.importorskip("yaml")
EXAMPLE = Path(__file__).parents[1] / "examples" / "babs" / "bids-cmb.yaml"
Make = Callable[..., Path]


def test_a_job_of_babs(
    dataset: Make, run_here: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = yaml.safe_load(EXAMPLE.read_text())
    assert settings["zip_foldernames"] == {"bids_cmb": bids_cmb.__version__.replace(".", "-")}
    arguments = settings["bids_app_args"]
    flag = arguments.pop("$SUBJECT_SELECTION_FLAG")
    work = tmp_path / ".git/tmp/wkdir"
    options = [
        word for name, value in arguments.items() for word in (name, value.replace("$BABS_TMPDIR", str(work)))
    ]
    # A sparse checkout: the job's subject is there, of the others not even the folders; files are links.
    key = tmp_path / "annex" / "key.nii.gz"
    dataset({"key.nii.gz": None}, name="annex", description=False)
    raw = dataset({"sub-01/ses-a/anat/sub-01_ses-a_T2starw.nii.gz": str(key)}, name="inputs/data/BIDS")
    out = tmp_path / "outputs" / "bids_cmb"
    assert run_here(raw, out, *options, flag, "sub-01") == 0
    assert list(out.glob("sub-01/ses-a/anat/*_seg-CMB_dseg.tsv"))
    capsys.readouterr()

    key.write_bytes(b"")
    assert run_here(raw, out, *options, flag, "sub-01") == 1
    said = capsys.readouterr()
    assert any(phrase in said.out for phrase in settings["alert_log_messages"]["stdout"])
    assert run_here(raw, out, *options, flag, "sub-77") == 2
    said = capsys.readouterr()
    assert any(phrase in said.err for phrase in settings["alert_log_messages"]["stderr"])
