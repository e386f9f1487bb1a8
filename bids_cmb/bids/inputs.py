"""Find the scans of a dataset: which images microbleeds are to be looked for on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from bids_cmb.bids.companions import find_brain_mask, find_t1w
from bids_cmb.bids.entities import BidsFile
from bids_cmb.bids.listing import (
    check_labels,
    list_from_database,
    list_images,
    list_sessions,
    list_subjects,
)
from bids_cmb.bids.rules import Filters, first_matches, has_unusable_type, select
from bids_cmb.bids.sidecars import SidecarReader, tidy_metadata
from bids_cmb.types import CONTRASTS, Contrast, Scan

_log = logging.getLogger(__name__)

#: Name of the input dataset in BIDS URIs.
RAW = "raw"


@dataclass(frozen=True)
class Dataset:
    """A dataset to look in: its name in BIDS URIs and its folder."""

    name: str
    root: Path


def find_scans(
    bids_dir: Path,
    *,
    participant_labels: Sequence[str] = (),
    session_labels: Sequence[str] = (),
    contrasts: Sequence[Contrast] = (),
    filters: Filters | None = None,
    derivatives: Sequence[tuple[str, Path]] = (),
    database_dir: Path | None = None,
    unreadable: list[str] | None = None,
) -> list[Scan]:
    """Find every scan that is asked for.

    Parameters
    ----------
    bids_dir
        The raw dataset. Its ``derivatives`` folder is not looked into.
    participant_labels, session_labels
        Labels without ``sub-`` and ``ses-``; empty means all.
    contrasts
        Limit to these; empty means all.
    filters
        pybids-style entity filters by contrast (see `bids_cmb.bids.rules.select`).
    derivatives
        Names and folders of datasets to look in for QSM, T1w images and brain masks.
    database_dir
        Folder of a pybids database of `bids_dir`.
    unreadable
        Takes a sentence for each folder inside the datasets that can't be read; the scans elsewhere are found.

    Returns
    -------
    list of Scan
        By subject, session and name. A file that is a link to data that were not fetched is a scan as well.

    Raises
    ------
    UsageError
        If a label isn't in the dataset.
    InputError
        If a dataset can't be read, or a folder inside one and there is no list for that.
    """
    raw = Dataset(RAW, bids_dir)
    others = [Dataset(name, root) for name, root in derivatives]
    present = list_subjects(bids_dir)
    subjects = check_labels("sub-", participant_labels, present, bids_dir)
    files = (
        list_from_database(bids_dir, database_dir, subjects)
        if database_dir
        else list_images(bids_dir, subjects, unreadable)
    )
    by_subject = {subject: list(group) for subject, group in groupby(files, key=lambda file: file.get("sub"))}
    if session_labels:
        sessions = {name for dataset in (raw, *others) for name in list_sessions(dataset.root, present)}
        check_labels("ses-", session_labels, sorted(sessions), bids_dir)
    readers = {dataset.name: SidecarReader(dataset.root) for dataset in (raw, *others)}
    scans: list[Scan] = []
    for subject in subjects:
        sources = [(raw, by_subject.get(subject, []))]
        sources += [(dataset, list_images(dataset.root, [subject], unreadable)) for dataset in others]
        scans.extend(
            _scans_of_subject(sources, session_labels, contrasts or CONTRASTS, filters or {}, readers)
        )
    for contrast in filters or {}:
        if contrast in (contrasts or CONTRASTS) and not any(scan.contrast == contrast for scan in scans):
            _log.warning("The filter for %s passes no image.", contrast)
    for reader in readers.values():
        for problem in reader.problems:
            _log.warning("%s", problem)
    return scans


def _scans_of_subject(
    sources: Sequence[tuple[Dataset, list[BidsFile]]],
    sessions: Sequence[str],
    contrasts: Sequence[Contrast],
    filters: Filters,
    readers: dict[str, SidecarReader],
) -> list[Scan]:
    """Pick one subject's scans out of its files in the raw dataset (first) and in derivatives datasets."""
    owner = {file.path: dataset for dataset, files in sources for file in files}
    everything = [file for _, files in sources for file in files]
    derived = [file for _, files in sources[1:] for file in files]

    def metadata(file: BidsFile) -> dict[str, object]:
        return tidy_metadata(readers[owner[file.path].name].read(file))[0]

    ranked: dict[Contrast, list[tuple[BidsFile, int]]] = {contrast: [] for contrast in CONTRASTS}
    for order, (dataset, files) in enumerate(sources):
        for file, contrast, rank in select(files, filters):
            if sessions and file.get("ses") not in sessions:
                continue
            if contrast == "qsm":
                ranked[contrast].append((file, 10 * order + rank))
            elif dataset.name == RAW and has_unusable_type(metadata(file)):
                _log.warning("%s was left out: its sidecar says that it is no magnitude image.", file.path)
            elif dataset.name == RAW:
                ranked[contrast].append((file, rank))
    scans: list[Scan] = []
    for contrast in (contrast for contrast in CONTRASTS if contrast in contrasts):
        kept, passed = first_matches(ranked[contrast], metadata)
        for file in passed:
            _log.info("%s was passed over: another image of the same acquisition is used.", file.path)
        for file, warnings in kept:
            dataset = owner[file.path]
            tidy, notes = tidy_metadata(readers[dataset.name].read(file))
            mask, t1w = find_brain_mask(file, derived), find_t1w(file, everything)
            scans.append(
                Scan(
                    path=file.path,
                    contrast=contrast,
                    suffix=file.suffix,
                    entities=file.entities,
                    dataset_root=dataset.root,
                    dataset_name=dataset.name,
                    metadata=tidy,
                    brain_mask=mask.path if mask else None,
                    t1w=t1w.path if t1w else None,
                    warnings=(*warnings, *readers[dataset.name].problems_of(file), *notes),
                )
            )
    return sorted(scans, key=lambda scan: (scan.session or "", scan.path.name))
