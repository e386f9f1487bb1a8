from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bids_cmb.bids.description import check_output_dir
from bids_cmb.config import RunConfig
from bids_cmb.errors import UsageError
from bids_cmb.files import private_prefix
from bids_cmb.resources import SCRATCH_PREFIX, available_cpus, settled
from bids_cmb.run_log import job_log


def config(tmp_path: Path, work_dir: Path | None = None) -> RunConfig:
    return RunConfig(tmp_path / "raw", tmp_path / "out", omp_nthreads=3, work_dir=work_dir)


def test_caches_and_scratch_go_to_the_work_folder_and_vanish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    before = dict(os.environ)
    with settled(config(tmp_path, tmp_path / "work")) as scratch:
        assert scratch.parent == tmp_path / "work"
        for name in ("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME", "TMPDIR"):
            assert Path(os.environ[name]).is_relative_to(scratch)
        assert Path(tempfile.mkdtemp()).is_relative_to(scratch)
        assert os.environ["OMP_NUM_THREADS"] == "3"
        assert os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] == "1"
    assert not scratch.exists()
    assert dict(os.environ) == before
    assert not Path(tempfile.gettempdir()).is_relative_to(scratch)


@pytest.mark.parametrize("chosen", [None, "ACTIVE"])
def test_waiting_threads_give_up_their_core_unless_the_user_chose(
    chosen: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_WAIT_POLICY", chosen)
    with settled(config(tmp_path)):
        assert os.environ["OMP_WAIT_POLICY"] == (chosen or "PASSIVE")


def test_no_place_for_scratch_files_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--work-dir"), settled(config(tmp_path, tmp_path / "file")):
        pass


def test_without_a_place_for_temporary_files_they_go_to_the_output_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="--work-dir"), settled(config(tmp_path)):
        pass
    out = tmp_path / "out"
    out.mkdir()
    left = (
        out / f".{private_prefix(SCRATCH_PREFIX).rsplit('-', 2)[0]}-999999999-x"
    )  # of a run that was killed
    left.mkdir()
    with settled(config(tmp_path)) as scratch:
        assert scratch.parent == out
        assert scratch.name.startswith(".")
        assert not left.exists()
        check_output_dir(out, to_fill=True)  # of another run, at the same time
    assert list(out.iterdir()) == []


def test_processors_are_counted() -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


def test_a_jobs_log_holds_what_libraries_write_past_python(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "job.log"
    with job_log(path, verbosity=0):
        os.write(1, b"from C\n")
        print("from Python", file=sys.__stderr__)
        logging.getLogger("bids_cmb.x").info("from the package")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    logged = path.read_text()
    assert all(f"from {source}" in logged for source in ("C", "Python", "the package", "a child"))
    assert capfd.readouterr() == ("", "")
    os.write(1, b"back\n")
    assert capfd.readouterr().out == "back\n"
