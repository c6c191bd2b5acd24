"""Compiled kernels on disk, in a folder of this user's: an earlier process's work, never another user's."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import sys
import tempfile
from pathlib import Path

_log = logging.getLogger(__name__)
_DIGEST = 32
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def folder() -> Path:
    """$MIXOPS_CACHE_DIR, or else ``mixops`` in the place that the system keeps for caches of this user."""
    named = os.environ.get("MIXOPS_CACHE_DIR")
    if named:
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mixops"


def load(key: str) -> bytes | None:
    """What was stored under a key; None if nothing was, if it is damaged, or if another user can write it.

    Args:
        key: a file name that says all that the binary was made from.
    """
    try:
        data = _read(_file(key))
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        _log.debug("no compiled kernel %s: %s", key, error)
        return None
    if data is None or data[:_DIGEST] != _digest(key, data[_DIGEST:]):
        _log.debug("compiled kernel %s is damaged or not this user's alone: it is made again", key)
        return None
    return data[_DIGEST:]


def store(key: str, binary: bytes) -> None:
    """Keep a binary for later processes, where that is possible: written aside, then renamed."""
    part = None
    try:
        target = _file(key)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f"{key}.", suffix=".part", dir=target.parent)  # readable by this user
        with os.fdopen(handle, "wb") as file:
            file.write(_digest(key, binary) + binary)
        Path(part).replace(target)
    except (OSError, RuntimeError) as error:
        _log.debug("compiled kernel %s is not kept on disk: %s", key, error)
        if part is not None:
            Path(part).unlink(missing_ok=True)


def _file(key: str) -> Path:
    return folder() / f"{key}.cubin"


def _digest(key: str, binary: bytes) -> bytes:
    """Of the key too: a file that was renamed to another's is not taken for it."""
    return hashlib.sha256(key.encode() + b"\0" + binary).digest()


def _read(file: Path) -> bytes | None:
    """What a file holds, if nobody but this user, nor a link, could have put it there."""
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as opened:
        if hasattr(os, "geteuid"):
            facts = os.fstat(descriptor)
            if facts.st_uid != os.geteuid() or facts.st_mode & _OTHERS or not stat.S_ISREG(facts.st_mode):
                return None
        return opened.read()
