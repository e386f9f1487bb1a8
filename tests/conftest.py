"""Tiny BIDS datasets, and runs of the main job with stand-ins for the rooms that need weights."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

#: A pixel size, a tilt and an origin that no float32 holds exactly by chance.
AFFINE = np.array(
    [[-0.9, 0.01, 0.0, 14.37], [0.01, 0.9, 0.05, -13.11], [0.0, -0.05, 2.0, -15.83], [0, 0, 0, 1.0]]
)
SHAPE = (32, 32, 16)
#: Voxels of the dark spots of `head_image`, far from one another.
SPOTS = ((10, 12, 8), (20, 14, 8), (16, 22, 6))


def head_image(
    shape: tuple[int, ...] = SHAPE,
    affine: np.ndarray = AFFINE,
    dtype: str = "int16",
    spots: tuple[tuple[int, int, int], ...] = SPOTS,
    kind: Any = nib.Nifti1Image,
) -> nib.Nifti1Image:
    """A bright ball with dark spots in it: enough of a head for the plumbing."""
    grid = np.indices(shape[:3]) / np.reshape(shape[:3], (3, 1, 1, 1)) - 0.5
    data = np.where((grid**2).sum(0) < 0.2, 400, 0).astype(dtype)
    for i, j, k in spots:
        data[i : i + 2, j : j + 2, k] = 20
    image = kind(data.reshape(shape), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    return image


Content = Mapping[str, Any] | str | bytes | nib.Nifti1Image | None


def make_dataset(root: Path, files: Mapping[str, Content], *, description: bool = True) -> Path:
    """Make a dataset.

    Parameters
    ----------
    root
        Its folder; made if need be.
    files
        By path in the dataset. For a name that ends in ``.nii`` or ``.nii.gz``: a dictionary is its sidecar, None
        means no sidecar, an image is stored as it is, bytes are its content, and text is where a link leads to.
        For other names: a dictionary becomes JSON; text and bytes are the content.
    description
        Whether to add a ``dataset_description.json``.
    """
    root.mkdir(parents=True, exist_ok=True)
    if description:
        (root / "dataset_description.json").write_text('{"Name": "Simulated", "BIDSVersion": "1.11.1"}')
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith((".nii", ".nii.gz")):
            text = json.dumps(content) if isinstance(content, Mapping) else content
            path.write_bytes(text if isinstance(text, bytes) else str(text).encode())
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            nib.save(content if isinstance(content, nib.Nifti1Image) else head_image(), path)
            if isinstance(content, Mapping):
                path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps(content))
    return root


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., Path]:
    """`make_dataset` in a folder ``raw`` of the test's own."""

    def make(files: Mapping[str, Content], name: str = "raw", **options: Any) -> Path:
        return make_dataset(tmp_path / name, files, **options)

    return make


class HereWorkers:
    """Stands in for `bids_cmb.workers.Workers`: does the jobs in this process, one after the other."""

    def __init__(self, function: Callable[[Any], Any], count: int) -> None:
        self.count = count
        self._function = function
        self._queue: deque[Any] = deque()
        self.active: list[Any] = []

    def __enter__(self) -> HereWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def submit(self, job: Any) -> None:
        self._queue.append(job)

    def results(self) -> Iterator[tuple[Any, Any]]:
        while self._queue:
            job = self._queue.popleft()
            yield job, self._function(job)

    def stop(self) -> None:
        self._queue.clear()


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command, in this process and with stand-ins for detector, anatomy and report."""
    import fake_run

    import bids_cmb.participant
    from bids_cmb.cli import main

    fake_run.install(monkeypatch.setitem)
    monkeypatch.setattr(bids_cmb.participant, "Workers", HereWorkers)

    def run(bids_dir: Path, output_dir: Path, *options: str, level: str = "participant") -> int:
        return main([str(bids_dir), str(output_dir), level, *options])

    return run
