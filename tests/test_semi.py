"""MixText: guesses, sharpening, and a step held to the authors' arithmetic and to two streams mixed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hidden_models import (
    BLOCKS,
    SIZES,
    VOCABULARY,
    blocks_of,
    by_hand,
    hf,
    hf_model,
    hooks_left,
    one_thread,
    sentences,
    spot_of,
    union,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mixops.pipelines.semi import MixText, MixTextLoss, guess_labels, rampup, sharpen
from mixops.pipelines.text import TextCNN, TextTransformer
from tmix_reference import bert_embeddings, bert_layers, two_streams
from torch import Tensor, nn

import mixops as mx

pytestmark = pytest.mark.usefixtures(one_thread.__name__)

LOGITS = arrays(np.float64, (4, 3), elements=st.floats(-30, 30))
TEMPERATURES = st.floats(0.05, 20)


def probabilities(logits: np.ndarray) -> Tensor:
    return torch.softmax(torch.from_numpy(logits), 1)


# -- guesses -----------------------------------------------------------------------------------------------------------


@given(logits=LOGITS, temperature=TEMPERATURES)
def test_sharpening_is_the_power_keeps_the_order_and_sums_to_one(logits: np.ndarray, temperature: float) -> None:
    probs = probabilities(logits)
    sharp = sharpen(probs, temperature)
    top = probs / probs.amax(1, keepdim=True)  # powers of numbers up to 1 do not overflow
    powers = top ** (1 / temperature)
    torch.testing.assert_close(sharp, powers / powers.sum(1, keepdim=True), rtol=1e-9, atol=1e-12)
    assert torch.allclose(sharp.sum(1), torch.ones(4, dtype=torch.float64))
    for before, after in zip(probs, sharp, strict=True):
        ordered = after[before.argsort()]
        assert bool((ordered.diff() >= -1e-12).all())


@given(logits=LOGITS)
def test_a_temperature_of_one_changes_nothing(logits: np.ndarray) -> None:
    torch.testing.assert_close(sharpen(probabilities(logits), 1), probabilities(logits), rtol=1e-12, atol=1e-15)


def test_a_small_temperature_chooses_a_class_and_a_zero_stays_zero() -> None:
    sharp = sharpen(torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.5, 0.0]]), 1e-4)
    assert sharp.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]


@given(
    views=st.lists(LOGITS, min_size=1, max_size=3),
    weights=st.lists(st.floats(0, 5), min_size=3, max_size=3).filter(lambda w: w[0] > 0.01),
)
def test_a_guess_is_the_weighted_mean_of_the_predictions(views: list[np.ndarray], weights: list[float]) -> None:
    given_weights = weights[: len(views)]
    guess = guess_labels([torch.from_numpy(view) for view in views], given_weights)
    exps = [np.exp(view - view.max(1, keepdims=True)) for view in views]
    probs = [e / e.sum(1, keepdims=True) for e in exps]
    wanted = sum(w * p for w, p in zip(given_weights, probs, strict=True)) / sum(given_weights)
    np.testing.assert_allclose(guess.numpy(), wanted, rtol=1e-9, atol=1e-12)


def test_a_view_of_weight_zero_takes_no_part_even_where_it_is_nan() -> None:
    sure, broken = torch.tensor([[2.0, 0.0]]), torch.full((1, 2), math.nan)
    assert torch.equal(guess_labels([sure, broken], [1, 0]), torch.softmax(sure, 1))
    assert torch.equal(guess_labels([sure, sure]), torch.softmax(sure, 1))


def test_guesses_of_half_precision_are_made_in_single() -> None:
    assert guess_labels([torch.zeros(2, 3, dtype=torch.bfloat16)]).dtype == torch.float32


@pytest.mark.parametrize(
    ("logits", "weights", "said"),
    [
        ([], None, "list of logits"),
        (torch.zeros(2, 3), None, "list of logits"),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], None, r"view 1 has logits of shape \(2, 4\)"),
        ([torch.zeros(3)], None, r"view 0 has logits of shape \(3,\)"),
        ([torch.zeros(2, 3)], [1, 1], "2 weights for 1 views"),
        ([torch.zeros(2, 3)], [0], "one or more above 0"),
        ([torch.zeros(2, 3)], [-1.0], "weight of a view=-1.0"),
        ([torch.zeros(2, 3)], [math.nan], "weight of a view=nan"),
        ([torch.zeros(2, 3)], "a", "a number for each view"),
        ([torch.full((2, 3), math.nan)], None, "in 2 rows, the first 0"),
        ([torch.full((2, 3), math.inf)], None, "NaN or infinite"),
    ],
)
def test_what_is_no_prediction_and_no_weight_is_refused(logits: Any, weights: Any, said: str) -> None:
    with pytest.raises(mx.MixError, match=said):
        guess_labels(logits, weights)


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf, "1", True])
def test_a_temperature_that_is_none_is_refused(temperature: Any) -> None:
    with pytest.raises(mx.MixError, match="temperature"):
        sharpen(torch.ones(1, 2) / 2, temperature)
    with pytest.raises(mx.MixError, match="temperature"):
        MixText(temperature=temperature)


def test_sharpening_takes_rows_of_shares_alone() -> None:
    with pytest.raises(mx.MixError, match=r"float tensor of shape \(N, C\)"):
        sharpen(torch.ones(2), 0.5)
    for row in ([0.0, 0.0], [math.nan, 1.0], [-0.5, 1.5]):
        with pytest.raises(mx.MixError, match=r"row 1 is .*shares of 0 or more.*softmax"):
            sharpen(torch.tensor([[0.5, 0.5], row]), 0.5)


def test_what_is_for_operators_alone_does_not_reach_the_model() -> None:
    def drawn(more: dict[str, torch.Tensor]) -> torch.Tensor:
        batches = {**GOOD, "labels": LABELS[:2]}, dict(PLAIN)
        given = [
            {**one, **{name: value.expand(len(one["input_ids"]), 4) for name, value in more.items()}} for one in batches
        ]
        return MixText(("words",)).loss(CNN.eval(), given[0], given[1:], rng=np.random.default_rng(0)).total

    assert torch.equal(drawn({}), drawn({"special_tokens_mask": torch.zeros(1, 4), "saliency": torch.ones(1, 4)}))


def test_a_pad_that_is_no_id_is_refused() -> None:
    with pytest.raises(mx.MixError, match=r"pad='x', expected the id of padding"):
        MixText(("words",)).loss(CNN, {**GOOD, "labels": LABELS[:2]}, [PLAIN], rng=np.random.default_rng(0), pad="x")


@given(step=st.integers(0, 50), steps=st.integers(0, 20))
def test_a_ramp_is_a_line_from_zero_to_one(step: int, steps: int) -> None:
    risen = rampup(step, steps)
    assert 0 <= risen <= 1
    assert rampup(step + 1, steps) >= risen
    assert risen == (1 if steps == 0 or step >= steps else step / steps)


# -- the recipe --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": -1}, "alpha"),
        ({"unlabelled_weight": math.nan}, "unlabelled_weight"),
        ({"hinge_weight": -0.1}, "hinge_weight"),
        ({"hinge_margin": "0"}, "hinge_margin"),
        ({"rampup": 1.5}, "rampup"),
        ({"separate": 1}, "separate"),
        ({"fold": "no"}, "fold"),
        ({"layers": ()}, "layers"),
        ({"view_weights": (0, 0)}, "one or more above 0"),
        ({"view_weights": (1, math.nan)}, "weight of a view"),
        ({"view_weights": 1}, "a number for each view"),
    ],
)
def test_a_recipe_that_is_none_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(mx.MixError, match=said):
        MixText(**options)


def test_a_recipe_is_what_its_text_says() -> None:
    recipe = MixText({5, 4}, view_weights=[1, 0], separate=True, fold=False)
    assert eval(repr(recipe), {"MixText": MixText}) == recipe
    assert hash(recipe) == hash(MixText((4, 5), view_weights=(1.0, 0.0), separate=True, fold=False))


@given(seed=st.integers(0, 1000), labelled=st.integers(1, 5), unlabelled=st.integers(1, 9))
def test_separate_mixing_keeps_the_two_kinds_apart(seed: int, labelled: int, unlabelled: int) -> None:
    plan = MixText(separate=True).plan(np.random.default_rng(seed), labelled, unlabelled)
    partner = plan.partner[:, 0]
    assert sorted(partner[:labelled]) == list(range(labelled))
    assert sorted(partner[labelled:]) == list(range(labelled, labelled + unlabelled))


def test_mixing_crosses_between_the_two_kinds_and_own_shares_are_the_larger() -> None:
    plans = [MixText(alpha=1.0).plan(np.random.default_rng(seed), 4, 8) for seed in range(20)]
    assert any((plan.partner[:4, 0] >= 4).any() for plan in plans)
    assert all((plan.lam >= 0.5).all() for plan in plans)
    assert {plan.layer for plan in plans} == {"hidden:7", "hidden:9", "hidden:12"}
    unfolded = [MixText(alpha=1.0, fold=False).plan(np.random.default_rng(seed), 4, 8) for seed in range(20)]
    assert any((plan.lam < 0.5).all() for plan in unfolded)


# -- a step ------------------------------------------------------------------------------------------------------------

CLASSES = SIZES["num_labels"]
LABELS = torch.tensor([0, 2, 1])


def ids_of(rows: int, length: int, seed: int) -> Tensor:
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


class MeanClassifier(nn.Module):
    """A BERT, the mean over all positions and a Linear, as the authors' classifier but for its second layer."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        size = {name: value for name, value in SIZES.items() if name not in ("num_labels", "num_hidden_layers")}
        zero = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        config = hf.BertConfig(**size, **zero, num_hidden_layers=layers, attn_implementation="eager")
        self.bert, self.head = hf.BertModel(config, add_pooling_layer=False), nn.Linear(config.hidden_size, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.head(states.mean(1))


def official(
    model: MeanClassifier, kinds: dict[str, Tensor], weights: Sequence[float], idx: Tensor, lam: float, mix_layer: int
) -> dict[str, Tensor]:
    """The authors' step on formulas: rows in the order x, u, u2, ori, ori, of which the last are their own partners."""
    bert, eps = dict(model.bert.named_parameters()), model.bert.config.layer_norm_eps
    layers = bert_layers(bert, 3, 2, eps)

    def logits_of(ids: Tensor, other: Tensor, share: float, layer: int) -> Tensor:
        own, seen = bert_embeddings(bert, ids, eps), torch.ones_like(ids, dtype=torch.bool)
        last = two_streams(layers, own, bert_embeddings(bert, other, eps), torch.tensor(share), layer, seen, seen, seen)
        return last.mean(1) @ model.head.weight.T + model.head.bias

    def softmax(x: Tensor) -> Tensor:
        e = (x - x.amax(1, keepdim=True)).exp()
        return e / e.sum(1, keepdim=True)

    with torch.no_grad():
        p = sum(
            w * softmax(logits_of(kinds[k], kinds[k], 1.0, -1))
            for w, k in zip(weights, ("ori", "u", "u2"), strict=True)
        )
        pt = (p / sum(weights)) ** (1 / 0.5)
        t = pt / pt.sum(1, keepdim=True)
    rows = torch.cat([kinds[k] for k in ("x", "u", "u2", "ori", "ori")])
    targets = torch.cat([torch.eye(CLASSES, dtype=t.dtype)[LABELS], t, t, t, t])
    put_out = logits_of(rows, rows[idx], lam, mix_layer)
    mixed = lam * targets + (1 - lam) * targets[idx]
    b, u = len(kinds["x"]), len(kinds["ori"])
    log_p = softmax(put_out).log()
    plain = log_p[-u:]
    return {
        "supervised": -(mixed[:b] * log_p[:b]).sum(1).mean(),
        "unsupervised": (mixed[b:-u] * (mixed[b:-u].log() - log_p[b:-u])).sum() / (3 * u),
        "hinge": (-(plain.exp() * plain).sum(1) - 0.3).clamp(min=0).mean(),
        "guessed": t,
    }


@pytest.mark.parametrize("mix_layer", [-1, 0, 1, 2])
@pytest.mark.parametrize("separate", [False, True])
def test_a_step_is_that_of_the_authors_on_the_same_permutation_and_share(mix_layer: int, separate: bool) -> None:
    torch.manual_seed(3)
    model = MeanClassifier().double()
    kinds = {name: ids_of(rows, 7, k) for k, (name, rows) in enumerate({"x": 3, "ori": 2, "u": 2, "u2": 2}.items())}
    made = torch.Generator().manual_seed(4)
    if separate:
        idx = torch.cat([torch.randperm(3, generator=made), 3 + torch.randperm(6, generator=made), torch.arange(9, 11)])
    else:
        idx = torch.cat([torch.randperm(9, generator=made), torch.arange(9, 11)])
    weights, lam = (1.0, 0.5, 0.25), 0.6875
    wanted = official(model, kinds, weights, idx, lam, mix_layer)
    wanted_total = wanted["supervised"] + 0.8 * 0.25 * wanted["unsupervised"] + 0.1 * wanted["hinge"]

    place = np.array([0, 1, 2, 5, 6, 7, 8, 3, 4])  # of each of the authors' rows among ours: x, ori, u, u2
    partner = np.empty(9, np.int64)
    partner[place] = place[idx[:9].numpy()]
    recipe = MixText(
        view_weights=weights, unlabelled_weight=0.8, rampup=40, hinge_weight=0.1, hinge_margin=0.3, separate=separate
    )
    found = recipe.loss(
        model,
        {"input_ids": kinds["x"], "labels": LABELS},
        [{"input_ids": kinds[name]} for name in ("ori", "u", "u2")],
        rng=np.random.default_rng(0),
        step=10,
        partner=partner,
        lam=lam,
        layer=mix_layer + 1,
    )
    for name in ("supervised", "unsupervised", "hinge", "guessed"):
        torch.testing.assert_close(getattr(found, name), wanted[name].detach(), rtol=0, atol=1e-10)
    assert found.weight == pytest.approx(0.8 * 0.25)
    torch.testing.assert_close(found.total, wanted_total, rtol=0, atol=1e-10)
    parameters = [p for name, p in model.named_parameters() if name != "bert.embeddings.word_embeddings.weight"]
    got, want = (torch.autograd.grad(total, parameters) for total in (found.total, wanted_total))
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


BACKBONES = ["bert-sdpa", "roberta-eager", "distilbert-sdpa", "electra-eager"]


@pytest.mark.parametrize("layer", ["words", 1, BLOCKS, "sentence"])
@pytest.mark.parametrize("name", BACKBONES)
def test_rows_of_different_lengths_see_their_own_tokens_and_their_partners(name: str, layer: str | int) -> None:
    model = hf_model(name)
    known, plain, view = sentences([4, 5], 1, 5), sentences([9, 2], 2), sentences([3, 6], 3, 6)
    partner = [4, 3, 0, 5, 1, 2]
    found = step(model, known, [plain, view], partner=partner, lam=0.75, layer=layer)

    wide = [padded(batch, 9) for batch in (known, plain, view)]
    rows = {key: torch.cat([batch[key] for batch in wide]) for key in wide[0]}
    plan = mx.Plan.whole(np.array(partner), np.full(6, 0.25))
    logits = by_hand(model, spot_of(model, blocks_of(name), layer), rows, plan, union(rows["attention_mask"], plan))
    guess = sum(torch.softmax(model(**batch).logits, 1) for batch in (plain, view)) / 2
    sharp = guess.detach() ** 2 / (guess.detach() ** 2).sum(1, keepdim=True)
    torch.testing.assert_close(found.guessed, sharp, rtol=1e-4, atol=1e-5)
    targets = torch.cat([torch.eye(CLASSES, dtype=sharp.dtype)[[0, 2]], sharp, sharp])
    targets = 0.75 * targets + 0.25 * targets[partner]
    torch.testing.assert_close(found.targets, targets, rtol=1e-4, atol=1e-5)
    ce = -(targets * torch.log_softmax(logits, 1)).sum(1)
    entropy = -(targets * targets.clamp(min=1e-30).log()).sum(1)
    wanted = ce[:2].mean() + (ce - entropy)[2:].mean()
    torch.testing.assert_close(found.total, wanted, rtol=1e-4, atol=1e-4)
    assert not hooks_left(model)


def step(model: nn.Module, known: dict[str, Tensor], unknown: list[dict[str, Tensor]], **given: Any) -> MixTextLoss:
    recipe = given.pop("recipe", MixText())
    rng = np.random.default_rng(0)
    labels = given.pop("labels", torch.tensor([0, 2, 1])[: len(known["input_ids"])])
    return recipe.loss(model, {**known, "labels": labels}, unknown, rng=rng, **given)


def padded(batch: dict[str, Tensor], length: int) -> dict[str, Tensor]:
    return {k: nn.functional.pad(v, (0, length - v.shape[1])) for k, v in batch.items()}


@pytest.mark.parametrize("network", [TextCNN, TextTransformer])
@pytest.mark.parametrize("layer", ["words", "sentence"])
def test_networks_on_words_give_the_same_loss_however_far_rows_are_padded(network: Any, layer: str) -> None:
    torch.manual_seed(0)
    model = network(nn.Embedding(VOCABULARY, 8, padding_idx=0), CLASSES, dropout=0.0)
    known, plain = sentences([4, 5], 1, 5), sentences([7, 2], 2, 7)
    losses = []
    for length in (7, 20):
        kinds = [padded(batch, length) for batch in (known, plain)]
        found = step(model, kinds[0], [kinds[1]], layer=layer)
        losses.append(found.total)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(step(model, known, [plain], layer=layer).total, losses[0])


def test_batches_without_a_mask_get_one_where_they_are_filled_up() -> None:
    model = hf_model("bert-sdpa")
    known, plain = {"input_ids": ids_of(2, 4, 1)}, {"input_ids": ids_of(2, 9, 2)}
    masked = [{**batch, "attention_mask": torch.ones_like(batch["input_ids"])} for batch in (known, plain)]
    torch.testing.assert_close(
        step(model, known, [plain], layer=1).total, step(model, masked[0], [masked[1]], layer=1).total
    )


def test_padding_takes_the_id_that_is_asked_for() -> None:
    shown: list[Tensor] = []
    model = hf_model("bert-sdpa")
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: shown.append(args[0]))
    try:
        step(model, sentences([2], 1, 2), [sentences([4], 2, 4)], layer=1, pad=1)
    finally:
        handle.remove()
    assert shown[-1][0, 2:].tolist() == [1, 1]


