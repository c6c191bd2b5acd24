"""The training step of SSMix: the loss of the paper, in 2 forwards and 2 or 3 backwards, on any network."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hidden_models import LENGTH, build, hf_model, hooks_left, sentences
from mixops.pipelines.saliency import embedding_saliency
from mixops.pipelines.ssmix import ssmix_backward, ssmix_loss
from mixops.pipelines.text.models import TextCNN
from torch import Tensor, nn
from torch.nn import functional as F

import mixops as mx

ROWS = 6
LENGTHS = [9, 5, 2, 7, 8, 4]
OP = mx.SSMix(0.3)
FAMILIES = ["bert-sdpa", "roberta-eager", "distilbert-sdpa", "electra-sdpa", "gpt2-sdpa"]
STEPS = [ssmix_loss, ssmix_backward]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batch_of(seed: int = 0) -> dict[str, Tensor]:
    labels = torch.from_numpy(np.random.default_rng(seed + 1).integers(0, 3, ROWS))
    return {**sentences(LENGTHS, seed), "labels": labels}


def rng(step: int = 0) -> np.random.Generator:
    return mx.streams.plan_stream(7, 0, step)


def cnn() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return TextCNN(nn.Embedding(60, 8, padding_idx=0), 3, dropout=0.0)


def logits_of(model: Any, batch: dict[str, Tensor], ids: Tensor) -> Tensor:
    given = {name: value for name, value in batch.items() if name in ("attention_mask", "token_type_ids")}
    output = model(input_ids=ids, **given)
    return getattr(output, "logits", output)


def by_hand(model: Any, batch: dict[str, Tensor], op: mx.Operator, weight: float = 0.5) -> Tensor:
    """The loss written out: saliency by a pass of its own, ids mixed token by token, one cross entropy a row."""
    scores = embedding_saliency(model, batch) if "saliency" in op.needs else None
    lengths = batch["attention_mask"].sum(1).numpy()
    evidence = {"saliency": scores} if scores is not None else {}
    plan = op.draw(rng(), mx.Spec(ROWS, (LENGTH,), lengths), **evidence)
    assert isinstance(plan, mx.Plan)
    ids = batch["input_ids"].clone()
    clean = F.cross_entropy(logits_of(model, batch, batch["input_ids"]), batch["labels"])
    for n in range(ROWS):
        for k in range(plan.k):
            (a, b), (c, d), donor = plan.box[n, k], plan.donor[n, k], plan.partner[n, k]
            if plan.opacity[n, k]:
                ids[n, a:b] = batch["input_ids"][donor, c:d]
    logits = logits_of(model, batch, ids)
    mixed = torch.zeros((), dtype=logits.dtype)
    for n in range(ROWS):
        mixed = mixed + float(plan.lam[n]) * F.cross_entropy(logits[n], batch["labels"][n])
        for k in range(plan.k):
            other = batch["labels"][int(plan.partner[n, k])]
            mixed = mixed + float(plan.weight[n, k]) * F.cross_entropy(logits[n], other)
    return weight * clean + (1 - weight) * mixed / ROWS


def gradients(model: Any) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def after(step: Any, model: Any, batch: dict[str, Tensor], op: mx.Operator, **options: Any) -> tuple[Any, Any]:
    """(result, gradients of all parameters) of a step in either form."""
    model.zero_grad()
    done = step(model, batch, op, rng(), **options)
    if done.total.requires_grad:
        assert all(p.grad is None for p in model.parameters())
        done.total.backward()
    return done, gradients(model)


# -- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", [*FAMILIES, "cnn"])
@pytest.mark.parametrize("op", [OP, mx.SpanMix(0.3), mx.SpanMix(0.3, pieces="tokens", align=False)], ids=repr)
def test_the_step_is_that_of_the_paper_on_every_network(step: Any, name: str, op: mx.Operator) -> None:
    model = cnn().double() if name == "cnn" else hf_model(name)
    batch = batch_of()
    expected = by_hand(model, batch, op)
    model.zero_grad()
    expected.backward()
    theirs = gradients(model)
    done, ours = after(step, model, batch, op)
    torch.testing.assert_close(done.total, expected.detach(), check_dtype=False)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value)
    assert hooks_left(model) == 0
    assert (np.asarray(done.plan.weight).sum(1) > 0).sum() >= ROWS // 2
    assert (done.saliency is None) == ("saliency" not in op.needs)


def test_both_forms_of_the_step_draw_the_same_and_say_the_same() -> None:
    model, batch = hf_model("bert-sdpa"), batch_of()
    (one, _), (other, _) = (after(step, model, batch, OP, clean_weight=0.3) for step in STEPS)
    assert one.plan == other.plan
    for name in ("total", "clean", "mixed", "logits"):
        torch.testing.assert_close(getattr(one, name).detach(), getattr(other, name))
    torch.testing.assert_close(one.total.detach(), 0.3 * one.clean + 0.7 * one.mixed)
    assert one.total.requires_grad is not other.total.requires_grad
    factor = float(one.saliency.max() / other.saliency.max())
    torch.testing.assert_close(one.saliency, factor * other.saliency)


def test_the_mean_of_both_losses_is_the_mean_of_a_pairs_four() -> None:
    """The authors' loss: both sentences of a pair, and the mixtures in both directions."""
    model, batch = hf_model("bert-sdpa"), batch_of()
    done = ssmix_loss(model, batch, mx.SSMix(0.3, pairing="flip"), rng())
    assert isinstance(done.plan, mx.Plan)
    ids = mx.mix(batch["input_ids"], done.plan, "b t", "discrete")
    clean = F.cross_entropy(logits_of(model, batch, batch["input_ids"]), batch["labels"], reduction="none")
    logits, labels = logits_of(model, batch, ids), batch["labels"]
    lam = torch.from_numpy(done.plan.lam)
    own, other = (F.cross_entropy(logits, y, reduction="none") for y in (labels, labels.flip(0)))
    mixed = lam * own + (1 - lam) * other
    half = ROWS // 2
    four = [clean[:half], clean[half:], mixed[:half], mixed[half:]]  # L, R, L <- R, R <- L
    expected = torch.stack([one.mean() for one in four]).mean()
    torch.testing.assert_close(done.total.detach(), expected.detach(), check_dtype=False)


