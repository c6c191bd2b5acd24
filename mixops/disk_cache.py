"""Compiled functions that are kept on disk, and forgotten when any file changes whose code ends up in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

from numba import njit
from numba.core.ccallback import CFunc

_BACKENDS = ("elements.py", "kernels.py", "raw.py", "tail.py", "vector.py")
_SOURCES = (*(f"backends/{name}" for name in _BACKENDS), "noise.py", "windows.py")


@cache
def _sources() -> int:
    return crc32(b"".join((Path(__file__).parent / name).read_bytes() for name in _SOURCES))


def _know_sources(compiled: Any) -> None:
    """Numba itself looks only at the file that the function stands in."""
    store = getattr(compiled._cache, "_cache_file", None)
    if store is not None:
        store._source_stamp = (store._source_stamp, _sources())


def kept_kernel(function: Callable[..., Any]) -> Any:
    """Compile for each kind of arguments, at the first call. Where no cache can be written, in every process anew."""
    try:
        kernel = njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)
    _know_sources(kernel)
    return kernel


def kept_callback(signature: Any, function: Callable[..., Any]) -> Any:
    """Compile now, for calls by address, as numba.cfunc does."""
    callback = CFunc(function, (signature.args, signature.return_type), locals={}, options={})
    try:
        callback.enable_caching()
        _know_sources(callback)
    except RuntimeError:
        pass
    callback.compile()
    return callback
