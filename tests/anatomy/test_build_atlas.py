"""What the builder of the atlas adds to the parcellation that it starts from."""

from __future__ import annotations

import numpy as np

from bids_cmb.anatomy import landmarks
from bids_cmb.anatomy.build_atlas import with_occipital_horns
from bids_cmb.anatomy.template import load_mars
from bids_cmb.types import MARS_REGIONS


def test_ventricles_go_on_into_the_fluid_behind_them_and_into_no_other() -> None:
    affine = np.eye(4)
    affine[:3, 3] = (-20, -80, -5)
    shape = (41, 50, 11)
    labels = np.full(shape, 41, np.int16)
    labels[:20] = 2
    white = np.ones(shape, np.float32)
    for left, x in ((4, 10), (43, 30)):
        labels[x - 2 : x + 3, 30:45, 3:8] = left
        white[x - 2 : x + 3, 30:45, 3:8] = 0
        white[x - 1 : x + 2, 8:30, 4:7] = 0.5  # the horn
        white[x - 1 : x + 2, 2:6, 4:7] = 0  # fluid that does not hang together with it
        white[x + 2, 24:28, 4:7] = 0  # nor what touches it and is no tissue: a sulcus
        labels[x + 2, 24:28, 4:7] = 0
    across, y, _ = landmarks.world_grid(shape, affine)
    left_half = np.broadcast_to(across <= 0, shape)
    out = with_occipital_horns(labels, np.ones(shape, bool), left_half, 1 - white, y)
    for left, x in ((4, 10), (43, 30)):
        assert (out[x - 1 : x + 2, 8:30, 4:7] == left).all()
        assert (out[x - 1 : x + 2, 2:6, 4:7] == labels[x - 1 : x + 2, 2:6, 4:7]).all()
        assert (out[x + 2, 24:28, 4:7] == 0).all()
    assert np.count_nonzero(out != labels) == 2 * 3 * 22 * 3


def test_white_matter_beside_the_occipital_horn_is_deep() -> None:
    atlas = load_mars()
    deep = [code for code, _, _ in MARS_REGIONS].index("DPWM") + 1
    for x in (-31, 31):
        i, j, k = (np.linalg.inv(atlas.affine) @ [x, -71, 6, 1])[:3].astype(int)
        assert atlas.labels[i, j, k] % 100 == deep
