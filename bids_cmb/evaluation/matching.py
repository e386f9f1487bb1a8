"""Which prediction is which lesion: the primary rule, and two conventions of the field beside it.

Primary rule: a prediction and a lesion may belong together if they share a voxel or their centres are near
(at most 3 mm, or the lesion's radius + 1 mm). Each belongs to one other at most, and as many pairs as possible
are made (optimal assignment). Lesions over 10 mm, and those marked as invisible or uncertain, are ignored
together with the predictions on them.

Beside it: VALDO 2021 (Sudre et al., Med Image Anal 2024): components by faces, centres less than 5 mm apart,
nearest first, one to one; and *touch*: any shared voxel counts, one prediction may hit several lesions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from bids_cmb.evaluation.cases import Grid, Prediction, Reference, ScanPair, VoxelArray
from bids_cmb.evaluation.components import split
from bids_cmb.types import BoolArray

IntMatrix = npt.NDArray[np.int64]
FloatMatrix = npt.NDArray[np.float64]
Lesion = Reference | Prediction

#: Centres that belong together by the convention of VALDO 2021 are less than this apart, mm.
VALDO_MM = 5.0


@dataclass(frozen=True)
class MatchRule:
    """How near is near enough.

    Attributes
    ----------
    distance
        Centres this near belong together, mm.
    beyond_radius
        So do centres within the lesion's radius and this, mm.
    largest
        Lesions of a larger equivalent diameter, mm, are no microbleeds and are ignored.
    """

    distance: float = 3.0
    beyond_radius: float = 1.0
    largest: float = 10.0

    def reach(self, reference: Reference) -> float:
        """Return how far from this lesion's centre a prediction may lie, mm."""
        radius = reference.diameter / 2.0
        return max(self.distance, radius + self.beyond_radius) if radius == radius else self.distance

    def counts(self, reference: Reference) -> bool:
        """Whether a lesion has to be found."""
        return reference.visible and not reference.diameter > self.largest


@dataclass(frozen=True)
class Match:
    """One lesion and the prediction that found it, by their places in the `ScanPair`; voxels shared; mm apart."""

    reference: int
    prediction: int
    overlap: int
    distance: float


@dataclass(frozen=True, eq=False)
class ScanMatch:
    """The result of the primary rule in one scan.

    Attributes
    ----------
    pair
        What was compared.
    counted
        Places of the references that have to be found.
    matches
        Pairs at the operating point.
    false
        Places of the accepted predictions that are false.
    ignored
        Places of the predictions, accepted or not, that count neither as true nor as false.
    ranked_hit
        For each prediction: whether it adds a found lesion when predictions are taken in from the highest
        score down. Scores at or above any threshold hold as many hits as the best assignment of them finds.
    """

    pair: ScanPair
    counted: tuple[int, ...]
    matches: tuple[Match, ...]
    false: tuple[int, ...]
    ignored: tuple[int, ...]
    ranked_hit: BoolArray

    @property
    def missed(self) -> tuple[int, ...]:
        """Places of the references that were not found at the operating point."""
        found = {match.reference for match in self.matches}
        return tuple(index for index in self.counted if index not in found)


def match_scan(pair: ScanPair, rule: MatchRule | None = None) -> ScanMatch:
    """Match one scan by the primary rule.

    Parameters
    ----------
    pair
        References and predictions.
    rule
        Distances; the default is `MatchRule()`.
    """
    rule = rule or MatchRule()
    overlap = overlaps(pair.references, pair.predictions, pair.grid)
    apart = distances(pair.references, pair.predictions)
    reach = np.array([rule.reach(reference) for reference in pair.references]).reshape(-1, 1)
    allowed = (overlap > 0) | (apart <= reach)
    counts = np.array([rule.counts(reference) for reference in pair.references], dtype=np.bool_)
    excused = allowed[~counts].any(axis=0)

    counted = np.flatnonzero(counts)
    accepted = np.array([prediction.accepted for prediction in pair.predictions], dtype=np.bool_)
    chosen = np.flatnonzero(accepted)
    block = np.ix_(counted, chosen)
    rows, columns = assign(allowed[block], overlap[block], apart[block])
    matches = tuple(
        Match(int(i), int(j), int(overlap[i, j]), float(apart[i, j]))
        for i, j in zip(counted[rows], chosen[columns], strict=True)
    )
    hit = np.zeros(len(pair.predictions), dtype=np.bool_)
    hit[[match.prediction for match in matches]] = True
    scores = np.array([prediction.score for prediction in pair.predictions])
    ranked = ranked_hits(allowed[counted], scores)
    return ScanMatch(
        pair=pair,
        counted=tuple(counted.tolist()),
        matches=matches,
        false=tuple(np.flatnonzero(accepted & ~hit & ~excused).tolist()),
        ignored=tuple(np.flatnonzero(excused & ~hit & ~ranked).tolist()),
        ranked_hit=ranked,
    )


