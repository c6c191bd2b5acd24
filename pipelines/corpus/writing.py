"""Writing the blocks of a long run into a file, so that a run that was cut off goes on where it stood.

The file only ever grows by whole blocks. After each, a small record beside it is replaced at one stroke: which run it
is, the next block, and how many bytes of the file count. Whatever lies behind these bytes was being written when the
run was cut off, and goes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from mixops import MixValueError

from ..folders import flush_to_disk, whole_file
from .blocks import Block, Counts
from .mixed import MixedSentence
from .reading import read_tagged
from .records import conll_lines, json_line, write_parquet

_FORMAT = {"format": "mixops.augmented", "version": 1}
ENDINGS = (".jsonl", ".jsonl.gz", ".conll", ".conll.gz", ".parquet")


@dataclass(frozen=True)
class Written:
    """What lies in the file when a run has ended.

    Args:
        path: of the file.
        sentences: in it.
        counts: of all candidates of the run.
        failure: the first error of the scorer, or None.
        resumed: sentences that were there when this process began.
        complete: True if the run had ended before, and nothing was to do.
    """

    path: Path
    sentences: int
    counts: Counts
    failure: str | None
    resumed: int
    complete: bool


@dataclass
class _Record:
    """The record beside the file."""

    run: Mapping[str, Any]
    next_block: int = 0
    bytes: int = 0
    sha256: str = hashlib.sha256().hexdigest()
    sentences: int = 0
    counts: dict[str, int] = field(default_factory=lambda: asdict(Counts()))
    failure: str | None = None
    done: bool = False

    def save(self, path: Path) -> None:
        with whole_file(path) as fresh:
            told = json.dumps({**_FORMAT, **asdict(self)}, ensure_ascii=False, indent=1)
            fresh.write_text(f"{told}\n", encoding="utf-8")


def record_of(out: str | Path) -> Path:
    """The record beside a file: its name with ".progress.json" behind."""
    return Path(f"{out}.progress.json")


def write_augmented(
    blocks: Callable[[int, Sequence[Sequence[str]]], Iterable[Block]],
    out: str | Path,
    *,
    tag_names: Sequence[str],
    run: Mapping[str, Any],
    force: bool = False,
    progress: Callable[[int, Counts], object] | None = None,
) -> Written:
    """Write mixed sentences block by block; a run that was cut off at any moment goes on, to the same bytes.

    Args:
        blocks: (number of the first block, tokens of the sentences before it) to blocks: ``Generation(...).blocks``.
        out: file to write: ``.jsonl``, ``.conll``, both with ``.gz`` behind or not, or ``.parquet``.
        tag_names: of the columns of soft rows.
        run: what the sentences depend on, as JSON values: digests of inputs, all settings, the library's version. A
            file goes on only if the same is given.
        force: begin anew, whatever is in the file.
        progress: called at the beginning and after every block with the number of sentences in the file and the counts.

    Returns:
        Written. A run that has ended is not repeated.

    Raises:
        MixError: if the file is of another kind, holds another run or something else, was changed since, is being
            written by another process, or a sentence cannot be written in its form.
        OSError: if the file cannot be written.
    """
    out = Path(out)
    form = next((ending for ending in ENDINGS if out.name.lower().endswith(ending)), None)
    if form is None:
        raise MixValueError(f"{out.name}: a file of another kind, expected one of {', '.join(ENDINGS)}")
    # Parquet cannot grow: its sentences gather in a file beside it.
    data = Path(f"{out}.part.jsonl") if form == ".parquet" else out
    run = json.loads(json.dumps(run))  # as it will be read back
    if force:
        for path in (record_of(out), data, out):
            path.unlink(missing_ok=True)
    record = _begun(out, data, run)
    progress = progress or (lambda sentences, counts: None)
    progress(record.sentences, Counts(**record.counts))
    resumed, complete = record.sentences, record.done
    if not complete:
        before = _cut(data, record)
        _append(blocks(record.next_block, before), data, record, record_of(out), tag_names, progress)
        if form == ".parquet":
            with whole_file(out) as half:
                write_parquet(data, half, tag_names)
            content = out.read_bytes()
            record.bytes, record.sha256 = len(content), hashlib.sha256(content).hexdigest()
        record.done = True
        record.save(record_of(out))
    if data != out:
        data.unlink(missing_ok=True)
    counts = Counts(**record.counts)
    return Written(out, record.sentences, counts, record.failure, resumed, complete)


def _begun(out: Path, data: Path, run: Mapping[str, Any]) -> _Record:
    """The record of the run that is in the file, or a new one; refuses what is anything else."""
    beside = record_of(out)
    if not out.exists() and not data.exists():  # a record of a file that is gone says nothing
        record = _Record(run)
        record.save(beside)
        return record
    if not beside.exists():
        raise MixValueError(f"{out}: there is such a file, and no run that could go on in it: {_FIX}")
    try:
        held = json.loads(beside.read_text(encoding="utf-8"))
        if {name: held.pop(name, None) for name in _FORMAT} != _FORMAT:
            raise ValueError("another format")
        record = _Record(**held)
        Counts(**record.counts)
    except (ValueError, TypeError, AttributeError):
        raise MixValueError(f"{beside}: no record of a run, expected one of this version of mixops: {_FIX}") from None
    if record.run != run:
        names = [name for name in (*run, *record.run) if record.run.get(name) != run.get(name)]
        told = f"{names[0]} was {_short(record.run.get(names[0]))}, is now {_short(run.get(names[0]))}"
        raise MixValueError(f"{out} already holds another run: {told}: {_FIX}")
    content = out if record.done else data
    if record.bytes and not _holds(content, record):
        raise MixValueError(f"{content}: not what {beside.name} says was written: it was changed or cut since: {_FIX}")
    return record


_FIX = "choose another name, delete it, or begin anew with force (--force)"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _holds(path: Path, record: _Record) -> bool:
    """Does the file begin with the bytes of the record? One that is done has no more than them."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        content = file.read(record.bytes)
        more = file.read(1)
    same = len(content) == record.bytes and hashlib.sha256(content).hexdigest() == record.sha256
    return same and not (record.done and more)


