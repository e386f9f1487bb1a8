"""Where the weights that come with the package lie."""

from __future__ import annotations

from pathlib import Path


def models_folder() -> Path:
    """Return the folder with the shipped weights: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return package / "models" if (package / "models").is_dir() else package.parent / "models"
