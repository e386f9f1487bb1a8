"""What a run is going to do, before anything heavy starts: the plan, and reasons why there is none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bids_cmb.bids.images import count_voxels
from bids_cmb.bids.outputs import ScanFiles, source_uri
from bids_cmb.bids.tables import table_text
from bids_cmb.resources import scan_memory_gb, workers_within_memory

if TYPE_CHECKING:
    from bids_cmb.config import RunConfig
    from bids_cmb.types import Scan

_log = logging.getLogger(__name__)


def plan_table(scans: Sequence[Scan], config: RunConfig) -> str:
    """Return the table of ``--dry-run``: one line per scan, tab-separated, with a header.

    ``outputs`` is how the names of the scan's files begin, from the root of the output folder.
    """
    rows = []
    for scan in scans:
        beginning = ScanFiles(scan, config.output_dir).path("brain_mask", "").relative_to(config.output_dir)
        rows.append(
            {
                "participant_id": f"sub-{scan.subject}",
                "session_id": f"ses-{scan.session}" if scan.session else None,
                "contrast": scan.contrast,
                "source": source_uri(scan),
                "brain_mask": scan.brain_mask.name if scan.brain_mask else None,
                "t1w": scan.t1w.name if scan.t1w else None,
                "outputs": beginning.as_posix().removesuffix("desc-brain_mask") + "*",
            }
        )
    columns = ["participant_id", "session_id", "contrast", "source", "brain_mask", "t1w", "outputs"]
    return table_text(columns, rows)


def why_nothing(config: RunConfig) -> str:
    """Say why no scan was found, and what would be one."""
    asked = [f"sub-{label}" for label in config.participant_labels]
    asked += [f"ses-{label}" for label in config.session_labels]
    what = " or ".join(name.upper() for name in config.contrasts) or "SWI, GRE or QSM"
    narrowed = " that passes the filter file" if config.filters else ""
    of = f" of {', '.join(asked)}" if asked else ""
    return (
        f"no {what} scan{of}{narrowed} was found in {config.bids_dir}; scans are anat/*_swi, anat/*_T2starw, "
        "anat/*_MEGRE and anat/*_Chimap (QSM also in datasets given by -d), other names need --bids-filter-file"
    )


def count_workers(scans: Sequence[Scan], config: RunConfig) -> int:
    """Return how many scans to work on at once: what was asked for, as far as there are scans and memory."""
    wanted = min(config.nprocs, len(scans))
    if wanted <= 1 and config.mem_gb is None:
        return 1
    largest = max(count_voxels(scan.path) for scan in scans)
    needed = scan_memory_gb(largest)
    if config.mem_gb is not None and needed > config.mem_gb:
        _log.warning("The largest scan may take %.1f GB, more than --mem-gb %g.", needed, config.mem_gb)
    return workers_within_memory(wanted, largest, config.mem_gb)
