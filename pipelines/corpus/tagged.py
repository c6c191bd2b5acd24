"""Sentences with a tag for every token, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError

#: The tag of tokens outside of all entities.
OUTSIDE = "O"


@dataclass(frozen=True)
class TaggedSentence:
    """Tokens and a tag for each.

    Args:
        tokens: one or more, each with at least one character that is no blank.
        tags: as many names of tags, without blanks.

    Raises:
        MixError: if there is no token, the numbers differ, or one of them is no such text; its place is named.

    Example:
        >>> TaggedSentence(["Ada", "left"], ["B-PER", "O"])
        TaggedSentence(tokens=('Ada', 'left'), tags=('B-PER', 'O'))
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", row_of("TaggedSentence", "tokens", self.tokens))
        object.__setattr__(self, "tags", row_of("TaggedSentence", "tags", self.tags))
        check_row("TaggedSentence", self.tokens, self.tags)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, eq=False)
class TaggedCorpus:
    """Tagged sentences and the numbers of their tags.

    Args:
        sentences: n TaggedSentences, or pairs (tokens, tags).
        tag_names: name of tag 0, 1, ...; none takes those that occur, sorted, "O" before all others.

    Raises:
        MixError: if a sentence is none, its row is named; or a tag is not among the names, or a name is there twice.

    Example:
        >>> corpus = TaggedCorpus([TaggedSentence(("Ada", "left", "Rome"), ("B-PER", "O", "B-LOC"))])
        >>> corpus.tag_names, corpus.tag_ids(0).tolist()
        (('O', 'B-LOC', 'B-PER'), [2, 0, 1])
    """

    sentences: Sequence[TaggedSentence]
    tag_names: Sequence[str] = ()
    _ids: np.ndarray = field(init=False)
    _ends: list[int] = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.sentences, str) or not isinstance(self.sentences, Iterable):
            raise MixTypeError(f"TaggedCorpus: {type(self.sentences).__name__}, expected a list of TaggedSentences")
        sentences = tuple(_sentence(row, one) for row, one in enumerate(self.sentences))
        found = {tag for sentence in sentences for tag in sentence.tags}
        names = _in_order(found) if not self.tag_names else _checked_names(self.tag_names)
        numbers = {name: i for i, name in enumerate(names)}
        if not found <= numbers.keys():
            _refuse_tag(sentences, names)
        ids = np.array([numbers[tag] for sentence in sentences for tag in sentence.tags], np.int64)
        ids.flags.writeable = False
        object.__setattr__(self, "sentences", sentences)
        object.__setattr__(self, "tag_names", names)
        object.__setattr__(self, "_ids", ids)
        object.__setattr__(self, "_ends", np.cumsum([0, *map(len, sentences)]).tolist())

    def __repr__(self) -> str:
        return f"<TaggedCorpus: {len(self)} sentences, {self._ends[-1]} tokens, {len(self.tag_names)} tags>"

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> TaggedSentence:
        return self.sentences[index]

    def __iter__(self) -> Iterator[TaggedSentence]:
        return iter(self.sentences)

    def tag_ids(self, row: int) -> np.ndarray:
        """(T,) int64, read-only: numbers of the tags of a sentence."""
        row = range(len(self))[row]
        ids: np.ndarray = self._ids[self._ends[row] : self._ends[row + 1]]
        return ids

    def take(self, rows: Any) -> TaggedCorpus:
        """These sentences, in this order, with the same names of tags.

        Args:
            rows: whole numbers, negative ones counted from the end; or (n,) bool.

        Raises:
            MixError: if a row is none of 0 to n - 1.

        Example:
            >>> corpus = TaggedCorpus([(["a"], ["O"]), (["b"], ["B-X"])])
            >>> corpus.take([1, 0]).sentences[0].tokens
            ('b',)
        """
        wanted = np.asarray(rows)
        try:
            picked = np.arange(len(self))[wanted if wanted.size else wanted.astype(np.int64)]
        except IndexError as error:
            raise MixValueError(
                f"TaggedCorpus.take: {error}; expected rows of 0 to {len(self) - 1}, or one bool for each"
            ) from None
        return TaggedCorpus([self.sentences[row] for row in np.atleast_1d(picked).tolist()], self.tag_names)


def row_of(owner: str, name: str, given: Any) -> tuple[Any, ...]:
    """Tokens or tags as a tuple; a text is none, though it can be taken apart."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise MixTypeError(f"{owner}: {name} is {type(given).__name__}, expected a list of texts")
    return tuple(given)


def check_row(place: str, tokens: Sequence[Any], tags: Sequence[Any]) -> None:
    """Refuse tokens and tags that do not fit one another, or are no texts; the message begins with place."""
    if len(tokens) != len(tags):
        raise MixValueError(f"{place}: {len(tokens)} tokens and {len(tags)} tags, expected one tag for each token")
    if not tokens:
        raise MixValueError(f"{place}: a sentence with no tokens: leave it out")
    for i, (token, tag) in enumerate(zip(tokens, tags, strict=True)):
        if not isinstance(token, str) or not isinstance(tag, str):
            raise MixTypeError(f"{place}: token {i} is {token!r:.40} with the tag {tag!r:.40}, expected two texts")
        if not token or token.isspace():
            raise MixValueError(f"{place}: token {i} is {token!r}, expected a character that is no blank")
        if not tag or any(map(str.isspace, tag)):
            raise MixValueError(f"{place}: the tag of token {i}, {token!r:.40}, is {tag!r:.40}: no name without blanks")


def _sentence(row: int, given: Any) -> TaggedSentence:
    if isinstance(given, TaggedSentence):
        return given
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise MixTypeError(
            f"TaggedCorpus: row {row} is {type(given).__name__}, expected a TaggedSentence or a pair (tokens, tags)"
        )
    tokens, tags = (row_of(f"row {row}", name, one) for name, one in zip(("tokens", "tags"), given, strict=True))
    check_row(f"row {row}", tokens, tags)
    return TaggedSentence(tokens, tags)


def _in_order(found: set[str]) -> tuple[str, ...]:
    return tuple(sorted(found, key=lambda name: (name != OUTSIDE, name)))


def _checked_names(given: Any) -> tuple[str, ...]:
    names = row_of("TaggedCorpus", "tag_names", given)
    if any(not isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise MixValueError(f"TaggedCorpus: tag_names={list(names)[:8]}, expected names, each once")
    return names


def _refuse_tag(sentences: Sequence[TaggedSentence], names: Sequence[str]) -> None:
    row, tag = next((row, tag) for row, s in enumerate(sentences) for tag in s.tags if tag not in names)
    close = get_close_matches(tag, names, 3) or names[:8]
    raise MixValueError(
        f"TaggedCorpus: row {row} has the tag {tag!r}, none of the {len(names)} names; nearest are "
        f"{', '.join(map(repr, close))}"
    )
