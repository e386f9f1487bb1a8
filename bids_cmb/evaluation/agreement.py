"""Do counts agree? Intraclass correlation, limits of agreement, and agreement on classes of counts.

Sources: intraclass correlations, Shrout and Fleiss, Psychol Bull 1979;86:420-428; limits of agreement, Bland and
Altman, Lancet 1986;327:307-310; kappa, Cohen, Educ Psychol Meas 1960;20:37-46, and weighted, Psychol Bull
1968;70:213-220. All take frequency weights, so that a bootstrap replicate is a row of weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from bids_cmb.evaluation.bootstrap import Figure, FloatMatrix, Resamples, divide, interval, ratio
from bids_cmb.evaluation.matching import ScanMatch

#: Classes of counts, as trials and ratings report them: name, least, most.
COUNT_CLASSES = (("none", 0, 0), ("1 to 4", 1, 4), ("5 to 9", 5, 9), ("10 or more", 10, math.inf))


def icc(ratings: FloatMatrix, weights: FloatMatrix | None = None) -> tuple[FloatMatrix, FloatMatrix]:
    """Intraclass correlations of single ratings: (2,1) absolute agreement and (3,1) consistency.

    Parameters
    ----------
    ratings
        Shape (targets, raters).
    weights
        How often each target counts, shape (replicates, targets); by default once, one replicate.

    Returns
    -------
    tuple of numpy.ndarray
        ICC(2,1) and ICC(3,1), each of shape (replicates,); nan where nothing varies.
    """
    targets, k = ratings.shape
    weights = np.ones((1, targets)) if weights is None else weights
    n = weights.sum(axis=1)
    row = ratings.mean(axis=1)
    total = divide(weights @ row, n)
    column = divide(weights @ ratings, n[:, None])
    between = k * (weights @ row**2 - n * total**2)
    raters = n * ((column - total[:, None]) ** 2).sum(axis=1)
    everything = weights @ (ratings**2).sum(axis=1) - n * k * total**2
    # Differences of large sums: what should be zero may come out a hair below.
    error = np.maximum(everything - between - raters, 0.0)
    mean_between = divide(np.maximum(between, 0.0), n - 1)
    mean_raters = raters / (k - 1)
    mean_error = divide(error, (n - 1) * (k - 1))
    consistency = divide(mean_between - mean_error, mean_between + (k - 1) * mean_error)
    absolute = divide(
        mean_between - mean_error,
        mean_between + (k - 1) * mean_error + k * divide(mean_raters - mean_error, n),
    )
    return absolute, consistency


def bland_altman(
    differences: FloatMatrix, weights: FloatMatrix | None = None
) -> tuple[FloatMatrix, FloatMatrix, FloatMatrix]:
    """Mean difference and the limits of agreement, mean -/+ 1.96 standard deviations.

    Parameters
    ----------
    differences
        Shape (targets,).
    weights
        As in `icc`.

    Returns
    -------
    tuple of numpy.ndarray
        Mean, lower and upper limit, each of shape (replicates,); limits are nan for one target.
    """
    weights = np.ones((1, len(differences))) if weights is None else weights
    n = weights.sum(axis=1)
    mean = divide(weights @ differences, n)
    spread = np.maximum(weights @ differences**2 - n * mean**2, 0.0)
    deviation = np.sqrt(divide(spread, n - 1))
    return mean, mean - 1.96 * deviation, mean + 1.96 * deviation


def kappa(table: FloatMatrix, *, weighted: bool = False) -> FloatMatrix:
    """Cohen's kappa of a cross table.

    Parameters
    ----------
    table
        Shape (..., classes, classes): counts by the class of one and of the other.
    weighted
        Whether disagreement grows linearly with the distance of the classes.

    Returns
    -------
    numpy.ndarray
        Shape (...); nan where only one class occurs.
    """
    classes = table.shape[-1]
    apart = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes))).astype(np.float64)
    cost = apart if weighted else (apart > 0).astype(np.float64)
    total = table.sum(axis=(-2, -1))
    expected = table.sum(axis=-1)[..., :, None] * table.sum(axis=-2)[..., None, :]
    observed_cost = (table * cost).sum(axis=(-2, -1))
    expected_cost = divide((expected * cost).sum(axis=(-2, -1)), total)
    return 1.0 - divide(observed_cost, expected_cost)


def count_class(count: float) -> int:
    """Return the place of a count among the `COUNT_CLASSES`."""
    return next(i for i, (_, least, most) in enumerate(COUNT_CLASSES) if least <= count <= most)


def counts_of(matches: Sequence[ScanMatch]) -> FloatMatrix:
    """Return the counts per scan that the reference and the detector give, shape (scans, 2)."""
    rows = [(len(m.counted), len(m.matches) + len(m.false)) for m in matches]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def class_table(counts: FloatMatrix) -> FloatMatrix:
    """Cross-tabulate classes of counts: rows the reference, columns the detector."""
    table = np.zeros((len(COUNT_CLASSES), len(COUNT_CLASSES)))
    for reference, found in counts:
        table[count_class(reference), count_class(found)] += 1
    return table


def agreement_figures(
    counts: FloatMatrix, bleed_free: FloatMatrix, resamples: Resamples
) -> tuple[Figure, ...]:
    """Make the figures of count agreement and of case-level accuracy, with intervals over subjects.

    Parameters
    ----------
    counts
        Shape (scans, 2): reference, detector.
    bleed_free
        1 for scans without any lesion, else 0. Those with uncertain lesions alone are neither cases nor controls.
    resamples
        Draws of subjects, made for the same scans.
    """
    scans = len(counts)
    weights = resamples.weights[:, resamples.owner] if scans else np.zeros((len(resamples.draws), 0))
    differences = counts[:, 1] - counts[:, 0]

    def figure(group: str, name: str, compute: Callable[[FloatMatrix], FloatMatrix]) -> Figure:
        value = float(compute(np.ones((1, scans)))[0])
        low, high = interval(compute(weights)) if resamples.subjects > 1 else (math.nan, math.nan)
        return Figure(group, name, value, low, high, scans, "scans", "bootstrap" if low == low else "none")

    def tabulated(classes: int, of: Callable[[float], int]) -> Callable[[FloatMatrix], FloatMatrix]:
        cells = np.zeros((scans, classes * classes))
        cells[np.arange(scans), [classes * of(a) + of(b) for a, b in counts]] = 1
        return lambda w: (w @ cells).reshape(-1, classes, classes)

    classes = tabulated(len(COUNT_CLASSES), count_class)
    present = tabulated(2, lambda count: int(count > 0))
    positive = (counts[:, 0] > 0).astype(np.float64)
    said = (counts[:, 1] > 0).astype(np.float64)
    judged = positive + bleed_free

    def share(name: str, above: FloatMatrix, below: FloatMatrix) -> Figure:
        return ratio("case level", name, above, below, resamples, unit="scans")

    return (
        figure("count agreement", "ICC(2,1)", lambda w: icc(counts, w)[0]),
        figure("count agreement", "ICC(3,1)", lambda w: icc(counts, w)[1]),
        figure("count agreement", "mean difference", lambda w: bland_altman(differences, w)[0]),
        figure("count agreement", "lower limit of agreement", lambda w: bland_altman(differences, w)[1]),
        figure("count agreement", "upper limit of agreement", lambda w: bland_altman(differences, w)[2]),
        share("accuracy of any bleed", said * positive + (1 - said) * bleed_free, judged),
        share("sensitivity for any bleed", said * positive, positive),
        share("specificity for any bleed", (1 - said) * bleed_free, bleed_free),
        figure("case level", "kappa of any bleed", lambda w: kappa(present(w * judged))),
        figure("case level", "kappa of count classes", lambda w: kappa(classes(w))),
        figure("case level", "kappa of count classes, linear weights", lambda w: kappa(classes(w), weighted=True)),
    )  # fmt: skip
