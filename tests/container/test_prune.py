"""What the images leave out: one list for both, that spares what runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEPT = (
    "torch/bin/torch_shm_manager",
    "torch/lib/libtorch.so",
    "skimage/filters/__init__.pyi",
    "scipy/stats/a.py",
)
GONE = (
    "torch/bin/protoc",
    "torch/lib/libx.a",
    "torch/include/x.h",
    "torch/test/x",
    "scipy/stats/tests/test_a.py",
)
PACKAGES = ("pandas", "sklearn", "statsmodels", "nilearn", "sympy", "networkx", "matplotlib", "mpl_toolkits", "bids",
            "nibabel")  # fmt: skip


def test_headers_tests_and_tools_go_and_what_runs_stays(tmp_path: Path) -> None:
    site = tmp_path / "a folder"
    for name in (*KEPT, *GONE, *(f"{package}/x/tests/data/x" for package in PACKAGES)):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("x", encoding="utf-8")
    subprocess.run(["sh", str(ROOT / "docker" / "prune.sh"), str(site)], check=True)
    left = sorted(path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file())
    assert left == sorted(KEPT)


@pytest.mark.parametrize("recipe", ["Dockerfile", "singularity.def"])
def test_both_images_use_the_one_list(recipe: str) -> None:
    text = (ROOT / recipe).read_text(encoding="utf-8")
    assert "sh docker/prune.sh" in text
    assert "-name tests" not in text
