"""Random valid plans, made by hand and not by an operator, on every backend against the plan as plain loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import naive
import numpy as np
import pytest
from conftest import Engine, data, plans
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx
from mixops.backends import cpu


@given(plans(), st.sampled_from(["float32", "float64", "float16", "bfloat16", "uint8"]))
def test_any_valid_plan_gives_what_the_loops_give(engine: Engine, drawn_plan: Any, dtype: str) -> None:
    plan, layout, shape = drawn_plan
    x = data(dtype, shape)
    naive.mix(x, plan, layout).check(engine.numpy(engine.mix(engine.array(x), plan, layout)))


@contextmanager
def every_result_is_large() -> Iterator[None]:
    """Stream every result past the cache and share every job among threads, as only large ones are."""
    before = cpu.STREAM_FROM, cpu.THREADS_FROM
    cpu.STREAM_FROM = cpu.THREADS_FROM = 0
    try:
        yield
    finally:
        cpu.STREAM_FROM, cpu.THREADS_FROM = before


@given(plans(), st.sampled_from(["float32", "bfloat16", "uint8"]), st.sampled_from([1, 3]))
def test_large_results_are_what_the_loops_give(drawn_plan: Any, dtype: str, threads: int) -> None:
    plan, layout, shape = drawn_plan
    x = data(dtype, shape)
    with every_result_is_large():
        naive.mix(x, plan, layout).check(mx.mix(x, plan, layout, threads=threads))


def test_donors_of_a_large_result_may_lie_behind_its_rows() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(3), lam=0.3)
    behind = mx.Plan(plan.base, 3 + plan.partner, plan.box, plan.donor, plan.opacity, plan.weight, ())
    x = data("float32", (6, 50))
    with every_result_is_large():
        naive.mix(x, behind, "b d").check(mx.mix(x, behind, "b d"))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int64"])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_streaming_holds_for_runs_of_any_length_and_alignment(dtype: str, shift: int) -> None:
    plan = mx.Plan.identity(3) if dtype == "int64" else mx.Mixup().draw(np.random.default_rng(0), mx.Spec(3), lam=0.3)
    for length in (1, 15, 16, 17, 63, 64, 65, 130, 1000):
        x = data(dtype, (3, length + shift))[:, shift:]
        out = np.zeros((3, length + shift), dtype)
        with every_result_is_large():
            mx.mix(x, plan, "b t", out=out[:, shift:])
        naive.mix(x, plan, "b t").check(out[:, shift:])
        assert not out[:, :shift].any(), "it wrote beside its rows"


@given(plans())
def test_any_plan_that_may_run_in_place_gives_the_same_there(writer: Engine, drawn_plan: Any) -> None:
    plan, layout, shape = drawn_plan
    x = data("float32", shape)
    work = writer.array(x.copy())
    try:
        writer.mix(work, plan, layout, out=work)
    except mx.MixError:
        np.testing.assert_array_equal(writer.numpy(work), x, "a refused mix has written")
        return
    naive.mix(x, plan, layout).check(writer.numpy(work))


@given(plans(), st.sampled_from(["float32", "uint8"]), st.sampled_from(["float32", "bfloat16", "float64"]))
def test_any_valid_plan_with_a_tail_gives_what_the_loops_give(
    engine: Engine, drawn_plan: Any, dtype: str, target: str
) -> None:
    plan, layout, shape = drawn_plan
    x = data(dtype, shape)
    to = mx.Output(" ".join(reversed(layout.split())), target, mean=0.5, std=0.25)
    naive.mix(x, plan, layout, to=to).check(engine.numpy(engine.mix(engine.array(x), plan, layout, to=to)))


@given(plans())
def test_ids_survive_any_plan_of_pastes(engine: Engine, drawn_plan: Any) -> None:
    plan, layout, shape = drawn_plan
    pastes = mx.Plan(
        plan.base, plan.partner, plan.box, plan.donor, np.rint(plan.opacity), plan.weight, plan.shape, plan.fills
    )
    x = data("int64", shape)
    result = engine.numpy(engine.mix(engine.array(x), pastes, layout, "discrete"))
    naive.mix(x, pastes, layout, "discrete").check(result)
