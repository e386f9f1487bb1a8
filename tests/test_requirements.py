"""The hashed lists that the image is built from are those of constraints.txt and pyproject.toml."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("tomllib", reason="the lists are for the image's Python, 3.11")
ROOT = Path(__file__).parents[1]
LINE = re.compile(r"([a-z0-9-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", ROOT / "requirements" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed(kind: str) -> dict[str, str]:
    head, _, rest = (ROOT / "requirements" / f"{kind}.txt").read_text().partition("\n")
    assert head.startswith("#")
    assert LINE.sub("", rest) == "", (
        "each package has a version and the hashes of its files, and nothing else is there"
    )
    return {match[1]: match[2] for match in LINE.finditer(rest)}


@pytest.mark.parametrize("kind", ["run", "torch", "build"])
def test_the_list_holds_what_is_needed_in_the_versions_that_are_tested(kind: str, lock: ModuleType) -> None:
    versions = lock.pins()
    assert listed(kind) == {name: versions[name] for name in lock.wanted()[kind]}, (
        "write it anew: .venv/bin/python requirements/lock.py"
    )


def test_the_images_install_that_torch_and_check_hashes() -> None:
    spec = f"torch=={listed('torch')['torch']}"
    recipes = {
        "Dockerfile": f'ARG TORCH_SPEC="{spec}"',
        "singularity.def": f"    torch={spec}\n",
    }
    for recipe, default in recipes.items():
        text = (ROOT / recipe).read_text()
        assert default in text
        installs = re.findall(r"pip install (.*)", text)
        unchecked = [line for line in installs if "--require-hashes" not in line]
        # The torch that was asked for, for what it needs beside the list, and the project itself.
        assert len(unchecked) == 2, unchecked
        assert all("--no-build-isolation ." in line or "torch" in line.lower() for line in unchecked)
