"""Active learning of tags: which sentences to have tagged next, and the loop of asking, augmenting and training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mixops import MixTypeError, MixValueError, streams

from .corpus.mixed import MixedSentence
from .corpus.tagged import TaggedCorpus, TaggedSentence
from .state import count
from .tagging.scores import entity_scores

_FORMAT = {"format": "mixops.active", "version": 1}
#: What a number is drawn for: a training, an augmentation, a random query.
_TRAIN, _AUGMENT, _ASK = 0, 1, 2
#: Rows may miss a sum of 1 by this much.
_SLACK = 1e-2


class Predictor(Protocol):
    """What a training gives: ``train_tagger`` and any object of yours with this method."""

    def predict(self, sentences: Sequence[Any]) -> list[np.ndarray]:
        """(T, C) probabilities of the tags of every token, for each sentence."""


#: (labelled, augmented, seed) -> what predicts.
Train = Callable[[TaggedCorpus, tuple[MixedSentence, ...], int], Predictor]
#: (sentences that were tagged just now, seed) -> new ones made of them.
Augment = Callable[[TaggedCorpus, int], Sequence[MixedSentence]]

# -- queries: the higher the score, the sooner a sentence is asked for -------------------------------------------------


def least_confidence(probs: Sequence[np.ndarray], *, per_token: bool = False) -> np.ndarray:
    """How unsure the likeliest row of tags is: 1 - Π_t max_c p[t, c], tokens taken as independent.

    Args:
        probs: for each of n sentences (T, C), rows with the sum 1.
        per_token: 1 - (Π_t max_c p[t, c])^(1/T), in which long sentences do not come first for their length alone.

    Returns:
        (n,) float64 from 0 to 1.

    Raises:
        MixError: if an array is not (T, C), T of 1 or more, or a row is no distribution.

    Example:
        >>> least_confidence([np.array([[0.9, 0.1], [0.5, 0.5]])]).round(2).tolist()
        [0.55]

    Source: Culotta and McCallum 2005, as used by Zhang, Yu and Zhang 2020, "SeqMix"; there the row comes from the model
    whole, here tokens are independent, as a softmax on every token makes them.
    """
    found = []
    for one in _checked("least_confidence", probs):
        surest = np.log(np.clip(one.max(1), np.finfo(float).tiny, 1.0))
        found.append(-np.expm1(surest.mean() if per_token else surest.sum()) + 0.0)  # no minus before a 0
    return np.array(found)


def token_entropy(probs: Sequence[np.ndarray]) -> np.ndarray:
    """Normalised token entropy, NTE: -(1/T) Σ_t Σ_c p[t, c]·log p[t, c].

    Args:
        probs: for each of n sentences (T, C), rows with the sum 1.

    Returns:
        (n,) float64, nats, from 0 to log C.

    Raises:
        MixError: as ``least_confidence``.

    Example:
        >>> token_entropy([np.array([[1.0, 0.0], [0.5, 0.5]])]).round(3).tolist()
        [0.347]

    Source: Settles and Craven 2008, "An Analysis of Active Learning Strategies for Sequence Labeling Tasks", as used by
    Zhang, Yu and Zhang 2020, "SeqMix".
    """
    return np.array([_entropy(one).mean() for one in _checked("token_entropy", probs)])


def disagreement(committee: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Vote entropy of several models: -(1/T) Σ_t Σ_c v[t, c]·log v[t, c], v the share of them whose likeliest tag is c.

    Args:
        committee: of each of two models or more, n arrays (T, C), rows with the sum 1.

    Returns:
        (n,) float64, nats, from 0 (all agree) to the log of the number of models.

    Raises:
        MixError: as ``least_confidence``, or if there are fewer than two models, or they differ in shape.

    Example:
        >>> one, other = np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]])
        >>> disagreement([[one], [other]]).round(3).tolist()
        [0.693]

    Source: Dagan and Engelson 1995 by way of Settles and Craven 2008; the query by committee of Zhang, Yu and Zhang
    2020, "SeqMix".
    """
    models = [_checked("disagreement", probs) for probs in committee]
    if len(models) < 2:
        raise MixValueError(f"disagreement: {len(models)} model, expected the probabilities of two or more")
    shapes = [[one.shape for one in probs] for probs in models]
    if any(shape != shapes[0] for shape in shapes):
        raise MixValueError("disagreement: the models differ in sentences, tokens or tags, expected the same of all")
    found = []
    for votes in zip(*models, strict=True):
        shares = np.mean([np.eye(one.shape[1])[one.argmax(1)] for one in votes], axis=0)
        found.append(_entropy(shares).mean())
    return np.array(found)


