"""How good predicted probabilities are: accuracy, negative log-likelihood, calibration; and paired differences."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError

#: Rows may miss a sum of 1 by this much: a softmax in half precision does.
_SLACK = 1e-2
#: A probability below this is taken as this, so that one sure mistake costs about 708 and not infinity.
_LEAST = float(np.finfo(np.float64).tiny)


def accuracy(probs: Any, labels: Any) -> float:
    """The share of rows whose likeliest class is their label: mean over n of [argmax_c p[n, c] = y[n]].

    Args:
        probs: (N, C) floats, each row a distribution over C classes.
        labels: (N,) whole numbers from 0 to C - 1.

    Returns:
        From 0 to 1. Of classes that are equally likely the first counts.

    Raises:
        MixError: if there is no row, the shapes do not fit, a row of probs is no distribution (a value is no number, is
            outside [0, 1], or the row misses the sum 1 by more than 0.01), or a label is no class.

    Example:
        >>> accuracy(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1]))
        0.5
    """
    probs, labels = _checked("accuracy", probs, labels)
    return float((probs.argmax(1) == labels).mean())


def negative_log_likelihood(probs: Any, labels: Any) -> float:
    """The mean surprise at the labels, in nats: mean over n of -log p[n, y[n]].

    Args:
        probs: (N, C) floats, each row a distribution over C classes.
        labels: (N,) whole numbers from 0 to C - 1.

    Returns:
        0 or more; a probability of 0 counts as the smallest normal float64, about 708 nats.

    Raises:
        MixError: as ``accuracy``.

    Example:
        >>> round(negative_log_likelihood(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 1])), 4)
        0.4904
    """
    probs, labels = _checked("negative_log_likelihood", probs, labels)
    own = probs[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(own, _LEAST, 1.0)).mean()) + 0.0  # no minus before a 0


def calibration_error(probs: Any, labels: Any, bins: int = 15) -> float:
    """How far confidence is from accuracy, the expected calibration error: Σ_b |b|/N · |accuracy(b) - confidence(b)|.

    The confidence of a row is the probability of its likeliest class; bin b holds the rows whose confidence lies in
    ((b - 1)/bins, b/bins].

    Args:
        probs: (N, C) floats, each row a distribution over C classes.
        labels: (N,) whole numbers from 0 to C - 1.
        bins: bins of equal width on [0, 1], 1 or more.

    Returns:
        From 0 (of what it says with confidence c a share of c is right) to 1.

    Raises:
        MixError: as ``accuracy``, or if bins is no whole number of 1 or more.

    Example:
        >>> round(calibration_error(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])), 4)
        0.4

    Source: Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks".
    """
    probs, labels = _checked("calibration_error", probs, labels)
    try:
        count = index(bins)
    except TypeError:
        raise MixTypeError(f"calibration_error: bins={bins!r}, expected a whole number of 1 or more") from None
    if count < 1:
        raise MixValueError(f"calibration_error: bins={bins!r}, expected a whole number of 1 or more")
    confidence = np.minimum(probs.max(1), 1.0)
    right = probs.argmax(1) == labels
    bin_of = np.clip(np.ceil(confidence * count).astype(np.int64) - 1, 0, count - 1)
    # |b|/N · |accuracy - confidence| is the absolute sum of (right - confidence) over the bin, by N.
    gaps = np.bincount(bin_of, right - confidence, count)
    return float(np.abs(gaps).sum() / len(labels))


def paired_interval(differences: np.ndarray, level: float = 0.95, *, least: float = 0.0) -> tuple[float, float, float]:
    """The mean of paired differences and its t-interval: d ± t(n - 1)·s/√n.

    Args:
        differences: (n,) floats, one for each pair, n of 2 or more.
        level: share of the t-distribution that the interval holds, between 0 and 1.
        least: that the standard deviation s is taken to be, 0 or more: what is measured in steps may agree by chance,
            and is not known better than to a step.

    Returns:
        (mean, low, high).

    Raises:
        MixError: if there are fewer than two: one has no spread.

    Example:
        >>> [round(end, 3) for end in paired_interval(np.array([0.1, 0.2, 0.3]))]
        [0.2, -0.048, 0.448]
    """
    from scipy.stats import t  # type: ignore[import-untyped]

    n = len(differences)
    if n < 2:
        raise MixValueError(f"paired_interval: {n} difference, expected 2 or more: one has no spread")
    mean = float(differences.mean())
    half = float(t.ppf((1 + level) / 2, n - 1) * max(differences.std(ddof=1), least) / np.sqrt(n))
    return mean, mean - half, mean + half


def _checked(owner: str, probs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """probs as float64 and labels as int64, if they fit each other."""
    probs, labels = np.asarray(probs), np.asarray(labels)
    if probs.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise MixTypeError(
            f"{owner}: got probs of {probs.dtype} and labels of {labels.dtype}, expected floats and whole numbers"
        )
    if probs.ndim != 2 or labels.shape != probs.shape[:1] or not probs.size:
        raise MixValueError(
            f"{owner}: got probs of shape {probs.shape} and labels of {labels.shape}, expected (N, C) and (N,), N >= 1"
        )
    probs = probs.astype(np.float64)
    fits = (probs >= 0) & (probs <= 1 + _SLACK)
    bad = ~fits.all(1) | ~(np.abs(probs.sum(1) - 1) <= _SLACK)
    if bad.any():
        row = int(bad.argmax())
        raise MixValueError(
            f"{owner}: row {row} of probs is no distribution, it has values from {probs[row].min():.4g} to "
            f"{probs[row].max():.4g} and the sum {probs[row].sum():.4g}; logits need a softmax first"
        )
    outside = (labels < 0) | (labels >= probs.shape[1])
    if outside.any():
        raise MixValueError(
            f"{owner}: row {int(outside.argmax())} has label {int(labels[outside][0])}, expected 0 to "
            f"{probs.shape[1] - 1}"
        )
    return probs, labels.astype(np.int64)
