"""MixCallback in real trainings of Lightning: what is mixed, what is not, and that nothing stays behind."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from mixops.pipelines import KeyedBatchSampler, PlanCollator, keyed
from mixops.pipelines.hidden import mix_hidden
from mixops.pipelines.lightning_ import MixCallback
from real_peers import torchvision_schemas
from tiny_bert import CLASSES, ROWS, bert, close, hooks, sentences, weights
from torch.nn import functional as F
from torch.utils.data import DataLoader, default_collate

import mixops as mx
from mixops import streams

torchvision_schemas()  # lightning imports torchvision where it is installed

import lightning.pytorch as pl  # noqa: E402
import pytorch_lightning  # noqa: E402

pytestmark = [
    # Lightning 2.6 walks trees with what torch 2.13 has deprecated, and says what it thinks of tiny trainings.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]

OP = mx.TMix((0, 1, 3), per="sample")
SIZE = 4
STEPS = -(-ROWS // SIZE)
SIZES = [min(SIZE, ROWS - start) for start in range(0, ROWS, SIZE)]


class Learner(pl.LightningModule):
    """The two lines of the documentation; writes down what it saw."""

    def __init__(self, network: Any = None, **fails: Any) -> None:
        super().__init__()
        self.network = bert() if network is None else network
        self.fails, self.seen, self.hooked = fails, [], []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.fails.get("before") == len(self.seen):
            raise self.fails["error"]
        logits = self.network(batch["input_ids"], batch["attention_mask"]).logits
        loss = mx.mixed_loss(F.cross_entropy, logits, *mx.pair_targets(batch["labels"], batch["plan"]))
        self.seen.append((self.current_epoch, batch_idx, batch["plan"]))
        if self.fails.get("at") == len(self.seen):
            raise self.fails["error"]
        self.log("loss", loss, on_epoch=True)
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if self.fails.get("skip") == (self.current_epoch, batch_idx) else None

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.network.parameters(), 0.1)


class Watched(Learner):
    """Is validated too."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        assert "plan" not in batch
        self.hooked.append(hooks(self.network))


def loader(data: Any = None) -> Any:
    return DataLoader(data or sentences(), SIZE)


def trainer(folder: Path, callback: Any = None, *, package: Any = pl, **options: Any) -> Any:
    callbacks = [MixCallback(OP, seed=7) if callback is None else callback, *options.pop("callbacks", [])]
    settings: dict[str, Any] = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "log_every_n_steps": 1,
        **options,
    }
    return package.Trainer(default_root_dir=str(folder), callbacks=callbacks, **settings)


def expected(epochs: int = 2, op: mx.Operator = OP) -> list[Any]:
    counts = [SIZE] * (STEPS - 1) + [ROWS - SIZE * (STEPS - 1)]
    return [
        (e, s, op.draw(streams.plan_stream(7, e, s, 0), mx.Spec(counts[s], epoch=e, step=e * STEPS + s)))
        for e in range(epochs)
        for s in range(STEPS)
    ]


def test_every_step_is_mixed_by_the_plan_of_its_key_and_validation_is_not(tmp_path: Path) -> None:
    learner = Watched()
    handles = hooks(learner)
    trainer(tmp_path).fit(learner, loader(), loader())
    assert learner.seen == expected()
    assert set(learner.hooked) == {handles}
    assert len(learner.hooked) == 2 + 2 * STEPS  # two batches before the training, to see that validation works
    assert hooks(learner) == handles


