"""Data-parallel training on a CPU: processes of one thread each share every step.

Threads inside one small convolution mostly wait for one another; one process per core, each with its share of the
batch and one exchange of gradients per step, keeps the cores busy.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from bids_cmb.errors import BidsCmbError

Network = TypeVar("Network", bound=nn.Module)


def train_together(train: Callable[[int], Network], processes: int, blank: Network) -> Network:
    """Call `train(rank)` in forked processes that share the steps.

    Parameters
    ----------
    train
        Does the same steps at every rank, with `average_gradients` in each.
    processes
        Number of ranks; 1 calls it here, without any exchange.
    blank
        A network of the kind that `train` returns; it takes the weights that rank 0 arrived at.

    Returns
    -------
    Network
        The trained network, in evaluation mode.

    Raises
    ------
    BidsCmbError
        If one of the processes fails.

    Notes
    -----
    The processes share the memory of the scans that are already loaded. They are forked, so nothing may have computed
    with several threads, or a gradient, before.
    """
    if processes == 1:
        return train(0)
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=_join, args=(train, rank, processes, Path(folder)), daemon=True)
            for rank in range(processes)
        ]
        _run(ranks)
        blank.load_state_dict(torch.load(Path(folder) / "result", weights_only=True))
    return blank.eval()


def _join(train: Callable[[int], Network], rank: int, processes: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo",
        init_method=(folder / "ranks").as_uri(),
        rank=rank,
        world_size=processes,
        timeout=timedelta(minutes=10),
    )
    network = train(rank)
    if rank == 0:
        torch.save(network.state_dict(), folder / "result")
    dist.barrier()
    dist.destroy_process_group()


def arrays_of_all(
    make: Callable[[int], Mapping[str, np.ndarray]], count: int, processes: int
) -> list[dict[str, np.ndarray]]:
    """Call `make(i)` for every i below `count`, shared out over forked processes; return what it gave, in order.

    Parameters
    ----------
    make
        Gives named arrays. What it refers to is not copied to the processes.
    count
        Number of calls.
    processes
        1 makes all calls here.

    Raises
    ------
    BidsCmbError
        If one of the processes fails.
    """
    if processes == 1:
        return [dict(make(i)) for i in range(count)]
    torch.set_num_threads(1)

    def work(rank: int) -> None:
        for i in range(rank, count, processes):
            np.savez(Path(folder) / f"{i}.npz", **make(i))  # type: ignore[arg-type]

    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        ranks = [context.Process(target=work, args=(rank,), daemon=True) for rank in range(processes)]
        _run(ranks)
        made = []
        for i in range(count):
            with np.load(Path(folder) / f"{i}.npz", allow_pickle=False) as store:
                made.append(dict(store))
    return made


def _run(ranks: Sequence[ForkProcess]) -> None:
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    if any(process.exitcode for process in ranks):
        raise BidsCmbError(
            "A training process failed; its message is above. The training resumes from its checkpoint."
        )


def average_gradients(network: nn.Module) -> None:
    """Replace the gradients by their mean over all ranks; does nothing where there is one."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].reshape(gradient.shape))
        start += gradient.numel()
