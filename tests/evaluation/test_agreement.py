"""Agreement statistics against published worked examples."""

from __future__ import annotations

import numpy as np
import pytest

from bids_cmb.evaluation.agreement import bland_altman, class_table, count_class, icc, kappa

#: Shrout and Fleiss, Psychol Bull 1979;86:420-428, table 2: six targets rated by four judges.
SHROUT = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float
)
#: Bland and Altman, Lancet 1986;327:307-310, table 1: peak flow by large and mini meter, first readings, l/min.
LARGE = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_intraclass_correlations_of_shrout_and_fleiss() -> None:
    absolute, consistency = icc(SHROUT)
    assert absolute[0] == pytest.approx(0.29, abs=0.005)
    assert consistency[0] == pytest.approx(0.71, abs=0.005)


def test_a_weight_of_two_is_a_target_rated_twice() -> None:
    weights = np.array([[2.0, 1, 1, 0, 1, 1]])
    rows = SHROUT[[0, 0, 1, 2, 4, 5]]
    assert np.allclose(icc(SHROUT, weights), icc(rows))
    assert np.allclose(bland_altman(SHROUT[:, 0], weights), bland_altman(rows[:, 0]))


def test_a_constant_shift_spoils_agreement_but_not_consistency() -> None:
    counts = np.array([[0.0, 2.0], [1.0, 3.0], [4.0, 6.0], [9.0, 11.0]])
    absolute, consistency = icc(counts)
    assert consistency[0] == pytest.approx(1.0)
    assert absolute[0] < 0.95


def test_nothing_varies_nothing_is_defined() -> None:
    absolute, consistency = icc(np.ones((5, 2)))
    assert np.isnan(absolute[0])
    assert np.isnan(consistency[0])


def test_limits_of_agreement_of_bland_and_altman() -> None:
    mean, low, high = bland_altman(np.array(LARGE, float) - np.array(MINI, float))
    assert mean[0] == pytest.approx(-2.1, abs=0.05)
    # The paper's limits are the mean -/+ 2 standard deviations (38.8): -79.7 and 75.5.
    assert (high[0] - low[0]) / (2 * 1.96) == pytest.approx(38.8, abs=0.05)


def test_kappa_of_fleiss_and_of_a_two_by_two_table() -> None:
    # Fleiss, Statistical Methods for Rates and Proportions, chapter 18: 100 patients, three diagnoses, kappa 0.68.
    assert kappa(np.array([[75.0, 1, 4], [5, 4, 1], [0, 0, 10]])) == pytest.approx(0.676, abs=0.0005)
    table = np.array([[20.0, 5], [10, 15]])
    assert kappa(table) == pytest.approx(0.4)
    assert kappa(table, weighted=True) == pytest.approx(0.4)


def test_near_misses_cost_less_with_weights() -> None:
    near = np.array([[5.0, 5, 0], [0, 5, 0], [0, 0, 5]])
    far = np.array([[5.0, 0, 5], [0, 5, 0], [0, 0, 5]])
    assert kappa(near, weighted=True) > kappa(far, weighted=True)


def test_classes_of_counts() -> None:
    assert [count_class(n) for n in (0, 1, 4, 5, 9, 10, 83)] == [0, 1, 1, 2, 2, 3, 3]
    assert class_table(np.array([[0.0, 1.0], [12.0, 12.0]]))[[0, 3], [1, 3]].tolist() == [1, 1]
