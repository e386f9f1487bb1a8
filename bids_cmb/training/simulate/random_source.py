"""One seeded source of chance for a simulated scan: the same anatomy on every device, other noise on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RandomSource:
    """Draws numbers on the CPU from one seed, so that a CPU and a GPU build the same head; only `noise` differs.

    Parameters
    ----------
    seed
        Any integer.
    device
        Where tensors are wanted.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        """One number between `low` and `high`."""
        return low + (high - low) * float(torch.rand((), generator=self._generator))

    def normal(self, mean: float = 0.0, sd: float = 1.0) -> float:
        """One normally distributed number."""
        return mean + sd * float(torch.randn((), generator=self._generator))

    def integer(self, low: int, high: int) -> int:
        """One integer from `low` to `high`, both included."""
        return int(torch.randint(low, high + 1, (), generator=self._generator))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return float(torch.rand((), generator=self._generator)) < probability

    def choice(self, weights: Sequence[float]) -> int:
        """Index drawn with these weights."""
        probabilities = torch.tensor(weights, dtype=torch.float64)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))

    def rand(self, *shape: int) -> Tensor:
        """Uniform tensor in 0..1 on the device."""
        return torch.rand(shape, generator=self._generator).to(self.device)

    def randn(self, *shape: int) -> Tensor:
        """Standard normal tensor on the device."""
        return torch.randn(shape, generator=self._generator).to(self.device)

    def noise(self, *shape: int) -> Tensor:
        """Standard normal tensor for large arrays: drawn on the device, from a seed of this source."""
        seed = int(torch.randint(0, 2**31 - 1, (), generator=self._generator))
        generator = torch.Generator(device=self.device).manual_seed(seed)
        return torch.randn(shape, generator=generator, device=self.device)

    def pick(self, count: int, total: int) -> Tensor:
        """`count` indices below `total`, with replacement, on the device."""
        return torch.randint(0, max(total, 1), (count,), generator=self._generator).to(self.device)
