"""Text and files that mean harm: nothing of them is run, leaves its place, or is taken for markup."""

from __future__ import annotations

import ast
import importlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import bids_cmb
from bids_cmb.bids.tables import read_table
from bids_cmb.config import RunConfig
from bids_cmb.files import private_prefix, write_bytes
from bids_cmb.report.data import find_source, read_failures
from bids_cmb.resources import SCRATCH_PREFIX, settled

Make = Callable[..., Path]
Run = Callable[..., int]

_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml", "pty", "code"}
_CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "execv", "execvp", "spawnl", "spawnv"}


def _offences(tree: ast.AST) -> Iterator[str]:
    """What runs text as code or as a command, or loads objects that can."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from (f"import {name}" for name in names if name.split(".")[0] in _MODULES)
        if not isinstance(node, ast.Call):
            continue
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg: getattr(keyword.value, "value", "?") for keyword in node.keywords}
        place = getattr(owner, "id", None)
        # `network.eval()` and `re.compile()` are other things than the built-in functions.
        if name in _CALLS and (owner is None or place in ("os", "builtins", "posix")):
            yield f"{name}()"
        if given.get("shell", False) is not False or given.get("allow_pickle", False) is not False:
            yield f"{name}(shell or allow_pickle)"
        if name == "load" and place == "torch" and given.get("weights_only") is not True:
            yield "torch.load() of objects"


def test_no_pickle_eval_or_shell() -> None:
    """Beyond ruff's rules (S), which a comment can silence."""
    package = Path(bids_cmb.__file__).parent
    found = {
        f"{path.relative_to(package)}: {offence}"
        for path in package.rglob("*.py")
        for offence in _offences(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set()


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "eval(x)",
        "os.system(x)",
        "run(x, shell=True)",
        "np.load(x, allow_pickle=True)",
        "torch.load(x)",
    ],
)
def test_the_rule_sees_what_it_is_for(line: str) -> None:
    assert list(_offences(ast.parse(line)))


class _Structure(HTMLParser):
    """Counts elements with the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: Counter[tuple[str, tuple[str, ...]]] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag, tuple(sorted(name for name, _ in attrs))] += 1


def structure(page: Path) -> Counter[tuple[str, tuple[str, ...]]]:
    parser = _Structure()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser.elements


def _run_with_pages(make: Make, run: Run, name: str, text: str, patch: pytest.MonkeyPatch) -> Path:
    """A run and its group tables with the real pages, where sidecars hold a text."""
    for room in ("report.subject", "report.group"):
        patch.delitem(sys.modules, f"bids_cmb.{room}", raising=False)
        importlib.import_module(f"bids_cmb.{room}")
    sidecar = {
        "Manufacturer": text,
        "ManufacturersModelName": text,
        "SeriesDescription": text,
        "EchoTime": text,
    }
    raw = make(
        {
            "sub-01/anat/sub-01_T2starw.nii.gz": sidecar,
            "sub-02/anat/sub-02_T2starw.nii.gz": b"broken",
            "dataset_description.json": {"Name": text, "BIDSVersion": text, "DatasetDOI": text},
        },
        name,
    )
    out = raw.parent / f"{name}-out"
    assert run(raw, out) == 1
    for path in out.glob("sub-01/anat/*_dseg.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "Warnings": [text], "SNR": text}))
    for path in out.glob("logs/scans/sub-02*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "message": text}))
    assert run(raw, out, "--reports-only") == 0
    assert run(raw, out, level="group") == 0
    return out


def test_text_of_sidecars_never_becomes_markup_or_a_formula(
    dataset: Make, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = """=cmd|' /C calc'!A0\t</td></script><script>alert("x")</script>\n'"><img src=x onerror=alert(1)> \x1b[2J"""
    harmless = _run_with_pages(dataset, run_here, "harmless", "a word", monkeypatch)
    harmed = _run_with_pages(dataset, run_here, "harmed", hostile, monkeypatch)
    for page in ("sub-01.html", "sub-02.html", "group_cmb.html"):
        assert structure(harmed / page) == structure(harmless / page), page
    for table in harmed.rglob("*.tsv"):
        cells = [cell for row in read_table(table) for cell in row.values()]
        assert not [cell for cell in cells if cell[:1] in ("=", "@", "+")], table
        assert not [cell for cell in cells if not cell.isprintable()], table
    scanner = next(row["scanner"] for row in read_table(harmed / "group_quality.tsv"))
    assert scanner.startswith("'=cmd|")


