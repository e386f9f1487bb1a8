"""What a case of the corpus of bad inputs is, and how bytes of images for it are made."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.nifti1 import header_dtype

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import head_image, make_dataset

BAD = "sub-bad/anat/sub-bad_T2starw.nii.gz"
GOOD = "sub-good/anat/sub-good_T2starw.nii.gz"
QSM = "sub-bad/anat/sub-bad_Chimap.nii.gz"


@dataclass(frozen=True)
class World:
    """The folders of one case: a dataset with one good scan, and a place for its results."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def out(self) -> Path:
        return self.root / "out"

    def make(self) -> World:
        make_dataset(self.raw, {GOOD: None})
        return self

    def put(self, content: bytes, name: str = BAD) -> Path:
        path = self.raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


Build = Callable[[World], Sequence[str] | None]


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes
    ----------
    name
        What is wrong.
    build
        Makes it and returns the options of the run.
    says
        What must be said: in the terminal, or among the warnings in the scan's sidecar.
    status
        Exit status.
    good
        Whether the good scan beside it is done.
    level
        Level of the run.
    real
        Rooms whose real code runs instead of a stand-in.
    earlier
        Whether a run without the bad scan came before.
    privileges
        False where the case needs a user whom permissions bind.
    """

    name: str
    build: Build
    says: str = ""
    status: int = 1
    good: bool = True
    level: str = "participant"
    real: tuple[str, ...] = ()
    earlier: bool = False
    privileges: bool = True


def nifti(image: nib.Nifti1Image | None = None, **fields: Any) -> bytes:
    """The bytes of an uncompressed image with some header fields overwritten as they are."""
    stored = bytearray((image or head_image()).to_bytes())
    header = np.ndarray((), dtype=header_dtype, buffer=stored)
    for name, value in fields.items():
        header[name] = value
    return bytes(stored)


def packed(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1, mtime=0)


def damaged(image: nib.Nifti1Image | None = None, **fields: Any) -> Build:
    """A scan whose header says something else than it should."""
    return scan(lambda: packed(nifti(image, **fields)))


def scan(content: Callable[[], bytes], name: str = BAD, sidecar: Any = None) -> Build:
    """A scan with any bytes for content."""

    def build(world: World) -> None:
        path = world.put(content(), name)
        if sidecar is not None:
            text = sidecar if isinstance(sidecar, bytes) else json.dumps(sidecar).encode()
            path.with_name(path.name.split(".")[0] + ".json").write_bytes(text)

    return build


def options(*given: str) -> Build:
    """Options of the run and nothing else."""
    return lambda world: [text.format(root=world.root, raw=world.raw, out=world.out) for text in given]
