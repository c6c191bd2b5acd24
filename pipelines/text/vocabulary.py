"""Words of a text, and the numbers they are given."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError

from ..state import count

PADDING, UNKNOWN = "<pad>", "<unk>"

_FORMAT = {"format": "mixops.vocabulary", "version": 1}
# Curly quotes: word vectors of the GloVe kind are made from text with straight ones.
_STRAIGHT = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"'})  # noqa: RUF001
# A chunk that is split no further: punctuation alone, a clitic, a number with an apostrophe in front ('70s), initials
# (u.s.), a common abbreviation.
_WHOLE = re.compile(
    r"[^\w\s]+|n't|'(?:s|re|ve|ll|d|m|n|n'|t|em|til|tis|twas|cause|\d+s?)|(?:[^\W\d_]\.)+"
    r"|(?:mr|mrs|ms|dr|st|jr|sr|vs|inc|corp|co|ltd|prof|gen|sen|rep|rev|lt|col|sgt|capt|gov|dept|bros|mt"
    r"|jan|feb|aug|sept|oct|nov|dec|al|etc|e\.g|i\.e)\."
)
_LEADING = re.compile(r"([\"`(\[{<$#£€¿¡])\1*")
_QUOTE = re.compile(r"'+")
_TRAILING = re.compile(r"([\"'.,!?;:)\]}>%…])\1*$")
_CLITIC = re.compile(r".(n't|'(?:s|re|ve|ll|d|m))$")


def tokenize(text: str) -> list[str]:
    """Words of a text as those of GloVe's vocabularies: lower case, punctuation and clitics (n't, 's) on their own.

    Text that is separated by spaces in this manner already comes out as it is, in lower case. Hyphenated words,
    numbers with separators and abbreviations with dots stay whole.

    Args:
        text: one sentence or more.

    Returns:
        The tokens, none of them empty.

    Raises:
        MixError: if it is no text.

    Source: our own rules after the Penn Treebank's, which GloVe's text was split by; "cannot" and the like stay whole.

    Example:
        >>> tokenize("It's thin, but I don't mind (much).")
        ['it', "'s", 'thin', ',', 'but', 'i', 'do', "n't", 'mind', '(', 'much', ')', '.']
        >>> tokenize("the u.s. wo n't re-open 3,000 sites .")
        ['the', 'u.s.', 'wo', "n't", 're-open', '3,000', 'sites', '.']
    """
    if not isinstance(text, str):
        raise MixTypeError(f"tokenize: got {type(text).__name__}, expected a text, one of Sentences.texts say")
    tokens: list[str] = []
    for chunk in text.translate(_STRAIGHT).lower().split():
        if chunk.isalnum():  # most words, at once
            tokens.append(chunk)
        else:
            tokens += _split(chunk)
    return tokens


def _split(chunk: str) -> list[str]:
    before: list[str] = []
    after: list[str] = []
    while chunk and not _WHOLE.fullmatch(chunk):
        if leading := _LEADING.match(chunk):
            before.append(leading[0])
            chunk = chunk[leading.end() :]
        elif trailing := _TRAILING.search(chunk):
            after.append(trailing[0])
            chunk = chunk[: trailing.start()]
        elif quote := _QUOTE.match(chunk):  # only now: with what stood behind it gone, 'em is whole
            before.append(quote[0])
            chunk = chunk[quote.end() :]
        elif clitic := _CLITIC.search(chunk):
            after.append(clitic[1])
            chunk = chunk[: clitic.start(1)]
        else:
            break
    return [*before, *([chunk] if chunk else []), *reversed(after)]


# Under a name of its own: classes and functions below have a parameter called tokenize.
_DEFAULT: Callable[[str], Iterable[str]] = tokenize


@dataclass(frozen=True)
class Coverage:
    """How many tokens, and how many different words, are known.

    Args:
        known_tokens: tokens that are known.
        tokens: all of them.
        known_types: different words that are known.
        types: all of them.

    Example:
        >>> print(Coverage(9, 10, 3, 4))
        3 of 4 words known (75.0 %), 9 of 10 tokens (90.0 %)
    """

    known_tokens: int
    tokens: int
    known_types: int
    types: int

    @property
    def unknown_tokens(self) -> int:
        """Tokens that are not known."""
        return self.tokens - self.known_tokens

    @property
    def unknown_types(self) -> int:
        """Different words that are not known."""
        return self.types - self.known_types

    def __str__(self) -> str:
        words, tokens = (
            100 * known / max(every, 1)
            for known, every in ((self.known_types, self.types), (self.known_tokens, self.tokens))
        )
        return (
            f"{self.known_types} of {self.types} words known ({words:.1f} %), {self.known_tokens} of {self.tokens} "
            f"tokens ({tokens:.1f} %)"
        )


class Vocabulary:
    """Words and their numbers: 0 is padding, 1 any unknown word, the words follow from 2.

    Args:
        words: each once, without the two special ones.
        counts: how often each word came in the texts it was made of; None: once each.
        tokenize: text to words; None: ``tokenize`` of this module. A function of yours that worker processes shall use
            has to stand at the top level of a module where they are spawned.

    Raises:
        MixError: if a word is empty, no text or there twice, or the counts do not fit.

    Example:
        >>> words = Vocabulary.of(["so good", "so dull"])
        >>> words.encode("so so funny").tolist(), words.decode([2, 1])
        ([2, 2, 1], ['so', '<unk>'])
    """

    def __init__(
        self,
        words: Iterable[str],
        counts: Iterable[int] | None = None,
        *,
        tokenize: Callable[[str], Iterable[str]] | None = None,
    ) -> None:
        held = list(words)
        for place, word in enumerate(held):
            if not isinstance(word, str) or not word or word in (PADDING, UNKNOWN):
                raise MixValueError(f"Vocabulary: words[{place}]={word!r}, expected a word of at least one character")
        if len(set(held)) < len(held):
            twice = Counter(held).most_common(1)[0][0]
            raise MixValueError(f"Vocabulary: the word {twice!r} is there twice, expected each once")
        numbers = [1] * len(held) if counts is None else [count("Vocabulary", "counts", c) for c in counts]
        if len(numbers) != len(held):
            raise MixValueError(f"Vocabulary: {len(held)} words and {len(numbers)} counts, expected one for each")
        _check_tokenize(tokenize)
        self.words = (PADDING, UNKNOWN, *held)
        self.counts = (0, 0, *numbers)
        self.tokenize = _DEFAULT if tokenize is None else tokenize
        self._ids = {word: i for i, word in enumerate(held, 2)}

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        min_count: int = 1,
        most: int | None = None,
        *,
        tokenize: Callable[[str], Iterable[str]] | None = None,
    ) -> Vocabulary:
        """The vocabulary of some texts, those of the training set: frequent words first, equal ones by the alphabet.

        Args:
            texts: sentences.
            min_count: leave out words that come less often.
            most: keep at most as many words, the two special ones not counted; None: all.
            tokenize: as for Vocabulary.

        Raises:
            MixError: if min_count or most is no whole number of 0 or more, or texts is a single text.

        Example:
            >>> Vocabulary.of(["b a", "b"], most=1).words
            ('<pad>', '<unk>', 'b')
        """
        least = count("Vocabulary.of", "min_count", min_count)
        limit = None if most is None else count("Vocabulary.of", "most", most)
        _check_tokenize(tokenize)
        counted = _counted("Vocabulary.of", texts, _DEFAULT if tokenize is None else tokenize)
        kept = sorted(((-n, word) for word, n in counted.items() if n >= least and word not in (PADDING, UNKNOWN)))
        return cls([word for _, word in kept[:limit]], [-n for n, _ in kept[:limit]], tokenize=tokenize)

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self)}>"

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def encode(self, text: str) -> np.ndarray:
        """The numbers of the words of a text.

        Returns:
            (T,) int64, T ≥ 1.

        Raises:
            MixError: if it is no text, or has no token.
        """
        ids = [self._ids.get(token, 1) for token in self.tokenize(text)]
        if not ids:
            raise MixValueError(f"Vocabulary: a sentence with no tokens, {text!r:.60}: leave it out")
        return np.array(ids, np.int64)

    def decode(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The words of these numbers; padding is left out.

        Raises:
            MixError: if a number is none of 0 to len - 1.
        """
        numbers = np.asarray(ids).ravel().tolist()
        for number in numbers:
            if count("Vocabulary.decode", "id", number) >= len(self):
                raise MixValueError(f"Vocabulary.decode: id {number}, expected 0 to {len(self) - 1}")
        return [self.words[number] for number in numbers if number]

    def coverage(self, texts: Iterable[str]) -> Coverage:
        """How much of some texts, a test set's say, is known.

        Example:
            >>> Vocabulary.of(["so good"]).coverage(["so dull", "so good"])
            Coverage(known_tokens=3, tokens=4, known_types=2, types=3)
        """
        counted = _counted("Vocabulary.coverage", texts, self.tokenize)
        known = [n for word, n in counted.items() if word in self._ids]
        return Coverage(sum(known), counted.total(), len(known), len(counted))

    def save(self, path: str | PathLike[str]) -> None:
        """Write words and counts as JSON; of a tokenize of yours, only that there was one."""
        own = self.tokenize is not _DEFAULT
        content = {**_FORMAT, "own_tokenize": own, "words": self.words[2:], "counts": self.counts[2:]}
        Path(path).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike[str], *, tokenize: Callable[[str], Iterable[str]] | None = None) -> Vocabulary:
        """Read what save() wrote.

        Args:
            path: of the file.
            tokenize: the same that the saved vocabulary had, if it was one of yours.

        Raises:
            MixError: if the file is broken or of another version, or tokenize is missing.
            FileNotFoundError: if there is no such file.
        """
        name = Path(path).name
        try:
            content: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:  # of JSON or of UTF-8
            raise MixValueError(f"{name}: no vocabulary: {error}; expected a file of Vocabulary.save") from None
        if not isinstance(content, dict) or content.get("format") != _FORMAT["format"]:
            raise MixValueError(f"{name}: JSON, but no vocabulary; expected a file of Vocabulary.save")
        if content.get("version") != _FORMAT["version"]:
            raise MixValueError(f"{name}: version {content.get('version')!r}, expected {_FORMAT['version']}")
        words, counts = content.get("words"), content.get("counts")
        if not isinstance(words, list) or not isinstance(counts, list):
            raise MixValueError(f"{name}: lacks lists of words and counts; expected a file of Vocabulary.save")
        if content.get("own_tokenize") and tokenize is None:
            raise MixValueError(f"{name}: was made with a tokenize of its own: give the same, load(path, tokenize=...)")
        return cls(words, counts, tokenize=tokenize)


def _check_tokenize(tokenize: Any) -> None:
    if tokenize is not None and not callable(tokenize):
        raise MixTypeError(f"Vocabulary: tokenize is {type(tokenize).__name__}, expected a callable of a text")


def _counted(owner: str, texts: Any, split: Callable[[str], Iterable[str]]) -> Counter[str]:
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        got = "one text" if isinstance(texts, str) else type(texts).__name__
        raise MixTypeError(f"{owner}: got {got}, expected several: a list, or Sentences.texts")
    counted: Counter[str] = Counter()
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise MixTypeError(f"{owner}: text {row} is {type(text).__name__}, expected text: a list, Sentences.texts")
        counted.update(split(text))
    return counted
