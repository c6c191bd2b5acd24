"""One table: every backend on every operator, dtype, layout and kind of memory, held to the plan as plain loops."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
import torch
from conftest import ENGINES, FLOATS, Engine, data
from operator_table import LAYOUTS, OPERATORS, TABLE, case, drawn, rank_of

import mixops as mx
import mixops.ops


def test_the_table_has_every_operator_of_the_library() -> None:
    classes = {o for o in vars(mixops.ops).values() if inspect.isclass(o) and issubclass(o, mx.Operator)}
    assert classes - {mx.Operator} == {type(row.op) for row in OPERATORS.values()}


@pytest.mark.parametrize(("layout", "name", "dtype"), TABLE)
def test_every_operator_dtype_and_layout_gives_what_the_loops_give(
    engine: Engine, layout: str, name: str, dtype: str
) -> None:
    x, plan, expected = case(layout, name, dtype)
    array = engine.array(x.copy())
    expected.check(engine.numpy(engine.mix(array, plan, layout)))
    assert engine.numpy(array).tobytes() == x.tobytes(), "the input was written to"


# -- memory ------------------------------------------------------------------------------------------------------------


def strided(x: np.ndarray) -> np.ndarray:
    """Every other element of a wider array."""
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1] + 1), x.dtype)
    view = wide[..., 1::2]
    view[...] = x
    return view


def transposed(x: np.ndarray) -> np.ndarray:
    """The axes in memory run the other way round."""
    return np.ascontiguousarray(x.T).T


def cropped(x: np.ndarray) -> np.ndarray:
    """The inside of a larger array: rows that are not next to one another."""
    wide = np.zeros([s + 2 for s in x.shape], x.dtype)
    view = wide[tuple(slice(1, -1) for _ in x.shape)]
    view[...] = x
    return view


def channels_first_memory(x: np.ndarray) -> np.ndarray:
    """The second axis runs fastest in memory: torch's channels_last of "b c h w"."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def backwards(x: np.ndarray) -> np.ndarray:
    """Negative strides, which tensors do not have."""
    return np.ascontiguousarray(x[..., ::-1])[..., ::-1]


def locked(x: np.ndarray) -> np.ndarray:
    view = x.copy()
    view.setflags(write=False)
    return view


