"""The CUDA kernel on shapes that its vectors fit: of every width, every way to leave, every kind of memory.

The kernel runs on the CPU, thread by thread: see host_chip.py. The table of test_conformance.py runs on it too, but its
extents are odd, so that it hardly meets a vector.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import naive
import numpy as np
import pytest
import torch
from conftest import FLOATS, data, from_torch, to_torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import check, launched, mixed, plans_on

import mixops as mx

WIDTHS = {"float64": 4, "float32": 4, "float16": 8, "bfloat16": 8, "uint8": 16, "int64": 2, "int16": 8, "bool": 16}
VECTORS = [(dtype, vec) for dtype, most in WIDTHS.items() for vec in (16, 8, 4, 2, 1) if vec <= most]
PASTES = (1.0, 1.0, 0.0)
FILLS = [mx.Fill(7.0), mx.Fill((3.0, 200.0, 90.0))]
NOISE = [mx.Fill(9.0, "pixel", 40.0, 11), mx.Fill((3.0, 200.0, 90.0), "channel", 60.0, 2**63 + 5), mx.Fill(5.0)]


def opacities(dtype: str) -> dict[str, Any]:
    return {} if dtype in (*FLOATS, "uint8") else {"opacities": PASTES}


# -- vectors ----------------------------------------------------------------------------------------------------------


@settings(max_examples=9)
@given(draw=st.data())
@pytest.mark.parametrize(("dtype", "vec"), VECTORS)
def test_boxes_cut_vectors_of_every_width_anywhere(dtype: str, vec: int, draw: st.DataObject) -> None:
    # Lines shorter than a vector, of one and a bit, and of several.
    c, h, w = draw.draw(st.sampled_from(((vec, 5, 3), (1, vec, vec + 1 + vec % 2), (3, 3, 3 * vec))))
    x = data("int64", (3, c, h, w), 3).astype(dtype) if dtype in ("int16", "bool") else data(dtype, (3, c, h, w))
    plan = draw.draw(plans_on(3, (h, w), **opacities(dtype)))
    launch = check(x, plan, "b c h w")
    assert (launch.form.vec, launch.form.store) == (vec, "SAME")
    assert launch.written == x.nbytes, "an element was written twice or not at all"
    assert (launch.result["writer"] != 0).all()


@given(st.data())
def test_boxes_on_any_axes_of_any_layout(draw: st.DataObject) -> None:
    layout = draw.draw(
        st.sampled_from(("b t d", "t b d", "b d t", "b t", "b w c h", "h w b c", "b c t h w", "b h t w"))
    )
    dtype = draw.draw(st.sampled_from(("float32", "bfloat16", "uint8")))
    extent = {a: draw.draw(st.sampled_from((1, 2, 4, 8) if a != "b" else (2, 3))) for a in layout.split()}
    axes = [a for a in ("t", "h", "w") if a in extent]
    plan = draw.draw(plans_on(extent["b"], tuple(extent[a] for a in axes)))
    check(data(dtype, tuple(extent.values())), plan, layout)


@given(st.data())
def test_fills_and_noise_in_vectors_of_any_layout(draw: st.DataObject) -> None:
    layout = draw.draw(st.sampled_from(("b c h w", "b h w c", "b c t h w")))
    dtype = draw.draw(st.sampled_from(("float32", "bfloat16", "uint8")))
    extent = {"b": 2, "c": 3, "t": 3, "h": draw.draw(st.sampled_from((2, 8))), "w": draw.draw(st.sampled_from((3, 4)))}
    rank = draw.draw(st.sampled_from((2, 3) if "t" in layout else (2,)))
    shape = tuple(extent[a] for a in ("t", "h", "w")[3 - rank :])
    plan = draw.draw(plans_on(2, shape, k=2, fills=draw.draw(st.sampled_from((FILLS, NOISE)))))
    check(data(dtype, tuple(extent[a] for a in layout.split())), plan, layout)


#: Large ids of every type that float32, in which fills are held, has.
LARGE = {
    **{"int8": -128, "int16": -32767, "int32": -(2**30) - 2**10, "int64": -(2**62) - 2**40, "bool": 1},
    **{"uint8": 255, "uint16": 65535, "uint32": 2**31 + 2**10, "uint64": 2**63 + 2**41},
}


@pytest.mark.parametrize("dtype", LARGE)
def test_ids_of_every_type_are_pasted_and_painted(dtype: str) -> None:
    x = data("int64", (3, 16)).astype(dtype)
    hole = mx.Cutout(3, fill=1).draw(np.random.default_rng(0), mx.Spec(3, (16,)))
    expected = x.copy()
    for row, (start, stop) in zip(expected, hole.box[:, 0], strict=True):
        row[start:stop] = LARGE[dtype]
    np.testing.assert_array_equal(mixed(x, hole, "b t", "discrete", fill=float(LARGE[dtype]))[0], expected)
    check(x, mx.SpanMix(0.4).draw(np.random.default_rng(0), mx.Spec(3, (16,)), lengths=[16, 9, 12]), "b t", "discrete")


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_many_patches_are_painted_in_order(dtype: str) -> None:
    x = data(dtype, (3, 3, 8, 8))
    rng = np.random.default_rng(1)
    edges = np.sort(rng.integers(0, 9, (3, 40, 2, 2)), -1).reshape(3, 40, 4)
    partner, share = rng.integers(-2, 3, (3, 40)), rng.choice([1.0, 0.0, 0.5], (3, 40))
    plan = mx.Plan(np.arange(3), partner, edges, edges, share, np.zeros((3, 40)), (8, 8), FILLS)
    check(x, plan, "b c h w")


# -- ways to leave ----------------------------------------------------------------------------------------------------


def tail(dtype: str, target: str, layout: str, channels: int, which: str) -> mx.Output:
    many = tuple(0.25 * (c + 1) for c in range(channels))
    values: dict[str, dict[str, Any]] = {
        "none": {},
        "one": {"mean": 0.5, "std": 0.25},
        "each": {"mean": many, "std": many},
    }
    return mx.Output(layout, target, **values[which])


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize(("source", "target"), [("uint8", "float32"), ("uint8", "bfloat16"), ("float32", "float16")])
@pytest.mark.parametrize("factors", ["none", "one", "each"])
@pytest.mark.parametrize(
    ("layout", "target_layout", "store"), [("b h w c", "b c h w", "PLANES"), ("b c h w", "b h w c", "PIXELS")]
)
def test_channels_leave_pixels_and_enter_them_in_vectors(
    layout: str, target_layout: str, store: str, factors: str, source: str, target: str, channels: int
) -> None:
    extent = {"b": 2, "c": channels, "h": 8, "w": 6}
    x = data(source, tuple(extent[a] for a in layout.split()))
    plan = mx.CutMix().draw(np.random.default_rng(4), mx.Spec(2, (8, 6)), box=[1, 7, 2, 5], partner=[1, 0])
    launch = check(x, plan, layout, to=tail(source, target, target_layout, channels, factors))
    pixels = launch.form.vec // (channels if store == "PLANES" else 1)
    assert launch.form.store == store
    assert launch.form.channels == channels
    assert pixels == (8 if source == "float32" or (store, channels) == ("PLANES", 4) else 16)
    assert launch.written == x.size * np.dtype("float32" if target == "float32" else "float16").itemsize


@settings(max_examples=60)
@given(st.data())
def test_any_layout_becomes_any_other_with_any_tail(draw: st.DataObject) -> None:
    axes = draw.draw(st.sampled_from(("b c h w", "b c h w", "b c t", "b c t h w")))
    layouts = [" ".join(p) for p in permutations(axes.split())]
    layout, target_layout = draw.draw(st.sampled_from(layouts)), draw.draw(st.sampled_from(layouts))
    size = st.sampled_from((1, 2, 3, 4, 8))
    extent = {a: draw.draw(size) for a in axes.split()} | {"b": 2}
    source = draw.draw(st.sampled_from(("uint8", "float32", "float16", "float64")))
    target = draw.draw(st.sampled_from(("float32", "bfloat16", "float64", "float16")))
    fills = draw.draw(st.sampled_from(([], [mx.Fill(7.0, "pixel", 30.0, 3), mx.Fill(9.0)])))
    shape = tuple(extent[a] for a in ("t", "h", "w") if a in extent)
    plan = draw.draw(plans_on(2, shape, fills=fills))
    to = tail(source, target, target_layout, extent["c"], draw.draw(st.sampled_from(("none", "one", "each"))))
    launch = check(data(source, tuple(extent[a] for a in layout.split())), plan, layout, to=to)
    assert (launch.result["writer"] != 0).all()


@pytest.mark.parametrize("channels", [5, 7])
@pytest.mark.parametrize("target_layout", ["b c h w", "b h w c"])
@pytest.mark.parametrize("layout", ["b c h w", "b h w c"])
def test_more_channels_than_arguments_hold_are_normalised_from_memory(
    layout: str, target_layout: str, channels: int
) -> None:
    extent = {"b": 2, "c": channels, "h": 4, "w": 8}
    plan = mx.CutMix().draw(np.random.default_rng(4), mx.Spec(2, (4, 8)))
    to = tail("uint8", "float32", target_layout, channels, "each")
    launch = check(data("uint8", tuple(extent[a] for a in layout.split())), plan, layout, to=to)
    assert launch.form.factors == 3


@pytest.mark.parametrize("channels", [2, 4, 6])
@pytest.mark.parametrize("target_layout", ["b h c w", "b h w c"])
def test_a_vector_may_span_channels_and_lines_of_them(target_layout: str, channels: int) -> None:
    x = data("float16", (2, 4, channels, 3))
    plan = mx.CutMix().draw(np.random.default_rng(4), mx.Spec(2, (4, 3)))
    launch = check(x, plan, "b h c w", to=tail("float16", "float32", target_layout, channels, "each"))
    assert launch.form.vec == (8 if target_layout == "b h c w" else 1)


# -- memory -----------------------------------------------------------------------------------------------------------

MIXUP = mx.Mixup(per="sample").draw(np.random.default_rng(2), mx.Spec(4), lam=np.array([0.5, 1.0, 0.0, 0.3]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8", "float64"])
@pytest.mark.parametrize("skipped", range(1, 9))
def test_sources_that_begin_anywhere_are_read_in_vectors_that_fit(dtype: str, skipped: int) -> None:
    flat = data(dtype, (4 * 96 + skipped,))
    x = to_torch(flat)[skipped:].view(4, 96)
    result, (launch,) = launched(x, MIXUP, "b d")
    naive.mix(flat[skipped:].reshape(4, 96), MIXUP, "b d").check(from_torch(result))
    width = np.dtype(flat.dtype).itemsize
    assert launch.form.vec == next(
        v for v in (16, 8, 4, 2, 1) if v <= WIDTHS[dtype] and x.data_ptr() % min(16, v * width) == 0
    )


def test_rows_of_odd_size_and_their_tails_are_read_one_by_one() -> None:
    x = data("float32", (5, 3, 7))
    for rows in (to_torch(x)[1:], to_torch(x)):
        plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(len(rows)), lam=0.3)
        result, (launch,) = launched(rows, plan, "b t d")
        naive.mix(from_torch(rows), plan, "b t d").check(from_torch(result))
        assert launch.form.vec == 1


def test_rows_apart_from_one_another_are_read_where_they_are() -> None:
    wide = data("float32", (4, 104))
    result, (launch,) = launched(to_torch(wide)[:, 4:100], MIXUP, "b d")
    naive.mix(wide[:, 4:100], MIXUP, "b d").check(from_torch(result))
    assert launch.form.vec == 4
    assert launch.read == 4 * 96 * 4 + 2 * 96 * 4, "rows 0 and 3 read two rows, the others one"


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_out_may_lie_apart_too_and_nothing_beside_it_is_written(dtype: str) -> None:
    x, wide = data(dtype, (4, 96)), np.full((4, 104), 77, dtype)
    out = to_torch(wide)[:, 5:101]
    launched(to_torch(x), MIXUP, "b d", out=out)
    naive.mix(x, MIXUP, "b d").check(wide[:, 5:101])
    assert (wide[:, :5] == 77).all()
    assert (wide[:, 101:] == 77).all()


def test_one_row_repeated_is_read_as_often_as_it_stands() -> None:
    one = data("float32", (1, 3, 4, 8))
    result, (launch,) = launched(to_torch(one).expand(4, 3, 4, 8), MIXUP, "b c h w")
    naive.mix(np.repeat(one, 4, 0), MIXUP, "b c h w").check(from_torch(result))
    assert len(launch.source) == one.nbytes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_channels_last_stays_and_is_moved_in_vectors(dtype: str) -> None:
    x = data(dtype, (4, 3, 8, 16))
    plan = mx.CutMix(per="sample").draw(np.random.default_rng(0), mx.Spec(4, (8, 16)))
    given_x = to_torch(x).contiguous(memory_format=torch.channels_last)
    result, (launch,) = launched(given_x, plan, "b c h w")
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert (launch.form.store, launch.form.vec) == ("SAME", WIDTHS[dtype])
    naive.mix(x, plan, "b c h w").check(from_torch(result))


def test_lists_and_rows_of_a_source_take_one_launch() -> None:
    source, rows = data("float32", (9, 3, 4, 8)), np.array([8, 1, 1, 4])
    plan = mx.CutMix(per="sample").draw(np.random.default_rng(0), mx.Spec(4, (4, 8)))
    for x in (to_torch(source), list(to_torch(source))):
        result, launches = launched(x, plan.on(rows), "b c h w")
        naive.mix(source[rows], plan, "b c h w").check(from_torch(result))
        assert len(launches) == 1


# -- plans of any size ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "words"), [(1, 256), (60, 256), (200, 1024), (1000, 4096), (1900, 7936), (3000, 0)])
def test_plans_travel_as_arguments_as_long_as_they_fit(n: int, words: int) -> None:
    x = data("float32", (n, 8))
    plan = mx.Mixup(per="sample").draw(np.random.default_rng(n), mx.Spec(n))
    launch = check(x, plan, "b d")
    assert launch.form.words == words
    assert launch.arguments.nbytes <= 32764


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("extent", [65535, 65536, 70001])
def test_boxes_beyond_16_bits(dtype: str, extent: int) -> None:
    x = np.arange(3 * extent).reshape(3, extent).astype(dtype)
    box = np.array([[[5, extent]], [[extent - 3, extent]], [[70, 70]]])
    plan = mx.Plan(np.arange(3), [[1], [2], [0]], box, box, np.ones((3, 1)), np.zeros((3, 1)), (extent,))
    result, launch = mixed(x, plan, "b t", "discrete" if dtype == "int16" else "continuous")
    np.testing.assert_array_equal(result, mx.mix(x, plan, "b t", "discrete" if dtype == "int16" else "continuous"))
    assert launch.form.wide == (extent > 65535)


def test_boxes_beyond_16_bits_on_two_axes() -> None:
    x = np.arange(2 * 3 * 66000).reshape(2, 3, 66000).astype(np.float32)
    box, donor = np.array([[[1, 3, 9, 65990]], [[0, 1, 65999, 66000]]]), np.array([[[0, 2, 3, 65984]], [[2, 3, 0, 1]]])
    plan = mx.Plan([0, 1], [[1], [0]], box, donor, np.ones((2, 1)), np.zeros((2, 1)), (3, 66000))
    np.testing.assert_array_equal(mixed(x, plan, "b h w")[0], mx.mix(x, plan, "b h w"))


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_larger_images_are_what_the_cpu_backend_makes_of_them(dtype: str) -> None:
    x = data(dtype, (3, 64, 64, 3))
    plan = (mx.CutMix(per="sample") | mx.RandomErasing(noise="pixel", fill=90, std=20)).draw(
        np.random.default_rng(6), mx.Spec(3, (64, 64))
    )
    result, _ = mixed(x, plan, "b h w c")
    np.testing.assert_array_equal(result, mx.mix(x, plan, "b h w c"))
    tokens = data("int64", (8, 512))
    spans = mx.SpanMix(0.3).draw(np.random.default_rng(6), mx.Spec(8, (512,)), lengths=np.arange(8) * 60 + 90)
    np.testing.assert_array_equal(mixed(tokens, spans, "b t", "discrete")[0], mx.mix(tokens, spans, "b t", "discrete"))
