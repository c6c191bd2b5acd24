"""HiddenCut: where its spans begin and end, and what they do inside a model."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines import mix_hidden
from tiny_bert import LENGTH, bert, hooks, sentences
from token_batches import SEEDS, batches, cut_of, rng, whole
from torch.nn import functional as F

import mixops as mx

LAYER = "bert.encoder.layer.1.output.dense"


@given(batches(), st.sampled_from([0.1, 0.3, 1.0]), st.sampled_from([0.1, 0.4, 1.0]), SEEDS)
def test_a_span_begins_at_a_salient_token_and_stays_among_ordinary_ones(
    batch: Any, share: float, top: float, seed: int
) -> None:
    spec, special, ordinary = batch
    scores = np.where(ordinary, rng(seed).integers(0, 4, ordinary.shape) * 1.0, np.nan)  # ties, and no score elsewhere
    plan = mx.HiddenCut("a", share, top).draw(rng(seed), spec, saliency=scores, special=special)
    plan.validate(spec.n)
    assert (plan.k, plan.layer) == (1, "a")
    assert (plan.lam == 1).all()
    for cut, own, score in zip(cut_of(plan), ordinary, scores, strict=True):
        places, count = np.flatnonzero(own), int(own.sum())
        if not count:
            assert not cut.any()
            continue
        best = sorted(places, key=lambda t: (-score[t], t))[: max(whole(top, count), 1)]
        start = int(np.flatnonzero(cut)[0])
        assert start in best
        end = start
        while end < len(own) and own[end] and end - start < max(whole(share, count), 1):
            end += 1
        assert np.flatnonzero(cut).tolist() == list(range(start, end))


def test_each_of_the_top_tokens_is_as_likely() -> None:
    scores = np.broadcast_to([0.0, 5, 1, 4, 3], (6000, 5))
    plan = mx.HiddenCut("a", 0.2, 0.6).draw(rng(), mx.Spec(6000, (5,)), saliency=scores)
    starts = np.bincount(plan.box[:, 0, 0], minlength=5) / 6000
    np.testing.assert_allclose(starts, [0, 1 / 3, 0, 1 / 3, 1 / 3], atol=0.03)
    anywhere = mx.HiddenCut("a", 0.2, start="random").draw(rng(), mx.Spec(6000, (5,)))
    np.testing.assert_allclose(np.bincount(anywhere.box[:, 0, 0]) / 6000, 0.2, atol=0.03)


def test_layers_are_drawn_and_can_be_given() -> None:
    op, spec = mx.HiddenCut([f"block.{i}" for i in range(3)], start="random"), mx.Spec(2, (5,))
    assert {op.draw(rng(seed), spec).layer for seed in range(30)} == set(op.layers)
    assert op.draw(rng(), spec, layer=4, at=[1, 2]).layer == "hidden:4"


def test_scores_may_be_tensors_with_gradients() -> None:
    scores = torch.tensor([[0.0, 2, 1]], dtype=torch.bfloat16, requires_grad=True)
    plan = mx.HiddenCut("a", top=0.1).draw(rng(), mx.Spec(1, (3,)), saliency=scores)
    assert plan.box.tolist() == [[[1, 2]]]


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = sentences()[:5]
    ids, mask, labels = (torch.stack([torch.as_tensor(r[k]) for r in rows]) for k in rows[0])
    return ids, mask, labels


@pytest.mark.parametrize("layer", [LAYER, "bert.encoder.layer.1.intermediate", "bert.encoder.layer.0"])
def test_inside_a_bert_the_span_is_zero_and_the_rest_as_it_was(layer: str) -> None:
    model, (ids, mask, labels) = bert().eval(), batch()
    seen: list[torch.Tensor] = []
    module = model.get_submodule(layer)
    first = module.register_forward_hook(lambda _m, _a, out: seen.append(out.detach().clone()))
    attentions = torch.rand(5, LENGTH)  # stands for what each token receives
    plan = mx.HiddenCut(layer, share=0.4).draw(
        rng(), mx.Spec(5, (LENGTH,)), lengths=mask.sum(1).numpy(), saliency=attentions
    )
    before = hooks(model)
    with mix_hidden(model, plan.layer, plan, "b t d"):
        last = module.register_forward_hook(lambda _m, _a, out: seen.append(out.detach().clone()))
        logits = model(input_ids=ids, attention_mask=mask).logits
        last.remove()
    assert hooks(model) == before
    first.remove()
    cut = torch.from_numpy(cut_of(plan))
    assert cut.any(1).all()
    clean, mixed = seen
    torch.testing.assert_close(mixed, torch.where(cut[..., None], 0, clean), rtol=0, atol=0)

    plain = model(input_ids=ids, attention_mask=mask).logits
    assert not torch.allclose(logits, plain)
    loss = F.cross_entropy(logits, labels) + mx.consistency_loss(plain, logits)
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_two_layers_can_be_cut_in_one_call() -> None:
    model, (ids, mask, _) = bert().eval(), batch()
    spec = mx.Spec(5, (LENGTH,), mask.sum(1).numpy())
    paths = ["bert.encoder.layer.0.output.dense", LAYER]
    plans = [mx.HiddenCut(path, start="random").draw(rng(i), spec) for i, path in enumerate(paths)]
    outputs = {}
    for name, chosen in (("none", []), ("first", plans[:1]), ("both", plans)):
        with ExitStack() as stack:
            for plan in chosen:
                stack.enter_context(mix_hidden(model, plan.layer, plan, "b t d"))
            outputs[name] = model(input_ids=ids, attention_mask=mask).logits
    assert not torch.allclose(outputs["none"], outputs["first"])
    assert not torch.allclose(outputs["both"], outputs["first"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mx.HiddenCut([]), "one or more layers"),
        (lambda: mx.HiddenCut("a", share=0), "share above 0"),
        (lambda: mx.HiddenCut("a", top=0), "above 0"),
        (lambda: mx.HiddenCut("a", top=2), "from 0 to 1"),
        (lambda: mx.HiddenCut("a", start="first"), "'salient', 'random'"),
        (lambda: mx.HiddenCut("a").draw(rng(), mx.Spec(1, (3,))), "needs saliency"),
        (lambda: mx.HiddenCut("a").draw(rng(), mx.Spec(1, (3,)), saliency=np.ones((1, 4))), "saliency has shape"),
        (lambda: mx.HiddenCut("a").draw(rng(), mx.Spec(1, (3,)), saliency=[["x"] * 3]), "saliency: got"),
        (
            lambda: mx.HiddenCut("a").draw(rng(), mx.Spec(1, (3,), [2]), saliency=[[1, np.nan, 1]]),
            "row 0 is nan at token 1",
        ),
        (lambda: mx.HiddenCut("a").draw(rng(), mx.Spec(1, (3, 3)), saliency=np.ones((1, 3))), "spec shape"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        make()
