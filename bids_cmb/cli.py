"""The command line: options in, a frozen `RunConfig` out, and the exit status. Imports nothing heavy."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import bids_cmb
from bids_cmb.config import ExitCode, RunConfig
from bids_cmb.errors import BidsCmbError, ModelError, UsageError
from bids_cmb.interruption import Interrupted, leave_on_signals

DESCRIPTION = (
    "Find cerebral microbleeds on SWI, T2*-weighted GRE and QSM of a BIDS dataset. Research use only: not a "
    "medical device."
)
EPILOG = (
    "Options may be spelt with dashes or underscores, labels with or without sub-/ses-. Exit status: 0 every "
    "scan done; 1 at least one failed, or nothing to do; 2 wrong usage."
)

_Number = TypeVar("_Number", int, float)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Parameters
    ----------
    argv
        Arguments after the command's name; by default those of the process.
    """
    config = None
    with contextlib.suppress(AttributeError):  # what stands in for the terminal may not be one
        # Names of files need not be text that the terminal can show.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with leave_on_signals():
            config = parse(sys.argv[1:] if argv is None else argv)
            return _run(config)
    except Interrupted as stop:
        _say(f"stopped by {stop.name}; what is finished is kept, and the same command goes on from there")
        return stop.exit_status
    except UsageError as error:
        _say(str(error))
        return ExitCode.USAGE
    except BidsCmbError as error:
        _say(str(error))
        return ExitCode.FAILED
    except BrokenPipeError:
        # Whoever read our output has left, e.g. `| head`; there is nobody to tell.
        sys.stderr.close()
        return ExitCode.FAILED
    except OSError as error:
        _say(f"{error.filename or 'a file'} could not be read or written: {error.strerror or error}")
        return ExitCode.FAILED
    except Exception as error:
        if config is not None and config.verbosity > 0:
            raise
        _say(f"unexpected {type(error).__name__}: {error}; the same command with -v tells where")
        return ExitCode.FAILED


def _run(config: RunConfig) -> int:
    if config.level == "group":
        from bids_cmb.group import run_group

        return run_group(config)
    from bids_cmb.participant import run_participant

    try:
        return run_participant(config)
    except ModelError as error:
        if config.model is not None:
            raise UsageError(str(error)) from error
        raise


def _say(sentence: str) -> None:
    sys.stderr.write(f"bids-cmb: {sentence}\n")


class _Parser(argparse.ArgumentParser):
    """Answers a mistake with one sentence and takes underscores in option names for dashes."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):
            message += "; write BIDS_DIR OUTPUT_DIR participant before the options"
        _say(f"{message} (see bids-cmb --help)")
        sys.exit(ExitCode.USAGE)


def parse(argv: Sequence[str]) -> RunConfig:
    """Turn arguments into a configuration.

    Raises
    ------
    UsageError
        If what they name doesn't exist or doesn't fit together.
    SystemExit
        With status 2 if they can't be parsed, 0 after ``--help`` and ``--version``.
    """
    options = build_parser().parse_args([_with_dashes(argument) for argument in argv])
    if options.contrast is not None and options.level == "group":
        raise UsageError("--contrast belongs to the participant level; group tables hold all that was found.")
    config = RunConfig(
        bids_dir=_absolute(options.bids_dir),
        output_dir=_absolute(options.output_dir),
        level=options.level,
        participant_labels=_labels(options.participant_label, "sub"),
        session_labels=_labels(options.session_label, "ses"),
        filters=_filters(options.bids_filter_file),
        contrasts=tuple(dict.fromkeys(options.contrast or ())),
        derivatives=_derivatives(options.derivatives or ()),
        skip_bids_validation=options.skip_bids_validation,
        bids_database_dir=_absolute(options.bids_database_dir) if options.bids_database_dir else None,
        device=options.device,
        nprocs=options.nprocs,
        omp_nthreads=options.omp_nthreads or _threads_per_scan(options.nprocs),
        mem_gb=options.mem_gb,
        work_dir=_absolute(options.work_dir) if options.work_dir else None,
        model=options.model,
        threshold=options.threshold,
        registration=options.registration,
        report=not options.no_report,
        report_viewer=options.report_viewer,
        reports_only=options.reports_only,
        save_preproc=options.save_preproc,
        force=options.force,
        stop_on_first_crash=options.stop_on_first_crash,
        dry_run=options.dry_run,
        verbosity=-1 if options.quiet else options.verbose,
    )
    _check(config)
    return config


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line of ``bids-cmb``."""
    parser = _Parser(prog="bids-cmb", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("bids_dir", metavar="BIDS_DIR", help="the input dataset; it is never written to")
    parser.add_argument(
        "output_dir", metavar="OUTPUT_DIR", help="where results go; made if it does not exist"
    )
    parser.add_argument(
        "level",
        metavar="{participant,group}",
        choices=("participant", "group"),
        help="participant: find microbleeds; group: tables and a page of all results in OUTPUT_DIR",
    )
    version = f"bids-cmb {bids_cmb.__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version and exit")
    _add_selection(parser.add_argument_group("what to work on"))
    _add_detection(parser.add_argument_group("detection and results"))
    _add_resources(parser.add_argument_group("computer"))
    return parser


