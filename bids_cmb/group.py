"""The group level: all results of an output folder in a few tables and one page. Needs nothing but that folder."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bids_cmb.bids.listing import check_labels
from bids_cmb.bids.quality import QUALITY_COLUMNS, quality_rows
from bids_cmb.bids.results import ScanOutcome, read_outcomes
from bids_cmb.bids.review import GROUP_REVIEW_COLUMNS, count_reviews
from bids_cmb.bids.tables import (
    CONTRAST_COLUMN,
    IDENTITY_COLUMNS,
    LESION_COLUMN_NOTES,
    LESION_COLUMNS,
    Cell,
    finite_number,
    to_number,
    write_table,
)
from bids_cmb.config import ExitCode
from bids_cmb.files import remove_abandoned, write_json
from bids_cmb.resources import settled
from bids_cmb.run_log import RunLog, terminal_logging
from bids_cmb.types import MARS_REGIONS
from bids_cmb.wording import counted

if TYPE_CHECKING:
    from bids_cmb.config import RunConfig

_log = logging.getLogger(__name__)

Columns = Mapping[str, Mapping[str, Any]]

CMB_COLUMNS: Final[Columns] = {
    **IDENTITY_COLUMNS,
    "contrast": CONTRAST_COLUMN,
    "status": {
        "Description": "Whether the scan was processed; counts of failed scans are n/a.",
        "Levels": {"done": "results are complete", "failed": "there are none; 'warnings' says why"},
    },
    "n_cmb": {"Description": "Number of microbleeds."},
    "n_definite": {"Description": "Of these, definite."},
    "n_possible": {"Description": "Of these, possible."},
    "n_lobar": {"Description": "Of all, in lobar regions."},
    "n_deep": {"Description": "Of all, in deep regions."},
    "n_infratentorial": {"Description": "Of all, in brainstem and cerebellum."},
    "total_volume": {"Description": "Sum of the volumes, blooming included.", "Units": "mm^3"},
    "field_strength": {"Description": "From the image's sidecar.", "Units": "T"},
    "echo_time": {"Description": "From the image's sidecar.", "Units": "s"},
    "voxel_size": {
        "Description": "Voxel edges along left-right x back-front x down-up, to a hundredth of a millimetre.",
        "Units": "mm",
    },
    "brain_volume": {"Description": "Volume of the brain mask.", "Units": "mm^3"},
    "snr": {"Description": "Median brain signal over noise (QSM: 1 over the noise in ppm)."},
    "model": {"Description": "Name and version of the weights."},
    "warnings": {"Description": "What to keep in mind, or why the scan failed."},
}
LESION_TABLE_COLUMNS: Final[Columns] = {
    **IDENTITY_COLUMNS,
    "scan_contrast": CONTRAST_COLUMN,
    **{name: LESION_COLUMN_NOTES[name] for name in LESION_COLUMNS},
}
MARS_COLUMNS: Final[Columns] = {
    **IDENTITY_COLUMNS,
    "contrast": CONTRAST_COLUMN,
    **{
        f"{code}_{side}_{certainty}": {
            "Description": f"Number of {certainty} microbleeds in the {name}, {'left' if side == 'L' else 'right'}."
        }
        for code, name, _ in MARS_REGIONS
        for side in "LR"
        for certainty in ("definite", "possible")
    },
}


def run_group(config: RunConfig) -> int:
    """Run the group level: rebuild all group tables and the group page from the output folder.

    Parameters
    ----------
    config
        What to do; of the folders only the output folder is read.

    Returns
    -------
    int
        Exit status: 1 if there are no results or the page can't be made.

    Raises
    ------
    InputError
        If the folder can't be read.
    UsageError
        If a label has no results.
    """
    output_dir = config.output_dir
    with terminal_logging(config.verbosity), settled(config):
        scans = list(read_outcomes(output_dir))
        if not scans:
            sys.stdout.write(
                f"bids-cmb: nothing to do: {output_dir} has no results of the participant level.\n"
            )
            return ExitCode.FAILED
        if config.participant_labels or config.session_labels:
            _check_labels(config, scans)
            _log.warning("The group level covers all results in OUTPUT_DIR; labels are ignored.")
        if config.dry_run:
            rows = (cmb_row(scan) for scan in scans)
            sys.stdout.writelines(f"{row['source']}\t{row['contrast']}\t{row['status']}\n" for row in rows)
            return ExitCode.DONE
        with RunLog(config) as log:
            log.begin(config, total=0, scans=len(scans))
            remove_abandoned(output_dir)
            if not config.reports_only:
                for problem in write_group_tables(output_dir, scans):
                    _log.warning("%s", problem)
            page_failure = _write_page(output_dir) if config.report else ""
            failed = sum(scan.status == "failed" for scan in scans)
            lines = (
                [f"failed: the group page: {page_failure} Log: {log.folder / 'run.log'}"]
                if page_failure
                else []
            )
            lines += [
                f"bids-cmb: group tables of {counted(len(scans), 'scan')}: {len(scans) - failed} done, {failed} failed. "
                f"Results: {output_dir}"
            ]
            log.conclude("\n".join(lines))
        return ExitCode.FAILED if page_failure else ExitCode.DONE


def _check_labels(config: RunConfig, scans: Sequence[ScanOutcome]) -> None:
    """Refuse labels that no result has, although the tables are of all: they are mistakes at either level."""
    subjects = sorted({scan.participant_id.removeprefix("sub-") for scan in scans})
    sessions = sorted({scan.session_id.removeprefix("ses-") for scan in scans if scan.session_id})
    check_labels("sub-", config.participant_labels, subjects, config.output_dir)
    check_labels("ses-", config.session_labels, sessions, config.output_dir)


def _write_page(output_dir: Path) -> str:
    """Make the group page; return why it failed, if it did."""
    from bids_cmb.report.group import write_group_page

    try:
        write_group_page(output_dir)
    except Exception as error:  # noqa: BLE001 - the tables are there; the page must not take them along
        _log.exception("The group page could not be made.")
        return f"{type(error).__name__}: {error}."
    return ""


def write_group_tables(output_dir: Path, scans: Sequence[ScanOutcome]) -> list[str]:
    """Write all group tables with their sidecars.

    Returns
    -------
    list of str
        A sentence for each result or review that can't be used.
    """
    reviews, problems = count_reviews(output_dir, scans)
    tables: list[tuple[str, str, Columns, Iterable[Mapping[str, Cell]]]] = [
        ("group_cmb", "Microbleeds per scan.", CMB_COLUMNS, map(cmb_row, scans)),
        ("group_lesions", "All microbleeds.", LESION_TABLE_COLUMNS, _lesion_rows(scans)),
        (
            "group_mars",
            "Microbleeds per scan on the Microbleed Anatomical Rating Scale: region, side, certainty.",
            MARS_COLUMNS,
            map(mars_row, scans),
        ),
        ("group_quality", "What may be unusual about each scan.", QUALITY_COLUMNS, quality_rows(scans)),
    ]
    if reviews:
        tables.append(("group_review", "Readers' verdicts.", GROUP_REVIEW_COLUMNS, reviews))
    else:
        for extension in (".tsv", ".json"):
            (output_dir / f"group_review{extension}").unlink(missing_ok=True)
    for name, description, columns, rows in tables:
        write_table(output_dir / f"{name}.tsv", list(columns), rows)
        write_json(output_dir / f"{name}.json", {"Description": description, **columns})
    return [*(scan.problem for scan in scans if scan.problem), *problems]


def cmb_row(scan: ScanOutcome) -> dict[str, Cell]:
    """Return one scan's row of ``group_cmb``."""
    row = {**scan.identity, "contrast": scan.contrast, "status": scan.status}
    if scan.status == "failed":
        record = scan.record
        return {
            **row,
            "field_strength": record.field_strength if record else None,
            "echo_time": record.echo_time if record else None,
            "warnings": scan.problem,
        }
    grades = Counter(lesion["certainty"] for lesion in scan.lesions)
    places = Counter(lesion["mars_category"] for lesion in scan.lesions)
    sidecar = scan.sidecar
    model = sidecar.get("Model")
    warnings = sidecar.get("Warnings")
    return {
        **row,
        "n_cmb": len(scan.lesions),
        "n_definite": grades["definite"],
        "n_possible": grades["possible"],
        "n_lobar": places["lobar"],
        "n_deep": places["deep"],
        "n_infratentorial": places["infratentorial"],
        "total_volume": round(sum(to_number(lesion["volume"]) or 0.0 for lesion in scan.lesions), 2),
        "field_strength": finite_number(sidecar.get("MagneticFieldStrength")),
        "echo_time": finite_number(sidecar.get("EchoTime")),
        "voxel_size": _voxel_size(sidecar.get("VoxelSize")),
        "brain_volume": finite_number(sidecar.get("BrainVolume")),
        "snr": finite_number(sidecar.get("SNR")),
        "model": f"{model.get('Name', '')} {model.get('Version', '')}" if isinstance(model, dict) else None,
        "warnings": " ".join(str(text) for text in warnings) if isinstance(warnings, list) else None,
    }


def mars_row(scan: ScanOutcome) -> dict[str, Cell]:
    """Return one scan's row of ``group_mars``; a failed scan has no counts."""
    row: dict[str, Cell] = {**scan.identity, "contrast": scan.contrast}
    if scan.status == "failed":
        return row
    counts = Counter(
        f"{lesion.get('mars_region')}_{lesion.get('hemisphere')}_{lesion['certainty']}"
        for lesion in scan.lesions
    )
    return {**row, **{name: counts[name] for name in MARS_COLUMNS if name not in row}}


def _lesion_rows(scans: Iterable[ScanOutcome]) -> Iterable[Mapping[str, Cell]]:
    for scan in scans:
        for lesion in scan.lesions:
            yield {**scan.identity, "scan_contrast": scan.contrast, **lesion}


def _voxel_size(value: object) -> str | None:
    edges = [finite_number(edge) for edge in value] if isinstance(value, list) else []
    known = [f"{round(edge, 2):g}" for edge in edges if edge is not None]
    return "x".join(known) if known and len(known) == len(edges) else None