MEMORY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "strided": strided,
    "transposed": transposed,
    "cropped": cropped,
    "channels first in memory": channels_first_memory,
}
NUMPY_MEMORY = {"backwards": backwards, "read-only": locked}
SOME = ("Mixup-sample", "CutMix", "OneOf-sample", "Chain-fills", "Chain-steps")
FEW_LAYOUTS = ("b c h w", "b h w c", "t b d")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("layout", FEW_LAYOUTS)
@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("memory", MEMORY)
def test_arrays_of_any_strides_mix_alike(engine: Engine, memory: str, name: str, layout: str, dtype: str) -> None:
    x, plan, expected = case(layout, name, dtype)
    expected.check(engine.numpy(engine.mix(engine.array(MEMORY[memory](x)), plan, layout)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("layout", FEW_LAYOUTS)
@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("memory", NUMPY_MEMORY)
def test_memory_that_only_numpy_has_mixes_alike(memory: str, name: str, layout: str, dtype: str) -> None:
    x, plan, expected = case(layout, name, dtype)
    for engine in ENGINES[:2]:
        expected.check(engine.mix(NUMPY_MEMORY[memory](x), plan, layout))


@pytest.mark.parametrize(
    ("layout", "name"), [(a, n) for a, n, d in TABLE if a in ("b c h w", "b c t h w") and d == "float32"]
)
def test_channels_last_goes_in_and_comes_out(tensors: Engine, layout: str, name: str) -> None:
    x, plan, expected = case(layout, name, "float32")
    last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    result = tensors.mix(tensors.array(x).contiguous(memory_format=last), plan, layout)
    assert result.is_contiguous(memory_format=last)
    expected.check(tensors.numpy(result))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("layout", FEW_LAYOUTS)
@pytest.mark.parametrize("name", SOME)
def test_a_list_of_samples_mixes_as_their_stack(engine: Engine, name: str, layout: str, dtype: str) -> None:
    x, plan, expected = case(layout, name, dtype)
    samples = list(np.moveaxis(x, layout.split().index("b"), 0))
    expected.check(engine.numpy(engine.mix([engine.array(s) for s in samples], plan, layout)))
    expected.check(engine.numpy(engine.mix([engine.array(strided(s)) for s in samples], plan, layout)))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("layout", FEW_LAYOUTS)
@pytest.mark.parametrize("name", SOME)
def test_out_is_filled_and_returned_whatever_its_strides(writer: Engine, name: str, layout: str, dtype: str) -> None:
    x, plan, expected = case(layout, name, dtype)
    for memory in (np.copy, *MEMORY.values()):
        out = writer.array(memory(np.ones_like(x)))
        assert writer.mix(writer.array(x), plan, layout, out=out) is out
        expected.check(writer.numpy(out))


def in_place_plans(shape: tuple[int, ...]) -> dict[str, Any]:
    """Plans that keep every row in its place and give it one donor at most."""
    rng, spec = np.random.default_rng(5), mx.Spec(7, shape)
    shared = np.array([3, 3, 3, 0, 3, 5, 0])
    cycle = np.array([1, 2, 3, 4, 5, 6, 0])
    two_cycles = np.array([2, 0, 1, 4, 3, 5, 6])
    lam = np.array([0.25, 1.0, 0.5, 0.0, 0.75, 0.125, 0.5])
    mixup, cutmix = mx.Mixup(), mx.CutMix(per="sample")
    moved = mx.CutMix(per="sample", edge="inside").draw(rng, spec, partner=two_cycles)
    donor = moved.donor - moved.box[..., [0, 0, 2, 2]]  # the same sizes, from the first corner on
    corner = mx.Plan(moved.base, moved.partner, moved.box, donor, moved.opacity, moved.weight, shape)
    return {
        "flip pairs": mx.Mixup(pairing="flip").draw(rng, spec, lam=0.3),
        "boxes of pairs": mx.CutMix(per="pair", pairing="flip").draw(rng, spec),
        "pairs, then fills": (mx.Mixup(per="sample", pairing="flip") | mx.Cutout(3)).draw(rng, spec),
        "one cycle": mixup.draw(rng, spec, partner=cycle, lam=lam),
        "two cycles and fixed points": mixup.draw(rng, spec, partner=two_cycles, lam=lam),
        "several rows name one donor": mixup.draw(rng, spec, partner=shared, lam=0.4),
        "boxes on a cycle": cutmix.draw(rng, spec, partner=cycle),
        "boxes of a shared donor": cutmix.draw(rng, spec, partner=shared),
        "boxes from another place": corner,
        "fills only": mx.RandomErasing(noise="pixel").draw(rng, spec),
        "a blend, then fills": (mx.Mixup(per="sample") | mx.Cutout(3)).draw(rng, spec),
        "two steps": (mx.Mixup(per="sample") | mx.CutMix()).draw(rng, spec),
        "nothing": mx.Mixup(0).draw(rng, spec),
    }


#: Those of which a row that changes is read by another than the one it reads: a GPU does not mix them in place.
NO_EXCHANGES = (
    "one cycle",
    "several rows name one donor",
    "boxes on a cycle",
    "boxes of a shared donor",
    "boxes from another place",
    "two steps",
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8", "float64"])
@pytest.mark.parametrize("layout", ["b c h w", "b h w c"])
@pytest.mark.parametrize("name", list(in_place_plans((6, 7))))
def test_in_place_gives_the_same_as_out_of_place(writer: Engine, name: str, layout: str, dtype: str) -> None:
    plan = in_place_plans((6, 7))[name]
    x = data(dtype, (7, 3, 6, 7) if layout == "b c h w" else (7, 6, 7, 3))
    expected = naive.mix(x, plan, layout)
    for memory in (np.copy, cropped):
        array = writer.array(memory(x))
        if writer.exchanges and name in NO_EXCHANGES:
            with pytest.raises(mx.MixError, match=r"two by two .* give out= an array of its own"):
                writer.mix(array, plan, layout, out=array)
            assert writer.numpy(array).tobytes() == x.tobytes(), "a refused mix has written"
        else:
            assert writer.mix(array, plan, layout, out=array) is array
            expected.check(writer.numpy(array))


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_out_that_is_another_view_of_the_same_elements_counts_as_in_place(writer: Engine, dtype: str) -> None:
    x = data(dtype, (7, 3, 6, 7))
    plan = in_place_plans((6, 7))["flip pairs" if writer.exchanges else "one cycle"]
    array = writer.array(x.copy())
    writer.mix(array, plan, "b c h w", out=array[:])
    naive.mix(x, plan, "b c h w").check(writer.numpy(array))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 8])
def test_any_batch_size_mixes(engine: Engine, n: int, name: str) -> None:
    ranks = OPERATORS[name].ranks
    layout, rows = ("b c h w", (n, 3, 5, 6)) if 2 in ranks else ("b t" if 1 in ranks else "b d", (n, 9))
    for dtype in ("float32", "uint8"):
        x = data(dtype, rows)
        plan = drawn(name, x, layout)
        naive.mix(x, plan, layout).check(engine.numpy(engine.mix(engine.array(x), plan, layout)))


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("name", SOME)
def test_a_plan_on_rows_of_a_larger_source_equals_mixing_the_gathered_batch(
    engine: Engine, name: str, dtype: str
) -> None:
    source, rows = data(dtype, (11, 3, 6, 5)), np.array([10, 3, 3, 0, 7])
    plan = drawn(name, source[rows], "b c h w")
    expected = naive.mix(source[rows], plan, "b c h w")
    expected.check(engine.numpy(engine.mix(engine.array(source), plan.on(rows), "b c h w")))
    expected.check(engine.numpy(engine.mix([engine.array(s) for s in source], plan.on(rows), "b c h w")))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_memory_map_opened_for_reading_is_a_source(tmp_path: Path, backend: str) -> None:
    source, rows = data("uint8", (11, 6, 5, 3)), np.array([10, 3, 3, 0, 7])
    np.save(tmp_path / "source.npy", source)
    on_disk = np.load(tmp_path / "source.npy", mmap_mode="r")
    plan = drawn("Chain-fills", source[rows], "b h w c")
    result = mx.mix(on_disk, plan.on(rows), "b h w c", backend=backend)
    naive.mix(source[rows], plan, "b h w c").check(np.asarray(result))


@pytest.mark.parametrize("layout", ["b c h w", "b h w c", "b t d", "b d"])
@pytest.mark.parametrize("dtype", [*FLOATS, "uint8"])
def test_rows_longer_than_any_vector_with_ragged_ends(engine: Engine, dtype: str, layout: str) -> None:
    shapes = {"b c h w": (2, 3, 4, 71), "b h w c": (2, 3, 71, 3), "b t d": (3, 4, 135), "b d": (3, 531)}
    x = data(dtype, shapes[layout])
    for name in ("Mixup-sample", "CutMix-sample", "Chain-fills"):
        if rank_of(layout) in OPERATORS[name].ranks:
            plan = drawn(name, x, layout)
            naive.mix(x, plan, layout).check(engine.numpy(engine.mix(engine.array(x), plan, layout)))


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ["Mixup-sample", "CutMix-sample", "RandomErasing-pixel"])
def test_the_number_of_threads_changes_no_bit(name: str, threads: int) -> None:
    x = data("float32", (19, 3, 64, 80))
    plan = drawn(name, x, "b c h w")
    result = mx.mix(x, plan, "b c h w", threads=threads, backend="cpu")
    np.testing.assert_array_equal(result, mx.mix(x, plan, "b c h w", threads=1, backend="cpu"))
    reference = mx.mix(x.astype(np.float64), plan, "b c h w", backend="reference")
    np.testing.assert_allclose(result, reference, rtol=2**-21, atol=2**-19)


