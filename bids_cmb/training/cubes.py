"""The candidates that stage 2 learns from, and batches of them, augmented."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bids_cmb.detector.discriminate import CUBE_CHANNELS
from bids_cmb.errors import InputError
from bids_cmb.training.scan_candidates import ScanCandidates

#: Share of candidates whose place is kept back in training, and the blur of the others (half the box is 1).
_PLACES_KEPT_BACK, _PLACE_BLUR = 0.15, 0.05
#: Share of candidates that are zoomed, and the logarithms of the least and the greatest zoom: few simulated bleeds are
#: as wide as the largest real ones. All channels are zoomed, though the symmetry of a bleed twice as wide is another.
_ZOOMED, _ZOOMS = 0.25, (-0.1, 0.9)
#: Channels of the image in the near and the wide view, and what is left of the noise in the wide one, whose voxels are
#: means of four or eight.
_IMAGES, _NOISE_LEFT = (0, 3), (1.0, 0.4)


@dataclass(frozen=True)
class CubePool:
    """Candidates of all scans to train on.

    Attributes
    ----------
    cubes, segmentation
        (N, 6, 28, 28, 10) float16, (N, 1, 28, 28, 10) uint8.
    facts
        (N, 8) from `candidate_facts`.
    labels
        (N,) 0 or 1.
    draws
        (N,) how often a candidate is drawn beside the others of its label: how often its scan was listed.
    """

    cubes: Tensor
    segmentation: Tensor
    facts: Tensor
    labels: Tensor
    draws: Tensor

    @classmethod
    def of(cls, sets: Sequence[ScanCandidates], draws: Sequence[int] | None = None) -> CubePool:
        """Join the candidates of scans, without those to ignore.

        Parameters
        ----------
        sets
            Candidates, each scan once.
        draws
            How often the candidates of each scan are drawn beside those of the others; None: all alike.

        Raises
        ------
        InputError
            If there are not both microbleeds and others: nothing could be learnt.
        """
        keep = [s.labels >= 0 for s in sets]
        cubes, segmentation, facts, labels = (
            torch.cat([getattr(s, name)[k] for s, k in zip(sets, keep, strict=True)])
            for name in ("cubes", "segmentation", "facts", "labels")
        )
        bleeds = int((labels == 1).sum())
        if not 0 < bleeds < len(labels):
            raise InputError(
                f"Stage 2 has {bleeds} microbleeds and {len(labels) - bleeds} other candidates to learn from and needs "
                "both: train stage 1 for longer (--stage1-steps), or on more scans."
            )
        often = torch.tensor([1] * len(sets) if draws is None else list(draws))
        counts = torch.tensor([int(k.sum()) for k in keep])
        return cls(cubes, segmentation, facts, labels, torch.repeat_interleave(often, counts))

    def save(self, path: Path) -> None:
        """Write an uncompressed .npz, whole or not at all."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.npz")
        np.savez(
            partial,
            **{field.name: getattr(self, field.name).numpy() for field in fields(self)},
        )
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> CubePool:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If an earlier version wrote it, with other views of the candidates.
        """
        with np.load(path, allow_pickle=False) as store:
            arrays = {name: torch.from_numpy(store[name]) for name in store.files}
        # Earlier versions kept the candidates of a scan as often as it was listed.
        pool = cls(**{"draws": torch.ones_like(arrays["labels"]), **arrays})
        if pool.cubes.shape[1] != CUBE_CHANNELS:
            raise InputError(f"{path} was made by an earlier version: delete it, and it is made anew.")
        return pool


class CubeSampler:
    """Batches of augmented cubes, a third of them microbleeds."""

    def __init__(self, pool: CubePool, seed: int) -> None:
        self._pool = pool
        self._rng = np.random.default_rng(seed)
        places = torch.arange(len(pool.labels)).repeat_interleave(pool.draws)
        self._pools = [places[pool.labels[places] == value].numpy() for value in (0, 1)]

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cubes, segmentation, facts and labels of `size` candidates."""
        # A third on average, whatever the share of a batch that one process draws.
        positives = int(size / 3 + self._rng.random())
        picks = np.concatenate(
            [
                self._rng.choice(pool, n)
                for pool, n in zip(self._pools, (size - positives, positives), strict=True)
            ]
        )
        chosen = torch.from_numpy(picks)
        cubes, segmentation = self._moved(
            self._pool.cubes[chosen].float(), self._pool.segmentation[chosen].float()
        )
        cubes, segmentation = self._zoomed(cubes, segmentation)
        cubes[:, _IMAGES] = self._disturbed(cubes[:, _IMAGES])
        return cubes, segmentation, self._vague(self._pool.facts[chosen]), self._pool.labels[chosen].float()

    def _vague(self, facts: Tensor) -> Tensor:
        """Blur the places, and keep some back: the box around a brain is a rough guide, and may be wrong."""
        # As `candidate_facts` lays them out: column 4 says whether the place is known, 5 to 7 are the place.
        kept = torch.from_numpy(self._rng.random((len(facts), 1)) >= _PLACES_KEPT_BACK)
        blur = torch.from_numpy(self._rng.normal(0, _PLACE_BLUR, (len(facts), 3)).astype(np.float32))
        known = facts[:, 4:5] * kept
        return torch.cat([facts[:, :4], known, known * (facts[:, 5:] + blur)], dim=1)

    def _moved(self, cubes: Tensor, segmentation: Tensor) -> tuple[Tensor, Tensor]:
        """Shift (by a voxel of each view), mirror and turn: peaks do not always hit the centre, and slices lie any way."""
        moved = []
        for pair in zip(cubes, segmentation, strict=True):
            shift = [int(v) for v in self._rng.integers(-1, 2, 2)]
            flips = [axis for axis in (1, 2, 3) if self._rng.random() < 0.5]
            turn = self._rng.random() < 0.5
            both = [torch.roll(x, shift, (1, 2)).flip(flips) for x in pair]
            moved.append([x.transpose(1, 2) for x in both] if turn else both)
        one, other = zip(*moved, strict=True)
        return torch.stack(one), torch.stack(other)

    def _zoomed(self, cubes: Tensor, segmentation: Tensor) -> tuple[Tensor, Tensor]:
        """Enlarge some of the cubes (and shrink a few) about their middle, in all three directions."""
        chosen = torch.from_numpy(np.flatnonzero(self._rng.random(len(cubes)) < _ZOOMED))
        if not len(chosen):
            return cubes, segmentation
        scale = torch.from_numpy(np.exp(-self._rng.uniform(*_ZOOMS, len(chosen))).astype(np.float32))
        shrink = torch.cat(
            [torch.diag_embed(scale[:, None].expand(-1, 3)), torch.zeros(len(chosen), 3, 1)], dim=2
        )
        grid = nn.functional.affine_grid(shrink, [len(chosen), 1, *cubes.shape[2:]], align_corners=False)

        def zoomed(volumes: Tensor, mode: str) -> Tensor:
            part = nn.functional.grid_sample(volumes[chosen], grid, mode, align_corners=False)
            return volumes.index_copy(0, chosen, part)

        return zoomed(cubes, "bilinear"), zoomed(segmentation, "nearest")

    def _disturbed(self, image: Tensor) -> Tensor:
        """Change contrast and noise of both views (N, 2, x, y, z) within what scanners do; outside the brain stays 0."""
        size = (len(image), 1, 1, 1, 1)
        gain = torch.from_numpy(self._rng.uniform(0.7, 1.4, size).astype(np.float32))
        share = self._rng.random(size) < 0.5
        deviation = torch.from_numpy((share * self._rng.uniform(0, 0.06, size)).astype(np.float32))
        noise = torch.from_numpy(self._rng.standard_normal(image.shape, np.float32))
        left = torch.tensor(_NOISE_LEFT).reshape(1, 2, 1, 1, 1)
        return image * gain + noise * deviation * left * (image != 0)
