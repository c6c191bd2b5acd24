"""Whether the kernel can be used, what is said where it cannot, and what does the work then."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cuda.bindings.driver import CUresult
from torch._subclasses import FakeTensorMode

import mixops as mx
from mixops import MixError, MixTypeError
from mixops.backends import backend_for
from mixops.backends.cuda import available
from mixops.backends.cuda.available import ROCM, missing

PLAN = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4))


def modules(
    compiler: tuple[int, int] = (13, 0), supported: tuple[int, ...] = (75, 80, 90), version: int = 13000, code: int = 0
) -> Callable[[str], Any]:
    """Imports what stands for the two modules of cuda.bindings."""
    nvrtc = SimpleNamespace(nvrtcVersion=lambda: (0, *compiler), nvrtcGetSupportedArchs=lambda: (0, list(supported)))
    driver = SimpleNamespace(cuDriverGetVersion=lambda: (CUresult(code), version))
    return {"cuda.bindings.driver": driver, "cuda.bindings.nvrtc": nvrtc}.__getitem__


def failing(module: str, function: str, error: Exception) -> Callable[[str], Any]:
    def fail() -> None:
        raise error

    def load(name: str) -> Any:
        found = modules()(name)
        if name.endswith(module):
            setattr(found, function, fail)
        return found

    return load


def not_installed(name: str) -> Any:
    raise ModuleNotFoundError(f"No module named {name!r}")


@pytest.mark.parametrize(
    ("compiler", "version"), [((13, 0), 13000), ((13, 2), 13000), ((12, 1), 12010), ((12, 9), 13000), ((12, 4), 12020)]
)
def test_nothing_is_missing_where_driver_and_compiler_are_of_one_generation_or_the_driver_is_newer(
    compiler: tuple[int, int], version: int
) -> None:
    assert missing((9, 0), "13.0", modules(compiler, version=version)) is None


BINDINGS_13 = r'pip install "cuda-bindings==13\.\*" "nvidia-cuda-nvrtc==13\.\*"'


@pytest.mark.parametrize(
    ("load", "says"),
    [
        (not_installed, rf"cuda.bindings.* is not installed: {BINDINGS_13}$"),
        (
            failing("nvrtc", "nvrtcVersion", RuntimeError("Failure finding libnvrtc.so:\n  /lib")),
            rf"NVRTC.*cannot be loaded \(Failure finding libnvrtc.so:\): {BINDINGS_13}$",
        ),
        (modules((12, 0)), rf"NVRTC 12.0 is too old, the kernel needs 12.1 or newer: {BINDINGS_13}$"),
        (
            failing("driver", "cuDriverGetVersion", RuntimeError("Failed to dlopen libcuda.so.1")),
            r"NVIDIA driver cannot be loaded \(Failed to dlopen libcuda.so.1\): install it",
        ),
        (modules(code=3), r"driver does not answer \(CUDA_ERROR_NOT_INITIALIZED\)"),
        (modules(version=12080), r"driver knows CUDA 12\.8 and NVRTC is of CUDA 13\.0: install a newer driver, or"),
        (modules((12, 1), version=12000), r"driver knows CUDA 12\.0 and NVRTC is of CUDA 12\.1"),
        (modules(supported=(100, 120)), r"capability 9\.0, and NVRTC 13\.0 compiles for 10\.0 to 12\.0: torch oper"),
        (modules(supported=(75, 80)), rf"capability 9\.0.* compiles for 7\.5 to 8\.0: a newer one.*{BINDINGS_13}$"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(load: Callable[[str], Any], says: str) -> None:
    why = missing((9, 0), "13.0", load)
    assert why is not None
    with pytest.raises(MixError, match=says):
        raise MixError(why)


def test_what_to_install_is_of_the_cuda_that_torch_was_built_with() -> None:
    assert 'pip install "cuda-bindings==12.*" "nvidia-cuda-nvrtc-cu12"' in str(missing((9, 0), "12.8", not_installed))


def on_gpu(*shape: int) -> torch.Tensor:
    """A tensor that says it is on a GPU, and has no memory."""
    with FakeTensorMode():
        return torch.empty(*shape, device="cuda")


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    def lack(why: str | None) -> None:
        monkeypatch.setattr(available, "reason_on", lambda index: why)
        monkeypatch.setattr(available, "_told", False)

    return lack


def name_of(x: Any) -> str:
    return str(backend_for(x).__name__.rsplit(".", 1)[1]).rstrip("_")


def test_a_tensor_on_a_gpu_goes_to_the_kernel(lacking: Callable[[str | None], None]) -> None:
    lacking(None)
    x = on_gpu(4, 3)
    assert name_of(x) == "cuda"
    assert name_of([x, x]) == "cuda"
    assert name_of(torch.zeros(4, 3)) == "cpu"


def test_without_the_kernel_torch_operations_do_it_and_that_is_said_once(lacking: Callable[[str | None], None]) -> None:
    lacking("NVRTC is gone")
    with pytest.warns(UserWarning, match="torch operations, not with the kernel: NVRTC is gone") as said:
        assert [name_of(on_gpu(4, 3)) for _ in range(3)] == ["torch"] * 3
    assert len(said) == 1


def test_on_rocm_nothing_is_said(lacking: Callable[[str | None], None]) -> None:
    lacking(ROCM)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert name_of(on_gpu(4, 3)) == "torch"


def test_asking_for_the_kernel_where_it_cannot_be_used_is_an_error_that_says_why(
    lacking: Callable[[str | None], None],
) -> None:
    for why in ("NVRTC is gone", ROCM):
        lacking(why)
        with pytest.raises(MixTypeError, match=f'^backend="cuda" on cuda:0: {why}$'):
            backend_for(on_gpu(4, 3), "cuda")
    with pytest.raises(MixTypeError, match=r'backend="cuda" on a tensor on cpu: move it to the GPU'):
        mx.mix(torch.zeros(4, 3), PLAN, "b d", backend="cuda")


def test_a_device_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def capability(index: int) -> tuple[int, int]:
        asked.append(index)
        return (3, 5)

    available.reason_on.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    try:
        answers = [available.reason_on(index) for index in (0, 1, 0, 1)]
    finally:
        available.reason_on.cache_clear()
    assert asked == [0, 1]
    assert answers[0] == answers[2] == answers[1]
    assert answers[0]


def test_a_build_of_torch_for_rocm_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    available.reason_on.cache_clear()
    monkeypatch.setattr(torch.version, "hip", "6.4")
    try:
        assert available.reason(on_gpu(2)) == ROCM
    finally:
        available.reason_on.cache_clear()