@pytest.mark.parametrize("backend", [None, "cpu", "reference"])
def test_arrays_of_the_other_byte_order_mix_or_are_refused(backend: str | None) -> None:
    x, plan, expected = case("b c h w", "Mixup-sample", "float32")
    swapped = x.astype(">f4" if np.little_endian else "<f4")
    try:
        result = mx.mix(swapped, plan, "b c h w", backend=backend)
    except mx.MixError:
        return
    expected.check(result.astype(np.float32))
    out = np.zeros_like(swapped)
    mx.mix(x, plan, "b c h w", out=out, backend=backend)
    expected.check(out.astype(np.float32))


# -- kinds, fills and what must not leak ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "uint8", "bool"])
@pytest.mark.parametrize("name", ["CutMix", "CutMix-sample", "Cutout", "Sometimes"])
def test_discrete_arrays_paste_and_fills_leave_them(engine: Engine, name: str, dtype: str) -> None:
    x = data("int64", (5, 7, 5)).astype(dtype) if dtype != "bool" else data("bool", (5, 7, 5))
    plan = drawn(name, x, "b h w")
    result = engine.mix(engine.array(x), plan, "b h w", "discrete")
    naive.mix(x, plan, "b h w", "discrete").check(engine.numpy(result))
    filled = engine.mix(engine.array(x), plan, "b h w", "discrete", fill=1)
    naive.mix(x, plan, "b h w", "discrete", fill=1).check(engine.numpy(filled))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32"])
