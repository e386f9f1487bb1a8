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
