"""Streams: the key says everything; nothing global is read or moved."""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx
from mixops.streams import child_streams, order_stream, plan_stream, sample_stream

WORD = st.integers(0, 2**64 - 1)


@given(WORD, WORD, WORD, WORD)
def test_the_same_key_gives_the_same_numbers(seed: int, epoch: int, step: int, rank: int) -> None:
    one, two = plan_stream(seed, epoch, step, rank), plan_stream(seed, epoch, step, rank)
    np.testing.assert_array_equal(one.random(8), two.random(8))


def test_any_difference_in_the_key_gives_other_numbers() -> None:
    keys: list[Any] = [plan_stream(s, e, t, r) for s in (0, 1) for e in (0, 1) for t in (0, 1, 2**32) for r in (0, 1)]
    keys += [sample_stream(s, e, i, t) for s in (0, 1) for e in (0, 1) for i in (0, 1) for t in (0, 1)]
    keys += [order_stream(s, e) for s in (0, 1) for e in (0, 1)]
    keys += child_streams(plan_stream(0), 4)
    numbers = [tuple(g.integers(2**63, size=4)) for g in keys]
    assert all(not set(a) & set(b) for a, b in combinations(numbers, 2))


def test_streams_of_neighbouring_keys_do_not_run_into_one_another() -> None:
    long = plan_stream(7, step=3).integers(2**63, size=20_000)
    for other in (plan_stream(7, step=4), plan_stream(7, epoch=1, step=3), plan_stream(8, step=3)):
        assert not np.isin(other.integers(2**63, size=20_000), long).any()


def test_streams_of_neighbouring_keys_are_independent() -> None:
    drawn = np.array([plan_stream(5, step=t).random(400) for t in range(40)])
    correlation = np.corrcoef(drawn)[~np.eye(40, dtype=bool)]
    assert np.abs(correlation).max() < 0.27
    first = np.sort([plan_stream(5, step=t).random() for t in range(2000)])
    assert np.abs(first - np.linspace(0, 1, 2000)).max() < 0.05


@given(st.integers(0, 50), st.integers(1, 6), st.integers(1, 6))
def test_a_child_stream_does_not_depend_on_how_many_there_are(seed: int, few: int, more: int) -> None:
    a, b = np.random.default_rng(seed), np.random.default_rng(seed)
    first, second = child_streams(a, few), child_streams(b, more)
    for one, two in zip(first, second, strict=False):
        np.testing.assert_array_equal(one.random(4), two.random(4))
    assert a.random() == b.random(), "the parent has moved by one word, whatever the count"


@pytest.mark.parametrize("wrong", [-1, 2**64, 1.0, "7", None, True, np.nan])
@pytest.mark.parametrize("name", ["seed", "epoch", "step", "rank"])
def test_a_key_is_made_of_whole_numbers(name: str, wrong: Any) -> None:
    with pytest.raises(mx.MixError, match=f"{name}=.*expected a whole number"):
        plan_stream(**({"seed": 0} | {name: wrong}))


def test_numpy_integers_are_whole_numbers() -> None:
    assert plan_stream(np.int64(3), np.uint8(1)).random() == plan_stream(3, 1).random()


@pytest.mark.parametrize(
    "op",
    [
        mx.Mixup(1e-320),
        mx.CutMix(per="sample", p=0.5),
        mx.Cutout(3),
        mx.RandomErasing(noise="pixel"),
        mx.OneOf([mx.Mixup(pairing="derange"), mx.CutMix()], per="sample") | mx.Cutout(2),
        mx.Sometimes(mx.Mixup(), 0.5),
    ],
)
def test_no_draw_and_no_mix_touches_a_global_random_state(op: mx.Operator) -> None:
    def states() -> list[Any]:
        legacy = np.random.get_state()  # noqa: NPY002  # what must not move
        return [random.getstate(), legacy[0], legacy[1].tolist(), *legacy[2:], torch.get_rng_state().tolist()]

    before = states()
    plan = op.draw(plan_stream(0), mx.Spec(6, (9, 9)))
    mx.mix(np.zeros((6, 3, 9, 9), np.float32), plan, "b c h w")
    mx.mix(torch.zeros(6, 3, 9, 9), plan, "b c h w", backend="torch")
    assert states() == before
