"""The numbers of the CUDA kernel: how it rounds, what cannot leak, and noise to the last bit. Run on the CPU."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conftest import FLOATS, data
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import check, mixed

import mixops as mx
from mixops.noise import normal

KINDS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
#: Numbers at which a rounding to half types can go wrong: ties, subnormals, the largest and what lies beyond, zeros.
EDGES = np.array(
    [
        *(0.0, -0.0, 1.0, -1.0, 65504.0, 65519.99, 65520.0, -65520.0, 6e-8, 2.9802e-8, 2.98024e-8, -1e-8, 6.1e-5),
        *(
            1 + 2.0**-11,
            1 + 3 * 2.0**-11,
            1 + 2.0**-11 + 2.0**-23,
            1 + 2.0**-8,
            1 + 3 * 2.0**-8,
            1 + 2.0**-8 + 2.0**-23,
        ),
        *(3.3895e38, 3.396e38, 3.4e38, -3.4e38, 1e-40, -1e-45, 9.2e-41, np.inf, -np.inf, np.nan),
    ]
)


def bits(x: np.ndarray) -> np.ndarray:
    """As integers, so that zeros differ by their sign; any NaN is the same."""
    width = {2: np.uint16, 4: np.uint32, 8: np.uint64}[x.itemsize]
    nan = np.isnan(x.astype(np.float64))
    return np.where(nan, width(0xFFFF), np.ascontiguousarray(x).view(width))


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("target", ["float16", "bfloat16"])
@pytest.mark.parametrize("source", ["float32", "float64"])
def test_casts_round_once_to_the_nearest_even(source: str, target: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore", invalid="ignore"):
        if source == "float32":
            values = rng.integers(0, 2**32, 64, np.uint32).view(np.float32)
        else:  # near ties of the target, where rounding to float32 in between would go wrong
            near = rng.integers(0, 2**16, 64).astype(np.uint16).view(KINDS[target]).astype(np.float64)
            step = np.abs(near) * (2.0**-11 if target == "float16" else 2.0**-8)
            values = near + step * (1 + rng.choice([-1, 0, 1], 64) * 2.0 ** -rng.integers(20, 45, 64).astype(float))
        ends = EDGES.astype(source)
        x = np.concatenate([values, ends, np.zeros(len(ends) % 2)]).astype(source).reshape(2, -1)
        expected = _rounded(x, target)
    result, _ = mixed(x, mx.Plan.identity(2), "b d", to=mx.Output("b d", target))
    np.testing.assert_array_equal(bits(result), bits(expected))


def _rounded(x: np.ndarray, target: str) -> np.ndarray:
    """Rounded to the nearest of the target, once."""
    if x.dtype == np.float32 or target == "float16":
        return x.astype(KINDS[target])
    # ml_dtypes goes through float32: correct it by choosing the nearest of three neighbours, ties to even.
    first = x.astype(KINDS[target]).view(np.uint16)
    best = first.copy()
    for step in (-1, 1):
        other = (first.astype(np.int64) + step).clip(0, 65535).astype(np.uint16)
        here, there = (np.abs(a.view(KINDS[target]).astype(np.float64) - x) for a in (best, other))
        best = np.where((there < here) | ((there == here) & (other % 2 == 0) & (best % 2 == 1)), other, best)
    return np.where(np.isfinite(first.view(KINDS[target]).astype(np.float64)), best, first).view(KINDS[target])


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_copied_or_pasted_keeps_every_bit(dtype: str) -> None:
    with np.errstate(over="ignore"):
        x = np.stack([EDGES, EDGES[::-1]]).astype(KINDS.get(dtype, np.float64))
    swap = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.0, partner=[1, 0])
    np.testing.assert_array_equal(bits(mixed(x, swap, "b d")[0]), bits(x[::-1]))
    np.testing.assert_array_equal(bits(mixed(x, mx.Plan.identity(2), "b d")[0]), bits(x))


def test_halves_overflow_to_infinity_and_underflow_to_subnormals_and_zeros() -> None:
    half = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.5, partner=[1, 0])
    x = np.array([[65504, 2.0**-24, 2.0**-23, -(2.0**-24), 0.0, -0.0], [65504, 0, 0, 0, -0.0, -0.0]], np.float16)
    expected = np.array([65504, 0, 2.0**-24, -0.0, 0.0, -0.0], np.float16)
    for row in mixed(x, half, "b d")[0]:
        np.testing.assert_array_equal(bits(row), bits(expected))
    doubled, _ = mixed(x, mx.Plan.identity(2), "b d", to=mx.Output("b d", "float16", std=0.5))
    assert np.isposinf(doubled[:, 0]).all()


def test_bytes_blend_to_the_same_integers_as_everywhere() -> None:
    gaps = np.arange(-255, 256)
    x = np.stack([np.maximum(-gaps, 0), np.maximum(gaps, 0)]).astype(np.uint8)  # all that a result depends on
    for lam in (*np.random.default_rng(0).random(40), 1e-5, 0.999, 2.0**-17, 0.5):
        plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=lam, partner=[1, 0])
        np.testing.assert_array_equal(mixed(x, plan, "b d")[0], mx.mix(x, plan, "b d", backend="reference"))


@pytest.mark.parametrize("kind", ["pixel", "channel"])
def test_bytes_saturate_under_noise_and_round_to_the_nearest(kind: str) -> None:
    x, box = data("uint8", (2, 3, 8, 8)), np.array([[[0, 8, 0, 8]]] * 2)
    fills = [mx.Fill(100.0, kind, 200.0, 5)]
    plan = mx.Plan([0, 1], [[-1]] * 2, box, box, np.ones((2, 1)), np.zeros((2, 1)), (8, 8), fills)
    check(x, plan, "b c h w")


# -- what must not leak -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["b c h w", "b h w c"])
def test_a_nan_leaves_no_trace_where_it_takes_no_part(layout: str, dtype: str) -> None:
    x = data(dtype, (3, 4, 8, 16) if layout == "b c h w" else (3, 8, 16, 4))
    where = (slice(None),) if layout == "b c h w" else ()
    x[(1, *where, slice(None), slice(0, 7))] = np.nan  # the donor beside the box
    x[(0, *where, slice(2, 6), slice(7, 13))] = np.nan  # the row under the box
    x[2] = np.nan  # nobody's donor
    edges = [[[2, 6, 7, 13], [0, 8, 0, 16]], [[0, 8, 0, 7], [0, 0, 3, 3]], [[0, 8, 0, 16], [0, 8, 0, 16]]]
    opacity = [[1, 0], [1, 1], [0.5, 1]]
    plan = mx.Plan([0, 1, 2], [[1, 2], [-1, 2], [2, 0]], edges, edges, opacity, np.zeros((3, 2)), (8, 16), 5.0)
    result, _ = mixed(x, plan, layout)
    finite = np.isfinite(result.astype(np.float64))
    assert finite[1].all()
    assert finite[0].all()
    assert (finite[2] == np.isfinite(x[0].astype(np.float64))).all()
    check(x, plan, layout)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_nan_that_takes_part_is_seen(dtype: str) -> None:
    x = data(dtype, (2, 64))
    x[1, 5] = np.nan
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.5, partner=[1, 0])
    assert np.isnan(mixed(x, plan, "b d")[0][:, 5].astype(np.float32)).all()


# -- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target_layout", [None, *(" ".join(p) for p in permutations("bchw") if p[0] == "b")])
@pytest.mark.parametrize("layout", ["b c h w", "b h w c", "b w h c"])
def test_noise_is_that_of_the_core_bit_for_bit_however_it_lies(layout: str, target_layout: str | None) -> None:
    extent = {"b": 2, "c": 3, "h": 8, "w": 4}
    x = np.zeros([extent[a] for a in layout.split()], np.float32)
    key = 0xFEDCBA9876543210
    plan = mx.Cutout(fraction=1.0, edge="inside", fill=0).draw(np.random.default_rng(0), mx.Spec(2, (8, 4)))
    for kind in ("pixel", "channel"):
        noisy = mx.Plan(*_arrays(plan), fills=[mx.Fill(0.5, kind, 3.0, key)])
        position = np.arange(32).reshape(8, 4) if kind == "pixel" else np.zeros((8, 4), int)
        expected = np.float32(0.5) + np.float32(3.0) * normal(key, np.arange(3)[:, None, None], position)
        to = None if target_layout is None else mx.Output(target_layout, "float32")
        result, _ = mixed(x, noisy, layout, to=to)
        names = (target_layout or layout).split()
        moved = result.transpose([names.index(a) for a in "bchw"])
        box = plan.box[0, 0]
        inside = (0, slice(None), slice(*box[:2]), slice(*box[2:]))
        np.testing.assert_array_equal(bits(moved[inside]), bits(expected[inside[1:]]))
        assert box[1] - box[0] >= 4


def _arrays(plan: mx.Plan) -> tuple[Any, ...]:
    return (plan.base, plan.partner, plan.box, plan.donor, plan.opacity, plan.weight, plan.shape)
