"""``bids-cmb-train evaluate`` on simulated scans."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_cmb.training.cli import main
from bids_cmb.training.simulate.corpus import save_scan

from .tiny import tiny_scan


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


def test_an_empty_folder_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "bids-cmb-train simulate" in capsys.readouterr().err
