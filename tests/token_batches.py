"""Batches of token rows for tests: short ones, empty ones, special tokens anywhere."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

import mixops as mx

SEEDS = st.integers(0, 2**32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cut_of(plan: mx.Plan) -> np.ndarray:
    """(n, T) bool: the tokens that the plan cuts."""
    return mx.mix(np.zeros((plan.n, *plan.shape), np.int64), plan, "b t", "discrete", fill=1) == 1


def whole(share: float, of: int) -> int:
    """⌊share · of⌋ of the decimal number that was typed."""
    return math.floor(round(share * of, 6))


@st.composite
def batches(draw: st.DrawFn) -> tuple[mx.Spec, np.ndarray | None, np.ndarray]:
    """A spec of token rows, special tokens or None, and which tokens are ordinary."""
    n, extent = draw(st.integers(0, 5)), draw(st.integers(1, 14))
    made = rng(draw(SEEDS))
    lengths = None if draw(st.booleans()) else made.integers(0, extent + 1, n)
    special = made.random((n, extent)) < draw(st.sampled_from([0.1, 0.5, 1])) if draw(st.booleans()) else None
    real = np.arange(extent) < (np.full(n, extent) if lengths is None else lengths)[:, None]
    return mx.Spec(n, (extent,), lengths), special, real if special is None else real & ~special
