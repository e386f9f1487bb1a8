"""What the bleeds that are missed look like: share found by size, contrast, texture and neighbours.

    python benchmarks/missed.py SIMULATED [--model NAME_OR_PATH] [--processes 4]

SIMULATED is a folder of ``bids-cmb-train simulate``. Each scan goes through the whole main job, at the model's
operating points. Of every visible bleed four things are measured on the image itself, as a rater sees them, and the
share found is printed for each fifth of the bleeds of a contrast, from the least to the greatest value:

- ``diameter``: apparent, mm;
- ``contrast``: mean of the outline against the median of the tissue 1 to 7 mm from it (GRE, SWI: share of signal lost;
  QSM: ppm gained);
- ``over texture``: that, over the robust standard deviation of the same tissue;
- ``alike beside``: share of the voxels within 2.5 mm, in the brain, that are at least half as dark (QSM: bright).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.evaluation.matching import match_scan
from bids_cmb.training.held_out import judge_scans
from bids_cmb.training.simulate.corpus import load_scan, scans_in
from bids_cmb.training.simulate.scan import SimulatedScan
from bids_cmb.types import CONTRASTS

NAMES = ("diameter", "contrast", "over texture", "alike beside")


def measured(scan: SimulatedScan, number: int) -> tuple[float, float, float, float]:
    """Diameter, contrast, contrast over texture and likeness of the surround of one bleed; NaN where there is none."""
    lesion = scan.lesions[number]
    zooms = np.linalg.norm(scan.affine[:3, :3], axis=0)
    whole = scan.lesion_labels == lesion.index
    reach = np.ceil(8 / zooms).astype(int)
    where = np.argwhere(whole)
    box = tuple(
        slice(max(0, a - r), b + r + 1)
        for a, b, r in zip(where.min(axis=0), where.max(axis=0), reach, strict=True)
    )
    own, image, brain = whole[box], scan.image[box], scan.brain_mask[box]
    distance = ndimage.distance_transform_edt(~own, sampling=zooms)
    ring = brain & (distance > 1) & (distance < 7)
    beside = brain & ~ndimage.binary_dilation(own, np.ones((3, 3, 1))) & (distance < 2.5)
    if not ring.any() or not beside.any():
        return lesion.diameter, np.nan, np.nan, np.nan
    level = float(np.median(image[ring]))
    texture = 1.48 * float(np.median(np.abs(image[ring] - level)))
    sign, scale = (1, 1.0) if scan.protocol.contrast == "qsm" else (-1, max(level, 1e-6))
    gain = sign * (float(image[own].mean()) - level)
    alike = sign * (image[beside] - level) > gain / 2
    return lesion.diameter, gain / scale, gain / max(texture, 1e-6), float(alike.mean())


def by_fifths(values: npt.NDArray[np.float64], found: npt.NDArray[np.bool_]) -> str:
    """Share found in each fifth of the values, with the value at its upper end."""
    known = np.isfinite(values)
    order = np.argsort(values[known], kind="stable")
    parts = np.array_split(order, 5)
    return "   ".join(
        f"to {values[known][p].max():5.2f}: {found[known][p].mean():.2f} ({found[known][p].sum()}/{len(p)})"
        for p in parts
        if len(p)
    )


def main() -> None:
    """Judge, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    rows: dict[str, list[tuple[float, ...]]] = {c: [] for c in CONTRASTS}
    paths = scans_in(arguments.folder)
    for path, result in judge_scans(paths, arguments.model, processes=arguments.processes):
        scan = load_scan(path)
        match = match_scan(result.pair)
        missed = match.missed
        for number in match.counted:
            rows[result.contrast].append((float(number not in missed), *measured(scan, number)))
    for contrast, lines in rows.items():
        if not lines:
            continue
        table = np.array(lines)
        print(f"{contrast}: {int(table[:, 0].sum())} of {len(table)} visible bleeds found")
        for column, name in enumerate(NAMES, start=1):
            print(f"  {name:13} {by_fifths(table[:, column], table[:, 0] > 0)}")


if __name__ == "__main__":
    main()
