"""Folders and files that are there whole or not at all: written beside their place, put there at the end."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mixops as mx

#: Ends the names of files that are being written; one that is left was being written by a process that was killed.
UNFINISHED = ".unfinished"


@contextmanager
def whole_file(path: Path, by: str = "") -> Iterator[Path]:
    """A name beside ``path`` to write a file under; it takes the place of ``path`` at the end, and goes after an error.

    Args:
        path: of the file. What is there is replaced at one stroke, when the new one lies on the disk.
        by: tells those apart who may write the same file at the same time; the last one's stays.

    Yields:
        The name to write under.

    Raises:
        OSError: if the file cannot be written whole.
    """
    fresh = path.with_name(f".{path.name}{by and '-'}{by}{UNFINISHED}")
    try:
        yield fresh
        with fresh.open("rb") as file:
            flush_to_disk(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def flush_to_disk(descriptor: int) -> None:
    """Wait until what was written to an open file lies on the disk; OSError if it does not fit there."""
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network folders cannot; of others it says that the disk is full, or broken
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


@contextmanager
def whole_folder(out: Path, mark: str) -> Iterator[Path]:
    """A fresh folder to fill; it takes the place of ``out`` at the end, and is gone after an error.

    Args:
        out: the place. What is there is replaced at the very end, and only if it is empty or holds a ``report.json``
            whose "format" is the mark.
        mark: of the program that writes; what fills the folder has to write a ``report.json`` with it.

    Yields:
        The folder to fill, beside ``out``.

    Raises:
        MixError: before anything is written, if ``out`` holds something else.
    """
    check_replaceable(out, mark)
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield fresh
        _put_in_place(fresh, out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_replaceable(out: Path, mark: str) -> None:
    """Refuse to replace what this program did not write."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        found = json.loads((out / "report.json").read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != mark:
        raise mx.MixValueError(f"{out} is there and holds no report of this program: name another folder, or remove it")


def _put_in_place(fresh: Path, out: Path) -> None:
    fresh.chmod(0o755)  # mkdtemp makes folders that only their owner can read
    if not out.exists():
        fresh.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
    out.rename(old / "report")
    fresh.rename(out)
    shutil.rmtree(old)
