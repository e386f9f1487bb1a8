"""What one run is asked to do: a frozen configuration, passed on explicitly, and the exit codes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bids_cmb.types import Contrast

Level = Literal["participant", "group"]
Device = Literal["auto", "cpu", "cuda"]
RegistrationKind = Literal["fast", "syn"]


class ExitCode(enum.IntEnum):
    """Exit status of the command."""

    DONE = 0
    FAILED = 1
    USAGE = 2


@dataclass(frozen=True)
class RunConfig:
    """The options of one run; see ``bids-cmb --help`` for what each means.

    Attributes
    ----------
    bids_dir, output_dir
        Absolute paths, not resolved through symbolic links.
    participant_labels, session_labels
        Without ``sub-`` and ``ses-``; empty means all.
    filters
        pybids-style entity filters by contrast.
    contrasts
        Empty means all.
    derivatives
        Pairs of (name in BIDS URIs, folder).
    nprocs, omp_nthreads, mem_gb
        Scans at once, threads of each, and gigabytes to stay under (None: what the machine has free).
    model, threshold
        None means the packaged model and the operating points of its card.
    verbosity
        -1 quiet, 0 normal, 1 and above verbose.
    """

    bids_dir: Path
    output_dir: Path
    level: Level = "participant"
    participant_labels: tuple[str, ...] = ()
    session_labels: tuple[str, ...] = ()
    filters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    contrasts: tuple[Contrast, ...] = ()
    derivatives: tuple[tuple[str, Path], ...] = ()
    skip_bids_validation: bool = False
    bids_database_dir: Path | None = None
    device: Device = "auto"
    nprocs: int = 1
    omp_nthreads: int = 1
    mem_gb: float | None = None
    work_dir: Path | None = None
    model: str | None = None
    threshold: float | None = None
    registration: RegistrationKind = "fast"
    report: bool = True
    report_viewer: bool = False
    reports_only: bool = False
    save_preproc: bool = False
    force: bool = False
    stop_on_first_crash: bool = False
    dry_run: bool = False
    verbosity: int = 0
