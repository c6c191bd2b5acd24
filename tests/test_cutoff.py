"""Cutoff: what is cut, how much of it, what the plan paints; and the loss that asks views to agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from token_batches import SEEDS, batches, cut_of, rng, whole
from torch.nn import functional as F

import mixops as mx


@given(batches(), st.sampled_from([0.05, 0.15, 0.29, 0.5, 1.0]), SEEDS)
def test_token_cutoff_cuts_its_share_of_the_ordinary_tokens_and_nothing_else(
    batch: Any, share: float, seed: int
) -> None:
    spec, special, ordinary = batch
    plan = mx.Cutoff(share).draw(rng(seed), spec, special=special)
    plan.validate(spec.n)
    cut = cut_of(plan)
    assert not (cut & ~ordinary).any()
    assert cut.sum(1).tolist() == [whole(share, int(count)) for count in ordinary.sum(1)]
    assert plan.k == max(whole(share, spec.shape[0]), 1)
    assert (plan.lam == 1).all()


@given(batches(), st.sampled_from([0.05, 0.15, 0.29, 0.5, 1.0]), SEEDS)
def test_span_cutoff_cuts_one_run_where_a_run_is_long_enough(batch: Any, share: float, seed: int) -> None:
    spec, special, ordinary = batch
    plan = mx.Cutoff(share, "span").draw(rng(seed), spec, special=special)
    plan.validate(spec.n)
    assert plan.k == 1
    for cut, own in zip(cut_of(plan), ordinary, strict=True):
        size = whole(share, int(own.sum()))
        room = [a for a in range(len(own)) if size and a + size <= len(own) and own[a : a + size].all()]
        places = np.flatnonzero(cut)
        if room:
            assert places[0] in room
            assert places.tolist() == list(range(places[0], places[0] + size))
        else:
            assert not len(places)


def test_every_token_and_every_window_is_as_likely() -> None:
    spec = mx.Spec(6000, (6,), np.full(6000, 5))
    special = np.zeros((6000, 6), bool)
    special[:, 2] = True
    tokens = cut_of(mx.Cutoff(0.5).draw(rng(), spec, special=special)).mean(0)
    np.testing.assert_allclose(tokens, [0.5, 0.5, 0, 0.5, 0.5, 0], atol=0.03)
    spans = mx.Cutoff(0.4, "span").draw(rng(), mx.Spec(6000, (6,), np.full(6000, 5)))
    starts = np.bincount(spans.box[:, 0, 0], minlength=6) / 6000
    np.testing.assert_allclose(starts, [0.25, 0.25, 0.25, 0.25, 0, 0], atol=0.03)


def test_p_leaves_rows_whole() -> None:
    cut = cut_of(mx.Cutoff(0.5, p=0.3).draw(rng(), mx.Spec(4000, (4,)))).any(1)
    assert abs(cut.mean() - 0.3) < 0.03


@pytest.mark.parametrize("share", [0.1, 0.29, 1.0])
def test_feature_cutoff_zeroes_whole_columns_of_each_row(share: float) -> None:
    x = rng().normal(size=(4, 5, 100)).astype(np.float32)
    plan = mx.Cutoff(share, "feature").draw(rng(1), mx.Spec.like(x, "b h w"))
    mixed = mx.mix(x, plan, "b h w")
    gone = (mixed == 0).all(1)
    assert gone.sum(1).tolist() == [round(share * 100)] * 4
    np.testing.assert_array_equal(mixed, np.where(gone[:, None], 0, x))
    assert share == 1 or len({row.tobytes() for row in gone}) == 4


def test_one_plan_cuts_embeddings_ids_masks_and_leaves_targets() -> None:
    op, spec = mx.Cutoff(0.25, "span"), mx.Spec(2, (8,), [8, 5])
    plan = op.draw(rng(), spec, at=[3, 1])
    ids = np.arange(16).reshape(2, 8) + 100
    mask = (np.arange(8) < [[8], [5]]).astype(np.int64)
    batch = {"x": rng().normal(size=(2, 8, 3)), "ids": ids, "mask": mask, "y": np.array([0, 1])}
    fields = {
        "x": mx.Field("b t d"),
        "ids": mx.Field("b t", "discrete", fill=7),
        "mask": mx.Field("b t", "discrete", fill=0),
        "y": mx.Labels(2),
    }
    mixed = mx.mix_batch(batch, plan, fields)
    cut = np.zeros((2, 8), bool)
    cut[0, 3:5] = cut[1, 1:2] = True
    np.testing.assert_array_equal(mixed["ids"], np.where(cut, 7, ids))
    np.testing.assert_array_equal(mixed["mask"], np.where(cut, 0, mask))
    np.testing.assert_array_equal(mixed["x"], np.where(cut[..., None], 0, batch["x"]))
    np.testing.assert_array_equal(mixed["y"], np.eye(2))
    np.testing.assert_array_equal(mx.mix(ids, plan, "b t", "discrete"), ids)  # no id is made up


def test_given_places_replace_the_draw() -> None:
    tokens = mx.Cutoff(0.5).draw(rng(), mx.Spec(2, (6,), [6, 3]), at=[[5, 0, 2], [-1, 1, -1]])
    assert cut_of(tokens).astype(int).tolist() == [[1, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 0]]
    late = mx.Cutoff(0.5, "span").draw(rng(), mx.Spec(1, (6,), [4]), at=[3])
    assert late.box.tolist() == [[[3, 4]]]
    columns = mx.Cutoff(0.5, "feature").draw(rng(), mx.Spec(1, (2, 4)), at=[[3, 1]])
    assert columns.box.tolist() == [[[0, 2, 3, 4], [0, 2, 1, 2]]]


def test_tensors_are_evidence_too() -> None:
    special = torch.tensor([[1, 0, 0, 1]])
    plan = mx.Cutoff(1.0).draw(rng(), mx.Spec(1, (4,)), special=special)
    assert cut_of(plan).tolist() == [[False, True, True, False]]


def test_fills_join_a_chain_as_one_plan() -> None:
    plan = (mx.Mixup(0.4) | mx.Cutoff(0.5)).draw(rng(), mx.Spec(4, (6,)))
    assert isinstance(plan, mx.Plan)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mx.Cutoff(0), "share above 0"),
        (lambda: mx.Cutoff(1.1), "from 0 to 1"),
        (lambda: mx.Cutoff("much"), "from 0 to 1"),
        (lambda: mx.Cutoff(kind="word"), "'token', 'span', 'feature'"),
        (lambda: mx.Cutoff(fill=(1, 2)), "one number"),
        (lambda: mx.Cutoff().draw(rng(), mx.Spec(2, (4, 4))), r"spec shape \(4, 4\)"),
        (lambda: mx.Cutoff(kind="feature").draw(rng(), mx.Spec(2, (4,))), r"expected \(T, D\)"),
        (lambda: mx.Cutoff().draw(rng(), mx.Spec(2, (4,)), special=np.zeros((2, 3), bool)), r"special has shape"),
        (lambda: mx.Cutoff().draw(rng(), mx.Spec(2, (4,)), special=np.zeros((2, 4))), "special: got float64"),
        (lambda: mx.Cutoff().draw(rng(), mx.Spec(2, (4,)), lengths=[5, 1]), "from 1 to 5"),
        (lambda: mx.Cutoff(0.5).draw(rng(), mx.Spec(1, (4,), [3]), at=[[3]]), "names place 3: expected 0 to 2"),
        (lambda: mx.Cutoff(0.5).draw(rng(), mx.Spec(1, (4,)), at=[[1, 1]]), "twice"),
        (lambda: mx.Cutoff(0.5).draw(rng(), mx.Spec(1, (4,)), at=[[1, 2, 3]]), "at most the 2"),
        (lambda: mx.Cutoff(0.5).draw(rng(), mx.Spec(1, (4,)), at=[1]), r"shape \(1, m\)"),
        (lambda: mx.Cutoff(0.5, "span").draw(rng(), mx.Spec(1, (4,)), at=[4]), "expected 0 to 3"),
        (lambda: mx.Cutoff(0.5, "span").draw(rng(), mx.Spec(1, (4,)), at=[0.5]), "whole numbers"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        make()


# -- consistency_loss --------------------------------------------------------------------------------------------------


def divergence(*logits: np.ndarray) -> np.ndarray:
    """The formula in float64, class axis 1."""
    shares = [np.exp(z - z.max(1, keepdims=True)) for z in logits]
    shares = [p / p.sum(1, keepdims=True) for p in shares]
    middle = np.mean(shares, 0)
    # Where a share underflows to 0 its mean may, too: 0·log(0 / 0) is 0.
    there = [(p > 0) & (middle > 0) for p in shares]
    terms = [
        (p * np.log(np.where(on, p, 1) / np.where(on, middle, 1))).sum(1) for p, on in zip(shares, there, strict=True)
    ]
    return np.mean(terms, 0)


@given(st.integers(2, 4), st.integers(1, 5), st.integers(2, 6), st.sampled_from([0.1, 3.0, 200.0]), SEEDS)
def test_consistency_is_the_jensen_shannon_divergence(k: int, n: int, c: int, scale: float, seed: int) -> None:
    # Numbers that float32 holds: rounding those of 200 there moves a share by more than the arithmetic does.
    logits = (rng(seed).normal(size=(k, n, c)) * scale).astype(np.float32).astype(np.float64)
    tensors = [torch.from_numpy(z) for z in logits]
    each = mx.consistency_loss(*tensors, reduction="none")
    np.testing.assert_allclose(each, divergence(*logits), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(mx.consistency_loss(*tensors), each.mean())
    np.testing.assert_allclose(mx.consistency_loss(*tensors, reduction="sum"), each.sum())
    assert float(each.max()) <= math.log(k) + 1e-9
    single = mx.consistency_loss(*(t.float() for t in tensors), reduction="none")
    np.testing.assert_allclose(single, each, atol=2e-6)


def test_positions_have_a_divergence_each() -> None:
    logits = rng().normal(size=(2, 3, 4, 5))
    each = mx.consistency_loss(*map(torch.from_numpy, logits), reduction="none")
    np.testing.assert_allclose(each, divergence(*logits))
    assert each.shape == (3, 5)


def test_its_gradient_is_that_of_the_formula_and_flows_to_every_view() -> None:
    views = [torch.from_numpy(z).requires_grad_() for z in rng().normal(size=(3, 4, 5))]
    assert torch.autograd.gradcheck(lambda *z: mx.consistency_loss(*z), views)


@pytest.mark.parametrize("far", [1e4, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_one_hot_predictions_give_no_nan(far: float, dtype: torch.dtype) -> None:
    one = torch.tensor([[0.0, -far, -far], [0.0, -far, -far]], dtype=dtype, requires_grad=True)
    other = torch.tensor([[0.0, -far, -far], [-far, 0.0, -far]], dtype=dtype, requires_grad=True)
    loss = mx.consistency_loss(one, other, reduction="none")
    np.testing.assert_allclose(loss.detach(), [0, math.log(2)], atol=1e-6)
    loss.sum().backward()
    for view in (one, other):
        assert view.grad is not None
        assert torch.isfinite(view.grad).all()


def test_it_is_not_the_divergence_the_other_way_round() -> None:
    p, q = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    middle = (p.softmax(1) + q.softmax(1)) / 2
    wrong = sum(F.kl_div(z.log_softmax(1), middle, reduction="batchmean") for z in (p, q)) / 2
    right = sum(F.kl_div(middle.log(), z.softmax(1), reduction="batchmean") for z in (p, q)) / 2
    np.testing.assert_allclose(mx.consistency_loss(p, q), right, rtol=1e-5)
    assert abs(float(wrong) - float(right)) > 0.01


def test_no_rows_agree() -> None:
    assert mx.consistency_loss(torch.zeros(0, 3), torch.zeros(0, 3)).item() == 0


@pytest.mark.parametrize(
    "logits",
    [
        [],
        [torch.zeros(2, 3)],
        [torch.zeros(2, 3), torch.zeros(2, 4)],
        [torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64)],
        [torch.zeros(3), torch.zeros(3)],
        [torch.zeros(2, 3), np.zeros((2, 3))],
    ],
)
def test_views_that_cannot_be_compared_are_refused(logits: list[Any]) -> None:
    with pytest.raises(mx.MixError, match="expected two or more"):
        mx.consistency_loss(*logits)
    with pytest.raises(mx.MixError, match="reduction='batch'"):
        mx.consistency_loss(*logits, reduction="batch")
