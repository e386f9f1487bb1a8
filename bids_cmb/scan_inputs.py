"""What one scan needs besides its image: the detector, the user's brain mask, the session's T1w image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_cmb.bids.entities import bids_uri
from bids_cmb.bids.inputs import RAW
from bids_cmb.errors import InputError

if TYPE_CHECKING:
    from bids_cmb.config import RunConfig
    from bids_cmb.types import BoolArray, Scan, Volume


def load_brain_mask(scan: Scan) -> BoolArray | None:
    """Return the user's own brain mask on the scan's canonical grid, if there is one.

    Raises
    ------
    InputError
        If it can't be read, or no voxel of it is brain.
    """
    if scan.brain_mask is None:
        return None
    from bids_cmb.imaging.volume import load_image

    mask = np.asarray(load_image(scan.brain_mask, constant=True).volume.data > 0.5)
    if not mask.any():
        raise InputError(
            f"{scan.brain_mask}: no voxel of the brain mask is above 0.5; give a mask with 1 inside the brain, or none."
        )
    return mask


def load_t1w(scan: Scan) -> tuple[Volume | None, tuple[str, ...]]:
    """Return the session's T1w image, if there is one, and a sentence if it can't be used.

    The T1w image only helps to tell regions apart, so a broken one costs no scan.
    """
    if scan.t1w is None:
        return None, ()
    from bids_cmb.imaging.volume import load_image

    try:
        return load_image(scan.t1w).volume, ()
    except InputError as error:
        return None, (f"The T1w image was not used: {error}",)


def companion_uris(scan: Scan, config: RunConfig, *, with_t1w: bool) -> dict[str, str]:
    """BIDS URIs of what was used besides the image, by what it is (``brain_mask``, ``t1w``)."""
    datasets = ((RAW, config.bids_dir), *config.derivatives)
    used = {"brain_mask": scan.brain_mask, "t1w": scan.t1w if with_t1w else None}
    return {kind: _uri(path, datasets) for kind, path in used.items() if path is not None}


def _uri(path: Path, datasets: tuple[tuple[str, Path], ...]) -> str:
    """Name a file by the innermost dataset that it lies in: derivatives may lie inside the raw dataset."""
    name, root = max(
        ((name, root) for name, root in datasets if path.is_relative_to(root)),
        key=lambda dataset: len(dataset[1].parts),
    )
    return bids_uri(name, path.relative_to(root).as_posix())
