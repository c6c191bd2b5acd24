"""Labelled sentences in memory, from files, Hugging Face data sets or lists."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError, streams

from .tables import Table, read_table

#: A label beyond this is an id or a mistake: a model would need as many classes.
_MOST_CLASSES = 1_000_000
_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?")


@dataclass(frozen=True, eq=False)
class Sentences:
    """Sentences with one label each: a map-style data set whose samples are {"text": str, "label": int}.

    Args:
        texts: n sentences, each with at least one token.
        labels: (n,) whole numbers, 0 ≤ label < len(classes); kept as int64.
        classes: names of the classes.

    Raises:
        MixError: if lengths differ, a sentence has no token or is no text, or a label does not fit; the row is named.

    Example:
        >>> Sentences(["so good", "so dull"], [1, 0], ["neg", "pos"])[1]
        {'text': 'so dull', 'label': 0}
    """

    texts: Sequence[str]
    labels: np.ndarray
    classes: Sequence[str]

    def __post_init__(self) -> None:
        for name, given in (("texts", self.texts), ("labels", self.labels)):
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise MixTypeError(f"Sentences: {name} is {type(given).__name__}, expected a list of one for each row")
        texts, classes = tuple(self.texts), _class_names("Sentences", self.classes)
        for row, text in enumerate(texts):
            _check_text(f"row {row}", text)
        labels = list(self.labels)
        if len(labels) != len(texts):
            raise MixValueError(f"Sentences: {len(texts)} texts and {len(labels)} labels, expected one for each")
        whole = [_whole(f"row {row}", label, len(classes)) for row, label in enumerate(labels)]
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "labels", np.array(whole, np.int64))
        self.labels.flags.writeable = False

    def __repr__(self) -> str:
        return f"<Sentences: {len(self)} of {len(self.classes)} classes>"

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"text": self.texts[index], "label": int(self.labels[index])}

    def take(self, rows: Any) -> Sentences:
        """These rows, in this order, with the same classes.

        Args:
            rows: whole numbers, negative ones counted from the end; or (n,) bool.

        Raises:
            MixError: if a row is none of 0 to n - 1.

        Example:
            >>> Sentences(["a", "b", "c"], [0, 1, 0], ["x", "y"]).take([2, 0]).texts
            ('c', 'a')
        """
        wanted = np.asarray(rows)
        try:
            picked = np.arange(len(self))[wanted if wanted.size else wanted.astype(np.int64)]
        except IndexError as error:
            raise MixValueError(
                f"Sentences.take: {error}; expected rows of 0 to {len(self) - 1}, or one bool for each"
            ) from None
        picked = np.atleast_1d(picked)
        return Sentences([self.texts[row] for row in picked.tolist()], self.labels[picked], self.classes)

    def split(self, part: float | int, seed: int) -> tuple[Sentences, Sentences]:
        """Two parts with nearly equal shares of the classes; a smaller first part lies within every larger one.

        Rows of a class are shuffled, and row k of a class of c rows comes at (k + ½) / c: the first ``count`` rows in
        this order get their classes as seats are given by Webster's method.

        Args:
            part: of the rows that the first part gets: a count from 0 to n, or a share, 0.0 < share < 1.0, rounded to
                the nearest count, halves to even.
            seed: of the shuffle, 0 ≤ seed < 2**64.

        Returns:
            (first, rest), both in the order of the rows here.

        Raises:
            MixError: if part or seed is out of range.

        Example:
            >>> data = Sentences([f"word {i}" for i in range(10)], [0, 1] * 5, ["x", "y"])
            >>> first, rest = data.split(4, seed=0)
            >>> first.labels.tolist().count(0), len(rest)
            (2, 6)
        """
        count = self._count(part)
        rng = streams.order_stream(seed, 0)
        place = np.empty(len(self))
        for label in range(len(self.classes)):
            (rows,) = np.nonzero(self.labels == label)
            place[rng.permutation(rows)] = (np.arange(len(rows)) + 0.5) / max(len(rows), 1)
        # Places of two classes may be equal: which comes first is drawn too.
        order = np.lexsort((rng.random(len(self)), place))
        return self.take(np.sort(order[:count])), self.take(np.sort(order[count:]))

    def _count(self, part: Any) -> int:
        if isinstance(part, float) and 0 < part < 1:
            return round(part * len(self))
        if isinstance(part, (int, np.integer)) and not isinstance(part, bool) and 0 <= part <= len(self):
            return int(part)
        raise MixValueError(
            f"Sentences.split: part={part!r}, expected a whole number from 0 to {len(self)} or a share, "
            "0.0 < share < 1.0"
        )


def read_sentences(
    source: Any,
    *,
    text: str | int = "text",
    label: str | int = "label",
    classes: Sequence[str] | None = None,
    where: Callable[[Mapping[str | int, Any]], Any] | None = None,
) -> Sentences:
    """Labelled sentences from a file, a Hugging Face data set or a list.

    Files are UTF-8: ``.tsv`` without any quoting, ``.csv`` with the usual quoting, either one with ``.gz`` behind. The
    first line names the columns, unless text and label are positions; empty lines are passed over.

    Labels are whole numbers from 0, or names. Names are numbered in the order of ``classes``, or sorted if it is not
    given; a Hugging Face ClassLabel brings its own. Give the classes of the training set when reading a test set.

    Args:
        source: a path; a ``datasets.Dataset`` (one split); or a list of (text, label) or of dicts.
        text: column of the sentences: its name, or its position from 0 in a file without a header.
        label: column of the labels, likewise.
        classes: names of the classes; for labels that are numbers, the names of 0, 1, ....
        where: keeps the rows for which ``where(row)`` is true; a row is {column: value}, values of files are text.

    Returns:
        Sentences in the order of the source; without ``classes``, labels that are numbers name classes "0" to the
        largest of them.

    Raises:
        MixError: if a column is missing, a line has another number of fields or is not UTF-8 (its number and the count
            of such lines are told), a sentence has no token, a label does not fit, or nothing is left.
        FileNotFoundError: if there is no such file.

    Example:
        >>> read_sentences([("so good", "pos"), ("so dull", "neg")]).labels.tolist()
        [1, 0]
    """
    if where is not None and not callable(where):
        raise MixTypeError(f"read_sentences: where={where!r}, expected a function of a row, {{column: value}}")
    table = _table(source, text, label)
    if where is not None:
        table = table.where(where)
    texts, labels = table.column(text), table.column(label)
    if not texts:
        raise MixValueError(f"{table.name}: no sentence{' for which where() is true' if where else ''}")
    for at, one in zip(table.places, texts, strict=True):
        _check_text(f"{table.name}, {at}", one)
    names = table.classes.get(label) if classes is None else _class_names("read_sentences", classes)
    places = [f"{table.name}, {at}" for at in table.places]
    numbers, known = _numbered(places, labels, names)
    return Sentences(texts, np.array(numbers, np.int64), known)


def _table(source: Any, text: str | int, label: str | int) -> Table:
    if isinstance(source, (str, PathLike)):
        kinds = {isinstance(text, str), isinstance(label, str)}
        if len(kinds) > 1:
            raise MixValueError(
                f"read_sentences: text={text!r}, label={label!r}, expected two names, or two positions for a file "
                "without a header"
            )
        return read_table(source, header=kinds == {True})
    if isinstance(source, Mapping):
        raise MixTypeError(f"read_sentences: got a dict with {list(source)[:8]}; choose a split, dataset['train']")
    columns = getattr(source, "column_names", None)
    if hasattr(source, "features") and not hasattr(source, "__len__"):
        raise MixTypeError(
            "read_sentences: got a data set that streams, expected one in memory: "
            "Dataset.from_list(list(source), features=source.features)"
        )
    if columns is not None and hasattr(source, "features"):
        held = {name: list(source[name]) for name in columns}
        classes = {name: tuple(f.names) for name, f in source.features.items() if getattr(f, "names", None)}
        return Table("data set", [f"row {i}" for i in range(len(source))], held, classes)
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        raise MixTypeError("read_sentences: got a data frame, expected frame.to_dict('records')")
    if isinstance(source, Iterable):
        return _listed(list(source), text, label)
    raise MixTypeError(
        f"read_sentences: {type(source).__name__}, expected a path, a datasets.Dataset or a list of (text, label)"
    )


def _listed(rows: list[Any], text: str | int, label: str | int) -> Table:
    places = [f"row {i}" for i in range(len(rows))]
    if rows and all(isinstance(row, Mapping) for row in rows):
        shared = [name for name in rows[0] if all(name in row for row in rows)]
        for name in (text, label):
            for place, row in zip(places, rows, strict=True):
                if name in rows[0] and name not in row:
                    raise MixValueError(f"list, {place}: no {name!r}, it has {list(row)}")
        return Table("list", places, {name: [row[name] for row in rows] for name in shared}, {})
    for place, row in zip(places, rows, strict=True):
        if not isinstance(row, (tuple, list)) or len(row) != 2:
            raise MixTypeError(
                f"list, {place}: {row!r:.60}, expected (text, label) in every row, or a dict in every row"
            )
    return Table("list", places, {text: [row[0] for row in rows], label: [row[1] for row in rows]}, {})


def _check_text(place: str, text: Any) -> None:
    if not isinstance(text, str):
        raise MixTypeError(f"{place}: the sentence is {type(text).__name__}, expected text")
    if not text.split():
        raise MixValueError(f"{place}: a sentence with no tokens, {text!r}: leave that row out")


def _class_names(owner: str, classes: Any) -> tuple[str, ...]:
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise MixTypeError(f"{owner}: classes={classes!r}, expected the names of the classes, in order")
    names = tuple(classes)
    if any(not isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise MixValueError(f"{owner}: classes={list(names)[:8]}, expected names, each once")
    return names


def _numbered(places: list[str], labels: list[Any], names: tuple[str, ...] | None) -> tuple[list[int], tuple[str, ...]]:
    """The labels as numbers, and the names of the classes."""
    for place, label in zip(places, labels, strict=True):
        if label is None or (isinstance(label, str) and not label.strip()):
            raise MixValueError(f"{place}: label {label!r}, expected one: fill it in, or leave that row out")
    if any(isinstance(label, str) for label in labels):
        numeric = [isinstance(label, str) and _NUMBER.fullmatch(label) is not None for label in labels]
        for place, label, one in zip(places, labels, numeric, strict=True):
            if not isinstance(label, str):
                raise MixTypeError(f"{place}: label {label!r} among names, expected all names or all whole numbers")
            if names is None and not one and any(numeric):
                raise MixValueError(f"{place}: label {label!r} among numbers: give classes=[...] if they are names")
        if not all(numeric) or (names is not None and set(labels) <= set(names)):
            known = _found_names(places, labels) if names is None else names
            by_name = {name: i for i, name in enumerate(known)}
            return [_by_name(place, label, by_name) for place, label in zip(places, labels, strict=True)], known
        labels = [float(label) if "." in label else int(label) for label in labels]
    most = None if names is None else len(names)
    numbers = [_whole(place, label, most) for place, label in zip(places, labels, strict=True)]
    return numbers, tuple(str(i) for i in range(max(numbers) + 1)) if names is None else names


def _found_names(places: list[str], labels: list[str]) -> tuple[str, ...]:
    """The names among the labels, sorted; no two of them may differ by blanks around them alone."""
    first: dict[str, tuple[str, str]] = {}
    for place, label in zip(places, labels, strict=True):
        there, other = first.setdefault(label.strip(), (place, label))
        if other != label:
            raise MixValueError(
                f"{place}: label {label!r}, and {other!r} in {there}, differ by blanks alone: mend one of them, or "
                "give classes=[...] if they are two"
            )
    return tuple(sorted(set(labels)))


def _by_name(place: str, label: str, known: Mapping[str, int]) -> int:
    if label not in known:
        close = get_close_matches(label, known, 3) or list(known)[:8]
        raise MixValueError(
            f"{place}: label {label!r} is none of the {len(known)} classes; nearest are {', '.join(map(repr, close))}"
        )
    return known[label]


def _whole(place: str, label: Any, classes: int | None) -> int:
    """A label that is a number, checked."""
    if getattr(label, "shape", None) == () and hasattr(label, "item"):  # of a tensor too
        label = label.item()
    if not isinstance(label, (int, float, np.integer, np.floating, np.bool_)) or not math.isfinite(label):
        raise MixTypeError(f"{place}: label {label!r}, expected a whole number of 0 or more, or a name")
    if label != int(label) or label < 0:
        why = " (-1 marks rows without a label in many data sets: leave them out)" if label == -1 else ""
        raise MixValueError(f"{place}: label {label!r}, expected a whole number of 0 or more{why}")
    if classes is not None and label >= classes:
        raise MixValueError(f"{place}: label {label!r}, but there are {classes} classes, 0 to {classes - 1}")
    if label >= _MOST_CLASSES:
        raise MixValueError(
            f"{place}: label {label!r} would need as many classes: choose another column, or number the classes from 0"
        )
    return int(label)
