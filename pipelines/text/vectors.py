"""Word vectors, wherever they come from, and the matrix of an embedding made of them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError

from .vector_files import chosen, read_file, read_package
from .vocabulary import Coverage, Vocabulary

_PACKAGE = "package:"


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Words and a vector for each.

    Args:
        words: n of them, each once.
        array: (n, D) floats, finite; kept as float32.
        skipped: lines of the file that were broken and left out.

    Raises:
        MixError: if words and array do not fit, a word is there twice, or a number is not finite.

    Example:
        >>> vectors = WordVectors(["so", "good"], np.eye(2))
        >>> matrix, coverage = vectors.matrix(Vocabulary(["good", "dull"]), np.random.default_rng(0))
        >>> matrix[[0, 2]].tolist(), coverage.known_types
        ([[0.0, 0.0], [0.0, 1.0]], 1)
    """

    words: Sequence[str]
    array: np.ndarray
    skipped: int = 0

    def __post_init__(self) -> None:
        words, array = chosen(self.words, np.asarray(self.array), _every, "WordVectors")
        if len(words) < len(self.words):
            raise MixValueError(
                f"WordVectors: {len(self.words)} words, {len(words)} of them different, expected each once"
            )
        object.__setattr__(self, "words", tuple(words))
        object.__setattr__(self, "array", array)

    def __repr__(self) -> str:
        return f"<WordVectors: {len(self)} of {self.array.shape[1]} numbers>"

    def __len__(self) -> int:
        return len(self.words)

    def matrix(
        self, vocabulary: Vocabulary, rng: np.random.Generator, *, unknown: str = "normal"
    ) -> tuple[np.ndarray, Coverage]:
        """The weights of an embedding for a vocabulary.

        Args:
            vocabulary: V words, the two special ones among them.
            rng: that the rows of words without a vector are drawn from, in the order of their numbers.
            unknown: "normal", mean 0 and the standard deviation of all numbers of the vectors; or "uniform", from -0.25
                to 0.25 (Kim 2014).

        Returns:
            ((V, D) float32, Coverage): row 0, of padding, is zero; row 1, of unknown words, is drawn. The coverage
            counts the words of the vocabulary and, by its counts, their tokens.

        Raises:
            MixError: if no word of the vocabulary has a vector, unknown is another word, or vocabulary or rng is of
                another kind.
        """
        if not isinstance(vocabulary, Vocabulary):
            raise MixTypeError(f"WordVectors.matrix: got {type(vocabulary).__name__}, expected a Vocabulary")
        if not isinstance(rng, np.random.Generator):
            raise MixTypeError(
                f"WordVectors.matrix: rng is {type(rng).__name__}, expected a generator: np.random.default_rng(seed)"
            )
        if unknown not in ("normal", "uniform"):
            raise MixValueError(f'WordVectors.matrix: unknown={unknown!r}, expected "normal" or "uniform"')
        rows = {word: row for row, word in enumerate(self.words)}
        # Neither special word is looked up: some files have an <unk> of their own, but no row for padding.
        found = np.array([-1, -1, *(rows.get(word, -1) for word in vocabulary.words[2:])])
        known = found >= 0
        if not known.any():
            raise MixValueError(
                f"WordVectors.matrix: none of the {len(vocabulary) - 2} words has one of the {len(self)} vectors "
                f"(vocabulary: {list(vocabulary.words[2:6])}, vectors: {list(self.words[:4])}): do their tokens and "
                "their case agree?"
            )
        matrix = np.zeros((len(vocabulary), self.array.shape[1]), np.float32)
        matrix[known] = self.array[found[known]]
        drawn = np.flatnonzero(~known)[1:]
        size = (len(drawn), matrix.shape[1])
        spread = float(self.array.std(dtype=np.float64))
        matrix[drawn] = rng.normal(0, spread, size) if unknown == "normal" else rng.uniform(-0.25, 0.25, size)
        counts = np.array(vocabulary.counts)
        types = int(known.sum()), len(vocabulary) - 2
        return matrix, Coverage(int(counts[known].sum()), int(counts.sum()), *types)


