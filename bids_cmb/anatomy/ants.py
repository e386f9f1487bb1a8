"""The registration toolkit ANTs, loaded in the one way that gives the same result each time."""

from __future__ import annotations

import os
from typing import Any


def load_ants() -> Any:  # noqa: ANN401 - ants is untyped
    """Import ants with one thread: with more, its results differ from run to run."""
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    import ants

    return ants