#: Queries of one model, by name; "disagreement" and "random" are known to the loop too.
QUERIES: dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]] = {"lc": least_confidence, "nte": token_entropy}
STRATEGIES = (*QUERIES, "disagreement", "random")


def highest(scores: np.ndarray, number: int) -> np.ndarray:
    """The places of the highest scores, highest first; of equal ones the lowest place first.

    Args:
        scores: (n,) floats.
        number: how many; all if there are fewer.

    Returns:
        (min(number, n),) int64.

    Raises:
        MixError: if a score is not a number, or there is no row of them.

    Example:
        >>> highest(np.array([0.5, 0.9, 0.5]), 2).tolist()
        [1, 0]
    """
    held = np.asarray(scores, float)
    if held.ndim != 1 or np.isnan(held).any():
        raise MixValueError(f"highest: scores of shape {held.shape}, expected (n,), none of them NaN")
    return np.argsort(-held, kind="stable")[: count("highest", "number", number)].astype(np.int64)


# -- the loop ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ActiveRound:
    """One training of the loop.

    Args:
        number: 0 is the training on the first sentences.
        added: places in the pool of the sentences that were tagged for it, in the order they were asked for.
        labelled: sentences tagged so far.
        augmented: new sentences made of them so far.
        precision: of entities in the test sentences, from 0 to 1.
        recall: likewise.
        f1: likewise.
    """

    number: int
    added: tuple[int, ...]
    labelled: int
    augmented: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ActiveRun:
    """What a loop did.

    Args:
        rounds: in order.
        next: places in the pool that it would ask for next; empty where every sentence is tagged.
    """

    rounds: tuple[ActiveRound, ...]
    next: tuple[int, ...]

    @property
    def labelled(self) -> tuple[int, ...]:
        """Places in the pool of all sentences that were tagged, in the order they were."""
        return tuple(place for one in self.rounds for place in one.added)


