"""The brain mask network: its architecture, its input and its weights.

A 3-D U-Net (Çiçek 2016) on a 2 mm grid, trained on simulated scans and on heads painted with random contrasts, an idea
of SynthSeg (Billot 2023) and SynthStrip (Hoopes 2022): it is to need no certain contrast.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bids_cmb.errors import ModelError
from bids_cmb.shipped import models_folder

#: Edge in mm of the voxels that the network works on.
GRID_MM = 2.0
#: Both in- and output sizes are multiples of this.
MULTIPLE = 16
WIDTHS = (24, 40, 56, 64)
NAME = "brain-mask"
_BLOCK = 2


class MaskNet(nn.Module):
    """U-Net from (intensity, coverage) to the logit of being brain.

    The grid's 2 x 2 x 2 blocks become channels first and voxels again last, so that all work is done at half
    the grid's resolution.

    Parameters
    ----------
    widths
        Channels of each level, finest first.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.stem = nn.Sequential(_block(2 * _BLOCK**3, widths[0]), _block(widths[0], widths[0]))
        self.down = nn.ModuleList(nn.Sequential(_block(a, b), _block(b, b)) for a, b in pairwise(widths))
        self.squeeze = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(nn.Sequential(_block(2 * a, a), _block(a, a)) for a in widths[:-1])
        self.head = nn.Conv3d(widths[0], _BLOCK**3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 2, x, y, z) to logits (batch, 1, x, y, z); sizes are multiples of `MULTIPLE`."""
        skips = [self.stem(_to_channels(x))]
        for down in self.down:
            skips.append(down(nn.functional.max_pool3d(skips[-1], 2)))
        out = skips.pop()
        for squeeze, up in zip(reversed(self.squeeze), reversed(self.up), strict=True):
            skip = skips.pop()
            out = nn.functional.interpolate(squeeze(out), scale_factor=2.0, mode="trilinear")
            out = up(torch.cat([skip, out], dim=1))
        return _to_voxels(self.head(out))


def _to_channels(x: Tensor) -> Tensor:
    """Move blocks of voxels into channels: (b, c, x, y, z) to (b, 8c, x/2, y/2, z/2)."""
    b, c, *size = x.shape
    n, m, k = (length // _BLOCK for length in size)
    blocks = x.reshape(b, c, n, _BLOCK, m, _BLOCK, k, _BLOCK).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return blocks.reshape(b, c * _BLOCK**3, n, m, k)


def _to_voxels(x: Tensor) -> Tensor:
    """Move eight channels back into blocks of voxels: the inverse of `_to_channels` for one channel."""
    b, _, n, m, k = x.shape
    blocks = x.reshape(b, 1, _BLOCK, _BLOCK, _BLOCK, n, m, k).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return blocks.reshape(b, 1, n * _BLOCK, m * _BLOCK, k * _BLOCK)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution, instance normalisation, leaky rectifier."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, padding=1, bias=False),
        nn.InstanceNorm3d(outputs, affine=True),
        nn.LeakyReLU(0.1, inplace=True),
    )


def network_input(image: Tensor, coverage: Tensor) -> Tensor:
    """Scale images to about 0..1 by their own percentiles and stack them with what the scan covers.

    Parameters
    ----------
    image
        Intensities, shape (batch, 1, x, y, z), any unit.
    coverage
        One where the scan has data, zero in the padding; same shape.

    Returns
    -------
    Tensor
        Shape (batch, 2, x, y, z).
    """
    scaled = torch.zeros_like(image)
    for index in range(image.shape[0]):
        inside = coverage[index] > 0
        values = image[index][inside].sort().values
        low = values[int(0.01 * (len(values) - 1))]
        high = values[int(0.995 * (len(values) - 1))]
        scaled[index] = ((image[index] - low) / (high - low).clamp(min=1e-12)).clamp(-0.5, 1.5)
    return torch.cat([scaled * (coverage > 0), coverage], dim=1)


# --- weights -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaskModel:
    """A loaded network and what its manifest says.

    Attributes
    ----------
    network
        In evaluation mode, on the CPU.
    manifest
        The JSON manifest.
    """

    network: MaskNet
    manifest: Mapping[str, Any]


def load_mask_model(folder: Path | None = None) -> MaskModel:
    """Load the brain mask network and check that its weights are the ones that its manifest names.

    Parameters
    ----------
    folder
        Folder of ``brain-mask.json`` and ``brain-mask.safetensors``; default the shipped ones.

    Returns
    -------
    MaskModel
        The network, ready to use.

    Raises
    ------
    ModelError
        If a file is missing or the weights are not what the manifest says.
    """
    from safetensors.torch import load

    folder = models_folder() / NAME if folder is None else folder
    manifest_path = folder / f"{NAME}.json"
    weights_path = folder / f"{NAME}.safetensors"
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        content = weights_path.read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder}: the brain mask network is missing or unreadable ({error}); reinstall bids-cmb."
        ) from error
    if hashlib.sha256(content).hexdigest() != manifest.get("sha256"):
        raise ModelError(f"{weights_path}: the weights are not those of the manifest; reinstall bids-cmb.")
    try:
        network = MaskNet(tuple(manifest["widths"]))
        network.load_state_dict(load(content))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{weights_path}: the weights belong to another version of the network; reinstall bids-cmb."
        ) from error
    network.eval()
    return MaskModel(network, manifest)
