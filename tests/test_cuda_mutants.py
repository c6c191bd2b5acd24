"""The tests of the kernel notice when one of its words is wrong: a few that are easily got wrong, each changed."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from conftest import data, from_torch, to_torch
from host_chip import on_the_host
from kernel_cases import made_plan

import mixops as mx
from mixops.backends.cuda import again
from mixops.backends.cuda.form import MAIN, sources

#: What is wrong: the text of mix.cu, and what stands in its place.
MUTANTS = {
    "a box begins with the vector": ("first(high) & ~first(low)", "first(high)"),
    "a box ends one later": ("at >= start && at < stop) mask", "at >= start && at <= stop) mask"),
    "a vector stays in its line": ("across = crosses(p, patch, ++line);", "across = crosses(p, patch, line);"),
    "what is partly covered is not read": ("if (only == ALL) hidden", "if (only) hidden"),
    "a paste by arithmetic": ("VALID || o != 1.f", "true"),
    "bytes are cut off": ("32768u) >> 16", "0u) >> 16"),
    "donors are read in vectors that begin between": ("if (shift % VEC) {", "if (false) {"),
    "noise stands still along a vector": ("position_of(p, item + i)", "position_of(p, item)"),
    "channels change places": ("row + c * p.plane", "row + (CHANNELS - 1 - c) * p.plane"),
    "a factor is kept over the channel's end": ("(unsigned)i == left", "(unsigned)i == left + 1"),
}


def every_kind_of_mix(instead: tuple[str, str] = ("", "")) -> None:
    """Small mixes that every part of the kernel takes part in, held to the loops."""
    mean = (0.1, 0.2, 0.3)
    fills = [mx.Fill((3.0, 200.0, 90.0), "pixel", 40.0, 5), mx.Fill(7.0)]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        for dtype, layout, shape, to in (
            ("float32", "b c h w", (3, 3, 8, 6), None),  # with NaN, which is pasted or takes no part
            ("uint8", "b h w c", (3, 8, 4, 3), mx.Output("b c h w", "float32", mean=mean)),
            ("uint8", "b c h w", (3, 3, 4, 6), None),
            ("float16", "b c h w", (3, 4, 3, 2), mx.Output("b c h w", "float32", std=(*mean, 0.4))),
        ):
            x, axes = data(dtype, shape), dict(zip(layout.split(), shape, strict=True))
            if dtype == "float32":
                x[0] = np.nan
            pastes = {"opacities": (1.0, 0.0)} if dtype == "float32" else {}
            painted = fills if axes["c"] == 3 else fills[1:]
            check(x, made_plan(rng, 3, (axes["h"], axes["w"]), 2, painted, **pastes), layout, to, instead)
    box, donor = np.array([[[0, 6, 0, 6]]] * 3), np.array([[[1, 7, 0, 6]]] * 3)  # a line of 6 lower: no whole vectors
    lower = mx.Plan(np.arange(3), [[1], [2], [0]], box, donor, np.ones((3, 1)), np.zeros((3, 1)), (8, 6))
    check(data("float32", (3, 3, 8, 6)), lower, "b c h w", None, instead)


def check(x: np.ndarray, plan: mx.Plan, layout: str, to: mx.Output | None, instead: tuple[str, str]) -> None:
    again._known.clear()
    with on_the_host(instead):
        result = from_torch(mx.mix(to_torch(x), plan, layout, to=to, backend="cuda"))
    naive.mix(x, plan, layout, to=to).check(result)


def test_the_kernel_as_it_is_passes() -> None:
    every_kind_of_mix()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_word_is_noticed(name: str) -> None:
    assert sources()[MAIN].count(MUTANTS[name][0]) == 1, "the text has changed: change it here too"
    with pytest.raises(AssertionError):
        every_kind_of_mix(MUTANTS[name])
