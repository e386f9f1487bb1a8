"""Training of stage 1, the candidate network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from bids_cmb.detector.networks import CandidateNet
from bids_cmb.training.checkpoints import Checkpoint
from bids_cmb.training.losses import peak_loss
from bids_cmb.training.parallel import average_gradients, train_together
from bids_cmb.training.samples import PatchSampler, TrainingScan


class Average:
    """Exponential moving average of a network's weights: steadier than the last step.

    Attributes
    ----------
    network
        With the averaged weights.
    steps
        Steps taken in; the first ones count for more.
    """

    def __init__(self, network: nn.Module, decay: float = 0.995) -> None:
        self.network = copy.deepcopy(network)
        self._decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        decay = min(self._decay, self.steps / (self.steps + 10))
        for mine, theirs in zip(
            self.network.state_dict().values(), network.state_dict().values(), strict=True
        ):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)


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
    device
        ``cpu`` or ``cuda``.
    processes
        Ranks that share every batch (CPU; `bids_cmb.training.parallel`).
    checkpoint
        File to resume from and to save to every 200 steps and at the end.
    report
        Called with step and running loss.

    Returns
    -------
    CandidateNet
        With averaged weights, in evaluation mode.
    """

    def train(rank: int) -> CandidateNet:
        torch.manual_seed(seed)
        network = (CandidateNet() if start is None else copy.deepcopy(start)).to(device)
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # half as long on a CPU
        average = Average(network)
        optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1, pct_start=0.15)
        store = Checkpoint(
            checkpoint,
            {"network": network, "average": average.network, "optimiser": optimiser, "schedule": schedule},
        )
        first = average.steps = store.resume()
        sampler = PatchSampler(scans, seed + 7919 * first + 104729 * rank)
        running = 0.0
        network.train()
        for step in range(first, steps):
            inputs, heat, weight = (x.to(device) for x in sampler.batch(batch // processes))
            loss = peak_loss(network(inputs.contiguous(memory_format=torch.channels_last_3d)), heat, weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            average_gradients(network)
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            average.update(network)
            running = 0.98 * running + 0.02 * float(loss.detach()) if step > first else float(loss.detach())
            if rank == 0:
                report(step + 1, running)
            if rank == 0 and ((step + 1) % 200 == 0 or step + 1 == steps):
                store.save(step + 1)
        return average.network.eval()  # type: ignore[return-value]

    return train_together(train, processes, CandidateNet() if start is None else copy.deepcopy(start))
