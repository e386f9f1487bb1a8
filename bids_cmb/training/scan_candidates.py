"""Stage-1 candidates of whole scans, matched to the lesions: what stage 2 learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bids_cmb.detector.candidates import find_peaks, heat_map
from bids_cmb.detector.discriminate import candidate_facts, cut_cubes, stage2_cubes
from bids_cmb.detector.networks import CandidateNet
from bids_cmb.training.samples import TrainingScan

#: Candidates kept per scan for training, highest first: more would only repeat easy ones.
_MOST = 80
#: The tensors of `ScanCandidates`, a row for each candidate.
_ROWS = ("cubes", "segmentation", "facts", "heights", "labels")


@dataclass(frozen=True)
class ScanCandidates:
    """Stage-1 candidates of one scan.

    Attributes
    ----------
    scan
        Where they come from.
    cubes
        (N, 6, 28, 28, 10) float16.
    segmentation
        (N, 1, 28, 28, 10) uint8.
    facts
        (N, 8) from `candidate_facts`.
    heights
        (N,) stage-1 scores; 0 for lesions that stage 1 missed (training only).
    labels
        (N,) 1 microbleed, 0 not, -1 ignore.
    missed
        Number of lesions without a candidate.
    """

    scan: TrainingScan
    cubes: Tensor
    segmentation: Tensor
    facts: Tensor
    heights: Tensor
    labels: Tensor
    missed: int

    def above(self, height: float) -> ScanCandidates:
        """Return those at least so high; lesions whose peak is lower count as missed."""
        kept = self.heights >= height
        lost = int((self.labels[~kept] == 1).sum())
        rows = {name: getattr(self, name)[kept] for name in _ROWS}
        return replace(self, missed=self.missed + lost, **rows)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the scan, for `of`."""
        return {name: getattr(self, name).numpy() for name in _ROWS} | {"missed": np.array(self.missed)}

    @classmethod
    def of(cls, scan: TrainingScan, arrays: Mapping[str, np.ndarray]) -> ScanCandidates:
        """Put together a scan and what `arrays` gave."""
        rows = {name: torch.from_numpy(arrays[name]) for name in _ROWS}
        return cls(scan=scan, missed=int(arrays["missed"]), **rows)


def collect_candidates(
    network: CandidateNet, scan: TrainingScan, *, threshold: float, add_missed: bool
) -> ScanCandidates:
    """Run stage 1 on a whole scan and match its candidates to the lesions.

    Parameters
    ----------
    network
        Stage 1.
    scan
        With lesions.
    threshold
        Least peak height.
    add_missed
        For training: keep the highest `_MOST` candidates and return missed lesions as positives too.
    """
    channels = scan.channels.float()
    heat = heat_map(network, channels)
    peaks, heights = find_peaks(heat, scan.spacing, threshold)
    if add_missed:
        peaks, heights = peaks[:_MOST], heights[:_MOST]
    labels, found = label_peaks(peaks.numpy(), scan)
    missing = torch.from_numpy(scan.lesions[~found]).round().long()
    missed = len(missing)
    if add_missed and missed:
        size = torch.tensor(heat.shape)
        peaks = torch.cat([peaks, torch.minimum(missing.clamp(min=0), size - 1)])
        heights = torch.cat([heights, torch.zeros(missed)])
        labels = np.concatenate([labels, np.ones(missed, np.int64)])
    cubes = stage2_cubes(channels, heat, peaks, scan.spacing).half()
    return ScanCandidates(
        scan,
        cubes,
        cut_cubes(scan.segmentation[None], peaks),
        candidate_facts(scan.contrast, scan.grid, peaks),
        heights,
        torch.from_numpy(labels),
        missed,
    )


def label_peaks(peaks: npt.NDArray[np.int64], scan: TrainingScan) -> tuple[np.ndarray, np.ndarray]:
    """Say which peaks are lesions: a lesion takes the first peak within 3 mm, or within its radius + 1 mm.

    Parameters
    ----------
    peaks
        (N, 3) working voxels, highest first.
    scan
        With lesions.

    Returns
    -------
    tuple
        Labels (N,): 1 microbleed, 0 not, -1 a further peak on a lesion, or one on a lesion that does not count; and
        which lesions (M,) have a peak.
    """
    spacing = np.array(scan.spacing)
    labels = np.zeros(len(peaks), np.int64)
    found = np.zeros(len(scan.lesions), bool)
    reach = np.maximum(3.0, scan.diameters / 2 + 1.0)
    for i, peak in enumerate(peaks):
        if len(scan.lesions):
            distance = np.linalg.norm((scan.lesions - peak) * spacing, axis=1)
            hits = np.flatnonzero((distance <= reach) & ~found)
            if len(hits):
                found[hits[np.argmin(distance[hits])]] = True
                labels[i] = 1
                continue
            if (distance <= reach).any():
                labels[i] = -1  # a second peak on a lesion
                continue
        # The slices beside that of its centre show a lesion too, and thick ones lie further from it than its radius.
        on_outline = bool(scan.segmentation[tuple(peak)] > 0)
        apart = np.linalg.norm((scan.ignored - peak) * spacing, axis=1)
        if on_outline or (apart <= np.maximum(3.5, scan.ignored_diameters / 2)).any():
            labels[i] = -1
    return labels, found
