"""NVRTC: from the text of a form to the binary of one GPU architecture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ...errors import MixError
from . import cache
from .form import MAIN, Form, sources, text

#: A function that does not say where it runs is one of the GPU.
OPTIONS = ("--std=c++17", "-default-device")


@dataclass(frozen=True)
class Compiled:
    """What NVRTC made of a form.

    Args:
        binary: the cubin of one architecture.
        ptx: the text that it was assembled from.
        log: what the compiler said.
    """

    binary: bytes
    ptx: str
    log: str


def binary(form: Form, architecture: str) -> bytes:
    """The kernel of a form for an architecture ("sm_90"): off the disk, or else compiled and kept there.

    Raises:
        MixError: if NVRTC does not compile it; its log says why.
    """
    nvrtc = load_nvrtc()
    key = _key(nvrtc, form, architecture)
    found = cache.load(key)
    if found is None:
        found = compiled(form, architecture).binary
        cache.store(key, found)
    return found


def compiled(form: Form, architecture: str, options: Sequence[str] = ()) -> Compiled:
    """Compile a form, whatever lies on the disk; ``options`` go to NVRTC beside its own."""
    nvrtc = load_nvrtc()
    others = [(name.encode(), content.encode()) for name, content in sources().items() if name != MAIN]
    names, contents = [name for name, _ in others], [content for _, content in others]
    code, program = nvrtc.nvrtcCreateProgram(text(form).encode(), MAIN.encode(), len(names), contents, names)
    _check(code, form, architecture, "")
    try:
        every = [option.encode() for option in (f"--gpu-architecture={architecture}", *OPTIONS, *options)]
        (code,) = nvrtc.nvrtcCompileProgram(program, len(every), every)
        log = _output(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode(errors="replace")
        _check(code, form, architecture, log.rstrip("\0 \n"))
        return Compiled(
            _output(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program),
            _output(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program).decode().rstrip("\0"),
            log.rstrip("\0 \n"),
        )
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def load_nvrtc() -> Any:
    """The module of NVRTC; ``available.reason`` tells where there is none."""
    return import_module("cuda.bindings.nvrtc")


def architecture(capability: tuple[int, int], supported: Sequence[int]) -> int | None:
    """The newest architecture that NVRTC compiles for and the GPU runs: of its generation, and not newer; or None.

    Args:
        capability: of the GPU, (9, 0).
        supported: what NVRTC names, 90 for (9, 0).
    """
    major, minor = capability
    return max((one for one in supported if one // 10 == major and one % 10 <= minor), default=None)


def _key(nvrtc: Any, form: Form, architecture: str) -> str:
    """Everything that the binary depends on, in a file name."""
    _, *version = nvrtc.nvrtcVersion()
    told = [repr(version), architecture, *OPTIONS, form.macros()]
    told += [part for name, content in sources().items() for part in (name, content)]
    return hashlib.sha256("\0".join(told).encode()).hexdigest()


def _output(size: Any, get: Any, program: Any) -> bytes:
    _, length = size(program)
    data = bytearray(length)  # the binding writes into it
    get(program, data)
    return bytes(data)


def _check(code: Any, form: Form, architecture: str, log: str) -> None:
    if code != 0:
        raise MixError(
            f"the kernel {form} does not compile for {architecture} ({code.name}): please report it; meanwhile "
            f'backend="torch" does the same. The compiler says:\n{log[:4000]}'
        )
