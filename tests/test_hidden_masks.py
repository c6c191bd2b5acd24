"""Attention masks after mixing: own or partner's tokens, in every form that blocks are given them."""

from __future__ import annotations

import warnings
from typing import Any

import hidden_models as models
import numpy as np
import pytest
import torch
from hidden_models import MODELS, assert_alike, blocks_of, by_hand, hf_model, one_thread, plan_of, sentences, spot_of
from hypothesis import given, settings
from hypothesis import strategies as st
from mixops.pipelines.attention import Masks, opened, united
from mixops.pipelines.hidden import mix_hidden
from torch import Tensor, nn

import mixops as mx

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
PLAN = plan_of([0.5, 0.25, 1.0], [1, 2, 0])
SPOTS: list[str | int] = ["words", 0, 1, 2]


def mixed(model: nn.Module, layer: str | int, batch: dict[str, Tensor], plan: Any = PLAN, **options: Any) -> Tensor:
    with torch.no_grad(), mix_hidden(model, layer, plan, **options):
        out = model(**batch)
    return out if isinstance(out, Tensor) else out.logits


# -- in models of Transformers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["own", "ones"])
@pytest.mark.parametrize("name", MODELS)
def test_other_masks_are_what_the_model_makes_of_them(name: str, how: str) -> None:
    model, batch = hf_model(name), sentences([4, 7, 2])
    seen = batch["attention_mask"] if how == "own" else torch.ones_like(batch["attention_mask"])
    for layer in SPOTS:
        with torch.no_grad():
            wanted = by_hand(model, spot_of(model, blocks_of(name), layer), batch, PLAN, seen)
        assert_alike([mixed(model, layer, batch, mask=how)], [wanted])


@pytest.mark.parametrize("name", MODELS)
def test_sentences_that_start_late_or_have_holes_are_united_token_by_token(name: str) -> None:
    model, batch = hf_model(name), sentences([9, 9, 9])
    batch["attention_mask"] = torch.tensor(
        [[0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0]]
    )
    seen = models.union(batch["attention_mask"], PLAN)
    for layer in SPOTS:
        with torch.no_grad():
            wanted = by_hand(model, spot_of(model, blocks_of(name), layer), batch, PLAN, seen)
        assert_alike([mixed(model, layer, batch)], [wanted])


@pytest.mark.parametrize("name", MODELS)
def test_what_is_padding_in_both_rows_changes_nothing_and_a_token_of_the_partner_does(name: str) -> None:
    model, batch = hf_model(name), sentences([4, 6, 3])  # rows 0 and 1 have tokens 0 to 5 between them
    for layer in SPOTS:
        before = mixed(model, layer, batch)
        for column, matters in ((7, False), (5, True)):
            ids = batch["input_ids"].clone()
            ids[:2, column] = torch.where(ids[:2, column] > 0, 59, 0) if matters else 59
            after = mixed(model, layer, {**batch, "input_ids": ids})
            if name.startswith("gpt2"):  # its head reads the last token of the row's own ids
                continue
            assert torch.allclose(before[0], after[0], rtol=0, atol=1e-6) != matters


def test_gpt2_keeps_to_order_and_looks_at_the_tokens_of_both() -> None:
    model, batch = hf_model("gpt2-sdpa").transformer, sentences([4, 6, 3])

    def states(column: int, layer: int) -> Tensor:
        ids = batch["input_ids"].clone()
        ids[1, column] = 59
        with torch.no_grad(), mix_hidden(model, layer, PLAN):
            return model(input_ids=ids, attention_mask=batch["attention_mask"]).last_hidden_state[0]

    for layer in (0, 1, 2):
        plain, late, padding = states(8, layer), states(5, layer), states(7, layer)
        assert torch.equal(plain[:5], late[:5])  # token 5 of the partner is not seen before it
        assert not torch.allclose(plain[5], late[5])
        assert torch.allclose(plain[:6], padding[:6])  # and padding of both by none of their tokens


def test_all_blocks_are_given_one_mask() -> None:
    model, seen = hf_model("bert-sdpa"), []
    handles = [
        block.attention.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
        for block in model.bert.encoder.layer
    ]
    with torch.no_grad(), mix_hidden(model, 1, PLAN):
        model(**sentences([4, 6, 3]))
        model(**sentences([4, 6, 3]))
    for handle in handles:
        handle.remove()
    assert seen[1] is seen[2]
    assert not torch.equal(seen[0], seen[1])
    assert seen[4] is seen[5]
    assert seen[4] is not seen[1]  # another call, other masks


