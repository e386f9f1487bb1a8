"""The training loop of the detector's networks: shared batches, one cycle of the learning rate, averaged weights, checkpoints."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import torch
from torch import Tensor, nn

from bids_cmb.errors import UsageError
from bids_cmb.training.checkpoints import Checkpoint
from bids_cmb.training.parallel import Network, average_gradients, train_together

_log = logging.getLogger(__name__)
_LOG_EVERY = 50


@dataclass(frozen=True)
class Pace:
    """How long and how fast to train, on what, and where to keep the state.

    Attributes
    ----------
    steps, rate
        Number of steps and peak learning rate (one cycle, Smith 2018).
    device
        ``cpu`` or ``cuda``.
    processes
        Ranks that share every batch (CPU; `bids_cmb.training.parallel`).
    checkpoint
        File to resume from and to save to, now and then and at the end; None keeps nothing.
    precision
        What convolutions compute in: ``float32``, or ``bfloat16``, which takes about two thirds of the time where the
        processor has instructions for it, and longer where it has none. Weights and losses are in single precision.
    """

    steps: int
    rate: float
    device: str = "cpu"
    processes: int = 1
    checkpoint: Path | None = None
    precision: str = "float32"


def share_of_batch(batch: int, pace: Pace) -> int:
    """Samples that each process draws for a batch.

    Raises
    ------
    UsageError
        If there are more processes than samples.
    """
    if pace.processes > batch:
        raise UsageError(f"A batch of {batch} cannot be shared by {pace.processes} processes: ask for fewer.")
    return batch // pace.processes


class Average(Generic[Network]):
    """Exponential moving average of a network's weights: steadier than the last step.

    Attributes
    ----------
    network
        With the averaged weights.
    steps
        Steps taken in; the first ones count for more.
    """

    def __init__(self, network: Network, decay: float = 0.995) -> None:
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


def log_step(name: str, step: int, loss: float, *, steps: int | None = None) -> None:
    """Log every so many steps how far the training of a network is, of how many steps if that is told."""
    if step % _LOG_EVERY == 0:
        _log.info("%s: step %d%s, loss %.4f", name, step, f" of {steps}" if steps else "", loss)


def fit(
    newborn: Callable[[], Network],
    losses: Callable[[int], Callable[[Network], Tensor]],
    pace: Pace,
    *,
    weight_decay: float,
    seed: int,
    report: Callable[[int, float], None],
    save_every: int = 100,
) -> Network:
    """Train a network.

    Parameters
    ----------
    newborn
        Makes the network to begin with.
    losses
        From the seed of a rank's batches to what draws a batch and returns the network's loss on it.
    pace
        How to train.
    weight_decay
        Decay of the weights (AdamW).
    seed
        Of initial weights and batches; another rank, or one that resumes, draws other batches.
    report
        Called with step and running loss.
    save_every
        Steps between two saves.

    Returns
    -------
    Network
        With averaged weights, in evaluation mode.
    """

    def train(rank: int) -> Network:
        torch.manual_seed(seed)
        network = newborn().to(pace.device)
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # half as long on a CPU
        average = Average(network)
        optimiser = torch.optim.AdamW(network.parameters(), lr=pace.rate, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, pace.rate, total_steps=pace.steps + 1, pct_start=0.15
        )
        store = Checkpoint(
            pace.checkpoint,
            {"network": network, "average": average.network, "optimiser": optimiser, "schedule": schedule},
        )
        first = average.steps = store.resume()
        loss_on_batch = losses(seed + 7919 * first + 104729 * rank)
        running = 0.0
        network.train()
        for step in range(first, pace.steps):
            with torch.autocast(
                torch.device(pace.device).type, torch.bfloat16, enabled=pace.precision == "bfloat16"
            ):
                loss = loss_on_batch(network)
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
            if rank == 0 and ((step + 1) % save_every == 0 or step + 1 == pace.steps):
                store.save(step + 1)
        return average.network.eval()

    return train_together(train, pace.processes, newborn())
