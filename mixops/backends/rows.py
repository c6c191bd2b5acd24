"""Where the rows of a source lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import MixValueError


class Rows:
    """Rows with an address each; every row dense, its axes ordered from the outermost in memory to the innermost.

    Rows that are not dense are copied; ``in_x`` says that the addresses are those of x itself.

    Args:
        x: an array, or a list of equally sized samples.
        names: the axes of x (of the stacked samples).

    Raises:
        MixError: if the samples differ in shape or dtype.
    """

    def __init__(self, x: Any, names: tuple[str, ...]) -> None:
        at = names.index("b")
        rest = names[:at] + names[at + 1 :]
        listed = isinstance(x, Sequence)
        rows: Any = _alike([np.asarray(r) for r in x]) if listed else np.moveaxis(x, at, 0) if at else x
        shape, strides, self.dtype = _sample(rows)
        self.itemsize = self.dtype.itemsize
        # Where an axis of extent 1 stands says nothing: those go first.
        order = sorted(range(len(rest)), key=lambda i: (shape[i] > 1, -strides[i]))
        self.in_x = not listed
        if not self._packed([shape[i] for i in order], [strides[i] for i in order]):
            rows = [np.ascontiguousarray(r) for r in rows] if listed else np.ascontiguousarray(rows)
            order, self.in_x = list(range(len(rest))), False
        self.keep = rows  # the addresses are good only as long as these live
        self._table: np.ndarray | None = None
        if listed:
            self._table = np.array([r.__array_interface__["data"][0] for r in rows], np.int64)
        else:
            self._start, self._step = rows.__array_interface__["data"][0], rows.strides[0]
        self.names, self.shape = tuple(rest[i] for i in order), tuple(shape[i] for i in order)
        self.strides: dict[str, int] = {}
        step = self.itemsize
        for name, extent in zip(self.names[::-1], self.shape[::-1], strict=True):
            self.strides[name] = step
            step *= extent

    def at(self, rows: np.ndarray) -> np.ndarray:
        """int64 addresses of some rows."""
        if self._table is not None:
            return self._table[rows]
        return self._start + rows.astype(np.int64) * self._step

    def _packed(self, shape: list[int], strides: list[int]) -> bool:
        step = self.itemsize
        for extent, stride in zip(shape[::-1], strides[::-1], strict=True):
            if extent > 1 and stride != step:
                return False
            step *= extent
        return True


def _sample(rows: Any) -> tuple[tuple[int, ...], tuple[int, ...], np.dtype[Any]]:
    if isinstance(rows, list):
        return rows[0].shape, rows[0].strides, rows[0].dtype
    return rows.shape[1:], rows.strides[1:], rows.dtype


def _alike(rows: list[np.ndarray]) -> list[np.ndarray]:
    first = rows[0]
    shape, dtype, strides = first.shape, first.dtype, first.strides
    for i, row in enumerate(rows):
        if row.shape != shape or row.dtype != dtype:
            raise MixValueError(
                f"sample 0 is {dtype} {shape}, sample {i} is {row.dtype} {row.shape}: expected equally sized samples"
            )
    return rows if all(r.strides == strides for r in rows) else [np.ascontiguousarray(r) for r in rows]
