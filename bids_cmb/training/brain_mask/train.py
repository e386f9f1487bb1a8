"""Training of the brain mask network, in the loop of the other networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bids_cmb.imaging.mask_network import MaskNet, network_input
from bids_cmb.training.brain_mask.synthesis import Anatomy, Painter, WholeHead
from bids_cmb.training.loop import Pace, fit

#: Peak learning rate.
RATE = 2e-3
_WEIGHT_DECAY = 1e-4


def train(
    anatomies: Sequence[Anatomy],
    scans: Sequence[WholeHead],
    pace: Pace,
    *,
    seed: int = 1,
    batch: int = 4,
    report: Callable[[int, float], None] = lambda _step, _loss: None,
) -> MaskNet:
    """Train a network from samples that are made on the fly.

    Parameters
    ----------
    anatomies
        Heads to paint, on the device of `pace`.
    scans
        Simulated scans of whole heads, there too; may be empty.
    pace
        How long and how fast, and where to keep the state.
    seed
        Of initial weights and samples.
    batch
        Samples per step, shared by the processes.
    report
        Called with step and running loss.

    Returns
    -------
    MaskNet
        With averaged weights, in evaluation mode.
    """

    def losses(batch_seed: int) -> Callable[[MaskNet], Tensor]:
        painter = Painter(anatomies, scans, batch_seed, torch.device(pace.device))
        numbers = iter(range(2**62))

        def loss(network: MaskNet) -> Tensor:
            with torch.no_grad(), torch.autocast(torch.device(pace.device).type, enabled=False):
                samples = [painter.sample(next(numbers)) for _ in range(max(1, batch // pace.processes))]
                coverage = torch.stack([s.coverage for s in samples])
                inputs = network_input(torch.stack([s.image for s in samples]), coverage)
                brain = torch.stack([s.brain for s in samples])
            logits = network(inputs.contiguous(memory_format=torch.channels_last_3d))
            return mask_loss(logits.float(), brain, coverage)

        return loss

    return fit(MaskNet, losses, pace, weight_decay=_WEIGHT_DECAY, seed=seed, report=report, save_every=200)


def mask_loss(logits: Tensor, brain: Tensor, coverage: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice loss where the scan has data; all of shape (batch, 1, x, y, z)."""
    entropy = functional.binary_cross_entropy_with_logits(logits, brain, reduction="none")
    chance = torch.sigmoid(logits) * coverage
    axes = (1, 2, 3, 4)
    shared = (chance * brain).sum(axes)
    dice = (2 * shared + 1) / (chance.square().sum(axes) + brain.square().sum(axes) + 1)
    return (entropy * coverage).sum() / coverage.sum() + (1 - dice).mean()
