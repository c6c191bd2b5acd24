"""mix_hidden however a model is called: by keyword, by a forward put in place, in a copy, with a mask and without."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from hidden_models import assert_alike, build, hf_model, hooks_left, one_thread, plan_of, seeded_model, sentences, union
from mixops.pipelines.hidden import mix_hidden
from mixops.pipelines.layers import mask_takers, stacks_of
from torch import Tensor, nn

import mixops as mx

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
PLAN = plan_of([0.5, 0.25, 1.0], [1, 2, 0])
SHARE = torch.tensor(PLAN.opacity)  # (3, 1)


def by_rows(x: Tensor) -> Tensor:
    return (1 - SHARE) * x + SHARE * x[[1, 2, 0]]


def numbers(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal(shape).astype(np.float32))


# -- what is mixed of a call -------------------------------------------------------------------------------------------


class Two(nn.Module):
    """Adds whatever floats it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(4, 4)

    def forward(self, first: Any = None, second: Any = None, pixel_values: Any = None) -> Tensor:
        return sum(self.scale(x) for x in (first, second, pixel_values) if x is not None and x.is_floating_point())


@pytest.mark.parametrize(
    ("given", "mixes"),
    [
        (("first",), "first"),
        (("second",), "second"),
        (("second", "first"), "first"),
        (("first", "pixel_values"), "pixel_values"),
    ],
)
def test_the_input_may_come_by_keyword(given: tuple[str, ...], mixes: str) -> None:
    model, inputs = seeded_model(0, Two), {name: numbers(3, 4) + i for i, name in enumerate(given)}
    with mix_hidden(model, "input", PLAN):
        ours = model(**inputs)
    assert_alike([ours], [model(**{**inputs, mixes: by_rows(inputs[mixes])})])


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({"second": torch.zeros(3, dtype=torch.int64)}, "called with torch.int64.*mix 'words' instead"),
        ({"second": numbers(3, 4), "pixel": numbers(3, 4)}, "the call has second, pixel, expected one tensor to mix"),
        ({}, "the call has no tensor, expected one tensor to mix"),
    ],
)
def test_a_call_without_one_tensor_of_rows_is_refused(inputs: dict[str, Tensor], match: str) -> None:
    class Any_(Two):
        def forward(self, first: Any = None, **rest: Tensor) -> Any:  # type: ignore[override]
            return first

    model = Any_()
    with pytest.raises(mx.MixError, match=match), mix_hidden(model, "input", PLAN):
        model(**inputs)
    assert not hooks_left(model)


# -- where the words and the masks are ---------------------------------------------------------------------------------


def test_blocks_whose_forward_was_replaced_take_masks_as_before() -> None:
    bert, batch = build("bert-sdpa").eval().double(), sentences([4, 9, 2])
    for module in (bert, *bert.bert.encoder.layer):
        old = module.forward

        @functools.wraps(old)
        def forward(*args: Any, old: Any = old, **kwargs: Any) -> Any:
            return old(*args, **kwargs)

        module.forward = forward
    for layer in ("words", 1):
        with torch.no_grad(), mix_hidden(bert, layer, PLAN):
            ours = bert(**batch).logits
        with torch.no_grad(), mix_hidden(hf_model("bert-sdpa"), layer, PLAN):
            assert_alike([ours], [hf_model("bert-sdpa")(**batch).logits])


class MayBeMasked(nn.Module):
    """A block over embedded tokens; knows from the ids what is padding if nobody says it."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(60, 16), nn.Linear(16, 3)
        self.block = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True)

    def get_input_embeddings(self) -> nn.Module:
        raise NotImplementedError  # as models of Transformers that never said

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        seen = input_ids != 0 if attention_mask is None else attention_mask > 0
        return self.head(self.block(self.table(input_ids), src_key_padding_mask=~seen)[:, -1])


@pytest.mark.parametrize("first", [False, True])
def test_a_mask_is_united_once_whether_the_model_is_given_it_or_makes_it(first: bool) -> None:
    model, batch = seeded_model(2, MayBeMasked).eval(), sentences([2, 4, 7])
    words = model.table(batch["input_ids"])
    both = union(batch["attention_mask"], PLAN) == 0
    mixed = (1 - SHARE[..., None]) * words + SHARE[..., None] * words[[1, 2, 0]]
    wanted = model.head(model.block(mixed, src_key_padding_mask=both)[:, -1])
    with mix_hidden(model, "words", PLAN):
        for given in (first, not first, first):
            assert_alike([model(**batch) if given else model(batch["input_ids"])], [wanted])
    assert not hooks_left(model)


class Padded(nn.Module):
    """An LSTM whose states are averaged over what is no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor, padding_mask: Tensor, src_mask: Tensor | None = None) -> Tensor:
        return (self.lstm(x)[0] * ~padding_mask[..., None]).sum(1) / (~padding_mask).sum(1, keepdim=True)


def test_a_padding_mask_that_nothing_takes_is_said_where_it_hides_something() -> None:
    model, x = seeded_model(0, Padded), numbers(3, 5, 4)
    nothing, pairs = torch.zeros(3, 5, dtype=torch.bool), torch.ones(5, 5, dtype=torch.bool).triu(1)
    padding = torch.arange(5) >= torch.tensor([[5], [3], [4]])
    with mix_hidden(model, "lstm", PLAN):
        assert model(x, nothing, pairs).shape == (3, 4)
    with pytest.raises(mx.MixError, match="padding_mask that hides tokens"), mix_hidden(model, "lstm", PLAN):
        model(x, padding)


def test_a_block_is_not_taken_apart_and_what_else_holds_the_layer_is() -> None:
    blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 24, batch_first=True) for _ in range(2))
    model = nn.ModuleDict({"pooled": Padded(), "blocks": blocks})
    for layer, wanted in (
        ("blocks.1.self_attn", ["pooled", "blocks.0", "blocks.1"]),
        ("pooled.lstm", ["blocks.0", "blocks.1"]),
    ):
        assert [path for path, _ in mask_takers(model, stacks_of(model), layer)] == wanted


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["words", 0, 2, "sentence"])
def test_a_copy_made_inside_the_block_is_a_plain_model_after_it(layer: str | int) -> None:
    bert, batch = hf_model("bert-sdpa"), sentences([4, 9, 2])
    with torch.no_grad(), mix_hidden(bert, layer, PLAN):
        average, mixed = copy.deepcopy(bert), bert(**batch).logits
    with torch.no_grad():
        assert torch.equal(average(**batch).logits, bert(**batch).logits)
        assert not torch.allclose(mixed, bert(**batch).logits)
