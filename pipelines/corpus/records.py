"""Mixed sentences as lines of JSON and of CoNLL, as rows of Parquet, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError

from ..text.tables import content_of
from .mixed import MixedSentence
from .tagged import OUTSIDE

_NAMES = b"mixops.tag_names"


def json_line(sentence: MixedSentence, tag_names: Sequence[str]) -> str:
    """One line of JSON, with its end; soft rows are given where they are others than the tag alone.

    Example:
        >>> mixed = MixedSentence(("Ada",), ("B-X",), window=(0, 1), parents=(0, 3), lam=0.75)
        >>> json_line(mixed, ("O", "B-X")).startswith('{"tokens": ["Ada"], "tags": ["B-X"], "soft": null, ')
        True
    """
    record: dict[str, Any] = {"tokens": list(sentence.tokens), "tags": list(sentence.tags), "soft": None}
    shares = soft_rows(sentence, tag_names)
    if shares is not None:
        record["soft"] = [[at, row] for at, row in shares.items()]
    record |= {"window": list(sentence.window), "parents": list(sentence.parents)}
    record |= {"lam": sentence.lam, "score": sentence.score, "number": sentence.number}
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def conll_lines(sentence: MixedSentence, tag_names: Sequence[str]) -> str:
    """Lines of a token, a tab and its tag, and an empty one; shares of soft rows stand in a column between the two.

    The tag is last, as files of CoNLL have it: what reads those reads the hard tags.

    Raises:
        MixError: if a token or a name cannot be written so.

    Example:
        >>> soft = [[1, 0], [0.25, 0.75]]
        >>> mixed = MixedSentence(("a", "b"), ("O", "B-X"), soft, window=(1, 2), parents=(0, 3), lam=0.75)
        >>> conll_lines(mixed, ("O", "B-X"))
        'a\\t_\\tO\\nb\\tB-X:0.75|O:0.25\\tB-X\\n\\n'
    """
    shares = soft_rows(sentence, tag_names)
    lines = []
    for at, (token, tag) in enumerate(zip(sentence.tokens, sentence.tags, strict=True)):
        if token != token.strip(" ") or any(c in token for c in "\t\r\n") or token.startswith("-DOCSTART-"):
            raise MixValueError(
                f"sentence {sentence.number}: the token {token!r:.60} cannot stand in a CoNLL file: write .jsonl"
            )
        row = {} if shares is None else shares.get(at, {})
        if any("|" in name for name in row):
            raise MixValueError(f"the names of tags {list(row)} hold a '|', which parts shares in CoNLL: write .jsonl")
        told = "|".join(f"{name}:{share}" for name, share in row.items()) or "_"
        lines.append(f"{token}\t{tag}\n" if shares is None else f"{token}\t{told}\t{tag}\n")
    return "".join([*lines, "\n"])


def soft_rows(sentence: MixedSentence, tag_names: Sequence[str]) -> dict[int, dict[str, float]] | None:
    """{position: {tag: share}}, the largest first, where a row is not its tag alone; None without soft rows."""
    soft = sentence.soft
    if soft is None:
        return None
    if soft.shape[1] != len(tag_names):
        raise MixValueError(f"sentence {sentence.number}: soft rows of {soft.shape[1]} tags, expected {len(tag_names)}")
    found = {}
    for at, (row, tag) in enumerate(zip(soft, sentence.tags, strict=True)):
        some = np.flatnonzero(row)
        some = some[np.argsort(-row[some], kind="stable")]
        # The shortest digits that give the same float32 again.
        shares = {tag_names[i]: float(str(row[i])) for i in some.tolist()}
        if shares != {tag: 1.0}:
            found[at] = shares
    return found


def write_parquet(source: Path, out: Path, tag_names: Sequence[str]) -> None:
    """Turn a file of ``json_line`` into Parquet; soft rows become lists of C shares."""
    import pyarrow as pa  # type: ignore[import-untyped]  # has no stubs of its own
    from pyarrow import parquet

    whole, texts = pa.int64(), pa.list_(pa.string())
    schema = pa.schema(
        [
            *(("tokens", texts), ("tags", texts), ("soft", pa.list_(pa.list_(pa.float32())))),
            *(("window", pa.list_(whole)), ("parents", pa.list_(whole))),
            *(("lam", pa.float64()), ("score", pa.float64()), ("number", whole)),
        ],
        metadata={_NAMES: json.dumps(list(tag_names)).encode()},
    )
    rows = []
    for record in _records(source):
        made = _mixed(source.name, record, tag_names)
        rows.append({**record, "soft": None if made.soft is None else made.soft.tolist()})
    parquet.write_table(pa.Table.from_pylist(rows, schema), out, row_group_size=1024)


def read_mixed(path: str | Path, tag_names: Sequence[str] | None = None) -> tuple[MixedSentence, ...]:
    """Mixed sentences with their soft tags, from a ``.jsonl``, ``.jsonl.gz`` or ``.parquet`` that was written of them.

    Args:
        path: of the file.
        tag_names: of the columns of soft rows, ``corpus.tag_names``; None: those in the file, of JSON sorted, O first.

    Returns:
        The sentences, equal to those that were written.

    Raises:
        MixError: if the file is of another kind, or a line of it no mixed sentence; the line is named.
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    if path.name.lower().endswith(".parquet"):
        return _of_parquet(path, tag_names)
    if not path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        raise MixValueError(
            f"{path.name}: expected .jsonl, .jsonl.gz or .parquet; read_tagged reads hard tags of CoNLL"
        )
    records = _records(path)
    names = tuple(tag_names) if tag_names is not None else _names_of(records)
    return tuple(_mixed(f"{path.name}, sentence {i}", record, names) for i, record in enumerate(records))


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        records = [json.loads(line) for line in content_of(path).split("\n") if line.strip()]
    except ValueError as error:
        raise MixValueError(f"{path.name}: {error}; expected a file of mixed sentences") from None
    return records


