"""The command with stand-ins for detector, anatomy and report: ``python tests/fake_command.py BIDS_DIR OUT participant``."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

if __name__ == "__main__":
    import fake_run

    import bids_cmb.participant
    from bids_cmb.cli import main

    run = functools.partial(bids_cmb.participant.run_participant, work=fake_run.work)
    bids_cmb.participant.run_participant = run  # type: ignore[assignment]
    sys.exit(main(sys.argv[1:]))
