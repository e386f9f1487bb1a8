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
