"""Backends: each runs a checked job on one kind of array. They are imported when first asked for.

A backend is a module with ``dtype_name(x)``, ``check_out(x, out)`` and ``run(job)``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from ..errors import MixTypeError, MixValueError
from ..traced import is_jax
from .addresses import reach, starts
from .tokens import pasted as pasted_tokens

__all__ = [
    "backend_for",
    "held_mix",
    "is_tensor",
    "launched_again",
    "load_kernels",
    "pasted_tokens",
    "repeats",
    "same_memory",
    "share_memory",
    "traced",
    "untraced",
    "was_written",
]

_MODULES = {"reference": "reference", "cpu": "cpu", "cuda": "cuda", "torch": "torch_", "jax": "jax_"}

#: What each takes, and how that is called.
_TAKES = {
    "reference": {"numpy": "a NumPy array"},
    "cpu": {"numpy": "a NumPy array", "tensor": "a torch tensor"},
    "cuda": {"tensor": "a torch tensor"},
    "torch": {"tensor": "a torch tensor"},
    "jax": {"jax": "a JAX array", "numpy": "a NumPy array"},
}


def is_tensor(x: Any) -> bool:
    """True for a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def backend_for(x: Any, name: str | None = None) -> Any:
    """The backend module that ``name`` asks for, or the one that suits the type of x.

    Raises:
        MixError: if the name is unknown or the backend does not take this type.
    """
    one = x[0] if _listed(x) and len(x) else x
    if one is not x and len(set(map(type, x))) > 1:
        _check_together(x)
    tensors = () if not is_tensor(one) else x if one is not x else (x,)
    on_cpu = all(t.is_cpu for t in tensors)
    if tensors:
        _check_tensors(tensors, on_cpu, name)
    if name is None:
        if tensors:
            name = "torch"
            if on_cpu and not traced() and not any(t.requires_grad for t in tensors):
                name = "cpu"
            elif not traced() and all(t.is_cuda for t in tensors) and _kernel_for(one):
                name = "cuda"
        elif isinstance(one, np.ndarray):
            name = "cpu"
        elif is_jax(one):
            name = "jax"
        else:
            raise MixTypeError(
                f"{type(one).__name__}: expected a NumPy array, a torch tensor, a JAX array, an array of a library "
                "with DLPack and from_dlpack (CuPy, the array API), or a list of equally sized samples; TensorFlow's "
                "tensors: mixops.pipelines.tf_ops.mixed; others: numpy.asarray(x)"
            )
    elif name not in _MODULES:
        raise MixValueError(f"backend={name!r}: expected one of {', '.join(_MODULES)}")
    else:
        if _kind(one) not in _TAKES[name]:
            wanted = " or ".join(_TAKES[name].values())
            raise MixTypeError(f"backend={name!r} on {type(one).__name__}: expected {wanted}")
    module = _module(name)
    if name == "cuda":
        module.check_device(one)
    return module


def _kind(one: Any) -> str:
    """Whose array it is, nothing for one of a library that is not known."""
    return "tensor" if is_tensor(one) else "numpy" if isinstance(one, np.ndarray) else "jax" if is_jax(one) else ""


def _check_together(samples: Sequence[Any]) -> None:
    """Raise unless samples of several types are of one library, as views and traced arrays are."""
    kinds = [_kind(sample) or type(sample).__name__ for sample in samples]
    for i, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise MixTypeError(
                f"sample 0 is a {type(samples[0]).__name__}, sample {i} a {type(samples[i]).__name__}: expected "
                "samples of one library; convert them first"
            )


def _check_tensors(tensors: Sequence[Any], on_cpu: bool, name: str | None) -> None:
    """Raise unless they lie together, element beside element, where the backend of this name can read them."""
    one = tensors[0]
    if one.layout is not sys.modules["torch"].strided:
        raise MixTypeError(f"a tensor of layout {one.layout}: expected a plain one, x.to_dense()")
    if on_cpu:
        return
    devices = sorted({str(t.device) for t in tensors})
    if len(devices) > 1:
        raise MixValueError(f"samples lie on {' and '.join(devices)}: expected one device, move them there first")
    if name == "cpu":
        raise MixTypeError(f'backend="cpu" on a tensor on {one.device}: leave backend= away, or move it: x.cpu()')


