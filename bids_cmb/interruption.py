"""Leave at once when told to: SIGTERM from a scheduler, SIGINT from the keyboard."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
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
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _signals() -> list[signal.Signals]:
    names = ("SIGTERM", "SIGINT", "SIGHUP")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _raise(number: int, _frame: FrameType | None) -> None:
    # A second signal must not interrupt the tidying up after the first.
    for other in _signals():
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(number)
