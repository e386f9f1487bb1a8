"""What counts as visible: a dot that a rater could tell from what lies beside it."""

from __future__ import annotations

import numpy as np

from bids_cmb.training.simulate.truth import merged_share, stands_out


def _scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = np.ones((21, 21, 5), np.float32)
    own = np.zeros(image.shape, bool)
    own[9:12, 9:12, 2] = True
    image[own] = 0.2
    return image, own, np.ones(image.shape, bool)


def test_a_dot_in_even_tissue_stands_alone() -> None:
    image, own, mask = _scene()
    assert merged_share(image, own, mask, mask & ~own, "gre") == 0.0


def test_a_dot_on_a_vein_or_at_the_border_of_the_brain_does_not() -> None:
    image, own, mask = _scene()
    image[:, 8:13, 2][~own[:, 8:13, 2]] = 0.25  # a vein as wide as the dot
    assert merged_share(image, own, mask, mask & ~own, "gre") > 0.5
    image, own, mask = _scene()
    mask[12:] = False
    assert merged_share(image, own, mask, mask & ~own, "gre") >= 5 / 16


def test_on_qsm_bright_neighbours_count() -> None:
    image, own, mask = _scene()
    image = 1 - image
    assert merged_share(image, own, mask, mask & ~own, "qsm") == 0.0
    image[12, :, 2] = 0.9
    assert merged_share(image, own, mask, mask & ~own, "qsm") >= 5 / 16


def _seen(depth: float, size: int, noise: float = 0.05) -> bool:
    image = 1 + np.random.default_rng(4).normal(0, noise, (21, 21, 7)).astype(np.float32)
    clean = image.copy()
    own = np.zeros(image.shape, bool)
    first = 10 - size // 2
    own[first : first + size, first : first + size, 3] = True
    image[own] -= np.float32(depth)
    axes = np.meshgrid(*[np.arange(n) - n // 2 for n in image.shape], indexing="ij")
    distance = np.sqrt(sum(a**2 for a in axes)).astype(np.float32)
    return stands_out(own, distance, clean, image, np.ones_like(own), depth, noise, "gre")


def test_a_bleed_counts_from_three_times_the_texture_and_a_smaller_one_from_more() -> None:
    assert _seen(0.19, 3)
    assert not _seen(0.11, 3)
    # One voxel must stand out from five times the noise (Rose), or chance makes as dark ones.
    assert not _seen(0.19, 1)
    assert _seen(0.40, 1)
