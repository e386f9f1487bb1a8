"""Files that are there whole or not at all, whoever else writes beside us or pulls the plug."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: How the private names of files in the making begin.
TEMPORARY_PREFIX = ".bids_cmb-"
#: Writing one file takes seconds; one that was last touched this long ago has lost its writer (seconds).
ABANDONED_AFTER = 6 * 3600.0


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    The content goes to a file with a private name in the same folder, to the disk, and then takes the final
    name. Nothing is written if the file already has this content.

    Raises
    ------
    OSError
        If the disk is full or the folder can't be written.
    """
    if _has_content(path, content):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = (
        path.parent / f"{TEMPORARY_PREFIX}{_place()}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}"[:250]
    )
    try:
        with scratch.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _has_content(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with `write_bytes`, in the order given; numbers that JSON lacks are an error."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def compress(content: bytes) -> bytes:
    """Return gzip data that depend on the content alone: no name, no time."""
    return gzip.compress(content, compresslevel=6, mtime=0)


def remove_abandoned(folder: Path) -> list[Path]:
    """Remove the unfinished files that killed runs left in one folder (not below it).

    A file goes if its writer ran on this machine, in this process namespace, and no longer runs, or if nobody
    touched it for hours; so files that others are writing at this moment stay.

    Returns
    -------
    list of Path
        What was removed.
    """
    removed: list[Path] = []
    try:
        found = [path for path in folder.iterdir() if path.name.startswith(TEMPORARY_PREFIX)]
    except OSError:
        return removed
    for path in found:
        place, _, rest = path.name.removeprefix(TEMPORARY_PREFIX).partition("-")
        writer = rest.partition("-")[0]
        try:
            lost = place == _place() and writer.isdigit() and not _runs(int(writer))
            if lost or time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                path.unlink()
                removed.append(path)
        except OSError:
            continue
    return removed


def _place() -> str:
    """Name the machine and process namespace, in which a process number means one process."""
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:8]


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
