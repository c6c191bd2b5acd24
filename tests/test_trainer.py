"""TrainerMixin in real trainings of a tiny BERT: what is mixed, what is learnt, and what a resumed training does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from mixops.pipelines import KeyedBatchSampler, keyed
from mixops.pipelines.hidden import mix_hidden
from mixops.pipelines.plan_collate import PlanCollator
from mixops.pipelines.trainer import TrainerMixin
from tiny_bert import CLASSES, LENGTH, ROWS, bert, close, hooks, sentences, weights
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import BertForTokenClassification, Trainer, TrainingArguments, default_data_collator

import mixops as mx
from mixops import streams


class MixTrainer(TrainerMixin, Trainer):
    """The two lines of the documentation."""


class Noted(mx.TMix):
    """TMix that writes down what it draws for."""

    drawn: ClassVar[list[tuple[mx.Plan, mx.Spec]]] = []

    def draw(self, rng: Any, spec: mx.Spec, **evidence: Any) -> Any:
        plan = super().draw(rng, spec, **evidence)
        self.drawn.append((plan, spec))
        return plan


@pytest.fixture(autouse=True)
def nothing_drawn() -> None:
    Noted.drawn.clear()


OP = Noted((0, 1, 3), per="sample")


def trainer(folder: Path, model: Any = None, *, kind: type[Trainer] = MixTrainer, **options: Any) -> Any:
    """A trainer on the CPU; words of TrainingArguments and of the Trainer together."""
    own = ("mix", "mix_seed", "mix_loss", "mix_mask", "plan_key", "compute_loss_func", "callbacks")
    given = {name: options.pop(name) for name in own if name in options}
    data = options.pop("data", None) or sentences()
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 0.1,
        "optim": "sgd",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
        **options,
    }
    return kind(model or bert(), TrainingArguments(str(folder), **settings), train_dataset=data, **given)


def test_it_is_two_lines_and_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = bert(dropout=0.1)
    before, handles = weights(model), hooks(model)
    done = trainer(tmp_path, model, mix=OP, mix_seed=7).train()
    assert np.isfinite(done.training_loss)
    assert done.global_step == len(Noted.drawn) == 2 * -(-ROWS // 4)
    assert not close(before, weights(model))
    assert model.config.problem_type is None  # the model saw no labels to guess from
    assert hooks(model) == handles


def test_plans_are_those_of_the_seed_the_epoch_and_the_step(tmp_path: Path) -> None:
    trainer(tmp_path, mix=OP, mix_seed=7).train()
    per_epoch = -(-ROWS // 4)
    for step, (plan, spec) in enumerate(Noted.drawn):
        assert (spec.epoch, spec.step) == (step // per_epoch, step)
        again = mx.TMix((0, 1, 3), per="sample").draw(streams.plan_stream(7, step // per_epoch, step, 0), spec)
        assert plan == again


def test_mixing_nothing_trains_as_the_trainer_does(tmp_path: Path) -> None:
    trained = []
    for kind, options in ((Trainer, {}), (MixTrainer, {}), (MixTrainer, {"mix": mx.TMix((0, 1, 3), alpha=0)})):
        model = bert()
        trainer(tmp_path, model, kind=kind, **options).train()
        trained.append(weights(model))
    assert close(trained[0], trained[1])
    assert close(trained[0], trained[2])


@pytest.mark.parametrize("layer", [0, 2, 3, "words", "sentence", "bert.encoder.layer.1"])
def test_a_step_is_the_step_of_a_loop_written_by_hand(tmp_path: Path, layer: Any) -> None:
    op, model, by_hand = Noted([layer], per="sample"), bert(), bert()
    trainer(tmp_path, model, mix=op, max_steps=1, per_device_train_batch_size=ROWS, max_grad_norm=0).train()
    ((plan, _),) = Noted.drawn
    batch = default_data_collator(epoch_rows(tmp_path))
    labels = batch.pop("labels")
    by_hand.train()
    with mix_hidden(by_hand, layer, plan):
        logits = by_hand(**batch).logits
    mx.mixed_loss(F.cross_entropy, logits, *mx.pair_targets(labels, plan)).backward()
    torch.optim.SGD(by_hand.parameters(), 0.1).step()
    assert close(weights(model), weights(by_hand))


def epoch_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows in the order of the first batch of ROWS that a trainer takes."""
    (batch,) = list(trainer(folder, per_device_train_batch_size=ROWS).get_train_dataloader())
    return [{name: batch[name][i] for name in batch} for i in range(ROWS)]


