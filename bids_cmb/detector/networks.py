"""The networks: a candidate detector, a multi-task teacher and its student.

After Sundaresan 2023 (a U-Net that proposes, a teacher that segments and classifies, a student that classifies), made
small for a CPU and aware of thick slices: the first and the last pooling act in plane only.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing import Self

#: What stage 2 is told of a candidate besides its cube, see `bids_cmb.detector.discriminate.candidate_facts`.
FACTS = 8
#: Pooling of each level; slices are pooled once.
_POOLS = ((2, 2, 1), (2, 2, 2), (2, 2, 1))


def _block(inputs: int, outputs: int, depth_kernel: int = 3) -> nn.Sequential:
    """Two convolutions with batch normalisation; kernels of `depth_kernel` across slices."""
    layers: list[nn.Module] = []
    for channels, kernel in ((inputs, (3, 3, depth_kernel)), (outputs, (3, 3, depth_kernel))):
        layers += [
            nn.Conv3d(channels, outputs, kernel, padding=(1, 1, depth_kernel // 2), bias=False),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class CandidateNet(nn.Module):
    """Stage 1: 3-D U-Net from (image, symmetry) to a heat map with a peak on each candidate.

    Parameters
    ----------
    channels
        Input channels.
    widths
        Feature maps per level, four levels.
    """

    def __init__(self, channels: int = 2, widths: tuple[int, int, int, int] = (12, 24, 48, 72)) -> None:
        super().__init__()
        self.channels, self.widths = channels, widths
        self.down = nn.ModuleList()
        before = channels
        for level, width in enumerate(widths):
            self.down.append(_block(before, width, 1 if level == 0 else 3))
            before = width
        self.up = nn.ModuleList(_block(a + b, a, 1 if a == widths[0] else 3) for a, b in pairwise(widths))
        self.head = nn.Conv3d(widths[0], 1, 1)
        assert self.head.bias is not None  # noqa: S101 - for the type checker
        nn.init.constant_(self.head.bias, -4.0)  # candidates are rare

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, channels, x, y, z), x and y multiples of 8 and z of 2, to logits (N, 1, x, y, z)."""
        kept = []
        out = image
        for level, block in enumerate(self.down):
            if level:
                out = F.max_pool3d(out, _POOLS[level - 1])
            out = block(out)
            kept.append(out)
        for level in reversed(range(len(self.up))):
            block = cast("nn.Sequential", self.up[level])
            out = block[1:](_joined(cast("nn.Conv3d", block[0]), kept[level], out, _POOLS[level]))
        logits: Tensor = self.head(out)
        return logits