def test_records_that_climb_lead_nowhere(dataset: Make, run_here: Run, tmp_path: Path) -> None:
    raw, out = dataset({"sub-01/anat/sub-01_T2starw.nii.gz": b"broken"}), tmp_path / "out"
    assert run_here(raw, out) == 1
    (tmp_path / "secret.txt").write_text("precious")
    record = next(out.glob("logs/scans/*.json"))
    content: dict[str, Any] = json.loads(record.read_text())
    for log in ("../../secret.txt", str(tmp_path / "secret.txt"), "logs/link.txt"):
        record.write_text(json.dumps({**content, "log": log}))
        (out / "logs/link.txt").unlink(missing_ok=True)
        (out / "logs/link.txt").symlink_to(tmp_path / "secret.txt")
        assert [failure.tail for failure in read_failures(out, "01")] == [""]
    (out / "logs/scans/x.json").write_text(
        json.dumps({**content, "name": "x", "participant_id": "sub-/../.."})
    )
    assert run_here(raw, out, level="group") == 0
    assert [row["participant_id"] for row in read_table(out / "group_cmb.tsv")] == ["sub-01"]


def test_sources_that_climb_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "secret.nii").touch()
    roots = {"raw": tmp_path / "raw"}
    assert find_source("bids:raw:../secret.nii", roots) is None
    assert find_source(f"bids:raw:{tmp_path}/secret.nii", roots) is None
    assert find_source("file:///etc/passwd", roots) is None


def test_the_group_level_leaves_out_folders_that_lead_out(
    dataset: Make, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = dataset({f"sub-{n}/anat/sub-{n}_T2starw.nii.gz": None for n in ("01", "02")})
    out = tmp_path / "out"
    assert run_here(raw, out) == 0
    shutil.move(out / "sub-02", tmp_path / "elsewhere")
    (out / "sub-02").symlink_to(tmp_path / "elsewhere")
    assert run_here(raw, out, level="group") == 0
    assert "leads out of OUTPUT_DIR" in capsys.readouterr().err
    assert [row["participant_id"] for row in read_table(out / "group_cmb.tsv")] == ["sub-01"]


def test_the_ignore_file_takes_nothing_from_elsewhere(dataset: Make, run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    (out / ".bidsignore").symlink_to(tmp_path / "secret.txt")
    assert run_here(dataset({"sub-01/anat/sub-01_T2starw.nii.gz": None}), out) == 0
    assert "precious" not in (out / ".bidsignore").read_text()
    assert (tmp_path / "secret.txt").read_text() == "precious"


def test_temporary_files_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else may look into the scratch folder, or put a link where a file is about to be made."""
    with settled(RunConfig(tmp_path, tmp_path, work_dir=tmp_path / "work")) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert Path(tempfile.gettempdir()) == folder
    (tmp_path / "victim").write_text("precious")
    monkeypatch.setattr("bids_cmb.files.secrets.token_hex", lambda _: "guessed")
    (tmp_path / f"{private_prefix('.bids_cmb-')}guessed").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        write_bytes(tmp_path / "file", b"x")
    assert (tmp_path / "victim").read_text() == "precious"


def test_scratch_of_killed_runs_is_removed_and_that_of_others_stays(tmp_path: Path) -> None:
    ours, dead = private_prefix(SCRATCH_PREFIX), 4_194_304  # above the largest process number
    left = tmp_path / f"{ours.replace(f'-{os.getpid()}-', f'-{dead}-')}abc"
    kept = [tmp_path / f"{ours}abc", tmp_path / "bids_cmb-elsewhere-1-abc", tmp_path / "other"]
    for folder in (left, *kept):
        (folder / "caches").mkdir(parents=True)
    with settled(RunConfig(tmp_path, tmp_path, work_dir=tmp_path)):
        assert not left.exists()
        assert all(folder.exists() for folder in kept)
