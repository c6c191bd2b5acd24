"""Train a sentence classifier by MixText: on a few labelled and many unlabelled sentences."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixops import MixTypeError, MixValueError, streams

from ..semi import MixText, MixTextLoss
from ..state import count
from .buckets import BucketBatchSampler
from .learners import learner_of
from .padding import pad_batch
from .recipes import Learner, Recipe
from .running import check_data, diverged, measured_batches, one_state, predicted, scores_of
from .sentences import Sentences
from .tokenized import encoded
from .training import Mixing, TextRun
from .views import DrawnViews, Views, ViewSource, read_views

if TYPE_CHECKING:
    from torch import nn

    from .vectors import WordVectors

OWNER = "train_mixtext"
#: Unlabelled sentences for each labelled one of a step, as in the authors' commands.
_UNLABELLED_SHARE = 2


@dataclass(frozen=True, eq=False)
class SemiRun(TextRun):
    """What a training by MixText was and what came of it; E epochs. The rest is as in TextRun.

    Args:
        supervised: (E,) mean loss of the labelled rows.
        unsupervised: (E,) mean KL of the unlabelled rows, before it is weighted.
        hinge: (E,) mean entropy hinge, before it is weighted; 0 where the recipe leaves it out.
        confidence: (E,) mean largest entry of the guessed and sharpened labels, from 1/C to 1.
        guess_accuracy: (E,) share of guesses that name the true class; None where the true classes are not known.
            Nothing is trained on it.
    """

    supervised: np.ndarray
    unsupervised: np.ndarray
    hinge: np.ndarray
    confidence: np.ndarray
    guess_accuracy: np.ndarray | None = field(default=None)


def train_mixtext(
    labelled: Sentences,
    unlabelled: Sentences | list[str],
    test: Sentences,
    *,
    recipe: MixText,
    views: Any = None,
    model: str | Path | Callable[[nn.Embedding, int], nn.Module] = "cnn",
    setting: str = "RandomTune",
    vectors: WordVectors | None = None,
    dim: int | None = None,
    seed: int = 0,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    batch_size: int | None = None,
    unlabelled_batch: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    threads: int = 1,
    device: str = "cpu",
    progress: Callable[[int, int, str], None] | None = None,
) -> SemiRun:
    """Train a network, or fine-tune a checkpoint, by MixText.

    With the same checkpoint, seed, epochs, batch_size and lr, a run has the first weights of ``train_text(labelled,
    ...)`` and sees the same labelled batches; so the two can be compared pair by pair.

    Args:
        labelled: sentences with their classes.
        unlabelled: sentences without; classes of ``Sentences`` are not trained on, only guesses are measured by them.
        test: sentences to be measured on after each epoch, of the same classes.
        recipe: how rows are mixed and weighed; its layers must fit the model: ("words", "sentence") for a CNN.
        views: other wordings of the unlabelled sentences: ``Views``; what ``read_views`` takes, paths say; an augmenter
            (of nlpaug, or a callable, text to text) or a list of K, which make new ones in every pass; anything with
            ``count`` and ``at(row, epoch)``; None: no views, the originals alone.
        model: see ``train_text``; the vocabulary of a network on words is that of labelled and unlabelled sentences.
        setting: of the word vectors, see ``train_text``.
        vectors: that pretrained settings begin with.
        dim: numbers of a random word vector; see ``train_text``.
        seed: of first weights, order, dropout, draws and views; 0 ≤ seed < 2**63.
        epochs: how often the model is measured; None: as for ``train_text``.
        steps_per_epoch: steps between two measurements; None: a pass over the labelled sentences.
        batch_size: labelled sentences a step; None: as for ``train_text``.
        unlabelled_batch: unlabelled sentences a step, each with its views; None: twice batch_size, or all if fewer.
        lr: of AdamW; None: as for ``train_text``.
        weight_decay: likewise.
        threads: of torch, while this runs.
        device: of torch.
        progress: called after each step with (steps done, steps in all, what was done).

    Returns:
        The run. The global state of torch's random numbers and threads is as it was.

    Raises:
        MixError: as ``train_text``; and if there is no unlabelled sentence or one has no token, views are missing or do
            not fit, the recipe has weights for another number of views, or a loss or guess is not finite.

    Example:
        >>> from mixops.pipelines.semi import MixText
        >>> from mixops.pipelines.text import Sentences, train_mixtext
        >>> known = Sentences(["who was it ?", "where was it ?"] * 4, [0, 1] * 4, ["person", "place"])
        >>> texts = ["who is it ?", "where is it ?"] * 8
        >>> recipe = MixText(("words", "sentence"), unlabelled_weight=0.5)
        >>> run = train_mixtext(known, texts, known, recipe=recipe, views=str.title, epochs=2, seed=7)
        >>> run.accuracy.shape, run.unsupervised.shape, run.mixing.rows
        ((2,), (2,), 80)

    Source: Chen, Yang, Yang, "MixText", ACL 2020. There steps are counted apart from the passes over the labelled
    sentences (``steps_per_epoch=1000``), and the best epoch on held-out sentences is reported; here every epoch is.
    """
    check_data(OWNER, labelled, test, "labelled")
    if not isinstance(recipe, MixText):
        raise MixTypeError(f"{OWNER}: recipe is {type(recipe).__name__}, expected MixText(layers, ...)")
    if progress is not None and not callable(progress):
        raise MixTypeError(f"{OWNER}: progress={progress!r}, expected a function of (done, total, text), or None")
    texts, truth = _unlabelled(unlabelled, labelled)
    source = _view_source(views, texts, seed)
    kinds = 1 + (source.count if source else 0)
    if recipe.view_weights is not None and len(recipe.view_weights) != kinds:
        raise MixValueError(
            f"{OWNER}: the recipe has {len(recipe.view_weights)} weights, but there are {kinds - 1} views and the "
            f"original: expected {kinds}, the original first, or None"
        )
    labels = np.concatenate([labelled.labels, np.zeros(len(texts), np.int64)])
    known = Sentences([*labelled.texts, *texts], labels, labelled.classes)  # whose words the vocabulary is made of
    learner = learner_of(model, known, test, setting=setting, vectors=vectors, dim=dim, seed=seed)
    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
    how = replace(learner.recipe, **{name: value for name, value in given.items() if value is not None})
    rows = min(_UNLABELLED_SHARE * how.batch_size, len(texts))
    if unlabelled_batch is not None:
        rows = count(OWNER, "unlabelled_batch", unlabelled_batch)
        if not 1 <= rows <= len(texts):
            raise MixValueError(f"{OWNER}: unlabelled_batch={rows} of {len(texts)} sentences, expected 1 to as many")
    with one_state(OWNER, threads, seed, device):
        import torch

        net = learner.build(len(labelled.classes)).to(torch.device(device))
        labelled_rows = _Stream(labelled.texts, learner, how.batch_size, seed, drop_last=False)
        steps = labelled_rows.steps if steps_per_epoch is None else count(OWNER, "steps_per_epoch", steps_per_epoch)
        if not steps:
            raise MixValueError(f"{OWNER}: steps_per_epoch=0, expected 1 or more, or None")
        feed = _Feed(labelled, labelled_rows, _Stream(texts, learner, rows, seed, drop_last=True), learner, source)
        course = _Course(net, recipe, how, feed, seed, truth, steps)
        learner.check(net, course.optimizer)
        test_batches = list(measured_batches(learner, test))
        scores: list[tuple[float, float, float]] = []
        probs = np.empty(0)
        for epoch in range(how.epochs):
            course.run_epoch(epoch, progress)
            probs = predicted(OWNER, net, test_batches, (len(test), len(test.classes)))
            if not np.isfinite(probs).all():
                raise diverged(OWNER, "after epoch", epoch + 1, "probabilities are not finite", how)
            scores.append(scores_of(probs, test.labels))
    config = {
        **learner.config,
        "mixtext": repr(recipe),
        "views": None if source is None else repr(source),
        "seed": seed,
        **how.config,
        "steps_per_epoch": steps,
        "unlabelled_batch": rows,
        "labelled": len(labelled),
        "unlabelled": len(texts),
        "test": len(test),
        "classes": list(test.classes),
        "parameters": sum(p.numel() for p in net.parameters()),
        "threads": threads,
    }
    right, surprise, gap = (np.array(column) for column in zip(*scores, strict=True))
    parts = {name: np.array([one[name] for one in course.parts]) for name in course.parts[0]}
    return SemiRun(
        config=config,
        accuracy=right,
        nll=surprise,
        ece=gap,
        seconds=np.array(course.seconds),
        probs=probs,
        coverage=learner.coverage,
        test_coverage=learner.test_coverage,
        mixing=course.mixing,
        model=net,
        loss=parts["loss"],
        supervised=parts["supervised"],
        unsupervised=parts["unsupervised"],
        hinge=parts["hinge"],
        confidence=parts["confidence"],
        guess_accuracy=parts.get("guess_accuracy"),
    )


class _Stream:
    """Batches of rows, pass after pass without end: (pass, rows)."""

    def __init__(self, texts: Any, learner: Learner, batch_size: int, seed: int, *, drop_last: bool) -> None:
        self.texts = tuple(texts)
        self.ids = [encoded(learner.encode, text, f"sentence {row}") for row, text in enumerate(self.texts)]
        lengths = [len(ids) for ids in self.ids]
        make = partial(BucketBatchSampler, lengths, batch_size, seed=seed, rank=0, world_size=1, drop_last=drop_last)
        self.sampler = make()
        self.steps = len(self.sampler)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        number = 0
        while True:
            for rows in self.sampler:  # each pass is the next epoch
                yield number, list(rows)
            number += 1


@dataclass
class _Step:
    """The batches of a step, and the texts of their rows."""

    labelled: dict[str, Any]
    unlabelled: list[dict[str, Any]]
    rows: list[int]
    texts: list[str]
    classes: list[int]


class _Feed:
    """Labelled and unlabelled batches, step by step."""

    def __init__(
        self, labelled: Sentences, known: _Stream, unknown: _Stream, learner: Learner, views: ViewSource | None
    ) -> None:
        self.labelled, self.known, self.unknown = labelled, known, unknown
        self.learner, self.views = learner, views

    def __iter__(self) -> Iterator[_Step]:
        for (_, rows), (number, others) in zip(self.known, self.unknown, strict=False):  # neither ends
            labels = self.labelled.labels[rows].tolist()
            known = self._padded([self.known.ids[row] for row in rows], labels)
            kinds = [self._padded([self.unknown.ids[row] for row in others])]
            texts = [self.labelled.texts[row] for row in rows] + [self.unknown.texts[row] for row in others]
            made = [self._views(row, number) for row in others]
            for k in range(self.views.count if self.views else 0):
                wordings = [views[k] for views in made]
                ids = [
                    encoded(self.learner.encode, text, f"view {k + 1} of sentence {row}")
                    for text, row in zip(wordings, others, strict=True)
                ]
                kinds.append(self._padded(ids))
                texts += wordings
            yield _Step(known, kinds, others, texts, labels)

    def _views(self, row: int, number: int) -> tuple[str, ...]:
        if self.views is None:
            return ()
        views = self.views.at(row, number)
        if len(views) != self.views.count:
            raise MixValueError(f"{OWNER}: sentence {row} has {len(views)} views, expected {self.views.count}")
        return views

    def _padded(self, ids: list[np.ndarray], labels: list[int] | None = None) -> dict[str, Any]:
        samples = [{"input_ids": row, "label": 0 if labels is None else labels[i]} for i, row in enumerate(ids)]
        batch = pad_batch(samples, pad=self.learner.pad)
        if labels is None:
            del batch["labels"]
        return batch


class _Course:
    """One network on its way through the epochs."""

    def __init__(
        self,
        net: Any,
        recipe: MixText,
        how: Recipe,
        feed: _Feed,
        seed: int,
        truth: np.ndarray | None,
        steps: int,
    ) -> None:
        self.net, self.recipe, self.how, self.seed, self.truth = net, recipe, how, seed, truth
        self.feed, self.steps = feed, steps
        self.device = next(net.parameters()).device
        self.batches = iter(feed)
        self.optimizer, self.schedule = how.optimizer(net, how.epochs * steps)
        self.parts: list[dict[str, float]] = []
        self.seconds: list[float] = []
        self.mixing = Mixing()

    def run_epoch(self, epoch: int, progress: Callable[[int, int, str], None] | None) -> None:
        """So many steps, and their means."""
        self.net.train()
        start, found = time.perf_counter(), []
        for step in range(self.steps):
            batch = next(self.batches)
            done = epoch * self.steps + step
            loss = self._step(batch, epoch, step, done)
            found.append(self._numbers(batch, loss))
            if not math.isfinite(found[-1]["loss"]):
                raise diverged(OWNER, "in step", done + 1, f"the loss is {found[-1]['loss']}", self.how)
            if progress is not None:
                said = f"epoch {epoch + 1} of {self.how.epochs}, loss {np.mean([one['loss'] for one in found]):.3f}"
                progress(done + 1, self.how.epochs * self.steps, said)
        self.parts.append({name: float(np.mean([one[name] for one in found])) for name in found[0]})
        self.seconds.append(time.perf_counter() - start)

    def _step(self, batch: _Step, epoch: int, step: int, done: int) -> MixTextLoss:
        import torch

        loss = self.recipe.loss(
            self.net,
            self._placed(batch.labelled),
            [self._placed(kind) for kind in batch.unlabelled],
            rng=streams.plan_stream(self.seed, epoch, step),
            step=done,
            pad=self.feed.learner.pad,
        )
        self.mixing.add(loss.plan[: len(loss.targets)], partial(self._row, batch, loss), epoch)
        self.optimizer.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        if self.how.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.how.clip)
        self.optimizer.step()
        self.schedule.step()
        return loss

    def _placed(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {name: value.to(self.device) for name, value in batch.items()}

    def _row(self, batch: _Step, loss: MixTextLoss, place: int) -> tuple[str, str]:
        """Sentence and class of a row; a guessed class is marked so."""
        known = len(batch.classes)
        names = self.feed.labelled.classes
        if place < known:
            return batch.texts[place], names[batch.classes[place]]
        guess = int(loss.guessed[(place - known) % len(batch.rows)].argmax())
        return batch.texts[place], f"{names[guess]} (guessed)"

    def _numbers(self, batch: _Step, loss: MixTextLoss) -> dict[str, float]:
        confidence, guess = loss.guessed.max(1)
        found = {
            "loss": float(loss.total.detach()),
            "supervised": float(loss.supervised),
            "unsupervised": float(loss.unsupervised),
            "hinge": float(loss.hinge),
            "confidence": float(confidence.mean()),
        }
        if self.truth is not None:
            found["guess_accuracy"] = float((guess.cpu().numpy() == self.truth[batch.rows]).mean())
        return found


def _unlabelled(given: Any, labelled: Sentences) -> tuple[tuple[str, ...], np.ndarray | None]:
    """Texts, and their true classes where they are known."""
    if isinstance(given, Sentences):
        truth = given.labels if given.classes == labelled.classes else None
        texts = tuple(given.texts)
    elif isinstance(given, (list, tuple)):
        texts, truth = tuple(given), None
    else:
        raise MixTypeError(f"{OWNER}: unlabelled is {type(given).__name__}, expected a list of texts, or Sentences")
    if not texts:
        raise MixValueError(
            f"{OWNER}: unlabelled has no sentence, expected one or more: without any, train_text(..., "
            "op=TMix(...)) mixes the labelled ones"
        )
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.split():
            raise MixValueError(
                f"{OWNER}: unlabelled row {row} is {text!r:.60}, expected a sentence: leave that row out"
            )
    return texts, truth


def _view_source(views: Any, texts: tuple[str, ...], seed: int) -> ViewSource | None:
    """What makes the views of these texts; None for no views."""
    if views is None:
        return None
    if isinstance(views, Views):
        return views.of(texts)
    if hasattr(views, "at") and hasattr(views, "count"):
        known: ViewSource = views
        if hasattr(views, "texts") and tuple(views.texts) != texts:
            raise MixValueError(
                f"{OWNER}: views are those of other texts, expected the unlabelled ones, in their order"
            )
        return known
    if isinstance(views, (str, Path)):
        return read_views(views, texts)
    several = views if isinstance(views, (list, tuple)) else [views]
    if several and all(callable(getattr(one, "augment", one)) for one in several):
        return DrawnViews(texts, views, seed)
    return read_views(views, texts)
