"""Records that no longer hold: another image of the acquisition was chosen, or one that failed is gone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bids_cmb.bids.entities import Entities, bids_uri, parse_name
from bids_cmb.bids.inputs import RAW
from bids_cmb.bids.listing import names_in
from bids_cmb.bids.outputs import ScanFiles
from bids_cmb.bids.records import FOLDER, read_record, read_records, record_path, write_record
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


def forget_failures(output_dir: Path, bids_dir: Path, subjects: Sequence[str]) -> list[str]:
    """Remove the records of failed images that are gone, while their subject is in the dataset: nobody could mend them.

    Results that are there are kept, and so are failures of images that are links to data that was dropped.

    Parameters
    ----------
    output_dir, bids_dir
        The output folder, and the dataset that the images came from.
    subjects
        Labels of the subjects to look at; empty for all.

    Returns
    -------
    list of str
        A sentence for each.
    """
    raw, notes = bids_uri(RAW, ""), []
    for record in read_records(output_dir, subjects):
        image = record.source.removeprefix(raw)
        # A run on another copy of the dataset, of a few subjects, says nothing about the others.
        known = record.source.startswith(raw) and (bids_dir / record.participant_id).is_dir()
        if record.status != "failed" or not known or os.path.lexists(bids_dir / image):
            continue
        with suppress(OSError):
            record_path(output_dir, record.name).unlink()
            (output_dir / f"{record.participant_id}.html").unlink(missing_ok=True)  # it is made anew
            notes.append(f"{image} failed earlier and is gone from the dataset: it no longer counts.")
    return notes
