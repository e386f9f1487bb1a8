"""A network as it is run: the same function in less time."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


def folded(network: Network) -> Network:
    """Return a copy with each batch normalisation worked into the convolution before it, and channels last in memory.

    Both stages take less time so on a CPU. `network` must be in evaluation mode, and what it is
    given should have its channels last too.
    """
    out = copy.deepcopy(network)
    for part in list(out.modules()):
        if isinstance(part, nn.Sequential):
            for i, (layer, following) in enumerate(pairwise(list(part))):
                if isinstance(layer, nn.Conv3d) and isinstance(following, nn.BatchNorm3d):
                    part[i], part[i + 1] = fuse_conv_bn_eval(layer, following), nn.Identity()
    out.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return out
