"""Small batches of ids take a short way through mix: it must lead where the general way leads, errors included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx
from mixops.backends import pasted_tokens

T = 9


@st.composite
def plans(draw: st.DrawFn, rows: int = 5) -> mx.Plan:
    """Spans of rows put into rows, in order; sometimes a fill, a blend, or a donor of another size."""
    n, k = draw(st.integers(0, 6)), draw(st.integers(0, 3))
    odd = draw(st.sampled_from(["pastes", "pastes", "pastes", "fills", "blends", "resizes"]))
    whole = np.zeros((n, k, 2), np.int32)
    donor = np.zeros_like(whole)
    for place in np.ndindex(n, k):
        size = draw(st.integers(0, T))
        start, source = draw(st.integers(0, T - size)), draw(st.integers(0, T - size))
        whole[place], donor[place] = (start, start + size), (source, source + size)
        if odd == "resizes" and source + size < T and size:
            donor[place][1] += 1
    low = -1 if odd == "fills" else 0
    partner = np.array(draw(st.lists(st.integers(low, rows - 1), min_size=n * k, max_size=n * k)), np.int32)
    shares = st.sampled_from([0.0, 0.5, 1.0] if odd == "blends" else [0.0, 1.0])
    opacity = np.array(draw(st.lists(shares, min_size=n * k, max_size=n * k)), np.float32)
    base = np.array(draw(st.lists(st.integers(0, rows - 1), min_size=n, max_size=n)), np.int32)
    none = np.zeros((n, k))
    return mx.Plan(base, partner.reshape(n, k), whole, donor, opacity.reshape(n, k), none, shape=(T,), fills=7)


def outcome(*args: Any, **options: Any) -> Any:
    try:
        return mx.mix(*args, **options)
    except mx.MixError as error:
        return type(error), str(error)


def same(one: Any, other: Any) -> None:
    if isinstance(other, tuple):
        assert one == other
    else:
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


@given(plans(), st.sampled_from([np.int64, np.int32, np.int16, np.uint8, np.bool_]), st.integers(3, 5))
def test_the_short_way_leads_where_the_general_way_leads(plan: mx.Plan, dtype: Any, rows: int) -> None:
    x = np.random.default_rng(0).integers(0, 100, (rows, T)).astype(dtype)
    x.setflags(write=False)
    general = outcome(x, plan, "b t", "discrete", backend="reference")
    same(outcome(x, plan, "b t", "discrete"), general)
    mixed = outcome(torch.from_numpy(x.copy()), plan, "b t", "discrete")
    same(mixed.numpy() if isinstance(mixed, torch.Tensor) else mixed, general)


SSMIX = mx.SSMix(0.3).draw(
    np.random.default_rng(0), mx.Spec(4, (T,), [9, 7, 5, 3]), saliency=np.random.default_rng(1).random((4, T))
)
IDS = np.arange(4 * T).reshape(4, T)


def test_what_operators_on_spans_draw_takes_it() -> None:
    assert pasted_tokens(IDS, SSMIX) is not None
    assert isinstance(pasted_tokens(torch.from_numpy(IDS), SSMIX), torch.Tensor)


@pytest.mark.parametrize(
    "x",
    [
        IDS.astype(np.float32),
        np.asfortranarray(IDS),
        IDS[:, ::-1],
        np.zeros((4, T + 1), np.int64),
        IDS[:2],
        IDS.astype(object),
        list(IDS),
        torch.from_numpy(IDS).float(),
        torch.from_numpy(IDS).to_sparse(),
        torch.empty(4, T, dtype=torch.int64, device="meta"),
        np.zeros((4, T, 2), np.int64),
        np.zeros((1 << 17, T), np.int64),
    ],
    ids=lambda x: f"{type(x).__name__} {getattr(x, 'dtype', '')} {tuple(np.shape(x))}",
)
def test_anything_else_is_left_to_the_general_way(x: Any) -> None:
    assert pasted_tokens(x, SSMIX) is None


def test_the_result_is_memory_of_its_own() -> None:
    x = IDS.copy()
    mixed = mx.mix(x, SSMIX, "b t", "discrete")
    assert mixed.flags.writeable
    assert not np.shares_memory(mixed, x)
    assert x.flags.writeable