def active_learning(
    pool: TaggedCorpus,
    test: TaggedCorpus,
    *,
    rounds: int = 5,
    first: int = 200,
    query: int = 100,
    strategy: str | Callable[[list[np.ndarray]], np.ndarray] = "nte",
    augment: Augment | None = None,
    train: Train | None = None,
    committee: int = 3,
    seed: int = 0,
    state: str | Path | None = None,
    progress: Callable[[ActiveRound], None] | None = None,
) -> ActiveRun:
    """Train on a few sentences, ask for the tags of those the model is least sure of, augment, train again.

    The tags of the pool stand for a person's: those of a sentence are looked at once it was asked for, and not before.

    Args:
        pool: sentences to be tagged, with their tags.
        test: sentences to be measured on.
        rounds: queries after the first training, 0 or more.
        first: sentences drawn for the first training.
        query: sentences asked for in each round.
        strategy: "lc" (``least_confidence``), "nte" (``token_entropy``), "disagreement" of a committee, "random"; or a
            function of n arrays (T, C) that gives (n,) scores, the highest asked for first. Of equal ones the lowest
            place comes first.
        augment: (the sentences that were tagged just now, seed) -> new ones, which are kept for all later rounds; for
            SeqMix ``lambda new, seed: augment_corpus(new, op, embedding=E, seed=seed).sentences``. None makes none.
        train: (labelled, augmented, seed) -> an object with ``predict(sentences)``, which gives (T, C) probabilities in
            the order of ``pool.tag_names`` for each; None: ``train_tagger`` with its defaults.
        committee: models that "disagreement" trains in each round, 2 or more; the first of them is measured.
        seed: of the first sentences, of trainings and of augmentations; 0 ≤ seed < 2**64.
        state: a JSON file that holds the loop after each round: given again, it goes on from there, with more rounds
            too. It holds places in the pool and scores, no model: new sentences are made again, so ``augment`` has to
            be a function of its arguments.
        progress: called after each round.

    Returns:
        The rounds, rounds + 1 of them, and what would be asked for next.

    Raises:
        MixError: if an argument is out of range or of a wrong type, tags are none of entities, the pool is too small,
            the state is broken, that of another loop or has no folder, or a training gives other things than
            probabilities, an augmentation others than sentences.

    Example:
        >>> from mixops.pipelines.active import active_learning
        >>> from mixops.pipelines.corpus import TaggedCorpus, TaggedSentence
        >>> rows = [TaggedSentence((name, "sings"), ("B-PER", "O")) for name in ("Ann", "Bob", "Eve", "Dan")]
        >>> pool = TaggedCorpus(rows, ("O", "B-PER"))
        >>> run = active_learning(pool, pool, rounds=1, first=2, query=1, seed=7)
        >>> [one.labelled for one in run.rounds], len(run.next)
        ([2, 3], 1)

    Source: Zhang, Yu and Zhang 2020, "SeqMix: Augmenting Active Sequence Labeling via Sequence Mixup", algorithm 1: 200
    sentences, then 5 rounds of 100, new sentences a fifth of those asked for.
    """
    loop = _Loop(pool, test, first, query, strategy, augment, train, committee, seed)
    wanted = count("active_learning", "rounds", rounds) + 1
    if first + (wanted - 1) * query > len(pool):
        raise MixValueError(
            f"active_learning: first={first} and {wanted - 1} rounds of query={query} need "
            f"{first + (wanted - 1) * query} sentences, the pool has {len(pool)}"
        )
    path = None if state is None else Path(state)
    if path is not None and (path.is_dir() or not path.parent.is_dir()):  # said before the first training, not after
        what = "is a folder, expected" if path.is_dir() else f"has no folder {path.parent}: make it, or choose"
        raise MixValueError(f"active_learning: state={str(path)!r} {what} the name of a file to write")
    done, ask = _loaded(path, loop) if path is not None and path.exists() else ([], loop.drawn())
    new = loop.made_again(done)
    for number in range(len(done), wanted):
        one, ask, made = loop.round(number, done, ask, new)
        done, new = [*done, one], (*new, *made)
        if path is not None:
            _save(path, loop, done, ask)
        if progress is not None:
            progress(one)
    # A state may hold more rounds than are wanted now: what came after the last was asked for there.
    return ActiveRun(tuple(done[:wanted]), done[wanted].added if len(done) > wanted else ask)


