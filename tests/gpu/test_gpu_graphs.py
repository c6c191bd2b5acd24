"""On a GPU: CUDA graphs. A captured mix reads whatever plan was written last; a plan by value is refused."""

from __future__ import annotations

from typing import Any

import naive
import numpy as np
import pytest
import torch
from conftest import data, from_cuda, to_cuda

import mixops as mx

pytestmark = pytest.mark.gpu

OPERATORS = {
    "mixup": mx.Mixup(),
    "per sample": mx.OneOf([mx.Mixup(), mx.CutMix()], per="sample"),
    "fills": mx.CutMix() | mx.Cutout(3, fill=5),
    "noise": mx.RandomErasing(noise="pixel"),
}


def drawn(op: mx.Operator, seed: int, n: int = 6) -> Any:
    return op.draw(np.random.default_rng(seed), mx.Spec(n, (8, 16)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("name", OPERATORS)
def test_a_replay_mixes_by_the_plan_that_was_written_last(name: str, dtype: str) -> None:
    x = data(dtype, (6, 3, 8, 16))
    held, static = mx.DevicePlan(drawn(OPERATORS[name], 0)), to_cuda(x)
    mx.mix(static, held, "b c h w")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mixed = mx.mix(static, held, "b c h w")
    for seed in range(5):
        held.write(drawn(OPERATORS[name], seed))
        x = data(dtype, (6, 3, 8, 16), seed)
        static.copy_(to_cuda(x))
        graph.replay()
        naive.mix(x, held.plan, "b c h w").check(from_cuda(mixed))


def test_a_replay_mixes_in_place_and_normalises() -> None:
    flips = [mx.CutMix(per="pair", pairing="flip").draw(np.random.default_rng(s), mx.Spec(6, (8, 16))) for s in (0, 1)]
    to = mx.Output("b h w c", "float16", mean=(0.1, 0.2, 0.3), std=0.5)
    held, other = mx.DevicePlan(flips[0], in_place=True), mx.DevicePlan(drawn(mx.Mixup(), 0))
    static = torch.zeros(6, 3, 8, 16, device="cuda")

    def step() -> torch.Tensor:
        return mx.mix(mx.mix(static, held, "b c h w", out=static), other, "b c h w", to=to)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    for seed, plan in enumerate(flips):
        x = data("float32", (6, 3, 8, 16), seed)
        static.copy_(to_cuda(x))
        held.write(plan)
        other.write(drawn(mx.Mixup(), seed))
        graph.replay()
        between = from_cuda(static)
        naive.mix(x, plan, "b c h w").check(between)
        naive.mix(between, other.plan, "b c h w", to=to).check(from_cuda(result))


def test_what_would_be_frozen_or_needs_a_compiler_is_refused_while_a_graph_is_captured() -> None:
    static, plan = torch.zeros(6, 3, 8, 16, device="cuda"), drawn(mx.Mixup(), 0)
    mx.mix(static, plan, "b c h w")
    held, odd = mx.DevicePlan(plan), torch.zeros(6, 31, device="cuda", dtype=torch.float64)
    flat = mx.DevicePlan(mx.Mixup().draw(np.random.default_rng(0), mx.Spec(6)))
    held.write(plan)
    torch.cuda.synchronize()
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        with pytest.raises(mx.MixError, match="DevicePlan"):
            mx.mix(static, plan, "b c h w")
        with pytest.raises(mx.MixError, match="capture"):
            held.write(plan)
        with pytest.raises(mx.MixError, match="before"):
            mx.mix(odd, flat, "b d", to=mx.Output("b d", "float16", mean=0.123))
        static.add_(0)
