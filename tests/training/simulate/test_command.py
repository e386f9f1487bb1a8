"""``bids-cmb-train simulate``: what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_cmb.training.cli import main


def test_a_folder_goes_on_with_the_same_options_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ordered = ["simulate", str(tmp_path / "scans"), "--subjects", "0"]
    assert main([*ordered, "--microbleeds", "3", "9"]) == 0
    assert main([*ordered, "--microbleeds", "3", "9", "--seed", "70"]) == 0  # more subjects of the same kind
    assert main([*ordered, "--microbleeds", "0", "0"]) == 2
    assert "was begun with other scans or settings; name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "values", "sentence"),
    [
        ("--microbleeds", ("50", "8"), "from 0 to 255, the least first"),
        ("--microbleeds", ("-1", "8"), "from 0 to 255, the least first"),
        ("--microbleeds", ("8", "256"), "from 0 to 255, the least first"),
        ("--spacing", ("0",), "--spacing is a voxel edge in mm: from 0.3 to 2."),
        ("--spacing", ("nan",), "--spacing is a voxel edge in mm: from 0.3 to 2."),
        ("--widen", ("0",), "--widen is a factor on ranges: from 0.8 to 2"),
    ],
)
def test_numbers_that_nothing_can_be_simulated_with_are_refused_before_anything_is_written(
    option: str, values: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scans"
    assert main(["simulate", str(folder), "--subjects", "0", option, *values]) == 2
    assert sentence in capsys.readouterr().err
    assert not folder.exists()