def _names_of(records: Iterable[Any]) -> tuple[str, ...]:
    found: set[str] = set()
    for record in records:
        if isinstance(record, Mapping):
            found.update(record.get("tags") or ())
            found.update(name for _, row in record.get("soft") or () for name in row)
    return tuple(sorted(found, key=lambda name: (name != OUTSIDE, name)))


def _mixed(place: str, record: Any, tag_names: Sequence[str]) -> MixedSentence:
    numbers = {name: i for i, name in enumerate(tag_names)}
    try:
        tags, soft = record["tags"], None
        if record["soft"] is not None:
            soft = np.zeros((len(tags), len(tag_names)), np.float32)
            rows = dict(record["soft"])
            for at, tag in enumerate(tags):
                for name, share in rows.get(at, {tag: 1.0}).items():
                    soft[at, numbers[name]] = share
        return _made(record, soft)
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(place, error) from None


def _of_parquet(path: Path, tag_names: Sequence[str] | None) -> tuple[MixedSentence, ...]:
    from pyarrow import ArrowInvalid, parquet

    try:
        table = parquet.read_table(path)
        names = tuple(json.loads((table.schema.metadata or {})[_NAMES]))
    except (ArrowInvalid, KeyError, ValueError) as error:
        raise MixValueError(f"{path.name}: {error}; expected a Parquet file of mixed sentences") from None
    if tag_names is not None and tuple(tag_names) != names:
        raise MixValueError(f"{path.name}: holds the tags {list(names)}, expected {list(tag_names)}")
    made = []
    for i, record in enumerate(table.to_pylist()):
        try:
            made.append(_made(record, record["soft"]))
        except (KeyError, TypeError, ValueError) as error:
            raise _refused(f"{path.name}, sentence {i}", error) from None
    return tuple(made)


def _made(record: Mapping[str, Any], soft: Any) -> MixedSentence:
    window, parents = (tuple(int(i) for i in record[name]) for name in ("window", "parents"))
    if len(window) != 2 or len(parents) != 2:
        raise MixTypeError("window and parents are not two numbers each")
    return MixedSentence(
        tuple(record["tokens"]), tuple(record["tags"]), soft, window=(window[0], window[1]),
        parents=(parents[0], parents[1]), lam=record["lam"], score=record["score"], number=record["number"],
    )  # fmt: skip


def _refused(place: str, error: Exception) -> MixValueError:
    what = f"no {error}" if isinstance(error, KeyError) else str(error)
    return MixValueError(f"{place}: {what}; expected a mixed sentence that was written by this library")
