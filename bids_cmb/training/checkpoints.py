"""Saving and resuming of a training, without pickled objects."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bids_cmb.errors import UsageError


def begin(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note what a training or a simulation depends on; refuse to go on with what was made with other settings.

    Parameters
    ----------
    folder
        Of the checkpoints or scans; made if need be. The note is no ``.json``, since a model folder has one manifest.
    settings
        What JSON can hold.

    Raises
    ------
    UsageError
        If the folder was begun with other settings.
    """
    note, text = folder / "begun_with.txt", json.dumps(settings, indent=2, sort_keys=True) + "\n"
    if note.is_file() and note.read_text(encoding="utf-8") != text:
        raise UsageError(
            f"{folder} was begun with other scans or settings; name another folder, or remove it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(text, encoding="utf-8")


class Checkpoint:
    """The state of a training in one file.

    Parameters
    ----------
    path
        The file, or None to keep nothing.
    parts
        Objects with ``state_dict`` and ``load_state_dict``, by name.
    """

    def __init__(self, path: Path | None, parts: Mapping[str, Any]) -> None:
        self._path = path
        self._parts = parts

    def resume(self) -> int:
        """Load the file if it is there; return the number of steps done."""
        if self._path is None or not self._path.exists():
            return 0
        state = torch.load(self._path, map_location="cpu", weights_only=True)
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        return int(state["step"])

    def save(self, step: int) -> None:
        """Write the file, whole or not at all."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        torch.save({"step": step, **{name: part.state_dict() for name, part in self._parts.items()}}, partial)
        partial.replace(self._path)
