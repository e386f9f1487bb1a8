"""Weights and manifest of a trained mask network, as the project ships them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_cmb.imaging.mask_network import GRID_MM, NAME, WIDTHS, MaskNet


def write_release(
    network: MaskNet,
    folder: Path,
    *,
    version: str,
    heads: Sequence[str],
    training: Mapping[str, Any],
    held_out: Sequence[Mapping[str, Any]],
) -> Path:
    """Write ``brain-mask.safetensors`` and ``brain-mask.json``.

    Parameters
    ----------
    network
        The network to ship.
    folder
        Where to; made if need be.
    version
        Version of the weights.
    heads
        Names of the label maps that it was trained on.
    training
        How it was trained: steps, batch, rate, seed.
    held_out
        Figures of networks trained in the same way without one head, measured on that head.

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
        "version": version,
        "file": f"{NAME}.safetensors",
        "sha256": hashlib.sha256(content).hexdigest(),
        "license": "Apache-2.0",
        "task": "probability of brain at each voxel of a head scan of any contrast",
        "input": [
            "intensity, 1st to 99.5th percentile scaled to 0..1",
            "coverage, 1 where the scan has data",
        ],
        "grid_mm": GRID_MM,
        "widths": list(WIDTHS),
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained_on": {
            "kind": "simulated images of random contrast, painted on label maps; no real intensities",
            "label_maps": list(heads),
            "sources": [
                {
                    "name": "gif",
                    "what": "whole-brain parcellation of one subject, torchio-data",
                    "license": "MIT",
                },
                {
                    "name": "philips",
                    "what": "T1-weighted head, dcm_qa_philips_enh",
                    "license": "BSD-2-Clause",
                },
                {"name": "uih", "what": "T1-weighted head, dcm_qa_uih", "license": "BSD-2-Clause"},
                {
                    "name": "mni",
                    "what": "MNI152 2009a symmetric T1 template as in nilearn",
                    "license": "MNI permissive; nilearn BSD-3-Clause",
                },
            ],
        },
        "training": dict(training),
        "figures": {
            "held_out_heads": list(held_out),
            "note": (
                "Dice on simulated images of heads left out of training; the shipped weights were trained "
                "on all heads. Intervals are over images of one head, not over people."
            ),
        },
        "use": "research only",
    }
    path = folder / f"{NAME}.json"
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return path
