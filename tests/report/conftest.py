"""One small study, drawn once for all tests of the pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from .simulated_outputs import Case, write_dataset

USUAL = {
    "EchoTime": 0.02,
    "MagneticFieldStrength": 3.0,
    "VoxelSize": [0.9, 0.9, 2.0],
    "BrainVolume": 1.3e6,
    "SNR": 21.0,
}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Raw data and outputs: a session with SWI and QSM, and a GRE without microbleeds."""
    root = tmp_path_factory.mktemp("study")
    cases = {"01": [Case("swi", 3, acq="swi", sidecar=USUAL), Case("qsm", 2)], "02": [Case("gre", 0)]}
    return write_dataset(root, cases)
