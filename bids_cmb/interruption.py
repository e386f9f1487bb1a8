"""Leave at once when told to: SIGTERM from a scheduler, SIGINT from the keyboard."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

#: How soon a stop that was lost is raised again, s.
_LOOK_AGAIN_S = 0.05


class Interrupted(BaseException):
    """The process was told to stop. Not an `Exception`, so that nothing takes it for a scan's failure.

    Attributes
    ----------
    name, exit_status
        Name of the signal, and 128 plus its number as shells report it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name
        self.exit_status = 128 + number


@contextlib.contextmanager
def leave_on_signals() -> Iterator[None]:
    """Turn SIGTERM, SIGINT and SIGHUP into `Interrupted` inside the block.

    A stop does not get lost: Python drops what is raised while it tidies up an object, and imports of compiled modules make an
    `ImportError` of it, which a module that can do without the other takes for its absence. It is then raised again.

    Outside of the main thread, where Python has no signals, nothing changes.

    Raises
    ------
    Interrupted
        If the process is told to stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopping = _Stopping()
    earlier = {number: signal.signal(number, stopping.told) for number in _signals()}
    hook = sys.unraisablehook
    sys.unraisablehook = functools.partial(_without_stops, otherwise=hook)
    try:
        yield
    except Exception as error:
        if stopping.number is None:
            raise
        raise Interrupted(stopping.number) from error
    finally:
        stopping.over()
        sys.unraisablehook = hook
        for number, handler in earlier.items():
            signal.signal(number, handler)


class _Stopping:
    """Raises `Interrupted` when told to stop, and again if that was lost."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._undo: list[Callable[[], object]] = []

    def told(self, number: int, _frame: FrameType | None) -> None:
        # A second signal must not interrupt the tidying up after the first.
        for other in _signals():
            signal.signal(other, signal.SIG_IGN)
        self.number = number
        if hasattr(signal, "setitimer"):
            handler = signal.signal(signal.SIGALRM, self._look)
            timer = signal.setitimer(signal.ITIMER_REAL, _LOOK_AGAIN_S, _LOOK_AGAIN_S)
            self._undo = [
                functools.partial(signal.setitimer, signal.ITIMER_REAL, *timer),
                functools.partial(signal.signal, signal.SIGALRM, handler),
            ]
        raise Interrupted(number)

    def _look(self, _number: int, _frame: FrameType | None) -> None:
        # On its way out the stop is what `finally` and `with` are dealing with; code that deals with nothing has lost it.
        error = sys.exc_info()[1]
        while error is not None:
            if isinstance(error, Interrupted):
                return
            error = error.__cause__ or error.__context__
        if self.number is not None:
            raise Interrupted(self.number)

    def over(self) -> None:
        """Raise nothing any more and leave the alarm clock as it was."""
        self.number = None
        while self._undo:
            self._undo.pop(0)()


def _signals() -> list[signal.Signals]:
    names = ("SIGTERM", "SIGINT", "SIGHUP")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _without_stops(
    unraisable: sys.UnraisableHookArgs, otherwise: Callable[[sys.UnraisableHookArgs], object]
) -> None:
    """Print no traceback of a stop that Python drops: it will be raised again."""
    if not isinstance(unraisable.exc_value, Interrupted):
        otherwise(unraisable)