def test_the_other_stack_of_an_encoder_and_decoder_looks_through_the_union() -> None:
    import transformers as hf

    config = hf.T5Config(
        vocab_size=60,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        num_labels=3,
        initializer_factor=3.0,
    )
    model = models.seeded_model(1, lambda: hf.T5Model(config)).eval()
    batch, targets = sentences([4, 7, 2]), sentences([5, 5, 5], seed=3, length=5)["input_ids"]
    path = "encoder.block.0"

    def run(mask: Tensor, partners: Tensor | None = None) -> Any:
        ids = batch["input_ids"] if partners is None else batch["input_ids"][partners]
        return model(input_ids=ids, attention_mask=mask, decoder_input_ids=targets).last_hidden_state

    own, other = [], []
    partner = torch.from_numpy(PLAN.partner[:, 0].astype(np.int64))
    spot = model.get_submodule(path)
    for seen, rows in ((own, None), (other, partner)):
        handle = spot.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output[0]))
        with torch.no_grad():
            run(batch["attention_mask"] if rows is None else batch["attention_mask"][rows], rows)
        handle.remove()
    share = torch.tensor(PLAN.opacity)[..., None]
    with torch.no_grad(), models.put_in(models.Spot(spot), (1 - share) * own[0] + share * other[0]):
        wanted = run(models.union(batch["attention_mask"], PLAN))
    with torch.no_grad(), mix_hidden(model, path, PLAN):
        ours = run(batch["attention_mask"])
    assert_alike([ours], [wanted])
    with pytest.raises(mx.MixError, match=r"several: encoder\.block, decoder\.block"), mix_hidden(model, 1, PLAN):
        pass


# -- in models of one's own --------------------------------------------------------------------------------------------


