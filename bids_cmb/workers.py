"""Worker processes that may die without taking the run along.

Scans are worked on in processes of their own: a library that crashes or is killed for its memory costs one
scan, and the run can be stopped at once whatever a library is busy with. ``concurrent.futures`` gives up the
whole pool when one process dies; hence this small one.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, TypeVar

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Died:
    """In place of a result: the process that worked on a job is gone.

    Attributes
    ----------
    exit_code
        As `multiprocessing` reports it: minus the number of the signal, if it was one.
    """

    exit_code: int | None

    def __str__(self) -> str:
        if self.exit_code == -signal.SIGKILL:
            return "its process was killed, most likely for lack of memory: use fewer --nprocs or more memory"
        if self.exit_code is not None and self.exit_code < 0:
            return f"its process crashed ({signal.Signals(-self.exit_code).name})"
        return f"its process ended unexpectedly (exit status {self.exit_code})"


class Workers(Generic[_Job, _Result]):
    """A fixed number of processes that apply one function to jobs.

    Parameters
    ----------
    function
        Importable function of one job, which should catch its own exceptions. Jobs and results are pickled.
    count
        How many processes.

    Examples
    --------
    >>> with Workers(function, 4) as workers:  # doctest: +SKIP
    ...     for job in jobs:
    ...         workers.submit(job)
    ...     for job, result in workers.results():
    ...         print(job, result)
    """

    def __init__(self, function: Callable[[_Job], _Result], count: int) -> None:
        self._function = function
        self._count = count
        self._context = multiprocessing.get_context("spawn")
        self._queue: deque[_Job] = deque()
        self._idle: list[tuple[Connection[Any, Any], BaseProcess]] = []
        self._busy: dict[Connection[Any, Any], tuple[BaseProcess, _Job]] = {}

    def __enter__(self) -> Workers[_Job, _Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def submit(self, job: _Job) -> None:
        """Add a job; also while `results` is being read."""
        self._queue.append(job)

    @property
    def active(self) -> list[_Job]:
        """Jobs that are being worked on."""
        return [job for _, job in self._busy.values()]

    def results(self) -> Iterator[tuple[_Job, _Result | Died]]:
        """Yield each job with its result as they come, until no job is left."""
        while self._queue or self._busy:
            while self._queue and len(self._busy) < self._count:
                self._start(self._queue.popleft())
            for ready in wait(list(self._busy)):
                yield self._collect(ready)  # type: ignore[arg-type]

    def stop(self) -> None:
        """End all processes at once, finished or not."""
        self._queue.clear()
        everyone = [*self._idle, *((connection, process) for connection, (process, _) in self._busy.items())]
        self._idle.clear()
        self._busy.clear()
        for _, process in everyone:
            process.kill()
        for connection, process in everyone:
            process.join()
            connection.close()

    def _start(self, job: _Job) -> None:
        connection, process = self._idle.pop() if self._idle else self._spawn()
        self._busy[connection] = process, job
        # If the process has died meanwhile, `results` finds out.
        with contextlib.suppress(BrokenPipeError):
            connection.send(job)

    def _spawn(self) -> tuple[Connection[Any, Any], BaseProcess]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._function), daemon=True)
        process.start()
        theirs.close()
        return ours, process

    def _collect(self, connection: Connection[Any, Any]) -> tuple[_Job, _Result | Died]:
        process, job = self._busy.pop(connection)
        try:
            result: _Result = connection.recv()
        except (EOFError, ConnectionResetError):
            process.join()
            connection.close()
            return job, Died(process.exitcode)
        self._idle.append((connection, process))
        return job, result


def _serve(connection: Connection[Any, Any], function: Callable[[Any], Any]) -> None:
    """Work off jobs in a child process until the other side hangs up."""
    # Signals for the whole process group are the parent's to answer: it ends its children itself.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    while True:
        try:
            job = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        result = function(job)
        try:
            connection.send(result)
        except BrokenPipeError:  # the run was ended meanwhile: there is nobody to tell
            return


def _die_with_parent() -> None:
    """Ask Linux to end this process when its parent is killed; elsewhere it ends after its job."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