def drawn_for(rows: int, seed: int) -> mx.Plan:
    return mx.TMix([2], per="sample").draw(np.random.default_rng(seed), mx.Spec(rows))


class Given(MixTrainer):
    """Trains on batches that are given, in their order."""

    batches: list[dict[str, Any]]

    def get_train_dataloader(self) -> Any:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]


def loss_of(folder: Path, model: Any, batch: dict[str, Any], plan: mx.Plan, **options: Any) -> float:
    """The loss that a training of one step reports."""
    one = trainer(folder, model, kind=Given, max_steps=1, learning_rate=0.0, **options)
    one.batches = [{**batch, "plan": plan}]
    return float(one.train().training_loss)


def logits_of(model: Any, batch: dict[str, Any], plan: mx.Plan) -> torch.Tensor:
    """What the mixed model says."""
    with mix_hidden(model, plan.layer, plan):
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits  # type: ignore[no-any-return]


def test_accumulated_batches_learn_what_one_large_batch_does(tmp_path: Path) -> None:
    parts = [drawn_for(4, seed) for seed in (1, 2)]
    moved = mx.Plan.concat([parts[0], parts[1].on(np.arange(4, 8))])
    rows = [default_data_collator(sentences(8)[i : i + 4]) for i in (0, 4)]
    small = [{**batch, "plan": plan} for batch, plan in zip(rows, parts, strict=True)]
    large = [{**default_data_collator(sentences(8)), "plan": moved}]
    trained = []
    for batches, count in ((small, 2), (large, 1)):
        model = bert()
        one = trainer(tmp_path, model, kind=Given, gradient_accumulation_steps=count, max_steps=1)
        one.batches = batches
        logged = one.train().training_loss
        trained.append((weights(model), logged))
    assert close(trained[0][0], trained[1][0])
    assert trained[0][1] == pytest.approx(trained[1][1], rel=1e-5)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_training_draws_and_learns_what_an_uninterrupted_one_does(tmp_path: Path, accumulation: int) -> None:
    options = {"mix": OP, "gradient_accumulation_steps": accumulation, "num_train_epochs": 3, "mix_seed": 5}
    whole = bert()
    trainer(tmp_path / "whole", whole, **options).train()
    plans = [plan for plan, _ in Noted.drawn]
    assert all(a != b for a, b in combinations(plans, 2))
    specs = [(spec.epoch, spec.step) for _, spec in Noted.drawn]
    Noted.drawn.clear()

    class Stopped(Exception):
        pass

    class Breaks(MixTrainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == 5:
                raise Stopped
            return super().training_step(*args, **kwargs)

    saving = {"save_strategy": "steps", "save_steps": 4}
    with pytest.raises(Stopped):
        trainer(tmp_path / "cut", kind=Breaks, **options, **saving).train()
    Noted.drawn.clear()
    again = bert()
    trainer(tmp_path / "cut", again, **options, **saving).train(resume_from_checkpoint=True)
    assert len(Noted.drawn) == len(plans) - sum(step < 4 for _, step in specs)
    assert [plan for plan, _ in Noted.drawn] == plans[-len(Noted.drawn) :]
    assert [(spec.epoch, spec.step) for _, spec in Noted.drawn] == specs[-len(Noted.drawn) :]
    assert close(weights(again), weights(whole))


def test_a_training_that_broke_off_can_be_started_anew(tmp_path: Path) -> None:
    class Breaks(MixTrainer):
        steps = 0

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            self.steps += 1
            if self.steps == 2:
                raise KeyError("once")
            return super().training_step(*args, **kwargs)

    one = trainer(tmp_path, kind=Breaks, mix=OP, gradient_accumulation_steps=2, num_train_epochs=1)
    with pytest.raises(KeyError):
        one.train()
    first = Noted.drawn[0][0]
    Noted.drawn.clear()
    one.train()
    assert Noted.drawn[0][0] == first


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(tmp_path: Path, reentrant: bool) -> None:
    trained = []
    for options in (
        {},
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": reentrant}},
    ):
        model = bert(dropout=0.1)
        trainer(tmp_path, model, mix=OP, **options).train()
        trained.append(weights(model))
    assert close(*trained)


def test_evaluation_and_prediction_are_the_trainers_own(tmp_path: Path) -> None:
    data = sentences()
    mixed, plain = (trainer(tmp_path, kind=k, **o) for k, o in ((MixTrainer, {"mix": OP}), (Trainer, {})))
    assert mixed.evaluate(data)["eval_loss"] == plain.evaluate(data)["eval_loss"]
    assert np.array_equal(mixed.predict(data).predictions, plain.predict(data).predictions)
    assert not Noted.drawn


def test_a_plan_in_an_evaluated_batch_is_left_aside(tmp_path: Path) -> None:
    one = trainer(tmp_path, mix=OP)
    batch = default_data_collator(sentences(4))
    expected = one.prediction_step(one.model, dict(batch), prediction_loss_only=False)
    got = one.prediction_step(one.model, {**batch, "plan": drawn_for(4, 1)}, prediction_loss_only=False)
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_plan_that_the_loader_drew_is_the_one_that_mixes(tmp_path: Path, workers: int) -> None:
    class Loading(MixTrainer):
        def get_train_dataloader(self) -> Any:
            data = sentences()
            return DataLoader(
                keyed(data),
                batch_sampler=KeyedBatchSampler(data, 4, seed=1, shuffle=True),
                collate_fn=PlanCollator(mx.TMix([2]), 7, collate=default_data_collator),
                num_workers=workers,
                multiprocessing_context="fork" if workers else None,
            )

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(self._mix_plan)
            return super().compute_loss(*args, **kwargs)

    seen: list[Any] = []
    one = trainer(tmp_path, kind=Loading)
    assert one.args.remove_unused_columns
    one.train()
    counts = [4] * (ROWS // 4) + [ROWS % 4]
    keys = [(e, s, 0) for e in (0, 1) for s in range(len(counts))]
    op = mx.TMix([2])
    assert seen == [op.draw(streams.plan_stream(7, *key), mx.Spec(counts[key[1]])) for key in keys]


def test_labels_are_smoothed_before_they_are_mixed(tmp_path: Path) -> None:
    model, batch, plan = bert(), default_data_collator(sentences(8)), drawn_for(8, 1)
    loss = loss_of(tmp_path, model, batch, plan, label_smoothing_factor=0.1)
    soft = mx.soft_targets(batch["labels"], plan, CLASSES, smoothing=0.1)
    assert loss == pytest.approx(F.cross_entropy(logits_of(model, batch, plan), soft).item(), rel=1e-5)


def test_one_output_is_regressed_on(tmp_path: Path) -> None:
    model, plan = bert(num_labels=1), drawn_for(8, 1)
    batch = default_data_collator(sentences(8, lambda ids: float(ids[0])))
    loss = loss_of(tmp_path, model, batch, plan)
    got = logits_of(model, batch, plan)[:, 0]
    ya, yb, lam = mx.pair_targets(batch["labels"], plan)
    assert loss == pytest.approx((lam * (got - ya) ** 2 + (1 - lam) * (got - yb) ** 2).mean().item(), rel=1e-5)
    assert model.config.problem_type is None


def test_several_labels_a_row_are_told_by_the_problem_type(tmp_path: Path) -> None:
    model, plan = bert(), drawn_for(8, 1)
    batch = default_data_collator(sentences(8, lambda ids: [float(i % 2) for i in ids[:CLASSES]]))
    with pytest.raises(mx.MixError, match=r"config\.problem_type"):
        loss_of(tmp_path, model, batch, plan)
    model.config.problem_type = "multi_label_classification"
    soft = mx.soft_targets(batch["labels"], plan)
    expected = F.binary_cross_entropy_with_logits(logits_of(model, batch, plan), soft).item()
    assert loss_of(tmp_path, model, batch, plan) == pytest.approx(expected, rel=1e-5)


def by_token(logits: Any, labels: Any, reduction: str = "mean") -> Any:
    return F.cross_entropy(logits.transpose(1, 2), labels, reduction=reduction)


def test_another_loss_can_be_given(tmp_path: Path) -> None:
    model, plan = bert(kind=BertForTokenClassification), drawn_for(8, 1)
    batch = default_data_collator(sentences(8, lambda ids: [int(i) % CLASSES for i in ids]))
    with pytest.raises(mx.MixError, match="as mix_loss="):
        loss_of(tmp_path, model, batch, plan)
    logits, (ya, yb, lam) = logits_of(model, batch, plan), mx.pair_targets(batch["labels"], plan)
    each = lam[:, None] * by_token(logits, ya, "none") + (1 - lam[:, None]) * by_token(logits, yb, "none")
    assert loss_of(tmp_path, model, batch, plan, mix_loss=by_token) == pytest.approx(each.mean().item(), rel=1e-5)


class Plain(torch.nn.Module):
    """A model that is no model of transformers, and returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = torch.nn.Embedding(40, 8), torch.nn.Linear(8, CLASSES)

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any = None) -> Any:
        assert labels is None
        return (self.head(self.table(input_ids).mean(1)),)


def test_any_model_will_do(tmp_path: Path) -> None:
    model = Plain()
    before = weights(model)
    trainer(tmp_path, model, mix=mx.OneOf([mx.WordMixup(), mx.SentenceMixup()])).train()
    assert not close(before, weights(model))


def test_an_operator_that_starts_late_counts_steps_of_the_optimizer(tmp_path: Path) -> None:
    op = Noted([2], lam=0.5, start_step=4)
    trainer(tmp_path, mix=op, gradient_accumulation_steps=2).train()
    assert [plan.is_identity for plan, _ in Noted.drawn] == [spec.step < 4 for _, spec in Noted.drawn]
    assert {plan.is_identity for plan, _ in Noted.drawn} == {True, False}


def test_an_operator_that_stops_early_stops_at_its_epoch(tmp_path: Path) -> None:
    trainer(tmp_path, mix=Noted([2], lam=0.5, until=1)).train()
    assert [plan.is_identity for plan, _ in Noted.drawn] == [spec.epoch == 1 for _, spec in Noted.drawn]


def test_a_cut_of_tokens_inside_the_model_is_taken_until_it_is_off(tmp_path: Path) -> None:
    class Cut(mx.HiddenCut):
        def draw(self, *args: Any, **given: Any) -> Any:
            plans.append(super().draw(*args, **given))
            return plans[-1]

    plans: list[Any] = []
    op = Cut(2, share=0.5, start="random", until=1)
    trained = trainer(tmp_path, mix=op)
    trained.train()
    half = len(plans) // 2
    assert all((plan.box[..., 1] > plan.box[..., 0]).all() and plan.shape == (LENGTH,) for plan in plans[:half])
    assert all(plan.is_identity for plan in plans[half:])
    plain = trainer(tmp_path)
    plain.train()
    assert not close(weights(trained.model), weights(plain.model))


def test_tokens_that_are_moved_before_the_model_are_refused_with_the_step_to_take(tmp_path: Path) -> None:
    for op in (mx.SpanMix(0.5), mx.Cutoff(0.5), mx.TokenSwap()):
        with pytest.raises(mx.MixValueError, match=r"names no layer.*HiddenCut.*ssmix_loss"):
            trainer(tmp_path, mix=op).train()


def test_an_exception_in_the_model_leaves_no_hooks(tmp_path: Path) -> None:
    model = bert()
    handles = hooks(model)
    data = sentences(4)
    data[0]["input_ids"] = data[0]["input_ids"] + 1000  # no such word
    with pytest.raises(IndexError):
        trainer(tmp_path, model, mix=OP, data=data).train()
    assert hooks(model) == handles


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mix": "tmix"}, "expected an operator"),
        ({"mix": mx.TMix(), "mix_seed": -1}, "seed=-1"),
        ({"mix": mx.TMix(), "compute_loss_func": F.cross_entropy}, "mix_loss="),
        ({"mix": mx.TMix(), "mix_loss": "cross_entropy"}, "mix_loss is 'cross_entropy', expected a function"),
        (
            {
                "mix": mx.TMix(),
                "label_smoothing_factor": 0.1,
                "mix_loss": partial(F.cross_entropy, label_smoothing=0.1),
            },
            "label_smoothing_factor=0.1",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(tmp_path: Path, options: Any, match: str) -> None:
    with pytest.raises(mx.MixError, match=match):
        trainer(tmp_path, **options)


def test_the_mixin_comes_first_and_not_alone() -> None:
    with pytest.raises(mx.MixTypeError, match=r"expected class Behind\(TrainerMixin, Trainer\)"):
        type("Behind", (Trainer, TrainerMixin), {})
    with pytest.raises(mx.MixTypeError, match="no Trainer beside it"):
        TrainerMixin(mix=OP)


def test_batches_that_a_choice_leaves_alone_are_plain_steps(tmp_path: Path) -> None:
    op = mx.OneOf([mx.WordMixup(), mx.TMix([1])], p=[0.25, 0.25])
    drawn = [op.draw(streams.plan_stream(7, e, 6 * e + s, 0), mx.Spec(4)).layer for e in range(2) for s in range(5)]
    assert len(set(drawn)) == 3  # words, a block, nothing
    assert trainer(tmp_path, mix=op, mix_seed=7).train().global_step == 12
    trained = []
    for mix in (None, mx.OneOf([mx.WordMixup(), mx.TMix([1])], p=[0, 0])):
        model = bert()
        trainer(tmp_path, model, mix=mix).train()
        trained.append(weights(model))
    assert close(*trained)


@dataclass
class Nothing:
    """An output without logits."""

    hidden: int = 0


class Silent(Plain):
    def forward(self, input_ids: Any, attention_mask: Any, labels: Any = None) -> Any:
        super().forward(input_ids, attention_mask, labels)
        return Nothing()


@pytest.mark.parametrize(
    ("options", "batch", "match"),
    [
        ({"mix": mx.TMix([7])}, {}, "3 blocks"),
        ({"mix": mx.TMix(["bert.encoder.layer.9"])}, {}, "nearest"),
        ({"mix": mx.Mixup()}, {}, "'words'"),
        ({"mix": mx.TMix([1])}, {"labels": None}, "no 'labels'"),
        ({"mix": mx.SentenceMixup(), "model": Silent()}, {}, "Nothing without logits"),
        ({"mix": mx.TMix([1]), "label_names": ["start", "end"]}, {}, "start, end"),
        ({"mix": mx.TMix([1])}, {"labels": torch.tensor([0, 1, 2, CLASSES])}, "labels from 0 to 4 .* ids of 0 to 3"),
        ({"mix": mx.TMix([1]), "label_smoothing_factor": 0.1, "model": bert(num_labels=1)}, {}, "ids to smooth"),
    ],
)
def test_batches_and_models_that_do_not_fit_are_refused_with_the_fix(
    tmp_path: Path, options: Any, batch: Any, match: str
) -> None:
    one = trainer(tmp_path, **options)
    with pytest.raises(mx.MixError, match=match):
        one.training_step(one.model, {**default_data_collator(sentences(4)), **batch})
    assert hooks(one.model) == 0