class Own(nn.Module):
    """torch.nn's blocks, which are given their masks in one of several forms."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.table, self.head, self.form = nn.Embedding(60, 16), nn.Linear(16, 3), form
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True) for _ in "123")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        h, padding = self.table(input_ids), attention_mask == 0
        causal = nn.Transformer.generate_square_subsequent_mask(len(input_ids[0]))
        for layer in self.layers:
            if self.form == "bool":
                h = layer(h, src_key_padding_mask=padding)
            elif self.form == "float":
                h = layer(h, None, torch.zeros(padding.shape).masked_fill(padding, -torch.inf))
            elif self.form == "causal":
                h = layer(h, causal, torch.zeros(padding.shape).masked_fill(padding, -torch.inf))
            else:  # one mask for each head
                pairs = padding[:, None].expand(-1, len(h[0]), -1)
                h = layer(h, pairs.repeat_interleave(2, 0))
        return self.head(h[:, -1])  # the last token, whatever it is


@pytest.mark.parametrize("how", ["union", "ones"])
@pytest.mark.parametrize("form", ["bool", "float", "causal", "heads"])
def test_masks_of_torch_nn_are_true_where_they_hide(form: str, how: str) -> None:
    model, batch = models.seeded_model(2, lambda: Own(form)).eval(), sentences([4, 7, 2])
    union = models.union(batch["attention_mask"], PLAN)
    seen = union if how == "union" else torch.ones_like(union)
    for layer in (0, 1, 2):
        spot = models.Spot(model.get_submodule(f"layers.{max(layer - 1, 0)}"), takes=layer == 0)
        partner = torch.from_numpy(PLAN.partner[:, 0].astype(np.int64))
        with torch.no_grad():
            own = models.state_at(model, spot, batch)
            other = models.state_at(model, spot, {name: value[partner] for name, value in batch.items()})
            share = torch.tensor(PLAN.opacity)[..., None]
            with models.put_in(spot, (1 - share) * own + share * other):
                wanted = model(**{**batch, "attention_mask": seen})
        assert_alike([mixed(model, layer, batch, mask=how)], [wanted])


def test_the_encoder_of_torch_is_a_stack_of_blocks() -> None:
    def make() -> nn.Module:
        block = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True)
        return nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

    encoder, x = models.seeded_model(4, make), torch.from_numpy(np.random.default_rng(0).standard_normal((3, 6, 16)))
    encoder, padding = encoder.double(), sentences([4, 6, 3], length=6)["attention_mask"] == 0
    union = models.union(1 - padding.long(), PLAN) == 0
    with mix_hidden(encoder, "input", PLAN):
        ours = encoder(x, src_key_padding_mask=padding)
    share = torch.tensor(PLAN.opacity).double()[..., None]
    wanted = encoder((1 - share) * x + share * x[[1, 2, 0]], src_key_padding_mask=union)
    assert_alike([ours], [wanted])
    with mix_hidden(encoder, 1, PLAN):
        assert encoder(x, src_key_padding_mask=padding).shape == x.shape


class Pooled(nn.Module):
    """An LSTM whose states are averaged over the tokens, by the model itself or by a module of it."""

    def __init__(self, pool: nn.Module | None = None) -> None:
        super().__init__()
        self.table, self.lstm = nn.Embedding(60, 8), nn.LSTM(8, 8, batch_first=True)
        self.pool, self.head = pool, nn.Linear(8, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        h, _ = self.lstm(self.table(input_ids))
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self.head(mean(h, mask) if self.pool is None else self.pool(h, mask))


class Mean(nn.Module):
    def forward(self, h: Tensor, attention_mask: Tensor) -> Tensor:
        return mean(h, attention_mask)


def mean(h: Tensor, mask: Tensor) -> Tensor:
    return (h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def test_a_mask_that_nothing_takes_is_said() -> None:
    model, batch = models.seeded_model(6, Pooled), sentences([4, 7, 2])
    with pytest.raises(mx.MixError, match=r'attention_mask that hides tokens.*mask="own".*"valid"'):
        mixed(model, "lstm", batch)
    assert mixed(model, "lstm", batch, mask="own").shape == (3, 2)
    assert mixed(model, "lstm", sentences([9, 9, 9])).shape == (3, 2)
    assert mixed(model, "lstm", {"input_ids": batch["input_ids"]}).shape == (3, 2)
    assert mixed(model, "sentence", batch).shape == (3, 2)
    union = mx.mix(batch["attention_mask"], PLAN, "b t", "valid")
    assert_alike([mixed(model, "lstm", {**batch, "attention_mask": union}, mask="own")],
                 [mixed(models.seeded_model(6, lambda: Pooled(Mean())), "lstm", batch)])  # fmt: skip


def test_words_change_the_mask_before_the_model_makes_anything_of_it() -> None:
    model, batch = models.seeded_model(6, Pooled), sentences([4, 7, 2])
    ours = mixed(model, "words", batch)
    share = torch.tensor(PLAN.opacity)[..., None]
    with torch.no_grad():
        words = model.table(batch["input_ids"])
        with models.put_in(models.Spot(model.table), (1 - share) * words + share * words[[1, 2, 0]]):
            wanted = model(batch["input_ids"], models.union(batch["attention_mask"], PLAN))
    assert_alike([ours], [wanted])
    with torch.no_grad(), mix_hidden(model, "words", PLAN):
        assert_alike([model(batch["input_ids"], batch["attention_mask"])], [wanted])  # by position


class Takes(nn.Module):
    def forward(self, x: Tensor, mask: Any) -> Tensor:
        return x


class Odd(nn.Module):
    """Two blocks that take whatever mask the model is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Takes(), Takes()])

    def forward(self, x: Tensor, mask: Any) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask)
        return x


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        ({}, r"layers\.1: mask is dict, expected a tensor.*sdpa"),
        (torch.ones(5, 3), r"mask has shape \(5, 3\), expected the batch axis of 3 first"),
        (torch.ones(4, 1, 5, 5), r"mask has shape \(4, 1, 5, 5\), expected the batch axis of 3 first"),
        (torch.ones(3), r"mask has shape \(3,\), expected the batch axis of 3 first"),
    ],
)
def test_masks_of_other_kinds_are_refused(mask: Any, match: str) -> None:
    model = Odd()
    with pytest.raises(mx.MixError, match=match), mix_hidden(model, 1, PLAN):
        model(torch.zeros(3, 5, 4), mask)
    assert not models.hooks_left(model)
    with mix_hidden(model, 1, PLAN, mask="own"):
        model(torch.zeros(3, 5, 4), mask)


