"""Real images that the checks of this folder use where they are present."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def shared_data():
    if not SHARED.is_dir():
        pytest.skip("the real images of ../shared/data are not here")
    return SHARED