class _Loop:
    """What stays the same from round to round."""

    def __init__(
        self, pool: Any, test: Any, first: Any, query: Any, strategy: Any, augment: Any, train: Any, committee: Any,
        seed: Any,
    ) -> None:  # fmt: skip
        for name, data in (("pool", pool), ("test", test)):
            if not isinstance(data, TaggedCorpus):
                raise MixTypeError(f"active_learning: {name} is {type(data).__name__}, expected read_tagged(...)")
            try:  # before anything is trained
                entity_scores([data.tag_names], [data.tag_names])
            except MixValueError as error:
                raise MixValueError(f"active_learning: {name} is measured by its entities: {error}") from None
        numbers = {"first": first, "query": query, "committee": committee}
        for name, value in numbers.items():
            least = 2 if name == "committee" else 1
            if count("active_learning", name, value) < least:
                raise MixValueError(f"active_learning: {name}={value}, expected {least} or more")
        if not callable(strategy) and strategy not in STRATEGIES:
            raise MixValueError(
                f"active_learning: strategy={strategy!r}, expected one of {', '.join(STRATEGIES)}, or a function of "
                "probabilities"
            )
        for name, function in (("augment", augment), ("train", train)):
            if function is not None and not callable(function):
                raise MixTypeError(f"active_learning: {name} is {type(function).__name__}, expected a function")
        self.pool, self.test, self.first, self.query = pool, test, first, query
        self.strategy, self.augment, self.seed = strategy, augment, seed
        self.train: Train = _train if train is None else train
        self.committee = committee if strategy == "disagreement" else 1

    def drawn(self) -> tuple[int, ...]:
        """The first sentences."""
        order = streams.order_stream(self.seed, 0).permutation(len(self.pool))
        return tuple(sorted(order[: self.first].tolist()))

    def round(
        self, number: int, done: list[ActiveRound], ask: tuple[int, ...], new: tuple[MixedSentence, ...]
    ) -> tuple[ActiveRound, tuple[int, ...], tuple[MixedSentence, ...]]:
        """Tag, augment, train and measure: the round, what to ask for next, and the new sentences."""
        made = self._made(number, ask)
        places = [*(place for one in done for place in one.added), *ask]
        labelled = self.pool.take(places)
        models = [
            self.train(labelled, (*new, *made), self._number(number, _TRAIN, member))
            for member in range(self.committee)
        ]
        names = self.pool.tag_names
        probs = _predicted(models[0], [one.tokens for one in self.test], len(names))
        found = [[names[i] for i in one.argmax(1)] for one in probs]
        scores = entity_scores([one.tags for one in self.test], found)
        whole = len(places), len(new) + len(made), scores.precision, scores.recall, scores.f1
        return ActiveRound(number, ask, *whole), self._asked(number, models, places), made

    def made_again(self, done: Sequence[ActiveRound]) -> tuple[MixedSentence, ...]:
        """The new sentences of rounds that are done."""
        new: tuple[MixedSentence, ...] = ()
        for one in done:
            new = (*new, *self._made(one.number, one.added))
            if len(new) != one.augmented:
                raise MixValueError(
                    f"active_learning: up to round {one.number} the state has {one.augmented} new sentences, augment "
                    f"made {len(new)}: resume with the augment of the run that was saved, a function of its arguments"
                )
        return new

    def _made(self, number: int, places: Sequence[int]) -> tuple[MixedSentence, ...]:
        if self.augment is None:
            return ()
        made = self.augment(self.pool.take(list(places)), self._number(number, _AUGMENT))
        if isinstance(made, (str, Mapping)) or not isinstance(made, Iterable):
            raise MixTypeError(
                f"active_learning: augment gave {type(made).__name__}, expected new sentences: "
                "augment_corpus(...).sentences, or an empty list"
            )
        new = tuple(made)
        for one in new:
            if not isinstance(one, (TaggedSentence, MixedSentence)):
                raise MixTypeError(
                    f"active_learning: augment gave {type(one).__name__} among new sentences, expected a "
                    "TaggedSentence or a MixedSentence of each"
                )
        return new

    def _asked(self, number: int, models: Sequence[Predictor], places: Sequence[int]) -> tuple[int, ...]:
        rest = np.setdiff1d(np.arange(len(self.pool)), places)
        if not len(rest):
            return ()
        if self.strategy == "random":
            rng = streams.sample_stream(self.seed, number, 0, _ASK)
            return tuple(rng.permutation(rest)[: self.query].tolist())
        tokens = [self.pool[int(place)].tokens for place in rest]
        probs = [_predicted(model, tokens, len(self.pool.tag_names)) for model in models]
        if self.strategy == "disagreement":
            scores = disagreement(probs)
        else:
            how = self.strategy if callable(self.strategy) else QUERIES[self.strategy]
            scores = np.asarray(how(probs[0]))
        if scores.shape != rest.shape:
            raise MixValueError(f"active_learning: strategy gave scores of {scores.shape}, expected {rest.shape}")
        return tuple(rest[highest(scores, self.query)].tolist())

    def _number(self, number: int, purpose: int, member: int = 0) -> int:
        return int(streams.sample_stream(self.seed, number, member, purpose).integers(1 << 62))

    def fingerprint(self) -> str:
        """A digest of the sentences and of all settings but the functions."""
        digest = hashlib.sha256()
        strategy = self.strategy if isinstance(self.strategy, str) else "a function"
        settings = [self.first, self.query, strategy, self.augment is not None, self.committee, self.seed]
        digest.update(json.dumps([settings, list(self.pool.tag_names)]).encode())
        for data in (self.pool, self.test):
            for one in data:
                digest.update(json.dumps([list(one.tokens), list(one.tags)]).encode())
            digest.update(b"\n")
        return digest.hexdigest()