def _add_selection(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--participant-label", nargs="+", action="extend", metavar="L", help="subjects (default: all)"
    )
    group.add_argument(
        "--session-label", nargs="+", action="extend", metavar="L", help="sessions (default: all)"
    )
    group.add_argument(
        "--contrast",
        nargs="+",
        action="extend",
        type=str.lower,
        choices=("gre", "swi", "qsm"),
        help="limit to these (default: all that are found)",
    )
    group.add_argument(
        "--bids-filter-file",
        metavar="F",
        help='JSON file of pybids entity filters by contrast, e.g. {"swi": {"acquisition": "highres"}}; '
        'a filter with "suffix" replaces the rule by which scans of that contrast are found',
    )
    group.add_argument(
        "-d",
        "--derivatives",
        nargs="+",
        action="extend",
        metavar="[NAME=]PATH",
        help="derivatives datasets to look in for QSM (Chimap), T1w images and brain masks",
    )
    group.add_argument(
        "--bids-database-dir", metavar="D", help="pybids database of BIDS_DIR; made if there is none"
    )
    group.add_argument(
        "--skip-bids-validation",
        "--skip-bids-validator",
        action="store_true",
        help="do not check first whether BIDS_DIR describes itself as a BIDS dataset",
    )
    group.add_argument("--dry-run", action="store_true", help="list the scans and their outputs, and stop")


