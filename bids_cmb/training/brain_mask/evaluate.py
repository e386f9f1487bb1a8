"""Dice of a mask network on heads that it has not seen, in images made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from bids_cmb.imaging.mask_network import MaskNet, network_input
from bids_cmb.training.brain_mask.synthesis import Anatomy, Painter

#: Samples of the evaluation are numbered from here, far from those of any training.
_FIRST_SAMPLE = 10_000_000
_RESAMPLES = 2000


@dataclass(frozen=True)
class Figures:
    """Dice over simulated images of one held-out head.

    Attributes
    ----------
    head
        The head that was held out.
    images
        Number of images with at least 20 ml of brain in them.
    mean, low, high
        Mean Dice with its 95 % interval (percentile bootstrap over images: it says nothing of other heads).
    median, worst_tenth
        Median, and mean of the lowest tenth.
    """

    head: str
    images: int
    mean: float
    low: float
    high: float
    median: float
    worst_tenth: float

    def as_dict(self) -> dict[str, str | int | float]:
        """Return the figures as a dictionary, rounded for a manifest."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


def evaluate(
    network: MaskNet, anatomies: Sequence[Anatomy], images: int, device: torch.device, seed: int = 7
) -> Figures:
    """Measure Dice on the 2 mm grid over images of random contrast.

    Parameters
    ----------
    network
        A trained network.
    anatomies
        Held-out heads, on ``device``.
    images
        How many images to make.
    device
        Where to run.
    seed
        Seed of the images.

    Returns
    -------
    Figures
        Summary of the Dice values.
    """
    network = network.to(device).eval()
    painter = Painter(anatomies, seed, device)
    scores: list[float] = []
    with torch.inference_mode():
        for index in range(images):
            sample = painter.sample(_FIRST_SAMPLE + index)
            truth = sample.brain > 0.5
            if float(truth.sum()) * 8 < 20_000:
                continue
            found = network(network_input(sample.image[None], sample.coverage[None]))[0] > 0
            found &= sample.coverage > 0
            scores.append(float(2 * (found & truth).sum() / (found.sum() + truth.sum())))
    return summarise(scores, "+".join(sorted({a.name for a in anatomies})), seed)


def summarise(scores: Sequence[float], head: str, seed: int = 7) -> Figures:
    """Summarise Dice values of one head's images."""
    values = np.asarray(scores, dtype=np.float64)
    pick = np.random.default_rng(seed).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(values[pick].mean(axis=1), (2.5, 97.5))
    worst = np.sort(values)[: max(1, len(values) // 10)]
    return Figures(
        head,
        len(values),
        float(values.mean()),
        float(low),
        float(high),
        float(np.median(values)),
        float(worst.mean()),
    )
