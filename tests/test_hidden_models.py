"""mix_hidden in models of Transformers: the same numbers and gradients as two streams that are mixed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hidden_models import (
    BLOCKS,
    MODELS,
    SIZES,
    assert_alike,
    blocks_of,
    by_hand,
    gradients,
    hf,
    hf_model,
    hooks_left,
    one_thread,
    plan_of,
    sentences,
    spot_of,
    union,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from mixops.pipelines.hidden import mix_hidden
from mixops.pipelines.layers import find_place

import mixops as mx

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
LAYERS: list[str | int] = ["words", *range(BLOCKS + 1), "sentence"]
LAM, PARTNER = [0.3, 0.75, 0.5, 1.0, 0.9], [1, 2, 4, 0, 0]  # row 3 has a partner it takes nothing of


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_are_those_of_two_streams(name: str, layer: str | int) -> None:
    if name.startswith("gpt2") and layer == "sentence":
        with pytest.raises(mx.MixError, match="last Linear on every token"):
            mixed(name, layer)
        return
    model, batch, plan = hf_model(name), sentences([4, 9, 2, 3, 7]), plan_of(LAM, PARTNER)
    spot = spot_of(model, blocks_of(name), layer)
    wanted = by_hand(model, spot, batch, plan, union(batch["attention_mask"], plan))
    logits = mixed(name, layer)
    assert_alike([logits], [wanted])
    assert_alike(gradients(model, logits), gradients(model, wanted))
    assert not hooks_left(model)


def mixed(name: str, layer: str | int) -> torch.Tensor:
    with mix_hidden(hf_model(name), layer, plan_of(LAM, PARTNER)):
        return hf_model(name)(**sentences([4, 9, 2, 3, 7])).logits


@pytest.mark.parametrize("name", MODELS)
def test_hidden_k_is_the_kth_hidden_state(name: str) -> None:
    model, batch = hf_model(name), sentences([9, 9])
    states = model(**batch, output_hidden_states=True).hidden_states
    plan = plan_of([0.0, 0.0], [1, 0])  # takes everything of the partner
    for k in range(BLOCKS):
        with mix_hidden(model, k, plan):
            after = model(**batch, output_hidden_states=True).hidden_states
        torch.testing.assert_close(after[k + 1], states[k + 1].flip(0))
        if k:
            torch.testing.assert_close(after[k - 1], states[k - 1])


@given(
    lam=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
    partner=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    lengths=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    layer=st.sampled_from(LAYERS),
    name=st.sampled_from(["bert-sdpa", "deberta-eager", "gpt2-eager", "modernbert-sdpa"]),
)
@settings(max_examples=25)
def test_any_plan_is_two_streams(
    lam: list[float], partner: list[int], lengths: list[int], layer: str | int, name: str
) -> None:
    layer = 1 if name.startswith("gpt2") and layer == "sentence" else layer
    model, batch, plan = hf_model(name), sentences(lengths, seed=1), plan_of(lam, partner)
    with torch.no_grad():
        spot = spot_of(model, blocks_of(name), layer)
        wanted = by_hand(model, spot, batch, plan, union(batch["attention_mask"], plan))
        with mix_hidden(model, layer, plan):
            logits = model(**batch).logits
    assert_alike([logits], [wanted])


@pytest.mark.parametrize("name", MODELS)
def test_an_identity_plan_is_no_plan(name: str) -> None:
    model, batch = hf_model(name), sentences([4, 9])
    for layer in ("words", 0, 2):
        with mix_hidden(model, layer, mx.Plan.identity(2, k=1)):
            logits = model(**batch).logits
        assert torch.equal(logits, model(**batch).logits)


def test_full_rows_need_no_mask_at_all() -> None:
    model, batch, plan = hf_model("bert-sdpa"), sentences([9, 9, 9]), plan_of([0.5] * 3, [1, 2, 0])
    for layer in ("words", 1):
        with mix_hidden(model, layer, plan):
            with_mask = model(**batch).logits
            without = model(input_ids=batch["input_ids"]).logits
        torch.testing.assert_close(with_mask, without)


def test_the_layer_of_the_plan_is_where_it_mixes() -> None:
    model, batch = hf_model("bert-sdpa"), sentences([4, 9])
    plan = mx.TMix(layers=(2,), alpha=16.0).draw(np.random.default_rng(0), mx.Spec(2), partner=[1, 0])
    with mix_hidden(model, None, plan):
        drawn = model(**batch).logits
    with mix_hidden(model, 2, plan_of(plan.lam.tolist(), [1, 0])):
        named = model(**batch).logits
    torch.testing.assert_close(drawn, named)


def test_models_that_hold_a_pretrained_one_know_its_words_and_blocks() -> None:
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = hf_model("bert-sdpa").bert, torch.nn.Linear(32, 2).double()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            weight = attention_mask[..., None].to(hidden.dtype)
            return self.head((hidden * weight).sum(1) / weight.sum(1))

    model, batch, plan = Own(), sentences([4, 9]), plan_of([0.5, 0.5], [1, 0])
    with mix_hidden(model, "words", plan):
        logits = model(**batch)
    embeddings = model.encoder.get_input_embeddings()(batch["input_ids"])
    hidden = model.encoder(inputs_embeds=embeddings.mean(0).expand(2, -1, -1)).last_hidden_state
    torch.testing.assert_close(logits, model.head(hidden.mean(1)))  # the pooling saw the union, too


@pytest.mark.parametrize("kind", ["T5EncoderModel", "T5ForConditionalGeneration", "BartModel"])
def test_words_are_those_that_the_encoder_runs(kind: str) -> None:
    small = {"d_model": 16, "vocab_size": 30}
    if kind.startswith("T5"):
        config: Any = hf.T5Config(**small, d_kv=8, d_ff=24, num_layers=2, num_heads=2, dropout_rate=0.0)
    else:
        heads = {
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
        }
        config = hf.BartConfig(**small, **heads, encoder_layers=2, decoder_layers=2, dropout=0.0)
    torch.manual_seed(0)
    model = getattr(hf, kind)(config).eval()
    ids = torch.arange(1, 16).reshape(3, 5)
    encoder = model.get_encoder()
    plan = plan_of([0.25, 0.5, 1.0], [1, 2, 0])
    share = torch.tensor(plan.opacity)[..., None]
    with torch.no_grad():
        words = encoder.get_input_embeddings()(ids)
        wanted = encoder(inputs_embeds=(1 - share) * words + share * words[[1, 2, 0]]).last_hidden_state
        with mix_hidden(encoder if kind == "T5EncoderModel" else model, "words", plan):
            if kind == "T5EncoderModel":
                found = encoder(input_ids=ids).last_hidden_state
            else:
                out = model(input_ids=ids, decoder_input_ids=ids[:, :2])
                found = out.encoder_last_hidden_state
    torch.testing.assert_close(found, wanted)


def test_a_head_that_is_registered_before_the_encoder_is_where_sentences_are() -> None:
    config = hf.XLMRobertaConfig(**{**SIZES, "max_position_embeddings": 20})
    place = find_place(hf.XLMRobertaForSequenceClassification(config), "sentence")
    assert place.path == "classifier.out_proj"