def word_vectors(
    source: Any,
    *,
    keys: Sequence[str] = ("words", "vectors"),
    only: Vocabulary | Iterable[str] | None = None,
    broken: str = "error",
    tokenizer: Any = None,
) -> WordVectors:
    """Word vectors from a file, a package, a model or arrays.

    Args:
        source: a path: ``.txt`` or ``.vec`` text, a word and D numbers a line, with the header line of word2vec or
            without it, ``.gz`` behind or not, or ``.npz``; "package:NAME" for the vectors that an installed package
            carries, "package:NAME/PATH" where they are several; an ``nn.Embedding`` or a model with
            ``get_input_embeddings()``; a tuple (words, array).
        keys: names of words and vectors in a ``.npz``; a third one for the rows of words that the vectors are for.
        only: keep these words alone, a Vocabulary's say; of a large text, the numbers of others are not even read.
        broken: "error", or "skip" to leave broken lines of a text out and count them.
        tokenizer: of the model: with ``get_vocab()``, a Vocabulary, or the list of its tokens.

    Returns:
        WordVectors, float32, in the order of the source; of a word that is there twice, the first.

    Raises:
        MixError: if a line is broken (its number and the count of such lines are told), the file is of another kind,
            cut off, or lacks a key, a package or a tokenizer is missing, or no word is left.
        FileNotFoundError: if there is no such file.

    Example:
        >>> word_vectors((["so", "good"], np.eye(2)), only=["good", "dull"]).words
        ('good',)
    """
    if broken not in ("error", "skip"):
        raise MixValueError(f'word_vectors: broken={broken!r}, expected "error" or "skip"')
    wanted = _wanted(only)
    skip, skipped = broken == "skip", 0
    if isinstance(source, str) and source.startswith(_PACKAGE):
        words, array, skipped = read_package(source.removeprefix(_PACKAGE), keys, wanted, skip=skip)
    elif isinstance(source, (str, PathLike)):
        words, array, skipped = read_file(Path(fspath(source)), keys, wanted, skip=skip)
    elif isinstance(source, tuple) and len(source) == 2:
        words, array = chosen(source[0], np.asarray(source[1]), wanted, "word_vectors")
    else:
        words, array = _of_model(source, tokenizer, wanted)
    if not words:
        raise MixValueError("word_vectors: no word is left" + (" of those in only=" if only is not None else ""))
    return WordVectors(words, array, skipped)


def _every(_: str) -> bool:
    return True


def _wanted(only: Any) -> Callable[[str], bool]:
    if only is None:
        return _every
    if isinstance(only, str):
        raise MixTypeError(f"word_vectors: only={only!r}, expected words: a Vocabulary, a list or a set")
    held: Container[str] = only if isinstance(only, Vocabulary) else frozenset(only)
    return held.__contains__


def _of_model(source: Any, tokenizer: Any, wanted: Callable[[str], bool]) -> tuple[list[str], np.ndarray]:
    """The input embedding of a model; its words are the tokens of the tokenizer."""
    embedding = source.get_input_embeddings() if hasattr(source, "get_input_embeddings") else source
    weight = getattr(embedding, "weight", None)
    if weight is None or getattr(weight, "ndim", 0) != 2 or not hasattr(weight, "detach"):
        raise MixTypeError(
            f'word_vectors: {type(source).__name__}, expected a path, "package:NAME", an nn.Embedding, a model with '
            "get_input_embeddings(), or (words, array)"
        )
    if tokenizer is None:
        raise MixTypeError("word_vectors: a model's matrix has no words: give its tokenizer, tokenizer=...")
    array = weight.detach().float().cpu().numpy()
    if not hasattr(tokenizer, "get_vocab") and not isinstance(tokenizer, (Vocabulary, Iterable)):
        raise MixTypeError(
            f"word_vectors: tokenizer is {type(tokenizer).__name__}, expected a tokenizer of Hugging Face, a "
            "Vocabulary, or the words in the order of the rows"
        )
    if hasattr(tokenizer, "get_vocab"):
        by_id = {int(i): token for token, i in tokenizer.get_vocab().items()}
    else:
        by_id = dict(enumerate(tokenizer.words if isinstance(tokenizer, Vocabulary) else tokenizer))
    # Models pad their matrix to a round size, and tokens that were added may have no row yet.
    ids = sorted(i for i in by_id if i < len(array))
    return chosen([by_id[i] for i in ids], array[ids], wanted, type(source).__name__)
