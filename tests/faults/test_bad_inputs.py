"""Every case of the corpus ends in its sentence and its status, costs no other scan and leaves nothing half-written."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_run
import pytest
from bad_case import Case, World
from bad_datasets import FILES
from bad_images import IMAGES
from bad_inputs import CASES
from fake_run import complete_scans, unfinished

import bids_cmb.participant
from bids_cmb.cli import parse

Run = Callable[..., int]
_SCAN_LEVEL = tuple(case for case in (*IMAGES, *FILES) if not case.real and case.privileges)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run writes of the good scan when nothing is wrong."""
    world = World(tmp_path_factory.mktemp("undisturbed")).make()
    with pytest.MonkeyPatch.context() as patch:
        from conftest import HereWorkers

        fake_run.install(patch.setitem)
        patch.setattr(bids_cmb.participant, "Workers", HereWorkers)
        assert (
            bids_cmb.participant.run_participant(parse([str(world.raw), str(world.out), "participant"])) == 0
        )
    return results_of_good(world.out)


def results_of_good(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "sub-good" / "anat").glob("*"))}


def sidecar_warnings(out: Path) -> str:
    """What the sidecars of the other scans warn of."""
    found = []
    for path in out.glob("sub-[!g]*/**/*_seg-CMB_dseg.json"):
        if path.is_file():
            found += json.loads(path.read_text()).get("Warnings", [])
    return "\n".join(found)


@contextlib.contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Lay down root's right to read and write everything; tests in containers run as root."""
    if os.geteuid() != 0:
        yield
        return
    if not sys.platform.startswith("linux"):
        pytest.skip("root cannot lay down its rights here")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    rights = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, rights) == 0
    before = rights[0]
    rights[0] = before & ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, rights) == 0
    try:
        # By itself it asks what the real user might do, who is still root.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "access", functools.partial(os.access, effective_ids=True))
            yield
    finally:
        rights[0] = before
        assert libc.capset(header, rights) == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_ends_in_its_sentence_and_status(
    case: Case,
    run_here: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, bytes],
) -> None:
    world = World(tmp_path).make()
    if case.earlier:
        assert run_here(world.raw, world.out) == 0
        capsys.readouterr()
    options = list(case.build(world) or ())
    for room in case.real:
        monkeypatch.delitem(sys.modules, f"bids_cmb.{room}")
        importlib.import_module(f"bids_cmb.{room}")
    if "-w" not in options:
        options += ["-w", str(tmp_path / "work")]
    outside = sorted((tmp_path / "outside").rglob("*"))
    with contextlib.nullcontext() if case.privileges else bound_by_permissions():
        # Two scans at once, so that what looks at files before the first scan is tried as well.
        status = run_here(world.raw, world.out, *options, "--nprocs", "2", level=case.level)
    for path in (world.root, *world.raw.rglob("*")):
        if not path.is_symlink() and path.stat().st_mode & 0o777 == 0:
            path.chmod(0o755)
    said = capsys.readouterr()
    everything = said.out + said.err + sidecar_warnings(world.out)
    if case.level == "group" and (world.out / "group_cmb.tsv").exists():
        everything += (world.out / "group_cmb.tsv").read_text()
    assert case.says in everything, everything
    assert status == case.status, everything
    assert "Traceback" not in everything
    assert unfinished(tmp_path) == []
    assert not list((tmp_path / "work").glob("*"))
    assert sorted((tmp_path / "outside").rglob("*")) == outside, "nothing is written outside of OUTPUT_DIR"
    if case.good and "imaging.prepare" in case.real:
        assert sorted(results_of_good(world.out)) == sorted(undisturbed)
    elif case.good:
        assert results_of_good(world.out) == undisturbed
    if (tmp_path / "outside").is_file():
        assert (tmp_path / "outside").read_text() == "precious"


def test_there_are_cases_enough() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 60


def test_all_bad_scans_in_one_run_cost_no_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The bad images again, as subjects of one dataset, in worker processes."""
    world = World(tmp_path).make()
    subjects: dict[str, Case] = {}
    for number, case in enumerate(_SCAN_LEVEL):
        own = World(tmp_path / f"{number}")
        own.root.mkdir()
        case.build(own)
        label = f"bad{number}"
        subjects[label] = case
        (own.raw / "sub-bad" / "anat").rename(_folder(world.raw / f"sub-{label}") / "anat")
        for path in (world.raw / f"sub-{label}" / "anat").iterdir():
            path.rename(path.with_name(path.name.replace("sub-bad_", f"sub-{label}_")))
    config = parse([str(world.raw), str(world.out), "participant", "--nprocs", "2", "--mem-gb", "64"])
    assert bids_cmb.participant.run_participant(config, work=fake_run.work) == 1
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err
    failing = [label for label, case in subjects.items() if case.status]
    records = {
        path.stem.split("_")[0].removeprefix("sub-"): json.loads(path.read_text())
        for path in (world.out / "logs" / "scans").glob("*.json")
    }
    assert sorted(label for label, record in records.items() if record["status"] == "failed") == sorted(
        failing
    )
    for label in failing:
        if not subjects[label].name.startswith("symlink to itself"):
            assert subjects[label].says.split("sub-bad")[0] in records[label]["message"]
    assert f"{len(failing)} failed" in said.out
    done = {label for label, record in records.items() if record["status"] == "done"}
    assert {path.name.split("_")[0].removeprefix("sub-") for path in complete_scans(world.out)} == done
    assert unfinished(world.out) == []


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
