"""The CUDA kernel on the CPU: the same mix.cu, compiled by g++ with a few words of CUDA defined, run thread by thread.

What it reads and writes is watched: an access beside the tensors of a launch, or one that is not aligned as the chip
asks, fails the launch.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixops.backends.cuda import driver
from mixops.backends.cuda.form import Form, sources, text

SHIM = Path(__file__).parent / "shim" / "chip.h"
#: No contraction into fused products that the source does not ask for; unions and pointers as the chip sees them.
FLAGS = ("-O1", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-w")
LOOP = """
extern "C" void run(const void *arguments, unsigned gx, unsigned gy, unsigned block, const Span *read, Span written,
                    long long *faults) {
    const Mix &p = *(const Mix *)arguments;
    for (int i = 0; i < 4; i++) readable[i] = read[i];
    writable[0] = written;
    outside = crooked = 0;
    gridDim = {gx, gy, 1};
    blockDim = {block, 1, 1};
    for (unsigned y = 0; y < gy; y++)
        for (unsigned x = 0; x < gx; x++)
            for (unsigned t = 0; t < block; t++) {
                blockIdx = {x, y, 0};
                threadIdx = {t, 0, 0};
                mix(p);
            }
    faults[0] = outside;
    faults[1] = crooked;
    faults[2] = sizeof(Mix);
}
"""


@dataclass(frozen=True)
class Launch:
    """What was asked of the driver."""

    form: Form
    grid: tuple[int, int]
    block: int
    arguments: np.ndarray


@cache
def _folder() -> Path:
    """Where compiled kernels are kept for the next run of the tests: the name holds their source."""
    digest = hashlib.sha256("".join((*sources().values(), SHIM.read_text(), LOOP, *FLAGS)).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"mixops-host-kernels-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, content in sources().items():
        target = folder / name
        if not target.exists():
            _put(target, SHIM.read_text() if name == "chip.h" else content)
    return folder


def _put(target: Path, content: str) -> None:
    part = target.with_name(f"{target.name}.{os.getpid()}")
    part.write_text(content)
    part.replace(target)


@cache
def compiled(form: Form) -> Any:
    """The function of a form; g++ is asked once a form and machine."""
    folder = _folder()
    built = folder / f"{hashlib.sha256(str(form).encode()).hexdigest()[:24]}.so"
    if not built.exists():
        part = built.with_suffix(f".{os.getpid()}")
        command = ["g++", *FLAGS, f"-I{folder}", "-x", "c++", "-", "-o", str(part)]
        done = subprocess.run(command, input=text(form) + LOOP, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:3000]
        part.replace(built)
    return ctypes.CDLL(str(built)).run


def _span(tensor: torch.Tensor | None) -> tuple[int, int]:
    if tensor is None:
        return (0, 0)
    reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1 if tensor.numel() else 0
    return (tensor.data_ptr(), tensor.data_ptr() + reach * tensor.element_size())


@dataclass
class HostChip:
    """A driver whose device is the CPU.

    Args:
        launches: what was launched, in order.
    """

    launches: list[Launch] = field(default_factory=list)

    def serves(self, tensor: torch.Tensor) -> bool:
        return tensor.is_cpu

    def capturing(self, device: torch.device) -> bool:
        return False

    def kernel(self, form: Form, device: torch.device) -> Form:
        return form

    def launch(
        self,
        kernel: Form,
        grid: tuple[int, int],
        block: int,
        arguments: np.ndarray,
        read: tuple[torch.Tensor | None, ...],
        written: torch.Tensor,
    ) -> None:
        self.launches.append(Launch(kernel, grid, block, arguments))
        spans = np.zeros((4, 2), np.uint64)
        for i, tensor in enumerate((*read, written)):
            spans[i] = _span(tensor)
        faults = np.zeros(3, np.int64)
        run = compiled(kernel)

        class Span(ctypes.Structure):
            _fields_ = (("begin", ctypes.c_uint64), ("end", ctypes.c_uint64))

        run(
            ctypes.c_void_p(arguments.ctypes.data),
            ctypes.c_uint(grid[0]),
            ctypes.c_uint(grid[1]),
            ctypes.c_uint(block),
            ctypes.c_void_p(spans.ctypes.data),
            Span(*_span(written)),
            ctypes.c_void_p(faults.ctypes.data),
        )
        outside, crooked, size = faults.tolist()
        written_here = arguments.dtype.itemsize
        assert size == written_here, f"struct Mix is {size} bytes, the host wrote {written_here}"
        assert not crooked, f"{crooked} accesses that are not aligned: {kernel}"
        assert not outside, f"{outside} accesses beside the tensors: {kernel}"


@contextmanager
def on_the_host() -> Iterator[HostChip]:
    """Within it backend="cuda" takes CPU tensors and runs the kernel on them."""
    before, chip = driver._driver, HostChip()
    driver._driver = chip
    try:
        yield chip
    finally:
        driver._driver = before
