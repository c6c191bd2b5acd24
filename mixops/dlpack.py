"""Arrays of other libraries: torch borrows memory on a GPU (CuPy, JAX), NumPy on the host; results go back as theirs.

Nothing is copied and the host waits for nothing. When an array on a GPU comes in, its library makes torch's current
stream wait for what it has queued; when a result goes out, torch makes the library's stream wait for the kernel. Both
is DLPack's rule: the consumer names its stream, the producer orders the work.
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

#: Kinds of devices in DLPack's numbers: the host, CUDA memory, and CUDA memory that moves between both by itself.
HOST, CUDA, MANAGED = 1, 2, 13
#: Libraries whose arrays never change.
_IMMUTABLE = ("jax", "jaxlib")
#: What kernels may still be reading, oldest first, each with the event that follows its kernel.
_reading: deque[tuple[Any, Any]] = deque()
_lock = Lock()


def is_foreign(x: Any, anywhere: bool = False) -> bool:
    """True for an array, or a list of arrays, that speaks DLPack and is neither NumPy's nor torch's.

    On the host it counts where its library takes arrays too, as the array API has it; JAX's do not, which JAX mixes.

    Args:
        x: anything.
        anywhere: does it count wherever it lies and whatever its library takes?
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
        kind = None if anywhere else int(x.__dlpack_device__()[0])
    except Exception:  # whatever its library raises: the array was deleted, say, or lies on several devices
        return False
    return kind in (None, CUDA, MANAGED) or (kind == HOST and not is_jax(x) and _taker(x) is not None)


def _torch_has_cuda() -> bool:
    """Could torch take an array on a GPU? JAX mixes its own where it cannot."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


class Loan:
    """A foreign array, and where its result goes, on the same memory: NumPy arrays on the host, tensors elsewhere.

    Args:
        x: the array, or a list of arrays.
        out: None, or an array of the same library to write into.
        tensors: tensors on the host too?

    Raises:
        MixTypeError: if torch or NumPy cannot take the array, its library takes none, or out is of another library or
            cannot be written.
    """

    def __init__(self, x: Any, out: Any = None, tensors: bool = False) -> None:
        self._first = x[0] if isinstance(x, (list, tuple)) else x
        takes = _taker(self._first)
        if takes is None:
            root = _root(self._first)
            raise MixTypeError(
                f"{_kind(self._first)}: neither x.__array_namespace__() nor {root} has from_dlpack, so no result could "
                "become such an array: pass torch.from_dlpack(x) and convert what comes back"
            )
        self._takes = takes
        if out is not None:
            _check_out(self._first, out)
        self._given = out
        borrowed = _tensor if tensors or not _on_host(self._first) else _array
        self.x: Any = [borrowed(part) for part in x] if isinstance(x, (list, tuple)) else borrowed(x)
        self.out: Any = self.x if out is x else None if out is None else borrowed(out)
        if isinstance(self.out, np.ndarray) and not self.out.flags.writeable:
            raise MixTypeError(
                f"out= with {_kind(out)}: its library lends it to be read only, as those before DLPack 1.0 do: leave "
                "out= away and take what comes back"
            )

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
        try:
            with _device_of(result):
                return self._takes(result)
        except Exception as error:  # whatever the library raises
            dtype = str(result.dtype).removeprefix("torch.")
            raise MixTypeError(
                f"{_kind(self._first)} cannot take over a {dtype} result ({error}): ask for another dtype, or keep "
                "tensors: mix torch.from_dlpack(x)"
            ) from error


def _kind(x: Any) -> str:
    return f"{_root(x)} {type(x).__name__}"


def _root(x: Any) -> str:
    """Name of the library that an array is of."""
    return type(x).__module__.partition(".")[0]


def _taker(x: Any) -> Callable[[Any], Any] | None:
    """What makes an array like x of anything that speaks DLPack; None where its library has no such function."""
    namespace = x.__array_namespace__() if hasattr(x, "__array_namespace__") else sys.modules.get(_root(x))
    return getattr(namespace, "from_dlpack", None)


def _on_host(x: Any) -> bool:
    try:
        return int(x.__dlpack_device__()[0]) == HOST
    except Exception:  # whatever its library raises: _tensor says so
        return False


def _device_of(result: Any) -> Any:
    """A context in which the device of a result is the current one: torch hands out tensors of no other."""
    return sys.modules["torch"].cuda.device(result.device) if getattr(result, "is_cuda", False) else nullcontext()


def _array(x: Any) -> np.ndarray:
    """A NumPy array on the memory of x, which lies on the host."""
    try:
        return np.from_dlpack(x)
    except Exception as error:  # the library's, or NumPy's
        raise MixTypeError(
            f"{_kind(x)}: NumPy cannot take it over ({error}): expected a dtype that both know, and an array that lies "
            "on the host"
        ) from error


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
    if _root(x) in _IMMUTABLE:
        raise MixTypeError(f"out= with {_kind(x)}: such arrays never change; leave out= away and take what comes back")
    if type(out) is not type(x):
        raise MixTypeError(f"out is {_kind(out)}, expected {_kind(x)} as x is")


def _hold(tensors: Any) -> None:
    """Keep what was lent until the kernels that read it are through: its library does not know of them."""
    one = tensors[0] if isinstance(tensors, list) else tensors
    with _lock:
        while _reading and _reading[0][0].query():
            _reading.popleft()
        if getattr(one, "is_cuda", False):
            import torch

            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it bare
            event.record(torch.cuda.current_stream(one.device))
            _reading.append((event, tensors))
