"""Word vectors out of files: text as GloVe and word2vec write it, .npz, and what a package carries."""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError

_TEXT = (".txt", ".txt.gz", ".vec", ".vec.gz")
#: Lines whose numbers are read at once.
_CHUNK = 4096

#: What a reader gives: words, (n, D) float32, and the number of lines it left out.
Read = tuple[list[str], np.ndarray, int]


def read_file(path: Path, keys: Sequence[str], wanted: Callable[[str], bool], *, skip: bool) -> Read:
    """Words and vectors of a file, by its suffix.

    Raises:
        MixError: if the kind of file is unknown, or it is broken.
        FileNotFoundError: if there is no such file.
    """
    if path.name.lower().endswith(_TEXT):
        return _Text(path, wanted, skip).read()
    if path.suffix.lower() == ".npz":
        return _from_npz(path, keys, wanted)
    raise MixValueError(
        f"{path.name}: a file of another kind, expected {', '.join(_TEXT)} or .npz; a tuple (words, array) will do too"
    )


def chosen(
    words: Iterable[Any], array: np.ndarray, wanted: Callable[[str], bool], name: str
) -> tuple[list[str], np.ndarray]:
    """The wanted rows, each word once (the first of its rows), as float32.

    Raises:
        MixError: if words and array do not fit, or a vector is not finite.
    """
    names = list(words)
    if array.ndim != 2 or array.dtype.kind != "f" or not array.shape[1]:
        raise MixTypeError(f"{name}: vectors of {array.dtype} and shape {array.shape}, expected (n, D) floats")
    if len(names) != len(array):
        raise MixValueError(f"{name}: {len(names)} words and {len(array)} vectors, expected one for each")
    rows: dict[str, int] = {}
    for row, word in enumerate(names):
        if not isinstance(word, str):
            raise MixTypeError(f"{name}: word {row} is {type(word).__name__}, expected text")
        if wanted(word):
            rows.setdefault(word, row)
    kept = np.asarray(array[list(rows.values())] if rows else array[:0], np.float32)
    finite = np.isfinite(kept).all(1)
    if not finite.all():
        word = list(rows)[int(np.argmin(finite))]
        raise MixValueError(
            f"{name}: the vector of {word!r} is not finite; so are {int((~finite).sum())} of {len(kept)}"
        )
    return list(rows), kept


# -- text ------------------------------------------------------------------------------------------------------------


