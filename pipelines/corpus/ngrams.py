"""A language model of words that a corpus trains in a second: how likely a sentence is, without a neural network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError

# Numbers of the two words that no sentence has, and of the place before its first word, which is never predicted.
_UNKNOWN, _END, _BEGIN, _FIRST = 0, 1, 2, 3


class NGramModel:
    """Perplexity of sentences under an n-gram model with interpolated Witten-Bell smoothing.

    p(w | h) = (c(h w) + T(h)·p(w | h')) / (c(h) + T(h)), where c counts, T(h) is the number of different words that
    follow h, and h' is h without its first word; the last p is 1 / V over all V words, the unknown one and the end of
    the sentence among them. For every history these sum to 1 over the V. Made by ``NGramModel.of``.

    Called with n sentences (sequences of words), it returns (n,) float64: exp(-mean log p) over the words of each and
    its end; so that a sentence of no words has one, too.

    Example:
        >>> model = NGramModel.of([["so", "good"], ["so", "dull"]], order=2)
        >>> plausible, odd = model([["so", "dull"], ["dull", "so"]])
        >>> bool(plausible < odd)
        True

    Source:
        Witten, Bell, "The zero-frequency problem", IEEE Transactions on Information Theory 37, 1991 (method C); in the
        interpolated form of Chen, Goodman, "An empirical study of smoothing techniques for language modeling", 1999.
    """

    def __init__(
        self,
        words: Sequence[str],
        keys: Sequence[np.ndarray],
        counts: Sequence[np.ndarray],
        *,
        lower: bool,
    ) -> None:
        # keys[k]: sorted numbers of the (k + 2)-grams, each the place of its history among the shorter ones, times the
        # size of the vocabulary, plus its last word. counts[k]: of the (k + 1)-grams, 0 for those of beginnings only.
        self.words, self.lower = tuple(words), lower
        self._ids = {word: _FIRST + i for i, word in enumerate(self.words)}
        self._keys, self._counts = tuple(keys), tuple(counts)
        self._totals, self._types = zip(*(self._followed(k) for k in range(len(counts))), strict=True)

    @classmethod
    def of(
        cls, sentences: Iterable[Sequence[str] | Any], order: int = 3, *, lower: bool = True, min_count: int = 1
    ) -> NGramModel:
        """Train a model.

        Args:
            sentences: sequences of words, or of things with ``tokens``, a TaggedCorpus say; at least one of them.
            order: words of the longest n-gram, 1 or more.
            lower: read words in lower case, in the sentences to be judged, too.
            min_count: words that are rarer count as unknown.

        Returns:
            The model. The sentences it was trained on look likelier to it than they are: choose a range of perplexities
            by others.

        Raises:
            MixError: if there is no sentence, one is no sequence of words, or a number is out of range.
        """
        for name, value in (("order", order), ("min_count", min_count)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise MixValueError(f"NGramModel.of: {name}={value!r}, expected a whole number of 1 or more")
        lists = _words(sentences, lower, "NGramModel.of")
        if not lists:
            raise MixValueError("NGramModel.of: no sentence, expected one or more to train on")
        seen: dict[str, int] = {}
        for words in lists:
            for word in words:
                seen[word] = seen.get(word, 0) + 1
        kept = [word for word, count in seen.items() if count >= min_count]
        model = cls(kept, [], [np.zeros(_FIRST + len(kept), np.int64)], lower=lower)
        stream = model._stream(lists, int(order))
        keys: list[np.ndarray] = []
        predicted = stream.predicted.astype(np.int64)
        counts = [np.bincount(stream.ids, predicted, minlength=model.size).astype(np.int64)]
        node = stream.ids.astype(np.int64)
        for k in range(1, int(order)):
            key = stream.grams(node, k, model.size)
            unique, node = np.unique(key, return_inverse=True)
            counts.append(np.bincount(node, predicted, minlength=len(unique)).astype(np.int64))
            if len(unique) and unique[0] < 0:  # what would reach over the beginning of a sentence is no n-gram
                unique, node, counts[-1] = unique[1:], node - 1, counts[-1][1:]
            keys.append(unique)
        return cls(kept, keys, counts, lower=lower)

    def __repr__(self) -> str:
        return f"<NGramModel: order {self.order}, {len(self.words)} words, {sum(map(len, self._keys))} longer n-grams>"

    @property
    def order(self) -> int:
        """Words of the longest n-gram."""
        return len(self._counts)

    @property
    def size(self) -> int:
        """Words, the unknown one, the end, and the beginning, which is never predicted."""
        return _FIRST + len(self.words)

    def __call__(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        lists = _words(sentences, self.lower, "NGramModel")
        if not lists:
            return np.zeros(0)
        stream = self._stream(lists, self.order)
        surprise = -np.log(self._probabilities(stream)[stream.predicted])
        starts = np.concatenate(([0], np.cumsum([len(words) + 1 for words in lists])[:-1]))
        return np.exp(np.add.reduceat(surprise, starts) / [len(words) + 1 for words in lists])

    def probability(self, word: str | None, history: Sequence[str] = ()) -> float:
        """p(word | the words before it), the sentence begins with the first of these; None is the end.

        Args:
            word: any; one that the model does not know shares the probability of the unknown word.
            history: the words of the sentence before it.

        Returns:
            A number above 0 and below 1.

        Raises:
            MixError: if history is no sequence of words.

        Example:
            >>> model = NGramModel.of([["so", "good"], ["so", "dull"]], order=2)
            >>> [round(sum(model.probability(word, ["so"]) for word in (*model.words, "?", None)), 12)]
            [1.0]
        """
        line = [*history, *([] if word is None else [word])]
        stream = self._stream(_words([line], self.lower, "NGramModel.probability"), self.order)
        return float(self._probabilities(stream)[-1 if word is None else -2])

    # -- n-grams as numbers -------------------------------------------------------------------------------------------

    def _stream(self, sentences: Sequence[Sequence[str]], order: int) -> _Stream:
        find, before = self._ids.get, [_BEGIN] * (order - 1)
        ids = [i for words in sentences for i in (*before, *(find(word, _UNKNOWN) for word in words), _END)]
        sizes = np.array([len(words) + order for words in sentences])
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        return _Stream(np.array(ids, np.int64), np.arange(len(ids)) - starts, order)

    def _followed(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """How often each (k)-gram is followed by a word, and by how many different ones; k = 0 has one entry."""
        counts = self._counts[k]
        history = self._keys[k - 1] // self.size if k else np.zeros(len(counts), np.int64)
        length = len(self._counts[k - 1]) if k else 1
        return (
            np.bincount(history, counts, minlength=length),
            np.bincount(history, counts > 0, minlength=length),
        )

    def _probabilities(self, stream: _Stream) -> np.ndarray:
        """(L,) float64, p of every word in the stream after those before it; of beginnings it means nothing."""
        chance = np.full(len(stream.ids), 1 / (self.size - 1))
        node = stream.ids
        history = np.zeros(len(node), np.int64)
        for k in range(self.order):
            if k:
                history = stream.before(node, k)
                node = self._find(k - 1, stream.grams(node, k, self.size))
            known = history >= 0
            total, types = self._totals[k][history[known]], self._types[k][history[known]]
            own = node[known]
            count = np.where(own >= 0, self._counts[k][own], 0)
            # A history that nothing followed says nothing: 0 / 0 leaves what the shorter one says.
            safe = np.maximum(total + types, 1)
            chance[known] = np.where(total > 0, (count + types * chance[known]) / safe, chance[known])
        return chance

    def _find(self, k: int, key: np.ndarray) -> np.ndarray:
        """Places among the (k + 2)-grams, -1 where there is none such."""
        keys = self._keys[k]
        if not len(keys):
            return np.full(len(key), -1, np.int64)
        place = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
        return np.where(keys[place] == key, place, -1)


class _Stream:
    """Sentences behind one another: number of each word, and its place in its sentence, counted from its beginnings."""

    def __init__(self, ids: np.ndarray, place: np.ndarray, order: int) -> None:
        self.ids, self.place = ids, place
        self.predicted = place >= order - 1

    def before(self, node: np.ndarray, k: int) -> np.ndarray:
        """Numbers of the k-grams that end before each word, -1 where they would begin before the sentence."""
        shifted = np.concatenate(([-1], node[:-1]))
        return np.where(self.place >= k, shifted, -1)

    def grams(self, node: np.ndarray, k: int, size: int) -> np.ndarray:
        """Keys of the (k + 1)-grams that end in each word, of the numbers of the k-grams; -1 where there is none."""
        history = self.before(node, k)
        return np.where(history >= 0, history * size + self.ids, -1)


def _words(sentences: Iterable[Any], lower: bool, owner: str) -> list[list[str]]:
    """The sentences as lists of words, or a MixError that says which of them is none."""
    lists = []
    for i, given in enumerate(sentences):
        words = getattr(given, "tokens", given)
        if isinstance(words, str) or not isinstance(words, Iterable):
            raise MixTypeError(f"{owner}: sentence {i} is {type(given).__name__}, expected a list of words")
        words = list(words)
        if not all(isinstance(word, str) for word in words):
            odd = next(word for word in words if not isinstance(word, str))
            raise MixTypeError(f"{owner}: sentence {i} has {odd!r} in it, expected words only")
        lists.append([word.lower() for word in words] if lower else words)
    return lists
