"""A library of arrays that speaks DLPack and little else, as CuPy does: its frames say that they lie on a GPU."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch

MODULE = "frames_library"
#: DLPack's number of the device that frames say they lie on: CUDA.
GPU = 2


class Frame:
    """An array that can be written.

    Args:
        tensor: its memory.
        kind: DLPack's number of the device that it claims to lie on.

    The streams that it was asked to make ready for are listed in ``streams``.
    """

    def __init__(self, tensor: torch.Tensor, kind: int = GPU) -> None:
        self.tensor, self.kind = tensor, kind
        self.streams: list[Any] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def __len__(self) -> int:
        return len(self.tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.kind, 0)

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        self.streams.append(stream)
        return self.tensor.__dlpack__(max_version=max_version)


class Standard(Frame):
    """A frame as the array API standard has it: it names its library itself."""

    def __array_namespace__(self) -> Any:
        return types.SimpleNamespace(from_dlpack=lambda tensor: taken(Standard, tensor))


class Immutable(Standard):
    """A frame that never changes, as JAX's arrays."""


Frame.__module__ = Standard.__module__ = MODULE
Immutable.__module__ = "jaxlib.frames"


def taken(kind: type[Frame], tensor: torch.Tensor) -> Frame:
    """A frame on the memory of a tensor; like CuPy's arrays it knows no bfloat16."""
    if tensor.dtype == torch.bfloat16:
        raise NotImplementedError("no bfloat16 here")
    return kind(torch.from_dlpack(tensor))


def frame(values: Any, kind: type[Frame] = Standard) -> Frame:
    """A frame with a copy of these values."""
    return kind(torch.from_numpy(np.array(values)))


def values(array: Any) -> np.ndarray:
    """What a frame holds."""
    assert isinstance(array, Frame), type(array)
    return array.tensor.numpy()


class Stream:
    """A stream as torch hands it out."""

    def __init__(self, pointer: int) -> None:
        self.cuda_stream = pointer


def on_a_gpu(patch: pytest.MonkeyPatch, pointer: int = 0) -> None:
    """From now on torch has a current stream, as it has with a GPU, and the library of frames can be imported."""
    patch.setattr(torch.cuda, "current_stream", lambda device=None: Stream(pointer))
    library = types.ModuleType(MODULE)
    library.from_dlpack = lambda tensor: taken(Frame, tensor)  # type: ignore[attr-defined]
    patch.setitem(sys.modules, MODULE, library)


def gpu_libraries() -> dict[str, Any]:
    """The known libraries that are installed and have arrays on a GPU here: what makes an array of a NumPy array."""
    found = {}
    if importlib.util.find_spec("cupy") and importlib.import_module("cupy").cuda.is_available():
        found["cupy"] = importlib.import_module("cupy").asarray
    if importlib.util.find_spec("jax") and importlib.import_module("jax").default_backend() == "gpu":
        found["jax"] = importlib.import_module("jax.numpy").asarray
    return found
