"""Parting brain from scalp: wider radii where the usual ones leave both in one piece."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bids_cmb.imaging import classical_mask


def test_wider_radii_are_tried_where_the_part_is_larger_than_any_brain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid = np.indices((110, 110, 110)) * 2.0 - 110.0
    distance = np.sqrt((grid**2).sum(0))
    image = np.where(distance < 98, 1000.0, 20.0).astype(np.float32)
    brain = distance < 70
    tried = []

    def best(part: Any, _inside: Any, _middle: Any, _level: float, radii: tuple[float, ...]) -> Any:
        tried.append(radii)
        corner = [(a - b) // 2 for a, b in zip(image.shape, part.shape, strict=True)]
        window = tuple(slice(c, c + n) for c, n in zip(corner, part.shape, strict=True))
        return (distance < 90)[window] if len(tried) == 1 else brain[window]

    monkeypatch.setattr(classical_mask, "_best_part", best)
    found = classical_mask.brain_by_thresholds(image, "gre")
    assert len(tried) == 2
    assert min(tried[1]) > max(tried[0])
    assert found.sum() * 8 / 1000 < 2200


def test_tissue_below_the_height_of_a_head_wears_away_where_it_is_cut() -> None:
    x, y, z = np.indices((96, 96, 130)) * 2.0 - np.array([96.0, 96.0, 0.0])[:, None, None, None]
    radius, top = np.sqrt(x**2 + y**2), 240.0
    centre = top - 84
    brain = np.sqrt(radius**2 + (z - centre) ** 2) < 66
    neck = (radius < 75) & (z < top - 156)  # as bright, and joined to the brain
    stem = (radius < 14) & (z < centre)
    skull = (np.sqrt(radius**2 + (z - centre) ** 2) < 84) | ((radius < 80) & (z < centre))
    image = np.where(brain | neck | stem, 1000.0, np.where(skull, 100.0, 5.0)).astype(np.float32)
    found = classical_mask.brain_by_thresholds(image, "gre")
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.97
