"""Rows that travel between ranks: a field of a batch as bytes, and as a source with rows of other ranks behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mixops as mx
from mixops import MixTypeError, MixValueError

from .ranks import Ranks


@dataclass(frozen=True)
class Column:
    """One field of a batch.

    Args:
        item: array or tensor.
        axis: that of its rows.
        labels: is it one? Labels are few bytes, and joined into one array.
    """

    item: Any
    axis: int
    labels: bool

    @property
    def rows(self) -> int:
        """How many it has."""
        return int(self.item.shape[self.axis])

    @property
    def kind(self) -> str:
        """What rows of all ranks must have alike."""
        shape, sort = tuple(self.item.shape), "array" if isinstance(self.item, np.ndarray) else "tensor"
        return f"{sort} of {self.item.dtype}, rows {shape[: self.axis] + shape[self.axis + 1 :]}"

    def swapped(self, ranks: Ranks, asked: Sequence[np.ndarray], coming: Sequence[int]) -> Any:
        """Rows from all ranks, one rank after the other; ``asked`` are the rows that each is sent. Collective."""
        chosen = self._chosen(np.concatenate(asked))
        array = isinstance(chosen, np.ndarray)
        flat = chosen.reshape(-1)
        plain = torch.from_numpy(flat.view(np.uint8)) if array else flat.view(torch.uint8)
        shape = chosen.shape[1:]
        size = int(np.prod(shape)) * chosen.dtype.itemsize
        got = ranks.swapped(plain, [len(rows) * size for rows in asked], [rows * size for rows in coming])
        if array:
            return got.cpu().numpy().view(chosen.dtype).reshape(sum(coming), *shape)
        return got.to(chosen.device).view(chosen.dtype).reshape(sum(coming), *shape)

    def joined(self, got: Any, place: np.ndarray) -> Any:
        """This field with rows behind its own: ``got[place]``. A list of rows where copying them all would cost."""
        got = got[place] if isinstance(got, np.ndarray) else got[torch.from_numpy(place).to(got.device)]
        own = self._rows_first()
        if not self.labels and own.ndim > 1:
            return [*own, *got]
        return np.concatenate([own, got]) if isinstance(own, np.ndarray) else torch.cat([own, got])

    def _rows_first(self) -> Any:
        if isinstance(self.item, np.ndarray):
            return np.moveaxis(self.item, self.axis, 0)
        return self.item.movedim(self.axis, 0)

    def _chosen(self, rows: np.ndarray) -> Any:
        """Copies of some rows, rows first."""
        first = self._rows_first()
        if isinstance(first, np.ndarray):
            return np.ascontiguousarray(first[rows])
        return first.index_select(0, torch.from_numpy(rows).to(first.device)).contiguous()


def column_of(name: Any, item: Any, field: Any) -> Column:
    """An item of a batch and its field as a Column.

    Raises:
        MixError: if it is no array, tensor or list of samples of numbers, or samples differ.
    """
    listed = isinstance(item, (list, tuple)) and bool(item)
    if listed:
        try:
            item = torch.stack(list(item)) if isinstance(item[0], Tensor) else np.stack(item)
        except (TypeError, ValueError, RuntimeError):
            raise MixValueError(f"field {name!r}: samples of different kinds or sizes, expected alike ones") from None
    if not isinstance(item, (np.ndarray, Tensor)) or not item.ndim:
        raise MixTypeError(f"field {name!r}: got {type(item).__name__}, expected a NumPy array or a torch tensor")
    if isinstance(item, np.ndarray) and item.dtype.kind in "OUS":
        raise MixTypeError(f"field {name!r}: got an array of {item.dtype}, expected numbers")
    labels = isinstance(field, mx.Labels)
    axis = 0 if labels or listed else field.layout.split().index("b")
    return Column(item, axis, labels)
