"""Train a sentence classifier with or without mixing; measure accuracy, likelihood and calibration of every epoch.

First weights, order of batches, dropout and draws depend on the seed alone and not on the operator, so two runs of one
seed with different operators are a pair: they begin at the same weights and see the same batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import mixops as mx
from mixops import MixTypeError, MixValueError

from ..hidden import mix_hidden
from ..keyed_data import keyed
from ..plan_collate import PlanCollator, leaves_all, plan_of_rows
from ..state import count
from .buckets import BucketBatchSampler
from .learners import learner_of
from .padding import pad_batch
from .recipes import Learner, Recipe
from .running import check_data, diverged, logits_of, measured_batches, one_state, predicted, scores_of
from .sentences import Sentences
from .stages import TokenizeStage
from .tokenized import TokenizedSentences

if TYPE_CHECKING:
    from torch import nn

    from .vectors import WordVectors
    from .vocabulary import Coverage

#: Pairs of sentences that a run keeps to be looked at.
PAIRS = 8
#: Of one batch, so that several shares are seen.
_OF_ONE_PLAN = 2
#: Who speaks in messages.
OWNER = "train_text"


@dataclass(frozen=True)
class Pair:
    """Two sentences that were mixed.

    Args:
        own: the sentence of the row.
        other: its partner's.
        labels: names of their classes.
        lam: the own share.
        layer: where they were mixed.
        epoch: of the training, from 0.
    """

    own: str
    other: str
    labels: tuple[str, str]
    lam: float
    layer: str | None
    epoch: int


@dataclass
class Mixing:
    """What the plans of a run did, all batches together.

    Args:
        rows: sentences seen.
        mixed: of them with a share of another sentence; a row may be drawn as its own partner.
        given: sum of those shares.
        layers: batches mixed at each layer.
        pairs: the first few.
    """

    rows: int = 0
    mixed: int = 0
    given: float = 0.0
    layers: dict[str, int] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)

    @property
    def mean_lam(self) -> float:
        """Mean own share of the mixed sentences; 1 if there are none."""
        return 1 - self.given / self.mixed if self.mixed else 1.0

    def add(self, plan: mx.Plan, row: Callable[[int], tuple[str, str]], epoch: int) -> None:
        """Count a plan, and keep pairs of it while there are few; ``row(i)`` gives sentence and class of a row."""
        lam = plan.lam
        donor = plan.partner[np.arange(plan.n), plan.weight.argmax(1)]
        rows = np.flatnonzero((lam < 1) & (donor != plan.base))
        self.rows += plan.n
        self.mixed += len(rows)
        self.given += float((1 - lam[rows]).sum())
        if len(rows):
            layer = str(plan.layer)
            self.layers[layer] = self.layers.get(layer, 0) + 1
        for i in rows[: min(PAIRS - len(self.pairs), _OF_ONE_PLAN)].tolist():
            (own, own_class), (other, other_class) = row(int(plan.base[i])), row(int(donor[i]))
            self.pairs.append(Pair(own, other, (own_class, other_class), float(lam[i]), plan.layer, epoch))


@dataclass(frozen=True, eq=False)
class TextRun:
    """What a training run was and what came of it; E epochs, N test sentences, C classes.

    Args:
        config: what it was made with, as plain JSON values.
        loss: (E,) mean training loss of each epoch, on mixed targets where there are.
        accuracy: (E,) on the test set after each epoch, from 0 to 1.
        nll: (E,) negative log-likelihood, nats.
        ece: (E,) expected calibration error, from 0 to 1.
        seconds: (E,) that training took, without the test.
        probs: (N, C) of the test sentences after the last epoch.
        coverage: how many words of the training sentences had a pretrained vector; None without such vectors.
        test_coverage: how many words of the test sentences the network knows; None for a checkpoint.
        mixing: what was mixed.
        model: as trained, in evaluation mode.
    """

    config: dict[str, Any]
    loss: np.ndarray
    accuracy: np.ndarray
    nll: np.ndarray
    ece: np.ndarray
    seconds: np.ndarray
    probs: np.ndarray = field(repr=False)
    coverage: Coverage | None
    test_coverage: Coverage | None
    mixing: Mixing = field(repr=False)
    model: nn.Module = field(repr=False)


def train_text(
    train: Sentences,
    test: Sentences,
    *,
    model: str | Path | Callable[[nn.Embedding, int], nn.Module] = "cnn",
    setting: str = "RandomTune",
    vectors: WordVectors | None = None,
    dim: int | None = None,
    op: mx.Operator | None = None,
    seed: int = 0,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    stage: Any = None,
    workers: int = 0,
    threads: int = 1,
    device: str = "cpu",
    progress: Callable[[int, int, str], None] | None = None,
) -> TextRun:
    """Train a network, or fine-tune a checkpoint, on sentences; mix inside it as an operator says.

    Args:
        train: sentences to learn from.
        test: sentences to be measured on after each epoch, of the same classes.
        model: "cnn", "lstm" or "transformer"; a function of (embedding, classes) that gives a network; or the folder of
            a Hugging Face checkpoint with its tokenizer, a path or "package:NAME" for a package that carries one.
        setting: of the word vectors, one of ``SETTINGS``; a checkpoint has its own and takes none.
        vectors: that pretrained settings begin with.
        dim: numbers of a random word vector; None: as many as ``vectors`` have, or 50.
        op: operator on hidden states, ``WordMixup(1.0)``, ``SentenceMixup(1.0)``, ``TMix(...)``; None mixes nothing.
        seed: of first weights, order, dropout and draws; 0 ≤ seed < 2**63.
        epochs: passes over the sentences; None: 10, for a checkpoint 3.
        batch_size: sentences a step; None: 50, for a checkpoint 32.
        lr: of AdamW; None: 1e-3, for a checkpoint 5e-5 with a linear warm-up over a tenth of the steps, then down to 0.
        weight_decay: of matrices, not of biases and norms; None: 0.01.
        stage: what the sentences go through, each time they are seen, before they become ids: a stage of
            ``keyed(dataset, stage=...)`` on {"text", "label"}, such as ``text_stage(augmenter, seed)``, or a list.
        workers: processes that load.
        threads: of torch, while this runs.
        device: of torch, "cpu", "cuda" or the like.
        progress: called after each step with (steps done, steps in all, what was done).

    Returns:
        The run. The global state of torch's random numbers and threads is as it was.

    Raises:
        MixError: if an argument is out of range or of a wrong type, the classes of train and test differ or are fewer
            than two, a pretrained setting has no vectors, a checkpoint is given a setting, the operator does not fit
            the model, the model gives other things than logits, or the loss is not finite.

    Example:
        >>> import mixops as mx
        >>> from mixops.pipelines.text import Sentences, train_text
        >>> data = Sentences(["who was it ?", "where was it ?"] * 8, [0, 1] * 8, ["person", "place"])
        >>> run = train_text(data, data, op=mx.WordMixup(1.0), epochs=2, seed=7)
        >>> run.accuracy.shape, run.mixing.rows, run.mixing.layers
        ((2,), 32, {'words': 2})

    Source: Guo, Mao and Zhang 2019 for words and sentences; there each model trains until it no longer gains on
    held-out data, here for a given number of epochs, and every one of them is reported.
    """
    import torch

    check_data(OWNER, train, test)
    check_operator(op)
    workers = count("train_text", "workers", workers)
    if progress is not None and not callable(progress):
        raise MixTypeError(f"train_text: progress={progress!r}, expected a function of (done, total, text), or None")
    learner = learner_of(model, train, test, setting=setting, vectors=vectors, dim=dim, seed=seed)
    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
    recipe = replace(learner.recipe, **{name: value for name, value in given.items() if value is not None})
    with one_state(OWNER, threads, seed, device):
        net = learner.build(len(train.classes)).to(torch.device(device))
        course = _Course(learner, net, recipe, train, op, seed, stage, workers)
        learner.check(net, course.optimizer)
        test_batches = list(measured_batches(learner, test))
        scores: list[tuple[float, float, float]] = []
        probs = np.empty(0)
        for epoch in range(recipe.epochs):
            course.run_epoch(epoch, progress)
            probs = predicted(OWNER, net, test_batches, (len(test), len(train.classes)))
            if not np.isfinite(probs).all():
                raise diverged(OWNER, "after epoch", epoch + 1, "probabilities are not finite", recipe)
            scores.append(scores_of(probs, test.labels))
    config = {
        **learner.config,
        "op": None if op is None else repr(op),
        "seed": seed,
        **recipe.config,
        "stage": None if stage is None else repr(stage),
        "train": len(train),
        "test": len(test),
        "classes": list(train.classes),
        "parameters": sum(p.numel() for p in net.parameters()),
        "threads": threads,
    }
    right, surprise, gap = (np.array(column) for column in zip(*scores, strict=True))
    return TextRun(
        config=config,
        loss=np.array(course.losses),
        accuracy=right,
        nll=surprise,
        ece=gap,
        seconds=np.array(course.seconds),
        probs=probs,
        coverage=learner.coverage,
        test_coverage=learner.test_coverage,
        mixing=course.mixing,
        model=net,
    )


class _Course:
    """One network on its way through the epochs."""

    def __init__(
        self,
        learner: Learner,
        net: Any,
        recipe: Recipe,
        train: Sentences,
        op: mx.Operator | None,
        seed: int,
        stage: Any,
        workers: int,
    ) -> None:
        from torch.utils.data import DataLoader

        self.net, self.train, self.recipe = net, train, recipe
        self.device = next(net.parameters()).device
        tokens = TokenizedSentences(train, learner)
        self._sampler = partial(BucketBatchSampler, tokens.lengths, recipe.batch_size, seed=seed, rank=0, world_size=1)
        sampler = self._sampler()
        self.steps = recipe.epochs * len(sampler)
        collate: Any = partial(pad_batch, pad=learner.pad)
        if op is not None:
            collate = PlanCollator(op, seed, collate=collate, steps_per_epoch=len(sampler))
        data: Any = keyed(tokens) if stage is None else keyed(train, stage=[*_listed(stage), TokenizeStage(learner)])
        self.loader: DataLoader[Any] = DataLoader(
            data,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        self._indices = self._sampler()  # the same batches once more, to know whose sentences were mixed
        self.optimizer, self.schedule = recipe.optimizer(net, self.steps)
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.mixing = Mixing()

    def run_epoch(self, epoch: int, progress: Callable[[int, int, str], None] | None) -> None:
        """One pass over the sentences."""
        self.net.train()
        start, total, rows = time.perf_counter(), 0.0, 0
        done = epoch * len(self.loader)
        for indices, batch in zip(self._indices, self.loader, strict=True):
            plan = batch.pop("plan", None)
            size = len(indices)
            if plan is not None:
                self.mixing.add(plan, partial(self._row, indices), epoch)
            loss = self._step({name: value.to(self.device) for name, value in batch.items()}, plan)
            total, rows, done = total + size * loss, rows + size, done + 1
            if not math.isfinite(loss):
                raise diverged(OWNER, "in step", done, f"the loss is {loss}", self.recipe)
            if progress is not None:
                progress(done, self.steps, f"epoch {epoch + 1} of {self.recipe.epochs}, loss {total / rows:.3f}")
        self.losses.append(total / rows)
        self.seconds.append(time.perf_counter() - start)

    def _row(self, indices: list[int], place: int) -> tuple[str, str]:
        """Sentence and class of a row of a batch."""
        index = indices[place]
        return self.train.texts[index], self.train.classes[self.train.labels[index]]

    def _step(self, batch: dict[str, Any], plan: mx.Plan | None) -> float:
        import torch
        from torch.nn import functional as F

        labels = batch.pop("labels")
        shape = len(labels), len(self.train.classes)
        if plan is None or plan.is_identity:
            loss = F.cross_entropy(logits_of(OWNER, self.net(**batch), shape), labels)
        else:
            with mix_hidden(self.net, plan.layer, plan):
                logits = logits_of(OWNER, self.net(**batch), shape)
            loss = mx.mixed_loss(F.cross_entropy, logits, *mx.pair_targets(labels, plan))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())


def check_operator(op: Any) -> None:
    """Refuse what cannot mix inside a network of sentences, before anything is trained.

    Args:
        op: an operator on hidden states, or None.

    Raises:
        MixError: if it is none.
    """
    if op is None:
        return
    fix = "expected one on hidden states: WordMixup, SentenceMixup, ManifoldMixup or TMix"
    if not isinstance(op, mx.Operator):
        raise MixTypeError(
            f"train_text: op is {type(op).__name__}, expected an operator such as WordMixup(1.0), or None"
        )
    labels = np.array([0, 0, 1, 1])
    batch = {"input_ids": labels[:, None], "attention_mask": labels[:, None] * 0 + 1, "labels": labels}
    try:
        plan = plan_of_rows(batch, op, 0, (0, 0, 0), owner="train_text", step=1 << 40)  # behind any start_step
    except mx.MixError as error:
        raise MixValueError(f"train_text: op={op!r} cannot be drawn for sentences, {fix}; {error}") from None
    if not isinstance(plan, mx.Plan):
        raise MixTypeError(
            f"train_text: op={op!r} draws {len(plan.plans)} plans, one after the other, expected one: OneOf([...]) "
            "chooses between operators"
        )
    if plan.layer is None and not leaves_all(plan):
        raise MixValueError(f"train_text: op={op!r} names no layer, {fix}")


def _listed(stage: Any) -> list[Any]:
    return list(stage) if isinstance(stage, (list, tuple)) else [stage]
