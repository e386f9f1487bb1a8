"""What counts as visible: a dot that a rater could tell from what lies beside it."""

from __future__ import annotations

import numpy as np

from bids_cmb.training.simulate.truth import merged_share


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
