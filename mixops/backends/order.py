"""The order of rows: along the partner map, so that a donor is met again while it is still in cache."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

#: Walks of more rows than this are not kept.
LARGEST = 4096


def walk(donor: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order in which rows can be overwritten, and which originals must be saved.

    Rows whose original nobody needs any more come first; what is left is cycles, each walked from row to donor with
    the first row's original saved for the last.

    Args:
        donor: (N,) int64, the one row that each row reads besides itself.

    Returns:
        order (N,); saves (N,) the row that reads this row's saved original, or -1; reads (N,) bool, is it that row.
    """
    if len(donor) > LARGEST:
        return _walk(donor)
    order, saves, reads = _walked(donor.tobytes())
    return order.copy(), saves.copy(), reads.copy()


@lru_cache(maxsize=16)
def _walked(donors: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The walk of int64 donors; pairings such as "flip" and "roll" ask for the same one at every step."""
    return _walk(np.frombuffer(donors, np.int64))


def _walk(donor: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = len(donor)
    rows = np.arange(n)
    if n and (donor[donor] == rows).all():
        return _pairs(donor, rows)
    order, saves, reads, done = [], [-1] * n, [False] * n, [False] * n
    needed = np.bincount(donor[donor != rows], minlength=n).tolist()
    to = donor.tolist()
    for start in range(n):
        i = start
        while not done[i] and not needed[i]:
            done[i] = True
            order.append(i)
            if to[i] != i:
                needed[to[i]] -= 1
                i = to[i]
    for start in range(n):
        i = start
        while not done[i]:
            done[i] = True
            order.append(i)
            if to[i] == start:
                saves[start], reads[i] = i, True
            i = to[i]
    return np.array(order, np.int64), np.array(saves, np.int64), np.array(reads, bool)


def _pairs(donor: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The walk where rows exchange two by two, without a loop."""
    first = rows[rows < donor]
    alone = rows[rows == donor]
    order = np.concatenate([np.stack([first, donor[first]], 1).ravel(), alone])
    saves = np.where(rows < donor, donor, -1)
    return order.astype(np.int64), saves.astype(np.int64), rows > donor