def test_the_draw_depends_on_the_key_alone() -> None:
    model, batch = hf_model("bert-sdpa"), batch_of()
    plans = [ssmix_loss(model, batch, OP, rng(step)).plan for step in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]


# -- what it costs -----------------------------------------------------------------------------------------------------


class Counter:
    """Counts what passes through a block: forwards, backwards of activations, backwards of weights."""

    def __init__(self, model: Any, block: nn.Module, weight: nn.Parameter) -> None:
        self.forwards = self.backwards = self.weights = 0
        block.register_forward_hook(self._forward)
        weight.register_post_accumulate_grad_hook(self._weight)

    def _forward(self, module: nn.Module, args: Any, output: Any) -> None:
        self.forwards += 1
        (output[0] if isinstance(output, tuple) else output).register_hook(self._backward)

    def _backward(self, gradient: Tensor) -> None:
        self.backwards += 1

    def _weight(self, weight: Tensor) -> None:
        self.weights += 1


@pytest.mark.parametrize(
    ("step", "op", "backwards"),
    [(ssmix_loss, OP, 3), (ssmix_backward, OP, 2), (ssmix_loss, mx.SpanMix(0.3), 2), (ssmix_backward, mx.SpanMix(), 2)],
)
def test_a_step_is_two_forwards_and_at_most_three_backwards(step: Any, op: mx.Operator, backwards: int) -> None:
    model = build("bert-sdpa")
    block = model.bert.encoder.layer[1]
    count = Counter(model, block, block.output.dense.weight)
    done = step(model, batch_of(), op, rng())
    if step is ssmix_loss:
        assert count.weights == 0
        assert count.backwards == backwards - 2
        done.total.backward()
    assert (count.forwards, count.backwards) == (2, backwards)
    assert count.weights == (1 if step is ssmix_loss else 2)  # one backward() through both graphs, or two


def test_saliency_is_that_of_the_forward_that_is_trained_on() -> None:
    """With dropout a pass of its own would draw another mask: the step draws two, for its two forwards."""
    model, batch = build("bert-sdpa").train(), batch_of()
    torch.manual_seed(3)
    scores = embedding_saliency(model, batch)
    torch.manual_seed(3)
    done = ssmix_loss(model, batch, OP, rng())
    torch.testing.assert_close(done.saliency, scores)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    for _ in range(2):
        model(**batch)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("step", STEPS)
