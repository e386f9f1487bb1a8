"""Wider networks of stage 2 that begin with what narrower ones know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from bids_cmb.detector.networks import Student, Teacher
from bids_cmb.errors import UsageError

Judge = TypeVar("Judge", Student, Teacher)

#: Inputs of the teacher's decoder: maps of these levels, one behind the other.
_JOINED = {"up_second.0": (1, 2), "up_first.0": (0, 1)}


def grown(network: Judge, widths: Sequence[int]) -> Judge:
    """Return a wider network that judges as the given one does and has more to learn with (Net2WiderNet, Chen 2016).

    Each map is repeated; what follows shares its weight among the copies, unevenly and differently in each of its own
    maps, so that the copies learn different things from the first step on.

    Parameters
    ----------
    network
        Teacher or student.
    widths
        Maps of the three levels of the new one: the same multiple of the given one's.

    Returns
    -------
    Teacher or Student
        Another network; the same weights if the widths are.

    Raises
    ------
    UsageError
        If the widths are no multiple.
    """
    a, b, c = widths
    factor = a // network.widths[0]
    if factor < 1 or tuple(widths) != tuple(factor * n for n in network.widths):
        raise UsageError(
            f"Networks of {_text(network.widths)} maps cannot grow to {_text(widths)}: ask for the same multiple of each."
        )
    wider = type(network)(network.channels, (a, b, c))
    small, large = network.state_dict(), wider.state_dict()
    for name, weight in small.items():
        new = weight
        if weight.ndim and large[name].shape != weight.shape:
            layer = name.rsplit(".", 1)[0]
            blocks = [network.widths[level] for level in _JOINED.get(layer, ())]
            new = _widened(weight, large[name].shape, blocks)
        large[name] = new
    wider.load_state_dict(large)
    return wider.train(network.training)


def _widened(weight: Tensor, shape: Sequence[int], blocks: Sequence[int]) -> Tensor:
    """Repeat the outputs of a weight, or values per map, and share its inputs; `blocks` of joined inputs each by itself."""
    new = weight.repeat(shape[0] // weight.shape[0], *[1] * (weight.ndim - 1))
    if weight.ndim == 1 or shape[1] == weight.shape[1]:
        return new
    copies = shape[1] // weight.shape[1]
    parts = []
    for part in new.split(list(blocks) or [weight.shape[1]], dim=1):
        shares = torch.rand(copies, *part.shape[:2])
        shares = (shares / shares.sum(dim=0)).reshape(copies, *part.shape[:2], *[1] * (part.ndim - 2))
        parts += list(part * shares)
    return torch.cat(parts, dim=1)


def _text(widths: Sequence[int]) -> str:
    return "-".join(str(n) for n in widths)
