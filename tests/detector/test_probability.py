"""Probabilities: shares on scans like those of the validation, and what they become on richer and poorer ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from bids_cmb.detector.probability import Calibration, probabilities

USUAL = Calibration(1.0, 0.0, 0.2)


def scan(
    rng: np.random.Generator, share: float, count: int = 40
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Logits of a detector that is right for a fifth of microbleeds, on a scan with another share of them."""
    bleeds = rng.random(count) < share
    evidence = rng.normal(np.where(bleeds, 1.5, -1.5), np.sqrt(3.0))  # its log-likelihood ratio
    return evidence + np.log(0.2 / 0.8), bleeds


def test_without_a_prevalence_it_is_platts_sigmoid() -> None:
    logits = np.array([-3.0, 0.0, 2.0])
    found = probabilities(logits, Calibration(0.5, -1.0))
    assert found == pytest.approx(1 / (1 + np.exp(-(0.5 * logits - 1))))


def test_few_candidates_say_little() -> None:
    plain = Calibration(1.0, 0.0)
    for logits in (np.array([0.3]), np.array([0.3, -2.0])):
        assert probabilities(logits, USUAL) == pytest.approx(probabilities(logits, plain), abs=0.03)
    assert len(probabilities(np.zeros(0), USUAL)) == 0


def test_a_candidate_is_likelier_in_the_company_of_microbleeds_than_among_veins() -> None:
    alone = probabilities(np.array([0.0] + [-6.0] * 39), USUAL)
    together = probabilities(np.array([0.0] + [3.0] * 20 + [-6.0] * 19), USUAL)
    assert alone[0] < 0.4
    assert together[0] > 0.55
    assert np.all(np.diff(probabilities(np.linspace(-5, 5, 40), USUAL)) > 0)  # the order within a scan stays


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5])
def test_probabilities_are_nearer_to_shares_on_poorer_and_richer_scans(share: float) -> None:
    rng = np.random.default_rng(1)
    scans = [scan(rng, share) for _ in range(300)]
    errors = {}
    for name, calibration in (("plain", Calibration(1.0, 0.0)), ("adjusted", USUAL)):
        found = np.concatenate([probabilities(logits, calibration) for logits, _ in scans])
        truth = np.concatenate([bleeds for _, bleeds in scans])
        errors[name] = abs(found.mean() - truth.mean())
    assert errors["adjusted"] < errors["plain"] + 0.01
    if share in (0.0, 0.5):
        assert errors["adjusted"] < 0.9 * errors["plain"]


def test_hundreds_of_peaks_in_the_noise_hide_no_microbleed() -> None:
    noisy = probabilities(np.array([3.0] + [-6.0] * 490), USUAL)
    assert noisy[0] > 0.85


def test_extreme_logits_give_no_warning() -> None:
    with np.errstate(all="raise"):
        found = probabilities(np.array([-1e4, 1e4]), USUAL)
    assert found == pytest.approx([0, 1], abs=1e-6)