def test_a_model_learns_from_it(step: Any) -> None:
    model, batch = build("bert-sdpa").train(), batch_of()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.0)
    losses = []
    for k in range(60):
        done = step(model, batch, OP, rng(k))
        if done.total.requires_grad:
            done.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(done.clean))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("frozen", ["words", "all but the head"])
def test_frozen_weights_have_no_gradient_and_spans_are_found_all_the_same(step: Any, frozen: str) -> None:
    model, batch = build("bert-sdpa").eval(), batch_of()
    expected = ssmix_loss(model, batch, OP, rng()).plan
    (model.get_input_embeddings() if frozen == "words" else model.bert).requires_grad_(False)
    done, found = after(step, model, batch, OP)
    assert done.plan == expected
    assert set(found) == {name for name, p in model.named_parameters() if p.requires_grad}


def test_a_backward_of_ones_own_is_called_for_both_halves() -> None:
    model, batch, seen = build("bert-sdpa").eval(), batch_of(), []

    def scaled(loss: Tensor) -> None:
        seen.append(float(loss.detach()))
        (1024 * loss).backward()

    plain, expected = after(ssmix_backward, model, batch, OP)
    done, found = after(ssmix_backward, model, batch, OP, backward=scaled)
    assert done.plan == plain.plan
    assert seen == pytest.approx([0.5 * float(done.clean), 0.5 * float(done.mixed)])
    for name, value in expected.items():
        torch.testing.assert_close(found[name], 1024 * value, rtol=1e-4, atol=1e-4)


def test_it_works_under_autocast() -> None:
    model, batch = build("bert-sdpa").eval(), batch_of()
    plain = ssmix_loss(model, batch, mx.SpanMix(0.3), rng())
    with torch.autocast("cpu", torch.bfloat16):
        done = ssmix_loss(model, batch, mx.SpanMix(0.3), rng())
        scored = ssmix_loss(model, batch, OP, rng())
    done.total.backward()
    assert float(done.total.detach()) == pytest.approx(float(plain.total.detach()), rel=0.05)
    assert scored.saliency is not None
    assert torch.isfinite(scored.saliency).all()


# -- special tokens, pairs, other evidence -----------------------------------------------------------------------------


def touched(done: Any) -> set[tuple[int, int]]:
    """(row, place) of every token that was replaced."""
    plan = done.plan
    return {
        (n, t)
        for n in range(plan.n)
        for k in range(plan.k)
        if plan.opacity[n, k]
        for t in range(*plan.box[n, k])
    }  # fmt: skip


def test_special_tokens_are_those_of_the_batch_or_of_the_tokenizer_or_the_first_and_last() -> None:
    model, batch = hf_model("bert-sdpa"), batch_of()
    ids = batch["input_ids"]
    ids[:, 1] = 1  # special in the middle, too
    ids[:, 0] = 2
    mask = torch.isin(ids, torch.tensor([0, 1, 2])).long()
    named = ssmix_loss(model, {**batch, "special_tokens_mask": mask}, mx.SSMix(1.0), rng())
    listed = ssmix_loss(model, batch, mx.SSMix(1.0), rng(), special_ids=[0, 1, 2])
    none = ssmix_loss(model, batch, mx.SSMix(1.0), rng(), special_ids=())
    unsaid = ssmix_loss(model, batch, mx.SSMix(1.0), rng())
    assert named.plan == listed.plan
    assert all(t >= 2 for _, t in touched(named))
    assert any(t == 0 for _, t in touched(none))
    assert any(t == 1 for _, t in touched(unsaid))
    assert all(0 < t < LENGTHS[n] - 1 for n, t in touched(unsaid))


@pytest.mark.parametrize("name", ["token_type_ids", "segments"])
def test_pairs_are_mixed_half_by_half(name: str) -> None:
    model = hf_model("bert-sdpa" if name == "token_type_ids" else "roberta-eager")
    batch = batch_of()
    batch[name] = (torch.arange(LENGTH) >= 4).long().expand(ROWS, -1) * batch["attention_mask"]
    op = mx.SSMix(0.3, pairs=True)
    done = ssmix_loss(model, batch, op, rng())
    assert done.plan.k == 2
    assert {t >= 4 for _, t in touched(done)} == {False, True}
    with pytest.raises(mx.MixValueError, match=r"no 'token_type_ids'.*RoBERTa.*'segments'.*sequence_ids"):
        ssmix_loss(model, {k: v for k, v in batch.items() if k != name}, op, rng())