def _add_detection(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model", metavar="NAME_OR_PATH", help="weights (default: the packaged ones)")
    group.add_argument(
        "--threshold",
        type=_between(float, 0, 1),
        metavar="P",
        help="operating point, a probability (default: the model card's, by contrast)",
    )
    group.add_argument(
        "--save-preproc",
        action="store_true",
        help="also write the image as the detector saw it, and the transform to MNI space",
    )
    group.add_argument(
        "--registration",
        choices=("fast", "syn"),
        default="fast",
        help="how regions are placed: fast (seconds), or refined by ANTs' SyN",
    )
    group.add_argument("--no-report", action="store_true", help="write no HTML pages")
    group.add_argument(
        "--report-viewer",
        action="store_true",
        help="let the HTML pages carry the scans, to scroll through (larger pages)",
    )
    group.add_argument("--reports-only", action="store_true", help="only make the HTML pages again")
    group.add_argument(
        "--force", action="store_true", help="redo scans whose results are complete and current"
    )
    group.add_argument(
        "--stop-on-first-crash",
        action="store_true",
        help="stop when a scan fails (default: go on with the next)",
    )


def _add_resources(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto uses a GPU if one works, else the CPU (default)",
    )
    group.add_argument(
        "--nprocs", type=at_least(1), default=1, metavar="N", help="scans at once (default: 1)"
    )
    group.add_argument(
        "--omp-nthreads", type=at_least(1), metavar="N", help="threads per scan (default: CPUs / nprocs)"
    )
    group.add_argument(
        "--mem-gb",
        type=_between(float, 0, 1e6),
        metavar="G",
        help="gigabytes to stay under, by fewer scans at once (default: what is free)",
    )
    group.add_argument(
        "-w", "--work-dir", metavar="D", help="where to put scratch files (default: the system's place)"
    )
    group.add_argument("-v", "--verbose", action="count", default=0, help="tell more; twice: tell all")
    group.add_argument("-q", "--quiet", action="store_true", help="tell of problems and the result only")


def _with_dashes(argument: str) -> str:
    """Take ``--participant_label`` for ``--participant-label``; leave values alone."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def at_least(lowest: int) -> Callable[[str], int]:
    """Return what reads a whole number that is not below a bound from the command line."""

    def convert(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{text} is less than {lowest}")
        return value

    convert.__name__ = "whole number"
    return convert


def _between(kind: type[float], low: float, high: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        value = kind(text)
        if not low < value < high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    convert.__name__ = "number"
    return convert


def _absolute(name: str) -> Path:
    """Make a path absolute without following links, which in DataLad datasets lead into ``.git``."""
    import os

    return Path(os.path.abspath(Path(name).expanduser() if name.startswith("~") else name))  # noqa: PTH100


def _labels(given: Sequence[str] | None, prefix: str) -> tuple[str, ...]:
    from bids_cmb.bids.entities import strip_label

    labels = [strip_label(part, prefix) for label in given or () for part in label.split(",") if part.strip()]
    if given is not None and not labels:  # an empty variable of a script must not mean all
        option = {"sub": "--participant-label", "ses": "--session-label"}[prefix]
        raise UsageError(f"{option} names no label; leave the option out for all.")
    return tuple(dict.fromkeys(labels))


def _filters(name: str | None) -> dict[str, dict[str, object]]:
    if name is None:
        return {}
    from bids_cmb.bids.rules import read_filters

    return read_filters(_absolute(name))


def _derivatives(given: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    """Take ``NAME=PATH`` or ``PATH`` apart; the name defaults to the folder's, made fit for a BIDS URI."""
    found: dict[str, Path] = {}
    for item in given:
        name, equals, path = item.partition("=")
        named = bool(equals) and "/" not in name
        root = _absolute(path if named else item)
        name = name if named else root.name
        name = "".join(char if char.isalnum() or char in "-_." else "_" for char in name)
        if not root.is_dir():
            raise UsageError(f"The derivatives folder {root} does not exist.")
        if name in ("", "raw") or name in found:
            raise UsageError(f"Give the derivatives dataset {root} a name of its own: -d NAME={root}.")
        found[name] = root
    return tuple(found.items())


def _threads_per_scan(nprocs: int) -> int:
    from bids_cmb.resources import available_cpus

    return max(1, available_cpus() // nprocs)


def _check(config: RunConfig) -> None:
    """Refuse folders that don't exist or may not be used as asked."""
    from bids_cmb.bids.description import check_output_dir

    bids_dir, output_dir = config.bids_dir, config.output_dir
    if config.level == "participant" and not bids_dir.is_dir():
        raise UsageError(f"BIDS_DIR {bids_dir} does not exist or is no folder.")
    if config.level == "participant" and bids_dir.resolve() == output_dir.resolve():
        raise UsageError("OUTPUT_DIR is BIDS_DIR itself; name another folder, e.g. derivatives/bids_cmb.")
    here, there = bids_dir.resolve(), output_dir.resolve()
    if there.is_relative_to(here) and any(p.startswith("sub-") for p in there.relative_to(here).parts[:1]):
        raise UsageError(
            f"OUTPUT_DIR {output_dir} is part of a subject's raw data; name another folder, e.g. derivatives/bids_cmb."
        )
    if (config.level == "group" or config.reports_only) and not output_dir.is_dir():
        raise UsageError(f"OUTPUT_DIR {output_dir} does not exist; run the participant level first.")
    check_output_dir(output_dir, to_fill=config.level == "participant")
    work_dir = config.work_dir
    if work_dir is not None and (bids_dir.resolve() in (work_dir.resolve(), *work_dir.resolve().parents)):
        raise UsageError(f"The work folder {work_dir} lies inside BIDS_DIR, which is never written to.")
    if config.reports_only and not config.report:
        raise UsageError("--reports-only and --no-report exclude each other.")
