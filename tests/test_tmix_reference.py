"""mix_hidden against the encoder of TMix's authors: equal outputs and gradients, from fewer calls of a layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from mixops.pipelines.hidden import mix_hidden
from real_peers import torchvision_schemas
from tmix_reference import bert_embeddings, bert_layers, cross_entropy, two_streams
from torch import Tensor, nn
from torch.nn import functional as F

import mixops as mx

ROWS, LENGTH, LAYERS, HEADS, WIDTH, CLASSES = 5, 9, 6, 3, 24, 4
EPS = 1e-12
PARTNER = torch.tensor([3, 2, 4, 1, 0])
#: Shares that float32 holds exactly, as plans do: values and targets then have the very same share.
LAM = {"batch": torch.full((ROWS,), 0.6875), "sample": torch.tensor([0.25, 1.0, 0.5, 0.90625, 0.0])}
MIX_LAYERS = (-1, 0, 2, 5)


class TMixClassifier(nn.Module):
    """The authors' classifier: the mean over all positions, padding too, and two linear layers with tanh between."""

    def __init__(self, attention: str) -> None:
        torchvision_schemas()
        from transformers import BertConfig, BertModel

        super().__init__()
        config = BertConfig(
            vocab_size=50, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=40,
            max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=EPS,
            attn_implementation=attention,
        )  # fmt: skip
        self.bert = BertModel(config, add_pooling_layer=False)
        self.head = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, CLASSES))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states, self.head(states.mean(1))


def classifier(attention: str) -> TMixClassifier:
    """One with large random weights: with those of a fresh BERT all rows would look alike."""
    model = TMixClassifier(attention).double()
    made = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if name.endswith("LayerNorm.weight") else 0.0, 0.3, generator=made)
    return model


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def model(request: pytest.FixtureRequest) -> TMixClassifier:
    return classifier(request.param)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Ids, what of them is real, and labels. Rows 1 and 2, a pair, are of different lengths."""
    made = torch.Generator().manual_seed(2)
    ids = torch.randint(1, 50, (ROWS, LENGTH), generator=made)
    real = torch.arange(LENGTH) < torch.tensor([9, 4, 7, 2, 5])[:, None]
    return ids * real, real, torch.tensor([0, 1, 2, 3, 1])


def plan_of(lam: Tensor, mix_layer: int) -> mx.Plan:
    op = mx.TMix([mix_layer + 1], per="sample")
    return op.draw(np.random.default_rng(0), mx.Spec(ROWS), partner=PARTNER.numpy(), lam=lam.numpy())


def reference(
    model: TMixClassifier, lam: Tensor, mix_layer: int, real: Tensor, mixed_real: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """States, logits and loss by formulas alone, from the weights of the model."""
    ids, _, labels = batch()
    weights = dict(model.bert.named_parameters())
    embedded = bert_embeddings(weights, ids, EPS)
    lam = lam.double()
    states = two_streams(
        bert_layers(weights, LAYERS, HEADS, EPS), embedded, embedded[PARTNER], lam[:, None, None], mix_layer,
        real, real[PARTNER], mixed_real,
    )  # fmt: skip
    first, _, last = model.head
    hidden = torch.tanh(states.mean(1) @ first.weight.T + first.bias)
    logits = hidden @ last.weight.T + last.bias
    own, other = (
        torch.eye(CLASSES, dtype=torch.float64)[labels],
        torch.eye(CLASSES, dtype=torch.float64)[labels[PARTNER]],
    )
    return states, logits, cross_entropy(logits, lam[:, None] * own + (1 - lam[:, None]) * other)


def ours(
    model: TMixClassifier, lam: Tensor, mix_layer: int, attention_mask: Tensor | None, mask: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by mix_hidden, as a training step has it."""
    ids, _, labels = batch()
    plan = plan_of(lam, mix_layer)
    with mix_hidden(model, plan.layer, plan, mask=mask):
        states, logits = model(ids, attention_mask=attention_mask)
    return states, logits, mx.mixed_loss(F.cross_entropy, logits, *mx.pair_targets(labels, plan))


