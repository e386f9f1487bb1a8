"""The container as users run it: read-only input and root, any user, no network; the same tables as the native run.

``BIDS_CMB_IMAGE`` names an image that was built (``make image``), for podman and docker; ``BIDS_CMB_SIF`` a file built from
``singularity.def``, for Apptainer. What is not there is skipped with the reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

Command = Callable[[Path, Path], list[str]]
_USER = "12345:12345"


def _container_engine(name: str) -> Command:
    image = os.environ.get("BIDS_CMB_IMAGE")
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here")
    if not image:
        pytest.skip("BIDS_CMB_IMAGE names no image; build one with `make image`")
    if subprocess.run([name, "image", "inspect", image], capture_output=True, check=False).returncode:
        pytest.skip(f"{name} has no image {image}")
    return lambda bids, out: [
        name, "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--user", _USER,  # noqa: S108 - inside the container
        "-v", f"{bids}:/data:ro", "-v", f"{out}:/out", image, "/data", "/out",
    ]  # fmt: skip


def _apptainer() -> Command:
    sif = os.environ.get("BIDS_CMB_SIF")
    if shutil.which("apptainer") is None:
        pytest.skip("there is no apptainer here")
    if not sif:
        pytest.skip(
            "BIDS_CMB_SIF names no image; build one with `apptainer build bids-cmb.sif singularity.def`"
        )
    return lambda bids, out: [
        "apptainer", "run", "--containall", "--no-home", "--net", "--network", "none",
        "-B", f"{bids}:/data:ro", "-B", f"{out}:/out", sif, "/data", "/out",
    ]  # fmt: skip


ENGINES: dict[str, Callable[[], Command]] = {
    "podman": lambda: _container_engine("podman"),
    "docker": lambda: _container_engine("docker"),
    "apptainer": _apptainer,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One simulated subject with an SWI and a QSM."""
    from bids_cmb.training.demo import SUBJECTS, make_demo

    root = tmp_path_factory.mktemp("dataset")
    make_demo(root, SUBJECTS[:1], processes=1)
    root.chmod(0o755)  # the container's user is nobody's friend
    return root


@pytest.fixture(scope="module")
def native(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("native")
    for level in ("participant", "group"):
        subprocess.run([sys.executable, "-m", "bids_cmb", dataset, out, level], check=True)
    return out


@pytest.mark.parametrize("engine", ENGINES)
def test_the_container_gives_the_tables_of_the_native_run(
    engine: str, dataset: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    command = ENGINES[engine]()
    native: Path = request.getfixturevalue("native")
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    for level in ("participant", "group"):
        done = subprocess.run([*command(dataset, out), level], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    tables = sorted(path.relative_to(native) for path in native.rglob("*.tsv"))
    assert tables == sorted(path.relative_to(out) for path in out.rglob("*.tsv"))
    for table in tables:
        assert (out / table).read_text() == (native / table).read_text(), table


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_the_version_is_there_at_once(engine: str, tmp_path: Path) -> None:
    command = ENGINES[engine]()
    shown = subprocess.run(
        [*command(tmp_path, tmp_path)[:-2], "--version"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("bids-cmb ")