def _cut(data: Path, record: _Record) -> list[tuple[str, ...]]:
    """Cut off what was not recorded; tokens of the sentences that stay."""
    with data.open("ab") as file:
        file.truncate(record.bytes)
        flush_to_disk(file.fileno())
    return [sentence.tokens for sentence in read_tagged(data, scheme="plain")] if record.sentences else []


def _append(
    blocks: Iterable[Block],
    data: Path,
    record: _Record,
    beside: Path,
    tag_names: Sequence[str],
    progress: Callable[[int, Counts], object],
) -> None:
    written = hashlib.sha256(data.read_bytes())
    with data.open("ab", buffering=0) as file:
        for block in blocks:
            content = b"".join(_encoded(block.sentences, data, tag_names))
            if os.fstat(file.fileno()).st_size != record.bytes:
                raise MixValueError(f"{data}: something else writes into it: let one run write into a file")
            try:
                _write_whole(file, content)
            except OSError:  # a full disk: what went onto it of the block goes
                file.truncate(record.bytes)
                raise
            written.update(content)
            record.bytes += len(content)
            record.sha256 = written.hexdigest()
            record.next_block = block.number + 1
            record.sentences += len(block.sentences)
            record.counts = asdict(Counts(**record.counts) + block.counts)
            record.failure = record.failure or block.failure
            record.save(beside)
            progress(record.sentences, Counts(**record.counts))


def _write_whole(file: FileIO, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
    flush_to_disk(file.fileno())


def _encoded(sentences: Sequence[MixedSentence], data: Path, tag_names: Sequence[str]) -> Iterator[bytes]:
    low = data.name.lower()
    lines = conll_lines if low.endswith((".conll", ".conll.gz")) else json_line
    content = "".join(lines(sentence, tag_names) for sentence in sentences).encode()
    if content:  # each block is a gzip file of its own: gzip files one after another are one
        yield gzip.compress(content, mtime=0) if low.endswith(".gz") else content
