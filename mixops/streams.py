"""Random streams addressed by key, not by order: the same key gives the same numbers in any process.

A stream is a Philox generator: a counter-based generator whose state is a key and a counter. We put the seed and the
purpose into the key and (step, epoch, rank) or (sample, epoch, stage) into the counter, so every draw of a training run
has a stream of its own and nothing depends on how many workers there are, or on what was drawn before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

from .errors import MixValueError

# What a stream is for is part of its key: a plan and a per-sample stage never share numbers.
_PLAN, _SAMPLE, _ORDER = 0, 1, 2
_LIMIT = 1 << 64


def _word(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < _LIMIT:
        raise MixValueError(f"{name}={value!r}: expected a whole number from 0 to 2**64 - 1")
    return int(value)


def _philox(key: tuple[int, int], counter: tuple[int, int, int]) -> np.random.Generator:
    # The lowest counter word is left at 0: it counts the numbers drawn, 2**64 of them before streams could meet.
    words = np.array((0, *counter, *key), np.uint64)
    # NumPy takes any ISeedSequence here; its stub knows but one.
    return np.random.Generator(np.random.Philox(_Key(words), counter=words[:4]))  # type: ignore[arg-type]


class _Key(ISeedSequence):
    """Hands Philox its key, as a seed would: given as ``key=``, making the generator takes three times as long.

    Args:
        words: (6,) uint64, counter and key.
    """

    def __init__(self, words: np.ndarray) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """The two words of the key, which is all that Philox asks for."""
        return self._words[4:]


def plan_stream(seed: int, epoch: int = 0, step: int = 0, rank: int = 0) -> np.random.Generator:
    """The generator that the plan of one step is drawn from.

    Args:
        seed: of the run, 0 ≤ seed < 2**64.
        epoch: counted from 0.
        step: batch within the epoch, counted from 0.
        rank: of the process in distributed training.

    Returns:
        A generator whose numbers depend on these four and on nothing else.

    Raises:
        MixError: if one of them is negative or no whole number.

    Example:
        >>> bool(plan_stream(7, step=3).random() == plan_stream(7, step=3).random())
        True
    """
    return _philox((_word("seed", seed), _PLAN), (_word("step", step), _word("epoch", epoch), _word("rank", rank)))


def sample_stream(seed: int, epoch: int, sample: int, stage: int = 0) -> np.random.Generator:
    """The generator of a per-sample stage, keyed by (seed, epoch, sample index, stage)."""
    return _philox(
        (_word("seed", seed), _SAMPLE), (_word("sample", sample), _word("epoch", epoch), _word("stage", stage))
    )


def order_stream(seed: int, epoch: int) -> np.random.Generator:
    """The generator that shuffles an epoch: the same on every rank, so that ranks can share the samples out."""
    return _philox((_word("seed", seed), _ORDER), (0, _word("epoch", epoch), 0))


def child_streams(rng: np.random.Generator, count: int) -> list[np.random.Generator]:
    """One stream for each child of a combinator, keyed by one word of the parent's and the child's place.

    The parent gives one word whatever the count: appending a child moves no other child's stream.
    """
    word = child_word(rng)
    return [child_stream(word, i) for i in range(count)]


def child_word(rng: np.random.Generator) -> int:
    """The word that the children of a combinator are keyed by."""
    return int(rng.integers(_LIMIT, dtype=np.uint64))


def child_stream(word: int, place: int) -> np.random.Generator:
    """The stream of the child in this place; see ``child_streams``."""
    return _philox((word, 1 << 32 | place), (0, 0, 0))
