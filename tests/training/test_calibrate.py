"""How many lesions are found where so many candidates may be false."""

import numpy as np
import pytest

from bids_cmb.training.calibrate import false_cut, shares_found

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.99])
LABELS = np.array([1, 0, 1, 0, 1, 0, -1])  # the last one is ignored


@pytest.mark.parametrize(("allowed", "cut"), [(0.0, 0.8), (0.5, 0.6), (1.0, 0.4), (1.4, 0.4), (1.5, -np.inf)])
def test_at_most_so_many_candidates_above_the_cut_are_false(allowed, cut):
    assert false_cut(SCORES, LABELS, 2, allowed) == cut
    above = SCORES[LABELS == 0] > cut
    assert above.sum() <= allowed * 2


def test_shares_are_of_all_lesions_those_without_a_candidate_too():
    assert shares_found(SCORES, LABELS, 2, 4, [0.0, 0.5, 1.0]) == [0.25, 0.5, 0.75]


def test_no_lesions_is_no_division_by_zero():
    assert shares_found(SCORES, np.zeros(7, int), 2, 0, [0.5]) == [0.0]
