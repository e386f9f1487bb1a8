from __future__ import annotations

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
