from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bids_cmb import files
from bids_cmb.files import TEMPORARY_PREFIX, compress, remove_abandoned, write_bytes, write_json


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new" / "file.txt"
    write_bytes(target, b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_bytes(target, b"new content")
    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"], "the unfinished file is gone"


def test_same_content_is_not_written_again(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_bytes(target, b"same")
    os.utime(target, (1, 1))
    write_bytes(target, b"same")
    assert target.stat().st_mtime == 1


def test_compressed_bytes_do_not_depend_on_the_time() -> None:
    first = compress(b"x" * 1000)
    time.sleep(1.1)
    assert compress(b"x" * 1000) == first


def test_json_has_no_numbers_that_json_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})


def test_unfinished_files_of_dead_processes_go_and_others_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    place = files._place()
    names = {
        "dead": f"{TEMPORARY_PREFIX}{place}-{dead.pid}-ab12-x.json",
        "alive": f"{TEMPORARY_PREFIX}{place}-{os.getppid()}-ab12-x.json",
        "elsewhere": f"{TEMPORARY_PREFIX}0000aaaa-{dead.pid}-ab12-x.json",
        "elsewhere, old": f"{TEMPORARY_PREFIX}0000aaaa-{dead.pid}-cd34-x.json",
        "not ours": ".hidden",
    }
    for name in names.values():
        (tmp_path / name).touch()
    os.utime(tmp_path / names["elsewhere, old"], (1, 1))
    removed = {path.name for path in remove_abandoned(tmp_path)}
    assert removed == {names["dead"], names["elsewhere, old"]}
    assert remove_abandoned(tmp_path / "nowhere") == []
