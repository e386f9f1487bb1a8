"""Training of stage 1, the candidate network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bids_cmb.detector.networks import CandidateNet
from bids_cmb.training.loop import Pace, fit
from bids_cmb.training.losses import peak_loss
from bids_cmb.training.samples import PatchSampler, TrainingScan

_WEIGHT_DECAY = 1e-3


def train_candidates(
    scans: Sequence[TrainingScan],
    *,
    steps: int,
    seed: int,
    start: CandidateNet | None = None,
    batch: int = 16,
    rate: float = 3e-3,
    device: str = "cpu",
    processes: int = 1,
    checkpoint: Path | None = None,
    precision: str = "float32",
    report: Callable[[int, float], None] = lambda _step, _loss: None,
) -> CandidateNet:
    """Train the candidate network on patches.

    Parameters
    ----------
    scans
        Training scans.
    steps, batch, rate
        Number of steps, patches per step, peak learning rate (one cycle).
    seed
        Of initial weights and patches.
    start
        Network to go on from; None starts from random weights.
    device, processes, checkpoint, precision
        See `bids_cmb.training.loop.Pace`.
    report
        Called with step and running loss.

    Returns
    -------
    CandidateNet
        With averaged weights, in evaluation mode.
    """

    def losses(batch_seed: int) -> Callable[[CandidateNet], Tensor]:
        sampler = PatchSampler(scans, batch_seed)

        def loss(network: CandidateNet) -> Tensor:
            inputs, heat, weight = (x.to(device) for x in sampler.batch(batch // processes))
            return peak_loss(network(inputs.contiguous(memory_format=torch.channels_last_3d)), heat, weight)

        return loss

    return fit(
        lambda: CandidateNet() if start is None else copy.deepcopy(start),
        losses,
        Pace(steps, rate, _WEIGHT_DECAY, device, processes, checkpoint, 200, precision),
        seed=seed,
        report=report,
    )
