"""Find what goes with a scan: the user's own brain mask on its grid, and the session's T1w image."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_cmb.bids.entities import DERIVED_ENTITIES, BidsFile, same_value

_log = logging.getLogger(__name__)
#: Corners of a mask's grid lie no further from those of the image's than this share of a voxel's edge: affines are rounded.
_SAME_PLACE = 0.1


def find_brain_mask(scan: BidsFile, files: Sequence[BidsFile]) -> BidsFile | None:
    """Return the user's brain mask for a scan, or None.

    Parameters
    ----------
    scan
        The image.
    files
        Images of the same subject in the derivatives datasets that the user names.

    Returns
    -------
    BidsFile or None
        A ``desc-brain_mask`` of the same session whose other entities are all the scan's and that lies on the
        scan's grid, in whatever order its axes are stored; of several the one with most entities.
    """
    masks = [
        file
        for file in files
        if file.suffix == "mask"
        and file.get("desc") == "brain"
        and file.get("ses") == scan.get("ses")
        and all(_agrees(scan, key, value) for key, value in file.entities if key not in DERIVED_ENTITIES)
    ]
    for mask in sorted(masks, key=lambda file: (-_closeness(scan, file), file.relative)):
        if not mask.path.exists():
            _log.warning("The brain mask %s is not fetched and was not used.", mask.path)
            continue
        own, other = _grid(scan.path), _grid(mask.path)
        if other is None:
            _log.warning("The brain mask %s cannot be read and was not used.", mask.path)
        elif own is not None and _agree(own, other):
            return mask
        elif own is not None:
            _log.warning(
                "The brain mask %s was not used: it is not on the grid of %s.", mask.path, scan.path.name
            )
    return None


def _agrees(scan: BidsFile, key: str, value: str) -> bool:
    own = scan.get(key)
    return own is not None and same_value(key, own, value)


def _closeness(scan: BidsFile, mask: BidsFile) -> float:
    return len(mask.entities) + (mask.get("space") == scan.suffix) * 0.5 - (mask.get("space") is not None)


_Grid = tuple[tuple[int, ...], npt.NDArray[np.float64]]


def _grid(path: Path) -> _Grid | None:
    """Return shape and affine of a file by its header alone, its axes in the order and sense of RAS+; None if it can't be read."""
    import nibabel as nib

    try:
        image: Any = nib.load(path)
        shape, affine = image.shape[:3], np.asarray(image.affine, dtype=np.float64)
        orientation = nib.orientations.io_orientation(affine)
        turned = affine @ nib.orientations.inv_ornt_aff(orientation, shape)
        return tuple(shape[axis] for axis in np.argsort(orientation[:, 0])), turned
    except Exception:  # noqa: BLE001 - nibabel raises many kinds for damaged files
        return None


def _agree(one: _Grid, other: _Grid) -> bool:
    """Whether two grids are the same: no corner lies further off than a tenth of a voxel's edge."""
    if one[0] != other[0]:
        return False
    corners = np.array(list(product(*((0, n - 1) for n in one[0]), (1,))), np.float64).T
    off = np.linalg.norm(((one[1] - other[1]) @ corners)[:3], axis=0)
    return bool(off.max() <= _SAME_PLACE * np.linalg.norm(one[1][:3, :3], axis=0).min())


def find_t1w(scan: BidsFile, files: Sequence[BidsFile]) -> BidsFile | None:
    """Return the T1w image to use with a scan, or None.

    Parameters
    ----------
    scan
        The image.
    files
        Images of the same subject, those of the raw dataset first.

    Returns
    -------
    BidsFile or None
        An image in its own space; the scan's session comes before images that belong to no session, the raw
        dataset before others, few entities before many. Images of other sessions are never used.
    """
    heads = [
        (file.get("ses") is None, place, len(file.entities), file.relative, file)
        for place, file in enumerate(files)
        if file.suffix == "T1w"
        and file.folder == "anat"
        and file.get("ses") in (scan.get("ses"), None)
        and file.get("part") in (None, "mag")
        and file.get("space") is None
        and file.path.exists()
    ]
    return min(heads, key=lambda head: head[:4])[-1] if heads else None
