from __future__ import annotations

import sys
from pathlib import Path

import kills
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]


@pytest.mark.parametrize(("whole", "number"), [(False, 12), (True, 4)], ids=["forked", "whole processes"])
def test_runs_that_are_killed_anywhere_are_made_good(tmp_path: Path, whole: bool, number: int) -> None:
    """A handful of what ``python tests/faults/kills.py`` does at length."""
    figures = kills.campaign(kills.Runs(tmp_path, whole=whole), tmp_path, number, seed=7)
    assert figures.tried.total() >= number
    assert figures.faults == [], kills.table(figures)
