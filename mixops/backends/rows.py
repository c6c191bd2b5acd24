"""Where the rows of a source lie in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from .addresses import start, starts


class Rows:
    """Rows with an address each; every row dense, its axes ordered from the outermost in memory to the innermost.

    Rows that are not dense are copied; ``in_x`` says that the addresses are those of x itself.

    Args:
        x: an array, or a list of samples of one shape and dtype.
        names: the axes of x (of the stacked samples).
    """

    def __init__(self, x: Any, names: tuple[str, ...]) -> None:
        at = names.index("b")
        rest = names[:at] + names[at + 1 :]
        listed = not isinstance(x, np.ndarray) and isinstance(x, Sequence)
        rows: Any = _alike([np.asarray(r) for r in x]) if listed else np.moveaxis(x, at, 0) if at else x
        shape, strides, self.dtype = _sample(rows)
        self.itemsize = self.dtype.itemsize
        self.in_x = not listed
        order = dense_order(shape, strides, self.itemsize)
        if order is None:
            rows = [np.ascontiguousarray(r) for r in rows] if listed else np.ascontiguousarray(rows)
            order, self.in_x = tuple(range(len(rest))), False
        self.keep = rows  # the addresses are good only as long as these live
        self._table = starts(rows) if listed else None
        if not listed:
            self._start, self._step = start(rows), rows.strides[0]
        self.names, self.shape = tuple(rest[i] for i in order), tuple(shape[i] for i in order)
        self.strides = _dense_strides(self.names, self.shape, self.itemsize)

    def at(self, rows: np.ndarray) -> np.ndarray:
        """int64 addresses of some rows."""
        if self._table is not None:
            return self._table[rows]
        return self._start + np.multiply(rows, self._step, dtype=np.int64)


@lru_cache(maxsize=256)
def dense_order(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, ...] | None:
    """The axes from the outermost in memory to the innermost; None if there are gaps between the elements."""
    # Where an axis of extent 1 stands says nothing: those go first.
    order = sorted(range(len(shape)), key=lambda i: (shape[i] > 1, -strides[i]))
    step = itemsize
    for i in reversed(order):
        if shape[i] > 1 and strides[i] != step:
            return None
        step *= shape[i]
    return tuple(order)


@lru_cache(maxsize=256)
def _dense_strides(names: tuple[str, ...], shape: tuple[int, ...], itemsize: int) -> Mapping[str, int]:
    """Bytes from one element to the next along each axis, the innermost last."""
    return {name: itemsize * prod(shape[i + 1 :]) for i, name in enumerate(names)}


def _sample(rows: Any) -> tuple[tuple[int, ...], tuple[int, ...], np.dtype[Any]]:
    if isinstance(rows, list):
        return rows[0].shape, rows[0].strides, rows[0].dtype
    return rows.shape[1:], rows.strides[1:], rows.dtype


def _alike(rows: list[np.ndarray]) -> list[np.ndarray]:
    """The samples, copied unless all are strided alike; that they are alike in shape and dtype has been checked."""
    return rows if len({row.strides for row in rows}) == 1 else [np.ascontiguousarray(row) for row in rows]
