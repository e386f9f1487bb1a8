"""Files that are there whole or not at all, whoever else writes beside us or pulls the plug."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import platform
import secrets
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_cmb.errors import UsageError

#: How the private names of files in the making begin.
TEMPORARY_PREFIX = ".bids_cmb-"
#: Writing one file takes seconds; one that was last touched this long ago has lost its writer (seconds).
ABANDONED_AFTER = 6 * 3600.0


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    The content goes to a new file with a private name in the same folder, to the disk, and then takes the final
    name. Nothing is written if the file already has this content. A link of that name is replaced, never
    written through.

    Raises
    ------
    OSError
        If the disk is full or the folder can't be written.
    """
    if has_content(path, content):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f"{private_prefix(TEMPORARY_PREFIX)}{secrets.token_hex(4)}"
    try:
        with scratch.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def has_content(path: Path, content: bytes) -> bool:
    """Whether a file (not a link) holds exactly these bytes."""
    try:
        state = path.lstat()
        same_size = stat.S_ISREG(state.st_mode) and state.st_size == len(content)
        return same_size and path.read_bytes() == content
    except OSError:
        return False


def check_inside(path: Path, root: Path) -> None:
    """Make sure that what is written to a folder stays in the output folder.

    Parameters
    ----------
    path
        A folder, there or not.
    root
        The output folder, which may be reached by a link itself.

    Raises
    ------
    UsageError
        If a link on the way from `root` to `path` leads out of `root`.
    """
    if not is_inside(path, root):
        raise UsageError(
            f"{path} leads out of OUTPUT_DIR by a link, which is not followed; put a folder in its place."
        )


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with `write_bytes`; parts of file names that are no text become escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def json_text(content: Mapping[str, Any]) -> str:
    """Write a JSON object as text, in the order given; numbers that JSON lacks are an error."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with `write_bytes`."""
    write_text(path, json_text(content))


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path lies in a folder once all links are followed."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # links in a circle
        return False


def read_text(path: Path, largest: int | None = None) -> str:
    """Read UTF-8 text, with or without a byte order mark, from a file that may be anything.

    Parameters
    ----------
    path
        The file. Links are followed.
    largest
        How many bytes it may have; None for any number.

    Raises
    ------
    OSError
        If it can't be read, is a pipe, device or folder (which could be read for ever), or is too large.
    UnicodeDecodeError
        If it is not UTF-8.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise OSError(0, "it is no file")
    if largest is not None and state.st_size > largest:
        raise OSError(0, f"its {state.st_size / 1e6:.0f} MB are too much")
    return path.read_text(encoding="utf-8-sig")


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
        with contextlib.suppress(OSError):
            if has_lost_owner(path.name, TEMPORARY_PREFIX) or _age(path) > ABANDONED_AFTER:
                path.unlink()
                removed.append(path)
    return removed


def private_prefix(prefix: str) -> str:
    """Begin the name of something that belongs to this process."""
    return f"{prefix}{_place()}-{os.getpid()}-"


def has_lost_owner(name: str, prefix: str) -> bool:
    """Whether a name made with `private_prefix` is of a process of this machine that no longer runs."""
    place, _, rest = name.removeprefix(prefix).partition("-")
    owner = rest.partition("-")[0]
    return name.startswith(prefix) and place == _place() and owner.isdecimal() and not _runs(int(owner))


def _age(path: Path) -> float:
    return time.time() - path.lstat().st_mtime


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
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    try:
        # A killed process stays listed until its parent asks for it, which many containers never do.
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[:1]
    except OSError:
        return True
    return state not in ([b"Z"], [b"X"])
