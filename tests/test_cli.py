from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bids_cmb import __version__
from bids_cmb.cli import main, parse
from bids_cmb.errors import UsageError

Make = Callable[..., Path]


@pytest.fixture
def raw(dataset: Make) -> Path:
    return dataset({"sub-01/anat/sub-01_T2starw.nii.gz": None})


def command(*arguments: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "bids_cmb", *arguments], capture_output=True, text=True, check=False
    )
    return time.perf_counter() - start, done


@pytest.mark.parametrize(("option", "expected"), [("--help", "usage: bids-cmb"), ("--version", __version__)])
def test_help_and_version_are_quick(option: str, expected: str) -> None:
    seconds, done = min((command(option) for _ in range(3)), key=lambda timed: timed[0])
    assert done.returncode == 0
    assert expected in done.stdout
    assert seconds < 0.5


def test_parsing_imports_nothing_heavy(raw: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from bids_cmb.cli import parse\n"
        f"parse([{str(raw)!r}, {str(tmp_path / 'out')!r}, 'participant'])\n"
        "print([name for name in ('torch', 'ants', 'pandas', 'bids', 'nilearn', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_option_of_the_contract_in_both_spellings(raw: Path, tmp_path: Path) -> None:
    filters = tmp_path / "f.json"
    filters.write_text('{"swi": {"acquisition": "x"}}')
    options = {
        "--participant-label": ["sub-01", "02,03"],
        "--session-label": ["ses-a", "b"],
        "--bids-filter-file": [str(filters)],
        "--contrast": ["GRE", "swi"],
        "--derivatives": [f"qsm={raw}", str(tmp_path)],
        "--skip-bids-validation": [],
        "--bids-database-dir": [str(tmp_path / "db")],
        "--device": ["cpu"],
        "--nprocs": ["2"],
        "--omp-nthreads": ["3"],
        "--mem-gb": ["8.5"],
        "--work-dir": [str(tmp_path / "work")],
        "--model": ["m"],
        "--threshold": ["0.4"],
        "--save-preproc": [],
        "--force": [],
        "--stop-on-first-crash": [],
        "--dry-run": [],
        "--no-report": [],
    }
    start = [str(raw), str(tmp_path / "out"), "participant"]
    dashes = [word for name, values in options.items() for word in (name, *values)]
    underscores = [
        word for name, values in options.items() for word in ("--" + name[2:].replace("-", "_"), *values)
    ]
    config = parse([*start, *dashes])
    assert config == parse([*start, *underscores])
    assert config.participant_labels == ("01", "02", "03")
    assert config.session_labels == ("a", "b")
    assert config.contrasts == ("gre", "swi")
    assert config.derivatives == (("qsm", raw), (tmp_path.name, tmp_path))
    assert config.filters == {"swi": {"acquisition": "x"}}
    assert (config.nprocs, config.omp_nthreads, config.mem_gb, config.threshold) == (2, 3, 8.5, 0.4)
    assert not config.report
    assert parse([*start, "-q", "-w", str(tmp_path / "w"), "-d", str(tmp_path)]).verbosity == -1
    (tmp_path / "out").mkdir()
    assert parse([*start, "--reports_only", "-vv"]).verbosity == 2


def test_folders_are_made_absolute_but_links_are_kept(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(raw)
    monkeypatch.chdir(tmp_path)
    config = parse(["link", "out", "participant"])
    assert config.bids_dir == tmp_path / "link"
    assert config.output_dir == tmp_path / "out"


def mistakes(raw: Path, tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    out = str(tmp_path / "out")
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    odd = tmp_path / "odd.json"
    odd.write_text('{"swi": {"akquisition": "x"}}')
    other = tmp_path / "other.json"
    other.write_text('{"bold": {}}')
    (tmp_path / "link").symlink_to(raw)
    go = [str(raw), out, "participant"]
    return {
        "no such folder": ([str(tmp_path / "none"), out, "participant"], "does not exist"),
        "same folder": ([str(raw), str(raw), "participant"], "OUTPUT_DIR is BIDS_DIR"),
        "same folder by a link": (
            [str(raw), str(tmp_path / "link"), "participant"],
            "OUTPUT_DIR is BIDS_DIR",
        ),
        "output is a file": ([str(raw), str(bad), "participant"], "is a file"),
        "group without output": ([str(raw), out, "group"], "run the participant level first"),
        "no level": ([str(raw), out], "write BIDS_DIR OUTPUT_DIR participant before the options"),
        "unknown level": ([str(raw), out, "session"], "invalid choice"),
        "unknown option": ([*go, "--colour"], "unrecognized arguments: --colour"),
        "unknown label": ([*go, "--participant-label", "77"], "sub-77 is not in"),
        "no label": ([*go, "--participant-label", ""], "--participant-label names no label"),
        "no session": ([*go, "--session-label", ","], "--session-label names no label"),
        "output in raw data": (
            [str(raw), str(raw / "sub-01"), "participant"],
            "part of a subject's raw data",
        ),
        "bad label": ([*go, "--participant-label", "a/b"], "labels are letters and digits"),
        "filter file broken": ([*go, "--bids-filter-file", str(bad)], "not valid JSON"),
        "filter file missing": ([*go, "--bids-filter-file", str(tmp_path / "no")], "cannot be read"),
        "filter on no entity": (
            [*go, "--bids-filter-file", str(odd)],
            "'akquisition', which is not an entity",
        ),
        "filter of no contrast": (
            [*go, "--bids-filter-file", str(other)],
            "'bold' is not one of swi, gre, qsm",
        ),
        "work in bids": ([*go, "-w", str(raw / "work")], "lies inside BIDS_DIR"),
        "no derivatives": ([*go, "-d", str(tmp_path / "none")], "does not exist"),
        "two of a name": ([*go, "-d", f"x={raw}", f"x={tmp_path}"], "name of its own"),
        "threshold": ([*go, "--threshold", "1.5"], "not between 0 and 1"),
        "nprocs": ([*go, "--nprocs", "0"], "less than 1"),
        "nprocs text": ([*go, "--nprocs", "many"], "whole number"),
        "no pages at all": ([*go, "--reports-only", "--no-report"], "does not exist|exclude each other"),
    }


@pytest.mark.parametrize("mistake", [
    "no such folder", "same folder", "same folder by a link", "output is a file", "group without output", "no level",
    "unknown level", "unknown option", "unknown label", "no label", "no session",
    "output in raw data", "bad label", "filter file broken", "filter file missing",
    "filter on no entity", "filter of no contrast", "work in bids", "no derivatives", "two of a name", "threshold",
    "nprocs", "nprocs text", "no pages at all",
])  # fmt: skip
def test_a_mistake_gets_one_sentence_and_status_2(
    mistake: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    arguments, expected = mistakes(raw, tmp_path)[mistake]
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    said = capsys.readouterr()
    assert status == 2
    assert re.search(expected, said.err)
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="cannot be written"):
        parse([str(raw), str(tmp_path / "locked" / "out"), "participant"])


def test_a_reader_that_leaves_is_no_error_message(raw: Path, tmp_path: Path) -> None:
    line = f"{sys.executable} -m bids_cmb {raw} {tmp_path / 'out'} participant --dry-run --skip-bids-validation | true"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
