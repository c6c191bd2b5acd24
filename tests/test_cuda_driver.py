"""What is asked of NVIDIA's driver, recorded by something that stands for it: one launch a mix, in the right place."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cuda.bindings.driver import CUresult

import mixops as mx
from mixops import MixError, MixValueError
from mixops.backends.cuda import driver, nvidia
from mixops.backends.cuda.form import Form
from mixops.backends.cuda.nvidia import Nvidia
from mixops.backends.cuda.recipe import WORDS, layout_of
from mixops.packing import Packing, pack

FORM = Form("float32", "float32", 4, "SAME", 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 256, 0, 0)
OK = CUresult.CUDA_SUCCESS
CPU = torch.device("cpu")
#: What torch calls the device of a tensor that has none of its own.
HERE = -1


@dataclass
class Launch:
    kernel: int
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int
    stream: int
    arguments: bytes


@dataclass
class Cuda:
    """Stands for ``cuda.bindings.driver``: takes its calls as that does, and writes them down.

    Args:
        size: bytes of the arguments of the kernels that are launched.
        answers: what the next launches answer; OK after that.
        calls: names of what was called, in order.
    """

    size: int = 0
    answers: list[CUresult] = field(default_factory=list)
    loads: CUresult = OK
    calls: list[str] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)
    binaries: list[bytes] = field(default_factory=list)

    def CUfunction(self, handle: int) -> int:
        return handle

    def cuLibraryLoadData(self, code: bytes, *options: Any) -> tuple[Any, ...]:
        assert options == ([], [], 0, [], [], 0)
        self.calls.append("load")
        self.binaries.append(code)
        return (self.loads, len(self.binaries) if self.loads == OK else None)

    def cuLibraryGetKernel(self, library: int, name: bytes) -> tuple[Any, ...]:
        assert name == b"mix"
        return (OK, 100 + library)

    def cuDeviceGet(self, index: int) -> tuple[Any, ...]:
        return (OK, f"device {index}")

    def cuDevicePrimaryCtxRetain(self, device: str) -> tuple[Any, ...]:
        self.calls.append("retain")
        return (OK, f"context of {device}")

    def cuCtxPushCurrent(self, context: str) -> tuple[Any, ...]:
        self.calls.append("push")
        self.contexts.append(context)
        return (OK,)

    def cuCtxPopCurrent(self) -> tuple[Any, ...]:
        self.calls.append("pop")
        return (OK, self.contexts.pop())

    def cuCtxSetCurrent(self, context: str) -> tuple[Any, ...]:
        self.calls.append("set")
        self.contexts[:] = [context]
        return (OK,)

    def cuLaunchKernel(
        self,
        f: int,
        gx: int,
        gy: int,
        gz: int,
        bx: int,
        by: int,
        bz: int,
        shared: int,
        stream: int,
        pointers: bytes,
        extra: int,
    ) -> tuple[CUresult]:
        self.calls.append("launch")
        (address,) = struct.unpack("P", pointers)
        assert extra == 0
        answer = self.answers.pop(0) if self.answers else OK
        if answer == OK:
            told = ctypes.string_at(address, self.size)
            self.launches.append(Launch(f, (gx, gy, gz), (bx, by, bz), shared, stream, told))
        return (answer,)


@dataclass
class Here:
    """Stands for torch's GPUs: every tensor is on one that is current, or is not."""

    now: int = HERE
    captured: bool = False
    architectures: dict[Any, str] = field(default_factory=dict)

    def current(self) -> int:
        return self.now

    def stream(self, index: int) -> int:
        return 7000 + index

    def capturing(self, index: int) -> bool:
        return self.captured

    def architecture(self, index: int) -> str:
        return self.architectures.get(index, "sm_90")


class OnTensorsOfTheCpu(Nvidia):
    """The driver itself, but for where its tensors are."""

    def serves(self, tensor: torch.Tensor) -> bool:
        return tensor.is_cpu


