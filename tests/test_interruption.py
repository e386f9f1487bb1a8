from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest

from bids_cmb.interruption import Interrupted, leave_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_block_and_nothing_else_changes(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stop, leave_on_signals():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert stop.value.name == number.name
    assert stop.value.exit_status == 128 + number
    assert signal.getsignal(number) is before


class _Dying:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


def test_a_signal_while_python_tidies_up_is_not_lost() -> None:
    """What is raised in a finaliser is dropped; the run would go on as if nothing had been said."""
    start = time.monotonic()
    with pytest.raises(Interrupted), leave_on_signals():
        dying = _Dying()
        del dying
        time.sleep(5)
    assert time.monotonic() - start < 4


def test_a_signal_that_a_library_takes_for_a_missing_module_is_not_lost() -> None:
    """What compiled modules make of a stop in an import: an `ImportError`, which says nothing of it."""
    start = time.monotonic()
    with pytest.raises(Interrupted), leave_on_signals():
        with contextlib.suppress(ImportError):
            _import_while_told()
        time.sleep(5)
    assert time.monotonic() - start < 4


def test_a_signal_that_becomes_another_error_still_is_a_stop() -> None:
    with pytest.raises(Interrupted), leave_on_signals():
        _import_while_told()


def _import_while_told() -> None:
    with contextlib.suppress(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    raise ImportError("no module")


def test_tidying_up_is_not_cut_short() -> None:
    tidied = []
    with pytest.raises(Interrupted), leave_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            time.sleep(0.3)
            tidied.append(True)
    assert tidied


def test_the_alarm_clock_is_left_as_it_was() -> None:
    before = signal.getsignal(signal.SIGALRM)
    _, interval = signal.getitimer(signal.ITIMER_REAL)
    with pytest.raises(Interrupted), leave_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[1] == interval
