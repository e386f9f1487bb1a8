"""What became of each scan, kept in ``logs/scans/``: lets a run resume, tells the group level of failures.

Times and file dates stay in these records, so that the dataset itself depends on nothing but its input.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from bids_cmb.bids.entities import parse_name
from bids_cmb.bids.listing import names_in
from bids_cmb.bids.sidecars import load_json_object
from bids_cmb.files import write_json

Status = Literal["done", "failed"]
#: ``superseded``: another image of the same acquisition was chosen since.
RecordStatus = Literal["done", "failed", "superseded"]
FOLDER = Path("logs") / "scans"


@dataclass(frozen=True)
class ScanRecord:
    """One scan's entry.

    Attributes
    ----------
    name
        Name of the scan (its file name without extension).
    participant_id, session_id, source, contrast
        Which scan: labels with their prefix (session None if there is none), BIDS URI, contrast.
    status
        ``done``, ``failed`` or ``superseded``.
    fingerprint
        Hash of all that the outputs depend on.
    message
        One sentence: the result, or why it failed.
    log
        The log of the run, from the root of the output folder.
    finished
        When, ISO 8601.
    seconds
        How long it took.
    sizes
        Bytes of each output by its name, so that files that were damaged since are noticed.
    field_strength, echo_time
        Tesla and seconds, where the input's sidecar gives them.
    """

    name: str
    participant_id: str
    session_id: str | None
    source: str
    contrast: str
    status: RecordStatus
    fingerprint: str
    message: str
    log: str
    finished: str
    seconds: float
    sizes: Mapping[str, int]
    field_strength: float | None = None
    echo_time: float | None = None


def record_path(output_dir: Path, name: str) -> Path:
    """Path of the record of a scan."""
    return output_dir / FOLDER / f"{name}.json"


def write_record(output_dir: Path, record: ScanRecord) -> None:
    """Write a record, replacing the scan's earlier one."""
    write_json(record_path(output_dir, record.name), asdict(record))


def read_records(output_dir: Path, subjects: Collection[str] = ()) -> Iterator[ScanRecord]:
    """Yield the records of an output folder by name: all, or those of the subjects with these labels."""
    for name in names_in(output_dir / FOLDER):
        parsed = parse_name(name)
        if parsed and (not subjects or dict(parsed[0]).get("sub") in subjects):
            record = read_record(output_dir / FOLDER / name)
            if record is not None:
                yield record


def read_record(path: Path) -> ScanRecord | None:
    """Read a record; None if there is none, it can't be understood, or it speaks of another scan than its name."""
    content, problem = load_json_object(path)
    known = {field.name for field in fields(ScanRecord)}
    required = known - {"field_strength", "echo_time"}
    if problem or not required <= set(content) or content["status"] not in get_args(RecordStatus):
        return None
    texts = ("name", "participant_id", "source", "contrast", "fingerprint", "message", "log")
    if not all(isinstance(content[key], str) for key in texts) or not isinstance(content["sizes"], dict):
        return None
    # A record that names another subject than itself could lead anywhere.
    parsed = parse_name(path.name)
    whose = f"sub-{dict(parsed[0]).get('sub')}" if parsed else None
    if f"{content['name']}.json" != path.name or content["participant_id"] != whose:
        return None
    return ScanRecord(**{key: value for key, value in content.items() if key in known})


def fingerprint(facts: Mapping[str, Any], files: Iterable[Path]) -> str:
    """Hash what a scan's outputs depend on.

    Parameters
    ----------
    facts
        Options, versions and metadata: anything that JSON can hold.
    files
        Input files; they enter by name, size and time of last change, not by content, which would take long.
        Links are followed. A file that isn't there enters as such. A file of git-annex enters by its key, which names
        its content, so that dropping and fetching it again changes nothing.
    """
    text = json.dumps([facts, [_state(path) for path in files]], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _state(path: Path) -> list[Any]:
    if path.is_symlink():
        target = Path(os.readlink(path))  # noqa: PTH115 - the link as it is, though it lead nowhere
        if "annex" in target.parts and "objects" in target.parts:
            return [path.name, target.name]
    try:
        state = path.stat()
    except OSError:
        return [path.name, None]
    return [path.name, state.st_size, state.st_mtime_ns]
