"""Folders of simulated scans: what a killed run leaves is passed over and cleared away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bids_cmb.errors import InputError
from bids_cmb.files import TEMPORARY_PREFIX, private_prefix
from bids_cmb.training.cli import main
from bids_cmb.training.simulate import corpus
from bids_cmb.training.simulate.corpus import (
    heads_in,
    load_scan,
    make_corpus,
    plan,
    save_scan,
    scans_in,
)
from tests.training.tiny import tiny_scan

DEAD = 4_194_304  # above the largest process number


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two scans of two heads."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed in (1, 2):
        save_scan(tiny_scan(seed), folder / f"gre_ball{seed}_{seed}.npz")
    return folder


def _cut_off(path: Path, whole: Path) -> Path:
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return path


def _left_by(process: int) -> str:
    """Name of a file that this process had begun on this machine."""
    return private_prefix(TEMPORARY_PREFIX).rsplit("-", 2)[0] + f"-{process}-gre_ball3_3.npz"


@pytest.mark.parametrize("name", [_left_by(DEAD), ".gre_ball3.77.npz"])
def test_unfinished_scans_are_no_scans(name: str, folder: Path) -> None:
    whole = scans_in(folder)
    _cut_off(folder / name, whole[0])
    assert scans_in(folder) == whole == [folder / "gre_ball1_1.npz", folder / "gre_ball2_2.npz"]
    assert heads_in(folder) == {"ball1", "ball2"}


def test_scans_of_one_contrast_are_listed(folder: Path) -> None:
    save_scan(tiny_scan(1), folder / "swi_ball1_1.npz")
    assert [path.name for path in scans_in(folder, "swi")] == ["swi_ball1_1.npz"]
    assert len(scans_in(folder)) == 3
    assert scans_in(folder / "nowhere") == []


def test_what_a_killed_simulation_left_is_removed_when_it_goes_on(folder: Path) -> None:
    dead, ours = folder / _left_by(DEAD), folder / f"{private_prefix(TEMPORARY_PREFIX)}gre_ball3_3.npz"
    for path in (dead, ours):
        _cut_off(path, folder / "gre_ball1_1.npz")
    orders = plan(folder, [Path("ball1.npz")], 1, first_seed=1, contrasts=("gre",))
    assert list(make_corpus(orders, processes=1)) == orders  # it is there
    assert not dead.exists()
    assert ours.exists(), "another simulation may be at work in the same folder"


def test_a_scan_in_the_making_has_a_name_that_is_cleared_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def full(path: Path, **_: object) -> None:
        path.write_bytes(b"half a scan")
        seen.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(corpus.np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        save_scan(tiny_scan(3), folder / "gre_ball3_3.npz")
    assert seen[0].name.startswith(private_prefix(TEMPORARY_PREFIX))
    assert [path.name for path in sorted(folder.iterdir())] == ["gre_ball1_1.npz", "gre_ball2_2.npz"]


@pytest.mark.parametrize("what", ["empty", "cut off", "damaged", "an array", "other arrays"])
def test_another_file_is_refused_in_a_sentence(what: str, folder: Path) -> None:
    path, whole = folder / "gre_x_3.npz", folder / "gre_ball1_1.npz"
    if what == "empty":
        path.touch()
    elif what == "cut off":
        _cut_off(path, whole)
    elif what == "damaged":
        content = whole.read_bytes()
        path.write_bytes(content[:200] + bytes(len(content) - 1200) + content[-1000:])
    elif what == "an array":
        np.save(folder / "x.npy", np.zeros(3))
        (folder / "x.npy").rename(path)
    else:
        np.savez(path, image=np.zeros(3))
    for read in (load_scan, lambda path: heads_in(path.parent)):
        with pytest.raises(InputError, match=r"gre_x_3\.npz is not a simulated scan"):
            read(path)


def test_a_scan_that_was_cut_off_ends_a_training_with_a_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _cut_off(folder / "gre_x_3.npz", folder / "gre_ball1_1.npz")
    command = ["train", str(folder), str(folder), "--out", str(tmp_path / "m"), "--processes", "1"]
    assert main(command) == 1
    assert "gre_x_3.npz is not a simulated scan" in capsys.readouterr().err
