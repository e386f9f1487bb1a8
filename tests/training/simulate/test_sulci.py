"""Sulci are opened in the middle of thick cortex, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from bids_cmb.training.simulate import sulci
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.tissues import Tissue

ZOOMS = (1.0, 1.0, 1.0)


def banks(width: int) -> np.ndarray:
    """Two blades of white matter with `width` mm of cortex between them, under fluid, in bone."""
    labels = np.full((40, 40, 40), int(Tissue.BONE), np.uint8)
    labels[4:36, 4:36, 4:36] = Tissue.CSF
    labels[4:36, 4:36, 4:28] = Tissue.CORTEX
    labels[4:20, 4:36, 4:25] = Tissue.WHITE_MATTER
    labels[20 + width : 36, 4:36, 4:25] = Tissue.WHITE_MATTER
    return labels


@pytest.fixture(autouse=True)
def always_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sulci, "_CLOSED", 0.0)


def test_the_middle_of_thick_cortex_becomes_a_sulcus() -> None:
    before = banks(8)
    after = sulci.open_sulci(before, ZOOMS, RandomSource(1))
    middle = after[23:25, 8:32, 8:20]
    assert (middle == Tissue.CSF).mean() > 0.9
    sides = after[[20, 21, 26, 27], 8:32, 8:20]
    assert (sides == Tissue.CORTEX).all()  # 2 mm of either bank stay


@pytest.mark.parametrize("width", [3, 4])
def test_a_sulcus_leaves_thin_cortex_alone(width: int) -> None:
    before = banks(width)
    after = sulci.open_sulci(before, ZOOMS, RandomSource(2))
    np.testing.assert_array_equal(after[16:24, 8:32, 8:20], before[16:24, 8:32, 8:20])


def test_only_cortex_changes_and_only_into_fluid() -> None:
    before = banks(10)
    after = sulci.open_sulci(before, ZOOMS, RandomSource(3))
    changed = before != after
    assert changed.any()
    assert set(np.unique(before[changed])) == {int(Tissue.CORTEX)}
    assert set(np.unique(after[changed])) == {int(Tissue.CSF)}


def test_subjects_differ_and_some_stay_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    amounts = {
        int((sulci.open_sulci(banks(10), ZOOMS, RandomSource(i)) == Tissue.CSF).sum()) for i in range(6)
    }
    assert len(amounts) > 3
    monkeypatch.setattr(sulci, "_CLOSED", 1.0)
    before = banks(10)
    assert sulci.open_sulci(before, ZOOMS, RandomSource(4)) is before
