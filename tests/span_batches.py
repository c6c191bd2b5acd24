"""Batches of tokens, and what operators on spans must do with them, told token by token in plain Python."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

import mixops as mx

#: Shares that a float holds and shares that it does not.
SPANS = (0.1, 0.29, 0.3, 0.5, 0.7, 1.0)


class Batch(NamedTuple):
    """Rows of tokens with all that an operator on spans may look at."""

    lengths: np.ndarray
    special: np.ndarray | None
    segments: np.ndarray
    saliency: np.ndarray
    partner: np.ndarray
    extent: int

    @property
    def spec(self) -> mx.Spec:
        return mx.Spec(len(self.lengths), (self.extent,), self.lengths)

    @property
    def ids(self) -> np.ndarray:
        """Every token of the batch has a number of its own."""
        return np.arange(len(self.lengths) * self.extent).reshape(-1, self.extent)

    def evidence(self, op: mx.Operator) -> dict[str, Any]:
        have = {"saliency": self.saliency, "segments": self.segments, "special": self.special}
        return {name: have[name] for name in (*op.needs, *op.uses) if name in have} | {"partner": self.partner}

    def ordinary(self, row: int, half: int, pairs: bool) -> list[bool]:
        """Told token by token, straight from the rules."""
        length = int(self.lengths[row])
        told = []
        for t in range(self.extent):
            if self.special is not None:
                special = bool(self.special[row, t])
            else:
                ends = pairs and t + 1 < length and self.segments[row, t] != self.segments[row, t + 1]
                special = t == 0 or t == length - 1 or ends
            mine = not pairs or self.segments[row, t] == half
            told.append(t < length and not special and mine)
        return told


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, extent = draw(st.integers(0, 6)), draw(st.integers(1, 14))
    lengths = rng.integers(0, extent + 1, n)
    special = rng.random((n, extent)) < draw(st.sampled_from([0.0, 0.2, 0.6, 1.0])) if draw(st.booleans()) else None
    segments = (np.arange(extent) >= rng.integers(0, extent + 1, n)[:, None]).astype(np.int64)
    few = draw(st.booleans())  # few different scores: many windows tie
    saliency = rng.integers(-1, 2, (n, extent)) / 10 if few else rng.normal(size=(n, extent))
    partner = rng.integers(0, max(n, 1), n)
    return Batch(lengths, special, segments, saliency, partner, extent)


def span_size(span: float, count: int) -> int:
    return max(int(Fraction(str(span)) * count), 1)


def starts(ordinary: list[bool], size: int) -> list[int]:
    return [s for s in range(len(ordinary) - size + 1) if all(ordinary[s : s + size])]


def mean(scores: np.ndarray, start: int, size: int) -> float:
    total = 0.0
    for score in scores[start : start + size].tolist():
        total += score
    return total / size


def spans_by_loop(batch: Batch, span: float, pairs: bool) -> list[list[tuple[int, int, int, float]]]:
    """(start, start in the partner, size, weight) of every half of every row; (0, 0, 0, 0.0) where one has no room."""
    rows = []
    for i, j in enumerate(batch.partner.tolist()):
        halves = [batch.ordinary(i, h, pairs) for h in range(1 + pairs)]
        whole, found = sum(map(sum, halves)), []
        for h, mine in enumerate(halves):
            size = span_size(span, sum(mine))
            here, there = starts(mine, size), starts(batch.ordinary(j, h, pairs), size)
            if not here or not there:
                found.append((0, 0, 0, 0.0))
                continue
            own = min(here, key=lambda s: mean(batch.saliency[i], s, size))
            other = max(there, key=lambda s: mean(batch.saliency[j], s, size))  # min and max keep the first of equals
            found.append((own, other, size, size / whole))
        rows.append(found)
    return rows


def spans_in(plan: mx.Plan) -> list[list[tuple[int, int, int, float]]]:
    """The plan in the form of ``spans_by_loop``."""
    assert (plan.opacity == (plan.box[..., 1] > plan.box[..., 0])).all()
    assert (plan.box[..., 1] - plan.box[..., 0] == plan.donor[..., 1] - plan.donor[..., 0]).all()
    rows = zip(plan.box.tolist(), plan.donor.tolist(), plan.weight.tolist(), strict=True)
    return [
        [(b[0], d[0], b[1] - b[0], w) for b, d, w in zip(box, donor, weight, strict=True)]
        for box, donor, weight in rows
    ]


def as_float32(rows: list[list[tuple[int, int, int, float]]]) -> list[list[tuple[int, int, int, float]]]:
    return [[(a, b, c, float(np.float32(w))) for a, b, c, w in row] for row in rows]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