def test_scores_of_the_batch_are_taken_in_place_of_gradients() -> None:
    model, batch = build("bert-sdpa"), batch_of()
    scores = torch.from_numpy(np.random.default_rng(5).random((ROWS, LENGTH)))
    block = model.bert.encoder.layer[1]
    count = Counter(model, block, block.output.dense.weight)
    done = ssmix_loss(model, {**batch, "saliency": scores}, OP, rng())
    assert (count.forwards, count.backwards) == (2, 0)
    assert done.saliency is scores
    lengths = np.array(LENGTHS)
    assert done.plan == OP.draw(rng(), mx.Spec(ROWS, (LENGTH,), lengths), saliency=scores.numpy())


@pytest.mark.parametrize("op", [mx.WordMixup(0.5), mx.TMix([1, 2]), mx.SentenceMixup(lam=0.5)], ids=repr)
def test_operators_on_hidden_states_are_mixed_inside_the_model(op: mx.Operator) -> None:
    from mixops.pipelines.hidden import mix_hidden

    model, batch = hf_model("bert-sdpa"), batch_of()
    done, found = after(ssmix_backward, model, batch, op)
    plan = op.draw(rng(), mx.Spec(ROWS))
    assert done.plan == plan
    with mix_hidden(model, plan.layer, plan):
        logits = logits_of(model, batch, batch["input_ids"])
    expected = mx.mixed_loss(F.cross_entropy, logits, *mx.pair_targets(batch["labels"], plan))
    torch.testing.assert_close(done.mixed, expected.detach())
    assert found


def test_a_cut_inside_the_model_is_the_cut_of_the_plan() -> None:
    from mixops.pipelines.hidden import mix_hidden

    model, batch = hf_model("bert-sdpa"), batch_of()
    op = mx.HiddenCut("bert.encoder.layer.1.output.dense", share=0.5)
    done = ssmix_loss(model, batch, op, rng())
    assert (done.plan.box[..., 1] > done.plan.box[..., 0]).all()
    with mix_hidden(model, done.plan.layer, done.plan, "b t d"):
        logits = logits_of(model, batch, batch["input_ids"])
    torch.testing.assert_close(done.mixed, F.cross_entropy(logits, batch["labels"]).detach())
    assert not torch.allclose(done.mixed, done.clean)


def test_an_operator_that_is_off_leaves_the_batch_as_it_is() -> None:
    model, batch = hf_model("bert-sdpa"), batch_of()
    done = ssmix_loss(model, batch, mx.SSMix(0.3, until=2), rng(), epoch=2)
    assert done.plan.is_identity
    torch.testing.assert_close(done.mixed, done.clean)
    on = ssmix_loss(model, batch, mx.SSMix(0.3, until=2), rng(), epoch=1)
    assert not on.plan.is_identity


def test_fills_write_the_id_that_is_given() -> None:
    """A baseline of unknown tokens: a plan of fills, and an id for them."""
    batch, fill = batch_of(), 59
    seen: list[Tensor] = []

    class Fills(mx.Operator):
        def _draw(self, rng: np.random.Generator, spec: mx.Spec) -> mx.Plan:
            box = np.tile(np.array([[[1, 2]]]), (spec.n, 1, 1))
            one = np.ones((spec.n, 1), np.float32)
            return mx.Plan(np.arange(spec.n), -one.astype(int), box, box, one, 0 * one, (LENGTH,))

    model = cnn()
    model.embedding.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    ssmix_loss(model, batch, Fills(), rng(), fill=fill)
    assert torch.equal(seen[0], batch["input_ids"])
    assert (seen[1][:, 1] == fill).all()
    assert torch.equal(seen[1][:, 2:], batch["input_ids"][:, 2:])
    with pytest.raises(mx.MixValueError, match="paints fills, and no id was given for them: fill="):
        ssmix_loss(cnn(), batch, Fills(), rng())


def test_a_loss_of_ones_own_is_taken_for_both_halves() -> None:
    model, batch = hf_model("bert-sdpa"), batch_of()
    soft = {**batch, "labels": F.one_hot(batch["labels"], 3).double()}
    one = ssmix_loss(model, soft, OP, rng(), loss=F.cross_entropy)
    other = ssmix_loss(model, batch, OP, rng())
    assert one.plan == other.plan
    torch.testing.assert_close(one.total, other.total)


# -- refusals ----------------------------------------------------------------------------------------------------------


