"""From the student's logits to probabilities, in the light of how rich in microbleeds the scan itself is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: The share of microbleeds among a scan's other candidates is taken as if so many candidates of the validation scans were
#: among them: few candidates say little.
_BORROWED = 10.0
#: How far the log-odds follow that share, from 0 (not at all) to 1 (as if the share were known), and the greatest change:
#: hundreds of peaks in the noise shall not hide a microbleed.
FOLLOWED, GREATEST = 0.5, 1.0


@dataclass(frozen=True)
class Calibration:
    """What makes a probability of the student's logit, fitted on validation heads.

    Attributes
    ----------
    scale, offset
        Of Platt's sigmoid: ``sigmoid(scale * logit + offset)``.
    prevalence
        Share of microbleeds among the candidates of the validation scans (mean of their probabilities), 0..1; None
        where probabilities do not follow the scan.
    """

    scale: float
    offset: float
    prevalence: float | None = None


def probabilities(
    logits: npt.NDArray[np.float64], calibration: Calibration, *, followed: float = FOLLOWED
) -> npt.NDArray[np.float64]:
    """Probability of each candidate of one scan, (N,), from the student's logits (N,).

    Microbleeds come in company: patients have none or several, and a scan full of veins has many candidates of which
    few are microbleeds. A candidate's odds therefore follow the share of microbleeds among the *other* candidates of its
    scan, as their own probabilities give it, by one step of the adjustment to new prior probabilities of Saerens,
    Latinne & Decaestecker (Neural Comput 2002;14:21-41), shrunk towards the validation scans, and by half.
    """
    log_odds = calibration.scale * np.asarray(logits, np.float64) + calibration.offset
    plain = _sigmoid(log_odds)
    usual = calibration.prevalence
    if usual is None or not 0 < usual < 1:
        return plain
    share = (plain.sum() - plain + _BORROWED * usual) / (len(plain) - 1 + _BORROWED)
    change = followed * (_log_odds(share) - _log_odds(np.float64(usual)))
    return _sigmoid(log_odds + np.clip(change, -GREATEST, GREATEST))


def _sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))


def _log_odds(share: npt.NDArray[np.float64] | np.float64) -> npt.NDArray[np.float64]:
    share = np.clip(share, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(share / (1 - share)))
