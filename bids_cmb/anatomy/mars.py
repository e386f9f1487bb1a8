"""Regions of candidates on the Microbleed Anatomical Rating Scale (Gregoire 2009)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from scipy import ndimage

from bids_cmb.types import Anatomy, Candidate, Detection, Volume, mars_region

#: Voxels this far from the lesion's own still vote, with less weight, mm.
_REACH = 3.0
#: A runner-up with at least this share of the vote makes a border.
_BORDER_SHARE = 0.35


def assign_regions(detection: Detection, anatomy: Anatomy, image: Volume) -> Detection:
    """Give every candidate its region, category, side and MNI position.

    The lesion's own voxels vote with weight 1, those around it with a weight that falls with their distance; a
    second region with a large share of the vote is kept as the flag ``border:<code>``.

    Parameters
    ----------
    detection
        Candidates and their label map.
    anatomy
        Regions on the same grid.
    image
        Gives the voxel size.
    """
    boxes = ndimage.find_objects(detection.labels)
    located = tuple(_located(c, detection, anatomy, image, boxes[c.index - 1]) for c in detection.candidates)
    return Detection(located, detection.labels)


def _located(
    candidate: Candidate, detection: Detection, anatomy: Anatomy, image: Volume, box: tuple[slice, ...]
) -> Candidate:
    zooms = image.zooms
    wide = tuple(
        slice(max(0, s.start - round(_REACH / d) - 1), s.stop + round(_REACH / d) + 1)
        for s, d in zip(box, zooms, strict=True)
    )
    own = detection.labels[wide] == candidate.index
    distance = ndimage.distance_transform_edt(~own, sampling=zooms)
    labels = anatomy.mars[wide]
    votes: Counter[int] = Counter()
    for label in np.unique(labels[(labels > 0) & (distance <= _REACH)]):
        near = distance[(labels == label) & (distance <= _REACH)]
        votes[int(label)] = float(np.exp(-near).sum())  # type: ignore[assignment] # weights, not counts
    x, y, z = anatomy.world_to_mni[:3, :3] @ np.array(candidate.position) + anatomy.world_to_mni[:3, 3]
    mni = (float(x), float(y), float(z))
    if not votes:
        return replace(candidate, mni=mni)
    (best, _), *others = votes.most_common(2)
    code, category, side = mars_region(best)
    flags = candidate.flags
    if others:
        second = mars_region(others[0][0])[0]
        if second != code and others[0][1] >= _BORDER_SHARE * sum(votes.values()):
            flags = (*flags, f"border:{second}")
    return replace(candidate, mars_region=code, mars_category=category, hemisphere=side, mni=mni, flags=flags)
