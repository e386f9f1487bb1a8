"""Carry out the jobs of a run: hand them to workers, keep records, tell what happens, count."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_cmb.bids.records import FOLDER, write_record
from bids_cmb.config import ExitCode
from bids_cmb.errors import BidsCmbError
from bids_cmb.files import remove_abandoned
from bids_cmb.jobs import CheckJob, Job, Outcome, ReportJob, ScanJob, record_of
from bids_cmb.workers import Died, Workers

if TYPE_CHECKING:
    from bids_cmb.config import RunConfig
    from bids_cmb.run_log import RunLog

_log = logging.getLogger(__name__)


@dataclass
class Tally:
    """What became of a run: numbers of scans, and a line for each failure, those of pages included."""

    done: int = 0
    skipped: int = 0
    failed: int = 0
    not_started: int = 0
    pages: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def exit_status(self) -> ExitCode:
        """0 if everything that was asked for is there."""
        return ExitCode.FAILED if self.failures else ExitCode.DONE

    def closing_lines(self, config: RunConfig) -> str:
        """Say how it went and where to look."""
        if config.reports_only:
            counts = f"reports: {self.pages} done, {len(self.failures)} failed"
        else:
            counts = f"scans: {self.done} done, {self.skipped} skipped, {self.failed} failed"
        if self.not_started:
            counts += f", {self.not_started} not started after the first failure"
        return "\n".join([*self.failures, f"bids-cmb: {counts}. Results: {config.output_dir}"])


def carry_out(
    config: RunConfig,
    workers: Workers[Job, Outcome],
    log: RunLog,
    *,
    scans: Sequence[ScanJob],
    skipped: int = 0,
    reports: Sequence[str] = (),
) -> Tally:
    """Do all scans, and the page of each subject after its last one.

    Parameters
    ----------
    config
        The run.
    workers
        Who does it.
    log
        Where to tell.
    scans
        What is to be done.
    skipped
        How many scans are complete already.
    reports
        Subjects whose page is made although none of their scans is to be done.
    """
    tally = Tally(skipped=skipped)
    open_scans = Counter(job.scan.subject for job in scans)
    for folder in (config.output_dir, *(config.output_dir / FOLDER.parent).iterdir()):
        remove_abandoned(folder)
    for scan in scans:
        workers.submit(scan)
    for subject in reports:
        workers.submit(_report(subject, config, log))
    try:
        for job, result in workers.results():
            outcome = result if isinstance(result, Outcome) else _outcome_of_death(result)
            _take_down(job, outcome, config, log, tally)
            if outcome.status == "failed" and config.stop_on_first_crash:
                tally.not_started = len(scans) - tally.done - tally.failed
                break
            if isinstance(job, ScanJob):
                open_scans[job.scan.subject] -= 1
                if config.report and not open_scans[job.scan.subject]:
                    workers.submit(_report(job.scan.subject, config, log))
    finally:
        unfinished = workers.active
        workers.stop()
        for left in unfinished:
            remove_abandoned(left.files.folder if isinstance(left, ScanJob) else config.output_dir)
    return tally


def _report(subject: str, config: RunConfig, log: RunLog) -> ReportJob:
    return ReportJob(subject, config, log.folder / f"sub-{subject}_report.log")


def _outcome_of_death(death: Died) -> Outcome:
    return Outcome("failed", f"It stopped: {death}.")


def _take_down(job: Job, outcome: Outcome, config: RunConfig, log: RunLog, tally: Tally) -> None:
    """Keep the record of a job, tell of it and count it."""
    if isinstance(job, ScanJob):
        write_record(config.output_dir, record_of(job, outcome))
        # The page shows an earlier result; a new one follows where pages are asked for.
        if outcome.status == "failed":
            with suppress(OSError):
                (config.output_dir / f"sub-{job.scan.subject}.html").unlink()
    contrast = f" ({job.scan.contrast})" if isinstance(job, ScanJob) else ""
    if outcome.status == "done":
        sentence = f"{job.name}{contrast}: {outcome.message}, {outcome.seconds:.0f} s"
        tally.done += isinstance(job, ScanJob)
        tally.pages += isinstance(job, ReportJob)
    else:
        sentence = f"{job.name}{contrast}: FAILED. {outcome.message}"
        tally.failures.append(f"failed: {job.name}: {outcome.message} Log: {job.log}")
        tally.failed += isinstance(job, ScanJob)
    if isinstance(job, ScanJob) or config.reports_only:
        log.progress(sentence)
    elif outcome.status == "failed":
        log.say(sentence)


def check_detector(workers: Workers[Job, Outcome], config: RunConfig, scratch: Path) -> Mapping[str, Any]:
    """Load the weights and try the device in a worker, so that mistakes show before the first scan.

    Returns
    -------
    Mapping
        ``model``: name, version and SHA-256 of the weights; ``device``: what it will run on.

    Raises
    ------
    BidsCmbError
        If the detector can't be used.
    """
    workers.submit(CheckJob(config, scratch / "check.log"))
    ((_, outcome),) = workers.results()
    if isinstance(outcome, Died):
        raise BidsCmbError(f"The detector could not be started: {outcome}.")
    if outcome.status == "failed":
        raise outcome.error or BidsCmbError(f"The detector could not be started. {outcome.message}")
    for warning in outcome.facts.get("warnings", ()):
        _log.warning("%s", warning)
    return outcome.facts
