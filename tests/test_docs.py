"""What the documentation says one can type, one can type; what it points to is there."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from bids_cmb.cli import build_parser as main_parser
from bids_cmb.resources import BASE_GB, GB_PER_MILLION_VOXELS
from bids_cmb.training.cli import build_parser as training_parser

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "brainlife/README.md", ROOT / "models/README.md"]
)

#: Options of other programs that the text (not a command line) names.
OTHERS = {
    "--bids", "--build-arg", "--containall", "--disable-pip", "--entrypoint", "--fakeroot", "--gpus", "--net", "--network", "--no-home", "--nv", "--read-only", "--reckless", "--require-hashes",
    "--tmpfs", "--url", "--user", "--index-url",
}  # fmt: skip
OPTION = re.compile(r"(?<![\w/-])--[a-z][a-z0-9_-]*")
#: What follows the name of the command, however it is called; a pipe, a bracket or a comment ends it.
COMMAND = re.compile(r"(?:^|[\s(])bids-cmb(-train|:cpu|\.sif)? ([^|;)#`]*)")


def code(page: Path) -> Iterator[tuple[str, bool]]:
    """Yield pieces of code, and whether they are lines of a block."""
    text = page.read_text()
    for block in re.findall(r"^```\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield line, True
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        yield span, False


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                found |= options_of(inner)
    return found


def ids(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_options_exist(page: Path) -> None:
    known = options_of(main_parser()) | options_of(training_parser()) | OTHERS
    # The project's own scripts that the page names bring their options along.
    for script in re.findall(r"python ((?:tests|benchmarks)/[\w/]+\.py)", page.read_text()):
        known |= set(OPTION.findall((ROOT / script).read_text()))
    for piece, is_line in code(page):
        if not is_line:
            named = {name.replace("_", "-") for name in OPTION.findall(piece)}
            assert named <= known, f"{piece}: {named - known}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_command_lines_are_understood(page: Path) -> None:
    for piece, is_line in code(page):
        for kind, arguments in COMMAND.findall(piece) if is_line else ():
            words = shlex.split(re.sub(r"[][]|\.\.\.", " ", arguments.split(" > ")[0]))
            if not words or words[0] in ("singularity.def", "docker-daemon://bids-cmb:cpu"):
                continue  # the image is built, not run
            parser = training_parser() if kind == "-train" else main_parser()
            try:
                parser.parse_args(words)
            except SystemExit as end:
                assert end.code == 0, piece


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        there = page.parent / target if target else page
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", there.read_text(), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{target}#{anchor}"


def test_the_readme_says_as_many_false_detections_as_the_card() -> None:
    card = (ROOT / "models/README.md").read_text()
    first = card[card.index("contrast  scans visible") :].splitlines()[1:4]
    found = sorted(float(re.findall(r"[\d.]+(?= \()", line)[1]) for line in first)
    assert f"{found[0]:.1f} to {found[-1]:.1f} per scan" in (ROOT / "README.md").read_text()


def test_memory_is_what_is_reckoned_with() -> None:
    said = f"{BASE_GB:g} GB and {GB_PER_MILLION_VOXELS:g} GB per million voxels"
    assert said in (ROOT / "docs/run.md").read_text()


def test_the_script_trains_the_shipped_weights_as_they_were_trained() -> None:
    made = json.loads((ROOT / "models/bids-cmb-1.json").read_text())["training"]
    script = (ROOT / "models/make_anew.sh").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^app train (.*)$", script, re.MULTILINE)
    shared = str(made["recipe"]["processes"])
    words = re.sub(r'"\$\(of (\d+) \d+\)"', r"\1", line)
    words = words.replace('"$processes"', shared).replace('"$device"', "cpu")
    parsers = training_parser()
    by_script, by_manifest = (
        vars(parsers.parse_args(["train", *shlex.split(text)]))
        for text in (words, made["command"].removeprefix("bids-cmb-train train "))
    )
    assert by_script == by_manifest
    assert made["recipe"]["stage1_steps"] == by_script["stage1_steps"]
    assert made["command"] in (ROOT / "models/README.md").read_text()
