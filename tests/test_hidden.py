"""mix_hidden: where a layer is, what it may put out, what is refused, and that nothing of it stays behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hidden_models import Spot, assert_alike, hf_model, hooks_left, one_thread, plan_of, put_in, seeded_model, sentences
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines.hidden import mix_hidden
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import mixops as mx

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
PLAN = plan_of([0.5, 0.25, 1.0], [1, 2, 0])
SHARE = torch.tensor(PLAN.opacity)  # (3, 1)


def by_rows(x: Tensor, axis: int = 0) -> Tensor:
    """What PLAN makes of the rows of a tensor."""
    x = x.movedim(axis, 0)
    share = SHARE.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return ((1 - share) * x + share * x[[1, 2, 0]]).movedim(0, axis)


def numbers(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal(shape).astype(np.float32))


class Net(nn.Module):
    """A small residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.layer1, self.layer2 = nn.Conv2d(3, 4, 3), Residual(), Residual()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.conv1(x))).mean((2, 3)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.conv(x))


class Calls(nn.Module):
    """A layer that puts out whatever it is told to make of its input."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = Makes(make)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)


class Makes(nn.Module):
    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(x)


def refused(match: str, model: Any, layer: Any, plan: Any = PLAN, x: Any = None, *args: Any, **options: Any) -> None:
    """The block refuses, and leaves no hook behind."""
    with pytest.raises(mx.MixError, match=match), mix_hidden(model, layer, plan, *args, **options):
        model(numbers(3, 3, 8, 8) if x is None else x)
    if isinstance(model, nn.Module):
        assert not hooks_left(model)


# -- where -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [None, "b c h w"])
@pytest.mark.parametrize("layer", ["conv1", "layer1", "layer2", "layer1.conv"])
def test_a_module_by_path_mixes_what_it_puts_out(layer: str, layout: str | None) -> None:
    model, x = seeded_model(0, Net), numbers(3, 3, 8, 8)
    spot, seen = Spot(model.get_submodule(layer)), []
    handle = spot.module.register_forward_hook(lambda module, args, output: seen.append(output))
    model(x)
    handle.remove()
    with put_in(spot, by_rows(seen[0])):
        wanted = model(x)
    for named in (layer, spot.module):
        with mix_hidden(model, named, PLAN, layout):
            ours = model(x)
        assert_alike([ours], [wanted])
        assert_alike(torch.autograd.grad(ours.sum(), spot.module.parameters()),
                     torch.autograd.grad(wanted.sum(), spot.module.parameters(), retain_graph=True))  # fmt: skip
    assert not hooks_left(model)


def test_the_input_is_what_the_model_is_called_with() -> None:
    model, x = seeded_model(0, Net), numbers(3, 3, 8, 8)
    with mix_hidden(model, "input", PLAN):
        assert_alike([model(x), model(x=x)], [model_of(model, by_rows(x))] * 2)
    bert, batch = hf_model("bert-sdpa"), sentences([4, 9, 2])
    words = bert.get_input_embeddings()(batch["input_ids"])
    with mix_hidden(bert, "input", PLAN):
        ours = bert(inputs_embeds=words, attention_mask=batch["attention_mask"]).logits
    with mix_hidden(bert, "words", PLAN):
        wanted = bert(**batch).logits
    assert_alike([ours], [wanted])


def model_of(model: nn.Module, x: Tensor) -> Tensor:
    """The model without any hook."""
    clean: Tensor = model.forward(x)
    return clean


def test_the_sentence_is_what_the_last_linear_takes() -> None:
    model, x = seeded_model(0, Net), numbers(3, 3, 8, 8)
    with mix_hidden(model, "sentence", PLAN):
        ours = model(x)
    with mix_hidden(model, "fc", PLAN):  # the last Linear is linear
        assert_alike([ours], [model(x)])
    with mix_hidden(model, "input", PLAN):
        assert not torch.allclose(ours, model(x))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_names_hold_with_and_without_those_of_wrappers(prefix: str) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = seeded_model(0, Net)

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)

    x = numbers(3, 3, 8, 8)
    for model in (seeded_model(0, Net), Wrapped()):
        with mix_hidden(model, prefix + "layer1", PLAN):
            ours = model(x)
        with mix_hidden(plain := seeded_model(0, Net), "layer1", PLAN):
            assert_alike([ours], [plain(x)])


def test_numbers_count_hidden_states() -> None:
    bert, batch = hf_model("bert-sdpa"), sentences([4, 9, 2])

    def logits(layer: Any) -> Tensor:
        with mix_hidden(bert, layer, PLAN):
            out: Tensor = bert(**batch).logits
        return out

    for k in (1, 2, 3):
        for same in ("hidden:" + str(k), np.int64(k), f"bert.encoder.layer.{k - 1}", bert.bert.encoder.layer[k - 1]):
            assert torch.equal(logits(k), logits(same))
    for layer in (4, -1, "hidden:4"):
        refused(r"bert\.encoder\.layer has 3 blocks", bert, layer)
    refused(r"expected one list of blocks.*Net has none", Net(), 1)


def test_models_called_in_parts_mix_in_each_part() -> None:
    model, x = seeded_model(0, Net), numbers(3, 3, 8, 8)
    with mix_hidden(model, "layer1", PLAN):
        first = model.layer1(model.conv1(x))
        again = model.layer1(model.conv1(x))
    assert_alike([first, again], [by_rows(model.layer1(model.conv1(x)))] * 2)


# -- what is mixed -----------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


@pytest.mark.parametrize(
    ("make", "mixed"),
    [
        (lambda x: (x, 2 * x), lambda x: (by_rows(x), 2 * x)),
        (lambda x: [x, None], lambda x: [by_rows(x), None]),
        (lambda x: Pair(x, 2 * x), lambda x: Pair(by_rows(x), 2 * x)),
        (lambda x: {"h": x, "loss": x.sum()}, lambda x: {"h": by_rows(x), "loss": x.sum()}),
    ],
    ids=["tuple", "list", "named tuple", "dict"],
)
def test_outputs_keep_their_kind(make: Callable[[Tensor], Any], mixed: Callable[[Tensor], Any]) -> None:
    x, model = numbers(3, 5), Calls(make)
    with mix_hidden(model, "layer", PLAN):
        ours = model(x)
    wanted = mixed(x)
    assert type(ours) is type(wanted)
    for a, b in zip(*(list(o.values()) if isinstance(o, dict) else o for o in (ours, wanted)), strict=True):
        assert a is b is None or torch.allclose(a, b)


def test_outputs_of_transformers_mix_each_tensor_of_rows() -> None:
    bert, batch = hf_model("bert-sdpa"), sentences([4, 9, 2])
    plain = bert.bert(**batch, output_hidden_states=True)
    with mix_hidden(bert, "bert", PLAN):
        out = bert.bert(**batch, output_hidden_states=True)
    assert type(out) is type(plain)
    assert_alike(
        [out.last_hidden_state, out["pooler_output"], *out.hidden_states],
        [by_rows(plain.last_hidden_state), by_rows(plain.pooler_output), *plain.hidden_states],
    )


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("rows_first", [False, True])
def test_recurrent_modules_say_where_their_rows_are(kind: Any, rows_first: bool) -> None:
    lstm = seeded_model(3, lambda: kind(4, 6, 2, batch_first=rows_first, bidirectional=True))
    x = numbers(3, 5, 4) if rows_first else numbers(5, 3, 4)
    out, state = lstm(x)
    with mix_hidden(model := nn.Sequential(lstm), "0", PLAN):
        ours, last = model(x)
    states = state if isinstance(state, tuple) else (state,)
    lasts = last if isinstance(state, tuple) else (last,)
    assert_alike([ours, *lasts], [by_rows(out, 0 if rows_first else 1), *(by_rows(s, 1) for s in states)])


@pytest.mark.parametrize("rows_first", [False, True])
def test_transformers_of_torch_say_where_their_rows_are(rows_first: bool) -> None:
    def block() -> nn.TransformerEncoderLayer:
        return nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=rows_first)

    encoder = nn.TransformerEncoder(block(), 2, enable_nested_tensor=False)
    x = numbers(3, 3, 4)  # as many tokens as rows: the shape does not tell
    share = SHARE[None] if not rows_first else SHARE[..., None]
    flipped = x[:, [1, 2, 0]] if not rows_first else x[[1, 2, 0]]
    wanted = encoder((1 - share) * x + share * flipped)
    for layer in ("input", 0):
        with mix_hidden(encoder, layer, PLAN):
            assert_alike([encoder(x)], [wanted])
    out = encoder.layers[0](x)
    out = (1 - share) * out + share * (out[:, [1, 2, 0]] if not rows_first else out[[1, 2, 0]])
    for layer in (1, "layers.0"):
        with mix_hidden(encoder, layer, PLAN):
            assert_alike([encoder(x)], [encoder.layers[1](out)])
    with mix_hidden(lstm := nn.LSTM(4, 6, batch_first=rows_first), "input", PLAN):
        ours, _ = lstm(x)
    assert_alike([ours], [lstm((1 - share) * x + share * flipped)[0]])


def test_boxes_of_a_plan_lie_on_the_axes_of_the_layout() -> None:
    plan = mx.CutMix().draw(np.random.default_rng(0), mx.Spec(3, (6, 6)), partner=[1, 2, 0])
    model, x = seeded_model(0, Net), numbers(3, 3, 8, 8)
    with mix_hidden(model, "layer1", plan, "b c h w"):
        ours = model(x)
    h = mx.mix(model.layer1(model.conv1(x)), plan, "b c h w")
    assert_alike([ours], [model.fc(model.layer2(h).mean((2, 3)))])
    refused(r"boxes on extents \(6, 6\): name the axes", model, "layer1", plan)


@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), st.permutations([0, 1, 2]))
def test_any_axis_may_be_that_of_the_rows(lam: list[float], partner: list[int]) -> None:
    plan, x = plan_of(lam, partner), numbers(5, 3, 4)
    with mix_hidden(model := Calls(lambda x: x), "layer", plan, "t b d"):
        ours = model(x)
    share = torch.tensor(plan.opacity)
    assert_alike([ours], [(1 - share) * x + share * x[:, partner]])


def test_blocks_inside_one_another_mix_in_the_order_of_the_model() -> None:
    bert, batch = hf_model("bert-sdpa"), sentences([2, 9, 4, 6])
    first, second = plan_of([0.5, 1, 1, 0.5], [3, 0, 1, 2]), plan_of([1, 0.25, 0.5, 1], [2, 3, 1, 0])

    def run(outer: tuple[Any, mx.Plan], inner: tuple[Any, mx.Plan]) -> Tensor:
        with mix_hidden(bert, *outer), mix_hidden(bert, *inner):
            out: Tensor = bert(**batch).logits
        return out

    for layer in (0, 1, "words"):
        assert torch.equal(run((layer, first), (2, second)), run((2, second), (layer, first)))
    layer = bert.bert.encoder.layer
    handle = layer[0].register_forward_hook(lambda module, args, output: mx.mix(output, first, "b t d"))
    seen = batch["attention_mask"]
    for plan in (first, second):
        seen = mx.mix(seen, plan, "b t", "valid")
    once = mx.mix(batch["attention_mask"], first, "b t", "valid")
    masks = [batch["attention_mask"], once, seen]
    handles = [handle, layer[1].register_forward_hook(lambda module, args, output: mx.mix(output, second, "b t d"))]
    for block, mask in zip(layer, masks, strict=True):
        wide = (mask > 0)[:, None, None].expand(-1, 1, 9, -1)
        handles.append(block.register_forward_pre_hook(lambda module, args, wide=wide: (args[0], wide, *args[2:])))
    wanted = bert(**batch).logits
    for one in handles:
        one.remove()
    assert_alike([run((1, first), (2, second))], [wanted])
    with mix_hidden(model := Calls(lambda x: x), "layer", PLAN), mix_hidden(model, "layer", PLAN):
        assert_alike([model(numbers(3, 5))], [by_rows(by_rows(numbers(3, 5)))])


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_an_unknown_layer_says_which_are_near() -> None:
    refused(r"'layer3': Net has no such module; nearest: .*layer1.*; at the top: conv1, layer1", Net(), "layer3")
    refused(r"no such module.*'input', 'words'", Net(), "hidden:x")
    refused("no such module", Net(), "module")
    refused("a Linear that is no part of this Net", Net(), nn.Linear(2, 2))
    refused("layer is float", Net(), 1.5)
    refused("layer is bool", Net(), True)
    refused(r"layer is None and the plan names none.*ManifoldMixup", Net(), None)
    refused("'sentence': Makes has no nn.Linear", Makes(lambda x: x), "sentence")
    refused("'words': expected one nn.Embedding, Net has none", Net(), "words")
    tables = nn.ModuleDict({"a": nn.Embedding(3, 2), "b": nn.Embedding(3, 2)})
    refused("has several: a, b; name the one of the words", tables, "words")


def test_what_has_no_rows_where_the_plan_wants_them_is_refused() -> None:
    model = Calls(lambda x: x)
    late = r"'layer' puts out \(5, 3, 4\), the plan is for 3 rows: layout='t b d'"
    refused(late, model, "layer", x=numbers(5, 3, 4))
    refused(r"puts out \(4, 5\), the plan is for 3 rows: draw the plan for this batch", model, "layer", x=numbers(4, 5))
    refused("layout 'b d' names 2 axes: name every axis", model, "layer", PLAN, numbers(3, 5, 4), "b d")
    refused("expected different axis names", model, "layer", PLAN, None, "c h w")
    refused(r"layout 3: expected a string", model, "layer", PLAN, None, 3)
    refused("layer 'sentence'.*expected one vector for each row", nn.Sequential(nn.Linear(4, 2)), "sentence",
            x=numbers(3, 5, 4))  # fmt: skip
    refused("called with torch.int64.*mix 'words' instead", model, "input", x=torch.zeros(3, 5, dtype=torch.int64))
    refused("int64 values cannot be averaged", model, "layer", x=torch.zeros(3, 5, dtype=torch.int64))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda x: pack_padded_sequence(x, torch.tensor([2, 2, 1]), True), "PackedSequence.*without pack_padded_seq"),
        (lambda x: (pack_padded_sequence(x, torch.tensor([2, 2, 1]), True), None), "PackedSequence"),
        (lambda x: "text", "puts out str, expected a tensor, or a tuple or dict"),
        (lambda x: (), "puts out tuple"),
        (lambda x: {"loss": x.sum()}, "expected floats of 3 rows"),
    ],
)
def test_outputs_without_a_batch_axis_are_refused(make: Callable[[Tensor], Any], match: str) -> None:
    refused(match, Calls(make), "layer", x=numbers(3, 2, 4))
    refused(match, Calls(make), "layer", mx.Plan.identity(3, k=1), x=numbers(3, 2, 4))


@pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors"
)  # nn.TransformerEncoder makes them in evaluation
def test_nested_tensors_are_refused() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 24, batch_first=True), 2).eval()
    x, padding = numbers(3, 6, 16), torch.arange(6) >= torch.tensor([[4], [6], [2]])
    for layer in (0, 1, "layers.1"):
        with (
            torch.no_grad(),
            pytest.raises(mx.MixError, match=r"nested tensor.*enable_nested_tensor=False"),
            mix_hidden(encoder, layer, PLAN),
        ):
            encoder(x, src_key_padding_mask=padding)
        assert not hooks_left(encoder)
        with mix_hidden(encoder, layer, PLAN):  # with gradients it makes none
            assert encoder(x, src_key_padding_mask=padding).requires_grad


def test_plans_that_do_not_fit_are_refused() -> None:
    refused("plan is dict, expected a Plan", Net(), "layer1", {})
    refused("model is function, expected a torch.nn.Module", refused, "layer1")
    refused("mask='both', expected one of union, own, ones", Net(), "layer1", mask="both")
    two = mx.PlanSequence((plan_of([0.5] * 3, [1, 2, 0], "layer1"), plan_of([0.5] * 3, [1, 2, 0], "layer2")))
    refused(r"for the layers \['layer1', 'layer2'\]: enter one block for each", Net(), "layer1", two)


def test_steps_of_one_layer_are_mixed_one_after_the_other() -> None:
    steps, model = mx.PlanSequence((PLAN, PLAN)), Calls(lambda x: x)
    with mix_hidden(model, "layer", steps):
        assert_alike([model(numbers(3, 5))], [by_rows(by_rows(numbers(3, 5)))])


def test_a_layer_that_does_not_run_or_runs_twice_is_refused() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(self.a(x))

    refused("'b' did not run inside the block", Branches(), "b", x=numbers(3, 4))
    refused("'a' runs more than once.*shared weights", Branches(), "a", x=numbers(3, 4))
    with mix_hidden(model := Calls(lambda x: x), "layer", PLAN):  # several calls are several batches
        for _ in range(3):
            model(numbers(3, 4))


def test_what_goes_wrong_in_the_block_is_what_is_raised() -> None:
    def fail(x: Tensor) -> Tensor:
        raise KeyError("the model's own")

    model = Calls(fail)
    with pytest.raises(KeyError, match="the model's own"), mix_hidden(model, "layer", PLAN):
        model(numbers(3, 4))
    assert not hooks_left(model)
    with pytest.raises(ZeroDivisionError), mix_hidden(model, "layer", PLAN):
        raise ZeroDivisionError
    assert not hooks_left(model)


def test_hooks_are_there_while_the_block_lasts() -> None:
    model = hf_model("bert-sdpa")
    with mix_hidden(model, 1, PLAN):
        assert hooks_left(model) == 3 + 3  # on the model before and after, on the layer, and on the masks of each block
        model(**sentences([4, 9, 2]))
        assert hooks_left(model) == 3 + 3
    assert hooks_left(model) == 0


def test_a_call_that_failed_does_not_count() -> None:
    model, bert = hf_model("bert-sdpa"), sentences([4, 9, 2])
    with mix_hidden(model, 1, PLAN):
        with pytest.raises(mx.MixError, match="the plan is for 3 rows"):
            model(**sentences([4, 9]))
        ours = model(**bert).logits
    with mix_hidden(model, 1, PLAN):
        assert torch.equal(ours, model(**bert).logits)


def test_a_draw_that_leaves_all_rows_alone_names_no_layer_and_needs_none() -> None:
    op = mx.OneOf([mx.WordMixup(), mx.SentenceMixup()], p=[0.3, 0.3])
    plans = [op.draw(np.random.default_rng(seed), mx.Spec(2)) for seed in range(20)]
    alone = next(plan for plan in plans if plan.layer is None)
    model, x = nn.Sequential(nn.Linear(3, 2)), torch.ones(2, 3)
    with mix_hidden(model, alone.layer, alone):
        assert torch.equal(model(x), model(x))
    with (
        pytest.raises(mx.MixError, match="names none"),
        mix_hidden(model, None, mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2))),
    ):
        pass


def test_a_copy_of_the_model_made_inside_the_block_mixes_no_longer_than_the_block() -> None:
    model, x = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.eye(3)
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(3), lam=0.25, partner=[1, 2, 0])
    with mix_hidden(model, "0", plan):
        average = copy.deepcopy(model)
        model(x)
    assert torch.equal(average(x), model(x))


def test_a_list_of_modules_is_refused_since_it_is_never_called() -> None:
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Linear(2, 2)])
    refused("'blocks': a ModuleList is never called itself", model, "blocks")


def test_a_layout_that_names_the_wrong_axis_is_told_from_a_plan_of_other_rows() -> None:
    fix = "name the axis of 3 'b' in the layout, which is 't b d'"
    refused(fix, nn.Sequential(nn.Identity()), "0", PLAN, torch.zeros(3, 5, 2), "t b d")
