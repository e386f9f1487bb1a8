"""Who found what: one-to-one, in millimetres."""

from __future__ import annotations

import numpy as np

from bids_cmb.evaluation.cases import Prediction, Reference, ScanPair
from bids_cmb.evaluation.matching import match_scan, touch_counts, valdo_counts


def pair(
    references: list[Reference], places: list[tuple[float, float, float]], scores: list[float] | None = None
) -> ScanPair:
    scores = scores or [0.9] * len(places)
    predictions = tuple(Prediction(p, s, volume=14.0) for p, s in zip(places, scores, strict=True))
    return ScanPair("01", "scan", tuple(references), predictions)


def at(x: float, *, radius: float = 1.5, visible: bool = True) -> Reference:
    return Reference.ball((x, 0.0, 0.0), radius, visible=visible)


def test_a_lesion_is_found_once_and_the_second_hit_is_false() -> None:
    match = match_scan(pair([at(0)], [(0.5, 0, 0), (-1.0, 0, 0)]))
    assert len(match.matches) == 1
    assert match.matches[0].prediction == 0
    assert match.false == (1,)


def test_the_assignment_is_the_best_one_not_the_first() -> None:
    # The first prediction reaches both lesions, the second only the first lesion.
    match = match_scan(pair([at(0), at(4)], [(2, 0, 0), (-2, 0, 0)]))
    assert len(match.matches) == 2
    assert match.missed == ()
    assert match.false == ()


def test_reach_grows_with_the_lesion() -> None:
    assert match_scan(pair([at(0, radius=1.5)], [(3.5, 0, 0)])).missed == (0,)
    assert match_scan(pair([at(0, radius=4.0)], [(4.5, 0, 0)])).missed == ()


def test_invisible_lesions_are_neither_missed_nor_false_alarms() -> None:
    match = match_scan(pair([at(0, visible=False), at(30, visible=False)], [(0.5, 0, 0)]))
    assert match.counted == ()
    assert match.false == ()
    assert match.missed == ()


def test_lesions_above_ten_millimetres_do_not_count() -> None:
    match = match_scan(pair([at(0, radius=8.0)], [(2, 0, 0)]))
    assert (match.counted, match.false) == ((), ())


def test_an_empty_scan_keeps_its_false_detections() -> None:
    match = match_scan(pair([], [(0, 0, 0)]))
    assert match.false == (0,)
    assert match_scan(pair([], [])).false == ()


def test_other_conventions_are_more_generous() -> None:
    scans = pair([at(0)], [(4.5, 0, 0)])
    assert len(match_scan(scans).matches) == 0
    assert valdo_counts(scans).found == 1
    assert touch_counts(pair([at(0)], [(0.2, 0, 0)])).references == 1


def test_ranked_hits_never_exceed_the_best_assignment() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        references = [Reference.ball(tuple(rng.uniform(0, 15, 3)), 1.5) for _ in range(5)]
        places = [tuple(rng.uniform(0, 15, 3)) for _ in range(8)]
        match = match_scan(pair(references, places, list(rng.random(8))))
        assert int(match.ranked_hit.sum()) == len(match.matches)
