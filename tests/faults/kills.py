"""Kill runs at random moments and see whether the next run makes good.

``python tests/faults/kills.py [--kills 200] [--seed 1]`` runs the command with stand-ins for the detector over six
tiny scans, two at once, and ends it again and again: SIGKILL, SIGTERM and SIGINT to the run, SIGKILL to one of its
worker processes (what the kernel does when memory runs out). After up to four such ends in one output folder it lets
a run finish. It then compares all files but those in ``logs/`` with an undisturbed run's, and prints the figures.

To spend the time on kills and not on imports, runs are forked from this process (``--whole`` starts whole
processes instead, as users do).
"""

# ruff: noqa: E402 - the folders of the tests come first
from __future__ import annotations

import argparse
import contextlib
import functools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

import fake_run
import scipy.ndimage  # noqa: F401 - what the runs need is loaded once, here
from conftest import head_image, make_dataset

import bids_cmb.bids.inputs
import bids_cmb.imaging.volume
import bids_cmb.participant
import bids_cmb.workers
from bids_cmb.cli import main as main_of_the_command

COMMAND = [sys.executable, str(TESTS / "fake_command.py")]
#: Ways to end a run, and the exit status that each must give if the run was still going.
WAYS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130, "worker killed": 1}
#: Exit status of a forked run that was told to stop before it was the command.
BEFORE_START = 70
SCANS = {
    f"sub-{subject}/anat/sub-{subject}{name}": None
    for subject in ("01", "02", "03")
    for name in ("_T2starw.nii.gz", "_swi.nii.gz")
}


@dataclass
class Figures:
    """What was tried and what went wrong."""

    tried: Counter[str] = field(default_factory=Counter)
    too_late: int = 0
    completed: int = 0
    kept: int = 0
    stray: int = 0
    slowest_exit: float = 0.0
    faults: list[str] = field(default_factory=list)


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those in ``logs/``, which hold times."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith("logs/")}


def records(out: Path) -> dict[str, bytes]:
    """The records of the scans that are done."""
    found = {path.name: path.read_bytes() for path in (out / "logs" / "scans").glob("[!.]*.json")}
    return {name: content for name, content in found.items() if b'"status": "done"' in content}


class Runs:
    """Starts runs over one dataset.

    Parameters
    ----------
    root
        Folder for everything.
    whole
        Whether to start whole processes.
    """

    def __init__(self, root: Path, *, whole: bool) -> None:
        self.raw = make_dataset(root / "raw", {name: head_image((48, 48, 24)) for name in SCANS})
        self.work = root / "work"
        self.work.mkdir()
        self._whole = whole

    def start(self, out: Path, log: Path) -> Run:
        options = [str(self.raw), str(out), "participant", "--nprocs", "2", "--mem-gb", "64"]
        options += ["-w", str(self.work)]
        if self._whole:
            with log.open("ab") as stream:
                process = subprocess.Popen([*COMMAND, *options], stdout=stream, stderr=stream)
            return Run(process.pid, process.wait)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _become(options, log)
        return Run(pid, lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


@dataclass
class Run:
    """A run that is going."""

    pid: int
    wait: Callable[[], int]

    def end(self, way: str) -> None:
        """End it in one of the `WAYS`; nothing happens if it is over."""
        target, number = self.pid, signal.SIGKILL
        if way == "worker killed":
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
                target = next((int(child) for child in children if _is_worker(int(child))), 0)
            if target in (0, self.pid):
                return
        else:
            number = getattr(signal, way)
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, number)


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"resource_tracker" not in command
    return False


def _become(options: list[str], log: Path) -> None:
    """In a forked process: be the command, from its first line on."""
    status = BEFORE_START
    try:
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        bids_cmb.workers.multiprocessing = _Forking(multiprocessing)  # type: ignore[assignment]
        run = functools.partial(bids_cmb.participant.run_participant, work=fake_run.work)
        bids_cmb.participant.run_participant = run  # type: ignore[assignment]
        status = int(main_of_the_command(options))
        sys.stdout.flush()
    finally:
        # Whatever happens: what is this process's parent's to do must not be done here.
        os._exit(status)


class _Forking:
    """`multiprocessing` that forks where it is asked to spawn."""

    def __init__(self, module: object) -> None:
        self._module = module

    def get_context(self, _: str) -> object:
        return self._module.get_context("fork")  # type: ignore[attr-defined]


