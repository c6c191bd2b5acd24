"""Views: other wordings of unlabelled sentences, from files that the user has or drawn anew each time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from mixops import MixTypeError, MixValueError

from .stages import text_stage
from .tables import content_of, read_table

_JSONL = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
_LINES = (".txt", ".txt.gz")
_TABLES = (".tsv", ".tsv.gz", ".csv", ".csv.gz")
#: Columns of a table that hold views.
_COLUMN = re.compile(r"view([1-9][0-9]{0,5})")
#: What to do about a view without words.
_MEND = "fill it in, or repeat the text itself where no other wording was found"


class ViewSource(Protocol):
    """What ``train_mixtext`` asks of views."""

    @property
    def count(self) -> int:
        """K, how many views there are of each text."""

    def at(self, row: int, epoch: int) -> tuple[str, ...]:
        """The K views of a text in an epoch, counted from 0."""


@dataclass(frozen=True, eq=False)
class Views:
    """K fixed views of each of n texts, back-translations say.

    Args:
        texts: n texts.
        views: n lists of K other wordings of each, in one order (German first, say), K of 1 or more.

    Raises:
        MixError: if there is no text, lengths differ, or a text or view has no word; the row is named.

    Example:
        >>> views = Views(["so good"], [["very good", "how good"]])
        >>> views.count, views.at(0, epoch=3)
        (2, ('very good', 'how good'))
    """

    texts: Sequence[str]
    views: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        texts, views = tuple(self.texts), tuple(self.views)
        checked = _checked([f"row {row}" for row in range(len(texts))], texts, views, "Views")
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "views", checked)

    def __repr__(self) -> str:
        return f"<Views: {self.count} of each of {len(self)} texts>"

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def count(self) -> int:
        """K."""
        return len(self.views[0])

    def at(self, row: int, epoch: int) -> tuple[str, ...]:
        """The K views of a text; the same in every epoch."""
        return tuple(self.views[row])

    def of(self, texts: Iterable[str]) -> Views:
        """The views of these texts, in their order; texts that are here several times are taken in turn.

        Raises:
            MixError: if there is a text that has no views here.
        """
        wanted = tuple(texts)
        if wanted == self.texts:
            return self
        places: dict[str, list[int]] = {}
        for row, text in enumerate(self.texts):
            places.setdefault(text, []).append(row)
        missing = [row for row, text in enumerate(wanted) if text not in places]
        if missing:
            raise MixValueError(
                f"Views: {len(missing)} of {len(wanted)} texts have no views among those of {len(self)} texts; the "
                f"first is row {missing[0]}, {wanted[missing[0]]!r:.60}: make views of it, or leave it out of the "
                "unlabelled texts; the two must be equal letter by letter"
            )
        turn: dict[str, int] = {}
        rows = []
        for text in wanted:
            k = turn[text] = turn.get(text, -1) + 1
            rows.append(places[text][k % len(places[text])])
        return Views(wanted, [self.views[row] for row in rows])


class DrawnViews:
    """K views of each text that augmenters make anew in every epoch, keyed by (seed, epoch, row).

    Args:
        texts: n texts.
        augmenters: K of them, or one: of nlpaug, or callables, text to text, that may take ``rng``; see ``text_stage``.
        seed: 0 ≤ seed < 2**64.

    Raises:
        MixError: if there is no text or no augmenter, or one cannot be called; when views are made, if an augmenter
            gives no sentence.

    Example:
        >>> views = DrawnViews(["so good", "so dull"], lambda text, rng: text + " !" * int(rng.integers(1, 9)), seed=7)
        >>> views.at(1, epoch=0) == views.at(1, epoch=0), views.count
        (True, 1)
    """

    def __init__(self, texts: Iterable[str], augmenters: Any, seed: int) -> None:
        self.texts = tuple(texts)
        _check_texts([f"row {row}" for row in range(len(self.texts))], self.texts, "DrawnViews")
        listed = list(augmenters) if isinstance(augmenters, (list, tuple)) else [augmenters]
        if not listed:
            raise MixValueError("DrawnViews: no augmenter, expected one for each view")
        self.seed = seed
        self._stages = [text_stage(augmenter, seed) for augmenter in listed]

    def __repr__(self) -> str:
        return f"<DrawnViews: {self._stages!r}, {len(self.texts)} texts>"

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def count(self) -> int:
        """K."""
        return len(self._stages)

    def at(self, row: int, epoch: int) -> tuple[str, ...]:
        """The K views of a text in an epoch: view k depends on (seed, epoch, row, k) and the text alone."""
        sample = {"text": self.texts[row]}
        return tuple(stage(sample, epoch, row, place)["text"] for place, stage in enumerate(self._stages))


def read_views(source: Any, texts: Iterable[str] | None = None) -> Views:
    """Views of unlabelled texts from a file, or from files that are aligned line by line.

    Files are UTF-8, ``.gz`` or not:

    - ``.jsonl``: {"text": "...", "views": ["...", "..."]} a line;
    - ``.tsv`` (no quoting) or ``.csv``: a header with ``text``, ``view1``, ``view2``, ...; other columns are left out;
    - a list of K ``.txt`` files, one for each view: line i of each is a view of text i, so ``texts`` must be given.

    Args:
        source: a path; a list of paths; or a list of (text, [view, ...]) or of {"text", "views"}.
        texts: the unlabelled texts, in order; None: those of the source. A file may hold more texts, in another order.

    Returns:
        Views, as many of each text.

    Raises:
        MixError: if a file is of another kind, not UTF-8, or cut off; a line is no such object, lacks the text or a
            view, or has another number of views than the first; a text or view has no word; or a text of ``texts`` has
            no views. File and line are told.
        FileNotFoundError: if there is no such file.

    Example:
        >>> rows = [("so good", ["very good"]), ("so dull", ["very dull"])]
        >>> read_views(rows, texts=["so dull"]).at(0, epoch=0)
        ('very dull',)
    """
    if isinstance(texts, str):
        raise MixTypeError(f"read_views: texts is one text, {texts!r:.60}, expected a list of texts")
    if isinstance(source, (str, PathLike)):
        path = Path(source)
        if path.name.lower().endswith(_LINES):
            return read_views([path], texts)
        if path.is_dir() or not path.name.lower().endswith(_JSONL + _TABLES):
            what = "a folder" if path.is_dir() else "a file of another kind"
            raise MixValueError(f"{path}: {what}, expected a file {', '.join(_JSONL + _TABLES + _LINES)}")
        found = _of_jsonl(path) if path.name.lower().endswith(_JSONL) else _of_table(path)
    elif isinstance(source, (list, tuple)) and source and all(isinstance(one, (str, PathLike)) for one in source):
        found = _of_lines([Path(one) for one in source], texts)
    elif isinstance(source, (list, tuple)) and source:
        found = _of_list(source)
    else:
        raise MixTypeError(
            f"read_views: {type(source).__name__}{' that is empty' if isinstance(source, (list, tuple)) else ''}, "
            "expected a path, a list of paths, or a list of (text, [view, ...])"
        )
    return found if texts is None else found.of(texts)


# -- sources -----------------------------------------------------------------------------------------------------------


def _of_jsonl(path: Path) -> Views:
    places, texts, views = [], [], []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        place = f"{path.name}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # broken, a number of thousands of digits, thousands of brackets
            raise MixValueError(
                f'{place}: no JSON: {error}; expected {{"text": "...", "views": ["...", ...]}} on a line of its own'
            ) from None
        text, wordings = _pair(place, row)
        places.append(place)
        texts.append(text)
        views.append(wordings)
    return _made(places, texts, views, path.name)


def _of_table(path: Path) -> Views:
    table = read_table(path, header=True)
    numbers = sorted(int(match[1]) for name in table.columns if (match := _COLUMN.fullmatch(str(name))))
    if numbers != list(range(1, len(numbers) + 1)) or not numbers or "text" not in table.columns:
        raise MixValueError(
            f"{path.name}: the columns {[str(name) for name in table.columns][:12]}, expected text, view1, view2, ..., "
            "one for each view, none left out"
        )
    columns = [table.column(f"view{number}") for number in numbers]
    places = [f"{path.name}, {place}" for place in table.places]
    return _made(places, table.column("text"), list(zip(*columns, strict=True)), path.name)


def _of_lines(paths: list[Path], texts: Iterable[str] | None) -> Views:
    if texts is None:
        raise MixValueError(
            f"read_views: {paths[0].name} holds a view a line, of which texts? Give them, texts=..., in the same order"
        )
    given = tuple(texts)
    columns = []
    for path in paths:
        if not path.name.lower().endswith(_LINES):
            raise MixValueError(f"{path.name}: expected line-aligned files, {' or '.join(_LINES)}, one for each view")
        lines = _lines(path)
        if len(lines) != len(given):
            raise MixValueError(
                f"{path.name}: {len(lines)} lines for {len(given)} texts, expected one for each: line i is a view of "
                "text i"
            )
        for number, line in enumerate(lines, 1):
            _check_word(f"{path.name}, line {number}", "view", line)
        columns.append(lines)
    return Views(given, list(zip(*columns, strict=True)))


def _of_list(rows: Sequence[Any]) -> Views:
    places = [f"list, row {i}" for i in range(len(rows))]
    pairs = [_pair(place, row) for place, row in zip(places, rows, strict=True)]
    return _made(places, [text for text, _ in pairs], [views for _, views in pairs], "list")


def _pair(place: str, row: Any) -> tuple[Any, Any]:
    if isinstance(row, Mapping) and "text" in row and "views" in row:
        return row["text"], row["views"]
    if isinstance(row, (list, tuple)) and len(row) == 2:
        return row[0], row[1]
    have = f"the entries {list(row)[:8]}" if isinstance(row, Mapping) else f"{row!r:.60}"
    raise MixTypeError(f'{place}: {have}, expected {{"text": "...", "views": ["...", ...]}}')


def _lines(path: Path) -> list[str]:
    lines = content_of(path).split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


# -- checks ------------------------------------------------------------------------------------------------------------


def _made(places: list[str], texts: Sequence[Any], views: Sequence[Any], owner: str) -> Views:
    return Views(tuple(texts), _checked(places, texts, views, owner))


def _checked(places: list[str], texts: Sequence[Any], views: Sequence[Any], owner: str) -> tuple[tuple[str, ...], ...]:
    _check_texts(places, texts, owner)
    if len(views) != len(texts):
        raise MixValueError(f"{owner}: {len(texts)} texts and views of {len(views)}, expected those of each")
    found: list[tuple[str, ...]] = []
    for place, row in zip(places, views, strict=True):
        if isinstance(row, str) or not isinstance(row, (list, tuple)):
            raise MixTypeError(f"{place}: views are {type(row).__name__}, expected a list of texts")
        if not row or (found and len(row) != len(found[0])):
            wanted = f"{len(found[0])}, as the first text has" if found else "one or more"
            raise MixValueError(f"{place}: {len(row)} views, expected {wanted}: every text needs as many; {_MEND}")
        for k, view in enumerate(row, 1):
            _check_word(place, f"view {k}", view)
        found.append(tuple(row))
    return tuple(found)


def _check_texts(places: list[str], texts: Sequence[Any], owner: str) -> None:
    if not texts:
        raise MixValueError(f"{owner}: no text, expected one or more")
    for place, text in zip(places, texts, strict=True):
        _check_word(place, "text", text)


def _check_word(place: str, name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise MixTypeError(f"{place}: {name} is {type(text).__name__}, expected text")
    if not text.split():
        fix = "leave that row out" if name == "text" else _MEND
        raise MixValueError(f"{place}: {name} has no words, {text!r:.20}: {fix}")
