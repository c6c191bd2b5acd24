"""The plain loop of a text training: keyed loader, plan in the batch, mixing in the model, the loss of both labels."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loading import more_workers
from mixops.pipelines import KeyedBatchSampler, keyed
from mixops.pipelines.hidden import mix_hidden
from mixops.pipelines.plan_collate import PlanCollator
from mixops.pipelines.text.models import TextCNN
from mixops.pipelines.text.padding import pad_batch
from tiny_bert import CLASSES, WORDS, bert, hooks
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import mixops as mx

SENTENCES = 46


class Sentences:
    """Sentences of different lengths; the class is that of the first word."""

    def __len__(self) -> int:
        return SENTENCES

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = np.random.Generator(np.random.PCG64(index)).integers(1, WORDS, 2 + index % 5)
        return {"input_ids": ids, "label": int(ids[0]) % CLASSES}


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return TextCNN(nn.Embedding(WORDS, 8, padding_idx=0), CLASSES, widths=(1, 2), filters=12, dropout=0.0)


MODELS = {
    "bert": (bert, mx.OneOf([mx.TMix({1, 2, 3}, per="sample"), mx.WordMixup(1.0)])),
    "cnn": (cnn, mx.OneOf([mx.SentenceMixup(1.0, per="sample"), mx.WordMixup(1.0)])),
}


class Run:
    """A training that can be saved within an epoch and gone on with."""

    def __init__(self, kind: str, workers: int = 0) -> None:
        make, op = MODELS[kind]
        data = Sentences()
        self.model = make()
        self.optimizer = torch.optim.Adam(self.model.parameters(), 0.01)
        self.sampler = KeyedBatchSampler(data, 8, seed=3, shuffle=True)
        self.loader = DataLoader(
            keyed(data),
            batch_sampler=self.sampler,
            collate_fn=PlanCollator(op, 7, collate=pad_batch),
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
        )
        self.losses: list[float] = []
        self.plans: list[mx.Plan] = []

    def epoch(self, stop: int | None = None) -> str | None:
        """Train for (the rest of) an epoch; after ``stop`` batches of it return what is needed to go on."""
        self.model.train()
        for batch in self.loader:
            plan, labels = batch.pop("plan"), batch.pop("labels")
            with mix_hidden(self.model, plan.layer, plan):
                output = self.model(**batch)
            logits = getattr(output, "logits", output)
            loss = mx.mixed_loss(F.cross_entropy, logits, *mx.pair_targets(labels, plan))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())
            self.plans.append(plan)
            if len(self.losses) == stop:
                return json.dumps(self.sampler.state_dict(stop))
        return None

    def weights(self) -> bytes:
        """What a checkpoint holds."""
        file = io.BytesIO()
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, file)
        return file.getvalue()

    def load(self, place: str, weights: bytes) -> None:
        self.sampler.load_state_dict(json.loads(place))
        state = torch.load(io.BytesIO(weights), weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


@more_workers
@pytest.mark.parametrize("kind", MODELS)
def test_the_number_of_workers_changes_no_loss(kind: str) -> None:
    alone, helped = Run(kind), Run(kind, workers=2)
    for run in (alone, helped):
        run.epoch()
        run.epoch()
    assert alone.losses == helped.losses
    assert alone.plans == helped.plans
    assert len(alone.losses) == 2 * -(-SENTENCES // 8)


@more_workers
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_within_an_epoch_goes_on_as_if_nothing_had_happened(kind: str, workers: int) -> None:
    whole, cut, again = Run(kind), Run(kind, workers), Run(kind, workers)
    whole.epoch()
    whole.epoch()
    place = cut.epoch(stop=3)
    assert place is not None
    again.load(place, cut.weights())
    del cut
    again.epoch()
    again.epoch()
    assert again.losses == whole.losses[3:]
    assert again.plans == whole.plans[3:]


@pytest.mark.parametrize("kind", MODELS)
def test_a_mixed_training_learns_the_sentences(kind: str) -> None:
    run, data = Run(kind), Sentences()
    handles = hooks(run.model)
    for _ in range(25):
        run.epoch()
    run.model.eval()
    batch = pad_batch([data[i] for i in range(SENTENCES)])
    labels = batch.pop("labels")
    with torch.no_grad():
        output = run.model(**batch)
    assert (getattr(output, "logits", output).argmax(1) == labels).float().mean() > 0.9
    assert {plan.layer for plan in run.plans} == (
        {"words", "sentence"} if kind == "cnn" else {"words", "hidden:1", "hidden:2", "hidden:3"}
    )
    assert hooks(run.model) == handles


@pytest.mark.parametrize("kind", MODELS)
def test_a_saved_plan_replays_its_step(kind: str, tmp_path: Path) -> None:
    run = Run(kind)
    batch = next(iter(run.loader))
    plan, labels = batch.pop("plan"), batch.pop("labels")
    plan.save(tmp_path / "step.npz")
    gradients = []
    for one in (plan, mx.Plan.load(tmp_path / "step.npz")):
        run.model.zero_grad()
        with mix_hidden(run.model, one.layer, one):
            output = run.model(**batch)
        mx.mixed_loss(F.cross_entropy, getattr(output, "logits", output), *mx.pair_targets(labels, one)).backward()
        gradients.append([p.grad.clone() for p in run.model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
