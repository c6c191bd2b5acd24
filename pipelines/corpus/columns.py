"""Columns of tables as the arrays that a plan mixes, and back: images, vectors, rows of ids or words, numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # has no stubs of its own

from mixops import MixError, MixTypeError, MixValueError

from ..sources import read_image


@dataclass(frozen=True)
class Column:
    """A column as an array, rows first.

    Args:
        values: (N, ...) numbers; (N, T) for rows of different lengths, T ≥ 1, 0 behind their end.
        lengths: (N,) of such rows, else None.
        words: what the numbers of a column of words stand for, else None.
    """

    values: np.ndarray
    lengths: np.ndarray | None = None
    words: pa.Array | None = None

    def back(self, values: np.ndarray, lengths: np.ndarray | None) -> pa.Array:
        """A column of the kind that this one was made of, of other values."""
        if lengths is None or self.lengths is None:
            return as_column(values)
        flat = values[np.arange(values.shape[1]) < lengths[:, None]]
        items = pa.array(flat) if self.words is None else self.words.take(pa.array(flat))
        return as_lists(items, lengths)


def as_column(values: np.ndarray) -> pa.Array:
    """Numbers, lists of one length or tensors of one shape."""
    if values.ndim == 1:
        return pa.array(values)
    values = np.ascontiguousarray(values)
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(values.dtype), values.shape[1:])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), int(np.prod(values.shape[1:])))
    return pa.ExtensionArray.from_storage(kind, flat)


def as_lists(items: pa.Array, lengths: np.ndarray) -> pa.Array:
    """Items one after another, in lists of these lengths."""
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), items)


def column_of(
    table: pa.Table, name: str, first: int, size: tuple[int, int] | None = None, *, even: bool = False
) -> Column:
    """A column of a table as an array.

    Args:
        table: its rows.
        name: of the column.
        first: number of the first row, for messages.
        size: (height, width) that encoded images are cropped and resized to; None leaves them.
        even: lists have to be of one length.

    Raises:
        MixError: if there is no such column, lists are of different lengths where they may not be, a value is missing
            or is none that an array could hold, an image cannot be read, or images differ in size.
    """
    if name not in table.column_names:
        raise MixValueError(f"no column {name!r}, the rows have {', '.join(map(repr, table.column_names))}")
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if column.null_count:
        missing = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise MixValueError(f"row {first + missing}: {name!r} is missing: fill it in, or leave such rows out")
    try:
        found = _opened(column, lambda row: f"row {first + row}, {name!r}", size)
    except pa.ArrowException as error:
        raise MixTypeError(f"{name!r} is {column.type}: {error}; expected numbers, lists or images") from None
    if not even or found.lengths is None:
        return found
    if found.words is not None:
        raise MixTypeError(f"row {first}, {name!r}: texts, expected numbers: texts take Field('b t', 'discrete')")
    differ = np.flatnonzero(found.lengths != found.lengths[:1])
    if len(differ):
        row = int(differ[0])
        raise MixValueError(
            f"row {first + row}: {found.lengths[row]} values in {name!r} and {found.lengths[0]} in row {first}, "
            "expected as many: only Field('b t', 'discrete') takes rows of different lengths"
        )
    return Column(found.values[:, : int(found.lengths.max(initial=0))])


def _opened(column: Any, place: Callable[[int], str], size: tuple[int, int] | None) -> Column:
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        shape = getattr(kind, "shape", None)
        if shape is None:
            raise MixTypeError(f"{place(0)} is {kind}, expected numbers, lists, tensors of one shape or images")
        values = _numbers(column.storage.flatten(), place)
        return Column(values.reshape(len(column), *shape))
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:  # as Hugging Face's datasets store images
        return _images(column.field("bytes"), place, size)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _images(column, place, size)
    if pa.types.is_fixed_size_list(kind) and not pa.types.is_string(kind.value_type):
        values = _numbers(column.flatten(), place)
        return Column(values.reshape(len(column), kind.list_size))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(column, place)
    return Column(_numbers(column, place))


def _numbers(column: Any, place: Callable[[int], str]) -> np.ndarray:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise MixTypeError(f"{place(0)} is {kind}, expected numbers, lists of numbers or of texts, tensors or images")
    if column.null_count:
        raise MixValueError(f"{place(0)}: a number in the lists of this column or a later row is missing: fill it in")
    array: np.ndarray = column.to_numpy(zero_copy_only=False)
    return array


def _lists(column: Any, place: Callable[[int], str]) -> Column:
    if pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    ends = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    items, words = column.flatten(), None
    if isinstance(items.type, pa.BaseExtensionType):
        raise MixTypeError(f"{place(0)} is lists of {items.type}, expected lists of numbers or of texts")
    if pa.types.is_string(items.type) or pa.types.is_large_string(items.type):
        if items.null_count:
            raise MixValueError(f"{place(0)}: a text in the lists of this column or a later row is missing: fill it in")
        coded = items.dictionary_encode()
        words, flat = coded.dictionary, coded.indices.to_numpy(zero_copy_only=False)
    elif pa.types.is_null(items.type):
        flat = np.zeros(0, np.int64)
    else:
        flat = _numbers(items, place)
    # One place at least: a plan is drawn for rows that have some extent, though all of them be empty.
    values = np.zeros((len(ends), max(int(ends.max(initial=0)), 1)), flat.dtype)
    values[np.arange(values.shape[1]) < ends[:, None]] = flat
    return Column(values, ends, words)


def _images(column: Any, place: Callable[[int], str], size: tuple[int, int] | None) -> Column:
    made: list[np.ndarray] = []
    for row, content in enumerate(column):
        try:
            made.append(read_image(BytesIO(content.as_py() or b""), size))
        except MixError as error:
            raise MixValueError(f"{place(row)}: no image that can be read: {error.__cause__ or error}") from None
        if made[row].shape != made[0].shape:
            raise MixValueError(
                f"{place(row)}: {made[row].shape}, expected {made[0].shape} as in the row before: set size=(height, "
                "width) to crop and resize all images"
            )
    if not made:
        return Column(np.zeros((0, *(size or (0, 0)), 3), np.uint8))
    return Column(np.stack(made))
