"""Read the results of all scans back from an output folder, whatever state it is in."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_cmb.bids.entities import join_name, parse_name, scan_entities
from bids_cmb.bids.listing import list_subjects, names_in
from bids_cmb.bids.outputs import LESIONS_ENDING
from bids_cmb.bids.records import ScanRecord, Status, read_records
from bids_cmb.bids.sidecars import load_json_object
from bids_cmb.bids.tables import Cell, read_table
from bids_cmb.files import is_inside

_log = logging.getLogger(__name__)

_MASK_ENDING = "_label-CMB_mask.nii.gz"


@dataclass(frozen=True)
class ScanOutcome:
    """One scan as an output folder has it.

    Attributes
    ----------
    participant_id, session_id, source, contrast
        Which scan: labels with their prefix, BIDS URI, contrast; None where nothing says.
    status
        ``done`` if its results are complete.
    sidecar
        Fields of the sidecar of its microbleed map; empty if it failed.
    lesions
        Rows of its table of microbleeds.
    problem
        Why it failed, in a sentence.
    record
        Its record in ``logs/scans``, if there is one.
    """

    participant_id: str
    session_id: str | None
    source: str | None
    contrast: str | None
    status: Status
    sidecar: Mapping[str, Any] = field(default_factory=dict)
    lesions: tuple[dict[str, str], ...] = ()
    problem: str = ""
    record: ScanRecord | None = None

    @property
    def identity(self) -> dict[str, Cell]:
        """Cells of `bids_cmb.bids.tables.IDENTITY_COLUMNS`."""
        return {
            "participant_id": self.participant_id,
            "session_id": self.session_id,
            "source": self.source,
        }


def read_outcomes(output_dir: Path) -> Iterator[ScanOutcome]:
    """Yield all scans of an output folder, by subject, session and name.

    Files that are not ours are passed over. A scan whose files are incomplete or damaged has failed, and so has
    one that its record says failed, even if older files are still there. Complete results need no record.

    Raises
    ------
    InputError
        If the folder can't be read.
    """
    by_subject: dict[str, dict[str, ScanRecord]] = {}
    for record in read_records(output_dir):
        by_subject.setdefault(record.participant_id.removeprefix("sub-"), {})[record.name] = record
    for subject in sorted({*list_subjects(output_dir), *by_subject}):
        own = by_subject.get(subject, {})
        found: dict[str, ScanOutcome] = {}
        for folder in _anatomy_folders(output_dir / f"sub-{subject}"):
            if is_inside(folder, output_dir):
                found.update(_read_folder(folder, own))
            else:
                _log.warning("%s leads out of OUTPUT_DIR by a link and was left out.", folder)
        for name, record in own.items():
            if name not in found and record.status == "failed":
                found[name] = _failed(record, record.message)
        yield from sorted(found.values(), key=lambda scan: (scan.session_id or "", scan.source or ""))


def _anatomy_folders(home: Path) -> list[Path]:
    sessions = [home / name for name in names_in(home) if name.startswith("ses-")]
    return [place / "anat" for place in (home, *sessions)]


def _read_folder(folder: Path, records: Mapping[str, ScanRecord]) -> dict[str, ScanOutcome]:
    """Read the scans of one folder; the key is the scan's name in the records."""
    names = names_in(folder)
    complete = {name.removesuffix(".json") for name in names if name.endswith(f"{LESIONS_ENDING}.json")}
    begun = {
        name.removesuffix(_MASK_ENDING) + LESIONS_ENDING for name in names if name.endswith(_MASK_ENDING)
    }
    found: dict[str, ScanOutcome] = {}
    for stem in sorted(complete | begun):
        parsed = parse_name(f"{stem}.json")
        entities = dict(parsed[0]) if parsed else {}
        if not parsed or "sub" not in entities or "space" not in entities:
            continue
        name = join_name(scan_entities(parsed[0]), entities["space"])
        if name in records and records[name].status == "superseded":
            continue
        found[name] = _read_scan(folder / stem, entities, records.get(name), complete=stem in complete)
    return found


def _read_scan(
    stem: Path, entities: Mapping[str, str], record: ScanRecord | None, *, complete: bool
) -> ScanOutcome:
    identity = f"sub-{entities['sub']}", f"ses-{entities['ses']}" if "ses" in entities else None
    if record is not None and record.status == "failed":
        return _failed(record, record.message)
    json_path, table_path = stem.with_name(f"{stem.name}.json"), stem.with_name(f"{stem.name}.tsv")
    sidecar, problem = load_json_object(json_path) if complete else ({}, "")
    lesions: list[dict[str, str]] = []
    if not complete:
        problem = f"The results of {stem} are incomplete: run the participant level again."
    elif not problem and "Contrast" not in sidecar:
        problem = f"The sidecar {json_path} is empty or not of this program: run the participant level again."
    elif not problem:
        try:
            lesions = read_table(table_path, ("certainty", "mars_category", "volume"))
        except ValueError as error:
            problem = f"{error} Run the participant level again."
        if not problem and record is not None and not _is_as_written(table_path, record):
            problem = (
                f"The table {table_path} has changed since it was written: run the participant level again."
            )
    sources = sidecar.get("Sources")
    named = sources[0] if isinstance(sources, list) and sources else None
    source = named if isinstance(named, str) else record.source if record else None
    contrast = str(sidecar["Contrast"]) if "Contrast" in sidecar else record.contrast if record else None
    if problem:
        return ScanOutcome(*identity, source, contrast, "failed", problem=problem, record=record)
    # The descriptions of columns, all in small letters, would fill the memory ten thousand times over.
    facts = {key: value for key, value in sidecar.items() if key[:1].isupper()}
    return ScanOutcome(*identity, source, contrast, "done", facts, tuple(lesions), record=record)


def _is_as_written(path: Path, record: ScanRecord) -> bool:
    """Whether a file is as long as the record says: a table that was cut off may still look like one."""
    return record.sizes.get(path.name) in (None, path.stat().st_size)


def _failed(record: ScanRecord, problem: str) -> ScanOutcome:
    return ScanOutcome(
        record.participant_id,
        record.session_id,
        record.source,
        record.contrast,
        "failed",
        problem=problem,
        record=record,
    )
