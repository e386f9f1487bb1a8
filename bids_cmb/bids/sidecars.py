"""Read JSON sidecars with BIDS inheritance, forgiving whatever real datasets hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bids_cmb.bids.entities import BidsFile, parse_name
from bids_cmb.files import read_text
from bids_cmb.types import positive_number

#: Sidecars with whole DICOM headers or slice timings stay far below this (bytes).
LARGEST_SIDECAR = 10_000_000


class SidecarReader:
    """Metadata of the files of one dataset, with its folders listed once each.

    Parameters
    ----------
    root
        Root folder of the dataset.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listings: dict[Path, list[str]] = {}
        self._contents: dict[Path, dict[str, Any]] = {}
        self._problems: dict[Path, str] = {}

    def read(self, file: BidsFile) -> dict[str, Any]:
        """Return the metadata of one image; nearer files and those with more entities win.

        A sidecar applies if it has the image's suffix and no entity that the image has not. One that is
        broken or not fetched counts as absent and is noted in `problems`.
        """
        merged: dict[str, Any] = {}
        for sidecar in self._sidecars(file):
            merged.update(self._load(sidecar))
        return merged

    def problems_of(self, file: BidsFile) -> list[str]:
        """Return a sentence for each sidecar of one image that could not be read, which names it without its folder."""
        found = []
        for path in self._sidecars(file):
            self._load(path)
            if path in self._problems:
                found.append(self._problems[path].replace(str(path), path.name))
        return found

    @property
    def problems(self) -> list[str]:
        """One sentence for each sidecar that could not be read."""
        return list(self._problems.values())

    def _sidecars(self, file: BidsFile) -> Iterator[Path]:
        """Yield the sidecars of an image, those that count more later."""
        folder = self._root
        for part in ("", *Path(file.relative).parent.parts):
            folder = folder / part
            yield from self._applicable(folder, file)

    def _applicable(self, folder: Path, file: BidsFile) -> list[Path]:
        own = set(file.entities)
        fitting: list[tuple[int, str]] = []
        for name in self._json_names(folder):
            parsed = parse_name(name)
            if parsed and parsed[1] == file.suffix and parsed[2] == ".json" and set(parsed[0]) <= own:
                fitting.append((len(parsed[0]), name))
        return [folder / name for _, name in sorted(fitting)]

    def _json_names(self, folder: Path) -> list[str]:
        if folder not in self._listings:
            try:
                with os.scandir(folder) as entries:
                    self._listings[folder] = [entry.name for entry in entries if entry.name.endswith(".json")]
            except OSError:
                self._listings[folder] = []
        return self._listings[folder]

    def _load(self, path: Path) -> dict[str, Any]:
        if path not in self._contents:
            self._contents[path], problem = load_json_object(path)
            if problem:
                self._problems[path] = problem
        return self._contents[path]


def load_json_object(path: Path) -> tuple[dict[str, Any], str]:
    """Read a JSON object that may be missing, empty, broken, or no object at all.

    Returns
    -------
    dict
        Its fields; empty if it can't be used. Values that are not JSON (``NaN``, ``Infinity``) become None.
    str
        A sentence that says why it can't be used, or an empty string.
    """
    try:
        text = read_text(path, LARGEST_SIDECAR)
    except OSError as error:
        reason = "not fetched" if path.is_symlink() and not path.exists() else error.strerror
        return {}, f"The sidecar {path} was ignored ({reason})."
    except UnicodeDecodeError:
        return {}, f"The sidecar {path} was ignored (it is not UTF-8 text)."
    if not text.strip():
        return {}, ""
    try:
        content = json.loads(text, parse_constant=lambda _: None)
        if "\\ud" in text.lower():  # halves of characters can be escaped, but not be written
            content = json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}, f"The sidecar {path} was ignored (it is not valid JSON)."
    if not isinstance(content, dict):
        return {}, f"The sidecar {path} was ignored (it holds no JSON object)."
    return content, ""


def as_number(value: object) -> float | None:
    """Return a metadata value as a finite positive number, also from text such as ``"3"`` or ``"3T"``."""
    if isinstance(value, str):
        try:
            value = float(value.strip().removesuffix("T").strip())
        except ValueError:
            return None
    return positive_number(value)


def tidy_metadata(metadata: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Make echo time and field strength numbers in BIDS units where they are not.

    Returns
    -------
    dict
        The metadata with ``EchoTime`` in seconds and ``MagneticFieldStrength`` in tesla, or without them.
    list of str
        A sentence for each correction.
    """
    tidy = dict(metadata)
    notes: list[str] = []
    for key in ("EchoTime", "MagneticFieldStrength"):
        if key in tidy:
            number = as_number(tidy.pop(key))
            if number is not None:
                tidy[key] = number
            else:
                notes.append(f"{key} in the sidecar is not a positive number and was ignored.")
    # No gradient echo is read out after a second: such a number was meant in milliseconds. No magnet for
    # people has a hundred tesla: such a number was meant in millitesla or gauss.
    if tidy.get("EchoTime", 0) > 1:
        tidy["EchoTime"] /= 1000
        notes.append("EchoTime in the sidecar was taken for milliseconds.")
    if tidy.get("MagneticFieldStrength", 0) > 100:
        factor = 1e4 if tidy["MagneticFieldStrength"] >= 1e4 else 1e3
        tidy["MagneticFieldStrength"] /= factor
        notes.append(
            f"MagneticFieldStrength in the sidecar was taken for {'gauss' if factor > 1e3 else 'millitesla'}."
        )
    return tidy, notes
