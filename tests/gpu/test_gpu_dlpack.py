"""On a GPU: arrays of other libraries, their streams, and tensors on several devices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from frames import gpu_libraries

import mixops as mx

pytestmark = pytest.mark.gpu

PLAN = mx.CutMix(1.0).draw(np.random.default_rng(0), mx.Spec(8, (32, 32)))
IMAGES = np.random.default_rng(1).normal(size=(8, 3, 32, 32)).astype(np.float32)
EXPECTED = mx.mix(IMAGES, PLAN, "b c h w")
#: Clock ticks that keep a stream busy for a good tenth of a second: whoever does not wait for it comes too early.
LONG = 200_000_000


class Streamed:
    """An array of a library that does all its work on one stream of its own."""

    side: torch.cuda.Stream

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self.tensor.device.index)

    def __dlpack__(self, *, stream: int, max_version: Any = None) -> Any:
        with torch.cuda.stream(self.side):
            return self.tensor.__dlpack__(stream=stream, max_version=max_version)

    def __array_namespace__(self) -> Any:
        def from_dlpack(tensor: torch.Tensor) -> Streamed:
            return Streamed(torch.utils.dlpack.from_dlpack(tensor.__dlpack__(stream=self.side.cuda_stream)))

        return SimpleNamespace(from_dlpack=from_dlpack)


@pytest.mark.parametrize("in_place", [False, True])
def test_both_streams_wait_for_one_another(in_place: bool) -> None:
    plan = mx.Mixup(pairing="flip").draw(np.random.default_rng(0), mx.Spec(8))
    Streamed.side = torch.cuda.Stream()
    late = torch.from_numpy(IMAGES).cuda()
    torch.cuda.synchronize()
    with torch.cuda.stream(Streamed.side):
        tensor = torch.zeros_like(late)
        torch.cuda._sleep(LONG)
        tensor.copy_(late)
        x = Streamed(tensor)
    torch.cuda._sleep(LONG)  # the kernel comes late, and its reader must wait
    mixed = mx.mix(x, plan, "b c h w", out=x if in_place else None)
    with torch.cuda.stream(Streamed.side):
        seen = mixed.tensor.clone()
    torch.cuda.synchronize()
    assert (mixed is x) == in_place
    np.testing.assert_array_equal(seen.cpu().numpy(), mx.mix(torch.from_numpy(IMAGES).cuda(), plan, "b c h w").cpu())


def test_what_was_lent_may_be_dropped_at_once() -> None:
    Streamed.side = torch.cuda.Stream()
    torch.cuda._sleep(LONG)
    mixed = mx.mix(Streamed(torch.from_numpy(IMAGES).cuda()), PLAN, "b c h w")
    filled = [torch.full((8, 3, 32, 32), float(i), device="cuda") for i in range(8)]  # takes what is free
    torch.cuda.synchronize()
    np.testing.assert_array_equal(mixed.tensor.cpu().numpy(), EXPECTED)
    assert len(filled) == 8


def test_arrays_of_the_installed_libraries_come_back_as_they_were() -> None:
    for asarray in gpu_libraries().values():
        for dtype in ("float32", "float16", "uint8", "bool"):
            x = IMAGES.astype(dtype) if dtype != "uint8" else (IMAGES * 50 + 128).clip(0, 255).astype(dtype)
            there = asarray(x)
            mixed = mx.mix(there, PLAN, "b c h w")
            assert type(mixed) is type(there)
            back = mixed.get() if hasattr(mixed, "get") else np.asarray(mixed)
            np.testing.assert_array_equal(back, mx.mix(x, PLAN, "b c h w"))


def test_every_device_mixes_whichever_is_current() -> None:
    for index in range(torch.cuda.device_count()):
        x = torch.from_numpy(IMAGES).to(f"cuda:{index}")
        mixed = mx.mix(x, PLAN, "b c h w")
        assert mixed.device == x.device
        np.testing.assert_array_equal(mixed.cpu().numpy(), EXPECTED)
        Streamed.side = torch.cuda.Stream(x.device)
        lent = mx.mix(Streamed(x), PLAN, "b c h w")
        torch.cuda.synchronize(x.device)
        np.testing.assert_array_equal(lent.tensor.cpu().numpy(), EXPECTED)
        assert torch.cuda.current_device() == 0


def test_out_and_samples_elsewhere_are_refused() -> None:
    there = torch.from_numpy(IMAGES).cuda()
    with pytest.raises(mx.MixTypeError, match="out is Tensor on cpu, expected a tensor on cuda:0"):
        mx.mix(there, PLAN, "b c h w", out=torch.empty(IMAGES.shape))
    with pytest.raises(mx.MixValueError, match="samples lie on cpu and cuda:0"):
        mx.mix([there[0], *torch.from_numpy(IMAGES[1:])], PLAN, "b c h w")
    if torch.cuda.device_count() > 1:
        with pytest.raises(mx.MixTypeError, match="out is Tensor on cuda:1, expected a tensor on cuda:0"):
            mx.mix(there, PLAN, "b c h w", out=torch.empty(IMAGES.shape, device="cuda:1"))
