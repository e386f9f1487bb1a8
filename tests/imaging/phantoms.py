"""Simulated heads for the tests of this folder: ellipsoids, nothing anatomical."""

import numpy as np

from bids_cmb.types import Volume


def _radius(shape, zooms, semi_axes, centre=(0, 0, 0)):
    axes = [(np.arange(n) - (n - 1) / 2) * z for n, z in zip(shape, zooms, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    a, b, c = semi_axes
    u, v, w = centre
    return np.sqrt(((x - u) / a) ** 2 + ((y - v) / b) ** 2 + ((z - w) / c) ** 2)


def brain(shape, zooms, scale=1.0):
    """Ellipsoid of 68 x 86 x 66 mm semi-axes, about 1600 ml."""
    return _radius(shape, zooms, np.array([68.0, 86.0, 66.0]) * scale) < 1


def head(shape=(96, 112, 96), zooms=(2.0, 2.0, 2.0), *, stripped=False, noise=2.0, seed=0):
    """Brain of 100, dark skull of 8 mm, scalp of 120 and 8 mm, air: a magnitude image."""
    inside = brain(shape, zooms)
    data = np.zeros(shape, np.float32)
    if not stripped:
        data[_radius(shape, zooms, (84, 102, 82)) < 1] = 120
        data[_radius(shape, zooms, (76, 94, 74)) < 1] = 8
    data[inside] = 100
    rng = np.random.default_rng(seed)
    noisy = np.abs(data + noise * rng.standard_normal(shape).astype(np.float32))
    if stripped:
        noisy[~inside] = 0
    return Volume(noisy.astype(np.float32), np.diag([*zooms, 1.0])), inside


def susceptibility(shape=(96, 112, 96), zooms=(2.0, 2.0, 2.0), *, masked=True, seed=0):
    """Map in ppm: noise of 0.03, bright nuclei and some bright vessels; blood positive."""
    rng = np.random.default_rng(seed)
    data = (0.03 * rng.standard_normal(shape)).astype(np.float32)
    for side in (-22, 22):
        data[_radius(shape, zooms, (10, 16, 9), (side, 5, 5)) < 1] += 0.1
    inside = brain(shape, zooms)
    veins = rng.random(shape) < 0.006
    data[veins & inside] += 0.15
    data[~inside] = 0 if masked else 0.3 * rng.standard_normal(int((~inside).sum()))
    return Volume(data, np.diag([*zooms, 1.0])), inside


def dice(a, b):
    """Overlap of two masks."""
    return 2 * (a & b).sum() / (a.sum() + b.sum())
