from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bids_cmb.bids.description import check_output_dir, mars_lookup, write_dataset_files
from bids_cmb.errors import UsageError
from bids_cmb.types import mars_region

Make = Callable[..., Path]
Run = Callable[..., int]
VALIDATOR = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or shutil.which(
    "bids-validator-deno"
)


def errors(folder: Path) -> list[str]:
    """Codes and places of what the official validator calls errors, and of columns described against BIDS."""
    done = subprocess.run(
        [str(VALIDATOR), str(folder), "--format", "json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [
        f"{i['code']} {i.get('subCode')} {i['location']}"
        for i in issues
        if i["severity"] == "error" or i["code"] == "TSV_COLUMN_TYPE_REDEFINED"
    ]


@pytest.mark.skipif(VALIDATOR is None, reason="needs bids-validator-deno")
def test_the_output_is_a_valid_bids_derivative(dataset: Make, run_here: Run, tmp_path: Path) -> None:
    root = dataset(
        {
            "sub-01/anat/sub-01_T2starw.nii.gz": {"EchoTime": 0.02, "MagneticFieldStrength": 3},
            "sub-01/anat/sub-01_swi.nii.gz": None,
            "sub-01/anat/sub-01_T1w.nii.gz": None,
            "sub-02/ses-1/anat/sub-02_ses-1_acq-swi_part-mag_T2starw.nii.gz": {},
            "sub-02/ses-1/anat/sub-02_ses-1_run-01_echo-1_part-mag_MEGRE.nii.gz": {"EchoTime": 0.01},
            "sub-02/ses-1/anat/sub-02_ses-1_run-01_echo-2_part-mag_MEGRE.nii.gz": {"EchoTime": 0.02},
            "sub-02/ses-1/anat/sub-02_ses-1_chunk-1_Chimap.nii.gz": {},
            "sub-02/ses-1/swi/sub-02_ses-1_GRE.nii.gz": {},
            "sub-03/anat/sub-03_acq-crash_T2starw.nii.gz": {},
        }
    )
    qsm = dataset({"sub-01/anat/sub-01_desc-x_Chimap.nii.gz": None}, name="qsm")
    out = tmp_path / "out"
    assert run_here(root, out, "--save-preproc", "-d", str(qsm)) == 1
    (out / "review").mkdir()
    (out / "review" / "sub-01_review.tsv").write_text("notes\n")
    assert run_here(root, out, level="group") == 0
    assert len(list(out.rglob("*_seg-CMB_dseg.tsv"))) == 7
    assert errors(out) == []


@pytest.mark.skipif(VALIDATOR is None, reason="needs bids-validator-deno")
def test_the_name_fits_a_folder_in_a_raw_datasets_derivatives(dataset: Make, run_here: Run) -> None:
    root = dataset({"sub-01/anat/sub-01_T2starw.nii.gz": None})
    for name in ("bids_cmb", "bids-cmb"):
        out = root / "derivatives" / name
        assert run_here(root, out, "--no-report") == 0
        description = json.loads((out / "dataset_description.json").read_text())
        assert description["GeneratedBy"][0]["Name"] == name
        assert description["DatasetLinks"] == {"raw": "../.."}
        assert errors(out) == []


def test_links_of_earlier_runs_and_the_users_additions_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_dataset_files(out, tmp_path / "raw", [("qsm", tmp_path / "qsm")])
    (out / "README.md").write_text("mine")
    (out / ".bidsignore").write_text("extra\n")
    write_dataset_files(out, tmp_path / "raw")
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetLinks"] == {"qsm": "../qsm", "raw": "../raw"}
    assert (out / "README.md").read_text() == "mine"
    assert (out / ".bidsignore").read_text().startswith("extra\n*.html\n")


@pytest.mark.parametrize(
    "content", ['{"Name": "Raw", "BIDSVersion": "1.9"}', '{"GeneratedBy": [{"Name": "fMRIPrep"}]}']
)
def test_another_dataset_is_not_written_into(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset_description.json").write_text(content)
    with pytest.raises(UsageError, match=r"already holds a dataset of (Raw|fMRIPrep)"):
        check_output_dir(tmp_path)


@pytest.mark.parametrize("content", ['{"Name": "My study", "BIDSVersion": "1.8.0",}', "[]", "{}"])
def test_a_dataset_with_a_damaged_description_keeps_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset_description.json").write_text(content)
    with pytest.raises(UsageError, match="cannot be read"):
        check_output_dir(tmp_path)


def test_a_dataset_whose_description_is_not_there_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    (tmp_path / "sub-01" / "anat" / "sub-01_space-T2starw_seg-CMB_dseg.tsv").write_text("")
    check_output_dir(tmp_path)
    (tmp_path / "sub-01" / "anat" / "sub-01_T2starw.nii.gz").symlink_to("not/fetched")
    with pytest.raises(UsageError, match="not results of bids_cmb"):
        check_output_dir(tmp_path)
    check_output_dir(tmp_path, to_fill=False)  # the group level takes results that were put together by hand
    (tmp_path / "seg-MARS_dseg.tsv").write_text("")
    check_output_dir(tmp_path)
    (tmp_path / "dataset_description.json").symlink_to(".git/annex/objects/x")
    with pytest.raises(UsageError, match="cannot be read"):
        check_output_dir(tmp_path)


def test_a_description_that_a_crash_left_broken_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("")
    check_output_dir(tmp_path)
    write_dataset_files(tmp_path, tmp_path / "raw")
    check_output_dir(tmp_path)


def test_lookup_names_every_label() -> None:
    lines = [line.split("\t") for line in mars_lookup().splitlines()]
    assert lines[0] == ["index", "name", "abbreviation", "color"]
    assert len(lines) == 27
    for index, name, abbreviation, _ in lines[1:]:
        code, _, side = mars_region(int(index))
        assert abbreviation == f"{code}_{side}"
        assert name.startswith({"L": "left ", "R": "right "}[side])
    assert len({color for *_, color in lines}) == 27
