"""Tagged corpora from files, Hugging Face data sets and lists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError

from ..text.tables import content_of
from .schemes import check_scheme, find_scheme, to_bio2
from .tagged import TaggedCorpus, TaggedSentence, check_row

_CONLL, _JSONL, _PARQUET = (".conll", ".txt", ".conll.gz", ".txt.gz"), (".jsonl", ".jsonl.gz"), (".parquet",)
_TAGS = ("tags", "ner_tags")  # the second is what data sets of Hugging Face mostly call them
_BLANKS = re.compile("[ \t]+")


@dataclass(frozen=True)
class _Row:
    """A sentence and where it stands; lines are those of its tokens, where each has one of its own."""

    tokens: Sequence[Any]
    tags: Sequence[Any]
    at: str
    lines: Sequence[int] | None = None

    def place(self, token: int) -> str:
        return f"{self.at}, token {token}" if self.lines is None else f"{self.at}, line {self.lines[token]}"


def read_tagged(
    source: Any,
    *,
    token: int | str | None = None,
    tag: int | str | None = None,
    scheme: str | None = None,
    tag_names: Sequence[str] | None = None,
) -> TaggedCorpus:
    """A tagged corpus from a file, a Hugging Face data set or a list.

    Files are UTF-8: ``.conll`` or ``.txt`` with a token and its tag on each line, further columns between them or not,
    and an empty line between sentences (lines of -DOCSTART- are left out); ``.jsonl`` with {"tokens": [...], "tags":
    [...]} on each line; both with ``.gz`` behind or not; or ``.parquet`` with two columns of lists. Columns of CoNLL
    are separated by tabs, or by blanks on lines without a tab.

    Tags of entities become BIO2, whatever scheme they are in; tags without prefixes, parts of speech say, stay as they
    are.

    Args:
        source: a path; a ``datasets.Dataset`` (one split); a TaggedCorpus; or a list of pairs (tokens, tags), of dicts
            or of TaggedSentences.
        token: column of the tokens: its position in CoNLL, counted from 0, or from -1 at the end; its name elsewhere.
            None: the first; "tokens".
        tag: column of the tags, likewise. None: the last; "tags" or "ner_tags".
        scheme: of the tags: "plain", "IO", "IOB1", "BIO2", "BIOES"; None finds it. "IOB1" also takes a mixture with
            BIO2: B- always begins an entity, I- where none of its type goes on.
        tag_names: of tag 0, 1, ..., those of the training set when reading a test set: in BIO2. Tags that are numbers
            stand for these names, or for those that a data set brings. None: those that occur, sorted, O first.

    Returns:
        TaggedCorpus in the order of the source.

    Raises:
        MixError: if there is no sentence, a line has no tag or another number of columns, tags and tokens are not as
            many, a tag does not fit the scheme or the names, or the file is of another kind or not UTF-8; the line is
            named.
        FileNotFoundError: if there is no such file.

    Example:
        >>> read_tagged([(["Ada", "Lovelace", "left"], ["I-PER", "I-PER", "O"])])[0].tags
        ('B-PER', 'I-PER', 'O')
    """
    if scheme is not None:
        check_scheme(scheme)
    rows, name, names = _rows(source, token, tag)
    if not rows:
        raise MixValueError(f"{name}: no sentence, expected one or more")
    given = None if tag_names is None else tuple(tag_names)
    rows = [_named(row, given if names is None else names) for row in rows]
    for row in rows:
        check_row(row.at, row.tokens, row.tags)
    found = find_scheme([row.tags for row in rows], lambda i, j: rows[i].place(j)) if scheme is None else scheme
    made = [TaggedSentence(tuple(row.tokens), to_bio2(row.tags, found, row.place)) for row in rows]
    if given is not None:
        _check_known(rows, made, given)
    elif names is not None and all(tag in names for sentence in made for tag in sentence.tags):
        given = names  # a data set's own numbers stay as they are
    return TaggedCorpus(made, () if given is None else given)


def _rows(source: Any, token: Any, tag: Any) -> tuple[list[_Row], str, tuple[str, ...] | None]:
    """Sentences as they come, what the source is called, and the names of tags that are numbers."""
    if isinstance(source, (str, PathLike)):
        return _of_file(Path(source), token, tag)
    if isinstance(source, Mapping):
        raise MixTypeError(f"read_tagged: got a dict with {list(source)[:8]}; choose a split, dataset['train']")
    if hasattr(source, "features") and hasattr(source, "column_names"):
        if not hasattr(source, "__len__"):
            raise MixTypeError(
                "read_tagged: got a data set that streams, expected one in memory, or a list of its rows"
            )
        held = list(source.column_names)
        words, labels = _columns("data set", held, token, tag)
        kind = getattr(source.features[labels], "feature", None)
        names = tuple(getattr(kind, "names", None) or ()) or None
        pairs = zip(source[words], source[labels], strict=True)
        return [_Row(a, b, f"data set, row {i}") for i, (a, b) in enumerate(pairs)], "data set", names
    if isinstance(source, TaggedCorpus):
        return [_Row(s.tokens, s.tags, f"row {i}") for i, s in enumerate(source)], "corpus", None
    if isinstance(source, Iterable):
        return [_listed(i, one, token, tag) for i, one in enumerate(source)], "list", None
    raise MixTypeError(
        f"read_tagged: {type(source).__name__}, expected a path, a datasets.Dataset or a list of (tokens, tags)"
    )


def _of_file(path: Path, token: Any, tag: Any) -> tuple[list[_Row], str, tuple[str, ...] | None]:
    low = path.name.lower()
    if low.endswith(_CONLL):
        for name, column in (("token", token), ("tag", tag)):
            if column is not None and (isinstance(column, bool) or not isinstance(column, int)):
                raise MixTypeError(f"{path.name}: {name}={column!r}, expected the position of a column, 0 or -1 say")
        first, last = 0 if token is None else token, -1 if tag is None else tag
        return _conll(path, first, last), path.name, None
    if low.endswith(_JSONL):
        return _jsonl(path, token, tag), path.name, None
    if low.endswith(_PARQUET):
        return _parquet(path, token, tag)
    kinds = ", ".join((*_CONLL, *_JSONL, *_PARQUET))
    raise MixValueError(f"{path.name}: a file of another kind, expected one of {kinds}")


def _conll(path: Path, token: int, tag: int) -> list[_Row]:
    name, rows = path.name, []
    held: list[tuple[int, list[str]]] = []
    width, first = 0, 0
    need = max(column + 1 if column >= 0 else -column for column in (token, tag))
    for number, line in enumerate([*content_of(path).split("\n"), ""], 1):
        line = line.strip(" \r")
        if not line.strip("\t"):
            if held:
                tokens, tags = ([fields[column] for _, fields in held] for column in (token, tag))
                rows.append(_Row(tokens, tags, name, [at for at, _ in held]))
                held = []
            continue
        if line.startswith("-DOCSTART-"):
            continue
        fields = line.split("\t") if "\t" in line else _BLANKS.split(line)
        if len(fields) < max(need, 2):
            raise MixValueError(
                f"{name}, line {number}: {line!r:.60} has {len(fields)} column{'s' * (len(fields) > 1)}, expected a "
                "token and its tag, separated by a tab or blanks, and an empty line between sentences"
            )
        if width and len(fields) != width:
            raise MixValueError(f"{name}, line {number}: {len(fields)} columns, expected {width} as in line {first}")
        for what, column in (("token", token), ("tag", tag)):
            if not fields[column].strip():
                raise MixValueError(f"{name}, line {number}: {line!r:.60} has no {what} in column {column}")
        width, first = width or len(fields), first or number
        held.append((number, fields))
    return rows


def _jsonl(path: Path, token: Any, tag: Any) -> list[_Row]:
    rows = []
    for number, line in enumerate(content_of(path).split("\n"), 1):
        if not line.strip():
            continue
        at = f"{path.name}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise MixValueError(f"{at}: no JSON: {error}") from None
        if not isinstance(record, dict):
            raise MixValueError(f'{at}: {type(record).__name__}, expected {{"tokens": [...], "tags": [...]}}')
        words, labels = _columns(at, list(record), token, tag)
        rows.append(_Row(record[words], record[labels], at))
    return rows


def _parquet(path: Path, token: Any, tag: Any) -> tuple[list[_Row], str, tuple[str, ...] | None]:
    from pyarrow import ArrowInvalid, parquet  # type: ignore[import-untyped]  # has no stubs of its own

    try:
        table = parquet.read_table(path)
    except ArrowInvalid as error:
        raise MixValueError(f"{path.name}: no Parquet file: {error}") from None
    words, labels = _columns(path.name, table.column_names, token, tag)
    pairs = zip(table[words].to_pylist(), table[labels].to_pylist(), strict=True)
    rows = [_Row(a, b, f"{path.name}, row {i}") for i, (a, b) in enumerate(pairs)]
    return rows, path.name, _class_names(table.schema.metadata or {}, labels)


def _class_names(metadata: Mapping[bytes, bytes], column: str) -> tuple[str, ...] | None:
    """What Hugging Face's datasets note of a column of ClassLabels in a Parquet file."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        names = (feature[0] if isinstance(feature, list) else feature["feature"])["names"]
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return tuple(names) if isinstance(names, list) else None


