"""`brainlife/main` with a made-up config.json; a stand-in for Singularity runs the command without a container."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
from conftest import head_image

MAIN = Path(__file__).parents[1] / "brainlife" / "main"
pytestmark = pytest.mark.skipif(
    not (shutil.which("jq") and shutil.which("bash")), reason="brainlife's main needs bash and jq"
)

# What it is asked to run is kept; what follows the image's name are the command's arguments.
SINGULARITY = f"""#!/bin/bash
echo "$*" >> calls
while [[ $1 != cmb.sif ]]; do shift; done
shift
exec "{sys.executable}" "{Path(__file__).parent / "fake_command.py"}" "$@"
"""


def run_main(folder: Path, config: dict[str, Any] | str | None) -> subprocess.CompletedProcess[str]:
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "singularity").write_text(SINGULARITY)
    (programs / "singularity").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "BIDS_CMB_IMAGE": "cmb.sif"}
    return subprocess.run(
        [str(MAIN)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def product(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "product.json").read_text())
    return content


def test_inputs_become_bids_and_results_the_outputs(tmp_path: Path) -> None:
    (tmp_path / "in put").mkdir()
    nib.save(head_image(), tmp_path / "in put" / "swi.nii.gz")
    nib.save(head_image(spots=()), tmp_path / "in put" / "qsm.nii")
    meta = {"subject": "A_01", "session": 2, "EchoTime": 0.02}
    inputs = [{"id": "image", "keys": ["swi"], "meta": meta}, {"id": "qsm", "meta": {"subject": "A_01"}}]
    config = {"swi": "in put/swi.nii.gz", "qsm": "in put/qsm.nii", "threshold": 0.6, "_inputs": inputs}
    done = run_main(tmp_path, config)
    assert done.returncode == 0, done.stderr
    stem = "bids/sub-A01/ses-2/anat/sub-A01_ses-2"
    assert (tmp_path / f"{stem}_Chimap.nii").exists()
    assert json.loads((tmp_path / f"{stem}_swi.json").read_text())["EchoTime"] == 0.02
    participant, group = (tmp_path / "calls").read_text().splitlines()
    assert participant.startswith(f"run --containall --no-home --bind {tmp_path}:{tmp_path} ")
    assert participant.endswith(f"participant --device auto --work-dir {tmp_path}/work --threshold 0.6")
    assert group.endswith(f"cmb.sif {tmp_path}/bids {tmp_path}/derivatives group")
    names = {"mask", "probability", "brain", "microbleeds", "mars"}
    files = {*(f"{name}.nii.gz" for name in names), "microbleeds.tsv"}
    for contrast in ("swi", "qsm"):
        assert {path.name for path in (tmp_path / f"output_{contrast}").iterdir()} == files
    assert len((tmp_path / "output_swi/microbleeds.tsv").read_text().splitlines()) == 3
    assert (tmp_path / "report/index.html").read_text() == "<title>sub-A01</title>"
    assert not (tmp_path / "work").exists()

    said = product(tmp_path)
    assert (tmp_path / "product.json").stat().st_size < 4096
    text = {entry["msg"] for entry in said["brainlife"] if entry["type"] == "success"}
    none = "0 definite and 0 possible; 0 lobar, 0 deep, 0 infratentorial."
    assert text == {
        "SWI: 2 microbleeds, 1 definite and 1 possible; 2 lobar, 0 deep, 0 infratentorial.",
        f"QSM: 0 microbleeds, {none}",
    }
    assert "Research use only" in said["brainlife"][0]["msg"]
    (chart,) = [entry for entry in said["brainlife"] if entry["type"] == "plotly"]
    assert {bars["name"]: bars["y"] for bars in chart["data"]} == {"SWI": [2, 0, 0], "QSM": [0, 0, 0]}
    assert {scan["contrast"]: scan["n_cmb"] for scan in said["microbleeds"]} == {"swi": 2, "qsm": 0}


def test_a_scan_that_fails_fails_the_task_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "image.nii.gz").write_bytes(b"")
    done = run_main(tmp_path, {"t2star": "image.nii.gz"})
    assert done.returncode == 1
    errors = [entry["msg"] for entry in product(tmp_path)["brainlife"] if entry["type"] == "error"]
    assert len(errors) == 1
    assert "T2*-weighted GRE: " in errors[0]
    assert "empty" in errors[0]
    assert not (tmp_path / "output_gre").exists()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, "no config.json"),
        ("{half", "is not a JSON object"),
        ({"t1": "t1.nii.gz"}, "give swi, t2star or qsm"),
        ({"swi": "nosuch.nii.gz"}, "no file"),
        ({"swi": "t1.dcm"}, "no .nii or .nii.gz"),
    ],
)
def test_what_is_wrong_with_the_inputs_is_one_sentence(
    config: dict[str, Any] | str | None, expected: str, tmp_path: Path
) -> None:
    for name in ("t1.nii.gz", "t1.dcm"):
        (tmp_path / name).touch()
    done = run_main(tmp_path, config)
    assert done.returncode == 1
    assert expected in done.stderr
    (entry,) = product(tmp_path)["brainlife"]
    assert entry["type"] == "error"
    assert expected in entry["msg"]
    assert not (tmp_path / "calls").exists()