def test_the_hinge_looks_at_plain_rows_and_at_nothing_else() -> None:
    model, (known, plain, view) = hf_model("bert-sdpa"), (sentences([5, 5], 1, 5), sentences([4, 9]), sentences([3, 6]))
    with torch.no_grad():
        log_p = torch.log_softmax(model(**plain).logits, 1)
    entropy = -(log_p.exp() * log_p).sum(1)
    margin = float(entropy.mean())
    recipe = MixText(hinge_weight=2.0, hinge_margin=margin)
    with_hinge = step(model, known, [plain, view], recipe=recipe, layer=2, lam=0.6)
    without = step(model, known, [plain, view], layer=2, lam=0.6)
    torch.testing.assert_close(with_hinge.hinge, (entropy - margin).clamp(min=0).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(with_hinge.total - without.total, 2 * with_hinge.hinge, rtol=1e-4, atol=1e-5)
    assert (with_hinge.plan.n, without.plan.n, len(with_hinge.targets)) == (8, 6, 6)
    assert float(without.hinge) == 0


def test_guesses_carry_no_gradient_and_the_loss_carries_one_to_every_kind_of_row() -> None:
    model = TextTransformer(nn.Embedding(VOCABULARY, 8, padding_idx=0), CLASSES, dropout=0.0)
    kinds = [{"input_ids": torch.full((1, 3), k)} for k in (3, 4, 5)]
    found = step(model, kinds[0], kinds[1:], layer="sentence", partner=[0, 1, 2], lam=1.0)
    assert not found.guessed.requires_grad
    found.total.backward()
    moved = model.embedding.weight.grad.abs().sum(1)
    assert bool((moved[3:6] > 0).all())
    assert not bool(moved[6:].any())


def test_a_sure_guess_has_a_finite_loss() -> None:
    model = TextCNN(nn.Embedding(VOCABULARY, 8, padding_idx=0), 2, dropout=0.0)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([200.0, -200.0]))  # softmax is (1, 0) in float32
    found = step(model, {"input_ids": ids_of(1, 4, 1)}, [{"input_ids": ids_of(2, 4, 2)}], layer="words")
    assert found.guessed.tolist() == [[1, 0], [1, 0]]
    assert math.isfinite(float(found.total.detach()))


