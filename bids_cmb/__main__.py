"""``python -m bids_cmb``: the same as the command ``bids-cmb``."""

from __future__ import annotations

import sys

from bids_cmb.cli import main

if __name__ == "__main__":
    sys.exit(main())