class _Text:
    """One reading of a text file: a word and D numbers a line, with or without the header line of word2vec."""

    def __init__(self, path: Path, wanted: Callable[[str], bool], skip: bool) -> None:
        self.path, self.wanted, self.skip = path, wanted, skip
        self.words: dict[str, None] = {}  # a dict keeps their order
        self.arrays: list[np.ndarray] = []
        self.broken: list[tuple[int, str]] = []
        self.waiting: list[tuple[int, str, bytes]] = []  # line, word and numbers that are yet to be read

    def read(self) -> Read:
        lines = 0
        for number, line in self._numbered():
            lines += 1
            self._line(number, line)
            if len(self.waiting) == _CHUNK:
                self._numbers()
        self._numbers()
        if self.broken and not self.skip:
            place, why = min(self.broken)
            raise MixValueError(
                f"{self.path.name}, line {place}: {why}; {len(self.broken)} of {lines} lines are broken: mend the "
                'file, or leave them out with broken="skip"'
            )
        if self.declared is not None and lines != self.declared:
            raise MixValueError(
                f"{self.path.name}: its first line says {self.declared} words, but {lines} follow: it was cut off"
            )
        array = np.concatenate(self.arrays) if self.arrays else np.empty((0, self.size), np.float32)
        return list(self.words), array, len(self.broken)

    def _numbered(self) -> Iterator[tuple[int, bytes]]:
        """Number (from 1) and content of the lines of vectors that are not empty; size and header are settled first."""
        # Split at line feeds and blanks alone: words of real files hold other characters that Unicode calls spaces.
        opened = gzip.open if self.path.suffix.lower() == ".gz" else open
        try:
            with opened(self.path, "rb") as file:
                stripped = enumerate((line.rstrip(b" \r\n") for line in file), 1)
                lines = ((number, line) for number, line in stripped if line)
                first = list(islice(lines, 100))
                self.size, self.declared = self._form([line for _, line in first])
                yield from first[self.declared is not None :]
                yield from lines
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise MixValueError(f"{self.path.name}: no whole gzip file: {error}") from error

    def _form(self, first: list[bytes]) -> tuple[int, int | None]:
        """(D, words declared by a header or None). Words may hold blanks, so D is what most of the lines say."""
        if not first:
            raise MixValueError(f"{self.path.name}: an empty file")
        head = first[0].split(b" ")
        if len(head) == 2 and head[0].isdigit() and head[1].isdigit() and (len(first) == 1 or first[1].count(b" ") > 1):
            declared, size = map(int, head)
            if size:
                return size, declared
        size = Counter(line.count(b" ") for line in first).most_common(1)[0][0]
        if not size:
            raise MixValueError(f"{self.path.name}: {first[0][:40]!r}, expected a word and its numbers in a line")
        return size, None

    def _line(self, number: int, line: bytes) -> None:
        fields = line.rsplit(b" ", self.size)
        if len(fields) <= self.size or not fields[0]:
            count = len(line.split(b" "))
            self.broken.append((number, f"{count} fields, expected a word and {self.size} numbers"))
            return
        try:
            word = fields[0].decode()
        except UnicodeDecodeError:
            self.broken.append((number, "its word is not UTF-8"))
            return
        if " " in word and _is_decimal(word.rpartition(" ")[2]):
            self.broken.append((number, f"more than {self.size} numbers"))
        elif word not in self.words and self.wanted(word):
            self.words[word] = None
            self.waiting.append((number, word, line[len(fields[0]) + 1 :]))

    def _numbers(self) -> None:
        """Read the numbers that wait, all at once; one by one only if that fails, to find the broken ones."""
        waiting, self.waiting = self.waiting, []
        array = _floats([numbers for _, _, numbers in waiting], self.size)
        if array is None:
            rows = [_floats([numbers], self.size) for _, _, numbers in waiting]
            for (number, word, _), row in zip(waiting, rows, strict=True):
                if row is None:
                    self.broken.append((number, f"the vector of {word!r} is not {self.size} finite numbers"))
                    del self.words[word]
            array = np.concatenate([np.empty((0, self.size), np.float32), *(row for row in rows if row is not None)])
        self.arrays.append(array)


def _floats(lines: list[bytes], size: int) -> np.ndarray | None:
    """(len(lines), size) finite float32; None if the lines do not say so."""
    if not lines:
        return np.empty((0, size), np.float32)
    try:
        text = [line.decode("ascii") for line in lines]
        array = np.loadtxt(text, np.float32, comments=None, delimiter=" ", ndmin=2)
    except ValueError:
        return None
    return array if array.shape == (len(lines), size) and np.isfinite(array).all() else None