def _kernel_for(tensor: Any) -> bool:
    """Can the CUDA kernel be used for a CUDA tensor? Torch operations do the same where it cannot."""
    usable: bool = import_module(".cuda.available", __name__).usable(tensor)
    return usable


@cache
def _module(name: str) -> Any:
    return import_module(f".{_MODULES[name]}", __name__)


def launched_again(x: Any, plan: Any, layout: str, kind: str, options: dict[str, Any]) -> Any:
    """A mix on a GPU like one that was done before; None where there was none, or where this one must be checked."""
    again = sys.modules.get(f"{__name__}.cuda.again")  # loaded with the first mix there
    if again is None or not is_tensor(x) or (x.is_cpu and options["backend"] != "cuda"):
        return None
    if options["backend"] not in (None, "cuda") or options["fill"] is not None or options["threads"] is not None:
        return None
    return again.repeated(x, plan, layout, kind, options["to"], options["out"])


def held_mix(x: Any, plan: Any, layout: str, kind: str, to: Any, out: Any) -> Any:
    """A mix of a tensor by a DevicePlan; torch.compile traces it."""
    from .cuda.library import mixed

    return mixed(x, plan, layout, kind, to, out)


def was_written(out: Any) -> None:
    """Tell autograd, which sees no writing of ours: a gradient that needs what a tensor held is then an error."""
    if is_tensor(out):
        sys.modules["torch"].autograd.graph.increment_version(out)


def load_kernels() -> None:
    """Import the CPU kernels, and Numba with them."""
    import_module(".kernels", __name__)


def traced() -> bool:
    """True while torch.compile traces the code that asks."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


def untraced(function: Callable[..., Any]) -> Any:
    """The function as torch.compile leaves it alone: plans are NumPy arrays, which it cannot trace.

    Its graph breaks at the call. Only for use while tracing, when torch is there.
    """
    import torch

    return torch.compiler.disable(function)  # type: ignore[no-untyped-call]  # torch leaves it bare


def _listed(x: Any) -> bool:
    return isinstance(x, (list, tuple)) or (not hasattr(x, "shape") and isinstance(x, Sequence))


def _start(x: Any) -> int:
    return int(x.data_ptr() if is_tensor(x) else x.__array_interface__["data"][0])


def _itemsize(x: Any) -> int:
    return int(x.element_size() if is_tensor(x) else x.itemsize)


def _strides(x: Any) -> tuple[int, ...]:
    return tuple(s * x.element_size() for s in x.stride()) if is_tensor(x) else x.strides


def _span(x: Any) -> tuple[int, int]:
    """First byte and one past the last byte of an array or CPU tensor."""
    low, high = reach(x.shape, _strides(x), _itemsize(x))
    return (_start(x) + low, _start(x) + high) if high else (0, 0)


def same_memory(x: Any, out: Any) -> bool:
    """True if out is x, or a view of exactly the same elements in the same order."""
    if x is out:
        return True
    if _listed(x) or tuple(x.shape) != tuple(out.shape) or _strides(x) != _strides(out):
        return False
    return _start(x) == _start(out) and 0 not in x.shape


def repeats(out: Any) -> bool:
    """True if two elements of out lie in one place (a broadcast, an expanded tensor): it cannot hold a result."""
    if 0 in out.shape or (out.is_contiguous() if is_tensor(out) else out.flags.c_contiguous):
        return False
    far = 0
    for step, extent in sorted((abs(s), n) for s, n in zip(_strides(out), out.shape, strict=True) if n > 1):
        if step <= far:
            return True
        far += step * (extent - 1)
    return False


def share_memory(x: Any, out: Any) -> bool:
    """True if the bytes of out and of x, or of one of its samples (alike in shape and dtype), may overlap."""
    low, high = _span(out)
    if not _listed(x):
        first, last = _span(x)
        return first < high and low < last
    parts: list[Any] = list(x) if is_tensor(x[0]) else [np.asarray(part) for part in x]
    steps = {part.stride() for part in parts} if is_tensor(x[0]) else {part.strides for part in parts}
    if len(steps) > 1:
        return any(share_memory(part, out) for part in parts)
    one = parts[0]
    before, after = reach(one.shape, _strides(one), _itemsize(one))
    begin = starts(parts)
    return bool(after) and bool(((begin + before < high) & (low < begin + after)).any())