def _columns(at: str, held: Sequence[str], token: Any, tag: Any) -> tuple[str, str]:
    """Names of the columns of tokens and tags, of those that there are."""
    found = []
    for what, column, usual in (("token", token, ("tokens",)), ("tag", tag, _TAGS)):
        wanted = usual if column is None else (column,)
        known = next((name for name in wanted if name in held), None)
        if known is None:
            close = get_close_matches(str(wanted[0]), held, 3) or held[:8]
            raise MixValueError(
                f"{at}: no {' or '.join(map(repr, wanted))} among {', '.join(map(repr, close)) or 'nothing'}: "
                f"set {what}="
            )
        found.append(known)
    return found[0], found[1]


def _listed(i: int, one: Any, token: Any, tag: Any) -> _Row:
    at = f"row {i}"
    if isinstance(one, Mapping):
        words, labels = _columns(at, list(one), token, tag)
        return _Row(one[words], one[labels], at)
    if hasattr(one, "tokens") and hasattr(one, "tags"):
        return _Row(one.tokens, one.tags, at)
    if not isinstance(one, (tuple, list)) or len(one) != 2:
        raise MixTypeError(f"list, {at}: {one!r:.60}, expected a pair (tokens, tags)")
    return _Row(one[0], one[1], at)


def _named(row: _Row, names: tuple[str, ...] | None) -> _Row:
    """The row with names in place of numbers."""
    for what, given in (("tokens", row.tokens), ("tags", row.tags)):
        if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
            raise MixTypeError(f"{row.at}: {what} is {given!r:.60}, expected a list")
    tags = [tag.item() if isinstance(tag, np.generic) else tag for tag in row.tags]
    if not any(isinstance(tag, int) for tag in tags):
        return _Row(list(row.tokens), tags, row.at, row.lines)
    if names is None:
        raise MixValueError(f"{row.at}: tags that are numbers, expected names: give tag_names=[...]")
    for i, tag in enumerate(tags):
        if not isinstance(tag, int) or isinstance(tag, bool) or not 0 <= tag < len(names):
            raise MixValueError(f"{row.place(i)}: tag {tag!r}, expected a number from 0 to {len(names) - 1}")
    return _Row(list(row.tokens), [names[tag] for tag in tags], row.at, row.lines)


def _check_known(rows: Sequence[_Row], made: Sequence[TaggedSentence], names: Sequence[str]) -> None:
    known = set(names)
    for row, sentence in zip(rows, made, strict=True):
        for i, tag in enumerate(sentence.tags):
            if tag not in known:
                close = get_close_matches(tag, names, 3) or list(names)[:8]
                raise MixValueError(
                    f"{row.place(i)}: the tag {tag!r} is none of the {len(names)} names; nearest are "
                    f"{', '.join(map(repr, close))}"
                )
