"""The order of rows that exchange: whoever works slot by slot never reads what another slot has written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import plans
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx
from mixops.exchange import exchanges


def readers(plan: mx.Plan) -> list[tuple[int, int]]:
    """(row, donor) wherever a patch that does something reads another row."""
    used = np.argwhere((plan.opacity > 0) & (plan.partner >= 0)).tolist()
    return [(n, int(plan.partner[n, k])) for n, k in used if plan.partner[n, k] != n]


def changed(plan: mx.Plan) -> set[int]:
    return {int(n) for n in np.flatnonzero((plan.opacity > 0).any(1))}


def check(plan: mx.Plan) -> None:
    """The order has every row once, and no row is read from another slot than the one that changes it."""
    order = exchanges(plan)
    slot_of = {}
    if order is not None:
        assert order.dtype == np.int32
        assert len(order) == 2 * -(-plan.n // 2)
        assert sorted(order.tolist()) == ([-1] if plan.n % 2 else []) + list(range(plan.n))
        assert -1 not in order[0::2], "the first row of a slot is always one"
        slot_of = {int(row): i // 2 for i, row in enumerate(order)}
    crossing = [(n, d) for n, d in readers(plan) if d in changed(plan) and slot_of.get(n) != slot_of.get(d, -1)]
    assert order is None or not crossing


def in_place(plan: mx.Plan) -> bool:
    """Does every row stay and have one donor at most?"""
    donors = [{d for r, d in readers(plan) if r == n} for n in range(plan.n)]
    return plan.base.tolist() == list(range(plan.n)) and all(len(d) <= 1 for d in donors)


@given(plans())
def test_an_order_lets_no_row_be_read_after_it_was_written(drawn: Any) -> None:
    plan = drawn[0]
    if in_place(plan) and (plan.partner < plan.n).all():
        check(plan)


@given(st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 0.5, 0.2]))
def test_a_plan_is_refused_only_where_rows_do_not_exchange(n: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    partner = rng.permutation(n) if rng.random() < 0.5 else rng.integers(0, n, n)
    if rng.random() < 0.5:  # mutual partners among others
        order = rng.permutation(n)
        for a, b in zip(order[0::2], order[1::2], strict=False):
            partner[a], partner[b] = b, a
    opacity = np.where(rng.random(n) < share, rng.choice([0.3, 1.0], n), 0)
    plan = mx.Plan.whole(partner.astype(np.int32), opacity.astype(np.float32))
    check(plan)
    live = [(r, d) for r, d in readers(plan) if d in changed(plan)]
    mates: dict[int, set[int]] = {}
    for r, d in live:
        mates.setdefault(r, set()).add(d)
        mates.setdefault(d, set()).add(r)
    possible = all(len(m) == 1 for m in mates.values())
    assert (exchanges(plan) is not None) == possible


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
def test_flipped_batches_exchange_whatever_was_drawn(n: int, per: str) -> None:
    for op in (mx.Mixup(per=per, pairing="flip"), mx.CutMix(per=per, pairing="flip")):
        for seed in range(5):
            plan = op.draw(np.random.default_rng(seed), mx.Spec(n, (6, 7)))
            assert exchanges(plan) is not None
            check(plan)


def test_donors_from_another_place_do_not_exchange() -> None:
    box, donor = np.array([[[0, 2]], [[0, 2]]]), np.array([[[2, 4]], [[2, 4]]])
    plan = mx.Plan([0, 1], [[1], [0]], box, donor, np.ones((2, 1)), np.zeros((2, 1)), (4,))
    assert exchanges(plan) is None
