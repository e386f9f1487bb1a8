"""Results of an image that is no longer the one of its acquisition: another echo, part or reconstruction was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bids_cmb.bids.entities import Entities, parse_name
from bids_cmb.bids.listing import names_in
from bids_cmb.bids.outputs import ScanFiles
from bids_cmb.bids.records import FOLDER, read_record, write_record
from bids_cmb.bids.rules import scan_key
from bids_cmb.types import Scan


def mark_superseded(output_dir: Path, scans: Sequence[Scan]) -> list[str]:
    """Mark the records of earlier images of the acquisitions of a run, so that none is counted twice.

    Their files stay where they are; the group level and the pages leave them out.

    Parameters
    ----------
    output_dir
        The output folder.
    scans
        All scans of the run.

    Returns
    -------
    list of str
        A sentence for each.
    """
    chosen: dict[tuple[str, Entities], str] = {
        (scan.contrast, scan_key(scan.entities)): ScanFiles(scan, output_dir).stem for scan in scans
    }
    keys = {key for _, key in chosen}
    current = set(chosen.values())
    notes = []
    for name in names_in(output_dir / FOLDER):
        parsed = parse_name(name)
        if parsed is None or name.removesuffix(".json") in current or scan_key(parsed[0]) not in keys:
            continue
        record = read_record(output_dir / FOLDER / name)
        if record is None or record.status == "superseded":
            continue
        instead = chosen.get((record.contrast, scan_key(parsed[0])))
        if instead is not None:
            write_record(output_dir, replace(record, status="superseded"))
            with suppress(OSError):
                (output_dir / f"{record.participant_id}.html").unlink()  # it is made anew
            notes.append(f"The earlier results of {record.name} no longer count: {instead} is used instead.")
    return notes
