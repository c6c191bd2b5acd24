"""Plans on disk: a versioned .npz of plain arrays. Reading a stranger's file runs no code and trusts no number."""

from __future__ import annotations

import os
import secrets
import zipfile
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import MixError, MixValueError
from .fills import Fills

if TYPE_CHECKING:
    from .plan import Plan

_MAGIC, _VERSION = "mixops-plan", 1
_MOST_BYTES = 1 << 30
_FILLS = ("value", "noise", "std", "key")


def write(path: str | PathLike[str], plans: list[Plan]) -> None:
    """Write plans to ``path``, through a temporary file beside it."""
    from .plan import ARRAYS

    entries: dict[str, Any] = {"format": np.array(_MAGIC), "version": np.array(_VERSION), "plans": np.array(len(plans))}
    for i, plan in enumerate(plans):
        entries |= {f"{i}.{a}": getattr(plan, a) for a in ARRAYS}
        entries |= {f"{i}.fills.{f}": getattr(plan.fills, f) for f in _FILLS}
        entries[f"{i}.shape"] = np.array(plan.shape, np.int64)
        entries[f"{i}.layer"] = np.array(plan.layer or "")
    path = Path(path)
    # A name of its own: threads and processes may save to one path, and the last to finish wins.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            np.savez(file, **entries)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: str | PathLike[str]) -> list[Plan]:
    """Read plans that ``write`` wrote; MixError for anything else."""
    with Path(path).open("rb") as file:
        try:
            _check_size(file)
            with np.load(file, allow_pickle=False) as entries:
                return _plans(entries)
        except MixError as error:
            raise type(error)(f"{os.fspath(path)}: {error}") from None
        except Exception as error:  # zipfile, zlib, NumPy's header parser and memory each fail in ways of their own
            raise MixValueError(
                f"{os.fspath(path)}: not a plan file, or a damaged one ({type(error).__name__}: {error}); "
                "expected what Plan.save wrote"
            ) from None


def _check_size(file: Any) -> None:
    with zipfile.ZipFile(file) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > _MOST_BYTES:
        raise MixValueError(f"unpacks to {size} bytes, more than the {_MOST_BYTES} a plan may have")
    file.seek(0)


def _plans(entries: Any) -> list[Plan]:
    from .plan import ARRAYS, Plan

    if _text(entries["format"]) != _MAGIC:
        raise MixValueError("not a plan file")
    version, count = int(entries["version"]), int(entries["plans"])
    if not 1 <= version <= _VERSION or not 1 <= count <= 1024:
        raise MixValueError(
            f"version {version} with {count} plans: this mixops reads version {_VERSION}, 1 to 1024 plans"
        )
    plans = []
    for i in range(count):
        shape = entries[f"{i}.shape"]
        if shape.ndim != 1 or shape.dtype.kind not in "iu":
            raise MixValueError(f"shape is {shape.dtype} of {shape.ndim} axes, expected a list of extents")
        fills = Fills(*(entries[f"{i}.fills.{f}"] for f in _FILLS))
        arrays = {a: entries[f"{i}.{a}"] for a in ARRAYS}
        plans.append(
            Plan(**arrays, shape=tuple(shape.tolist()), fills=fills, layer=_text(entries[f"{i}.layer"]) or None)
        )
    for before, after in pairwise(plans):
        after.validate(before.n)
    return plans


def _text(entry: np.ndarray) -> str:
    if entry.ndim or entry.dtype.kind != "U":
        raise MixValueError(f"{entry.dtype} of {entry.ndim} axes where a word was expected")
    return str(entry)
