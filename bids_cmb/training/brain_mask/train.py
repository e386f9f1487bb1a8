"""Training of the brain mask network, seeded, with checkpoints, on a CPU or a GPU.

On a CPU the same seed gives the same weights; a GPU sums gradients in varying order, so there only the samples
are the same.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from bids_cmb.imaging.mask_network import MaskNet, network_input
from bids_cmb.training.brain_mask.synthesis import Anatomy, Painter

_LOG = logging.getLogger(__name__)
_CHECKPOINT_EVERY = 200


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes
    ----------
    steps
        Updates of the weights.
    batch
        Samples in each.
    rate
        Highest learning rate.
    minutes
        Wall-clock limit: the schedule is shortened to end within it; 0 for none. A run that a limit shortens
        is not reproducible to the bit.
    seed
        Seed of the weights and of every sample.
    """

    steps: int
    batch: int
    rate: float = 2e-3
    minutes: float = 0.0
    seed: int = 1


def train(
    anatomies: Sequence[Anatomy], schedule: Schedule, device: torch.device, checkpoint: Path | None = None
) -> MaskNet:
    """Train a network from samples that are made on the fly.

    Parameters
    ----------
    anatomies
        Heads to draw from, on ``device``.
    schedule
        How long and how fast.
    device
        Where to train.
    checkpoint
        A safetensors file: written now and then, and resumed from if it is there.

    Returns
    -------
    MaskNet
        The running average of the weights, on the CPU, in evaluation mode.
    """
    torch.manual_seed(schedule.seed)
    network = MaskNet().to(device)
    average = MaskNet().to(device)
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.rate, weight_decay=1e-4)
    start = _resume(checkpoint, network, average, optimizer)
    painter = Painter(anatomies, schedule.seed, device)
    began = time.monotonic()
    running = 0.0
    for step in range(start, schedule.steps):
        elapsed = (time.monotonic() - began) / 60
        progress = step / schedule.steps
        if schedule.minutes > 0:
            progress = max(progress, elapsed / schedule.minutes)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate * _rate_factor(progress, step)
        loss = _update(network, optimizer, painter, step, schedule.batch, device)
        _average(average, network, min(0.995, (step + 1) / (step + 10)))
        running = loss if step == start else 0.98 * running + 0.02 * loss
        if step % 50 == 0:
            _LOG.info("step %d of %d: loss %.4f, %.1f min", step, schedule.steps, running, elapsed)
        if checkpoint is not None and (step + 1) % _CHECKPOINT_EVERY == 0:
            _save(checkpoint, network, average, optimizer, step + 1)
    _LOG.info("trained for %.1f min, loss %.4f", (time.monotonic() - began) / 60, running)
    return average.cpu().eval()


def _rate_factor(progress: float, step: int) -> float:
    """Short warm-up, then a cosine down to zero."""
    return min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _update(
    network: MaskNet,
    optimizer: torch.optim.Optimizer,
    painter: Painter,
    step: int,
    batch: int,
    device: torch.device,
) -> float:
    """Make a batch, take one step, return the loss."""
    with torch.no_grad():
        samples = [painter.sample(step * batch + k) for k in range(batch)]
        coverage = torch.stack([s.coverage for s in samples])
        inputs = network_input(torch.stack([s.image for s in samples]), coverage)
        brain = torch.stack([s.brain for s in samples])
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        logits = network(inputs)
    loss = mask_loss(logits.float(), brain, coverage)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def mask_loss(logits: Tensor, brain: Tensor, coverage: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice loss where the scan has data; all of shape (batch, 1, x, y, z)."""
    entropy = functional.binary_cross_entropy_with_logits(logits, brain, reduction="none")
    chance = torch.sigmoid(logits) * coverage
    axes = (1, 2, 3, 4)
    shared = (chance * brain).sum(axes)
    dice = (2 * shared + 1) / (chance.square().sum(axes) + brain.square().sum(axes) + 1)
    return (entropy * coverage).sum() / coverage.sum() + (1 - dice).mean()


def _average(average: MaskNet, network: MaskNet, keep: float) -> None:
    """Move the running average of the weights towards the network."""
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)


# --- checkpoints -------------------------------------------------------------------------------------------


def _save(
    path: Path, network: MaskNet, average: MaskNet, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write network, average and optimiser into one safetensors file."""
    from safetensors.torch import save_file

    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for name, parameter in network.named_parameters():
        state = optimizer.state[parameter]
        tensors |= {f"optimizer.{name}.{k}": torch.as_tensor(v) for k, v in state.items()}
    tensors["step"] = torch.tensor(step)
    part = path.with_suffix(".part")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part)
    part.replace(path)


def _resume(path: Path | None, network: MaskNet, average: MaskNet, optimizer: torch.optim.Optimizer) -> int:
    """Read what `_save` wrote, if it is there; return the step to go on with."""
    if path is None or not path.exists():
        return 0
    from safetensors.torch import load_file

    device = next(network.parameters()).device
    tensors = load_file(path)
    for prefix, target in (("network.", network), ("average.", average)):
        target.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    for name, parameter in network.named_parameters():
        prefix = f"optimizer.{name}."
        optimizer.state[parameter] = {
            k[len(prefix) :]: v if k.endswith(".step") else v.to(device)
            for k, v in tensors.items()
            if k.startswith(prefix)
        }
    _LOG.info("resumed from %s at step %d", path.name, int(tensors["step"]))
    return int(tensors["step"])
