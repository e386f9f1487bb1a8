"""A whole simulated scan, coarse for speed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from bids_cmb.errors import InputError
from bids_cmb.training.simulate.corpus import load_scan, make_corpus, plan, save_scan
from bids_cmb.training.simulate.heads import save_head, shipped_head
from bids_cmb.training.simulate.lesions import LargeBleeds
from bids_cmb.training.simulate.physics import Acquisition
from bids_cmb.training.simulate.protocol import Protocol
from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.training.simulate.scan import SimulatedScan, _stripped_mask, simulate_session

PROTOCOLS = {
    "swi": Protocol("swi", (1.2, 1.2, 1.8), 1.0, True, 0.02, 3.0, 30.0, True, (5.0, 0.0, 0.0)),
    "qsm": Protocol("qsm", (1.2, 1.2, 1.8), 1.0, True, 0.02, 3.0, 50.0, True, (5.0, 0.0, 0.0)),
}


def simulate(seed: int = 11) -> dict[str, SimulatedScan]:
    contrasts = ("swi", "qsm")
    scans = simulate_session(shipped_head(), seed, contrasts, count=25, protocols=PROTOCOLS, spacing=1.2)
    return dict(zip(contrasts, scans, strict=True))


@pytest.fixture(scope="module")
def session() -> dict[str, SimulatedScan]:
    return simulate()


def test_a_seed_gives_the_same_bytes_again(session: dict[str, SimulatedScan]) -> None:
    again = simulate()
    for contrast, scan in session.items():
        assert scan.image.tobytes() == again[contrast].image.tobytes()
        assert scan.lesions == again[contrast].lesions


def test_bleeds_are_dark_on_swi_and_bright_on_qsm(session: dict[str, SimulatedScan]) -> None:
    for contrast, sign in (("swi", -1), ("qsm", 1)):
        scan = session[contrast]
        seen = [x for x in scan.lesions if x.visible]
        assert seen
        level = np.median(scan.image[scan.brain_mask])
        inside = [
            scan.image[scan.lesion_labels == x.index].mean()
            for x in seen
            if (scan.lesion_labels == x.index).any()
        ]
        assert np.mean(np.sign(np.array(inside) - level) == sign) > 0.9


def test_susceptibilities_are_those_of_a_brain(session: dict[str, SimulatedScan]) -> None:
    scan = session["qsm"]
    inside = scan.image[scan.brain_mask]
    assert inside.std() < 0.25
    assert np.quantile(np.abs(inside), 0.999) < 2.0


def test_positions_point_into_their_outline(session: dict[str, SimulatedScan]) -> None:
    scan = session["swi"]
    inverse = np.linalg.inv(scan.affine)
    zooms = np.linalg.norm(scan.affine[:3, :3], axis=0)
    for lesion in (x for x in scan.lesions if x.visible):
        own = np.argwhere(scan.lesion_labels == lesion.index)
        centre = inverse[:3, :3] @ np.array(lesion.position) + inverse[:3, 3]
        assert np.linalg.norm((own.mean(0) - centre) * zooms) < 3.5


def test_contrasts_share_their_bleeds(session: dict[str, SimulatedScan]) -> None:
    swi, qsm = ({x.deposit for x in session[c].lesions} for c in ("swi", "qsm"))
    assert swi & qsm
    assert all(d in swi for d in qsm) or all(d in qsm for d in swi)


def test_a_contrast_named_twice_is_acquired_twice(tmp_path) -> None:
    save_head(shipped_head(), tmp_path / "head.npz")
    orders = plan(
        tmp_path,
        [tmp_path / "head.npz"],
        1,
        first_seed=3,
        contrasts=("gre", "gre"),
        spacing=2.0,
        count=(4, 6),
        large=LargeBleeds(1.0),
    )
    assert [path.name for _, path in orders[0].paths] == ["gre_head_3.npz", "gre_head_3_2.npz"]
    list(make_corpus(orders, processes=1))
    one, two = (load_scan(path) for _, path in orders[0].paths)
    assert one.protocol != two.protocol
    assert one.protocol.tilt == two.protocol.tilt
    drawn = {x.deposit for x in one.lesions} | {x.deposit for x in two.lesions}
    assert 1 <= len(drawn) <= 6
    assert all(3.0 <= deposit.diameter <= 10.0 for deposit in drawn)


def test_a_scan_survives_its_file(session: dict[str, SimulatedScan], tmp_path) -> None:
    save_scan(session["qsm"], tmp_path / "scan.npz")
    loaded = load_scan(tmp_path / "scan.npz")
    assert loaded.lesions == session["qsm"].lesions
    assert loaded.protocol == session["qsm"].protocol
    np.testing.assert_allclose(loaded.image, session["qsm"].image, atol=2e-3, rtol=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["scan.npz"]


def test_another_file_is_refused_in_a_sentence(tmp_path) -> None:
    (tmp_path / "x.npz").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"x\.npz is not a simulated scan"):
        load_scan(tmp_path / "x.npz")


def test_stripping_leaves_no_islands_far_from_the_brain() -> None:
    axis = torch.arange(80.0) - 40
    distance = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt() * 2.0
    acquisition = cast("Acquisition", SimpleNamespace(voxel=(2.0, 2.0, 2.0), final_size=(80, 80, 80)))
    for seed in range(12):
        mask = _stripped_mask(distance < 40, None, acquisition, RandomSource(seed))
        assert mask.any()
        assert not bool((mask & (distance > 46)).any())
