"""Which region of MARS a detection lies in: a vote of its own voxels and their neighbours."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.types import Anatomy, Candidate, Category, Detection, Point, Volume, mars_region

#: Voxels this far around a lesion still vote, less and less: the deposit is smaller than what shows, and atlas
#: borders are no sharper than this, mm.
NEIGHBOURHOOD_MM = 3.0
#: Width of the vote: a voxel this far from the lesion's nearest voxel counts exp(-1/2), mm.
VOTE_SD_MM = 2.0
#: A second region with at least this share of the winner's vote is named in a flag; so is the other side.
BORDER_SHARE = 0.5
OTHER_SIDE = "other_side"

IndexArray = npt.NDArray[np.intp]


def to_mni(position: Point, anatomy: Anatomy) -> Point:
    """World position to MNI, mm; nothing but NaN where no registration is believed."""
    if anatomy.registration is None:
        return (math.nan, math.nan, math.nan)
    x, y, z = anatomy.registration(np.array([position], np.float64))[0].tolist()
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


def choose_region(votes: dict[int, float]) -> tuple[int, tuple[str, ...]]:
    """Winner of a vote and the code of a close second region.

    The category is decided first (lobar, deep, infratentorial), then the region inside it, then the side: a lesion
    on a border of several deep regions must not fall to the one lobe next to them.

    Parameters
    ----------
    votes
        Weight by label, not empty.

    Returns
    -------
    int
        Label of the winner.
    tuple of str
        What else the lesion may lie in: the code of another region with at least `BORDER_SHARE` of the winner's votes,
        and `OTHER_SIDE` if the same region of the other side has as many.
    """
    categories: dict[Category, float] = {}
    codes: dict[str, float] = {}
    for label, weight in votes.items():
        code, category, _ = mars_region(label)
        categories[category] = categories.get(category, 0.0) + weight
        codes[code] = codes.get(code, 0.0) + weight
    category = max(categories, key=lambda name: categories[name])
    inside = {label: weight for label, weight in votes.items() if mars_region(label)[1] == category}
    own = {mars_region(label)[0] for label in inside}
    code = max(sorted(own), key=lambda name: codes[name])
    sides = [label for label in inside if mars_region(label)[0] == code]
    winner = max(sides, key=lambda label: inside[label])
    others = {name: weight for name, weight in codes.items() if name != code}
    second = max(sorted(others), key=lambda name: others[name], default="")
    close = [second] if second and others[second] >= BORDER_SHARE * codes[code] else []
    if codes[code] - inside[winner] >= BORDER_SHARE * inside[winner]:
        close.append(OTHER_SIDE)
    return winner, tuple(close)


def _box(place: tuple[slice, ...], margin: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """A box grown by a margin inside the image."""
    return tuple(
        slice(max(0, side.start - m), min(n, side.stop + m))
        for side, m, n in zip(place, margin, shape, strict=True)
    )


def _nearest_label(
    labels: npt.NDArray[np.int32], point: IndexArray, zooms: tuple[float, float, float]
) -> int:
    """Label of the labelled voxel nearest to a voxel; 0 if there is none."""
    places = np.argwhere(labels > 0)
    if not len(places):
        return 0
    squared = np.sum(((places - point) * np.asarray(zooms)) ** 2, axis=1)
    return int(labels[tuple(places[int(np.argmin(squared))])])


def _assign(
    candidate: Candidate, place: tuple[slice, ...], detection: Detection, anatomy: Anatomy, image: Volume
) -> Candidate:
    """One candidate, whose voxels lie in `place`, with its region, category, side, MNI coordinates and border flag."""
    zooms = image.zooms
    margin = tuple(int(np.ceil(NEIGHBOURHOOD_MM / zoom)) for zoom in zooms)
    box = _box(place, margin, detection.labels.shape)
    votes = region_votes(anatomy.mars[box], detection.labels[box] == candidate.index, zooms)
    second: tuple[str, ...] = ()
    if votes:
        label, second = choose_region(votes)
    else:
        middle = np.array([(side.start + side.stop - 1) // 2 for side in place], np.intp)
        label = _nearest_label(anatomy.mars, middle, zooms)
    mni = to_mni(candidate.position, anatomy)
    if label == 0:
        return replace(candidate, mni=mni)
    code, category, hemisphere = mars_region(label)
    flags = tuple(flag for flag in candidate.flags if not flag.startswith("border:"))
    flags = (*flags, *(f"border:{name}" for name in second))
    return replace(
        candidate, mars_region=code, mars_category=category, hemisphere=hemisphere, mni=mni, flags=flags
    )


def assign_regions(detection: Detection, anatomy: Anatomy, image: Volume) -> Detection:
    """Give every candidate its region of MARS.

    Parameters
    ----------
    detection
        Candidates and their outlines: each has voxels.
    anatomy
        Regions of the same image.
    image
        The scan, for its grid.

    Returns
    -------
    Detection
        The same candidates with ``mars_region``, ``mars_category``, ``hemisphere`` and ``mni`` filled, and a flag
        ``border:<code>`` where a second region is close, ``border:other_side`` where the other side is. Regions stay empty only where the anatomy has none at all.
    """
    places = ndimage.find_objects(detection.labels)
    assigned = [
        _assign(candidate, places[candidate.index - 1], detection, anatomy, image)
        for candidate in detection.candidates
    ]
    return replace(detection, candidates=tuple(assigned))
