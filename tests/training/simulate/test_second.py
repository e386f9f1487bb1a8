"""The second simulation: other veins and another inversion, of the same magnitude as the first."""

from __future__ import annotations

import pytest
import torch

from bids_cmb.training.simulate.heads import shipped_head
from bids_cmb.training.simulate.physics import field_shift
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.second import EarlyStoppedMapping, draw_field_vessels
from bids_cmb.training.simulate.subject import make_subject
from bids_cmb.training.simulate.vessels import draw_vessels

B0 = torch.tensor([0.0, 0.0, 1.0])


def test_veins_fill_about_as_much_of_the_brain_as_those_of_the_first() -> None:
    subject = make_subject(shipped_head(), RandomSource(3), spacing=1.5, tilt=(0.0, 0.0, 0.0))
    first, second = (draw(subject, RandomSource(4)).veins for draw in (draw_vessels, draw_field_vessels))
    assert not torch.equal(first, second)
    shares = [float(veins[subject.brain].mean()) for veins in (first, second)]
    assert 0.3 < shares[1] / shares[0] < 3
    assert float(second.min()) >= 0
    assert float(second.max()) <= 1


def test_early_stopped_inversion_gives_back_most_of_a_source() -> None:
    chi = torch.zeros(48, 48, 48)
    chi[22:26, 22:26, 22:26] = 1.0
    mask = torch.ones_like(chi, dtype=torch.bool)
    field = field_shift(chi, (1.0, 1.0, 1.0), B0)
    mapping = EarlyStoppedMapping(RandomSource(1), B0)
    mapping.bowl, mapping.offset = torch.zeros(3, 3), 0.0
    mapping.iterations = 1000
    found, inside = mapping(field, field, mask, (1.0, 1.0, 1.0))
    assert torch.equal(inside, mask)
    assert float(found[23:25, 23:25, 23:25].mean()) == pytest.approx(1.0, abs=0.25)
    mapping.iterations = 15
    early, _ = mapping(field, field, mask, (1.0, 1.0, 1.0))
    assert 0.3 < float(early[23:25, 23:25, 23:25].mean()) < float(found[23:25, 23:25, 23:25].mean())
