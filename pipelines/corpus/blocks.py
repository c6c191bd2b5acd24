"""Candidate sentences in numbered blocks: each block is the same whenever and wherever it is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

import mixops as mx
from mixops import streams

from .judging import Judge
from .lookup import WordSpace
from .mixed import MixedSentence
from .pairing import PairIndex
from .tagged import OUTSIDE, TaggedCorpus

# Sentences a scorer is given at once. A block may be cut off anywhere in it, and what comes after is not judged.
_AT_ONCE = 64


@dataclass(frozen=True)
class Counts:
    """What became of the candidates.

    Args:
        candidates: sentences that were made; two of each mixed pair of windows.
        accepted: those that are kept.
        rejected: those whose score is out of the range.
        failed: those that the scorer raised an error for, or gave NaN.
        repeated: those that are a sentence of the corpus, one that an earlier block gave, or an earlier candidate of
            their own block.
        no_token: those with no position that has a vector in both sentences and a token left to choose.

    Example:
        >>> print(Counts(10, accepted=6, rejected=4) + Counts(2, accepted=2))
        12 candidates: 8 accepted, 4 rejected by score, 0 failed to be scored, 0 repeated, 0 without a new token
    """

    candidates: int = 0
    accepted: int = 0
    rejected: int = 0
    failed: int = 0
    repeated: int = 0
    no_token: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Counts)))

    def __str__(self) -> str:
        return (
            f"{self.candidates} candidates: {self.accepted} accepted, {self.rejected} rejected by score, {self.failed} "
            f"failed to be scored, {self.repeated} repeated, {self.no_token} without a new token"
        )


@dataclass(frozen=True)
class Block:
    """What one block gave.

    Args:
        number: counted from 0.
        sentences: those that were accepted, in the order of their numbers.
        counts: of its candidates, up to the last one that was wanted.
        failure: the first error of the scorer, as text, or None.
    """

    number: int
    sentences: tuple[MixedSentence, ...]
    counts: Counts
    failure: str | None = None


@dataclass(frozen=True)
class _Draft:
    """A candidate before it is judged. ``changed`` are the positions of the sentence that have a new token."""

    number: int
    own: int
    other: int
    tokens: tuple[str, ...]
    start: int
    other_start: int
    width: int
    lam: float
    changed: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Judged:
    """Some candidates of a block, and what the scorer said of those that are no sentence of the corpus and no earlier
    candidate of their block (``fresh``); ``failure`` is its first error.
    """

    drafts: tuple[_Draft, ...]
    fresh: tuple[bool, ...]
    scores: np.ndarray | None
    failure: str | None


class BlockMaker:
    """Makes blocks of candidates of a corpus.

    Args:
        corpus: the sentences.
        op: SeqMix.
        space: of the corpus' words, in the order that ``words_of`` gives them.
        judge: of candidates.
        seed: of the run; block b is drawn from ``streams.plan_stream(seed, 0, b)``.
        soft: give every sentence its rows of shares.
        pairs: pairs of sentences that a block draws.

    Raises:
        MixError: if the operator's numbers do not suit the corpus.
    """

    def __init__(
        self, corpus: TaggedCorpus, op: mx.SeqMix, space: WordSpace, judge: Judge, seed: int, soft: bool, pairs: int
    ) -> None:
        self.corpus, self.op, self.space, self.judge = corpus, op, space, judge
        self._seed, self._soft, self._pairs = seed, soft, pairs
        self._given = frozenset(sentence.tokens for sentence in corpus.sentences)
        number = {word: i for i, word in enumerate(space.words)}
        self._words = [np.array([number[word] for word in s.tokens], np.int64) for s in corpus.sentences]
        self._lengths = np.array([len(s.tokens) for s in corpus.sentences], np.int64)
        self._tags = np.full((len(corpus), self._lengths.max(initial=1)), op.outside, np.int64)
        outside = corpus.tag_names.index(OUTSIDE) if OUTSIDE in corpus.tag_names else -1
        for i in range(len(corpus)):
            ids = corpus.tag_ids(i)
            self._tags[i, : self._lengths[i]] = np.where(ids == outside, op.outside, op.outside + 1 + ids)
        row, _, group = op.windows(self._tags, self._lengths)
        self.eligible = len(np.unique(row))
        self.index = PairIndex(row, group)
        names = corpus.tag_names
        self._entities = all(name == OUTSIDE or name[:2] in ("B-", "I-") for name in names)

    def candidates(self, number: int) -> int:
        """Number of the first candidate of a block."""
        return number * self._pairs * 2

    def block(self, number: int, before: set[tuple[str, ...]], wanted: int | None = None) -> Block:
        """Make a block.

        Args:
            number: of the block.
            before: tokens of the sentences that earlier blocks gave.
            wanted: accepted sentences after which the block ends; None for all of it.

        Returns:
            The block: a function of what the maker was made of, and of these three.

        Raises:
            MixError: if the scorer returns anything but a number for each sentence.
        """
        return self.settle(number, self.judged(number), before, wanted)

    def judged(self, number: int) -> Iterator[Judged]:
        """The candidates of a block with their scores, some at a time: a function of the maker and the number alone."""
        here: set[tuple[str, ...]] = set()
        drafts = list(self._drafts(number))
        for start in range(0, len(drafts), _AT_ONCE):
            some = drafts[start : start + _AT_ONCE]
            fresh = []
            for draft in some:
                fresh.append(bool(draft.changed) and draft.tokens not in self._given and draft.tokens not in here)
                here.add(draft.tokens)
            scores, why = self._scores([d for d, new in zip(some, fresh, strict=True) if new])
            yield Judged(tuple(some), tuple(fresh), scores, why)

    def settle(
        self, number: int, judged: Iterable[Judged], before: set[tuple[str, ...]], wanted: int | None = None
    ) -> Block:
        """What a block gives when its candidates have been judged, here or elsewhere; see ``block``."""
        counts, failure = Counts(), None
        sentences: list[MixedSentence] = []
        for part in judged:
            if wanted is not None and len(sentences) >= wanted:
                break
            failure = failure or part.failure
            place = np.cumsum(part.fresh) - 1
            for draft, new, k in zip(part.drafts, part.fresh, place, strict=True):
                if wanted is not None and len(sentences) >= wanted:
                    break
                score = part.scores[k] if new and part.scores is not None else None
                if not new or draft.tokens in before:
                    verdict = Counts(1, no_token=1) if not draft.changed else Counts(1, repeated=1)
                elif score is None or self.judge.accepts(score):
                    verdict = Counts(1, accepted=1)
                    sentences.append(self._sentence(draft, None if score is None else float(score)))
                else:
                    verdict = Counts(1, failed=1) if np.isnan(score) else Counts(1, rejected=1)
                counts += verdict
        return Block(number, tuple(sentences), counts, failure)

    def _scores(self, drafts: Sequence[_Draft]) -> tuple[np.ndarray | None, str | None]:
        if self.judge.score is None:
            return None, None
        return self.judge.scores([draft.tokens for draft in drafts]) if drafts else (np.zeros(0), None)

    def _drafts(self, number: int) -> Iterator[_Draft]:
        """Both candidates of every pair of the block that has been mixed, in order."""
        rng = streams.plan_stream(self._seed, 0, number)
        pairs = self.index.draw(rng, self._pairs)
        rows = pairs.ravel()
        lengths = self._lengths[rows]
        extent = int(lengths.max())
        spec = mx.Spec(len(rows), (extent,), lengths)
        plan = self.op.draw(rng, spec, tags=self._tags[rows, :extent], partner=np.arange(len(rows)) ^ 1)
        assert isinstance(plan, mx.Plan)
        box, donor = plan.box[::2, 0], plan.donor[::2, 0]
        mixed = np.flatnonzero(box[:, 1] > box[:, 0])
        if not len(mixed):
            return
        own_share = 1 - plan.opacity[::2, 0][mixed].astype(np.float64)
        starts = np.stack([box[mixed, 0], donor[mixed, 0]], 1)
        widths = box[mixed, 1] - box[mixed, 0]
        texts, new = self._mixtures(pairs[mixed], starts, widths, own_share)
        ends = np.cumsum(widths)
        for k, pair in enumerate(mixed):
            here = slice(ends[k] - widths[k], ends[k])
            for side in (0, 1):
                own, other = (int(i) for i in pairs[pair][:: 1 - 2 * side])
                start, other_start = (int(i) for i in starts[k][:: 1 - 2 * side])
                share = float(own_share[k] if side == 0 else 1 - own_share[k])
                tokens = list(self.corpus.sentences[own].tokens)
                changed = tuple(start + int(t) for t in np.flatnonzero(new[here]))
                for position in changed:
                    tokens[position] = texts[here][position - start]
                yield _Draft(
                    self.candidates(number) + 2 * int(pair) + side,
                    own, other, tuple(tokens), start, other_start, int(widths[k]), share, changed,
                )  # fmt: skip

    def _mixtures(
        self, pairs: np.ndarray, starts: np.ndarray, widths: np.ndarray, share: np.ndarray
    ) -> tuple[list[str], np.ndarray]:
        """The new word at every position of all windows, one window after another, and which positions have one."""
        first, second = (
            np.concatenate(
                [self._words[i][a : a + w] for i, a, w in zip(pairs[:, s], starts[:, s], widths, strict=True)]
            )
            for s in (0, 1)
        )
        own = np.repeat(share, widths)
        token = np.full(len(own), -1, np.int64)
        both = self.space.known[first] & self.space.known[second]
        if both.any():
            token[both] = self.space.nearest(first[both], second[both], own[both])
        new = token >= 0
        models = np.where(own >= 0.5, first, second)
        texts = np.full(len(own), "", object)
        texts[new] = self.space.written(token[new], models[new])
        return texts.tolist(), new

    def _sentence(self, draft: _Draft, score: float | None) -> MixedSentence:
        own_ids, other_ids = self.corpus.tag_ids(draft.own), self.corpus.tag_ids(draft.other)
        at = np.array(draft.changed)
        theirs = other_ids[at - draft.start + draft.other_start]
        hard = own_ids.copy()
        # At equal shares both sentences take the tag of the pair's first, whose window it is as much.
        if draft.lam < 0.5 or (draft.lam == 0.5 and draft.number % 2):
            hard[at] = theirs
        tags = [self.corpus.tag_names[i] for i in hard]
        soft = None
        if self._soft:
            soft = np.eye(len(self.corpus.tag_names), dtype=np.float32)[own_ids]
            soft[at] *= np.float32(draft.lam)
            soft[at, theirs] += np.float32(1 - draft.lam)
        return MixedSentence(
            tokens=draft.tokens,
            tags=tuple(_begun(tags) if self._entities else tags),
            soft=soft,
            window=(draft.start, draft.start + draft.width),
            parents=(draft.own, draft.other),
            lam=draft.lam,
            score=score,
            number=draft.number,
        )


def words_of(corpus: TaggedCorpus) -> tuple[list[str], list[int]]:
    """The different words of a corpus in the order in which they come, and how often each does."""
    counts: dict[str, int] = {}
    for sentence in corpus.sentences:
        for word in sentence.tokens:
            counts[word] = counts.get(word, 0) + 1
    return list(counts), list(counts.values())


def _begun(tags: Sequence[str]) -> list[str]:
    """BIO tags with every entity begun by B-: what a window has cut off from its beginning is an entity of its own."""
    made: list[str] = []
    for tag in tags:
        goes_on = tag.startswith("I-") and made and made[-1] != OUTSIDE and made[-1][2:] == tag[2:]
        made.append(tag if goes_on or not tag.startswith("I-") else f"B-{tag[2:]}")
    return made
