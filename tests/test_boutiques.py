"""`boutiques.json` says what the parser says, and Boutiques' own tool accepts and understands it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bids_cmb.boutiques import descriptor, text
from bids_cmb.cli import parse

bosh: Callable[[list[str]], Any] = pytest.importorskip("boutiques").bosh

DESCRIPTOR = Path(__file__).parents[1] / "boutiques.json"
Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_cache_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def simulate(tmp_path: Path, invocation: Mapping[str, Any]) -> str:
    path = tmp_path / "invocation.json"
    path.write_text(json.dumps(invocation))
    (command,) = bosh(["exec", "simulate", str(DESCRIPTOR), "-i", str(path)]).stdout.splitlines()[-1:]
    return str(command)


def test_the_descriptor_is_what_the_parser_gives_now() -> None:
    assert DESCRIPTOR.read_text() == text(), "run: python -m bids_cmb.boutiques > boutiques.json"


@pytest.mark.parametrize("options", [[], ["--bids"]])
def test_bosh_finds_it_valid(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    bosh(["validate", *options, str(DESCRIPTOR)])
    said = capsys.readouterr().out
    assert not options or "BIDS validation OK" in said


def test_bosh_makes_a_command_line_that_the_parser_takes(dataset: Make, tmp_path: Path) -> None:
    raw = dataset({"sub-01/anat/sub-01_T2starw.nii.gz": None, "f.json": {"swi": {"acquisition": "x"}}})
    derived = dataset({}, name="qsm maps")
    out = tmp_path / "out put"
    invocation: dict[str, Any] = {
        "bids_dir": str(raw),
        "output_dir": str(out),
        "analysis_level": "participant",
        "participant_label": ["01", "sub-02"],
        "session_label": ["a"],
        "contrast": ["swi", "qsm"],
        "bids_filter_file": str(raw / "f.json"),
        "derivatives": [str(derived)],
        "threshold": 0.4,
        "nprocs": 2,
        "mem_gb": 7.5,
        "device": "cpu",
        "force": True,
    }
    command = simulate(tmp_path, invocation)
    made, run = command.split("; ")
    assert shlex.split(made) == ["mkdir", "-p", str(out)]
    name, *arguments = shlex.split(run)
    assert name == "bids-cmb"
    config = parse(arguments)
    assert config.output_dir == out
    assert config.participant_labels == ("01", "02")
    assert (config.session_labels, config.contrasts) == (("a",), ("swi", "qsm"))
    assert (config.threshold, config.nprocs, config.mem_gb) == (0.4, 2, 7.5)
    assert config.derivatives == (("qsm_maps", derived),)
    assert config.force
    assert not config.dry_run


def test_the_group_level_takes_the_same_folder(dataset: Make, tmp_path: Path) -> None:
    raw = dataset({})
    command = simulate(tmp_path, {"bids_dir": str(raw), "output_dir": "out", "analysis_level": "group"})
    assert command == f"mkdir -p out; bids-cmb {raw} out group"


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 1.0},
        {"nprocs": 0},
        {"nprocs": 1.5},
        {"device": "tpu"},
        {"contrast": ["t1"]},
        {"mem_gb": 0},
    ],
)
def test_boutiques_and_the_parser_refuse_the_same_values(
    wrong: dict[str, Any], dataset: Make, tmp_path: Path
) -> None:
    raw = dataset({})
    good = {"bids_dir": str(raw), "output_dir": str(tmp_path / "out"), "analysis_level": "participant"}
    with pytest.raises(Exception, match=next(iter(wrong))):
        simulate(tmp_path, {**good, **wrong})
    ((name, value),) = wrong.items()
    values = value if isinstance(value, list) else [value]
    with pytest.raises(SystemExit):
        parse(
            [str(raw), str(tmp_path / "out"), "participant", f"--{name.replace('_', '-')}", *map(str, values)]
        )


def test_every_input_has_words() -> None:
    for entry in descriptor()["inputs"]:
        assert entry["description"], entry["id"]