def _train(labelled: TaggedCorpus, augmented: tuple[MixedSentence, ...], seed: int) -> Predictor:
    from .tagging.training import train_tagger

    return train_tagger(labelled, augmented=augmented, seed=seed)


def _predicted(model: Predictor, sentences: list[Any], classes: int) -> list[np.ndarray]:
    if not callable(getattr(model, "predict", None)):
        raise MixTypeError(
            f"active_learning: train gave {type(model).__name__}, expected an object with predict(sentences)"
        )
    found = list(model.predict(sentences))
    shapes = [(len(tokens), classes) for tokens in sentences]
    if [np.shape(one) for one in found] != shapes:
        raise MixValueError(
            "active_learning: predict gave other shapes than (tokens, tags) for each sentence, in the order of "
            "pool.tag_names"
        )
    return _checked("active_learning: predict", found)


# -- the state ---------------------------------------------------------------------------------------------------------


def _save(path: Path, loop: _Loop, done: Sequence[ActiveRound], ask: Sequence[int]) -> None:
    content = {**_FORMAT, "fingerprint": loop.fingerprint(), "rounds": [asdict(one) for one in done], "next": ask}
    # Another name first: a kill in the middle of writing leaves the file of the round before.
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _loaded(path: Path, loop: _Loop) -> tuple[list[ActiveRound], tuple[int, ...]]:
    fix = "expected a file that active_learning(state=...) wrote"
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise MixValueError(f"{path.name}: {error}; {fix}") from None
    if not isinstance(content, dict) or any(content.get(name) != value for name, value in _FORMAT.items()):
        raise MixValueError(f"{path.name}: JSON, but no state of version {_FORMAT['version']}; {fix}")
    if content.get("fingerprint") != loop.fingerprint():
        raise MixValueError(
            f"{path.name}: the state of another loop: resume with its sentences and settings, or choose another name"
        )
    try:
        rounds = [ActiveRound(**{**one, "added": tuple(one["added"])}) for one in content["rounds"]]
        ask = tuple(content["next"])
        labelled = [place for one in rounds for place in one.added]
        whole = bool(rounds) and all(type(place) is int and 0 <= place < len(loop.pool) for place in [*labelled, *ask])
    except (KeyError, TypeError) as error:
        raise MixValueError(f"{path.name}: broken: {error!r}; {fix}") from None
    if not whole or len({*labelled, *ask}) < len(labelled) + len(ask):
        raise MixValueError(f"{path.name}: broken: a sentence twice or not in the pool, or no round; {fix}")
    return rounds, ask


# -- arithmetic --------------------------------------------------------------------------------------------------------


def _entropy(shares: np.ndarray) -> np.ndarray:
    """(T,) nats of (T, C) shares; 0·log 0 is 0."""
    return -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(1) + 0.0


def _checked(owner: str, probs: Any) -> list[np.ndarray]:
    found = []
    for place, one in enumerate(probs):
        array = np.asarray(one)
        if array.ndim != 2 or not array.size or array.dtype.kind != "f":
            raise MixValueError(
                f"{owner}: sentence {place} has {array.dtype} of shape {array.shape}, expected floats (T, C), a row for"
                " each token"
            )
        held = array.astype(np.float64)
        if not ((held >= 0).all() and (np.abs(held.sum(1) - 1) <= _SLACK).all()):
            raise MixValueError(f"{owner}: sentence {place} has a row that is no distribution; logits need a softmax")
        found.append(held)
    return found
