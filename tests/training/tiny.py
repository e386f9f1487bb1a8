"""Small made-up scans with their truth: seconds, not minutes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bids_cmb.training.simulate.lesions import Deposit
from bids_cmb.training.simulate.protocol import Protocol
from bids_cmb.training.simulate.scan import SimulatedScan
from bids_cmb.training.simulate.truth import Lesion


def tiny_scan(seed: int, bleeds: int = 3) -> SimulatedScan:
    """A ball of textured tissue with dark balls in it: not physics, but a scan with its truth."""
    shape, zooms = (40, 44, 14), np.array([2.0, 2.0, 5.0])
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = -zooms * (np.array(shape) - 1) / 2
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1) * zooms + affine[:3, 3]
    mask = ((grid / np.array([34.0, 38.0, 30.0])) ** 2).sum(-1) < 1
    image = np.where(mask, 1000.0, 0.0) * (1 + 0.03 * rng.normal(size=shape))
    labels = np.zeros(shape, np.uint8)
    lesions = []
    for number in range(1, bleeds + 1):
        place = np.array([-32.0 + 16 * number, rng.uniform(-15, 15), rng.uniform(-8, 8)])
        near = np.linalg.norm(grid - place, axis=-1) < 4.0
        image[near] *= 0.3
        labels[near] = number
        x, y, z = (float(v) for v in place)
        deposit = Deposit((0.0, 0.0, 0.0), 4.0, 1.0, 100.0, "white matter")
        lesions.append(Lesion(number, (x, y, z), 6.0, 0.7, True, deposit))
    protocol = Protocol("gre", (2.0, 2.0, 5.0), 1.0, False, 0.02, 3.0, 30.0, True, (0.0, 0.0, 0.0))
    mimics = (((0.0, 0.0, 0.0), 1.0, "pallidum"),)
    return SimulatedScan(
        image.astype(np.float32),
        affine,
        mask,
        labels,
        tuple(lesions),
        mimics,
        np.zeros_like(labels),
        protocol,
        seed,
        f"ball{seed}",
    )


def invisible(scan: SimulatedScan) -> SimulatedScan:
    """The same scan, its lesions too faint for a rater."""
    return replace(scan, lesions=tuple(replace(x, visible=False) for x in scan.lesions))
