"""What a scorer says of sentences, and what becomes of those that it cannot judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixops import MixError, MixTypeError, MixValueError

#: Takes sentences, lists of words, and returns a number for each.
Score = Callable[[list[list[str]]], Any]


@dataclass(frozen=True)
class Judge:
    """Accepts the sentences whose score is in a range.

    Args:
        score: takes a list of n sentences, lists of words, and returns n numbers; None accepts everything.
        accept: the lowest score that is accepted, and the lowest above it that no longer is.

    Raises:
        MixError: if score is not callable, or accept is not two numbers, the smaller one first.
    """

    score: Score | None = None
    accept: tuple[float, float] = (0, float("inf"))

    def __post_init__(self) -> None:
        if self.score is not None and not callable(self.score):
            raise MixTypeError(
                f"score is {type(self.score).__name__}, expected a function that takes a list of sentences (lists of "
                "words) and returns a number for each, or None"
            )
        try:
            low, high = (float(bound) for bound in self.accept)
        except (TypeError, ValueError):
            raise MixTypeError(f"accept={self.accept!r}, expected two numbers: (0, 500)") from None
        if not low < high:
            raise MixValueError(f"accept={self.accept!r}, expected the lower bound below the upper one: (0, 500)")
        object.__setattr__(self, "accept", (low, high))

    def scores(self, sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, str | None]:
        """The score of each sentence, NaN for those that have none.

        If the scorer raises an error, the sentences are given to it one by one, and only those fail that it raises one
        for again. Errors of mixops, and what is no error but an interrupt, pass through.

        Args:
            sentences: one or more.

        Returns:
            ((n,) float64, the first error as text or None).

        Raises:
            MixError: if the scorer returns anything but a number for each sentence.
        """
        assert self.score is not None
        lists = [list(words) for words in sentences]
        try:
            given = self.score(lists)
        except MixError:
            raise
        except Exception as error:
            if len(lists) == 1:
                return np.full(1, np.nan), f"{type(error).__name__}: {error}"
        else:
            return _numbers(given, len(lists)), None
        alone = [self.scores([words]) for words in lists]
        return np.concatenate([score for score, _ in alone]), next((why for _, why in alone if why), None)

    def accepts(self, scores: np.ndarray) -> np.ndarray:
        """(n,) bool: the score is in the range; NaN is in none."""
        low, high = self.accept
        return (low <= scores) & (scores < high)


def _numbers(given: Any, count: int) -> np.ndarray:
    if hasattr(given, "detach"):  # a tensor, perhaps one on an accelerator
        given = given.detach().cpu()
    try:
        array = np.asarray(given)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind not in "fiu" or array.shape != (count,):
        what = f"{array.dtype} of shape {array.shape}" if array.ndim else type(given).__name__
        raise MixTypeError(
            f"the scorer returned {what} for {count} sentences, expected a number for each: shape ({count},)"
        )
    return array.astype(np.float64)
