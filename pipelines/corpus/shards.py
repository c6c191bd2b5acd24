"""A mixed corpus on disk, in shards: each is written whole or not at all, and is the same whoever writes it.

A shard is a fixed range of groups of one copy of the source. What is in it, and its bytes, depend on the source and
the settings; not on who made it, how often it was begun, or what else was being made. So shards can be made anywhere,
in any order and again, and a run that was stopped goes on with those that are missing.
"""

from __future__ import annotations

import hashlib
import json
import math
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # has no stubs of its own
from pyarrow import parquet

from mixops import MixTypeError, MixValueError

from ..folders import whole_file
from .columns import column_of
from .grouped import COPY, ROW, GroupMixer
from .rows import RowSource

FORMS = ("parquet", "webdataset")
_ENDINGS = {"parquet": ".parquet", "webdataset": ".tar"}
# Bytes of rows that are written at a time: a row group of Parquet.
_ROW_GROUP = 32 << 20


@dataclass(frozen=True)
class Receipt:
    """What is known of a shard that lies in the folder.

    Args:
        number: of the shard.
        file: its name.
        rows: in it.
        bytes: of the file.
        sha256: of them.
        schema: of its rows, as text.
    """

    number: int
    file: str
    rows: int
    bytes: int
    sha256: str
    schema: str