def assert_equal(model: TMixClassifier, got: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Outputs to 1e-10, and the gradients of every weight to 1e-9."""
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    weights = dict(model.named_parameters())
    grads = [torch.autograd.grad(loss, list(weights.values())) for *_, loss in (got, wanted)]
    for name, one, other in zip(weights, *grads, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


def union(lam: Tensor, real: Tensor) -> Tensor:
    """What is real in the row, or in its partner where that takes part."""
    return real | (real[PARTNER] & (lam < 1)[:, None])


@pytest.mark.parametrize("per", LAM)
@pytest.mark.parametrize("given", ["all ones", "none"])
@pytest.mark.parametrize("mix_layer", MIX_LAYERS)
def test_with_all_masks_open_it_is_the_authors_encoder(
    model: TMixClassifier, mix_layer: int, given: str, per: str
) -> None:
    lam, everything = LAM[per], torch.ones(ROWS, LENGTH, dtype=torch.bool)
    ones = everything.long() if given == "all ones" else None
    wanted = reference(model, lam, mix_layer, everything, everything)
    assert_equal(model, ours(model, lam, mix_layer, ones, "ones"), wanted)


@pytest.mark.parametrize("per", LAM)
@pytest.mark.parametrize("mask", ["union", "own", "ones"])
@pytest.mark.parametrize("mix_layer", MIX_LAYERS)
def test_with_padding_the_later_layers_see_the_mask_that_was_asked_for(
    model: TMixClassifier, mix_layer: int, mask: str, per: str
) -> None:
    lam, (_, real, _) = LAM[per], batch()
    later = {"union": union(lam, real), "own": real, "ones": torch.ones_like(real)}[mask]
    wanted = reference(model, lam, mix_layer, real, later)
    assert_equal(model, ours(model, lam, mix_layer, real.long(), mask), wanted)


def test_the_masks_tell_the_results_apart(model: TMixClassifier) -> None:
    lam, (_, real, _) = LAM["batch"], batch()
    states = [ours(model, lam, 2, real.long(), mask)[0] for mask in ("union", "own", "ones")]
    assert min((states[i] - states[j]).abs().max() for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-2


@contextmanager
def counted(layers: nn.ModuleList) -> Iterator[list[int]]:
    """The number of each layer that is called, in order."""
    calls: list[int] = []
    hooks = [one.register_forward_hook(lambda *_, k=k: calls.append(k)) for k, one in enumerate(layers)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(("mix_layer", "official"), [(-1, 6), (0, 7), (2, 9), (5, 12)])
def test_it_calls_each_layer_once_where_two_streams_call_the_lower_ones_twice(
    model: TMixClassifier, mix_layer: int, official: int
) -> None:
    lam, layers = LAM["batch"], model.bert.encoder.layer
    with counted(layers) as calls:
        states, *_ = ours(model, lam, mix_layer, None, "union")
    assert calls == list(range(LAYERS))
    embedded = model.bert.embeddings(input_ids=batch()[0])
    real_layers: list[Any] = list(layers)
    with counted(layers) as calls:
        twice = two_streams(real_layers, embedded, embedded[PARTNER], lam[0].double(), mix_layer, None, None, None)
    assert len(calls) == official
    torch.testing.assert_close(states, twice, rtol=0, atol=1e-10)


def test_the_reference_without_a_partner_is_the_bert_of_transformers(model: TMixClassifier) -> None:
    ids, real, _ = batch()
    states, logits, _ = reference(model, torch.ones(ROWS), 2, real, real)
    plain_states, plain_logits = model(ids, attention_mask=real.long())
    torch.testing.assert_close(states, plain_states, rtol=0, atol=1e-10)
    torch.testing.assert_close(logits, plain_logits, rtol=0, atol=1e-10)