def campaign(
    runs: Runs,
    root: Path,
    kills: int,
    seed: int,
    say: Callable[[str], None] = print,
) -> Figures:
    """Kill runs and check what becomes of them.

    Parameters
    ----------
    runs
        How to start one.
    root
        Where outputs go.
    kills
        How many runs to kill.
    seed
        Of the moments.
    say
        Told of progress.
    """
    rng, figures = random.Random(seed), Figures()  # noqa: S311 - moments, no secrets
    undisturbed = root / "undisturbed"
    started = time.monotonic()
    status = runs.start(undisturbed, root / "undisturbed.log").wait()
    duration = time.monotonic() - started
    wanted = contents(undisturbed)
    if status != 0 or len(records(undisturbed)) != len(SCANS):
        raise SystemExit((root / "undisturbed.log").read_text())
    say(f"An undisturbed run takes {duration:.2f} s and writes {len(wanted)} files.")
    folder = 0
    while figures.tried.total() < kills:
        folder += 1
        out, log = root / f"out{folder}", root / f"out{folder}.log"
        done: dict[str, bytes] = {}
        for _ in range(rng.randint(1, 4)):
            way = rng.choice(list(WAYS))
            left = (len(SCANS) - len(done) + 1) / (len(SCANS) + 1)
            moment = rng.uniform(0, duration * left)
            where = f"folder {folder}, {way} after {moment:.3f} s"
            run = runs.start(out, log)
            time.sleep(moment)
            ended = time.monotonic()
            run.end(way)
            status = run.wait()
            if status == 0:
                figures.too_late += 1
                if way != "worker killed" and time.monotonic() - ended > max(0.5, duration / 2):
                    figures.faults.append(f"{where}: the run went on after its signal")
            else:
                figures.tried[way] += 1
                _check_end(figures, way, status, time.monotonic() - ended, where)
            now = records(out)
            for name, content in done.items():
                figures.kept += now.get(name) == content
                if now.get(name) != content:
                    figures.faults.append(f"{where}: {name} was done and was done again")
            done = now
            figures.stray += len(fake_run.unfinished(out))
            _check_whole(figures, out, where)
        where = f"folder {folder}, after {sum(figures.tried.values())} kills"
        _finish(figures, runs, out, log, wanted, done, where)
        if folder % 20 == 0:
            say(f"{figures.tried.total()} kills so far, {len(figures.faults)} faults")
    if left_over := list(runs.work.iterdir()):
        figures.faults.append(f"scratch folders were left: {[path.name for path in left_over]}")
    return figures


def _check_end(figures: Figures, way: str, status: int, seconds: float, where: str) -> None:
    if status != WAYS[way] and not (way in ("SIGTERM", "SIGINT") and status in (-15, -2, BEFORE_START)):
        figures.faults.append(f"{where}: exit status {status}")
    if way != "worker killed":
        figures.slowest_exit = max(figures.slowest_exit, seconds)


def _check_whole(figures: Figures, out: Path, where: str) -> None:
    """What says that it is complete must be."""
    try:
        fake_run.complete_scans(out)
    except AssertionError as error:
        figures.faults.append(f"{where}: {error}")


def _finish(
    figures: Figures,
    runs: Runs,
    out: Path,
    log: Path,
    wanted: dict[str, bytes],
    done: dict[str, bytes],
    where: str,
) -> None:
    """Let a run finish and compare."""
    status = runs.start(out, log).wait()
    figures.completed += 1
    if status != 0:
        figures.faults.append(f"{where}: the last run ended with {status}")
    now = records(out)
    again = [name for name, content in done.items() if now.get(name) != content]
    figures.kept += len(done) - len(again)
    if again:
        figures.faults.append(f"{where}: {again} were done and were done again")
    found = contents(out)
    if found != wanted:
        differing = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
        figures.faults.append(f"{where}: other bytes in {differing[:5]}")
    if left := fake_run.unfinished(out):
        figures.faults.append(f"{where}: left {[path.name for path in left]}")
    said = log.read_text()
    if "Traceback" in said and "KeyboardInterrupt" not in said:  # that is a stop while Python itself starts
        figures.faults.append(f"{where}: {said[said.index('Traceback') :]}")


def table(figures: Figures) -> str:
    """The figures in words."""
    ways = ", ".join(f"{count} {way}" for way, count in figures.tried.items())
    return "\n".join(
        [
            f"{figures.tried.total()} runs were ended while they were going ({ways}); {figures.too_late} had ended before.",
            f"{figures.completed} folders were completed by a last run; {figures.kept} times a finished scan was left alone.",
            f"{figures.stray} temporary files were left by kills and removed by the next run.",
            f"The slowest run ended {figures.slowest_exit:.2f} s after its signal.",
            f"{len(figures.faults)} faults.",
            *figures.faults,
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        runs = Runs(Path(name), whole=options.whole)
        say = functools.partial(print, flush=True)
        figures = campaign(runs, Path(name), options.kills, options.seed, say)
        print(table(figures), flush=True)
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main())
