"""Weights and manifest of a trained mask network, as the project ships them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_cmb import __version__
from bids_cmb.imaging.mask_network import GRID_MM, NAME, MaskNet


def write_release(
    network: MaskNet, folder: Path, *, heads: Sequence[str], scans: int, training: Mapping[str, Any]
) -> Path:
    """Write ``brain-mask.safetensors`` and ``brain-mask.json``.

    Parameters
    ----------
    network
        The network to ship.
    folder
        Where to; made if need be.
    heads
        Names of the heads that it was trained on.
    scans
        Number of simulated scans that it was trained on.
    training
        How it was trained: steps, batch, seed, command.

    Returns
    -------
    Path
        The manifest.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    content = save({k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()})
    (folder / f"{NAME}.safetensors").write_bytes(content)
    manifest = {
        "name": NAME,
        "version": __version__,
        "sha256": hashlib.sha256(content).hexdigest(),
        "licence": "Apache-2.0",
        "description": "Probability of brain at each voxel of a head scan, trained on simulated images only. "
        "Research use only.",
        "grid_mm": GRID_MM,
        "widths": list(network.widths),
        "training": {"anatomy": list(heads), "scans": scans, **training},
    }
    path = folder / f"{NAME}.json"
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return path
