"""The CUDA kernel on the CPU: the same mix.cu, compiled by g++ with a few words of CUDA defined, run thread by thread.

What it reads and writes is watched: an access beside the tensors of a launch, one that is not aligned as the chip asks,
and one to a byte that another thread writes fail the launch.
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
#: Not optimised, nor linked to the C++ library: hundreds of kernels are compiled, and none runs for long.
FLAGS = ("-O0", "-nostdlib", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-w")
LOOP = """
extern "C" unsigned long long run(const void *arguments, unsigned gx, unsigned gy, unsigned block, Region *given,
                                  Faults *found) {
    const Mix &p = *(const Mix *)arguments;
    regions = given;
    faults = {};
    thread_number = 0;
    gridDim = {gx, gy, 1};
    blockDim = {block, 1, 1};
    for (unsigned y = 0; y < gy; y++)
        for (unsigned x = 0; x < gx; x++)
            for (unsigned t = 0; t < block; t++) {
                blockIdx = {x, y, 0};
                threadIdx = {t, 0, 0};
                thread_number++;
                mix(p);
            }
    *found = faults;
    return sizeof(Mix);
}
"""
_REGION = np.dtype([(name, "i8") for name in ("begin", "end", "touches", "read", "written")])
_TOUCH = np.dtype([("reader", "i4"), ("writer", "i4")])
_FAULTS = ("beside the tensors", "not aligned", "to bytes of another thread", "past the caches to what is written")


@dataclass(frozen=True)
class Launch:
    """What was asked of the driver, and what the kernel did.

    Args:
        form: of the kernel.
        grid: blocks.
        block: threads of each.
        arguments: its parameters.
        source: for each byte that the source reaches over, the thread that read it and the one that wrote it: 0 for
            none, -1 for several.
        result: the same for the result; the very array of the source in place.
        read: bytes of the source that were read, counting each time.
        written: bytes that were written, counting each time.
    """

    form: Form
    grid: tuple[int, int]
    block: int
    arguments: np.ndarray
    source: np.ndarray
    result: np.ndarray
    read: int
    written: int


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
def compiled(source: str) -> Any:
    """The function of the text of a form; g++ is asked once for each and machine."""
    folder = _folder()
    built = folder / f"{hashlib.sha256(source.encode()).hexdigest()[:24]}.so"
    if not built.exists():
        part = built.with_suffix(f".{os.getpid()}")
        command = ["g++", *FLAGS, f"-I{folder}", "-x", "c++", "-", "-o", str(part), "-lgcc"]
        done = subprocess.run(command, input=source + LOOP, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:3000]
        part.replace(built)
    run = ctypes.CDLL(str(built)).run
    run.restype = ctypes.c_ulonglong
    return run


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
        instead: text of the kernel and what stands in its place, to see that tests notice.
    """

    launches: list[Launch] = field(default_factory=list)
    instead: tuple[str, str] = ("", "")

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
        run, x = compiled(text(kernel).replace(*self.instead)), read[0]
        assert x is not None
        in_place = x.data_ptr() == written.data_ptr()
        regions = np.zeros(4, _REGION)
        for region, tensor in zip(regions, (x, written, *read[1:]), strict=True):
            region["begin"], region["end"] = _span(tensor)
        source = np.zeros(regions["end"][0] - regions["begin"][0], _TOUCH)
        result = source if in_place else np.zeros(regions["end"][1] - regions["begin"][1], _TOUCH)
        regions["touches"][:2] = source.ctypes.data, result.ctypes.data
        faults = np.zeros(len(_FAULTS), np.int64)
        size = run(
            ctypes.c_void_p(arguments.ctypes.data),
            ctypes.c_uint(grid[0]),
            ctypes.c_uint(grid[1]),
            ctypes.c_uint(block),
            ctypes.c_void_p(regions.ctypes.data),
            ctypes.c_void_p(faults.ctypes.data),
        )
        sent = arguments.dtype.itemsize
        assert size == sent, f"struct Mix is {size} bytes, the host wrote {sent}"
        for count, what in zip(faults.tolist(), _FAULTS, strict=True):
            assert not count, f"{count} accesses {what}: {kernel}"
        traffic = int(regions["read"][:2].sum()), int(regions["written"][:2].sum())
        self.launches.append(Launch(kernel, grid, block, arguments, source, result, *traffic))


@contextmanager
def on_the_host(instead: tuple[str, str] = ("", "")) -> Iterator[HostChip]:
    """Within it backend="cuda" takes CPU tensors and runs the kernel on them."""
    before, chip = driver._driver, HostChip(instead=instead)
    driver._driver = chip
    try:
        yield chip
    finally:
        driver._driver = before
