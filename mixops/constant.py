"""Arrays that are the same for every batch of a size: made once, read only, and told by identity."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np


@lru_cache(maxsize=32)
def ascending(n: int, dtype: type[np.integer[Any]] = np.int32) -> np.ndarray:
    """0 to n - 1."""
    return _frozen(np.arange(n, dtype=dtype))


@lru_cache(maxsize=32)
def filled(shape: tuple[int, ...], value: float, dtype: type[np.generic]) -> np.ndarray:
    """One value everywhere."""
    return _frozen(np.full(shape, value, dtype))


@lru_cache(maxsize=32)
def full_box(shape: tuple[int, ...]) -> np.ndarray:
    """(2R,) int32: the box that covers all of ``shape``."""
    return _frozen(np.array([edge for extent in shape for edge in (0, extent)], np.int32))


def is_ascending(rows: np.ndarray) -> bool:
    """Is it 0 to n - 1? At no cost for the array of ``ascending`` itself."""
    here = ascending(rows.size)
    return rows is here or bool((rows == here).all())


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
