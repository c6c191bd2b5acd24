"""Sentences as rows of token ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError

from .sentences import Sentences


def encoder(vocabulary: Any) -> Callable[[str], Any]:
    """What turns a text into ids: the ``encode`` of a vocabulary or tokenizer, or the callable itself.

    Raises:
        MixError: if it is neither.
    """
    encode = getattr(vocabulary, "encode", vocabulary)
    if not callable(encode):
        raise MixTypeError(
            f"{type(vocabulary).__name__} cannot encode a text, expected a Vocabulary, a tokenizer, or a callable of a "
            "text that gives its ids"
        )
    return encode


def encoded(encode: Callable[[str], Any], text: str, place: str) -> np.ndarray:
    """(T,) int64 ids of a text.

    Raises:
        MixError: if there is none, or what comes is no row of whole numbers; the message begins with place.
    """
    try:
        ids = np.asarray(encode(text))
    except MixValueError as error:
        raise MixValueError(f"{place}: {error}") from None
    if not ids.size:
        raise MixValueError(f"{place}: a sentence with no tokens, {text!r:.60}: leave it out")
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise MixTypeError(f"{place}: ids of {ids.dtype} and shape {ids.shape}, expected a row of whole numbers")
    if ids.min() < 0:
        raise MixValueError(f"{place}: the id {int(ids.min())}, expected 0 or more")
    return ids.astype(np.int64)


class TokenizedSentences:
    """A map-style data set of {"input_ids": (T,) int64, "label": int}, encoded once.

    For stages that change the text use ``keyed(sentences, stage=[text_stage(...), TokenizeStage(vocabulary)])``.

    Args:
        sentences: labelled ones.
        vocabulary: a Vocabulary, a tokenizer with ``encode`` (of Hugging Face, say), or a callable, text to ids;
            ``lambda text: tokenizer.encode(text, truncation=True, max_length=64)`` cuts long ones.

    Attributes:
        lengths: (n,) int64, tokens in each sentence, for BucketBatchSampler.

    Raises:
        MixError: if these are no Sentences, or a sentence has no token or other ids than whole numbers of 0 or more;
            its row is named.

    Example:
        >>> from mixops.pipelines.text import Vocabulary
        >>> data = Sentences(["so good", "dull"], [1, 0], ["neg", "pos"])
        >>> rows = TokenizedSentences(data, Vocabulary.of(data.texts))
        >>> rows.lengths.tolist(), rows[1]["label"]
        ([2, 1], 0)
    """

    def __init__(self, sentences: Sentences, vocabulary: Any) -> None:
        if not isinstance(sentences, Sentences):
            raise MixTypeError(
                f"TokenizedSentences: got {type(sentences).__name__}, expected Sentences: read_sentences(...)"
            )
        encode = encoder(vocabulary)
        self.ids = [encoded(encode, text, f"row {row}") for row, text in enumerate(sentences.texts)]
        self.lengths = np.array([len(ids) for ids in self.ids], np.int64)
        self.labels, self.classes = sentences.labels, sentences.classes

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.ids[index], "label": int(self.labels[index])}
