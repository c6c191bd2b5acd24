"""Words to vectors and back: what a corpus' words mean in a space, and which word lies nearest to a mixture of two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

import mixops as mx
from mixops import MixTypeError, MixValueError

from ..text.vectors import WordVectors
from ..text.vocabulary import Coverage
from .surfaces import Surfaces

# Fewer known tokens than this, and the vectors belong to another language or another tokenizer.
_LEAST = 0.05


class WordSpace:
    """The different words of a corpus in the space of word vectors.

    A word that the vectors know as it stands, or in lower case, has that vector. Where the vectors are a model's
    pieces, any other word has the mean of its pieces; elsewhere it has none.

    Args:
        words: W different words.
        counts: (W,) ints, how often each is in the corpus.
        embedding: WordVectors, or (words, (n, D) floats).
        among: words that a mixture may become, in any case of letters; None for every token that is a word.

    Raises:
        MixError: if the embedding is of another kind, fewer than 1 in 20 of the corpus' tokens have a vector, or no
            token can stand for a word, or for one of ``among``.

    Example:
        >>> space = WordSpace(["so", "Good"], [3, 1], (["so", "good", "fine"], np.array([[0.0], [2.0], [3.0]])))
        >>> print(space.coverage)
        2 of 2 words known (100.0 %), 4 of 4 tokens (100.0 %)
        >>> space.nearest(np.array([0]), np.array([1]), np.array([0.5])), space.written([2], np.array([1]))
        (array([2]), ['Fine'])
    """

    def __init__(
        self,
        words: Sequence[str],
        counts: Sequence[int] | np.ndarray,
        embedding: Any,
        among: Iterable[str] | None = None,
    ) -> None:
        self.words = tuple(words)
        vectors = _word_vectors(embedding)
        surfaces = Surfaces.of(vectors.words)
        self._exact, self.known, self._vectors = _meanings(self.words, vectors, surfaces)
        self.coverage = self._coverage(np.asarray(counts))
        if self.coverage.known_tokens < _LEAST * self.coverage.tokens:
            raise MixValueError(self._strange(vectors))
        standing = np.array([bool(text) for text in surfaces.texts])
        if not standing.any():
            raise MixValueError(
                f"none of the {len(vectors)} tokens of the embedding can stand for a word: all are special, unused, or "
                "pieces that continue one"
            )
        if among is not None:
            standing &= _listed(among, surfaces.texts)
        self.texts = surfaces.texts
        self._cased = surfaces.cased
        self._choices = int(standing.sum())
        self._table = mx.TokenTable(vectors.array, ~standing)

    def __repr__(self) -> str:
        return f"<WordSpace: {self.coverage}; {self._choices} tokens to choose from>"

    def nearest(self, first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
        """The token nearest to share·v(first) + (1 - share)·v(second) that is neither of the two.

        Args:
            first: (Q,) ints, numbers of words that are ``known``.
            second: (Q,) ints, likewise.
            share: (Q,) floats in [0, 1], of the first.

        Returns:
            (Q,) int64, numbers of tokens of the embedding; -1 where none is left.
        """
        own = share.astype(np.float32)[:, None]
        mixed = own * self._vectors[first] + (1 - own) * self._vectors[second]
        ids, _ = self._table.nearest(mixed, exclude=np.stack([self._exact[first], self._exact[second]], 1))
        return ids

    def written(self, tokens: Sequence[int] | np.ndarray, models: np.ndarray) -> list[str]:
        """Tokens as words; where the embedding is in lower case throughout, in the case of the words they stand for.

        Args:
            tokens: (Q,) ints, of the embedding.
            models: (Q,) ints, numbers of the words whose case they take.

        Returns:
            Q words.
        """
        texts = [self.texts[token] for token in tokens]
        if self._cased:
            return texts
        return [_cased_like(text, self.words[model]) for text, model in zip(texts, models, strict=True)]

    def _coverage(self, counts: np.ndarray) -> Coverage:
        return Coverage(int(counts[self.known].sum()), int(counts.sum()), int(self.known.sum()), len(self.words))

    def _strange(self, vectors: WordVectors) -> str:
        without = [self.words[i] for i in np.flatnonzero(~self.known)[:4]]
        return (
            f"{self.coverage} have one of the {len(vectors)} vectors (without: {without}, vectors: "
            f"{list(vectors.words[:4])}): is it the embedding of another language, or the matrix of another tokenizer?"
        )


def _word_vectors(embedding: Any) -> WordVectors:
    if isinstance(embedding, WordVectors):
        return embedding
    if isinstance(embedding, tuple) and len(embedding) == 2:
        return WordVectors(*embedding)
    raise MixTypeError(
        f"embedding is {type(embedding).__name__}, expected WordVectors (word_vectors(model, tokenizer=...) or "
        "word_vectors(file)), or a tuple (words, array)"
    )


def _listed(among: Any, texts: Sequence[str]) -> np.ndarray:
    """(V,) bool: the token is one of these words."""
    if isinstance(among, str) or not isinstance(among, Iterable):
        raise MixTypeError(f"among is {type(among).__name__}, expected words: a list, a set or a Vocabulary's words")
    wanted = {str(word).lower() for word in among}
    listed = np.array([text.lower() in wanted for text in texts])
    if not listed.any():
        raise MixValueError(f"none of the {len(wanted)} words of among is a token of the embedding")
    return listed


def _meanings(
    words: Sequence[str], vectors: WordVectors, surfaces: Surfaces
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each word: the token that is this very word or -1, whether it has a vector, and the vector."""
    whole = {text: i for i, text in reversed(list(enumerate(surfaces.texts))) if text}
    exact = np.full(len(words), -1, np.int64)
    known = np.zeros(len(words), bool)
    array = np.zeros((len(words), vectors.array.shape[1]), np.float32)
    for i, word in enumerate(words):
        lower = word.lower()
        token = whole.get(word, whole.get(lower, -1))
        if token >= 0:
            exact[i], known[i], array[i] = token, True, vectors.array[token]
        elif pieces := surfaces.cut(word) or surfaces.cut(lower):
            known[i], array[i] = True, vectors.array[list(pieces)].mean(0)
    return exact, known, array


def _cased_like(text: str, word: str) -> str:
    """The text with the capitals of a word: all, the first, or none."""
    if word.isupper() and len(word) > 1:
        return text.upper()
    return text[0].upper() + text[1:] if word[:1].isupper() else text
