"""On a GPU: streams, plans that are copied there, and mixes that follow one another faster than they run."""

from __future__ import annotations

from threading import Thread

import naive
import numpy as np
import pytest
import torch
from conftest import data, from_cuda, to_cuda

import mixops as mx

pytestmark = pytest.mark.gpu

#: Clock ticks that keep a stream busy for a good tenth of a second: whoever does not wait for it comes too early.
LONG = 200_000_000


def drawn(seed: int, n: int = 8) -> mx.Plan:
    plan = mx.CutMix(per="sample").draw(np.random.default_rng(seed), mx.Spec(n, (8, 16)))
    assert isinstance(plan, mx.Plan)
    return plan


def test_a_mix_on_a_side_stream_sees_what_that_stream_has_written() -> None:
    x, plan = data("float32", (8, 3, 8, 16)), drawn(0)
    source, side = to_cuda(x), torch.cuda.Stream()
    mx.mix(source, plan, "b c h w")
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        late = torch.zeros_like(source)
        torch.cuda._sleep(LONG)
        late.copy_(source)
        mixed = mx.mix(late, plan, "b c h w")
    assert not side.query(), "nothing waited for the mix"
    side.synchronize()
    naive.mix(x, plan, "b c h w").check(from_cuda(mixed))


def test_two_streams_do_not_meet() -> None:
    streams = [torch.cuda.Stream() for _ in range(2)]
    sources = [data("float32", (8, 3, 8, 16), seed) for seed in range(2)]
    there = [to_cuda(x) for x in sources]
    torch.cuda.synchronize()
    results: list[tuple[int, mx.Plan, torch.Tensor]] = []
    for seed in range(40):
        which = seed % 2
        with torch.cuda.stream(streams[which]):
            plan = drawn(seed)
            results.append((which, plan, mx.mix(there[which], plan, "b c h w")))
    torch.cuda.synchronize()
    for which, plan, mixed in results:
        naive.mix(sources[which], plan, "b c h w").check(from_cuda(mixed))


def test_threads_with_streams_of_their_own_do_not_meet() -> None:
    x = data("float32", (8, 3, 8, 16))
    there, wrong = to_cuda(x), []
    torch.cuda.synchronize()

    def work(first: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for seed in range(first, first + 25):
                plan = drawn(seed)
                mixed = mx.mix(there, plan, "b c h w")
                torch.cuda.current_stream().synchronize()
                try:
                    naive.mix(x, plan, "b c h w").check(from_cuda(mixed))
                except AssertionError as error:
                    wrong.append(error)

    threads = [Thread(target=work, args=(100 * i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("n", [8, 3000])
def test_plans_stay_whole_while_the_host_runs_ahead(n: int) -> None:
    """Those of 3000 rows are copied through pinned memory, which must not be used again before the copy is made."""
    x = data("float32", (n, 16))
    there = to_cuda(x)
    op = mx.Mixup(per="sample")
    plans = [op.draw(np.random.default_rng(seed), mx.Spec(n)) for seed in range(20)]
    mx.mix(there, plans[0], "b d")
    torch.cuda.synchronize()
    torch.cuda._sleep(LONG)
    mixed = [mx.mix(there, plan, "b d") for plan in plans]
    assert not torch.cuda.current_stream().query(), "the host did not wait"
    for plan, result in zip(plans, mixed, strict=True):
        np.testing.assert_allclose(from_cuda(result), mx.mix(x, plan, "b d", backend="cpu"), rtol=1e-5, atol=1e-5)


def test_a_device_plan_written_while_the_device_is_busy_reaches_the_mixes_that_follow() -> None:
    x, plans = data("float32", (8, 3, 8, 16)), [drawn(seed) for seed in range(10)]
    there, held = to_cuda(x), mx.DevicePlan(plans[0])
    mx.mix(there, held, "b c h w")
    torch.cuda.synchronize()
    torch.cuda._sleep(LONG)
    mixed = []
    for plan in plans:
        held.write(plan)
        mixed.append(mx.mix(there, held, "b c h w"))
    assert not torch.cuda.current_stream().query(), "the host did not wait"
    for plan, result in zip(plans, mixed, strict=True):
        naive.mix(x, plan, "b c h w").check(from_cuda(result))
