"""The networks: a candidate detector, a multi-task teacher and its student.

After Sundaresan 2023 (a U-Net that proposes, a teacher that segments and classifies, a student that classifies), made
small for a CPU and aware of thick slices: the first and the last pooling act in plane only.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
            out = F.interpolate(out, scale_factor=_POOLS[level], mode="nearest")
            out = self.up[level](torch.cat([kept[level], out], dim=1))
        logits: Tensor = self.head(out)
        return logits


class _Features(nn.Module):
    """Shared encoder of teacher and student: a cube, read in the light of what is known of its scan and place."""

    def __init__(self, channels: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        self.channels, self.widths = channels, widths
        a, b, c = widths
        self.first, self.second, self.third = _block(channels, a, 1), _block(a, b), _block(b, c)
        self.facts = nn.Linear(FACTS, a)

    def forward(self, cube: Tensor, facts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = self.first(cube) + self.facts(facts)[:, :, None, None, None]
        second = self.second(F.max_pool3d(first, (2, 2, 1)))
        return first, second, self.third(F.max_pool3d(second, (2, 2, 2)))


class _Classifier(nn.Module):
    """From deep features to one logit: what is at the centre, what around it, and where in the brain it lies."""

    def __init__(self, inputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.squeeze = _block(inputs, hidden)
        self.place = nn.Sequential(nn.Linear(FACTS, hidden), nn.ReLU(inplace=True))
        self.decide = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(4 * hidden, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 1)
        )

    def forward(self, features: Tensor, facts: Tensor) -> Tensor:
        out = self.squeeze(features)
        x, y, z = (n // 2 for n in out.shape[2:])
        centre = out[:, :, x - 1 : x + 2, y - 1 : y + 2, max(0, z - 1) : z + 1].mean(dim=(2, 3, 4))
        pooled = torch.cat(
            [centre, out.mean(dim=(2, 3, 4)), out.amax(dim=(2, 3, 4)), self.place(facts)], dim=1
        )
        logits: Tensor = self.decide(pooled)[:, 0]
        return logits


class Student(nn.Module):
    """Stage 2: says whether the candidate in the middle of a cube is a microbleed."""

    def __init__(self, channels: int = 3, widths: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__()
        self.channels, self.widths = channels, widths
        self.features = _Features(channels, widths)
        self.classifier = _Classifier(widths[2])

    def forward(self, cube: Tensor, facts: Tensor) -> Tensor:
        """Map cubes (N, channels, x, y, z) and facts (N, `FACTS`) to logits (N,)."""
        logits: Tensor = self.classifier(self.features(cube, facts)[2], facts)
        return logits


class Teacher(nn.Module):
    """Multi-task teacher: classifies the candidate and segments the microbleeds of its cube."""

    def __init__(self, channels: int = 3, widths: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__()
        a, b, c = widths
        self.features = _Features(channels, widths)
        self.classifier = _Classifier(c)
        self.up_second, self.up_first = _block(b + c, b), _block(a + b, a)
        self.segment = nn.Conv3d(a, 1, 1)

    def classify(self, cube: Tensor, facts: Tensor) -> Tensor:
        """Only the class logits (N,) of `forward`: a student needs no more, and the other branch costs most."""
        logits: Tensor = self.classifier(self.features(cube, facts)[2], facts)
        return logits

    def forward(self, cube: Tensor, facts: Tensor) -> tuple[Tensor, Tensor]:
        """Map cubes (N, channels, x, y, z) and facts (N, `FACTS`) to class logits (N,) and voxel logits (N, 1, x, y, z)."""
        first, second, third = self.features(cube, facts)
        out = self.up_second(
            torch.cat([second, F.interpolate(third, size=second.shape[2:], mode="nearest")], dim=1)
        )
        out = self.up_first(
            torch.cat([first, F.interpolate(out, size=first.shape[2:], mode="nearest")], dim=1)
        )
        return self.classifier(third, facts), self.segment(out)
