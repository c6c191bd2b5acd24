"""AEDA and EDA: words of a sentence inserted, replaced, swapped or deleted, before the sentence becomes ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, overload

import numpy as np

from mixops import MixTypeError, MixValueError

from .vectors import WordVectors

OPERATIONS = ("replace", "insert", "swap", "delete")
#: What tells the words that may stand for a word.
Synonyms = Mapping[str, Sequence[str]] | Callable[[str], Sequence[str] | None] | WordVectors


class WordEdit(ABC):
    """Base of the two: text is split at blanks, edited as a list of words, and joined by single blanks."""

    #: No global generator is drawn from: PerSample need not seed them.
    rng_only: ClassVar[bool] = True

    @overload
    def __call__(self, text: str, rng: np.random.Generator) -> str: ...

    @overload
    def __call__(self, text: list[str] | tuple[str, ...], rng: np.random.Generator) -> list[str]: ...

    def __call__(self, text: str | list[str] | tuple[str, ...], rng: np.random.Generator) -> str | list[str]:
        """The edited sentence: text for text, a list of words for words; what came is not changed.

        Args:
            text: a sentence, or its words. Without a word it comes back as it is.
            rng: the only source of randomness.

        Raises:
            MixError: if it is neither, or rng is no generator.
        """
        owner = type(self).__name__
        if not isinstance(rng, np.random.Generator):
            raise MixTypeError(f"{owner}: rng is {type(rng).__name__}, expected a numpy.random.Generator")
        if isinstance(text, str):
            words = text.split()
            return " ".join(self._edited(words, rng)) if words else text
        if not isinstance(text, (list, tuple)) or not all(isinstance(word, str) for word in text):
            raise MixTypeError(f"{owner}: got {text!r:.60}, expected a sentence or a list of its words")
        return self._edited(list(text), rng) if text else []

    @abstractmethod
    def _edited(self, words: list[str], rng: np.random.Generator) -> list[str]:
        """What becomes of one word or more; ``words`` may be changed."""


class AEDA(WordEdit):
    """Insert punctuation marks before some words: 1 to ⌊share · n⌋ + 1 of a sentence's n words get one.

    All words stay, in their order. How many is as likely as any other number, so is which words, and which mark.

    Args:
        share: of the words, in [0, 1].
        marks: one or more, none of them empty or with a blank.

    Raises:
        MixError: if share is out of range, or marks is empty or holds something else.

    Example:
        >>> AEDA()("the plot is thin", rng=np.random.default_rng(1))
        'the , plot is ; thin'

    For a data loader: ``keyed(sentences, stage=[text_stage(AEDA(), seed=7), TokenizeStage(vocabulary)])``.

    Source:
        Karimi, Rossi, Prati, "AEDA: An Easier Data Augmentation Technique for Text Classification", Findings of EMNLP
        2021, section 3.

    Differs from it:
        In nothing but that it draws from a generator of its own.
    """

    def __init__(self, share: float = 0.3, marks: Sequence[str] = (".", ";", "?", ":", "!", ",")) -> None:
        self.share = _share("AEDA", "share", share)
        if isinstance(marks, str) or not isinstance(marks, Sequence):
            raise MixTypeError(f"AEDA(marks={marks!r}): expected a list of marks")
        if not marks or not all(isinstance(mark, str) and len(mark.split()) == 1 for mark in marks):
            raise MixValueError(f"AEDA(marks={marks!r}): expected one mark or more, none of them empty or with a blank")
        self.marks = tuple(marks)

    def __repr__(self) -> str:
        return f"AEDA(share={self.share!r}, marks={self.marks!r})"

    def _edited(self, words: list[str], rng: np.random.Generator) -> list[str]:
        n, marks = len(words), self.marks
        most = min(_floor(self.share * n) + 1, n)
        drawn = rng.random(1 + 2 * most).tolist()  # one call: many small ones would take most of the time
        many = 1 + int(drawn[0] * most)
        for place in sorted(_some(n, drawn[1 : 1 + many]), reverse=True):
            words.insert(place, marks[int(drawn.pop() * len(marks))])
        return words


class EDA(WordEdit):
    """Edit a sentence in one of four ways, each as likely: replace, insert, swap or delete words.

    A sentence of n words gets m = max(⌊share · n⌋, 1) edits: "replace" puts synonyms in the place of m words that have
    some; "insert" puts a synonym of such a word anywhere, m times; "swap" lets two words change places, m times;
    "delete" drops each word with the probability ``share``, but leaves one at least. Where there is nothing to do it
    with (no synonyms, one word only) the sentence stays as it is.

    Args:
        synonyms: words that may stand for a word: a mapping, a callable (None or an empty list where there are none),
            or WordVectors, whose nearest words are taken (``NearestWords``). They are asked for words as they stand in
            the sentence. None: only "swap" and "delete".
        share: of the words, in [0, 1].
        operations: some of "replace", "insert", "swap", "delete"; None: all that can be done.
        keep: words that are neither replaced nor stand for synonyms to insert, stop words say.

    Raises:
        MixError: if share is out of range, an operation unknown, "replace" or "insert" asked for without synonyms; on a
            call, if synonyms come as something else than a list of texts.

    Example:
        >>> eda = EDA({"thin": ["slight", "weak"]}, operations=["replace"])
        >>> eda("the plot is thin", rng=np.random.default_rng(0))
        'the plot is weak'

    Source:
        Wei, Zou, "EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks", EMNLP
        2019, section 2; the share of 0.1 as in its code.

    Differs from it:
        One edited sentence for each call, where the authors write several of each kind to a file; synonyms are yours,
        where they ask WordNet; a word that is replaced is replaced in that place, not wherever it stands; letters, case
        and punctuation are left alone.
    """

    def __init__(
        self,
        synonyms: Synonyms | None = None,
        *,
        share: float = 0.1,
        operations: Sequence[str] | None = None,
        keep: Collection[str] = (),
    ) -> None:
        self.share = _share("EDA", "share", share)
        if not (synonyms is None or callable(synonyms) or isinstance(synonyms, (Mapping, WordVectors))):
            raise MixTypeError(
                f"EDA(synonyms=...): got {type(synonyms).__name__}, expected a mapping, a callable or WordVectors"
            )
        if isinstance(keep, str):
            raise MixTypeError(f"EDA(keep={keep!r}): expected a list or set of words")
        chosen = (OPERATIONS if synonyms is not None else OPERATIONS[2:]) if operations is None else operations
        if isinstance(chosen, str) or not chosen or not set(chosen) <= set(OPERATIONS):
            raise MixValueError(f"EDA(operations={operations!r}): expected some of {', '.join(map(repr, OPERATIONS))}")
        if synonyms is None and set(chosen) & {"replace", "insert"}:
            raise MixValueError(f"EDA(operations={operations!r}): replacing and inserting need synonyms=")
        self.operations, self.keep = tuple(chosen), frozenset(keep)
        self.synonyms = NearestWords(synonyms) if isinstance(synonyms, WordVectors) else synonyms

    def __repr__(self) -> str:
        return f"EDA(share={self.share!r}, operations={self.operations!r})"

    def _edited(self, words: list[str], rng: np.random.Generator) -> list[str]:
        operation = self.operations[int(rng.random() * len(self.operations))]
        if operation == "delete":
            return self._delete(words, rng)
        many = max(_floor(self.share * len(words)), 1)
        if operation == "swap":
            return _swap(words, many, rng)
        found = self._found(words, many, rng)
        return _replace(words, found, rng) if operation == "replace" else _insert(words, found, many, rng)

    def _delete(self, words: list[str], rng: np.random.Generator) -> list[str]:
        drawn = rng.random(len(words) + 1).tolist()
        left = [word for word, u in zip(words, drawn, strict=False) if u >= self.share]
        return left or [words[int(drawn[-1] * len(words))]]

    def _found(self, words: list[str], many: int, rng: np.random.Generator) -> list[tuple[int, list[str]]]:
        """(place, synonyms) of ``many`` words that have some, drawn at random; fewer where there are no more."""
        found: list[tuple[int, list[str]]] = []
        for place in _some(len(words), rng.random(len(words)).tolist()):
            others = [] if words[place] in self.keep else self._synonyms_of(words[place])
            if others:
                found.append((place, others))
                if len(found) == many:
                    break
        return found

    def _synonyms_of(self, word: str) -> list[str]:
        found = self.synonyms.get(word) if isinstance(self.synonyms, Mapping) else self.synonyms(word)  # type: ignore[misc]
        if found is None:
            return []
        if isinstance(found, str) or not isinstance(found, Collection) or not all(isinstance(f, str) for f in found):
            raise MixTypeError(f"EDA: synonyms of {word!r} are {found!r:.60}, expected a list of words")
        return [other for other in found if other.split() and other != word]


class NearestWords:
    """The words whose vectors are nearest to that of a word, by cosine; each word is looked up once.

    Args:
        vectors: of the words.
        count: how many, 1 or more.
        least: cosine that they have at least, from -1 to 1.

    Raises:
        MixError: if vectors are of another kind or a number is out of range.

    Example:
        >>> vectors = WordVectors(["good", "great", "dull"], [[1, 0], [0.9, 0.1], [-1, 0]])
        >>> NearestWords(vectors)("good"), NearestWords(vectors)("unknown")
        (['great'], [])
    """

    def __init__(self, vectors: WordVectors, count: int = 10, least: float = 0.5) -> None:
        if not isinstance(vectors, WordVectors):
            raise MixTypeError(f"NearestWords: got {type(vectors).__name__}, expected WordVectors: word_vectors(...)")
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise MixValueError(f"NearestWords(count={count!r}): expected a whole number of 1 or more")
        if isinstance(least, bool) or not isinstance(least, (int, float, np.number)) or not -1 <= least <= 1:
            raise MixValueError(f"NearestWords(least={least!r}): expected a cosine from -1 to 1")
        self.words, self.count, self.least = vectors.words, int(count), float(least)
        self._rows = {word: row for row, word in enumerate(self.words)}
        size = np.linalg.norm(vectors.array, axis=1, keepdims=True)
        self._array = vectors.array / np.where(size > 0, size, 1)  # a vector of zeros is near to none
        self._found: dict[str, list[str]] = {}

    def __repr__(self) -> str:
        return f"NearestWords(<{len(self.words)} words>, count={self.count}, least={self.least})"

    def __call__(self, word: str) -> list[str]:
        """The nearest words, nearest first, itself not among them; none for a word without a vector."""
        if word not in self._found:
            self._found[word] = self._nearest(word)
        return self._found[word]

    def _nearest(self, word: str) -> list[str]:
        row = self._rows.get(word)
        if row is None or not self._array[row].any():
            return []
        cosine = self._array @ self._array[row]
        cosine[row] = -2
        some = min(self.count, len(cosine) - 1)
        best = (
            np.argpartition(-cosine, some)[:some] if some < len(cosine) - 1 else np.delete(np.arange(len(cosine)), row)
        )
        best = best[np.lexsort((best, -cosine[best]))]
        return [self.words[i] for i in best.tolist() if cosine[i] >= self.least]


def _swap(words: list[str], many: int, rng: np.random.Generator) -> list[str]:
    """Two words change places, so often; one may move again."""
    n = len(words)
    for u, v in rng.random((many if n > 1 else 0, 2)).tolist():
        i, j = int(u * n), int(v * (n - 1))
        j += j >= i
        words[i], words[j] = words[j], words[i]
    return words


def _replace(words: list[str], found: list[tuple[int, list[str]]], rng: np.random.Generator) -> list[str]:
    for (place, others), u in zip(found, rng.random(len(found)).tolist(), strict=True):
        words[place] = others[int(u * len(others))]
    return words


def _insert(words: list[str], found: list[tuple[int, list[str]]], many: int, rng: np.random.Generator) -> list[str]:
    """A synonym of each found word anywhere, from the first one again until there are enough."""
    for i, (u, v) in enumerate(rng.random((many if found else 0, 2)).tolist()):
        _, others = found[i % len(found)]
        words.insert(int(v * (len(words) + 1)), others[int(u * len(others))])
    return words


def _some(n: int, shares: list[float]) -> list[int]:
    """As many different numbers below n as there are shares of [0, 1), in random order."""
    pool = list(range(n))
    for i, u in enumerate(shares):
        j = i + int(u * (n - i))
        pool[i], pool[j] = pool[j], pool[i]
    return pool[: len(shares)]


def _floor(number: float) -> int:
    """⌊number⌋; 1e-9 lifts products that rounding let fall short of a whole number."""
    return int(number + 1e-9)


def _share(owner: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise MixTypeError(f"{owner}({name}={value!r}): expected a number from 0 to 1")
    if not 0 <= value <= 1:
        raise MixValueError(f"{owner}({name}={value!r}): expected a number from 0 to 1")
    return float(value)