def _is_decimal(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "." in field


# -- arrays ----------------------------------------------------------------------------------------------------------


def _from_npz(path: Path, keys: Sequence[str], wanted: Callable[[str], bool]) -> Read:
    if isinstance(keys, str) or len(keys) not in (2, 3):
        raise MixValueError(
            f"word_vectors: keys={keys!r}, expected the names of words and vectors, and of the rows of the words that "
            "the vectors are for, if they are not for all"
        )
    try:
        # Opened here: of an archive that is broken, np.load leaves its own handle open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            missing = [key for key in keys if key not in held.files]
            if missing:
                raise MixValueError(
                    f"{path.name}: no {missing[0]!r}, it has {held.files}: give the names of its words and vectors, "
                    "keys=(words, vectors) or --keys words,vectors"
                )
            words, vectors, *rows = (held[key] for key in keys)
    except (zipfile.BadZipFile, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, MixValueError):
            raise
        raise MixValueError(f"{path.name} cannot be read: {error}; expected arrays saved by np.savez") from error
    if words.ndim != 1 or words.dtype.kind not in "US":
        raise MixTypeError(f"{path.name}: {keys[0]!r} is {words.dtype} of shape {words.shape}, expected a row of texts")
    for chosen_rows in rows:
        if chosen_rows.dtype.kind not in "iu" or chosen_rows.max(initial=-1) >= len(words):
            raise MixValueError(f"{path.name}: {keys[2]!r} are no rows of the {len(words)} words")
        words = words[chosen_rows]
    if words.dtype.kind == "S":
        words = np.char.decode(words, "utf-8")
    return *chosen(words.tolist(), vectors, wanted, path.name), 0


def read_package(name: str, keys: Sequence[str], wanted: Callable[[str], bool], *, skip: bool) -> Read:
    """The vectors that an installed package carries; nothing of the package is run.

    Args:
        name: of the package, with the path of a file in it behind a slash where it carries several.
        keys: as for word_vectors.
        wanted: whether a word is to be kept.
        skip: leave broken lines out.

    Raises:
        MixError: if it is not installed, or carries no vectors, or several.
    """
    package, _, inner = name.partition("/")
    module = package.replace("-", "_")
    spec = find_spec(module) if module.isidentifier() else None
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    if not roots:
        raise MixValueError(f"word_vectors: no package {package!r} is installed: pip install {package}")
    files = sorted(path for root in roots for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    found = [path for path in files if _may_hold_vectors(path)]
    if inner:
        found = [path for path in files if any(path == root / inner for root in roots)]
    if len(found) != 1:
        held = ", ".join(str(path.relative_to(roots[0])) for path in (found or files)[:12] if roots[0] in path.parents)
        raise MixValueError(
            f"word_vectors: package {package!r} has {len(found)} files of vectors, expected one: choose it, "
            f'"package:{package}/PATH"; there are {held}'
        )
    (path,) = found
    if path.suffix.lower() != ".npy":
        return read_file(path, keys, wanted, skip=skip)
    return _from_npy(path, wanted)


def _may_hold_vectors(path: Path) -> bool:
    name = path.name.lower()
    if name.endswith((".txt", ".txt.gz")):  # licences and lists of words are text too
        try:
            with (gzip.open if name.endswith(".gz") else open)(path, "rb") as file:
                fields = file.readline().split()
            return len(fields) > 2 and all(np.isfinite(float(field)) for field in fields[1:])
        except (ValueError, OSError, EOFError, zlib.error):
            return False
    return name.endswith((".vec", ".vec.gz", ".npz", ".npy"))


def _from_npy(path: Path, wanted: Callable[[str], bool]) -> Read:
    """Vectors in an array, and their words in a list beside it."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise MixValueError(f"{path.name} cannot be read: {error}; expected an array saved by np.save") from error
    lists = {other.name: _word_list(other) for other in sorted(path.parent.iterdir()) if other.is_file()}
    fitting = {name: words for name, words in lists.items() if words is not None and len(words) == len(array)}
    if len(fitting) != 1:
        raise MixValueError(
            f"{path.name}: {len(fitting)} lists of {len(array)} words beside it, expected one, .txt (a word a line), "
            f".json or .parquet; there are {', '.join(lists)}"
        )
    (words,) = fitting.values()
    return *chosen(words, array, wanted, path.name), 0


def _word_list(path: Path) -> list[str] | None:
    """The words of a list: lines of a text, a JSON list, the one column of a Parquet file; None if it is none."""
    kind = path.suffix.lower()
    try:
        if kind == ".txt":
            return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        if kind == ".json":
            held = json.loads(path.read_text(encoding="utf-8"))
            return held if isinstance(held, list) and all(isinstance(word, str) for word in held) else None
    except ValueError:
        return None
    if kind == ".parquet":
        if find_spec("pyarrow") is None:
            raise MixTypeError(f"{path.name} needs pyarrow, which is not installed: pip install pyarrow")
        from pyarrow import parquet  # type: ignore[import-untyped]

        table = parquet.read_table(path)
        return table.column(0).to_pylist() if table.num_columns == 1 else None
    return None