def by_hand(batches: list[Any], plans: list[Any], layers: Any = None, accumulate: int = 1) -> Any:
    """The same training as a plain loop."""
    network = bert()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    network.train()
    for i, (batch, plan) in enumerate(zip(batches, plans, strict=True)):
        with mix_hidden(network, plan.layer, plan):
            logits = network(batch["input_ids"], batch["attention_mask"]).logits
            loss = mx.mixed_loss(F.cross_entropy, logits, *mx.pair_targets(batch["labels"], plan))
            (loss / accumulate).backward()
        if (i + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
    return network


@pytest.mark.parametrize("accumulate", [1, 3])
def test_it_learns_what_a_plain_loop_does(tmp_path: Path, accumulate: int) -> None:
    learner = Learner()
    trainer(tmp_path, accumulate_grad_batches=accumulate).fit(learner, loader())
    batches = list(loader()) * 2
    looped = by_hand(batches, [plan for _, _, plan in expected()], accumulate=accumulate)
    assert close(weights(learner.network), weights(looped))
    assert not close(weights(learner.network), weights(bert()))


class Several(Learner):
    """More than one module with weights, and a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.other = torch.nn.Linear(2, 2)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.network.parameters(), 0.1)


@pytest.mark.parametrize(
    ("layer", "kind", "module"),
    [
        ("bert.encoder.layer.1", Learner, None),
        ("network.bert.encoder.layer.1", Learner, None),
        ("network.bert.encoder.layer.1", Several, None),
        ("bert.encoder.layer.1", Several, "network"),
        (2, Several, "network"),
        ("words", Several, "network"),
        ("sentence", Learner, None),
    ],
)
def test_layers_are_found_inside_the_module(tmp_path: Path, layer: Any, kind: Any, module: Any) -> None:
    op, learner = mx.ManifoldMixup([layer], per="sample"), kind()
    trainer(tmp_path, MixCallback(op, seed=7, module=module), max_epochs=1).fit(learner, loader())
    plans = [copy.copy(plan) for _, _, plan in expected(1, mx.ManifoldMixup([_inside(layer)], per="sample"))]
    assert close(weights(learner.network), weights(by_hand(list(loader()), plans)))


def _inside(layer: Any) -> Any:
    return layer.removeprefix("network.") if isinstance(layer, str) else layer


def test_a_plan_that_came_with_the_batch_is_kept(tmp_path: Path) -> None:
    given = mx.TMix([2]).draw(streams.plan_stream(1), mx.Spec(SIZE), lam=0.6)

    class Brings(Learner):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return {**batch, "plan": given} if self.trainer.training else batch

    learner = Brings()
    trainer(tmp_path, max_epochs=1, limit_train_batches=3).fit(learner, loader())
    assert [plan for _, _, plan in learner.seen] == [given] * 3
    assert close(weights(learner.network), weights(by_hand(list(loader())[:3], [given] * 3)))


def test_the_plans_of_a_collator_arrive_and_are_kept(tmp_path: Path) -> None:
    data = sentences()
    drawing = DataLoader(
        keyed(data),
        batch_sampler=KeyedBatchSampler(data, SIZE, seed=3),
        collate_fn=PlanCollator(mx.TMix([1, 2]), seed=11),
    )
    learner = Learner()
    trainer(tmp_path, max_epochs=1).fit(learner, drawing)
    plans = [mx.TMix([1, 2]).draw(streams.plan_stream(11, 0, step), mx.Spec(n)) for step, n in enumerate(SIZES)]
    assert [plan for _, _, plan in learner.seen] == plans
    assert close(weights(learner.network), weights(by_hand(list(loader()), plans)))


def test_batches_that_a_loader_keeps_are_given_back_as_they_were(tmp_path: Path) -> None:
    batches = [default_collate(sentences()[i : i + SIZE]) for i in range(0, ROWS, SIZE)]

    class Unmoved(Learner):
        def transfer_batch_to_device(self, batch: Any, *rest: Any) -> Any:
            return batch

    learner = Unmoved()
    trainer(tmp_path).fit(learner, DataLoader(batches, batch_size=None, collate_fn=_same))
    assert learner.seen == expected()
    assert all(list(batch) == ["input_ids", "attention_mask", "labels"] for batch in batches)


def _same(batch: Any) -> Any:
    return batch


@pytest.mark.parametrize("when", ["at", "before"])  # after the model has run, or not
@pytest.mark.parametrize("error", [KeyError("a mistake of the module"), KeyboardInterrupt()])
def test_an_exception_in_a_step_leaves_no_hooks_and_is_not_replaced(
    tmp_path: Path, error: BaseException, when: str
) -> None:
    learner = Learner(error=error, **{when: 3})
    handles = hooks(learner)
    with pytest.raises((type(error), SystemExit)) as caught:
        trainer(tmp_path).fit(learner, loader())
    assert caught.value is error or isinstance(error, KeyboardInterrupt)
    assert len(learner.seen) == 3
    assert hooks(learner) == handles


def test_batches_that_a_choice_leaves_alone_are_plain_steps(tmp_path: Path) -> None:
    op = mx.OneOf([mx.WordMixup(), mx.TMix([1])], p=[0.25, 0.25])
    learner = Learner()
    trainer(tmp_path, MixCallback(op, seed=7)).fit(learner, loader())
    assert learner.seen == expected(op=op)
    assert {plan.layer for _, _, plan in learner.seen} == {"words", "hidden:1", None}


def test_a_cut_of_tokens_is_taken_inside_the_module_and_moved_ids_are_refused(tmp_path: Path) -> None:
    learner = Learner()
    trainer(tmp_path, MixCallback(mx.HiddenCut(2, share=0.5, start="random"), seed=7)).fit(learner, loader())
    assert all((plan.box[..., 1] > plan.box[..., 0]).all() for _, _, plan in learner.seen)
    with pytest.raises(mx.MixValueError, match=r"MixCallback.*names no layer.*ssmix_loss"):
        trainer(tmp_path, MixCallback(mx.SpanMix(0.5), seed=7)).fit(Learner(), loader())


class Choosy(Learner):
    """Returns None in place of a loss where it skips a batch, before it has run its network."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx == 1 else super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:.*training_step. returned .None")