@pytest.mark.parametrize("mask", [torch.ones(5, 5).tril() > 0, torch.ones(1, 1, 5, 5).tril() > 0, None])
def test_masks_that_are_the_same_for_all_rows_stay(mask: Any) -> None:
    model, seen = Odd(), []
    handle = model.layers[1].register_forward_hook(lambda module, args, output: seen.append(args[1]))
    with mix_hidden(model, 1, PLAN):
        model(torch.zeros(3, 5, 4), mask)
    handle.remove()
    assert seen[0] is mask


# -- the change itself -------------------------------------------------------------------------------------------------

LENGTHS = st.lists(st.integers(1, 7), min_size=3, max_size=3)


def structure(kind: str) -> Tensor:
    """Which query may look at which key, seven tokens and no padding."""
    apart = torch.arange(7)[:, None] - torch.arange(7)
    return {"all": apart < 9, "causal": apart >= 0, "near": apart.abs() <= 2, "before": (apart >= 0) & (apart <= 2)}[
        kind
    ]


def of_form(visible: Tensor, dtype: torch.dtype) -> Tensor:
    if not dtype.is_floating_point:
        return visible.to(dtype)
    return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)


FORMS = st.sampled_from([torch.bool, torch.int64, torch.float32, torch.float16, torch.bfloat16])


@given(LENGTHS, st.sampled_from(["all", "causal", "near", "before"]), FORMS)
@settings(max_examples=80)
def test_united_masks_are_masks_of_the_union(lengths: list[int], kind: str, dtype: torch.dtype) -> None:
    valid = torch.arange(7) < torch.tensor(lengths)[:, None]
    both = models.union(valid, PLAN)
    for square in (False, True):
        shape = structure(kind) if square else torch.ones(1, 7, dtype=torch.bool)
        mask, wanted = (of_form((shape & v[:, None])[:, None], dtype) for v in (valid, both))
        assert torch.equal(united(mask, PLAN), wanted)
    assert torch.equal(united(of_form(valid, dtype), PLAN), of_form(both, dtype))


@given(LENGTHS, st.sampled_from(["all", "causal", "near", "before"]), FORMS, st.booleans())
@settings(max_examples=80)
def test_opened_masks_keep_order_and_distance(lengths: list[int], kind: str, dtype: torch.dtype, late: bool) -> None:
    lengths = [max(n, 4) for n in lengths]  # a distance of more than two has to show in some row
    valid = torch.arange(7) < torch.tensor(lengths)[:, None]
    valid = valid.flip(1) if late else valid
    mask = of_form((structure(kind) & valid[:, None])[:, None], dtype)
    assert torch.equal(opened(mask), of_form(structure(kind).expand(3, 1, 7, 7), dtype))
    assert torch.equal(opened(of_form(valid, dtype)), of_form(torch.ones(3, 7, dtype=torch.bool), dtype))


def test_masks_of_heads_may_be_expanded_views() -> None:
    block, batch = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True), sentences([4, 7, 2])
    padding = batch["attention_mask"] == 0
    view = padding[:, None].repeat_interleave(2, 0).expand(-1, 9, -1)  # (B·H, Q, T), one row of queries in memory
    for how in ("union", "ones"):
        one, other = (
            Masks(PLAN, 3, how).changed(mask, block, "src_mask", "layer", False) for mask in (view, view.contiguous())
        )
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
        assert torch.equal(one[::2], one[1::2])
        wanted = models.union(~padding, PLAN) if how == "union" else torch.ones_like(padding)
        assert torch.equal(~one[::2, 0], wanted)


@pytest.mark.parametrize(
    ("mask", "name", "stays"),
    [
        (torch.zeros(4, 7), "memory_mask", True),  # (Q, T) of cross attention
        (torch.zeros(3, 7), "tgt_mask", True),  # as many queries as rows
        (torch.ones(1, 5, 5), "mask", True),
        (torch.ones(5, 1, 5, 5), "mask", False),  # five rows, and five tokens
        (torch.ones(4, 5, 5), "mask", False),
    ],
)
def test_a_mask_is_for_all_rows_or_for_those_of_the_plan(mask: Tensor, name: str, stays: bool) -> None:
    if stays:
        assert Masks(PLAN, 3, "union").changed(mask, Takes(), name, "layer", True) is None
        return
    with pytest.raises(mx.MixError, match="expected the batch axis of 3 first"):
        Masks(PLAN, 3, "union").changed(mask, Takes(), name, "layer", True)


