"""Windows of tagged tokens: where they are, which of two rows fit one another, and a draw among those that do."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..errors import MixValueError
from ..spec import plain_array
from .tokens import token_evidence


class Windows(NamedTuple):
    """Windows of a batch, row by row, each row's from left to right: arrays of one entry for each, int64.

    Args:
        row: the row that it lies in.
        start: its first token.
        size: its tokens.
        group: windows of two rows may mix if they are of one group.
    """

    row: np.ndarray
    start: np.ndarray
    size: np.ndarray
    group: np.ndarray


def tag_rows(tags: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Tags as (N, T) integers, of that shape where one is expected; or a MixError."""
    if shape is None:
        shape = tuple(tags.shape if hasattr(tags, "shape") else plain_array("tags", tags).shape)
        if len(shape) != 2:
            raise MixValueError(f"tags of shape {shape}: expected (N, T), rows padded to one length, with -100 say")
    rows = token_evidence("tags", tags, shape, "iu", "ids")
    if rows.size and rows.max() >= 1 << 31:
        raise MixValueError(f"tags: got id {rows.max()}, expected ids below 2**31")
    return rows


def fixed_windows(usable: np.ndarray, named: np.ndarray, size: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, starts) of the windows of ``size`` usable tokens of which ``least`` or more are named.

    Args:
        usable: (N, T) bool, tokens that a window may hold.
        named: (N, T) bool, tokens within an entity, all of them usable.
        size: tokens of a window, 1 or more.
        least: named tokens that it must hold, 0 or more.
    """
    if size > usable.shape[1]:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    upto = np.zeros((2, len(usable), usable.shape[1] + 1), np.int32)
    np.cumsum(usable, 1, out=upto[0, :, 1:])
    np.cumsum(named, 1, out=upto[1, :, 1:])
    held = upto[:, :, size:] - upto[:, :, :-size]
    row, start = np.nonzero((held[0] == size) & (held[1] >= least))
    return row, start


def whole_rows_as_windows(usable: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, starts, sizes) of the rows whose usable tokens are one run, from the first to the last of them."""
    size = usable.sum(1)
    extent = usable.shape[1]
    first, last = usable.argmax(1), extent - 1 - usable[:, ::-1].argmax(1)
    row = np.flatnonzero((size > 0) & (last - first + 1 == size))
    return row, first[row], size[row]


def same_sequences(tags: np.ndarray, row: np.ndarray, start: np.ndarray, size: int) -> np.ndarray:
    """(M,) int64: windows have one number if and only if they hold the same tags in the same order; tags from 0."""
    number, most = np.zeros(len(row), np.int64), 1
    choices = int(tags.max(initial=0)) + 1
    for step in range(size):
        if most > (1 << 62) // choices:  # number them anew before they overflow: there are as many as windows at most
            number = np.unique(number, return_inverse=True)[1].astype(np.int64)
            most = len(row)
        number = number * choices + tags[row, start + step]
        most *= choices
    return np.unique(number, return_inverse=True)[1].astype(np.int64)


def matched(
    windows: Windows, partner: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Choose a window of each row of every pair, all combinations that fit one another being as likely.

    Args:
        windows: those of the batch.
        partner: (N,) rows that come in pairs; a row of its own takes no part.
        place: (N,) numbers from [0, 1); that of the first row of a pair says which combination.

    Returns:
        (first row, its start, its partner's start, size) of the pairs that have a combination.
    """
    rows = np.arange(len(partner))
    here, there = (np.flatnonzero(side[windows.row]) for side in (rows < partner, rows > partner))
    # A pair goes by the number of its first row, and what fits one another within it has one key.
    key = np.minimum(windows.row, partner[windows.row]) * (windows.group.max(initial=0) + 1) + windows.group
    there = there[np.argsort(key[there], kind="stable")]
    left = np.searchsorted(key[there], key[here], "left")
    fits = np.searchsorted(key[there], key[here], "right") - left
    upto = np.cumsum(fits)  # first rows come in order, so the combinations of a pair lie side by side
    total = np.bincount(windows.row[here], fits, len(partner)).astype(np.int64)
    first = np.flatnonzero(total)
    before = np.cumsum(total) - total
    which = np.minimum((place[first] * total[first]).astype(np.int64), total[first] - 1) + before[first]
    one = np.searchsorted(upto, which, "right")
    other = there[left[one] + which - (upto[one] - fits[one])]
    return first, windows.start[here[one]], windows.start[other], windows.size[other]