@pytest.mark.parametrize("name", ["Mixup", "CutMix-sample", "Chain-fills", "OneOf-sample"])
def test_valid_masks_join_inside_a_patch(engine: Engine, name: str, dtype: str) -> None:
    x = data("bool", (5, 21)).astype(dtype)
    plan = drawn(name, x, "b t")
    naive.mix(x, plan, "b t", "valid").check(engine.numpy(engine.mix(engine.array(x), plan, "b t", "valid")))


@pytest.mark.parametrize("fill", [100, (5, 50, 200), 3.5])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
@pytest.mark.parametrize("name", ["Cutout", "RandomErasing-pixel", "Chain-fills"])
def test_fill_replaces_the_fills_of_the_plan(engine: Engine, name: str, dtype: str, fill: Any) -> None:
    for layout in ("b c h w", "b h w c"):
        x, plan, _ = case(layout, name, dtype)
        result = engine.mix(engine.array(x), plan, layout, fill=fill)
        naive.mix(x, plan, layout, fill=fill).check(engine.numpy(result))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["b c h w", "b h w c", "b d"])
def test_a_nan_that_takes_no_part_does_not_leak(engine: Engine, layout: str, dtype: str, bad: float) -> None:
    shape = {"b c h w": (4, 3, 4, 18), "b h w c": (4, 4, 18, 3), "b d": (4, 33)}[layout]
    x = data(dtype, shape)
    x[2] = bad
    # Row 0 keeps itself beside the bad row, row 2 is wholly replaced, row 1 blends with a good one; row 3 is untouched.
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4), partner=[2, 0, 1, 3], lam=[1.0, 0.5, 0.0, 1.0])
    pairs = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4), partner=[2, 3, 0, 1], lam=[1.0, 0.5, 0.0, 1.0])
    for which in (plan, pairs):
        results = [engine.mix(engine.array(x), which, layout)]
        if engine.writes and (which is pairs or not engine.exchanges):
            results.append(_in_place(engine, x, which, layout))
        for result in results:
            assert np.isfinite(engine.numpy(result).astype(np.float32)).all()
            naive.mix(x, which, layout).check(engine.numpy(result))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["b c h w", "b h w c"])
def test_a_nan_beside_or_under_a_pasted_box_stays_where_it_is(engine: Engine, layout: str, dtype: str) -> None:
    x = data(dtype, (2, 3, 4, 18) if layout == "b c h w" else (2, 4, 18, 3))
    where = (slice(None),) if layout == "b c h w" else ()
    x[(1, *where, slice(None), slice(0, 9))] = np.nan  # the donor, outside of the box
    x[(0, *where, slice(1, 3), slice(9, 13))] = np.nan  # the row itself, under the box
    plan = mx.CutMix().draw(np.random.default_rng(0), mx.Spec(2, (4, 18)), partner=[1, 1], box=[1, 3, 9, 13])
    for work in (
        engine.mix(engine.array(x), plan, layout),
        *([_in_place(engine, x, plan, layout)] if engine.writes else []),
    ):
        assert np.isfinite(engine.numpy(work)[0].astype(np.float32)).all()
        naive.mix(x, plan, layout).check(engine.numpy(work))


def test_a_nan_under_a_fill_is_painted_over(engine: Engine) -> None:
    x = np.full((2, 3, 4, 5), np.nan, np.float32)
    plan = mx.Cutout(size=(8, 10), fill=2).draw(np.random.default_rng(0), mx.Spec(2, (4, 5)))
    np.testing.assert_array_equal(engine.numpy(engine.mix(engine.array(x), plan, "b c h w")), np.full_like(x, 2))


def _in_place(engine: Engine, x: np.ndarray, plan: Any, layout: str) -> Any:
    array = engine.array(x.copy())
    return engine.mix(array, plan, layout, out=array)


@pytest.mark.parametrize("layout", ["b c t h w", "b t c h w"])
def test_boxes_on_h_and_w_cut_every_frame_of_a_video_alike(engine: Engine, layout: str) -> None:
    x = data("float32", LAYOUTS[layout])
    spec = mx.Spec(x.shape[0], x.shape[3:])
    for op in (mx.CutMix(per="sample"), mx.RandomErasing(noise="pixel"), mx.RandomErasing(noise="channel")):
        plan = op.draw(np.random.default_rng(1), spec)
        naive.mix(x, plan, layout).check(engine.numpy(engine.mix(engine.array(x), plan, layout)))


