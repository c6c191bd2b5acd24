"""Parts of a plan for ranks: what each must have, and that its part gives its rows of the whole. No processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import plans
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines.exchange import ExchangeLoader, global_rows, own_part, rows_needed
from mixops.pipelines.travel import column_of

import mixops as mx

counts_of = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(np.array)


def parts_of(plan: Any, holder: np.ndarray, ranks: int) -> list[tuple[np.ndarray, Any, np.ndarray]]:
    needs = rows_needed(plan, holder, ranks)
    own = [np.flatnonzero(holder == rank) for rank in range(ranks)]
    return [(own[rank], *own_part(plan, needs, rank, own[rank])) for rank in range(ranks)]


@given(counts=counts_of)
def test_global_rows_take_turns_between_ranks(counts: np.ndarray) -> None:
    holder, held = global_rows(counts)
    assert sorted(zip(holder, held, strict=True)) == [(r, i) for r, n in enumerate(counts) for i in range(n)]
    assert (np.diff(held) >= 0).all()
    if len(set(counts)) == 1:
        assert holder.tolist() == list(range(len(counts))) * counts[0]


@given(made=plans(), data=st.data(), ranks=st.integers(1, 3))
def test_a_part_of_any_plan_makes_its_rows_of_the_whole(made: Any, data: st.DataObject, ranks: int) -> None:
    plan, layout, shape = made
    axis = layout.split().index("b")
    n = shape[axis]
    rows = data.draw(st.lists(st.integers(0, max(plan.n - 1, 0)), min_size=n, max_size=n)) if plan.n else []
    plan = plan[np.array(rows, int)]
    if plan.n != n:
        return
    holder = np.array(data.draw(st.lists(st.integers(0, ranks - 1), min_size=n, max_size=n)), int)
    x = np.random.default_rng(0).random(shape, np.float32)
    whole = mx.mix(x, plan, layout)
    for own, part, wanted in parts_of(plan, holder, ranks):
        assert not set(own) & set(wanted)
        mine = mx.mix(np.ascontiguousarray(x.take([*own, *wanted], axis)), part, layout)
        assert np.array_equal(mine, whole.take(own, axis))


@pytest.mark.parametrize(
    "op",
    [
        mx.Mixup(0.8, per="sample") | mx.CutMix(1.0) | mx.Mixup(1.0),
        mx.CutMix(1.0, per="sample", pairing="roll") | mx.OneOf([mx.Mixup(), mx.CutMix()], per="sample") | mx.Cutout(2),
    ],
    ids=repr,
)
def test_a_part_of_a_sequence_makes_the_rows_between_that_it_needs(op: mx.Operator) -> None:
    x = np.random.default_rng(0).random((12, 3, 8, 8), np.float32)
    holder, _ = global_rows(np.array([3, 5, 4]))
    labels = np.arange(12)
    for seed in range(20):
        plan = op.draw(np.random.default_rng(seed), mx.Spec.like(x, "b c h w"))
        assert isinstance(plan, mx.PlanSequence)
        whole, soft = mx.mix(x, plan, "b c h w"), mx.soft_targets(labels, plan, 12)
        for own, part, wanted in parts_of(plan, holder, 3):
            source = [*own, *wanted]
            assert np.array_equal(mx.mix(x[source], part, "b c h w"), whole[own])
            assert np.array_equal(mx.soft_targets(labels[source], part, 12), soft[own])


def test_a_row_is_wanted_only_where_a_patch_uses_it() -> None:
    whole, none = np.zeros((4, 1, 0), int), np.zeros((4, 1))
    holder = np.array([0, 1, 0, 1])
    for opacity, weight, wanted in ((none, none, []), (none + 0.5, none, [1, 3]), (none, none + 0.5, [1, 3])):
        plan = mx.Plan(range(4), [[1], [0], [3], [2]], whole, whole, opacity, weight, ())  # type: ignore[arg-type]
        assert parts_of(plan, holder, 2)[0][2].tolist() == wanted


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ([np.zeros(2), np.zeros(3)], "samples of different kinds"),
        (["a", "b"], "got an array of <U1, expected numbers"),
        (np.array([None, 1]), "got an array of object"),
        ({"a": 1}, "got dict"),
        ([], "got list"),
        (np.float32(3), "expected a NumPy array"),
    ],
)
def test_what_cannot_travel_is_refused_by_name(item: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=f"field 'x': .*({message})"):
        column_of("x", item, mx.Field("b d"))


def test_one_rank_alone_does_what_mix_loader_does_for_lists_and_tuples_too() -> None:
    from mixops.pipelines import MixLoader

    samples = [np.full((2, 2, 1), i, np.uint8) for i in range(4)]
    batches = [(samples, [0, 1, 1, 0], "name")]
    fields = {0: mx.Field("b h w c"), 1: mx.Labels(2)}
    ((ours, soft, name),) = ExchangeLoader(batches, mx.CutMix(1.0), fields, 7)
    ((theirs, expected, _),) = MixLoader(batches, mx.CutMix(1.0), fields, 7)
    assert np.array_equal(ours, theirs)
    assert np.array_equal(soft, expected)
    assert name == "name"


def test_the_repr_names_the_loader() -> None:
    loader = ExchangeLoader([[np.zeros((2, 2))]], mx.Mixup(), {0: mx.Field("b d")}, 7)
    assert repr(loader) == "ExchangeLoader(<list of 1>, Mixup(), {0: Field(layout='b d')}, seed=7)"
