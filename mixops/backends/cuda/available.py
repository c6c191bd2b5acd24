"""Can the kernel be used here? If not, what is missing, and what to do about it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from .compiling import architecture

#: From this version on a launch takes 32,764 bytes of arguments.
_LEAST = (12, 1)
ROCM = "this torch was built for ROCm, and the kernel is one for NVIDIA GPUs: torch operations do the same there"

#: Frames from the warning to the line that called mix.
_CALLER = 7
_told = False


def reason(tensor: Tensor) -> str | None:
    """Why the kernel cannot be used for a CUDA tensor, in one sentence that says what to do; None if it can."""
    return reason_on(tensor.get_device())


def usable(tensor: Tensor) -> bool:
    """Can it? Where something is missing that could be had, a warning says so, once a process."""
    global _told
    why = reason(tensor)
    if why is not None and why != ROCM and not _told:
        _told = True
        warnings.warn(f"mixing on the GPU with torch operations, not with the kernel: {why}", stacklevel=_CALLER)
    return why is None


@cache
def reason_on(index: int) -> str | None:
    """``reason`` for the tensors of one device; found out once."""
    if torch.version.hip is not None:
        return ROCM
    return missing(torch.cuda.get_device_capability(index), torch.version.cuda or "13.0")


def missing(capability: tuple[int, int], built: str, load: Callable[[str], Any] = import_module) -> str | None:
    """What the kernel lacks.

    Args:
        capability: of the GPU.
        built: version of CUDA that torch was built with, "13.0".
        load: imports a module by its name.

    Returns:
        One sentence, or None: nothing.
    """
    install = _install(int(built.split(".")[0]))
    try:
        driver, nvrtc = load("cuda.bindings.driver"), load("cuda.bindings.nvrtc")
    except ImportError:
        return f"cuda.bindings, through which kernels are compiled and launched, is not installed: {install}"
    try:
        _, *compiler = nvrtc.nvrtcVersion()
        _, supported = nvrtc.nvrtcGetSupportedArchs()
    except (OSError, RuntimeError) as error:
        return f"NVRTC, which compiles the kernel, cannot be loaded ({_line(error)}): {install}"
    if tuple(compiler) < _LEAST:
        return f"NVRTC {_dotted(compiler)} is too old, the kernel needs {_dotted(_LEAST)} or newer: {install}"
    try:
        code, number = driver.cuDriverGetVersion()
    except (OSError, RuntimeError) as error:
        return f"the NVIDIA driver cannot be loaded ({_line(error)}): install it, or run where there is one"
    if code != 0:
        return f"the NVIDIA driver does not answer ({code.name}): install it again, or restart the machine"
    version = (number // 1000, number % 1000 // 10)
    if version < max(_LEAST, (compiler[0], 0)):
        return (
            f"the NVIDIA driver knows CUDA {_dotted(version)} and NVRTC is of CUDA {_dotted(compiler)}: install a "
            "newer driver, or the cuda-bindings and the NVRTC of the driver's CUDA"
        )
    if architecture(capability, supported) is None:
        span = f"{_dotted(divmod(min(supported), 10))} to {_dotted(divmod(max(supported), 10))}"
        newer = capability[0] * 10 > max(supported)
        then = f"a newer one may know it: {install}" if newer else "torch operations do the same there"
        return (
            f"this GPU has compute capability {_dotted(capability)}, and NVRTC {_dotted(compiler)} compiles for "
            f"{span}: {then}"
        )
    return None


def _install(cuda: int) -> str:
    compiler = f"nvidia-cuda-nvrtc=={cuda}.*" if cuda >= 13 else f"nvidia-cuda-nvrtc-cu{cuda}"
    return f'pip install "cuda-bindings=={cuda}.*" "{compiler}"'


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def _line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0]
