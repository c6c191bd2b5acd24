"""On a GPU: torch.compile without a break in the graph, with whatever plan was written, and its gradients."""

from __future__ import annotations

from collections.abc import Iterator

import naive
import numpy as np
import pytest
import torch
from conftest import data, from_cuda, to_cuda

import mixops as mx

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def drawn(seed: int) -> mx.Plan:
    plan = (mx.Mixup() | mx.Cutout(3, per="batch", fill=2)).draw(np.random.default_rng(seed), mx.Spec(6, (8, 16)))
    assert isinstance(plan, mx.Plan)
    return plan


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_function_mixes_by_the_plan_that_was_written_last(mode: str) -> None:
    held = mx.DevicePlan(drawn(0))

    @torch.compile(fullgraph=True, mode=mode)
    def step(x: torch.Tensor) -> torch.Tensor:
        return mx.mix(x * 2, held, "b c h w") + 1

    for seed in range(5):
        held.write(drawn(seed))
        x = data("float32", (6, 3, 8, 16), seed)
        torch.compiler.cudagraph_mark_step_begin()
        result = from_cuda(step(to_cuda(x)).clone()) - 1
        expected = naive.mix(x * 2, held.plan, "b c h w").values
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_gradients_flow_through_a_compiled_function() -> None:
    held = mx.DevicePlan(drawn(0), gradients=True)
    step = torch.compile(lambda x: mx.mix(x, held, "b c h w").square().sum(), fullgraph=True)
    for seed in range(3):
        held.write(drawn(seed))
        x = to_cuda(data("float32", (6, 3, 8, 16), seed)).requires_grad_()
        (mine,) = torch.autograd.grad(step(x), x)
        (wanted,) = torch.autograd.grad(mx.mix(x, held.plan, "b c h w", backend="torch").square().sum(), x)
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-5)


def test_gradients_of_a_plan_are_those_of_torch_operations() -> None:
    plan, x = drawn(3), to_cuda(data("float32", (6, 3, 8, 16))).requires_grad_()
    (mine,) = torch.autograd.grad(mx.mix(x, plan, "b c h w", backend="cuda").square().sum(), x)
    (wanted,) = torch.autograd.grad(mx.mix(x, plan, "b c h w", backend="torch").square().sum(), x)
    torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-5)
