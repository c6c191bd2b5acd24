"""Where arrays and tensors begin in memory, for a whole list of samples at once."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np


class _Head(ctypes.Structure):
    """How an array object of CPython's NumPy begins."""

    _fields_ = (("references", ctypes.c_ssize_t), ("type", ctypes.c_void_p), ("data", ctypes.c_void_p))


def _asked(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def _heads_hold() -> bool:
    """Do array objects begin as ``_Head`` says? Read here from an array whose place is known."""
    probe = np.arange(4)[1:]
    if type(probe).__basicsize__ < ctypes.sizeof(_Head) or object.__basicsize__ != _Head.data.offset:
        return False
    return _Head.from_address(id(probe)).data == _asked(probe)


#: Asking an array takes a microsecond, as much as mixing a small image; reading its head takes a tenth of that.
_HEADS = _heads_hold()


def start(array: np.ndarray) -> int:
    """The address of the first element of an array."""
    if _HEADS and type(array) is np.ndarray:
        return int(_Head.from_address(id(array)).data or 0)
    return _asked(array)


def starts(parts: Sequence[Any]) -> np.ndarray:
    """(n,) int64: the address of the first element of each array, or of each CPU tensor."""
    if not isinstance(parts[0], np.ndarray):
        return np.array([part.data_ptr() for part in parts], np.int64)
    if not _HEADS or set(map(type, parts)) != {np.ndarray}:
        return np.array([_asked(part) for part in parts], np.int64)
    head = _Head.from_address
    return np.array([head(id(part)).data for part in parts], np.int64)


def reach(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> tuple[int, int]:
    """Bytes from the first element to the lowest byte, and to one past the highest; (0, 0) where there is none."""
    if 0 in shape:
        return 0, 0
    ends = [step * (extent - 1) for step, extent in zip(strides, shape, strict=True)]
    return sum(end for end in ends if end < 0), sum(end for end in ends if end > 0) + itemsize
