"""TokenSwap and TokenDelete: which tokens move, where to, and how masks, tags and lengths follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import ENGINES
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines import KeyedBatchSampler, PlanCollator, keyed
from token_batches import SEEDS, batches, rng, whole

import mixops as mx

EDITS = st.sampled_from([{"share": 0.1}, {"share": 0.29}, {"share": 1.0}, {"count": 1}, {"count": 3}])


def places_of(spec: mx.Spec) -> np.ndarray:
    """Ids that say where a token stood: row · 100 + place."""
    return np.arange(spec.n)[:, None] * 100 + np.arange(spec.shape[0])


def wanted(edits: dict[str, Any], tokens: int) -> int:
    return edits["count"] if "count" in edits else max(whole(edits["share"], tokens), 1)


@given(batches(), EDITS, SEEDS)
def test_swapped_tokens_change_places_two_by_two_and_the_others_stay(batch: Any, edits: Any, seed: int) -> None:
    spec, special, ordinary = batch
    plan = mx.TokenSwap(**edits).draw(rng(seed), spec, special=special)
    plan.validate(spec.n)
    ids = places_of(spec)
    mixed = mx.mix(ids, plan, "b t", "discrete")
    assert plan.k == 2 * min(wanted(edits, spec.shape[0]), spec.shape[0] // 2)
    assert (plan.lam == 1).all()
    for row, (old, new, own) in enumerate(zip(ids, mixed, ordinary, strict=True)):
        moved = np.flatnonzero(old != new)
        assert own[moved].all()
        assert len(moved) == 2 * min(wanted(edits, int(own.sum())), int(own.sum()) // 2)
        come = new - row * 100  # where each token has come from
        np.testing.assert_array_equal(come[come], np.arange(len(new)))


@given(batches(), EDITS, SEEDS)
def test_deletion_closes_the_gaps_and_keeps_the_order(batch: Any, edits: Any, seed: int) -> None:
    spec, special, ordinary = batch
    plan = mx.TokenDelete(**edits).draw(rng(seed), spec, special=special)
    plan.validate(spec.n)
    lengths = np.full(spec.n, spec.shape[0]) if spec.lengths is None else spec.lengths
    ids, mask = places_of(spec), (np.arange(spec.shape[0]) < lengths[:, None]).astype(np.int64)
    mixed = mx.mix(ids, plan, "b t", "discrete", fill=-1)
    left = mx.mix(mask, plan, "b t", "discrete", fill=0)
    assert plan.k == 1 + min(wanted(edits, spec.shape[0]), spec.shape[0] - 1)
    for old, new, own, length, seen in zip(ids, mixed, ordinary, lengths, left, strict=True):
        count = int(own.sum())
        gone = min(wanted(edits, count), max(count - 1, 0))
        kept = new[: length - gone]
        assert (np.diff(kept) > 0).all()
        lost = set(old[:length].tolist()) - set(kept.tolist())
        assert len(lost) == gone
        assert lost <= set(old[own].tolist())
        assert (new[length - gone : length] == -1).all()
        np.testing.assert_array_equal(new[length:], old[length:])
        assert seen.tolist() == [1] * (length - gone) + [0] * (len(old) - length + gone)


@pytest.mark.parametrize("op", [mx.TokenSwap(0.3), mx.TokenDelete(0.3)])
def test_moving_within_rows_in_place_gives_the_same(op: mx.Operator) -> None:
    made = rng(3)
    for _ in range(30):
        spec = mx.Spec(6, (30,), made.integers(0, 31, 6))
        plan, ids = op.draw(made, spec), made.integers(0, 99, (6, 30))
        fresh = mx.mix(ids, plan, "b t", "discrete", fill=0, backend="reference")
        for engine in ENGINES[1:]:
            work = ids.copy()
            array = engine.array(work)
            if engine.exchanges and plan.facts.shifted is not None:
                with pytest.raises(mx.MixError, match="give out= an array of its own"):
                    engine.mix(array, plan, "b t", "discrete", fill=0, out=array)
                np.testing.assert_array_equal(work, ids)
                continue
            engine.mix(array, plan, "b t", "discrete", fill=0, out=array)
            np.testing.assert_array_equal(work, fresh)


def test_every_token_is_as_likely_to_go_and_every_pair_to_swap() -> None:
    ids = places_of(mx.Spec(1, (5,))).repeat(6000, 0)
    spec = mx.Spec(6000, (5,))
    deleted = mx.mix(ids, mx.TokenDelete(count=2).draw(rng(), spec), "b t", "discrete", fill=9)
    gone = [(deleted != place).all(1).mean() for place in range(5)]
    np.testing.assert_allclose(gone, 0.4, atol=0.03)
    swapped = mx.mix(ids, mx.TokenSwap(count=1).draw(rng(), spec), "b t", "discrete")
    pairs = np.unique([np.flatnonzero(row != ids[0]) for row in swapped], axis=0, return_counts=True)
    assert len(pairs[0]) == 10
    np.testing.assert_allclose(pairs[1] / 6000, 0.1, atol=0.02)


def test_p_leaves_rows_as_they_are() -> None:
    for op in (mx.TokenSwap(p=0.3), mx.TokenDelete(p=0.3)):
        assert abs(op.draw(rng(), mx.Spec(4000, (6,))).opacity.any(1).mean() - 0.3) < 0.03


def test_ids_masks_segments_tags_and_embeddings_follow_one_plan() -> None:
    plan = mx.TokenDelete(count=2).draw(rng(), mx.Spec(1, (8,), [6]), at=[[1, 4]])
    batch = {
        "ids": np.array([[101, 5, 6, 102, 7, 102, 0, 0]]),
        "mask": np.array([[1, 1, 1, 1, 1, 1, 0, 0]]),
        "segments": np.array([[0, 0, 0, 0, 1, 1, 0, 0]]),
        "tags": np.array([[-100, 1, 2, -100, 3, -100, -100, -100]]),
        "vectors": np.arange(16.0).reshape(1, 8, 2),
        "label": np.array([1]),
    }
    fields: dict[str, Any] = {
        "ids": mx.Field("b t", "discrete", fill=0),
        "mask": mx.Field("b t", "discrete", fill=0),
        "segments": mx.Field("b t", "discrete", fill=0),
        "tags": mx.Field("b t", "discrete", fill=-100),
        "vectors": mx.Field("b t d"),
        "label": mx.Labels(2),
    }
    mixed = mx.mix_batch(batch, plan, fields)
    assert mixed["ids"].tolist() == [[101, 6, 102, 102, 0, 0, 0, 0]]
    assert mixed["mask"].sum(1).tolist() == [4]
    assert mixed["segments"].tolist() == [[0, 0, 0, 1, 0, 0, 0, 0]]
    assert mixed["tags"].tolist() == [[-100, 2, -100, -100, -100, -100, -100, -100]]
    assert mixed["vectors"][0, :, 0].tolist() == [0, 4, 6, 10, 0, 0, 12, 14]
    assert mixed["label"].tolist() == [[0, 1]]


def test_given_pairs_change_places() -> None:
    plan = mx.TokenSwap(count=2).draw(rng(), mx.Spec(2, (6,), [6, 4]), at=[[0, 5, 2, 1], [3, 0, -1, -1]])
    mixed = mx.mix(places_of(mx.Spec(2, (6,))), plan, "b t", "discrete")
    assert mixed.tolist() == [[5, 2, 1, 3, 4, 0], [103, 101, 102, 100, 104, 105]]


def test_a_loader_hands_on_lengths_and_special_tokens() -> None:
    rows = [
        {
            "input_ids": torch.arange(8) + 1,
            "attention_mask": (torch.arange(8) < n).long(),
            "special_tokens_mask": torch.tensor([1, 0, 0, 1, 0, 0, 0, 1]),
        }
        for n in (8, 6, 4, 2)
    ]
    collate = PlanCollator(mx.TokenDelete(1.0), seed=7)
    data = keyed(rows)
    batch = collate(data.__getitems__(next(iter(KeyedBatchSampler(data, 4)))))
    left = mx.mix(batch["attention_mask"], batch["plan"], "b t", "discrete", fill=0).sum(1)
    # One ordinary token stays, and the special ones that are real.
    assert left.tolist() == [4, 3, 3, 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mx.TokenSwap(0), "share above 0"),
        (lambda: mx.TokenDelete(1.5), "from 0 to 1"),
        (lambda: mx.TokenSwap(count=0), "1 or more"),
        (lambda: mx.TokenDelete(count=2.5), "whole number"),
        (lambda: mx.TokenDelete(fill=(1, 2)), "one number"),
        (lambda: mx.TokenSwap().draw(rng(), mx.Spec(2)), r"spec shape \(\)"),
        (lambda: mx.TokenDelete().draw(rng(), mx.Spec(2, (4, 4))), r"expected \(T,\)"),
        (lambda: mx.TokenSwap().draw(rng(), mx.Spec(1, (4,)), at=[[1, -1]]), "one token only"),
        (lambda: mx.TokenSwap().draw(rng(), mx.Spec(1, (4,)), at=[[1, 1]]), "twice"),
        (lambda: mx.TokenDelete().draw(rng(), mx.Spec(1, (4,), [2]), at=[[2]]), "names place 2: expected 0 to 1"),
        (lambda: mx.TokenDelete().draw(rng(), mx.Spec(1, (4,)), special=[[1, 0]]), "special has shape"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        make()
