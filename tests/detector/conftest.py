"""A detector with random weights: the plumbing needs no trained one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bids_cmb.detector.networks import CandidateNet, Student
from bids_cmb.detector.weights import Model, load_model, save_model
from bids_cmb.types import CONTRASTS, Volume

CARD = {
    "name": "random",
    "version": "0",
    "candidate_net": {"channels": 2, "widths": [2, 2, 2, 2]},
    "student": {"channels": 3, "widths": [2, 2, 2]},
    "candidate_threshold": 0.0,
    "thresholds": dict.fromkeys(CONTRASTS, 0.5),
    "definite": dict.fromkeys(CONTRASTS, 0.8),
    "calibration": {c: {"scale": 1.0, "offset": 0.0} for c in CONTRASTS},
}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return save_model(tmp_path / "model", CARD, CandidateNet(2, (2, 2, 2, 2)), Student(3, (2, 2, 2)))


@pytest.fixture
def model(manifest: Path) -> Model:
    return load_model(manifest)


def phantom(
    shape: tuple[int, int, int] = (60, 70, 24),
    zooms: tuple[float, float, float] = (1.0, 1.0, 2.0),
    depth: float = 0.7,
) -> tuple[Volume, np.ndarray]:
    """An ellipsoid of tissue (100) with one dark ball of 4 mm at a known place."""
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = [-30, -35, -24]
    grid = np.stack(
        np.meshgrid(*[np.arange(n) * d for n, d in zip(shape, zooms, strict=True)], indexing="ij"), -1
    )
    middle = (np.array(shape) - 1) / 2 * zooms
    mask = (((grid - middle) / (0.45 * np.array(shape) * zooms)) ** 2).sum(-1) < 1
    data = np.where(mask, 100.0, 0.0)
    ball = np.clip(2.5 - np.linalg.norm(grid - np.array([36.0, 30.0, 24.0]), axis=-1), 0, 1)
    data = data * (1 - depth * ball)
    rng = np.random.default_rng(0)
    return Volume((data + mask * rng.normal(0, 1.0, shape)).astype(np.float32), affine), mask
