"""An untrained detector for the plumbing of training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bids_cmb.detector import candidates
from bids_cmb.detector.networks import CandidateNet, Student
from bids_cmb.detector.weights import save_model
from bids_cmb.training import samples
from bids_cmb.types import CONTRASTS

CARD = {
    "name": "untrained",
    "version": "0",
    "candidate_net": {"channels": 2, "widths": [2, 2, 2, 2]},
    "student": {"channels": 3, "widths": [2, 2, 2]},
    "candidate_threshold": 0.0,
    "thresholds": dict.fromkeys(CONTRASTS, 0.37),
    "definite": dict.fromkeys(CONTRASTS, 0.8),
    "calibration": {c: {"scale": 1.0, "offset": 0.0} for c in CONTRASTS},
    "training": {"anatomy": ["a head"], "validation_anatomy": ["another head"]},
}


@pytest.fixture
def untrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The manifest of a detector with random weights; few candidates per scan, small patches."""
    monkeypatch.setattr(candidates, "MOST_CANDIDATES", 20)
    monkeypatch.setattr(samples, "PATCH", (16, 16, 8))
    torch.manual_seed(0)
    return save_model(tmp_path / "untrained", CARD, CandidateNet(2, (2, 2, 2, 2)), Student(3, (2, 2, 2)))