@dataclass
class Bench:
    cuda: Cuda
    here: Here
    chip: Nvidia
    compiled: list[tuple[Form, str]]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A driver on a stand-in, and what was compiled for it."""
    cuda, here = Cuda(), Here()
    compiled: list[tuple[Form, str]] = []

    def binary(form: Form, architecture: str) -> bytes:
        compiled.append((form, architecture))
        cuda.size = layout_of(form).itemsize
        return f"{form} for {architecture}".encode()

    chip = OnTensorsOfTheCpu(cuda, here, binary)
    monkeypatch.setattr(driver, "_driver", chip)
    return Bench(cuda, here, chip, compiled)


def mixup(n: int, seed: int = 0) -> mx.Plan:
    plan = mx.Mixup().draw(np.random.default_rng(seed), mx.Spec(n))
    assert isinstance(plan, mx.Plan)
    return plan


def arguments(form: Form) -> np.ndarray:
    return np.zeros(1, layout_of(form))


def launched(bench: Bench, device: Any = CPU) -> None:
    bench.chip.launch(bench.chip.kernel(FORM, device), (3, 2), 64, arguments(FORM), (None,), torch.zeros(1))


@pytest.mark.parametrize("n", [5, 64, 400])
def test_a_mix_is_one_launch_with_the_plan_among_its_arguments(bench: Bench, n: int) -> None:
    x, plan = torch.zeros(n, 48), mixup(n)
    for again in range(1, 4):  # the first is checked and laid out, the next are like it
        out = mx.mix(x, plan, "b d", backend="cuda")
        assert bench.cuda.calls.count("launch") == len(bench.cuda.launches) == again
        one = bench.cuda.launches[-1]
        ((form, architecture),) = bench.compiled
        told = np.frombuffer(one.arguments, layout_of(form))[0]
        assert (told["x"], told["out"]) == (x.data_ptr(), out.data_ptr())
        words = np.zeros(form.words, np.int32)
        pack(plan, Packing.of(plan), words)
        assert (told["words"] == words).all()
        assert architecture == "sm_90"
        assert one.grid[0] == n
        assert one.grid[1:] == (1, 1)
        assert one.block == (32, 1, 1)
        assert (one.stream, one.shared) == (7000 + HERE, 0)
        assert len(one.arguments) <= 32764


def test_a_plan_too_large_for_the_arguments_lies_in_memory(bench: Bench) -> None:
    n = WORDS[-1]
    plan = mixup(n)
    mx.mix(torch.zeros(n, 4), plan, "b d", backend="cuda")
    (one,) = bench.cuda.launches
    ((form, _),) = bench.compiled
    assert form.words == 0
    assert np.frombuffer(one.arguments, layout_of(form))[0]["plan"] != 0
    assert len(one.arguments) < 1000


def test_a_kernel_is_compiled_and_loaded_once(bench: Bench) -> None:
    for _ in range(3):
        mx.mix(torch.zeros(5, 48), mixup(5), "b d", backend="cuda")
    mx.mix(torch.zeros(9, 48), mixup(9), "b d", backend="cuda")
    assert bench.cuda.calls.count("load") == len(bench.compiled) == 1
    mx.mix(torch.zeros(9, 48, dtype=torch.float16), mixup(9), "b d", backend="cuda")
    assert bench.cuda.calls.count("load") == len(bench.compiled) == 2


def test_devices_of_one_architecture_share_what_is_loaded(bench: Bench) -> None:
    bench.here.architectures = {2: "sm_80"}
    kernels = [bench.chip.kernel(FORM, SimpleNamespace(index=i)) for i in range(4)]
    assert kernels[0] == kernels[1] == kernels[3] != kernels[2]
    assert bench.compiled == [(FORM, "sm_90"), (FORM, "sm_80")]


def test_a_launch_on_another_device_borrows_its_context_and_gives_it_back(bench: Bench) -> None:
    bench.here.now = 3
    for _ in range(2):
        launched(bench)
    assert bench.cuda.calls == ["load", "retain", "push", "launch", "pop", "push", "launch", "pop"]
    bench.cuda.answers = [CUresult.CUDA_ERROR_LAUNCH_FAILED]
    with pytest.raises(MixError):
        launched(bench)
    assert bench.cuda.calls[-1] == "pop"
    assert bench.cuda.contexts == []


def test_a_thread_that_has_not_used_the_gpu_yet_is_given_its_context(bench: Bench) -> None:
    bench.cuda.answers = [CUresult.CUDA_ERROR_INVALID_CONTEXT]
    launched(bench)
    assert bench.cuda.calls == ["load", "launch", "retain", "set", "launch"]
    assert bench.cuda.contexts == [f"context of device {HERE}"]
    assert len(bench.cuda.launches) == 1
    launched(bench)
    assert bench.cuda.calls[5:] == ["launch"]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (CUresult.CUDA_ERROR_OUT_OF_MEMORY, "free memory"),
        (CUresult.CUDA_ERROR_ILLEGAL_ADDRESS, "earlier kernel"),
        (CUresult.CUDA_ERROR_LAUNCH_FAILED, "CUDA_LAUNCH_BLOCKING=1"),
        (CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "mix once before capturing"),
        (CUresult.CUDA_ERROR_INVALID_VALUE, "report it"),
    ],
)
def test_a_launch_that_the_driver_refuses_says_why_and_what_to_do(bench: Bench, code: CUresult, advice: str) -> None:
    bench.cuda.answers = [code]
    with pytest.raises(MixError, match=rf"a launch of 3 x 2 blocks of 64 .*{code.name} \({int(code)}\).*{advice}"):
        launched(bench)
    launched(bench)
    assert len(bench.cuda.launches) == 1


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (CUresult.CUDA_ERROR_INVALID_IMAGE, "newer driver"),
        (CUresult.CUDA_ERROR_NO_BINARY_FOR_GPU, "newer driver"),
        (CUresult.CUDA_ERROR_OUT_OF_MEMORY, "free memory"),
        (CUresult.CUDA_ERROR_NO_DEVICE, "CUDA_VISIBLE_DEVICES"),
        (CUresult.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "restart the machine"),
    ],
)
def test_a_binary_that_does_not_load_says_why_and_is_tried_again(bench: Bench, code: CUresult, advice: str) -> None:
    bench.cuda.loads = code
    with pytest.raises(MixError, match=rf"loading a kernel .*{code.name}.*{advice}"):
        launched(bench)
    assert bench.cuda.launches == []
    bench.cuda.loads = OK
    launched(bench)
    assert len(bench.cuda.launches) == 1


def test_nothing_is_loaded_while_a_stream_is_captured(bench: Bench) -> None:
    bench.here.captured = True
    with pytest.raises(MixValueError, match=r"captured into a CUDA graph.*mix once before capturing"):
        launched(bench)
    assert bench.cuda.calls == bench.compiled == []
    bench.here.captured = False
    launched(bench)
    bench.here.captured = True
    launched(bench)
    assert len(bench.cuda.launches) == 2


def test_threads_that_need_one_kernel_at_a_time_load_it_once(bench: Bench) -> None:
    start, kernels = Barrier(8), []

    def ask() -> None:
        start.wait()
        kernels.append(bench.chip.kernel(FORM, CPU))

    threads = [Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kernels == [101] * 8
    assert bench.cuda.calls == ["load"]


def test_the_driver_serves_cuda_tensors_and_not_those_of_rocm(monkeypatch: pytest.MonkeyPatch) -> None:
    chip, gpu = Nvidia(), SimpleNamespace(is_cuda=True)
    assert chip.serves(gpu)  # type: ignore[arg-type]  # a tensor on a GPU cannot be made here
    assert not chip.serves(torch.zeros(1))
    monkeypatch.setattr(nvidia.torch.version, "hip", "6.4")
    assert not chip.serves(gpu)  # type: ignore[arg-type]


def test_the_bindings_hand_a_launch_to_the_driver_as_it_was_meant(tmp_path: Path) -> None:
    """Through the real cuda.bindings and the real compiler, to a libcuda that only keeps what it is asked."""
    here = Path(__file__).parent
    built = tmp_path / "libcuda.so.1"
    subprocess.run(["g++", "-shared", "-fPIC", here / "shim" / "libcuda.cpp", "-o", built], check=True)
    paths = {"LD_LIBRARY_PATH": str(tmp_path), "MIXOPS_CACHE_DIR": str(tmp_path / "kernels")}
    command = [sys.executable, here / "driver_trip.py"]
    done = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "grid": [4, 1, 1],
        "block": [32, 1, 1],
        "shared": 0,
        "function": 0x1001,
        "stream": 0x7000,
        "extra": None,
        "right": [True, True],
        "refused": "a launch of 4 x 1 blocks of 32 on the GPU failed with CUDA_ERROR_OUT_OF_MEMORY (2): "
        "free memory on the GPU, or mix smaller batches",
        "launches": 3,
        "loads": 1,
        "missing": None,
    }
