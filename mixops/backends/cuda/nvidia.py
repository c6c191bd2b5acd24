"""Kernels on NVIDIA GPUs: compiled once an architecture, loaded once, launched on torch's current stream."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from struct import Struct
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import MixError, MixTypeError, MixValueError
from ..addresses import start
from . import available, compiling
from .form import Form

_POINTER = Struct("P").pack
#: A thread that has not used the GPU yet has no context.
NO_CONTEXT = 201
_BINARY = "the driver cannot load this binary: install a newer driver"
_BROKEN = (
    "an earlier kernel of this process went wrong, and the process has to start again; with CUDA_LAUNCH_BLOCKING=1 it "
    "stops at that one"
)
#: What to do about the errors that loading and launching can meet.
_ADVICE = {
    2: "free memory on the GPU, or mix smaller batches",
    100: "no GPU is visible, see CUDA_VISIBLE_DEVICES",
    200: _BINARY,
    209: _BINARY,
    222: _BINARY,
    700: _BROKEN,
    719: _BROKEN,
    803: "libraries and driver are of different versions: restart the machine after an update of the driver",
    900: "a stream is being captured into a CUDA graph: mix once before capturing",
    906: "another stream is being captured into a CUDA graph: mix once before capturing",
}
#: The handle of the current stream of a device, as torch's own compiled code asks for it, without making an object.
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)


class Devices:
    """What torch says of the GPUs of this process."""

    def current(self) -> int:
        """The current device of this thread."""
        return torch.cuda.current_device()

    def stream(self, index: int) -> int:
        """The handle of the current stream of a device."""
        return _raw_stream(index) if _raw_stream else torch.cuda.current_stream(index).cuda_stream

    def capturing(self, index: int) -> bool:
        """Is that stream being captured?"""
        if index == torch.cuda.current_device():
            return torch.cuda.is_current_stream_capturing()
        with torch.cuda.device(index):
            return torch.cuda.is_current_stream_capturing()

    def architecture(self, index: int) -> str:
        """What is compiled for a device, "sm_90"; a MixError where nothing can be."""
        why = available.reason_on(index)
        if why is not None:
            raise MixTypeError(f'backend="cuda" on cuda:{index}: {why}')
        _, supported = compiling.load_nvrtc().nvrtcGetSupportedArchs()
        return f"sm_{compiling.architecture(torch.cuda.get_device_capability(index), supported)}"


class Nvidia:
    """The driver of CUDA tensors.

    Args:
        cuda: the module ``cuda.bindings.driver``, or what stands for it; None: imported with the first kernel.
        devices: what is known of the GPUs.
        binary: compiles a form for an architecture.
    """

    def __init__(
        self, cuda: Any = None, devices: Any = None, binary: Callable[[Form, str], bytes] = compiling.binary
    ) -> None:
        self._cuda = cuda
        self._devices = devices or Devices()
        self._binary = binary
        self._lock = Lock()
        self._kernels: dict[tuple[Form, int], Any] = {}
        self._loaded: dict[tuple[Form, str], Any] = {}
        self._contexts: dict[int, Any] = {}

    def serves(self, tensor: Tensor) -> bool:
        """Is it on an NVIDIA GPU?"""
        return tensor.is_cuda and torch.version.hip is None

    def capturing(self, device: Any) -> bool:
        """Is the current stream of the device being captured into a CUDA graph?"""
        return bool(self._devices.capturing(device.index))

    def kernel(self, form: Form, device: Any) -> Any:
        """The kernel of a form, compiled and loaded, for a device.

        Raises:
            MixError: if it cannot be compiled or loaded here, or not now, while the stream is captured.
        """
        index = device.index
        found = self._kernels.get((form, index))
        return self._kernel(form, index) if found is None else found

    def launch(
        self,
        kernel: Any,
        grid: tuple[int, int],
        block: int,
        arguments: np.ndarray,
        read: tuple[Tensor | None, ...],
        written: Tensor,
    ) -> None:
        """Put one launch into the current stream of the device that ``written`` lies on.

        Raises:
            MixError: if the driver refuses; nothing has been launched then.
        """
        cuda, devices, index = self._cuda, self._devices, written.get_device()
        rows, stretches = grid
        # The arguments are copied before the call returns.
        told = (kernel, rows, stretches, 1, block, 1, 1, 0, devices.stream(index), _POINTER(start(arguments)), 0)
        if devices.current() != index:
            _check(cuda.cuCtxPushCurrent(self._context(index)), "a launch")
            try:
                done = cuda.cuLaunchKernel(*told)
            finally:
                cuda.cuCtxPopCurrent()
        else:
            done = cuda.cuLaunchKernel(*told)
            if done[0] == NO_CONTEXT:
                _check(cuda.cuCtxSetCurrent(self._context(index)), "a launch")
                done = cuda.cuLaunchKernel(*told)
        if done[0] != 0:
            _check(done, f"a launch of {rows} x {stretches} blocks of {block}")

    def _kernel(self, form: Form, index: int) -> Any:
        """Load a kernel for a device: from another device of its architecture, from the disk, or compiled."""
        with self._lock:
            if (form, index) in self._kernels:
                return self._kernels[form, index]
            if self._devices.capturing(index):
                raise MixValueError(
                    f"the stream of cuda:{index} is being captured into a CUDA graph, and this kind of mix has not run "
                    "there yet, so that its kernel would be loaded now: mix once before capturing"
                )
            architecture = self._devices.architecture(index)
            made = self._loaded.get((form, architecture))
            if made is None:
                made = self._loaded[form, architecture] = self._load(self._binary(form, architecture))
            self._kernels[form, index] = made
            return made

    def _load(self, binary: bytes) -> Any:
        """A library belongs to no context: one load serves every device that runs the binary."""
        if self._cuda is None:
            self._cuda = import_module("cuda.bindings.driver")
        cuda = self._cuda
        library = _check(cuda.cuLibraryLoadData(binary, [], [], 0, [], [], 0), "loading a kernel")
        kernel = _check(cuda.cuLibraryGetKernel(library, b"mix"), "finding a kernel in its binary")
        return cuda.CUfunction(int(kernel))

    def _context(self, index: int) -> Any:
        """The context of a device that torch uses too; kept until the process ends."""
        found = self._contexts.get(index)
        if found is None:
            device = _check(self._cuda.cuDeviceGet(index), f"asking for cuda:{index}")
            found = _check(self._cuda.cuDevicePrimaryCtxRetain(device), f"asking for the context of cuda:{index}")
            self._contexts[index] = found
        return found


def _check(result: tuple[Any, ...], what: str) -> Any:
    """The value of a call to the driver."""
    code, *value = result
    if code != 0:
        advice = _ADVICE.get(int(code), 'leave backend="cuda" away, and please report it')
        raise MixError(f"{what} on the GPU failed with {code.name} ({int(code)}): {advice}")
    return value[0] if value else None
