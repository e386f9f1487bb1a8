"""The main job: find the scans of a dataset, find the microbleeds on each, write what was found, show it.

`process_scan` is the story of one scan, `run_participant` that of a run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_cmb.bids.description import write_dataset_files
from bids_cmb.bids.inputs import find_scans
from bids_cmb.bids.listing import list_subjects
from bids_cmb.bids.outputs import Provenance, ScanFiles, ScanResult, write_scan
from bids_cmb.bids.records import read_records, record_path
from bids_cmb.bids.superseded import forget_failures, mark_superseded
from bids_cmb.bids.validation import check_description
from bids_cmb.config import ExitCode, RunConfig
from bids_cmb.errors import UsageError
from bids_cmb.execution import carry_out, check_detector
from bids_cmb.files import check_inside, remove_abandoned
from bids_cmb.jobs import Job, Outcome, ReportJob, ScanJob, is_current, perform, scan_fingerprint
from bids_cmb.plan import count_workers, plan_table, why_nothing
from bids_cmb.resources import settled
from bids_cmb.run_log import RunLog, collected_warnings, terminal_logging
from bids_cmb.scan_inputs import companion_uris, load_brain_mask, load_t1w
from bids_cmb.types import Detection, Scan
from bids_cmb.wording import counted
from bids_cmb.workers import Workers

if TYPE_CHECKING:
    from bids_cmb.detector.weights import Model

_log = logging.getLogger(__name__)


def process_scan(job: ScanJob) -> Detection:
    """Find the microbleeds of one scan and write all its files.

    Parameters
    ----------
    job
        The scan and the run's configuration.

    Raises
    ------
    InputError
        If the image can't be used.
    ModelError
        If the weights can't.
    UsageError
        If its results would leave the output folder by a link.
    """
    from bids_cmb.anatomy.locate import locate
    from bids_cmb.anatomy.mars import assign_regions
    from bids_cmb.detector.cleanup import clean_up
    from bids_cmb.detector.pipeline import detect
    from bids_cmb.imaging.prepare import prepare
    from bids_cmb.imaging.volume import load_image

    scan, config = job.scan, job.config
    check_inside(job.files.folder, config.output_dir)
    model = load_detector(config)

    loaded = load_image(scan.path)
    own_mask = load_brain_mask(scan)
    t1w, t1w_notes = load_t1w(scan)
    prepared = prepare(loaded.volume, scan.contrast, brain_mask=own_mask, metadata=scan.metadata)
    image, brain = prepared.image, prepared.brain_mask
    detection = detect(image, brain, scan.contrast, model, device=config.device)
    anatomy = locate(image, brain, scan.contrast, t1w=t1w, finer=config.registration == "syn")
    detection = assign_regions(detection, anatomy, image)
    detection = clean_up(detection, brain, anatomy.zones, scan.contrast, model)

    result = ScanResult(
        prepared=prepared,
        detection=detection,
        anatomy=anatomy,
        restore=loaded.restore,
        header=loaded.header,
        provenance=_provenance(model, scan),
        warnings=(
            *scan.warnings,
            *loaded.notes,
            *t1w_notes,
            *prepared.warnings,
            *detection.warnings,
            *anatomy.warnings,
        ),
    )
    for warning in result.warnings:
        _log.warning("%s: %s", job.name, warning)
    remove_abandoned(job.files.folder)
    # The page shows what was there before; without it, a run that is stopped now makes it anew next time.
    (config.output_dir / f"sub-{scan.subject}.html").unlink(missing_ok=True)
    # The record of earlier results must not vouch for files that are being replaced.
    record_path(config.output_dir, job.name).unlink(missing_ok=True)
    sources = companion_uris(scan, config, with_t1w=bool(anatomy.quality.get("t1w_used")))
    write_scan(scan, result, config.output_dir, sources=sources, save_preproc=config.save_preproc)
    return detection


def _provenance(model: Model, scan: Scan) -> Provenance:
    thresholds = {
        "candidate": model.candidate_threshold,
        "operating_point": model.thresholds[scan.contrast],
        "definite": model.definite[scan.contrast],
    }
    return Provenance(model.name, model.version, model.sha256, thresholds)


def load_detector(config: RunConfig) -> Model:
    """Return the weights that the run asks for, with its operating point if it names one.

    Raises
    ------
    ModelError
        If there are no such weights, or they are damaged.
    """
    from bids_cmb.detector.weights import load_model

    model = load_model(config.model)
    return model if config.threshold is None else model.at(config.threshold)


def work(job: Job) -> Outcome:
    """Do one job in a worker process."""
    return perform(job, _do)


def _do(job: Job) -> tuple[str, Mapping[str, Any]]:
    if isinstance(job, ScanJob):
        return _count(process_scan(job)), {}
    if isinstance(job, ReportJob):
        from bids_cmb.report.subject import write_subject_page

        config = job.config
        page = write_subject_page(
            config.output_dir, job.subject, bids_dir=config.bids_dir, viewer=config.report_viewer
        )
        return page.name, {}
    from bids_cmb.detector.devices import choose_device

    model = load_detector(job.config)
    with collected_warnings() as warnings:
        device = choose_device(job.config.device)
    # The manifest's numbers (thresholds, calibration) decide as much as the weights do.
    card = hashlib.sha256(json.dumps(dict(model.card), sort_keys=True, default=str).encode()).hexdigest()
    named = {"name": model.name, "version": model.version, "sha256": model.sha256, "card_sha256": card}
    return "ready", {"model": named, "device": str(device), "warnings": warnings}


def _count(detection: Detection) -> str:
    found = len(detection.microbleeds)
    possible = sum(lesion.certainty == "possible" for lesion in detection.microbleeds)
    return counted(found, "microbleed") + (f" ({possible} possible)" if possible else "")


def run_participant(config: RunConfig, *, work: Callable[[Job], Outcome] = work) -> int:
    """Run the participant level.

    Parameters
    ----------
    config
        What to do.
    work
        Does one job in a worker process; must be importable there.

    Returns
    -------
    int
        Exit status.

    Raises
    ------
    UsageError
        If labels or folders are not what the configuration says.
    InputError
        If the dataset can't be read.
    ModelError
        If the weights can't be used.
    """
    with terminal_logging(config.verbosity), settled(config) as scratch:
        if config.reports_only:
            return _make_reports(config, work)
        if not config.skip_bids_validation:
            check_description(config.bids_dir)
        unreadable: list[str] = []
        scans = find_scans(
            config.bids_dir,
            participant_labels=config.participant_labels,
            session_labels=config.session_labels,
            contrasts=config.contrasts,
            filters=config.filters,
            derivatives=config.derivatives,
            database_dir=config.bids_database_dir,
            unreadable=unreadable,
        )
        for sentence in unreadable:
            _log.error("%s", sentence)
        if not scans:
            sys.stdout.write(f"bids-cmb: nothing to do: {why_nothing(config)}.\n")
            return ExitCode.FAILED
        if config.dry_run:
            sys.stdout.write(plan_table(scans, config))
            return ExitCode.FAILED if unreadable else ExitCode.DONE
        with Workers(work, count_workers(scans, config)) as workers:
            return _process_all(config, scans, workers, scratch, unreadable)


def _process_all(
    config: RunConfig,
    scans: list[Scan],
    workers: Workers[Job, Outcome],
    scratch: Path,
    unreadable: Sequence[str],
) -> ExitCode:
    """Do the scans that are not complete and current, with the pages of their subjects.

    What could not be looked into (`unreadable`, a sentence each) is among the failures of the run.
    """
    facts = check_detector(workers, config, scratch)
    write_dataset_files(config.output_dir, config.bids_dir, config.derivatives)
    with RunLog(config) as log:
        jobs = [
            ScanJob(
                scan,
                config,
                log.folder / f"{ScanFiles(scan, config.output_dir).stem}.log",
                scan_fingerprint(scan, config, facts["model"]),
            )
            for scan in scans
        ]
        for note in mark_superseded(config.output_dir, scans):
            _log.warning("%s", note)
        for note in forget_failures(config.output_dir, config.bids_dir, config.participant_labels):
            log.say(note)
        to_do = [job for job in jobs if config.force or not is_current(job)]
        log.begin(config, total=len(to_do), scans=[job.name for job in to_do], **facts)
        skipped = len(jobs) - len(to_do)
        if skipped:
            log.say(f"{skipped} of {len(jobs)} scans are complete and current; --force redoes them.")
        busy = {job.scan.subject for job in to_do}
        idle = sorted({job.scan.subject for job in jobs} - busy) if config.report else []
        # Whether a page that is there has a viewer, nothing says: one that is asked for is made.
        pages = [
            label
            for label in idle
            if config.report_viewer or not (config.output_dir / f"sub-{label}.html").exists()
        ]
        tally = carry_out(config, workers, log, scans=to_do, skipped=skipped, reports=pages)
        tally.failures.extend(unreadable)
        log.conclude(tally.closing_lines(config))
    return tally.exit_status


def _make_reports(config: RunConfig, work: Callable[[Job], Outcome]) -> ExitCode:
    """Make the pages of all subjects in the output folder, or of those that are asked for."""
    # Subjects whose scans have all failed have a page too, and only records.
    recorded = read_records(config.output_dir, config.participant_labels)
    present = {*list_subjects(config.output_dir), *(r.participant_id.removeprefix("sub-") for r in recorded)}
    missing = sorted(set(config.participant_labels) - present)
    if missing or not present:
        names = ", ".join(f"sub-{label}" for label in missing) or "any subject"
        raise UsageError(f"{config.output_dir} has no results of {names}; run without --reports-only first.")
    subjects = sorted(config.participant_labels or present)
    if config.dry_run:
        sys.stdout.write("".join(f"sub-{label}: page to be made\n" for label in subjects))
        return ExitCode.DONE
    with Workers(work, min(config.nprocs, len(subjects))) as workers, RunLog(config) as log:
        log.begin(config, total=len(subjects))
        tally = carry_out(config, workers, log, scans=[], reports=subjects)
        log.conclude(tally.closing_lines(config))
    return tally.exit_status