def assign(allowed: BoolArray, overlap: IntMatrix, apart: FloatMatrix) -> tuple[IntMatrix, IntMatrix]:
    """Make as many allowed pairs as possible; among equals the ones that share most and lie nearest.

    Parameters
    ----------
    allowed, overlap, apart
        Shape (references, predictions): whether the two may belong together, voxels shared, mm apart.

    Returns
    -------
    tuple of numpy.ndarray
        Rows and columns of the pairs.
    """
    if not allowed.any():
        none = np.zeros(0, dtype=np.int64)
        return none, none
    share = overlap / max(1, int(overlap.max()))
    nearness = 1.0 - apart / (1.0 + float(apart[allowed].max()))
    quality = 0.9 * share + 0.1 * nearness
    # A pair more must outweigh all quality that it may cost elsewhere.
    gain = np.where(allowed, 1.0 + min(allowed.shape) + quality, 0.0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    kept = allowed[rows, columns]
    return rows[kept], columns[kept]


def ranked_hits(allowed: BoolArray, scores: FloatMatrix) -> BoolArray:
    """Say for each prediction whether it adds a hit when predictions come in from the highest score down.

    A prediction hits if room can be made for it by moving earlier ones to other lesions they may belong to
    (augmenting path). So the hits above any threshold are as many as the largest one-to-one matching of the
    predictions above it (greedy on a transversal matroid is optimal), and the FROC curve never falls.

    Parameters
    ----------
    allowed
        Shape (references, predictions).
    scores
        Shape (predictions,).
    """
    hit = np.zeros(len(scores), dtype=np.bool_)
    owner: dict[int, int] = {}
    options = [np.flatnonzero(column).tolist() for column in allowed.T]

    def place(prediction: int, seen: set[int]) -> bool:
        for reference in options[prediction]:
            if reference in seen:
                continue
            seen.add(reference)
            if reference not in owner or place(owner[reference], seen):
                owner[reference] = prediction
                return True
        return False

    for prediction in np.argsort(-scores, kind="stable").tolist():
        hit[prediction] = place(prediction, set())
    return hit


def distances(references: tuple[Lesion, ...], predictions: tuple[Lesion, ...]) -> FloatMatrix:
    """Return mm between the centres, shape (references, predictions)."""
    if not references or not predictions:
        return np.zeros((len(references), len(predictions)))
    one = np.array([lesion.position for lesion in references])
    other = np.array([lesion.position for lesion in predictions])
    return np.asarray(cdist(one, other))


def overlaps(references: tuple[Lesion, ...], predictions: tuple[Lesion, ...], grid: Grid | None) -> IntMatrix:
    """Count shared voxels, shape (references, predictions).

    A lesion without an outline is the voxel that holds its centre. Two of them share nothing.
    """
    shared = np.zeros((len(references), len(predictions)), dtype=np.int64)
    if grid is None or not references or not predictions:
        return shared
    sides = [[_voxels(lesion, grid) for lesion in lesions] for lesions in (references, predictions)]
    for i, one in enumerate(sides[0]):
        for j, other in enumerate(sides[1]):
            if references[i].voxels is None and predictions[j].voxels is None:
                continue
            if one.size and other.size and one[0] <= other[-1] and other[0] <= one[-1]:
                shared[i, j] = np.intersect1d(one, other, assume_unique=True).size
    return shared


def _voxels(lesion: Lesion, grid: Grid) -> VoxelArray:
    if lesion.voxels is not None:
        return lesion.voxels
    voxel = grid.voxel_at(lesion.position)
    return np.array([] if voxel is None else [voxel], dtype=np.int64)


@dataclass(frozen=True)
class Counts:
    """Found, missed and false in one scan by a convention that need not be one to one."""

    references: int
    found: int
    predictions: int
    true: int


def valdo_counts(pair: ScanPair) -> Counts:
    """Count by the convention of VALDO 2021: one to one, nearest first, less than 5 mm between centres.

    Outlines of accepted predictions and of lesions are taken apart into components by faces first. No lesion
    is too large. Those that are invisible or uncertain are left out, with the predictions on them.
    """
    references, predictions = _visible(pair)
    whole = _by_faces(references, pair.grid), _by_faces(predictions, pair.grid)
    apart = cdist(*whole) if len(whole[0]) and len(whole[1]) else np.zeros((0, 0))
    near = np.argwhere(apart < VALDO_MM)
    taken: tuple[set[int], set[int]] = (set(), set())
    for i, j in near[np.argsort(apart[tuple(near.T)], kind="stable")].tolist():
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
    return Counts(len(whole[0]), len(taken[0]), len(whole[1]), len(taken[1]))


def touch_counts(pair: ScanPair) -> Counts:
    """Count by touch: a lesion is found if anything touches it, a prediction is true if it touches anything.

    One prediction may hit many lesions, so a large one flatters. Lesions and predictions without outlines
    touch if the prediction's centre lies within the lesion's radius.
    """
    references, predictions = _visible(pair)
    touching = overlaps(references, predictions, pair.grid) > 0
    radius = np.array([reference.diameter / 2.0 for reference in references]).reshape(-1, 1)
    points = np.array([prediction.voxels is None for prediction in predictions], dtype=np.bool_)
    spots = np.array([reference.voxels is None for reference in references], dtype=np.bool_).reshape(-1, 1)
    touching = touching | (points & spots & (distances(references, predictions) <= radius))
    return Counts(
        len(references), int(touching.any(axis=1).sum()), len(predictions), int(touching.any(axis=0).sum())
    )


def _visible(pair: ScanPair) -> tuple[tuple[Reference, ...], tuple[Prediction, ...]]:
    """Return the visible lesions, and the accepted predictions that are on no invisible one alone."""
    rule = MatchRule(largest=np.inf)
    result = match_scan(pair, rule)
    return (
        tuple(reference for reference in pair.references if reference.visible),
        tuple(
            prediction
            for index, prediction in enumerate(pair.predictions)
            if prediction.accepted and index not in result.ignored
        ),
    )


def _by_faces(lesions: tuple[Lesion, ...], grid: Grid | None) -> FloatMatrix:
    """Return centres, shape (n, 3), after taking outlines apart by faces."""
    centres: list[tuple[float, float, float]] = []
    for lesion in lesions:
        if lesion.voxels is None or grid is None:
            centres.append(lesion.position)
        else:
            centres.extend(part.position for part in split(lesion.voxels, grid, connectivity=6))
    return np.array(centres, dtype=np.float64).reshape(-1, 3)