@dataclass(frozen=True)
class ShardMaker:
    """Makes the shards of a corpus.

    Args:
        source: the rows.
        mixer: of their groups.
        out: the folder, which every process that makes shards has to reach under this name.
        groups: groups of a shard.
        copies: how many times the source is mixed.
        form: "parquet" or "webdataset".
    """

    source: RowSource
    mixer: GroupMixer
    out: Path
    groups: int
    copies: int = 1
    form: str = "parquet"

    @property
    def span(self) -> int:
        """Rows of a shard."""
        return self.groups * self.mixer.group

    @property
    def each(self) -> int:
        """Shards of one copy."""
        return -(-len(self.source) // self.span)

    def __len__(self) -> int:
        """Shards of the corpus."""
        return self.each * self.copies

    def rows(self, number: int) -> int:
        """Rows of a shard."""
        start = number % self.each * self.span
        return min(start + self.span, len(self.source)) - start

    def check_first(self) -> None:
        """Mix the first row alone: what does not fit is said before anything is written.

        Raises:
            MixError: see ``GroupMixer.mix``; or if a column cannot be written in the form.
        """
        for table in self.source.groups(0, min(1, len(self.source)), 1):
            mixed = self.mixer.mix(table)
            if self.form == "webdataset":
                _check_members(mixed.schema)

    def tables(self, number: int) -> Iterator[pa.Table]:
        """The mixed groups of a shard, in order."""
        copy, place = divmod(number, self.each)
        start = place * self.span
        stop = min(start + self.span, len(self.source))
        for i, table in enumerate(self.source.groups(start, stop, self.mixer.group)):
            yield self.mixer.mix(table, place * self.groups + i, copy)

    def make(self, number: int) -> Receipt:
        """Write a shard, and beside it what is known of it, and return that.

        Raises:
            MixError: if the rows cannot be read or mixed, or differ in their columns.
            OSError: if the file cannot be written; nothing then has its name.
        """
        path = self.out / f"{self.name(number)}{_ENDINGS[self.form]}"
        count, schema = 0, ""
        with whole_file(path, uuid4().hex) as fresh:
            writer: _Writer = (_ParquetWriter if self.form == "parquet" else _TarWriter)(fresh)
            with writer.opened():
                for table in _checked(self.tables(number), self.source.name):
                    writer.write(table)
                    count, schema = count + len(table), _told(table.schema)
            with fresh.open("rb") as file:
                digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        receipt = Receipt(number, path.name, count, size, digest, schema)
        with whole_file(self.receipt(number), uuid4().hex) as fresh:
            fresh.write_text(json.dumps(asdict(receipt), ensure_ascii=False) + "\n", encoding="utf-8")
        return receipt

    def name(self, number: int) -> str:
        """Of a shard, without its ending."""
        return f"part-{number:06d}"

    def receipt(self, number: int) -> Path:
        """The file beside a shard that says what is in it; it goes when all are done."""
        return self.out / f".{self.name(number)}.json"

    def made(self) -> list[Receipt]:
        """Receipts of the shards that lie in the folder, whole."""
        found = []
        for number in range(len(self)):
            path = self.receipt(number)
            if path.exists():
                receipt = Receipt(**json.loads(path.read_text(encoding="utf-8")))
                shard = self.out / receipt.file
                if shard.exists() and shard.stat().st_size == receipt.bytes:
                    found.append(receipt)
        return found


class _Writer(ABC):
    """Writes tables into a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    @abstractmethod
    def opened(self) -> Iterator[None]:
        """Around all writing."""
        yield

    @abstractmethod
    def write(self, table: pa.Table) -> None: ...


class _ParquetWriter(_Writer):
    """Rows of Parquet, in row groups of some tens of megabytes."""

    @contextmanager
    def opened(self) -> Iterator[None]:
        self._held: list[pa.Table] = []
        self._writer: Any = None
        try:
            yield
            self._flush()
        finally:
            if self._writer is not None:
                self._writer.close()

    def write(self, table: pa.Table) -> None:
        self._held.append(table)
        if sum(held.nbytes for held in self._held) >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            whole = pa.concat_tables(self._held)
            if self._writer is None:
                self._writer = parquet.ParquetWriter(self.path, whole.schema, use_dictionary=_repeating(whole.schema))
            self._writer.write_table(whole, row_group_size=max(len(whole), 1))
            self._held = []


def _repeating(schema: pa.Schema) -> list[str]:
    """Columns whose values come again and again: texts. To look for repeated pixels takes longer than to mix them."""
    texts = (pa.string(), pa.large_string())
    flat = [field.name for field in schema if field.type in texts]
    lists = [f for f in schema if pa.types.is_list(f.type) and f.type.value_type in texts]
    return flat + [f"{field.name}.list.element" for field in lists]


class _TarWriter(_Writer):
    """Samples of WebDataset: 00000000007-00.image.png, .mask.npy and .json for the row 7 of copy 0."""

    @contextmanager
    def opened(self) -> Iterator[None]:
        with tarfile.open(self.path, "w", format=tarfile.USTAR_FORMAT) as self._tar:
            yield

    def write(self, table: pa.Table) -> None:
        arrays = {}
        for field in table.schema:
            if isinstance(field.type, pa.FixedShapeTensorType):
                arrays[field.name] = column_of(table, field.name, 0).values
        others = table.drop_columns(list(arrays)).to_pylist()
        for i, row in enumerate(others):
            key = f"{row[ROW]:012d}-{row[COPY]:02d}"
            for name, values in arrays.items():
                self._add(f"{key}.{name}", values[i])
            files = [name for name, value in row.items() if isinstance(value, bytes)]
            for name in files:
                self._put(f"{key}.{name}", row.pop(name))
            self._put(f"{key}.json", _json(row).encode())

    def _add(self, name: str, values: np.ndarray) -> None:
        content = BytesIO()
        if values.dtype == np.uint8 and values.ndim == 3 and values.shape[2] in (1, 3):
            from PIL import Image

            Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(content, "png", compress_level=1)
            self._put(f"{name}.png", content.getvalue())
        else:
            np.save(content, values, allow_pickle=False)
            self._put(f"{name}.npy", content.getvalue())

    def _put(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o644  # the time stays 0: the same rows, the same bytes
        self._tar.addfile(info, BytesIO(content))


def _check_members(schema: pa.Schema) -> None:
    """Refuse columns that no member of a tar file could hold, or whose names would be those of others."""
    for field in schema:
        name, kind = field.name, field.type
        if isinstance(kind, pa.FixedShapeTensorType) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            # What is longer does not fit into the header of a member; the .json is that of the other columns.
            if "/" in name or name == "json" or not 0 < len(name.encode()) <= 60:
                raise MixValueError(
                    f"column {name!r} would be a file of that name in a WebDataset sample, expected a name of 1 to 60 "
                    "bytes without '/', and not json: rename it, or write Parquet"
                )
        elif not _speaks_json(kind):
            raise MixTypeError(
                f"column {name!r} is {kind}, which the .json of a WebDataset sample cannot hold: cast it to text or "
                "numbers, leave it out, or write Parquet"
            )


def _speaks_json(kind: Any) -> bool:
    are = pa.types
    if are.is_dictionary(kind):
        return _speaks_json(kind.value_type)
    if are.is_list(kind) or are.is_large_list(kind) or are.is_fixed_size_list(kind):
        return _speaks_json(kind.value_type)
    if are.is_struct(kind):
        return all(_speaks_json(kind.field(i).type) for i in range(kind.num_fields))
    plain = (are.is_null, are.is_boolean, are.is_integer, are.is_floating, are.is_string, are.is_large_string)
    return any(is_one(kind) for is_one in plain)


def _json(row: dict[str, Any]) -> str:
    """A row as JSON, which has no NaN and no infinity: they become null."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(row), ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(held) for name, held in value.items()}
    if isinstance(value, list):
        return [_finite(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_alike(receipts: Iterable[Receipt]) -> None:
    """Refuse shards whose rows have not the same columns and types.

    Raises:
        MixError: it names the first shard that differs, and how.
    """
    first: Receipt | None = None
    for receipt in sorted(receipts, key=lambda one: one.number):
        if first is None:
            first = receipt
        elif receipt.schema != first.schema:
            mine, other = receipt.schema.split("; "), first.schema.split("; ")
            differ = [(a, b) for a, b in zip(mine, other, strict=False) if a != b] or [(mine[-1], other[-1])]
            raise MixValueError(
                f"{receipt.file} has {differ[0][0]}, and {first.file} has {differ[0][1]}: expected rows of one kind "
                "throughout; images may need size=(height, width)"
            )


def _checked(tables: Iterator[pa.Table], name: str) -> Iterator[pa.Table]:
    first: pa.Table | None = None
    for table in tables:
        if first is not None and table.schema != first.schema:
            mine, other = _told(table.schema).split("; "), _told(first.schema).split("; ")
            found, wanted = next((a, b) for a, b in zip(mine, other, strict=False) if a != b)
            raise MixTypeError(
                f"{name}, from row {table[ROW][0]} on: {found}, expected {wanted} as before, and rows of one kind "
                "throughout"
            )
        first = table if first is None else first
        yield table


def _told(schema: pa.Schema) -> str:
    return "; ".join(f"{field.name}: {field.type}" for field in schema)
