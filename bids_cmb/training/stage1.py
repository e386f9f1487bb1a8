"""Training of stage 1, the candidate network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bids_cmb.detector.networks import CandidateNet
from bids_cmb.training.loop import Pace, fit, share_of_batch
from bids_cmb.training.losses import peak_loss
from bids_cmb.training.samples import PatchSampler, TrainingScan

#: Peak learning rate.
STAGE1_RATE = 3e-3
_WEIGHT_DECAY = 1e-3


def train_candidates(
    scans: Sequence[TrainingScan],
    pace: Pace,
    *,
    seed: int,
    start: CandidateNet | None = None,
    batch: int = 16,
    report: Callable[[int, float], None] = lambda _step, _loss: None,
) -> CandidateNet:
    """Train the candidate network on patches.

    Parameters
    ----------
    scans
        Training scans.
    pace
        How long and how fast, and where to keep the state.
    seed
        Of initial weights and patches.
    start
        Network to go on from; None starts from random weights.
    batch
        Patches per step.
    report
        Called with step and running loss.

    Returns
    -------
    CandidateNet
        With averaged weights, in evaluation mode.
    """
    mine = share_of_batch(batch, pace)

    def losses(batch_seed: int) -> Callable[[CandidateNet], Tensor]:
        sampler = PatchSampler(scans, batch_seed)

        def loss(network: CandidateNet) -> Tensor:
            inputs, heat, weight = (x.to(pace.device) for x in sampler.batch(mine))
            return peak_loss(network(inputs.contiguous(memory_format=torch.channels_last_3d)), heat, weight)

        return loss

    return fit(
        lambda: CandidateNet() if start is None else copy.deepcopy(start),
        losses,
        pace,
        weight_decay=_WEIGHT_DECAY,
        seed=seed,
        report=report,
        save_every=200,
    )