REFUSED: list[tuple[Callable[[dict[str, Tensor]], dict[str, Any]], str]] = [
    (lambda b: {"op": "SSMix"}, "op is str"),
    (lambda b: {"clean_weight": 0.0}, r"clean_weight=0.0, expected a number between 0 and 1"),
    (lambda b: {"clean_weight": 1}, "clean_weight=1"),
    (lambda b: {"clean_weight": True}, "clean_weight=True"),
    (lambda b: {"special_ids": "[CLS]"}, "tokenizer.all_special_ids"),
    (lambda b: {"special_ids": 101}, "tokenizer.all_special_ids"),
    (lambda b: {"rows": "ids"}, r"'ids' is not in the batch"),
    (lambda b: {"batch": {k: v for k, v in b.items() if k != "labels"}}, "no 'labels'"),
    (lambda b: {"batch": {k: v for k, v in b.items() if k != "attention_mask"}}, "attention_mask"),
    (lambda b: {"batch": {**b, "attention_mask": b["attention_mask"].flip(1)}}, "padded in front"),
    (lambda b: {"batch": {**b, "saliency": torch.zeros(ROWS, 2)}}, "saliency"),
    (lambda b: {"op": mx.Mixup(1.0)}, "blend|averaged|opacity"),
    (lambda b: {"rng": 7}, "numpy.random.Generator"),
    (lambda b: {"embedding": "nowhere"}, "no such module"),
    (lambda b: {"op": mx.SSMix(0.3) | mx.SpanMix(0.3)}, r"more than two.*one operator that mixes rows; OneOf"),
    (
        lambda b: {"op": mx.SSMix(pairs=True), "batch": {**b, "token_type_ids": torch.zeros_like(b["input_ids"])}},
        r"'token_type_ids' is 0 everywhere.*'segments'",
    ),
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("change", "said"), REFUSED)
def test_what_makes_no_sense_is_refused(step: Any, change: Any, said: str) -> None:
    model, batch = hf_model("bert-sdpa"), batch_of()
    given = {"batch": batch, "op": OP, "rng": rng(), **change(batch)}
    with pytest.raises(mx.MixError, match=said):
        step(model, **given)
    model.zero_grad()
    assert hooks_left(model) == 0


def test_a_step_without_gradients_and_a_backward_that_is_none_are_refused() -> None:
    model, batch = cnn(), batch_of()
    with torch.no_grad(), pytest.raises(mx.MixValueError, match="gradients are off"):
        ssmix_loss(model, batch, OP, rng())
    with pytest.raises(mx.MixTypeError, match="backward=3"):
        ssmix_backward(model, batch, OP, rng(), backward=3)
    with pytest.raises(mx.MixValueError, match="loss does not depend"):
        ssmix_backward(model, batch, OP, rng(), backward=lambda loss: None)


def test_the_trainer_that_mixes_inside_the_model_names_the_step_to_take() -> None:
    import transformers
    from mixops.pipelines.trainer import TrainerMixin

    class MixTrainer(TrainerMixin, transformers.Trainer):
        pass

    with pytest.raises(mx.MixValueError, match=r"needs saliency.*compute_loss.*ssmix_loss"):
        MixTrainer(build("bert-sdpa"), mix=OP)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_trainer_of_the_documents_takes_the_mean_loss_and_draws_for_each_batch(
    accumulated: int, tmp_path: Path
) -> None:
    import transformers

    page = (Path(__file__).parent.parent / "docs" / "ssmix.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "SSMixTrainer" in block)
    names: dict[str, Any] = {}
    exec(compile(code, "ssmix.md", "exec"), names)
    plans, losses = [], []

    def noted(*given: Any) -> Any:
        done = ssmix_loss(*given)
        plans.append(done.plan)
        losses.append(float(done.total.detach()))
        return done

    names["ssmix_loss"] = noted
    batch, model = batch_of(), build("bert-sdpa")
    rows = [{name: value[n] for name, value in batch.items()} for n in range(ROWS)] * accumulated
    before = model.classifier.weight.detach().clone()
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=ROWS,
        gradient_accumulation_steps=accumulated,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = names["SSMixTrainer"](model, arguments, train_dataset=rows)
    trainer.train()
    assert len(plans) == 2 * accumulated
    assert all(one != other for one, other in itertools.combinations(plans, 2))
    told = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    means = np.array(losses).reshape(2, accumulated).mean(1)
    np.testing.assert_allclose(told, means, rtol=1e-4)
    assert not torch.equal(model.classifier.weight, before)
