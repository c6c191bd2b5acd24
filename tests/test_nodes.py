"""Nodes for torchdata.nodes: draw in order, apply in threads, resume in the middle of an epoch."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from mixops.pipelines import KeyedBatchSampler, MixLoader
from mixops.pipelines.nodes import Planner, mix_planned, mixer
from torchdata import nodes as tn

import mixops as mx

OP = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)]) | mx.Cutout(2)
FIELDS = {"x": mx.Field("b c h w"), "y": mx.Labels(3)}


def batches(count: int = 7) -> list[dict[str, Any]]:
    rng = np.random.Generator(np.random.PCG64(1))
    return [{"x": rng.random((n, 1, 6, 6), np.float32), "y": np.arange(n) % 3} for n in [4] * (count - 1) + [2]]


def loader(workers: int, **options: Any) -> tn.Loader[Any]:
    return tn.Loader(mixer(tn.IterableWrapper(batches()), OP, FIELDS, 7, num_workers=workers, **options))


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(
        one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)
        for one, two in zip(a, b, strict=True)
    )


@pytest.fixture(scope="module")
def expected() -> list[list[Any]]:
    """Three epochs, mixed by the loader for any iterable."""
    plain = MixLoader(batches(), OP, FIELDS, 7)
    return [list(plain) for _ in range(3)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_threads_make_the_batches_of_the_loader_in_order_epoch_after_epoch(expected: Any, workers: int) -> None:
    mixed = loader(workers)
    for epoch in expected:
        assert same(list(mixed), epoch)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cut", [0, 1, 4, 6])
def test_a_state_from_the_middle_resumes_exactly(expected: Any, workers: int, cut: int) -> None:
    first = loader(workers)
    list(first)  # epoch 0
    running = iter(first)
    head = [next(running) for _ in range(cut)]
    state = json.loads(json.dumps(first.state_dict()))
    second = loader(workers)
    second.load_state_dict(state)
    assert same(head + list(second), expected[1])
    assert same(list(second), expected[2])


def test_a_state_from_the_end_goes_on_with_the_next_epoch(expected: Any) -> None:
    first = loader(2)
    running = iter(first)
    for _ in expected[0]:
        next(running)
    second = loader(2)
    second.load_state_dict(first.state_dict())
    assert same(list(second), expected[1])


def test_the_planner_yields_what_mix_planned_applies(expected: Any) -> None:
    apply = pickle.loads(pickle.dumps(mix_planned(FIELDS, plan_key="plan")))
    for (batch, plan), given, mixed in zip(
        tn.Loader(Planner(tn.IterableWrapper(batches()), OP, FIELDS, 7)), batches(), expected[0], strict=True
    ):
        assert same([batch], [given])
        made = apply((batch, plan))
        assert made.pop("plan") == plan
        assert same([made], [mixed])


def test_keyed_batches_of_indices_are_a_source_that_resumes(expected: Any) -> None:
    rows = np.random.Generator(np.random.PCG64(2)).random((10, 1, 6, 6), np.float32)

    def made() -> tn.Loader[Any]:
        sampler = tn.SamplerWrapper(KeyedBatchSampler(range(10), 3, seed=1, shuffle=True))
        fetched = tn.ParallelMapper(sampler, lambda b: {"x": rows[b], "y": np.array(b) % 3}, num_workers=1)
        return tn.Loader(mixer(fetched, OP, FIELDS, 7, num_workers=1))

    whole = made()
    unbroken = [list(whole) for _ in range(2)]
    assert not same(unbroken[0], unbroken[1])
    first = made()
    running = iter(first)
    head = [next(running) for _ in range(2)]
    second = made()
    second.load_state_dict(first.state_dict())
    assert same(head + list(second), unbroken[0])
    assert same(list(second), unbroken[1])


def test_ranks_seeds_and_first_epoch_are_part_of_the_key(expected: Any) -> None:
    assert same(list(loader(0, epoch=1)), expected[1])
    assert not same(list(loader(0, rank=1)), expected[0])
    planner = Planner(tn.IterableWrapper(batches()), OP, FIELDS, 7, training=False)
    assert all(plan.is_identity for _, plan in tn.Loader(planner))
    planner.set_epoch(2)
    planner.training = True
    assert same([mix_planned(FIELDS)(planned) for planned in tn.Loader(planner)], expected[2])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_batch_reaches_the_caller(workers: int) -> None:
    source = [*batches(3), {"x": np.zeros((2, 1, 6, 6), np.float32)}]
    mixed = tn.Loader(mixer(tn.IterableWrapper(source), OP, FIELDS, 7, num_workers=workers))
    with pytest.raises(mx.MixError, match="'y' is not in the batch"):
        list(mixed)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"seed": 8}, "seed=8"), ({"version": 5}, "version 5"), ({"step": None}, "step=None"), ({}, "lacks source")],
)
def test_a_state_that_does_not_fit_is_refused_and_the_node_stays_where_it_is(change: Any, message: str) -> None:
    planner = Planner(tn.IterableWrapper(batches()), OP, FIELDS, 7)
    planner.reset()
    next(planner)
    before = planner.state_dict()
    broken = {**before, **change}
    if not change:
        del broken["source"]
    with pytest.raises(mx.MixError, match=message):
        planner.reset(broken)
    assert planner.state_dict() == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Planner([1], OP, FIELDS, 7), "IterableWrapper"),
        (lambda: Planner(tn.IterableWrapper([]), 3, FIELDS, 7), "op is int"),  # type: ignore[arg-type]
        (lambda: loader(0, epoch=-1), "epoch=-1"),
        (lambda: loader(0, rank=1.5), "rank=1.5"),
        (lambda: loader(-1), "num_workers=-1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(make: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        make()
