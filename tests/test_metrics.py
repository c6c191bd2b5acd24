"""Metrics of predicted probabilities: against their definitions, scikit-learn, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mixops.pipelines.metrics import accuracy, calibration_error, negative_log_likelihood, paired_interval
from scipy import stats
from sklearn.metrics import accuracy_score, log_loss

import mixops as mx

METRICS = (accuracy, negative_log_likelihood, calibration_error)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a softmax and labels that need not agree with them."""
    n, c = draw(st.integers(1, 30)), draw(st.integers(2, 6))
    logits = draw(hnp.arrays(np.float64, (n, c), elements=st.floats(-12, 12)))
    probs = np.exp(logits - logits.max(1, keepdims=True))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, c - 1)))
    return probs / probs.sum(1, keepdims=True), labels


def slow_calibration(probs: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """The definition, bin by bin."""
    total = 0.0
    for b in range(bins):
        rows = [n for n in range(len(labels)) if b / bins < probs[n].max() <= (b + 1) / bins]
        if rows:
            right = np.mean([probs[n].argmax() == labels[n] for n in rows])
            total += len(rows) / len(labels) * abs(right - np.mean([probs[n].max() for n in rows]))
    return total


@given(predictions())
def test_accuracy_and_likelihood_are_those_of_scikit_learn(given_: tuple[np.ndarray, np.ndarray]) -> None:
    probs, labels = given_
    assert accuracy(probs, labels) == accuracy_score(labels, probs.argmax(1))
    expected = log_loss(labels, probs, labels=range(probs.shape[1]))
    assert negative_log_likelihood(probs, labels) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(predictions(), st.sampled_from((1, 2, 8, 16)))  # powers of two: their edges are exact in the slow form too
def test_calibration_error_is_its_definition(given_: tuple[np.ndarray, np.ndarray], bins: int) -> None:
    probs, labels = given_
    assert calibration_error(probs, labels, bins) == pytest.approx(slow_calibration(probs, labels, bins), abs=1e-12)


def test_calibration_error_has_15_bins() -> None:
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.ones(4), 200), rng.integers(0, 4, 200)
    assert calibration_error(probs, labels) == pytest.approx(slow_calibration(probs, labels, 15), abs=1e-12)


def test_honest_confidence_has_no_calibration_error_and_a_sure_mistake_the_largest() -> None:
    honest = np.tile([0.75, 0.25], (4, 1))
    assert calibration_error(honest, np.array([0, 0, 0, 1])) == 0
    assert calibration_error(np.eye(2), np.array([1, 0])) == 1


def test_a_sure_mistake_costs_much_but_not_infinitely_much() -> None:
    loss = negative_log_likelihood(np.eye(2), np.array([1, 0]))
    assert 700 < loss < 710
    assert negative_log_likelihood(np.eye(2), np.array([0, 1])) == 0


def test_half_precision_and_tensors_are_taken() -> None:
    torch = pytest.importorskip("torch")
    probs = torch.softmax(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), 1)
    labels = torch.arange(50) % 6
    for metric in METRICS:
        whole = metric(probs.double().numpy(), labels.numpy())
        assert metric(probs, labels) == pytest.approx(whole, abs=1e-6)
        assert metric(probs.half().numpy(), labels.numpy().astype(np.uint8)) == pytest.approx(whole, abs=1e-2)


@pytest.mark.parametrize("metric", METRICS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("probs", "labels", "said"),
    [
        ([[3.0, -1.0]], [0], "softmax"),
        ([[0.5, 0.4]], [0], "the sum 0.9"),
        ([[0.5, float("nan")]], [0], "row 0 of probs is no distribution"),
        ([[0.5, 0.5]], [2], "label 2, expected 0 to 1"),
        ([[0.5, 0.5]], [-1], "label -1"),
        ([[0.5, 0.5]], [0, 1], "expected (N, C) and (N,)"),
        ([0.5, 0.5], [0, 1], "expected (N, C) and (N,)"),
        (np.zeros((0, 2)), np.zeros(0, int), "N >= 1"),
        ([[1, 0]], [0], "expected floats"),
        ([[0.5, 0.5]], [0.0], "labels of float64"),
    ],
)
def test_what_is_no_prediction_is_refused(metric: object, probs: object, labels: object, said: str) -> None:
    with pytest.raises(mx.MixError) as caught:
        metric(probs, labels)  # type: ignore[operator]
    assert said in str(caught.value)


@pytest.mark.parametrize("bins", [0, -1, 2.5, "3"])
def test_bins_that_are_no_count_are_refused(bins: object) -> None:
    with pytest.raises(mx.MixError, match="bins="):
        calibration_error(np.eye(2), np.array([0, 1]), bins)  # type: ignore[arg-type]


def test_the_interval_of_paired_differences_is_that_of_scipy() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 10))
    mean, low, high = paired_interval(first - second)
    found = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (low, high) == pytest.approx((found.low, found.high))
    assert mean == pytest.approx((first - second).mean())
    with pytest.raises(mx.MixError, match="1 difference"):
        paired_interval(np.array([0.5]))
