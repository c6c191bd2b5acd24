"""Arrays that other libraries keep on a GPU (CuPy, JAX): torch borrows their memory, and they get theirs back.

Nothing is copied and the host waits for nothing. When an array comes in, its library makes torch's current stream wait
for what it has queued; when a result goes out, torch makes the library's stream wait for the kernel. Both is DLPack's
rule: the consumer names its stream, the producer orders the work.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from threading import Lock
from typing import Any

import numpy as np

from .backends import is_tensor
from .errors import MixTypeError
from .traced import is_jax, is_tracer

#: Kinds of devices in DLPack's numbers: CUDA memory, and CUDA memory that moves between host and GPU by itself.
CUDA, MANAGED = 2, 13
#: Libraries whose arrays never change.
_IMMUTABLE = ("jax", "jaxlib")
#: What kernels may still be reading, oldest first, each with the event that follows its kernel.
_reading: deque[tuple[Any, Any]] = deque()
_lock = Lock()


def is_foreign(x: Any, anywhere: bool = False) -> bool:
    """True for an array, or a list of arrays, that speaks DLPack and is neither NumPy's nor torch's.

    Args:
        x: anything.
        anywhere: does it count wherever it lies, or only on a GPU?
    """
    if isinstance(x, np.ndarray) or is_tensor(x):
        return False
    if isinstance(x, (list, tuple)):
        return bool(x) and is_foreign(x[0], anywhere)
    if is_tracer(x) or (is_jax(x) and not anywhere and not _torch_has_cuda()):
        return False
    if not hasattr(type(x), "__dlpack__") or not hasattr(type(x), "__dlpack_device__"):
        return False
    try:
        return anywhere or int(x.__dlpack_device__()[0]) in (CUDA, MANAGED)
    except Exception:  # whatever its library raises: the array was deleted, say, or lies on several devices
        return False


def _torch_has_cuda() -> bool:
    """Could torch take an array on a GPU? JAX mixes its own where it cannot."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


class Loan:
    """A foreign array, and where its result goes, as tensors on the same memory.

    Args:
        x: the array, or a list of arrays.
        out: None, or an array of the same library to write into.

    Raises:
        MixTypeError: if torch cannot take the array, its library takes no tensors, or out is of another library or
            cannot be written.
    """

    def __init__(self, x: Any, out: Any = None) -> None:
        self._first = x[0] if isinstance(x, (list, tuple)) else x
        self._takes = _taker(self._first)
        if out is not None:
            _check_out(self._first, out)
        self._given = out
        self.x: Any = [_tensor(part) for part in x] if isinstance(x, (list, tuple)) else _tensor(x)
        self.out: Any = self.x if out is x else None if out is None else _tensor(out)

    def settled(self, result: Any) -> Any:
        """The result as an array of the library that lent x; tuples part by part.

        Raises:
            MixTypeError: if that library has no such dtype.
        """
        _hold(self.x)
        if isinstance(result, tuple):
            return tuple(self._returned(part) for part in result)
        handed = self._returned(result)  # for out= too: it is what makes the lender's stream wait for the kernel
        return handed if self._given is None else self._given

    def _returned(self, result: Any) -> Any:
        import torch

        try:
            # torch hands out tensors of the current device only.
            with torch.cuda.device(result.device) if result.is_cuda else nullcontext():
                return self._takes(result)
        except Exception as error:  # whatever the library raises
            dtype = str(result.dtype).removeprefix("torch.")
            raise MixTypeError(
                f"{_kind(self._first)} cannot take over a {dtype} result ({error}): ask for another dtype, or keep "
                "tensors: mix torch.from_dlpack(x)"
            ) from error


def _kind(x: Any) -> str:
    return f"{type(x).__module__.partition('.')[0]} {type(x).__name__}"


def _taker(x: Any) -> Callable[[Any], Any]:
    """What makes an array like x of anything that speaks DLPack."""
    root = type(x).__module__.partition(".")[0]
    namespace = x.__array_namespace__() if hasattr(x, "__array_namespace__") else sys.modules.get(root)
    takes = getattr(namespace, "from_dlpack", None)
    if takes is None:
        raise MixTypeError(
            f"{_kind(x)}: neither x.__array_namespace__() nor {root} has from_dlpack, so no result could become "
            "such an array: pass torch.from_dlpack(x) and convert what comes back"
        )
    return takes


def _tensor(x: Any) -> Any:
    """A tensor on the memory of x, ready on torch's current stream."""
    try:
        import torch
    except ImportError:
        raise MixTypeError(f"{_kind(x)} on a GPU: such arrays are mixed by torch's side; install torch") from None
    try:
        managed = int(x.__dlpack_device__()[0]) == MANAGED
        tensor = None if managed else torch.utils.dlpack.from_dlpack(x)
    except Exception as error:  # the library's, or torch's
        raise MixTypeError(
            f"{_kind(x)}: torch cannot take it over ({error}): expected a torch with CUDA, and a dtype and strides "
            "that both know"
        ) from error
    if managed:
        raise MixTypeError(
            f"{_kind(x)} in managed memory, which torch does not take: copy it into memory of the GPU first"
        )
    return tensor


def _check_out(x: Any, out: Any) -> None:
    root = type(x).__module__.partition(".")[0]
    if root in _IMMUTABLE:
        raise MixTypeError(f"out= with {_kind(x)}: such arrays never change; leave out= away and take what comes back")
    if type(out) is not type(x):
        raise MixTypeError(f"out is {_kind(out)}, expected {_kind(x)} as x is")


def _hold(tensors: Any) -> None:
    """Keep what was lent until the kernels that read it are through: its library does not know of them."""
    one = tensors[0] if isinstance(tensors, list) else tensors
    with _lock:
        while _reading and _reading[0][0].query():
            _reading.popleft()
        if one.is_cuda:
            import torch

            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it bare
            event.record(torch.cuda.current_stream(one.device))
            _reading.append((event, tensors))
