"""The steps of a run as jobs for the workers, and which of them are already done."""

from __future__ import annotations

import contextlib
import errno
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import bids_cmb
from bids_cmb.bids.outputs import ScanFiles, source_uri
from bids_cmb.bids.records import ScanRecord, fingerprint, read_record, record_path
from bids_cmb.errors import BidsCmbError
from bids_cmb.run_log import job_log, now

if TYPE_CHECKING:
    from bids_cmb.config import RunConfig
    from bids_cmb.types import Scan

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScanJob:
    """Find the microbleeds of one scan."""

    scan: Scan
    config: RunConfig
    log: Path
    fingerprint: str

    @property
    def files(self) -> ScanFiles:
        """Names of its outputs."""
        return ScanFiles(self.scan, self.config.output_dir)

    @property
    def name(self) -> str:
        """Name of the scan."""
        return self.files.stem


@dataclass(frozen=True)
class ReportJob:
    """Make the page of one subject."""

    subject: str
    config: RunConfig
    log: Path

    @property
    def name(self) -> str:
        """What is made, in words."""
        return f"report of sub-{self.subject}"


@dataclass(frozen=True)
class CheckJob:
    """Load the weights and try the device, before the first scan."""

    config: RunConfig
    log: Path

    @property
    def name(self) -> str:
        """What is done, in words."""
        return "check of the detector"


Job = ScanJob | ReportJob | CheckJob


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes
    ----------
    status, message
        ``done`` or ``failed``, and a sentence.
    seconds
        How long it took.
    error
        What stopped it, if it was something that a user can act on.
    facts
        What else it found out.
    """

    status: Literal["done", "failed"]
    message: str
    seconds: float = 0.0
    error: BidsCmbError | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


Work = Callable[[Job], tuple[str, Mapping[str, Any]]]


def perform(job: Job, work: Work) -> Outcome:
    """Do one job, log what happens, and turn whatever goes wrong into one sentence.

    Parameters
    ----------
    job
        The job.
    work
        Does it and returns a sentence about the result, and what else it found out.
    """
    started = time.monotonic()
    with job_log(job.log, job.config.verbosity):
        try:
            message, facts = work(job)
        except Exception as error:  # noqa: BLE001 - whatever a library raises costs this job, not the run
            message = _sentence(error)
            _log.error("%s: %s", job.name, message)
            _log.info("%s", traceback.format_exc())
            known = error if isinstance(error, BidsCmbError) else None
            return Outcome("failed", message, round(time.monotonic() - started, 1), known)
        seconds = round(time.monotonic() - started, 1)
        _log.info("%s: %s in %.1f s", job.name, message, seconds)
        return Outcome("done", message, seconds, facts=facts)


def _sentence(error: Exception) -> str:
    """Say in one sentence what went wrong."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, BidsCmbError):
        return first_line
    if isinstance(error, MemoryError):
        return "There is not enough memory: use fewer --nprocs, or a machine with more."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full: make room where OUTPUT_DIR or the work folder lies, and run again."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} could not be read or written: {error.strerror}."
    return f"Unexpected {type(error).__name__}: {first_line or 'no message'}."


def scan_fingerprint(scan: Scan, config: RunConfig, model: Mapping[str, Any]) -> str:
    """Hash all that the outputs of a scan depend on.

    Parameters
    ----------
    scan
        The scan; its files enter by size and date.
    config
        The run; only options that change results enter.
    model
        Name, version and SHA-256 of the weights, and the SHA-256 of their manifest.
    """
    facts = {
        "software": bids_cmb.__version__,
        "model": dict(model),
        "threshold": config.threshold,
        "registration": config.registration,
        "contrast": scan.contrast,
        "source": source_uri(scan),
        "metadata": dict(scan.metadata),
        "warnings": scan.warnings,
    }
    files = [scan.path, *(path for path in (scan.brain_mask, scan.t1w) if path is not None)]
    return fingerprint(facts, files)


def is_current(job: ScanJob) -> bool:
    """Whether the outputs of a scan are complete, as large as they were, and what this run would write."""
    record = read_record(record_path(job.config.output_dir, job.name))
    if record is None or record.status != "done" or record.fingerprint != job.fingerprint:
        return False
    wanted = {path.name for path in job.files.expected(save_preproc=job.config.save_preproc)}
    return wanted <= set(record.sizes) and _sizes(job) == dict(record.sizes)


def _sizes(job: ScanJob) -> dict[str, int]:
    """Sizes of a scan's files by name; those of ``--save-preproc`` count where they are."""
    sizes = {}
    for path in job.files.expected(save_preproc=True):
        with contextlib.suppress(OSError):
            sizes[path.name] = path.stat().st_size
    return sizes


def record_of(job: ScanJob, outcome: Outcome) -> ScanRecord:
    """Make the record of a scan."""
    scan = job.scan
    return ScanRecord(
        name=job.name,
        participant_id=f"sub-{scan.subject}",
        session_id=f"ses-{scan.session}" if scan.session else None,
        source=source_uri(scan),
        contrast=scan.contrast,
        status=outcome.status,
        fingerprint=job.fingerprint,
        message=outcome.message,
        log=job.log.relative_to(job.config.output_dir).as_posix(),
        finished=now(),
        seconds=outcome.seconds,
        sizes=_sizes(job) if outcome.status == "done" else {},
        field_strength=scan.field_strength,
        echo_time=scan.echo_time,
    )
