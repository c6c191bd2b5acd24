"""Which sentences of a corpus can be mixed: those with windows that fit one another."""

from __future__ import annotations

import numpy as np


class PairIndex:
    """Draws pairs of sentences that have at least one pair of windows in common.

    Two windows fit where they are of one group and of different sentences. The first sentence is uniform among those
    with a window that fits another; then one of its windows, then another sentence with a window of that group, each as
    likely as any other.

    Args:
        row: (E,) ints, the sentence of each eligible window.
        group: (E,) ints, what has to be equal.

    Example:
        >>> index = PairIndex(np.array([0, 1, 1, 2]), np.array([7, 7, 8, 9]))
        >>> sorted(set(map(tuple, index.draw(np.random.default_rng(0), 20).tolist())))
        [(0, 1), (1, 0)]
    """

    def __init__(self, row: np.ndarray, group: np.ndarray) -> None:
        number = np.unique(group, return_inverse=True)[1].astype(np.int64)
        stride = int(row.max()) + 1 if len(row) else 1
        # A member is a sentence of a group, however many windows it has there; members of one group lie side by side.
        keys, member = np.unique(number * stride + row, return_inverse=True)
        self._sentence = keys % stride
        of_group = keys // stride
        sizes = np.bincount(of_group, minlength=1)
        self._size = sizes[of_group]
        self._first = (np.cumsum(sizes) - sizes)[of_group]
        fits = self._size[member] > 1
        order = np.argsort(row[fits], kind="stable")
        self._windows = member[fits][order]
        self._sentences, self._windows_of = np.unique(row[fits], return_counts=True)
        self._start = np.cumsum(self._windows_of) - self._windows_of

    def __len__(self) -> int:
        """Sentences that fit another."""
        return len(self._sentences)

    def __repr__(self) -> str:
        return f"<PairIndex: {len(self)} sentences fit another>"

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draw pairs; there must be some to draw from, ``len(index) > 0``.

        Args:
            rng: the only source of randomness.
            count: pairs to draw, each on its own.

        Returns:
            (count, 2) int64, numbers of the sentences; those of a pair differ.
        """
        sentence = rng.integers(0, len(self._sentences), count)
        member = self._windows[self._start[sentence] + rng.integers(0, self._windows_of[sentence])]
        own = member - self._first[member]
        other = rng.integers(0, self._size[member] - 1)
        other += other >= own
        return np.stack([self._sentence[member], self._sentence[self._first[member] + other]], 1)
