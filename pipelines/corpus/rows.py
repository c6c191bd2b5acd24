"""Rows of a corpus by their numbers, whatever files they lie in: any range of them is read without the others.

A source numbers its rows once and for all: files by their names, rows in the order of the file. Nothing of it depends
on who reads, on how many processes there are, or on the sizes of the pieces.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # has no stubs of its own
from pyarrow import json as arrow_json
from pyarrow import parquet

from mixops import MixTypeError, MixValueError, streams

from ..sources import image_folder, read_image
from .columns import as_column
from .reading import read_tagged

# Lines of JSON between two places that are remembered, and that the types of columns are read off.
_LINES = 1024
# Bytes of Parquet that are unpacked at a time.
_PIECE = 8 << 20


class RowSource(ABC):
    """Numbered rows.

    Attributes:
        name: for messages.
        digest: of what it holds, as text; another content has another one.
        step: rows that it reads well at a time.
    """

    name: str
    digest: str
    step: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def pieces(self, start: int, stop: int) -> Iterator[pa.Table]:
        """The rows from start up to stop in order, in pieces of any size."""

    def groups(self, start: int, stop: int, group: int) -> Iterator[pa.Table]:
        """The rows from start up to stop in order, group by group; the last may be smaller."""
        held: list[pa.Table] = []
        count = 0
        for piece in self.pieces(start, stop):
            held.append(piece)
            count += len(piece)
            if count >= group:
                table = pa.concat_tables(held)
                whole = count - count % group
                for at in range(0, whole, group):
                    yield table.slice(at, group)
                held, count = [table.slice(whole)], count - whole
        if count:
            yield pa.concat_tables(held)


class TableRows(RowSource):
    """Rows of a table in memory."""

    def __init__(self, table: pa.Table, name: str = "table") -> None:
        self.table, self.name, self.step = table, name, 1 << 16
        sink = BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table.combine_chunks())
        self.digest = _digest([sink.getbuffer()])

    def __len__(self) -> int:
        return len(self.table)

    def pieces(self, start: int, stop: int) -> Iterator[pa.Table]:
        """See RowSource."""
        yield self.table.slice(start, stop - start)


class ParquetRows(RowSource):
    """Rows of Parquet files, whose footers say where each lies."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self.name = list(paths), _named(paths)
        counts: list[tuple[int, int, int]] = []
        footers: list[bytes] = []
        for path in paths:
            try:
                with parquet.ParquetFile(path) as file:
                    schema, meta = file.schema_arrow.remove_metadata(), file.metadata
            except pa.ArrowInvalid as error:
                raise MixValueError(f"{path}: no Parquet file: {error}") from None
            if not counts:
                first = schema
            elif schema != first:
                raise MixValueError(f"{path}: {_difference(schema, first)} as in {paths[0]}: read such files apart")
            counts += [(len(footers), i, meta.row_group(i).num_rows) for i in range(meta.num_row_groups)]
            footers.append(_footer(path))
        self._files = np.array([file for file, _, _ in counts], np.int64)
        self._groups = np.array([group for _, group, _ in counts], np.int64)
        self._ends = np.cumsum([0, *(rows for _, _, rows in counts)])
        self.step = max((rows for _, _, rows in counts), default=1)
        # Rows that are unpacked at a time: some thousands, and fewer where they are large.
        self._batch = int(min(4096, max(16, len(self) * _PIECE // max(sum(path.stat().st_size for path in paths), 1))))
        self.digest = _digest(part for path, end in zip(paths, footers, strict=True) for part in (_tag(path), end))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def pieces(self, start: int, stop: int) -> Iterator[pa.Table]:
        """See RowSource. Row groups are unpacked piece by piece, and from the end of the range on not at all."""
        low = int(np.searchsorted(self._ends, start, "right")) - 1
        high = int(np.searchsorted(self._ends, stop, "left"))
        at = int(self._ends[low])
        for number in dict.fromkeys(self._files[low:high].tolist()):
            groups = self._groups[low:high][self._files[low:high] == number].tolist()
            with parquet.ParquetFile(self.paths[number]) as file:
                try:
                    for batch in file.iter_batches(row_groups=groups, batch_size=self._batch, use_threads=False):
                        here = slice(max(start - at, 0), max(min(stop - at, len(batch)), 0))
                        at += len(batch)
                        if here.stop > here.start:
                            yield pa.Table.from_batches([batch[here]]).replace_schema_metadata()
                        if at >= stop:
                            return
                except (pa.ArrowInvalid, OSError) as error:
                    raise MixValueError(f"{self.paths[number]} cannot be read: {error}") from None


class JsonRows(RowSource):
    """Rows of files with an object of JSON on each line."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self.name, self.step = list(paths), _named(paths), 1 << 16
        known: list[tuple[int, int, int]] = []
        content = hashlib.sha256()
        self._counts = []
        for number, path in enumerate(paths):
            content.update(_tag(path))
            count = 0
            for line, place in _starts(path, content):
                if place is None:
                    count = line
                else:
                    known.append((number, line, place))
            self._counts.append(count)
        self._file, self._line, self._place = np.array(known, np.int64).reshape(-1, 3).T.copy()
        self._ends = np.cumsum([0, *self._counts])
        self.digest = content.hexdigest()[:32]
        begun = next((file for file, count in enumerate(self._counts) if count), None)  # the first that is not empty
        self._schema = pa.schema([])
        if begun is not None:
            found = self._read(begun, 0, min(_LINES, self._counts[begun]), None).schema
            self._schema = pa.schema([field.with_type(_as_said(field.type)) for field in found])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def pieces(self, start: int, stop: int) -> Iterator[pa.Table]:
        """See RowSource."""
        for file, begin in enumerate(self._ends[:-1].tolist()):
            low, high = max(start - begin, 0), min(stop - begin, self._counts[file])
            while low < high:
                till = min(high, (low // _LINES + 1) * _LINES)
                yield self._read(file, low, till, self._schema)
                low = till

    def _read(self, file: int, low: int, high: int, schema: pa.Schema | None) -> pa.Table:
        """Lines low to high of a file, which lie between two remembered places."""
        path = self.paths[file]
        at = int(np.flatnonzero((self._file == file) & (self._line <= low))[-1])
        known = at + 1 < len(self._file) and self._file[at + 1] == file
        with path.open("rb") as opened:
            opened.seek(int(self._place[at]))
            content = opened.read(int(self._place[at + 1] - self._place[at]) if known else -1)
        lines = content.splitlines(keepends=True)[low - int(self._line[at]) : high - int(self._line[at])]
        for number, line in enumerate(lines, low + 1):
            if not line.strip():
                raise MixValueError(f"{path}, line {number}: an empty line, expected an object of JSON on every line")
        options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error" if schema else None)
        one = arrow_json.ReadOptions(use_threads=False, block_size=max(len(content), 1))
        try:
            table = arrow_json.read_json(BytesIO(b"".join(lines)), one, options)
        except pa.ArrowInvalid as error:
            raise MixValueError(
                f"{path}, lines {low + 1} to {high}: {error}; expected objects of one kind, with the names and types "
                f"of the first {_LINES} lines"
            ) from None
        if len(table) != len(lines):
            raise MixValueError(f"{path}, lines {low + 1} to {high}: {len(table)} objects, expected one on each line")
        return table


class ImageRows(RowSource):
    """Images of a folder as (h, w, 3) uint8, in an order that is shuffled once: classes lie in folders of their own."""

    def __init__(self, path: Path, size: int | tuple[int, int], seed: int) -> None:
        found = image_folder(path, size, check=False)
        order = streams.order_stream(seed, 0).permutation(len(found))
        self.name, self.step, self._size, self.classes = str(path), 1024, found.size, found.classes
        self._paths = [found.paths[i] for i in order]
        self._labels = None if found.labels is None else np.array(found.labels, np.int64)[order]
        told = (f"{p.relative_to(path)}\0{p.stat().st_size}\n" for p in self._paths)
        self.digest = _digest(line.encode() for line in (*told, str(found.size)))

    def __len__(self) -> int:
        return len(self._paths)

    def pieces(self, start: int, stop: int) -> Iterator[pa.Table]:
        """See RowSource."""
        for low in range(start, stop, 256):
            rows = slice(low, min(low + 256, stop))
            columns = {"image": as_column(np.stack([read_image(path, self._size) for path in self._paths[rows]]))}
            if self._labels is not None:
                columns["label"] = as_column(self._labels[rows])
            columns["file"] = pa.array([path.name for path in self._paths[rows]])
            yield pa.table(columns)


def open_corpus(source: Any, *, size: int | tuple[int, int] = 224, seed: int = 0) -> RowSource:
    """The rows of a corpus, numbered.

    Args:
        source: a RowSource; a pyarrow Table; a path or a list of paths: ``.parquet`` and ``.jsonl`` files, a folder of
            such, a tagged ``.conll`` or ``.txt`` file, or a folder of images with a sub-folder for each class or none.
        size: (height, width) that images of a folder are cropped and resized to, or one number for both.
        seed: of the order of the images of a folder; rows of other sources keep theirs.

    Returns:
        A RowSource. Images have the columns "image", "label" and "file", tagged sentences "tokens" and "tags".

    Raises:
        MixError: if a file is of another kind or broken, files differ in columns or types, or there is none.
        FileNotFoundError: if there is no such file.

    Example:
        >>> len(open_corpus(pa.table({"x": [1, 2, 3]})))
        3
    """
    if isinstance(source, RowSource):
        return source
    if isinstance(source, pa.Table):
        return TableRows(source)
    given = [source] if isinstance(source, (str, PathLike)) else source
    if not isinstance(given, Sequence) or not given or not all(isinstance(one, (str, PathLike)) for one in given):
        raise MixTypeError(f"corpus: {type(source).__name__}, expected a path, a list of paths or a pyarrow Table")
    paths = [Path(one) for one in given]
    if len(paths) == 1 and paths[0].is_dir():
        inside = sorted(p for p in paths[0].iterdir() if p.suffix in (".parquet", ".jsonl") and p.name[0] not in "._")
        if not inside:
            try:
                return ImageRows(paths[0], size, seed)
            except MixValueError as error:
                raise MixValueError(f"{error}; nor are there .parquet or .jsonl files in the folder itself") from None
        paths = inside
    kinds = {path.suffix.lower() for path in paths}
    if kinds == {".parquet"}:
        return ParquetRows(paths)
    if kinds == {".jsonl"}:
        return JsonRows(paths)
    if len(paths) == 1 and kinds <= {".conll", ".txt"}:
        corpus = read_tagged(paths[0])
        held = {"tokens": [list(s.tokens) for s in corpus], "tags": [list(s.tags) for s in corpus]}
        return TableRows(pa.table(held), paths[0].name)
    raise MixValueError(
        f"{', '.join(path.name for path in paths[:3])}: files of another kind, expected .parquet or .jsonl files, one "
        ".conll, or a folder of these or of images (unpack .gz first: a range of its lines cannot be read by itself)"
    )


def _starts(path: Path, content: Any) -> Iterator[tuple[int, int | None]]:
    """(line, place) of every so many lines of a file; at the end (number of lines, None)."""
    line, at, last = 0, 0, b"\n"
    with path.open("rb") as file:
        if path.stat().st_size:
            yield 0, 0
        while chunk := file.read(1 << 22):
            content.update(chunk)
            ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10)
            first = -(line + 1) % _LINES  # of the ends in this chunk, the one behind which a place is remembered
            for k in range(first, len(ends), _LINES):
                yield line + k + 1, at + int(ends[k]) + 1
            line, at, last = line + len(ends), at + len(chunk), chunk[-1:]
    yield line + (last != b"\n"), None


def _as_said(kind: Any) -> Any:
    """The type that JSON has for what Arrow took for a time: text stays text, whatever it looks like."""
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_as_said(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _as_said(field.type)) for field in kind])
    return kind


def _footer(path: Path) -> bytes:
    """The end of a Parquet file that says what lies where, with its statistics."""
    with path.open("rb") as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        return file.read(length)


def _difference(schema: pa.Schema, first: pa.Schema) -> str:
    for name in dict.fromkeys((*schema.names, *first.names)):
        found, wanted = (s.field(name).type if name in s.names else "missing" for s in (schema, first))
        if found != wanted:
            return f"column {name!r} is {found}, expected {wanted}"
    return f"columns {schema.names}, expected {first.names}"


def _named(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def _tag(path: Path) -> bytes:
    return f"{path.name}\0{path.stat().st_size}\n".encode()


def _digest(parts: Any) -> str:
    made = hashlib.sha256()
    for part in parts:
        made.update(part)
    return made.hexdigest()[:32]
