"""SpanMix: where spans and single tokens may lie, by chance and on request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from span_batches import SPANS, Batch, batches, rng, span_size, spans_in, starts

import mixops as mx


@given(batches(), st.sampled_from(SPANS), st.booleans(), st.booleans(), st.integers(0, 99))
def test_spanmix_lays_spans_where_they_fit_and_only_there(
    batch: Batch, span: float, pairs: bool, align: bool, seed: int
) -> None:
    op = mx.SpanMix(span, pairs=pairs, align=align)
    plan = op.draw(rng(seed), batch.spec, **batch.evidence(op))
    assert isinstance(plan, mx.Plan)
    plan.validate(plan.n)
    for i, (row, j) in enumerate(zip(spans_in(plan), batch.partner.tolist(), strict=True)):
        halves = [batch.ordinary(i, h, pairs) for h in range(1 + pairs)]
        for h, (here, there, size, weight) in enumerate(row):
            theirs = batch.ordinary(j, h, pairs)
            wanted = span_size(span, sum(halves[h]))
            shift = theirs.index(True) - halves[h].index(True) if pairs and any(theirs) and any(halves[h]) else 0
            fit, fit_there = starts(halves[h], wanted), starts(theirs, wanted)
            room = {s for s in fit if s + shift in fit_there} if align else fit and fit_there
            assert (size, weight) == ((wanted, float(np.float32(wanted / sum(map(sum, halves))))) if room else (0, 0))
            if room:
                assert here in fit
                assert there in fit_there
                assert not align or there == here + shift


@given(batches(), st.sampled_from(SPANS), st.booleans(), st.booleans())
def test_single_tokens_are_as_many_as_a_span_holds_each_in_its_own_place(
    batch: Batch, span: float, pairs: bool, align: bool
) -> None:
    op = mx.SpanMix(span, pieces="tokens", pairs=pairs, align=align)
    plan = op.draw(rng(), batch.spec, **batch.evidence(op))
    assert isinstance(plan, mx.Plan)
    plan.validate(plan.n)
    assert plan.k == (1 + pairs) * span_size(span, batch.extent)
    for i, (row, j) in enumerate(zip(spans_in(plan), batch.partner.tolist(), strict=True)):
        halves = [batch.ordinary(i, h, pairs) for h in range(1 + pairs)]
        each = plan.k // (1 + pairs)
        for h, mine in enumerate(halves):
            theirs, used = batch.ordinary(j, h, pairs), [p for p in row[h * each : (h + 1) * each] if p[2]]
            number = span_size(span, sum(mine))
            shift = theirs.index(True) - mine.index(True) if pairs and any(theirs) and any(mine) else 0
            both = [t for t in starts(mine, 1) if t + shift in starts(theirs, 1)]
            room = len(both) >= number if align else min(sum(mine), sum(theirs)) >= number
            assert len(used) == (number if room else 0)
            assert len({p[0] for p in used}) == len({p[1] for p in used}) == len(used)
            assert all(mine[p[0]] and theirs[p[1]] and p[2] == 1 for p in used)
            assert not align or all(p[1] == p[0] + shift for p in used)


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("pieces", ["span", "tokens"])
def test_every_place_is_as_likely_as_any_other(align: bool, pieces: str) -> None:
    op = mx.SpanMix(0.34, pieces=pieces, align=align)  # 2 of 6 ordinary tokens: starts 1 to 5, or tokens 1 to 6
    n = 3000
    partner = np.arange(n)[::-1]
    plan = op.draw(rng(), mx.Spec(n, (8,)), partner=partner)
    assert isinstance(plan, mx.Plan)
    for boxes in (plan.box, plan.donor):
        counts = np.bincount(boxes[..., 0][plan.opacity > 0], minlength=8)
        possible = 5 if pieces == "span" else 6
        assert counts[0] == 0
        assert counts[1 : possible + 1].sum() == counts.sum()
        expected = counts.sum() / possible
        assert (abs(counts[1 : possible + 1] - expected) < 4 * np.sqrt(expected)).all()
    apart = (plan.box != plan.donor).any()
    assert apart == (not align)


@pytest.mark.parametrize("at", [[2, 3], [[2], [3]]])
def test_places_given_replace_the_draw(at: Any) -> None:
    spec = mx.Spec(2, (8,))
    one = mx.SpanMix(0.34).draw(rng(), spec, at=at)
    assert isinstance(one, mx.Plan)
    assert one.box[:, 0].tolist() == one.donor[:, 0].tolist() == [[2, 4], [3, 5]]
    assert mx.SpanMix(0.34).draw(rng(), spec, donor_at=at) == one
    both = mx.SpanMix(0.34).draw(rng(), spec, at=at, donor_at=1)
    assert isinstance(both, mx.Plan)
    assert both.donor[:, 0].tolist() == [[1, 3], [1, 3]]
    apart = mx.SpanMix(0.34, align=False).draw(rng(), spec, donor_at=at)
    assert isinstance(apart, mx.Plan)
    assert apart.donor[:, 0].tolist() == [[2, 4], [3, 5]]
    tokens = mx.SpanMix(0.34, pieces="tokens").draw(rng(), spec, at=[6, 1])
    assert isinstance(tokens, mx.Plan)
    assert tokens.box[:, :, 0].tolist() == [[6, 1], [6, 1]]


def test_places_given_for_pairs_count_from_the_beginning_of_a_half() -> None:
    segments = np.array([[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1, 1]])
    special = np.zeros((2, 8), bool)
    op = mx.SpanMix(0.25, pairs=True)
    plan = op.draw(rng(), mx.Spec(2, (8,)), segments=segments, special=special, partner=[1, 0], at=[[1, 5], [0, 3]])
    assert isinstance(plan, mx.Plan)
    assert plan.donor[..., 0].tolist() == [[1, 3], [0, 5]]
    same = op.draw(
        rng(), mx.Spec(2, (8,)), segments=segments, special=special, partner=[1, 0], donor_at=[[1, 3], [0, 5]]
    )
    assert same == plan


def test_rows_without_room_do_not_look_at_the_places_given() -> None:
    spec = mx.Spec(3, (8,), np.array([8, 2, 0]))
    plan = mx.SpanMix(0.34).draw(rng(), spec, at=[2, 99, -5], partner=[0, 0, 0])
    assert isinstance(plan, mx.Plan)
    assert plan.opacity[:, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({}, {"at": [0, 2]}, "at of row 0 is 0"),
        ({}, {"at": [2, 6]}, "at of row 1 is 6"),
        ({}, {"at": [-1, 2]}, "at of row 0 is -1"),
        ({}, {"donor_at": [2, 6]}, "donor_at of row 1 is 6"),
        ({"align": False}, {"donor_at": [2, 8]}, "donor_at of row 1 is 8"),
        ({}, {"at": [1.5, 2]}, "whole numbers"),
        ({}, {"at": [1, 2, 3]}, r"at has shape \(3,\): expected \(2, 1\)"),
        ({"pieces": "tokens"}, {"at": [[1, 2], [3, 3]]}, "at of row 1 names a token twice"),
    ],
)
def test_places_that_do_not_fit_are_refused(options: Any, given: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        mx.SpanMix(0.34, **options).draw(rng(), mx.Spec(2, (8,)), **given)
