"""Wider networks of stage 2 know what narrower ones knew."""

from __future__ import annotations

import pytest
import torch

from bids_cmb.detector.networks import FACTS, Student, Teacher
from bids_cmb.errors import UsageError
from bids_cmb.training.grow import grown


@pytest.mark.parametrize("kind", [Student, Teacher])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_grown_network_judges_as_before(kind: type[Student] | type[Teacher], factor: int) -> None:
    torch.manual_seed(3)
    network = kind(widths=(4, 6, 8)).eval()
    for module in network.modules():  # as after some training
        if isinstance(module, torch.nn.BatchNorm3d):
            for values in (module.running_mean, module.running_var, module.weight):
                assert values is not None
                torch.nn.init.uniform_(values, 0.5, 1.5)
    wider = grown(network, (4 * factor, 6 * factor, 8 * factor))
    cubes, facts = torch.randn(2, 6, 28, 28, 10), torch.randn(2, FACTS)
    with torch.no_grad():
        before, after = network(cubes, facts), wider(cubes, facts)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_copies_of_a_map_learn_different_things() -> None:
    torch.manual_seed(3)
    wider = grown(Student(widths=(4, 6, 8)), (8, 12, 16))
    wider(torch.randn(2, 6, 28, 28, 10), torch.randn(2, FACTS)).sum().backward()
    first = wider.features.first[0].weight.grad
    assert first is not None
    assert not torch.allclose(first[:4], first[4:], rtol=0.05)


def test_networks_grow_by_whole_multiples_only() -> None:
    for widths in ((24, 48, 96), (8, 16, 32), (32, 64, 64)):
        with pytest.raises(UsageError, match="same multiple"):
            grown(Student(), widths)
