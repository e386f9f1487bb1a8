"""Time the radial symmetry transform: ``python benchmarks/radial_symmetry.py [--threads 4]``."""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from bids_cmb.detector.radial_symmetry import radial_symmetry


def seconds(image: torch.Tensor, mask: torch.Tensor | None, repeats: int) -> float:
    """Median wall time of one call, the first one left out."""
    took = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        radial_symmetry(image, (0.8, 0.8, 1.5), mask=mask)
        if image.is_cuda:
            torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", type=int, nargs=3, default=(190, 230, 95))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    shape = tuple(arguments.shape)
    # White noise is the worst case: nearly every voxel votes.
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(arguments.device)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in shape), indexing="ij")
    brain = (sum(axis**2 for axis in axes) < 0.9).to(arguments.device)
    print(f"torch {torch.__version__}, {arguments.device}, {arguments.threads} threads, grid {shape}")
    print(f"whole grid  {1000 * seconds(image, None, arguments.repeats):8.1f} ms")
    print(f"brain mask  {1000 * seconds(image, brain, arguments.repeats):8.1f} ms")


if __name__ == "__main__":
    main()