def test_soft_labels_are_taken_as_they_are() -> None:
    model, known, plain = hf_model("bert-sdpa"), sentences([5, 5], 1, 5), [sentences([4, 9])]
    soft = torch.eye(CLASSES)[[0, 2]]
    hard_loss, soft_loss = (step(model, known, plain, layer=1, labels=y).total for y in (torch.tensor([0, 2]), soft))
    torch.testing.assert_close(hard_loss, soft_loss)


def test_a_step_depends_on_its_generator_alone() -> None:
    model, known, plain = hf_model("bert-sdpa"), sentences([5, 5], 1, 5), [sentences([4, 9])]
    recipe = MixText((1, 2))
    first, again = (step(model, known, plain, recipe=recipe) for _ in range(2))
    assert first.plan == again.plan
    assert torch.equal(first.total, again.total)


# -- what is refused ---------------------------------------------------------------------------------------------------


class Broken(nn.Module):
    """A network with parameters whose logits are given."""

    def __init__(self, logits: Any) -> None:
        super().__init__()
        self.embedding, self.logits = nn.Embedding(VOCABULARY, 2), logits

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return self.logits(self.embedding(input_ids).sum((1, 2)))


GOOD, PLAIN = {"input_ids": ids_of(2, 4, 0)}, {"input_ids": ids_of(3, 4, 1)}
CNN = TextCNN(nn.Embedding(VOCABULARY, 8, padding_idx=0), CLASSES)


