"""Random valid plans, made by hand and not by an operator, on every backend against the plan as plain loops."""

from __future__ import annotations

from typing import Any

import naive
import numpy as np
from conftest import Engine, data, plans
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx


@given(plans(), st.sampled_from(["float32", "float64", "float16", "bfloat16", "uint8"]))
def test_any_valid_plan_gives_what_the_loops_give(engine: Engine, drawn_plan: Any, dtype: str) -> None:
    plan, layout, shape = drawn_plan
    x = data(dtype, shape)
    naive.mix(x, plan, layout).check(engine.numpy(engine.mix(engine.array(x), plan, layout)))


@given(plans())
def test_any_plan_that_may_run_in_place_gives_the_same_there(engine: Engine, drawn_plan: Any) -> None:
    plan, layout, shape = drawn_plan
    x = data("float32", shape)
    work = engine.array(x.copy())
    try:
        engine.mix(work, plan, layout, out=work)
    except mx.MixError:
        np.testing.assert_array_equal(engine.numpy(work), x, "a refused mix has written")
        return
    naive.mix(x, plan, layout).check(engine.numpy(work))


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
