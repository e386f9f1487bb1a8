"""Which region of MARS a detection lies in: a vote of its own voxels and their neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.types import Anatomy, Candidate, Detection, Hemisphere, Point, Volume, mars_region

#: Voxels this far around a lesion still vote, less and less: the deposit is smaller than what shows, and atlas
#: borders are no sharper than this, mm.
NEIGHBOURHOOD_MM = 3.0
#: Width of the vote: a voxel this far from the lesion's centre line counts exp(-1/2), mm.
VOTE_SD_MM = 2.0
#: A second region with at least this share of the winner's vote is named in a flag.
BORDER_SHARE = 0.5

IndexArray = npt.NDArray[np.intp]


def to_mni(position: Point, anatomy: Anatomy) -> Point:
    """World position to MNI, mm."""
    x, y, z = (
        float(v) for v in anatomy.world_to_mni[:3, :3] @ np.asarray(position) + anatomy.world_to_mni[:3, 3]
    )
    return (x, y, z)


def region_votes(
    labels: npt.NDArray[np.int32], lesion: npt.NDArray[np.bool_], zooms: tuple[float, float, float]
) -> dict[int, float]:
    """Votes of the voxels in and around a lesion for the regions they lie in.

    Parameters
    ----------
    labels
        Region labels of a box around the lesion, 0 outside the brain.
    lesion
        The lesion's voxels in the same box.
    zooms
        Voxel edges, mm.

    Returns
    -------
    dict
        Weight by label, largest first; weights fall with the distance from the lesion and add up to one.
    """
    distance = ndimage.distance_transform_edt(~lesion, sampling=zooms)
    weight = np.exp(-0.5 * (distance / VOTE_SD_MM) ** 2) * (labels > 0) * (distance <= NEIGHBOURHOOD_MM)
    total = float(weight.sum())
    if total <= 0:
        return {}
    votes = np.bincount(labels.ravel(), weights=weight.ravel())
    order = sorted(np.nonzero(votes)[0], key=lambda label: (-votes[label], label))
    return {int(label): float(votes[label]) / total for label in order}