@pytest.mark.parametrize(
    ("model", "labelled", "unlabelled", "said"),
    [
        (CNN, GOOD, [PLAIN], "expected a batch with input_ids and labels"),
        (CNN, {**GOOD, "labels": torch.tensor([0, 3])}, [PLAIN], "puts out 3 logits, for the classes 0 to 2"),
        (CNN, {**GOOD, "labels": torch.tensor([0, -1])}, [PLAIN], "labels from -1 to 0"),
        (CNN, {**GOOD, "labels": torch.tensor(0)}, [PLAIN], r"shape \(\), expected a tensor \(2,\)"),
        (CNN, {**GOOD, "labels": torch.tensor([0])}, [PLAIN], r"expected a tensor \(2,\) of class numbers"),
        (CNN, {**GOOD, "labels": torch.ones(2, 4) / 4}, [PLAIN], r"floats \(2, 3\)"),
        (CNN, {**GOOD, "labels": torch.ones(2, 3)}, [PLAIN], "do not sum to 1"),
        (CNN, {**GOOD, "labels": torch.full((2, 3), math.nan)}, [PLAIN], "do not sum to 1"),
        (CNN, {"input_ids": ids_of(0, 4, 0), "labels": LABELS[:0]}, [PLAIN], "one row or more"),
        (CNN, {**GOOD, "labels": LABELS[:2]}, [{"input_ids": ids_of(0, 4, 0)}], "one row or more"),
        (CNN, {**GOOD, "labels": LABELS[:2]}, [], "list .originals"),
        (CNN, {**GOOD, "labels": LABELS[:2]}, PLAIN, "list .originals"),
        (CNN, {**GOOD, "labels": LABELS[:2]}, [PLAIN, GOOD], r"have \[3, 2\] rows"),
        (CNN, {**GOOD, "labels": LABELS[:2]}, [{"ids": 1}], "expected a batch with input_ids"),
        (CNN, {**GOOD, "labels": LABELS[:2]}, [{**PLAIN, "attention_mask": torch.ones(3, 4)}], "the same in all"),
        (CNN, {**GOOD, "scores": torch.ones(2), "labels": LABELS[:2]}, [{**PLAIN, "scores": 1}], "shape of input_ids"),
        (Broken(lambda x: x * math.nan), {**GOOD, "labels": LABELS[:2]}, [PLAIN], "logits of shape"),
        (Broken(lambda x: x[:, None] * torch.full((3,), math.nan)), {**GOOD, "labels": LABELS[:2]}, [PLAIN], "NaN"),
    ],
)
def test_what_is_no_step_is_refused(model: nn.Module, labelled: Any, unlabelled: Any, said: str) -> None:
    with pytest.raises(mx.MixError, match=said):
        MixText(("words",)).loss(model, labelled, unlabelled, rng=np.random.default_rng(0))


def test_a_layer_that_the_model_lacks_is_refused_and_leaves_no_gradient() -> None:
    with pytest.raises(mx.MixError, match=r"layer 12: .* has 3 blocks"):
        step(hf_model("bert-sdpa"), sentences([5], 1, 5), [sentences([4])], layer=12)
    with pytest.raises(mx.MixError, match="2 weights for 1 views"):
        step(CNN, GOOD, [PLAIN], recipe=MixText(("words",), view_weights=(1, 1)))
    assert all(p.grad is None for p in CNN.parameters())


def test_logits_that_are_nan_in_the_mixed_rows_alone_are_refused() -> None:
    calls: list[int] = []

    def later(x: Tensor) -> Tensor:
        calls.append(1)
        return x[:, None] * torch.tensor([1.0, math.nan if len(calls) > 1 else 0.0])

    with pytest.raises(mx.MixError, match="the mixed batch has logits that are NaN"):
        step(Broken(later), GOOD, [PLAIN], layer="embedding", labels=torch.tensor([0, 1]))