def test_a_step_without_a_loss_may_leave_the_network_alone(tmp_path: Path) -> None:
    learner = Choosy()
    handles = hooks(learner)
    trainer(tmp_path).fit(learner, loader())
    assert learner.seen == [one for one in expected() if one[1] != 1]
    assert hooks(learner) == handles


def test_a_step_that_is_skipped_leaves_no_hooks(tmp_path: Path) -> None:
    learner = Watched(skip=(0, 2))
    handles = hooks(learner)
    trainer(tmp_path).fit(learner, loader(), loader())
    assert learner.seen == expected()[:2] + expected()[STEPS:]
    assert set(learner.hooked) == {handles} == {hooks(learner)}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")  # it is the one to resume from
def test_a_training_resumed_from_a_checkpoint_draws_the_same_plans(tmp_path: Path) -> None:
    whole = Learner()
    trainer(tmp_path, max_epochs=3).fit(whole, loader())
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "kept", save_top_k=-1, filename="{epoch}")
    cut = Learner(at=2 * STEPS + 2, error=KeyError("killed"))
    with pytest.raises(KeyError):
        trainer(tmp_path, max_epochs=3, enable_checkpointing=True, callbacks=[saving]).fit(cut, loader())
    again = Learner()
    options = {"enable_checkpointing": True, "callbacks": [saving]}
    trainer(tmp_path, max_epochs=3, **options).fit(again, loader(), ckpt_path=str(tmp_path / "kept" / "epoch=1.ckpt"))
    assert again.seen == expected(3)[2 * STEPS :] == whole.seen[2 * STEPS :]
    assert close(weights(again.network), weights(whole.network))


def test_an_operator_that_starts_late_counts_steps_of_the_optimizer(tmp_path: Path) -> None:
    learner = Learner()
    op = mx.SentenceMixup(lam=0.5, start_step=2)
    trainer(tmp_path, MixCallback(op, seed=7), max_epochs=1, accumulate_grad_batches=2).fit(learner, loader())
    assert [plan.is_identity for _, _, plan in learner.seen] == [True] * 4 + [False] * (STEPS - 4)


def test_it_is_a_callback_of_either_package(tmp_path: Path) -> None:
    assert isinstance(MixCallback(OP, 7), (pl.Callback, pytorch_lightning.Callback))

    class Older(pytorch_lightning.LightningModule):
        training_step = Learner.training_step
        configure_optimizers = Learner.configure_optimizers

        def __init__(self) -> None:
            super().__init__()
            self.network, self.fails, self.seen = bert(), {}, []

    learner = Older()
    trainer(tmp_path, package=pytorch_lightning).fit(learner, loader())
    assert learner.seen == expected()


def test_it_can_be_copied_and_sent_to_another_process() -> None:
    callback = MixCallback(OP, 7, rows="labels", plan_key="draw", module="network", mask="own")
    for other in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        names = ("op", "seed", "rows", "plan_key", "module", "mask")
        assert [getattr(other, n) for n in names] == [getattr(callback, n) for n in names]
        assert isinstance(other, pl.Callback)
        assert repr(other) == repr(callback) == f"MixCallback({OP!r}, seed=7)"


@pytest.mark.parametrize(
    ("callback", "data", "match"),
    [
        (lambda: MixCallback("tmix", 7), None, "expected an operator"),
        (lambda: MixCallback(OP, -1), None, "seed=-1"),
        (lambda: MixCallback(mx.TMix([9]), 7), None, "3 blocks"),
        (lambda: MixCallback(mx.ManifoldMixup(["network.head"]), 7), None, "no such module"),
        (lambda: MixCallback(OP, 7, module="net"), None, "no module 'net', .* at the top: network"),
        (lambda: MixCallback(OP, 7, rows="ids"), None, "'ids' is not in the batch"),
        (lambda: MixCallback(mx.Mixup(), 7), None, "'words'"),
        (lambda: MixCallback(OP, 7), [(1, 2)] * ROWS, "the batch is list"),
    ],
)
def test_what_cannot_be_mixed_is_refused_with_the_fix(tmp_path: Path, callback: Any, data: Any, match: str) -> None:
    learner = Learner()
    with pytest.raises(mx.MixError, match=match):
        trainer(tmp_path, callback()).fit(learner, loader(data))
    assert hooks(learner) == 0


def test_the_data_has_every_class() -> None:
    assert {row["labels"] for row in sentences()} == set(range(CLASSES))