# -- masks that the model is not called with by name -------------------------------------------------------------------


class ByName(nn.Module):
    """Passes on whatever it is called with, as a LightningModule often does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.net = model

    def forward(self, **inputs: Tensor) -> Any:
        return self.net(**inputs)


class ByPosition(ByName):
    def forward(self, *inputs: Tensor) -> Any:  # type: ignore[override]
        return self.net(*inputs)


class OfIds(ByName):
    """Knows from the ids what is padding."""

    def forward(self, input_ids: Tensor) -> Any:  # type: ignore[override]
        return self.net(input_ids=input_ids, attention_mask=(input_ids != 0).long())


class Blocks(nn.Module):
    """The same, with blocks of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.own = models.seeded_model(2, lambda: Own("bool")).eval()

    def forward(self, input_ids: Tensor) -> Tensor:
        h = self.own.table(input_ids)
        for layer in self.own.layers:
            h = layer(h, src_key_padding_mask=input_ids == 0)
        return self.own.head(h[:, -1])


@pytest.mark.parametrize("how", ["union", "ones", "own"])
@pytest.mark.parametrize("layer", ["words", 0, 1])
def test_masks_are_found_however_a_model_comes_by_them(layer: str | int, how: str) -> None:
    bert, batch = hf_model("bert-sdpa"), sentences([2, 4, 9])
    wanted = mixed(bert, layer, batch, mask=how)
    ids, mask = batch.values()
    with torch.no_grad(), mix_hidden(model := ByPosition(bert), layer, PLAN, mask=how):
        assert_alike([model(ids, mask).logits], [wanted])
    assert_alike([mixed(ByName(bert), layer, batch, mask=how)], [wanted])
    assert_alike([mixed(OfIds(bert), layer, {"input_ids": ids}, mask=how)], [wanted])
    own = Blocks()
    assert_alike([mixed(own, layer, {"input_ids": ids}, mask=how)], [mixed(own.own, layer, batch, mask=how)])


@pytest.mark.parametrize("layer", ["words", 0, 1, 2])
def test_every_pass_through_parts_of_a_model_is_masked_as_the_first(layer: str | int) -> None:
    bert, batch = hf_model("bert-sdpa"), sentences([2, 4, 9])
    wanted = mixed(bert, layer, batch)
    with torch.no_grad(), mix_hidden(bert, layer, PLAN):
        for _ in range(3):
            assert_alike([bert.classifier(bert.bert(**batch).pooler_output)], [wanted])
            with pytest.raises(IndexError):  # a pass that breaks off is none
                bert.bert(**{**batch, "input_ids": batch["input_ids"] + 60})
        assert_alike([bert(**batch).logits], [wanted])
    with torch.no_grad(), mix_hidden(bert, layer, PLAN):
        assert_alike([bert(**batch).logits], [wanted])
        assert_alike([bert.classifier(bert.bert(**batch).pooler_output)], [wanted])


def test_a_mask_that_nothing_takes_is_said_inside_a_module_that_took_it_before() -> None:
    model, batch = ByName(models.seeded_model(6, Pooled)), sentences([4, 7, 2])
    with pytest.raises(mx.MixError, match="attention_mask that hides tokens"):
        mixed(model, "net.lstm", batch)
    assert_alike([mixed(model, "words", batch)], [mixed(model.net, "words", batch)])


def test_only_what_has_the_name_of_a_mask_is_one() -> None:
    class Rest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x: Tensor, *rest: str, mask: Tensor | None = None) -> Tensor:
            return self.linear(x)

    model, x = Rest(), torch.ones(3, 4)
    with mix_hidden(model, "input", PLAN):
        assert_alike([model(x, "one", "two")], [model.linear(x)])


def test_modules_that_torch_jit_made_may_be_anywhere_in_a_model() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, which is still in use
        inner = torch.jit.trace(nn.Linear(4, 4), torch.zeros(3, 4))
    model, x = nn.Sequential(inner, nn.ReLU()), torch.eye(3, 4)
    share = torch.tensor(PLAN.opacity)
    wanted = torch.relu(inner(x))
    for layer in ("1", model[1]):
        with mix_hidden(model, layer, PLAN):
            ours = model(x)
        assert_alike([ours], [(1 - share) * wanted + share * wanted[[1, 2, 0]]])
