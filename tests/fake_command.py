"""The command with stand-ins for detector, anatomy and report: ``python tests/fake_command.py BIDS_DIR OUT participant``.

Like the command it loads what takes time when it is ready for signals.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

if __name__ == "__main__":
    import bids_cmb.cli
    from bids_cmb.config import RunConfig

    def _run(config: RunConfig, carry_on: functools.partial[int]) -> int:
        import fake_run

        import bids_cmb.participant

        run = functools.partial(bids_cmb.participant.run_participant, work=fake_run.work)
        bids_cmb.participant.run_participant = run  # type: ignore[assignment]
        return carry_on(config)

    bids_cmb.cli._run = functools.partial(_run, carry_on=functools.partial(bids_cmb.cli._run))
    sys.exit(bids_cmb.cli.main(sys.argv[1:]))
