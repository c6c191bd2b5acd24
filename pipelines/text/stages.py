"""Per-sample stages for sentences: augmentation of the text, then its ids."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mixops import MixTypeError, MixValueError

from ..stages import PerSample
from .tokenized import encoded, encoder


def text_stage(augmenter: Any, seed: int, *, field: str = "text") -> PerSample:
    """A stage that augments the sentence of a sample with random numbers keyed by (seed, epoch, sample index).

    nlpaug draws from the global generators of Python and NumPy; they are seeded for each call and put back after it.
    Its augmenters split and join text by rules of their own ("n't" becomes "n ' t"): give them
    ``tokenizer=str.split, reverse_tokenizer=" ".join`` for text that is split already.

    Args:
        augmenter: of nlpaug (anything with ``augment``), or a callable, text to text or to a list of one text; it may
            take ``rng``, a generator, besides.
        seed: of the run, 0 ≤ seed < 2**64.
        field: entry of the sample that holds the text.

    Returns:
        A PerSample for ``keyed(sentences, stage=[text_stage(...), TokenizeStage(vocabulary)])``.

    Raises:
        MixError: if the augmenter cannot be called; on a call, if the field holds no text, or no sentence comes out,
            more than one, or one with no tokens.

    Example:
        >>> stage = text_stage(str.upper, seed=7)
        >>> stage({"text": "so good", "label": 1}, epoch=0, index=0)
        {'text': 'SO GOOD', 'label': 1}
    """
    call = getattr(augmenter, "augment", augmenter)
    if not callable(call):
        raise MixTypeError(f"text_stage: {type(augmenter).__name__}, expected an augmenter of nlpaug or a callable")
    name = getattr(augmenter, "__name__", type(augmenter).__name__)
    return PerSample((_Drawing if _takes_rng(call) else _Augmented)(call, name), seed, field)


def _takes_rng(call: Any) -> bool:
    try:
        return "rng" in inspect.signature(call).parameters
    except (TypeError, ValueError):  # some callables written in C tell no signature
        return False


class _Augmented:
    """Calls the augmenter and takes its one sentence. A class, since spawned workers cannot be sent a closure."""

    def __init__(self, call: Any, name: str) -> None:
        self.call, self.__name__ = call, name

    def __call__(self, text: str) -> str:
        return self._one(text, self.call(self._checked(text)))

    def _checked(self, text: Any) -> str:
        if not isinstance(text, str):
            raise MixTypeError(
                f"{self.__name__}: got {type(text).__name__}, expected text: set field= to that of the text"
            )
        return text

    def _one(self, text: str, made: Any) -> str:
        sentences = list(made) if isinstance(made, (list, tuple)) else [made]
        if len(sentences) != 1 or not isinstance(sentences[0], str):
            raise MixTypeError(f"{self.__name__}: {text!r:.60} became {made!r:.60}, expected one sentence")
        if not sentences[0].split():
            raise MixValueError(
                f"{self.__name__}: {text!r:.60} became a sentence with no tokens: let it change fewer words"
            )
        return sentences[0]


class _Drawing(_Augmented):
    """The same for a callable that takes a generator: PerSample looks for the name ``rng``."""

    def __init__(self, call: Any, name: str) -> None:
        super().__init__(call, name)
        self.rng_only = getattr(call, "rng_only", False) is True

    def __call__(self, text: str, rng: Any = None) -> str:
        return self._one(text, self.call(self._checked(text), rng=rng))


class TokenizeStage:
    """A stage that replaces the text of a sample by its ids: the last one, after those that change the text.

    Args:
        vocabulary: a Vocabulary, a tokenizer with ``encode``, or a callable, text to ids.
        field: entry of the sample that holds the text.

    Raises:
        MixError: if the vocabulary cannot encode; on a call, if the sample has no such entry or the text no token; the
            sample is named.

    Example:
        >>> from mixops.pipelines.text import Vocabulary
        >>> stage = TokenizeStage(Vocabulary(["so", "good"]))
        >>> stage({"text": "so so", "label": 1}, epoch=0, index=0)
        {'label': 1, 'input_ids': array([2, 2])}
    """

    def __init__(self, vocabulary: Any, *, field: str = "text") -> None:
        self.vocabulary, self.field = vocabulary, field
        self._encode = encoder(vocabulary)

    def __repr__(self) -> str:
        return f"TokenizeStage({self.vocabulary!r}, field={self.field!r})"

    def __call__(self, sample: Any, epoch: int, index: int, place: int = 0) -> dict[str, Any]:
        """The sample with ``input_ids`` in place of its text; epoch and place are not used."""
        if not isinstance(sample, Mapping) or self.field not in sample:
            have = list(sample) if isinstance(sample, Mapping) else type(sample).__name__
            raise MixValueError(f"TokenizeStage: the sample has no {self.field!r}, it is {have}: set field=")
        rest = {name: value for name, value in sample.items() if name != self.field}
        return {**rest, "input_ids": encoded(self._encode, sample[self.field], f"sample {index}")}
