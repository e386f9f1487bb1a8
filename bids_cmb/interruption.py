"""Leave at once when told to: SIGTERM from a scheduler, SIGINT from the keyboard."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType


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

    Outside of the main thread, where Python has no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.signal(number, _raise) for number in _signals()}
    hook = sys.unraisablehook
    sys.unraisablehook = functools.partial(_raise_again, otherwise=hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _signals() -> list[signal.Signals]:
    names = ("SIGTERM", "SIGINT", "SIGHUP")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _raise_again(
    unraisable: sys.UnraisableHookArgs, otherwise: Callable[[sys.UnraisableHookArgs], object]
) -> None:
    """Let no stop get lost: Python drops what is raised while it tidies up an object."""
    stop = unraisable.exc_value
    if not isinstance(stop, Interrupted) or not hasattr(signal, "setitimer"):
        otherwise(unraisable)
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        raise stop

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.01)


def _raise(number: int, _frame: FrameType | None) -> None:
    # A second signal must not interrupt the tidying up after the first.
    for other in _signals():
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(number)
