"""Train a tagger on tagged and on mixed sentences; measure entities, tokens and calibration on others.

First weights, dropout and the order of one list of sentences depend on the seed alone. Sentences that are added change
the batches and add steps; first weights stay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixops import MixTypeError, MixValueError

from ..corpus.mixed import MixedSentence
from ..corpus.tagged import TaggedCorpus, TaggedSentence
from ..state import count
from ..text.buckets import BucketBatchSampler
from ..text.running import diverged, one_state, scores_of
from .batches import TagBatch, soft_cross_entropy, tag_batch, target_rows, token_logits
from .learners import TagLearner, tag_learner
from .scores import EntityScores, entity_scores

if TYPE_CHECKING:
    from torch import nn

    from ..text.vectors import WordVectors

#: Who speaks in messages.
OWNER = "train_tagger"
#: Sentences of a batch that is only measured.
_TEST_BATCH = 128


@dataclass(frozen=True, eq=False)
class Tagger:
    """A trained tagger.

    Args:
        tag_names: C tags, in the order of the probabilities.
        model: the network, in evaluation mode.
        learner: that turns words into what the network takes.
    """

    tag_names: tuple[str, ...]
    model: nn.Module = field(repr=False)
    learner: TagLearner = field(repr=False)

    def predict(self, sentences: Iterable[Any]) -> list[np.ndarray]:
        """Probabilities of the tags of every token; see ``predict_tags``."""
        return predict_tags(self, sentences)

    def tags(self, sentences: Iterable[Any]) -> list[tuple[str, ...]]:
        """The likeliest tag of every token; of equal ones the first."""
        return likeliest(self.predict(sentences), self.tag_names)


@dataclass(frozen=True, eq=False)
class TaggerRun(Tagger):
    """What a training was and what came of it; E epochs, of which M were measured, N test sentences, C tags.

    Without test sentences M is 0, ``scores`` is None and ``probs`` is empty.

    Args:
        config: what it was made with, as plain JSON values.
        loss: (E,) mean training loss of a word in each epoch.
        seconds: (E,) that training took, without the test.
        epochs: (M,) those after which the test sentences were measured, from 1.
        f1: (M,) F1 of entities, from 0 to 1; not a number for tags that are no entities.
        accuracy: (M,) share of the tokens whose tag is right.
        nll: (M,) negative log-likelihood of a token's tag, nats.
        ece: (M,) expected calibration error of a token's tag, from 0 to 1.
        scores: of the entities after the last epoch; None for tags that are no entities.
        probs: N arrays (T, C) after the last epoch.
    """

    config: dict[str, Any]
    loss: np.ndarray
    seconds: np.ndarray
    epochs: np.ndarray
    f1: np.ndarray
    accuracy: np.ndarray
    nll: np.ndarray
    ece: np.ndarray
    scores: EntityScores | None
    probs: list[np.ndarray] = field(repr=False)


def train_tagger(
    train: TaggedCorpus,
    test: TaggedCorpus | None = None,
    *,
    augmented: Sequence[MixedSentence | TaggedSentence] = (),
    model: str | Path = "lstm",
    vectors: WordVectors | None = None,
    seed: int = 0,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    every: int = 1,
    threads: int = 1,
    device: str = "cpu",
    progress: Callable[[int, int, str], None] | None = None,
) -> TaggerRun:
    """Train a tagger; sentences with soft tags are learnt by -Σ_c share[c]·log p[c], as those with hard tags are.

    Args:
        train: tagged sentences to learn from.
        test: sentences to be measured on, with no tag that train has not; None measures nothing.
        augmented: further sentences to learn from, those of ``augment_corpus`` say, with hard tags or soft ones in the
            order of ``train.tag_names``.
        model: "lstm", a small network on word vectors (``TaggerLSTM``); or the folder of a Hugging Face checkpoint with
            its tokenizer, a path or "package:NAME" for a package that carries one.
        vectors: pretrained word vectors of "lstm", which stay as they are; None: random ones that are trained.
        seed: of first weights, order and dropout; 0 ≤ seed < 2**63.
        epochs: passes over all sentences; None: 20, for a checkpoint 10.
        batch_size: sentences a step; None: 16, for a checkpoint 32.
        lr: of AdamW; None: 3e-3, for a checkpoint 5e-5 with a linear warm-up over a tenth of the steps, then down to 0.
        weight_decay: of matrices, not of biases and norms; None: 0.01.
        every: measure after every so many epochs, and after the last; 0: after the last alone.
        threads: of torch, while this runs.
        device: of torch, "cpu", "cuda" or the like.
        progress: called after each step with (steps done, steps in all, what was done).

    Returns:
        The run. The global state of torch's random numbers and threads is as it was.

    Raises:
        MixError: if an argument is out of range or of a wrong type, there is no sentence, a tag is not among those of
            train, soft tags do not fit, or the loss is not finite.

    Example:
        >>> from mixops.pipelines.corpus import TaggedCorpus, TaggedSentence
        >>> from mixops.pipelines.tagging import train_tagger
        >>> rows = [(("Ann", "sings"), ("B-PER", "O")), (("in", "Rome"), ("O", "B-LOC"))] * 8
        >>> data = TaggedCorpus([TaggedSentence(*row) for row in rows], ("O", "B-LOC", "B-PER"))
        >>> run = train_tagger(data, data, epochs=8, batch_size=4, seed=7)
        >>> run.f1.shape, run.tags([("Ann", "sings")])
        ((8,), [('B-PER', 'O')])

    Source: Zhang, Yu and Zhang 2020, "SeqMix", for learning from soft tags: there by cross-entropy in the paper, by a
    binary one of every tag in the released code, through which no gradient reaches the network; here by cross-entropy.
    """
    import torch

    _check(train, test)
    every = count(OWNER, "every", every)
    if progress is not None and not callable(progress):
        raise MixTypeError(f"{OWNER}: progress={progress!r}, expected a function of (done, total, text), or None")
    tag_names = tuple(train.tag_names)
    sentences = [*train, *augmented]
    targets = [target_rows(one, tag_names, _place(i, len(train))) for i, one in enumerate(sentences)]
    learner = tag_learner(model, (one.tokens for one in sentences), vectors, seed)
    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
    recipe = replace(learner.recipe, **{name: value for name, value in given.items() if value is not None})
    with one_state(OWNER, threads, seed, device):
        net = learner.build(len(tag_names)).to(torch.device(device))
        course = _Course(learner, net, recipe, sentences, targets, seed)
        tagger = Tagger(tag_names, net, learner)
        measured: list[tuple[int, float, float, float, float]] = []
        scores: EntityScores | None = None
        probs: list[np.ndarray] = []
        for epoch in range(recipe.epochs):
            course.run_epoch(progress)
            last = epoch + 1 == recipe.epochs
            if test is not None and (last or (every and (epoch + 1) % every == 0)):
                probs = predict_tags(tagger, test)
                if not all(np.isfinite(one).all() for one in probs):
                    raise diverged(OWNER, "after epoch", epoch + 1, "probabilities are not finite", recipe)
                scores, numbers = _measured(probs, test, tag_names)
                measured.append((epoch + 1, math.nan if scores is None else scores.f1, *numbers))
        net.eval()
    config = {
        **learner.config,
        "seed": seed,
        **recipe.config,
        "train": len(train),
        "augmented": len(augmented),
        "test": 0 if test is None else len(test),
        "tags": list(tag_names),
        "parameters": sum(p.numel() for p in net.parameters()),
        "threads": threads,
    }
    columns = np.array(measured, float).reshape(-1, 5).T
    return TaggerRun(
        tag_names=tag_names,
        model=net,
        learner=learner,
        config=config,
        loss=np.array(course.losses),
        seconds=np.array(course.seconds),
        epochs=columns[0].astype(np.int64),
        f1=columns[1],
        accuracy=columns[2],
        nll=columns[3],
        ece=columns[4],
        scores=scores,
        probs=probs,
    )


def predict_tags(tagger: Tagger, sentences: Iterable[Any]) -> list[np.ndarray]:
    """Probabilities of the tags of every token.

    Args:
        tagger: a ``TaggerRun`` or ``Tagger``.
        sentences: TaggedSentences, whose tags are not looked at, or rows of tokens; of one token or more.

    Returns:
        For each sentence (T, C) float64, rows with the sum 1, tags in the order of ``tagger.tag_names``. Words that a
        checkpoint cuts off, behind its 256th piece, are equally likely to have any tag.

    Raises:
        MixError: if a sentence has no token, or the network puts out other things than logits.
    """
    import torch

    net, learner, classes = tagger.model, tagger.learner, len(tagger.tag_names)
    encoded = [learner.encode(_tokens(i, one)) for i, one in enumerate(sentences)]
    found = [np.full((len(one.places), classes), 1 / classes) for one in encoded]
    device = next(net.parameters()).device
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    lengths = np.array([len(one.inputs["input_ids"]) for one in encoded], np.int64)
    try:
        with torch.no_grad():
            for rows in BucketBatchSampler(lengths, _TEST_BATCH, shuffle=False, rank=0, world_size=1):
                batch = tag_batch([encoded[row] for row in rows], learner.fills).to(device)
                logits = token_logits("predict_tags", net(**batch.inputs), batch, classes)
                probs = torch.softmax(logits.double(), 1).cpu().numpy()
                of_row, words = batch.rows.cpu().numpy(), batch.words.cpu().numpy()
                for i, row in enumerate(rows):
                    mine = of_row == i
                    found[row][words[mine]] = probs[mine]
    finally:
        for module, mode in modes:
            module.training = mode
    return found


def likeliest(probs: Sequence[np.ndarray], tag_names: Sequence[str]) -> list[tuple[str, ...]]:
    """The likeliest tag of every token, of (T, C) probabilities; of equal ones the first."""
    return [tuple(tag_names[i] for i in one.argmax(1)) for one in probs]


class _Course:
    """One network on its way through the epochs."""

    def __init__(
        self,
        learner: TagLearner,
        net: Any,
        recipe: Any,
        sentences: Sequence[Any],
        targets: Sequence[np.ndarray],
        seed: int,
    ) -> None:
        self.net, self.recipe, self.classes = net, recipe, targets[0].shape[1]
        self.device = next(net.parameters()).device
        self._fills, self._targets = learner.fills, targets
        self._encoded = [learner.encode(one.tokens) for one in sentences]
        lengths = np.array([len(one.inputs["input_ids"]) for one in self._encoded], np.int64)
        self._sampler = BucketBatchSampler(lengths, recipe.batch_size, seed=seed, rank=0, world_size=1)
        self.steps = recipe.epochs * len(self._sampler)
        self.optimizer, self.schedule = recipe.optimizer(net, self.steps)
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self._done = 0

    def run_epoch(self, progress: Callable[[int, int, str], None] | None) -> None:
        """One pass over the sentences."""
        self.net.train()
        start, total, words = time.perf_counter(), 0.0, 0
        for rows in self._sampler:
            batch = tag_batch([self._encoded[r] for r in rows], self._fills, [self._targets[r] for r in rows])
            loss, size = self._step(batch.to(self.device)), len(batch.rows)
            total, words, self._done = total + size * loss, words + size, self._done + 1
            if not math.isfinite(loss):
                raise diverged(OWNER, "in step", self._done, f"the loss is {loss}", self.recipe)
            if progress is not None:
                said = f"epoch {len(self.losses) + 1} of {self.recipe.epochs}, loss {total / words:.3f}"
                progress(self._done, self.steps, said)
        self.losses.append(total / words)
        self.seconds.append(time.perf_counter() - start)

    def _step(self, batch: TagBatch) -> float:
        import torch

        assert batch.targets is not None  # run_epoch gives them
        logits = token_logits(OWNER, self.net(**batch.inputs), batch, self.classes)
        loss = soft_cross_entropy(logits, batch.targets)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())


def _measured(
    probs: list[np.ndarray], test: TaggedCorpus, tag_names: tuple[str, ...]
) -> tuple[EntityScores | None, tuple[float, float, float]]:
    """Scores of entities; accuracy, NLL and calibration of tokens."""
    true = [one.tags for one in test]
    entities = all(tag == "O" or (tag[:1] in "BIES" and tag[1:2] == "-") for tag in tag_names)
    found = entity_scores(true, likeliest(probs, tag_names)) if entities else None
    numbers = {name: i for i, name in enumerate(tag_names)}
    labels = np.array([numbers[tag] for tags in true for tag in tags])
    return found, scores_of(np.concatenate(probs), labels)


def _check(train: Any, test: Any) -> None:
    for name, data in (("train", train), ("test", test)):
        if data is None and name == "test":
            continue
        if not isinstance(data, TaggedCorpus):
            raise MixTypeError(f"{OWNER}: {name} is {type(data).__name__}, expected read_tagged(...) or TaggedCorpus")
        if not len(data):
            raise MixValueError(f"{OWNER}: {name} has no sentence")
    if len(train.tag_names) < 2:
        raise MixValueError(f"{OWNER}: train has the tags {list(train.tag_names)}, expected two or more")
    met = set() if test is None else {tag for one in test for tag in one.tags}
    strange = sorted(met - set(train.tag_names))
    if strange:
        raise MixValueError(
            f"{OWNER}: test has the tags {strange[:8]}, which train has not: its tag_names are {list(train.tag_names)}"
        )


def _place(i: int, own: int) -> str:
    return f"{OWNER}: train, sentence {i}" if i < own else f"{OWNER}: augmented, sentence {i - own}"


def _tokens(place: int, sentence: Any) -> Sequence[str]:
    tokens = getattr(sentence, "tokens", sentence)
    if isinstance(tokens, str) or not isinstance(tokens, Sequence):
        raise MixTypeError(f"predict_tags: sentence {place} is {type(sentence).__name__}, expected a row of tokens")
    if not tokens:
        raise MixValueError(f"predict_tags: sentence {place} has no token")
    return tokens
