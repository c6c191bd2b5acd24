"""How a mix is launched: divisions without dividing, arguments as the kernel lays them out, grids that cover a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import data
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import check, launched

import mixops as mx
from mixops.backends.cuda import engine
from mixops.backends.cuda.recipe import BLOCK, MOST, WORDS, Recipe, divisor, layout_of, recipe_for
from mixops.packing import Packing

DIVISORS = st.one_of(st.integers(1, 300), st.integers(1, MOST), st.integers(0, 30).map(lambda i: 1 << i))


@given(DIVISORS, st.data())
def test_division_is_a_product_and_a_shift(d: int, draw: st.DataObject) -> None:
    mul, shift = divisor(d)
    assert 0 < mul < 1 << 32
    whole = st.integers(0, MOST // d).map(lambda q: q * d)
    for n in (
        0,
        1,
        d - 1,
        d,
        d + 1,
        MOST - 1,
        MOST,
        draw.draw(whole),
        draw.draw(whole) - 1,
        draw.draw(st.integers(0, MOST)),
    ):
        if 0 <= n <= MOST:
            high = n * mul >> 32
            assert high + n < 1 << 32, "the sum must fit 32 bits"
            assert high + n >> shift == n // d


def recipe(shape: tuple[int, ...], layout: str, dtype: torch.dtype, op: mx.Operator | None = None) -> Recipe:
    x = torch.empty(shape, dtype=dtype)
    names = tuple(layout.split())
    plan = (op or mx.Mixup()).draw(np.random.default_rng(0), mx.Spec.like(np.empty(shape), layout))
    made = engine.laid_out(x, names, Packing.of(plan), "continuous", None, torch.empty_like(x))
    assert made is not None
    return made


@pytest.mark.parametrize("elements", [1, 3, 31, 33, 1000, 4096, 4100, 1 << 20, (1 << 24) + 4])
def test_a_grid_covers_every_vector_and_has_no_idle_block(elements: int) -> None:
    made = recipe((3, elements), "b d", torch.float32)
    items = int(made.arguments["items"][0])
    assert items * made.form.vec == elements
    assert made.grid[0] == 3
    assert made.block % 32 == 0
    assert made.block <= BLOCK
    assert 1 <= made.grid[1] <= 65535
    assert (made.grid[1] - 1) * made.block < items, "the last block of a row has something to do"


def test_the_rows_run_fastest_and_pairs_share_a_block() -> None:
    x = torch.empty(7, 64)  # 7 rows take 4 slots of two, packed as a plan of 8
    plan = mx.Mixup(pairing="flip").draw(np.random.default_rng(0), mx.Spec(8))
    made = engine.laid_out(x, ("b", "d"), Packing.of(plan), "continuous", None, x, in_place=True)
    assert made is not None
    assert made.grid[0] == 4


def test_the_same_task_is_laid_out_once() -> None:
    first, second = (recipe((4, 3, 8, 8), "b c h w", torch.uint8, mx.CutMix()) for _ in range(2))
    assert first is second
    assert recipe_for.cache_info().hits > 0


def test_arguments_stay_below_what_a_launch_takes() -> None:
    made = recipe((2, 3, 8, 8), "b c h w", torch.float64, mx.RandomErasing(noise="pixel"))
    for words in WORDS:
        widest = made.form.__class__(**{**vars(made.form), "words": words, "axes": 6})
        assert layout_of(widest).itemsize <= 32764


def test_nothing_to_do_is_no_launch() -> None:
    for shape in ((0, 8), (4, 0)):
        plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(shape[0]))
        result, launches = launched(torch.empty(shape), plan, "b d")
        assert tuple(result.shape) == shape
        assert not launches


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e5m2])
def test_elements_without_a_kernel_go_to_plain_operations(dtype: torch.dtype) -> None:
    x = torch.arange(12, dtype=torch.float32).reshape(3, 4).to(dtype)
    plan = mx.Plan.identity(3)[[2, 0, 1]]
    result, launches = launched(x, plan, "b d")
    assert not launches
    assert (result.to(torch.complex64) == x.to(torch.complex64)[[2, 0, 1]]).all()


def test_threads_stride_over_rows_longer_than_the_grid() -> None:
    launch = check(data("float32", (2, 5000)), mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.3), "b d")
    assert launch.grid[1] * launch.block < 5000 // 4, "some take two vectors"
    assert (launch.result["writer"] != 0).all()
