"""Which processor to compute on."""

from __future__ import annotations

import logging

import torch

from bids_cmb.errors import UsageError

_log = logging.getLogger(__name__)


def choose_device(wanted: str) -> torch.device:
    """Choose where to compute.

    Parameters
    ----------
    wanted
        ``cpu``, ``cuda`` or ``auto``. ``auto`` tries a tiny convolution on the GPU and falls back to the CPU.

    Raises
    ------
    UsageError
        If a GPU is asked for and does not work.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    problem = "no CUDA GPU was found" if not torch.cuda.is_available() else _probe()
    if problem is None:
        return torch.device("cuda")
    if wanted == "cuda":
        raise UsageError(f"--device cuda cannot be used: {problem}; use --device cpu or auto.")
    _log.warning("The GPU does not work (%s); going on with the CPU.", problem)
    return torch.device("cpu")


def _probe() -> str | None:
    """Run a tiny kernel; return what went wrong."""
    try:
        image = torch.ones(1, 1, 4, 4, 4, device="cuda")
        torch.nn.functional.conv3d(image, torch.ones(1, 1, 3, 3, 3, device="cuda")).sum().item()
    except RuntimeError as error:  # CUDA reports driver and architecture mismatches this way
        return str(error).splitlines()[0]
    return None
