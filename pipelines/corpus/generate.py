"""SeqMix of a corpus: new tagged sentences of pairs of old ones, as many as are wanted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import mixops as mx
from mixops import MixTypeError, MixValueError

from ..text.vocabulary import Coverage
from .blocks import Block, BlockMaker, Counts, Judged, words_of
from .judging import Judge, Score
from .lookup import WordSpace
from .mixed import MixedSentence
from .reading import read_tagged
from .tagged import TaggedCorpus

# Candidates that are made before it is given up: so many for each sentence that is wanted, and so many more.
_TRIES, _MORE_TRIES = 50, 1000

#: Makes and judges the candidates of blocks, in order: see ``Generation.blocks``.
Judging = Callable[[BlockMaker, Sequence[int]], Iterable[Iterable[Judged]]]


@dataclass(frozen=True, eq=False)
class Augmented:
    """New sentences, and what became of all that were made.

    Args:
        sentences: the new ones, in the order of their numbers.
        counts: of all candidates.
        coverage: how many tokens and words of the corpus have a vector.
        wanted: sentences that were asked for.
        reason: why there are fewer than wanted, or None.
        corpus: the sentences that were given.
    """

    sentences: tuple[MixedSentence, ...]
    counts: Counts
    coverage: Coverage
    wanted: int
    reason: str | None
    corpus: TaggedCorpus

    def __repr__(self) -> str:
        return f"<Augmented: {len(self)} of {self.wanted} sentences; {self.counts}>"

    def __len__(self) -> int:
        return len(self.sentences)

    def __iter__(self) -> Iterator[MixedSentence]:
        return iter(self.sentences)


class Generation:
    """All that a run is made of: makes its blocks from any of them on.

    Args:
        sentences: see augment_corpus, and so for all others but start and before.
        op: the operator.
        embedding: of words.
        among: words to choose from.
        score: judges candidates.
        accept: the range of scores.
        ratio: new sentences for each given one.
        seed: of the run.
        soft: give rows of shares.
        block: pairs of sentences in a block.
        most_candidates: candidates after which it ends.

    Raises:
        MixError: see augment_corpus.
    """

    def __init__(
        self,
        sentences: Any,
        op: mx.SeqMix,
        *,
        embedding: Any,
        among: Iterable[str] | None = None,
        score: Score | None = None,
        accept: tuple[float, float] = (0, math.inf),
        ratio: float = 0.2,
        seed: int = 0,
        soft: bool = True,
        block: int = 256,
        most_candidates: int | None = None,
    ) -> None:
        if not isinstance(op, mx.SeqMix):
            raise MixTypeError(f"augment_corpus: op is {type(op).__name__}, expected a SeqMix")
        if op.until is not None:
            raise MixValueError(f"augment_corpus: {op!r} stops at an epoch, and a corpus has none: leave until out")
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio < math.inf:
            raise MixValueError(f"augment_corpus: ratio={ratio!r}, expected a number of 0 or more")
        _whole("block", block, 1)
        _whole("seed", seed, 0)
        judge = Judge(score, accept)
        self.corpus = sentences if isinstance(sentences, TaggedCorpus) else read_tagged(sentences)
        self.op, self.judge = op, judge
        space = WordSpace(*words_of(self.corpus), embedding, among)
        self.coverage = space.coverage
        #: Sentences that are asked for. Rounded first: 0.07 * 100 is a little more than 7.
        self.wanted = math.ceil(round(ratio * len(self.corpus), 9))
        if most_candidates is None:
            most_candidates = _TRIES * self.wanted + _MORE_TRIES
        _whole("most_candidates", most_candidates, 0)
        #: Blocks after which it ends, whatever they have given.
        self.most_blocks = math.ceil(most_candidates / (2 * block))
        self.maker = BlockMaker(self.corpus, op, space, judge, int(seed), soft, int(block))

    def blocks(self, start: int = 0, before: Iterable[Any] = (), *, judge: Judging | None = None) -> Iterator[Block]:
        """Blocks in order, until enough sentences were accepted or too many candidates made.

        Args:
            start: number of the first block.
            before: sentences that the blocks before it gave (or just their tokens, as sequences): none of them comes
                again, and they count towards those that are wanted.
            judge: makes and judges the candidates elsewhere: takes the maker and the numbers of blocks, and gives what
                ``maker.judged`` gives for each, in order; it may be ended early. None: here, one block at a time.

        Returns:
            An iterator: the very blocks that it would have come to if begun at 0.

        Raises:
            MixError: if start is no whole number of 0 or more; while it runs, if the scorer returns anything but a
                number for each sentence.
        """
        _whole("start", start, 0)
        return self._blocks(int(start), {tuple(getattr(s, "tokens", s)) for s in before}, judge or _judged_here)

    def _blocks(self, start: int, before: set[tuple[str, ...]], judge: Judging) -> Iterator[Block]:
        numbers = range(start, self.most_blocks)
        if not len(self.maker.index) or not numbers or len(before) >= self.wanted:
            return
        for number, judged in zip(numbers, judge(self.maker, numbers), strict=False):
            made = self.maker.settle(number, judged, before, self.wanted - len(before))
            before.update(tuple(sentence.tokens) for sentence in made.sentences)
            yield made
            if len(before) >= self.wanted:
                return

    def reason(self, counts: Counts, failure: str | None = None) -> str | None:
        """Why fewer sentences were accepted than wanted; None if they are as many.

        Args:
            counts: of all blocks.
            failure: the first error of the scorer.

        Returns:
            A sentence for people.
        """
        if counts.accepted >= self.wanted:
            return None
        if not len(self.maker.index):
            return (
                f"no two of the {len(self.corpus)} sentences have windows that fit one another ({self.maker.eligible} "
                f"have a window that is eligible): {self.op!r} asks for more than they have; try fewer tags in a "
                "window, a lower density, a smaller window or another variant"
            )
        if not counts.candidates and self.most_blocks:
            return f"{self.op!r} left every pair as it was: raise its p or alpha, or try more most_candidates"
        failed = f"; the scorer failed for {counts.failed}" + (f", first with {failure}" if failure else "")
        more = "other windows or" if self.judge.score is None else "a wider range of scores or"
        return (
            f"{counts.accepted} of {self.wanted} sentences were accepted when {counts.candidates} candidates had been "
            f"made{failed if counts.failed else ''}; {more} more most_candidates gives more"
        )


def _judged_here(maker: BlockMaker, numbers: Sequence[int]) -> Iterator[Iterable[Judged]]:
    return map(maker.judged, numbers)


def generate_blocks(
    sentences: Any, op: mx.SeqMix, *, start: int = 0, before: Iterable[Any] = (), **settings: Any
) -> Iterator[Block]:
    """New sentences of a corpus in numbered blocks, from any of them on.

    Args:
        sentences: see augment_corpus.
        op: see augment_corpus.
        start: number of the first block.
        before: sentences (or their tokens) that the blocks before it gave.
        **settings: embedding and all others of augment_corpus but progress.

    Returns:
        An iterator of Block. Run from 0 to its end, or ended after any block and begun anew with what came before, it
        gives the same blocks. It says nothing of coverage and reasons: ``Generation`` does.

    Raises:
        MixError: see augment_corpus.
    """
    return Generation(sentences, op, **settings).blocks(start, before)


def augment_corpus(
    sentences: Any,
    op: mx.SeqMix,
    *,
    embedding: Any,
    among: Iterable[str] | None = None,
    score: Score | None = None,
    accept: tuple[float, float] = (0, math.inf),
    ratio: float = 0.2,
    seed: int = 0,
    soft: bool = True,
    block: int = 256,
    most_candidates: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Augmented:
    """New tagged sentences by SeqMix: windows of two sentences are mixed, and the nearest words put into both.

    At each position t of two windows the new word is argmin over e of ‖e - (λ·eᵢ + (1 - λ)·eⱼ)‖, neither special nor
    unused nor a piece that continues a word, and not one of the two; its tag is λ of one and 1 - λ of the other. Each
    pair gives two candidates, the first sentence with the mixed window in it and the second, judged one by one.

    A word that has no vector, as it stands or in lower case, has the mean of its pieces if the embedding is a model's,
    and else none: its position, in both candidates, keeps its own word and tag. New words of an embedding in lower case
    throughout take the capitals (all, the first or none) of the word with the larger share. Hard tags are those of the
    larger share; an entity whose beginning is cut off at the edge of a window is begun anew, I- made B-.

    Args:
        sentences: a TaggedCorpus, or what ``read_tagged`` takes: a path, or a list of pairs (tokens, tags).
        op: SeqMix; its windows and its λ. The tag called "O" is outside of entities, whatever its number; without one
            no token is.
        embedding: WordVectors, of ``word_vectors(model, tokenizer=...)`` or of a file; or (words, (n, D) floats).
        among: words that may be put in, in any case of letters, those of the corpus say; None: every word of the
            embedding, however rare.
        score: takes a list of sentences, each a list of words, and returns a number for each, such as a perplexity;
            None accepts every candidate. NaN rejects; where it raises an error, the sentences are given to it one by
            one, and those that it raises one for are rejected and counted.
        accept: accepted where accept[0] <= score < accept[1].
        ratio: new sentences for each given one, 0 or more; the number of new ones is rounded up.
        seed: of the run, 0 ≤ seed < 2**64.
        soft: give every new sentence its (T, C) rows of shares.
        block: pairs that are drawn at a time, 1 or more; another number gives other sentences.
        most_candidates: after about so many (rounded up to whole blocks) it ends with what it has; None: 50 for each
            sentence that is wanted, and 1,000 more.
        progress: called after every block with the numbers of accepted and wanted sentences.

    Returns:
        Augmented: the new sentences, what became of the others, and the reason if there are fewer than wanted. A
        function of the arguments: the same ones give the same sentences.

    Raises:
        MixError: if a number is out of range, the sentences cannot be read, fewer than 1 in 20 of their tokens have a
            vector, op is no SeqMix, or the scorer returns anything but a number for each sentence.

    Example:
        >>> from mixops import SeqMix
        >>> sentences = [("Ann lives in Rome".split(), "B-PER O O B-LOC".split()),
        ...              ("Bob works in Oslo".split(), "B-PER O O B-LOC".split())]
        >>> words = "ann lives in rome bob works oslo eve stays near at paris".split()
        >>> vectors = np.random.default_rng(0).normal(size=(12, 8))
        >>> new = augment_corpus(sentences, SeqMix("label-constrained", 4, 2), embedding=(words, vectors), ratio=1.0)
        >>> len(new), new.sentences[0].tags
        (2, ('B-PER', 'O', 'O', 'B-LOC'))

    Source:
        Zhang, Yu, Zhang, "SeqMix: Augmenting Active Sequence Labeling via Sequence Mixup", EMNLP 2020, section 3 and
        appendix C.

    Differs from it:
        Pairs are drawn at random: a sentence among those with a window that fits another, one of its windows, and one
        of the other sentences with a window that fits; the authors' code walks through the pairs in order, which gives
        the first sentences most of the mixing. Words without a vector are left alone, where the code reads them as
        unknown. A candidate that is a sentence of the corpus, or came before, is left out.
    """
    generation = Generation(
        sentences, op, embedding=embedding, among=among, score=score, accept=accept, ratio=ratio, seed=seed, soft=soft,
        block=block, most_candidates=most_candidates,
    )  # fmt: skip
    new: list[MixedSentence] = []
    counts, failure = Counts(), None
    for made in generation.blocks():
        new += made.sentences
        counts += made.counts
        failure = failure or made.failure
        if progress is not None:
            progress(len(new), generation.wanted)
    reason = generation.reason(counts, failure)
    return Augmented(tuple(new), counts, generation.coverage, generation.wanted, reason, generation.corpus)


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise MixValueError(f"augment_corpus: {name}={value!r}, expected a whole number of {least} or more")
