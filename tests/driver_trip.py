"""One process that mixes through the real cuda.bindings, on a libcuda that runs nothing; prints what it was asked."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import numpy as np
import torch

import mixops as mx
from mixops.backends.cuda import available, driver
from mixops.backends.cuda.compiling import binary
from mixops.backends.cuda.form import Form
from mixops.backends.cuda.nvidia import Nvidia
from mixops.backends.cuda.recipe import layout_of


class Last(ctypes.Structure):
    """struct Last of libcuda.cpp."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("function", ctypes.c_void_p),
        ("stream", ctypes.c_void_p),
        ("extra", ctypes.c_void_p),
        ("arguments", ctypes.c_ubyte * 32764),
    )


class Here:
    """A device that is current, with a stream."""

    def current(self) -> int:
        return -1

    def stream(self, index: int) -> int:
        return 0x7000

    def capturing(self, index: int) -> bool:
        return False

    def architecture(self, index: int) -> str:
        return "sm_90"


class OnTensorsOfTheCpu(Nvidia):
    def serves(self, tensor: torch.Tensor) -> bool:
        return tensor.is_cpu


def main() -> None:
    libcuda: Any = ctypes.CDLL("libcuda.so.1")
    libcuda.last.restype = ctypes.POINTER(Last)
    forms: list[Form] = []

    def made(form: Form, architecture: str) -> bytes:
        forms.append(form)
        libcuda.expect(layout_of(form).itemsize)
        return binary(form, architecture)

    driver._driver = OnTensorsOfTheCpu(devices=Here(), binary=made)
    x = torch.zeros(4, 48)
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4), lam=0.75, partner=[1, 0, 3, 2])
    right = []
    for _ in range(2):
        out = mx.mix(x, plan, "b d", backend="cuda")
        one = libcuda.last().contents
        told = np.frombuffer(bytes(one.arguments)[: layout_of(forms[0]).itemsize], layout_of(forms[0]))[0]
        right.append(
            (int(told["x"]), int(told["out"])) == (x.data_ptr(), out.data_ptr())
            and told["words"][:16].reshape(4, 4)[:, 2].tolist() == [1, 0, 3, 2]
            and told["words"][:16].view(np.float32).reshape(4, 4)[:, 3].tolist() == [0.25] * 4
        )
    try:
        mx.mix(x, plan, "b d", backend="cuda")
        refused = ""
    except mx.MixError as error:
        refused = str(error)
    seen = {name: list(getattr(one, name)) for name in ("grid", "block")}
    seen |= {name: getattr(one, name) for name in ("shared", "function", "stream", "extra")}
    print(
        json.dumps(
            seen
            | {"right": right, "refused": refused, "launches": libcuda.count_launches(), "loads": libcuda.count_loads()}
            | {"missing": available.missing((9, 0), "13.0")}
        )
    )


if __name__ == "__main__":
    main()
