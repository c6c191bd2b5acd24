"""Columns of a TSV or CSV file, each row with its place in the file, so that errors can name the line."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

from mixops import MixValueError

_KINDS = (".tsv", ".tsv.gz", ".csv", ".csv.gz")


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Args:
        name: of the source, for messages.
        places: of each row, "line 3" say.
        columns: {name or position: values}.
        classes: {column: names of its classes}, where the source knows them.
    """

    name: str
    places: list[str]
    columns: dict[str | int, list[Any]]
    classes: dict[str | int, tuple[str, ...]]

    def column(self, name: str | int) -> list[Any]:
        """The values of a column.

        Raises:
            MixError: if there is none of this name; the nearest names are told.
        """
        if name not in self.columns:
            known = [str(column) for column in self.columns]
            close = get_close_matches(str(name), known, 3) or known[:12]
            raise MixValueError(
                f"{self.name}: no column {name!r} among {len(known)}; nearest are {', '.join(map(repr, close))}: set "
                "text= and label="
            )
        return self.columns[name]

    def where(self, keep: Callable[[Mapping[str | int, Any]], Any]) -> Table:
        """The rows for which keep({column: value}) is true."""
        rows = [i for i in range(len(self.places)) if keep({name: held[i] for name, held in self.columns.items()})]
        columns = {name: [held[i] for i in rows] for name, held in self.columns.items()}
        return Table(self.name, [self.places[i] for i in rows], columns, self.classes)


def read_table(path: str | PathLike[str], *, header: bool) -> Table:
    """All columns of a ``.tsv`` (no quoting) or ``.csv`` file, ``.gz`` or not, as text.

    Raises:
        MixError: if the file is of another kind, not UTF-8, cut off, empty, or a line has another number of fields; the
            number of the line is told.
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    if not path.name.lower().endswith(_KINDS):
        raise MixValueError(f"{path.name}: a file of another kind, expected one of {', '.join(_KINDS)}")
    content = content_of(path)
    split = _tsv if ".tsv" in path.name.lower()[-7:] else _csv
    rows = list(split(path.name, content))
    if not rows:
        raise MixValueError(f"{path.name}: an empty file")
    names: list[str | int] = list(rows[0][1]) if header else list(range(len(rows[0][1])))
    if len(set(names)) < len(names):
        raise MixValueError(f"{path.name}: the header {names} names a column twice")
    body = rows[1:] if header else rows
    broken = [(line, fields) for line, fields in body if len(fields) != len(names)]
    if broken:
        line, fields = broken[0]
        raise MixValueError(
            f"{path.name}, line {line}: {len(fields)} fields, expected {len(names)} as in the first line; "
            f"{len(broken)} of {len(body)} lines are so: mend or leave them out"
        )
    columns = {name: [fields[i] for _, fields in body] for i, name in enumerate(names)}
    return Table(path.name, [f"line {line}" for line, _ in body], columns, {})


def content_of(path: Path) -> str:
    """What a UTF-8 file holds, unpacked if it ends in ``.gz``.

    Raises:
        MixError: if it is not UTF-8, the line is told, or no whole gzip file.
        FileNotFoundError: if there is no such file.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix.lower() == ".gz" else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise MixValueError(f"{path.name}: no whole gzip file: {error}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise MixValueError(f"{path.name}, line {line}: not UTF-8: save the file as UTF-8") from None


def _tsv(_: str, content: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(content.split("\n"), 1):
        line = line.removesuffix("\r")
        if line:
            yield number, line.split("\t")


def _csv(name: str, content: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + 1  # a quoted field may go over several lines
    except csv.Error as error:
        raise MixValueError(f"{name}, line {start}: {error}: mend the quotes") from None