@pytest.mark.parametrize("exponent", [14, 15, 16, 17, 18, 24])
def test_bytes_blend_with_shares_close_to_none_and_to_all(engine: Engine, exponent: int) -> None:
    x = data("uint8", (2, 200))
    for lam in (2.0**-exponent, 1 - 2.0**-exponent, 0.5 + 2.0**-exponent):
        plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=lam, partner=[1, 0])
        naive.mix(x, plan, "b d").check(engine.numpy(engine.mix(engine.array(x), plan, "b d")))


def test_noise_is_the_same_in_every_layout(engine: Engine) -> None:
    plan = mx.RandomErasing(area=(0.3, 0.5), noise="pixel").draw(np.random.default_rng(2), mx.Spec(4, (9, 7)))
    x = data("float32", (4, 3, 9, 7))
    first = engine.numpy(engine.mix(engine.array(x), plan, "b c h w"))
    moved = engine.array(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_array_equal(engine.numpy(engine.mix(moved, plan, "b h w c")).transpose(0, 3, 1, 2), first)


# -- the fused tail ----------------------------------------------------------------------------------------------------

#: Every source and every target, but not each with each: every pair is a kernel to compile.
TAILS = [
    *((source, "float32") for source in (*FLOATS, "uint8")),
    *(("float32", target) for target in FLOATS if target != "float32"),
    *(("uint8", target) for target in (*FLOATS, "uint8") if target != "float32"),
    ("float16", "float16"),
    ("bfloat16", "bfloat16"),
]


@pytest.mark.parametrize(
    ("layout", "target_layout"), [("b c h w", "b c h w"), ("b h w c", "b c h w"), ("b c h w", "h b w c")]
)
@pytest.mark.parametrize(("source", "target"), TAILS)
def test_the_tail_normalises_casts_and_lays_out(
    engine: Engine, source: str, target: str, layout: str, target_layout: str
) -> None:
    statistics = (
        [{}]
        if target == "uint8"
        else [
            {},
            {"mean": 0.4},
            {"mean": (0.48, 0.45, 0.4), "std": (0.22, 0.25, 0.5)},
            {"std": (1, 2, 4)},
        ]
    )
    for name in ("Mixup-sample", "CutMix", "Chain-fills"):
        x, plan, _ = case(layout, name, source)
        for values in statistics:
            to = mx.Output(target_layout, target, **values)
            result = engine.numpy(engine.mix(engine.array(x), plan, layout, to=to))
            naive.mix(x, plan, layout, to=to).check(result)


def test_the_tail_reads_lists_rows_of_a_source_and_writes_into_out(engine: Engine) -> None:
    source, rows = data("uint8", (9, 7, 5, 3)), np.array([8, 1, 1, 4, 0])
    plan = drawn("OneOf-sample", source[rows], "b h w c")
    to = mx.Output("b c h w", "float32", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3))
    expected = naive.mix(source[rows], plan, "b h w c", to=to)
    samples = [engine.array(s) for s in source]
    expected.check(engine.numpy(engine.mix(samples, plan.on(rows), "b h w c", to=to)))
    if not engine.writes:
        return
    out = engine.array(np.ones((5, 3, 7, 5), np.float32))
    engine.mix(engine.array(source), plan.on(rows), "b h w c", to=to, out=out)
    expected.check(engine.numpy(out))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
@pytest.mark.parametrize(
    "chain", [mx.Cutout(3), mx.Mixup(1.0) | mx.Cutout(3), mx.CutMix() | mx.Mixup(1.0) | mx.Cutout(3)]
)
def test_the_fill_mean_is_zero_after_the_tail(engine: Engine, chain: mx.Operator, dtype: str) -> None:
    x = data(dtype, (4, 7, 6, 3))
    plan = chain.draw(np.random.default_rng(3), mx.Spec(4, (7, 6)))
    to = mx.Output("b h w c", "float32", mean=(0.48, 0.45, 0.4), std=(0.22, 0.25, 0.5))
    result = engine.numpy(engine.mix(engine.array(x), plan, "b h w c", fill="mean", to=to))
    hole = plan.plans[-1] if isinstance(plan, mx.PlanSequence) else plan
    for n in range(4):
        top, bottom, left, right = hole.box[n, -1]
        assert np.abs(result[n, top:bottom, left:right]).max() < 1e-6