def _joined(convolution: nn.Conv3d, fine: Tensor, coarse: Tensor, pool: tuple[int, int, int]) -> Tensor:
    """Convolve the maps `fine` and, behind them, `coarse` enlarged by `pool` (nearest neighbours), making neither.

    Enlarging and convolving is one transposed convolution, whose kernel adds up what falls on the same coarse voxel:
    the same result with less work and memory (a whole stage 1: a quarter less time).
    """
    own, enlarged = convolution.weight.split([fine.shape[1], coarse.shape[1]], dim=1)
    kernel = enlarged.transpose(0, 1).flip(2, 3, 4)
    for axis, factor in enumerate(pool):
        if factor == 2:
            before = [0] * 6
            before[4 - 2 * axis] = 1  # `F.pad` counts axes from the last
            after = [0, *before[:-1]]
            kernel = F.pad(kernel, before) + F.pad(kernel, after)
    padding = tuple(n // 2 for n in convolution.kernel_size)
    out = F.conv3d(fine, own, convolution.bias, padding=padding)
    return out + F.conv_transpose3d(coarse, kernel, stride=pool, padding=padding)


class _Features(nn.Module):
    """Shared encoder of teacher and student: a cube, read in the light of what is known of its scan and place."""

    def __init__(self, channels: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        a, b, c = widths
        self.first, self.second, self.third = _block(channels, a, 1), _block(a, b), _block(b, c)
        self.facts = nn.Linear(FACTS, a)

    def forward(self, cube: Tensor, facts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = self.first(cube) + self.facts(facts)[:, :, None, None, None]
        second = self.second(F.max_pool3d(first, (2, 2, 1)))
        return first, second, self.third(F.max_pool3d(second, (2, 2, 2)))


class _Classifier(nn.Module):
    """From a cube's deep features to one logit: its centre, what is around it, the wide view, the place in the brain."""

    def __init__(self, channels: int, widths: tuple[int, int, int], hidden: int = 64) -> None:
        super().__init__()
        a, b, c = widths
        self.squeeze = _block(c, hidden)
        self.place = nn.Sequential(nn.Linear(FACTS, hidden), nn.ReLU(inplace=True))
        halved = (max(1, a // 2), max(1, b // 2), max(1, c // 2))
        self.wide = _Features(channels, halved)
        self.squeeze_wide = _block(halved[2], hidden // 2)
        self.decide = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(4 * hidden + 3 * (hidden // 2), hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, 1),
        )

    def forward(self, features: Tensor, wide_view: Tensor, facts: Tensor) -> Tensor:
        near = _pooled(self.squeeze(features))
        wide = _pooled(self.squeeze_wide(self.wide(wide_view, facts)[2]))
        logits: Tensor = self.decide(torch.cat([near, self.place(facts), wide], dim=1))[:, 0]
        return logits


def _pooled(out: Tensor) -> Tensor:
    """Mean at the centre, mean and largest everywhere: (N, C, x, y, z) to (N, 3 C)."""
    x, y, z = (n // 2 for n in out.shape[2:])
    centre = out[:, :, x - 1 : x + 2, y - 1 : y + 2, max(0, z - 1) : z + 1].mean(dim=(2, 3, 4))
    return torch.cat([centre, out.mean(dim=(2, 3, 4)), out.amax(dim=(2, 3, 4))], dim=1)


class _CandidateJudge(nn.Module):
    """What teacher and student share: an encoder of the near view, and the classifier.

    A cube comes as two views, one behind the other: `channels` maps of the near one, and as many of the wide one.
    """

    def __init__(self, channels: int = 3, widths: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__()
        self.channels, self.widths = channels, widths
        self.features = _Features(channels, widths)
        self.classifier = _Classifier(channels, widths)

    def classify(self, cube: Tensor, facts: Tensor) -> Tensor:
        """Map cubes (N, 2 channels, x, y, z) and facts (N, `FACTS`) to logits (N,)."""
        near, wide = cube.split(self.channels, dim=1)
        logits: Tensor = self.classifier(self.features(near, facts)[2], wide, facts)
        return logits

    def begin_with(self, other: _CandidateJudge) -> Self:
        """Take over encoder and classifier of a network of the same widths."""
        self.features.load_state_dict(other.features.state_dict())
        self.classifier.load_state_dict(other.classifier.state_dict())
        return self


class Student(_CandidateJudge):
    """Stage 2: says whether the candidate in the middle of a cube is a microbleed."""

    def forward(self, cube: Tensor, facts: Tensor) -> Tensor:
        """Map cubes (N, 2 channels, x, y, z) and facts (N, `FACTS`) to logits (N,)."""
        return self.classify(cube, facts)


class Teacher(_CandidateJudge):
    """Multi-task teacher: classifies the candidate and segments the microbleeds of its cube."""

    def __init__(self, channels: int = 3, widths: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__(channels, widths)
        a, b, c = widths
        self.up_second, self.up_first = _block(b + c, b), _block(a + b, a)
        self.segment = nn.Conv3d(a, 1, 1)

    def forward(self, cube: Tensor, facts: Tensor) -> tuple[Tensor, Tensor]:
        """Map cubes (N, 2 channels, x, y, z) and facts (N, `FACTS`) to class (N,) and voxel logits (N, 1, x, y, z)."""
        near, wide = cube.split(self.channels, dim=1)
        first, second, third = self.features(near, facts)
        out = self.up_second(
            torch.cat([second, F.interpolate(third, size=second.shape[2:], mode="nearest")], dim=1)
        )
        out = self.up_first(
            torch.cat([first, F.interpolate(out, size=first.shape[2:], mode="nearest")], dim=1)
        )
        return self.classifier(third, wide, facts), self.segment(out)
