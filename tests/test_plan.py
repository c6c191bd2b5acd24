"""Plans: what they mean stays the same when they are selected, joined, moved, rescaled, saved or printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ENGINES, Engine, data, plans
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx

ARRAYS = ("base", "partner", "box", "donor", "opacity", "weight")
DTYPES = st.sampled_from(["float32", "uint8", "float64"])


def mixed(x: np.ndarray, plan: Any, layout: str, **options: Any) -> np.ndarray:
    return np.asarray(mx.mix(x, plan, layout, backend="reference", **options))


def rows_of(x: np.ndarray, layout: str, rows: Any) -> np.ndarray:
    return np.take(x, np.asarray(rows, int), layout.split().index("b"))


def cutmix(n: int = 4, shape: tuple[int, ...] = (6, 5), seed: int = 0) -> mx.Plan:
    return mx.CutMix(per="sample").draw(np.random.default_rng(seed), mx.Spec(n, shape))


def mixup(n: int = 4, seed: int = 1) -> mx.Plan:
    return mx.Mixup(per="sample").draw(np.random.default_rng(seed), mx.Spec(n))


def cutout(n: int = 4, shape: tuple[int, ...] = (6, 5), seed: int = 2, fill: Any = 3) -> mx.Plan:
    return mx.Cutout(2, count=2, fill=fill).draw(np.random.default_rng(seed), mx.Spec(n, shape))


# -- what a plan means -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "uint8", "int64", "bool"])
@pytest.mark.parametrize(
    "plan",
    [
        mx.Plan.identity(5),
        mx.Plan.identity(5, (6, 4), 3),
        mx.Mixup(0).draw(np.random.default_rng(0), mx.Spec(5)),
        mx.CutMix(0).draw(np.random.default_rng(0), mx.Spec(5, (6, 4))),
        mx.CutMix(p=0).draw(np.random.default_rng(0), mx.Spec(5, (6, 4))),
        mx.Cutout(3, p=0).draw(np.random.default_rng(0), mx.Spec(5, (6, 4))),
        (mx.Mixup() | mx.CutMix()).draw(np.random.default_rng(0), mx.Spec(5, (6, 4), training=False)),
    ],
)
def test_identity_plans_change_no_bit(engine: Engine, plan: Any, dtype: str) -> None:
    assert plan.is_identity
    x = data(dtype, (5, 3, 6, 4))
    assert engine.numpy(engine.mix(engine.array(x), plan, "b c h w")).tobytes() == x.tobytes()


def test_lam_is_the_own_share() -> None:
    empty = np.zeros((2, 2, 0), int)
    plan = mx.Plan([0, 1], [[1, 1], [0, 0]], empty, empty, [[0.5, 0.5]] * 2, [[0.25, 0.125], [0, 1]], ())
    np.testing.assert_array_equal(plan.lam, np.float32([0.625, 0]))
    assert (plan.n, plan.k, plan.rank, len(plan)) == (2, 2, 0, 2)


def test_patches_are_painted_in_order_and_donors_are_rows_of_the_input() -> None:
    x = np.array([[1.0], [10.0]])
    empty = np.zeros((2, 2, 0), int)
    plan = mx.Plan([0, 1], [[1, 0], [0, 1]], empty, empty, [[0.5, 0.5]] * 2, np.zeros((2, 2)), ())
    for engine in ENGINES[:2]:
        result = engine.mix(x, plan, "b d")
        np.testing.assert_allclose(result, [[(1 + 10) / 2 / 2 + 0.5], [(10 + 1) / 2 / 2 + 5]])


@given(plans(), DTYPES)
def test_values_stay_within_those_that_went_in(drawn: Any, dtype: str) -> None:
    plan, layout, shape = drawn
    painted = np.clip(plan.fills.value, 0, 255) if dtype == "uint8" else plan.fills.value
    plan = replace(plan, fills=mx.Fills.of([tuple(value) for value in painted.tolist()]))
    x = data(dtype, shape)
    result = mixed(x, plan, layout).astype(np.float64)
    low, high = min(x.min(), painted.min()), max(x.max(), painted.max())
    slack = 0.5 if dtype == "uint8" else 2.0**-22 * max(abs(float(low)), abs(float(high)))
    if result.size:
        assert result.min() >= low - slack
        assert result.max() <= high + slack


# -- plans made from plans ---------------------------------------------------------------------------------------------


@given(plans(), st.data(), DTYPES)
def test_selecting_rows_of_a_plan_selects_rows_of_the_result(drawn: Any, pick: st.DataObject, dtype: str) -> None:
    plan, layout, shape = drawn
    x = data(dtype, shape)
    rows = pick.draw(st.lists(st.integers(0, plan.n - 1), max_size=5)) if plan.n else []
    chosen = plan[np.array(rows, int)]
    np.testing.assert_array_equal(mixed(x, chosen, layout), rows_of(mixed(x, plan, layout), layout, rows))
    np.testing.assert_array_equal(
        mixed(x, plan[1:3], layout), rows_of(mixed(x, plan, layout), layout, range(plan.n)[1:3])
    )


def test_one_row_a_slice_and_a_mask_select() -> None:
    plan = cutmix()
    assert plan[2] == plan[2:3] == plan[np.array([False, False, True, False])]
    assert plan[-1] == plan[3:]


@given(plans(), st.data(), DTYPES)
def test_relabelling_the_source_changes_nothing(drawn: Any, pick: st.DataObject, dtype: str) -> None:
    plan, layout, shape = drawn
    x = data(dtype, shape)
    count = shape[layout.split().index("b")]
    order = np.array(pick.draw(st.permutations(range(count))))
    moved = np.argsort(order)  # row i of x is row moved[i] of the reordered source
    np.testing.assert_array_equal(mixed(rows_of(x, layout, order), plan.on(moved), layout), mixed(x, plan, layout))


@given(plans(), st.data())
def test_on_reads_the_same_rows_of_a_larger_source(drawn: Any, pick: st.DataObject) -> None:
    plan, layout, shape = drawn
    at = layout.split().index("b")
    source = data("float32", (*shape[:at], 9, *shape[at + 1 :]))
    rows = pick.draw(st.lists(st.integers(0, 8), min_size=shape[at], max_size=shape[at]))
    wanted = mixed(rows_of(source, layout, rows), plan, layout)
    np.testing.assert_array_equal(mixed(source, plan.on(rows), layout), wanted)


def test_on_of_an_empty_plan_takes_no_rows() -> None:
    assert mx.Plan.identity(0, (4,), 1).on([]).n == 0


@given(st.data(), DTYPES)
def test_joined_plans_make_the_joined_rows(pick: st.DataObject, dtype: str) -> None:
    first, layout, shape = pick.draw(plans())
    second = first[np.array(pick.draw(st.lists(st.integers(0, first.n - 1), max_size=3)) if first.n else [], int)]
    second = replace(second, fills=mx.Fills.of([7.0] * len(first.fills)))
    x = data(dtype, shape)
    joined = mixed(x, mx.Plan.concat([first, second, first]), layout)
    parts = [mixed(x, p, layout) for p in (first, second, first)]
    np.testing.assert_array_equal(joined, np.concatenate(parts, layout.split().index("b")))


def test_whole_rows_and_boxes_join_by_promotion() -> None:
    x = data("float32", (4, 3, 6, 5))
    joined = mx.Plan.concat([mixup(), cutout(), cutmix()])
    assert (joined.n, joined.k, joined.shape) == (12, 2, (6, 5))
    parts = [mixed(x, p, "b c h w") for p in (mixup(), cutout(), cutmix())]
    np.testing.assert_array_equal(mixed(x, joined, "b c h w"), np.concatenate(parts))
    np.testing.assert_array_equal(joined.lam, np.concatenate([mixup().lam, cutout().lam, cutmix().lam]))


@pytest.mark.parametrize("shape", [(7,), (6, 5), (2, 6, 5)])
def test_a_promoted_plan_mixes_alike(shape: tuple[int, ...]) -> None:
    x = data("float32", (4, *shape))
    layout = {1: "b t", 2: "b h w", 3: "b t h w"}[len(shape)]
    plan = mixup().promoted(shape)
    assert plan.shape == shape
    np.testing.assert_array_equal(mixed(x, plan, layout), mixed(x, mixup(), layout))
    np.testing.assert_array_equal(plan.lam, mixup().lam)


@given(plans(), DTYPES)
def test_padding_with_patches_changes_nothing(drawn: Any, dtype: str) -> None:
    plan, layout, shape = drawn
    x = data(dtype, shape)
    wide = plan.padded(plan.k + 2)
    assert wide.k == plan.k + 2
    np.testing.assert_array_equal(mixed(x, wide, layout), mixed(x, plan, layout))
    np.testing.assert_array_equal(wide.lam, plan.lam)


def test_a_plan_cannot_be_padded_to_fewer_patches() -> None:
    with pytest.raises(mx.MixError, match="2"):
        cutout().padded(1)


@given(plans(), st.lists(st.booleans(), min_size=4, max_size=4), DTYPES)
def test_rows_switched_off_stay_as_their_base_row(drawn: Any, keep: list[bool], dtype: str) -> None:
    plan, layout, shape = drawn
    x, on = data(dtype, shape), np.array(keep[: plan.n], bool)
    result = mixed(x, plan.where(on), layout)
    np.testing.assert_array_equal(
        rows_of(result, layout, np.flatnonzero(on)), rows_of(mixed(x, plan, layout), layout, np.flatnonzero(on))
    )
    off = np.flatnonzero(~on)
    np.testing.assert_array_equal(rows_of(result, layout, off), rows_of(x, layout, plan.base[off]))
    assert (plan.where(on).lam[off] == 1).all()


@pytest.mark.parametrize("first", [mixup(), cutmix(), cutout(seed=9, fill=(1, 2, 3)), mx.Plan.identity(4)])
def test_then_paints_on_what_the_first_plan_made(first: mx.Plan) -> None:
    x = data("float32", (4, 3, 6, 5))
    both = first.then(cutout())
    np.testing.assert_array_equal(
        mixed(x, both, "b c h w").view(np.int32), mixed(mixed(x, first, "b c h w"), cutout(), "b c h w").view(np.int32)
    )
    np.testing.assert_array_equal(both.lam, first.lam)


@pytest.mark.parametrize("second", [mixup(), cutmix(), cutout()[[1, 0, 2, 3]], cutout(5)])
def test_then_refuses_what_mixes_or_moves_rows(second: mx.Plan) -> None:
    with pytest.raises(mx.MixError, match=r"PlanSequence|fills"):
        cutmix().then(second)


@pytest.mark.parametrize("factor", [(2, 3), (1, 4), (5, 1)])
@pytest.mark.parametrize("round_", ["nearest", "inward", "outward"])
def test_a_plan_rescaled_by_whole_factors_mixes_the_enlarged_array(factor: tuple[int, int], round_: str) -> None:
    def enlarge(a: np.ndarray) -> np.ndarray:
        return a.repeat(factor[0], 2).repeat(factor[1], 3)

    x = data("float32", (4, 3, 6, 5))
    for plan in (cutmix(), cutout(), cutmix().then(cutout())):
        large = plan.rescaled((6 * factor[0], 5 * factor[1]), round_)
        wanted = enlarge(mixed(x, plan, "b c h w"))
        np.testing.assert_array_equal(mixed(enlarge(x), large, "b c h w"), wanted)
        assert large.rescaled((6, 5), round_) == plan
        np.testing.assert_array_equal(large.weight, plan.weight)


@given(plans(), st.tuples(*[st.integers(1, 9)] * 3), st.sampled_from(["nearest", "inward", "outward"]))
def test_a_rescaled_plan_is_valid_and_rounds_as_it_says(drawn: Any, extents: tuple[int, ...], round_: str) -> None:
    plan, _, _ = drawn
    shape = extents[: plan.rank]
    scaled = plan.rescaled(shape, round_)
    scaled.validate()
    assert scaled.shape == shape
    for r, (old, new) in enumerate(zip(plan.shape, shape, strict=True)):
        for at in np.ndindex(plan.partner.shape):
            true = [float(v) * new / old for v in plan.box[at][2 * r : 2 * r + 2]]
            start, stop = scaled.box[at][2 * r : 2 * r + 2]
            if round_ == "outward":
                assert (start, stop) == (int(np.floor(true[0])), int(np.ceil(true[1])))
            elif round_ == "inward":
                assert start == int(np.ceil(true[0]))
                assert stop == max(int(np.floor(true[1])), start)
            else:
                assert abs(start - true[0]) <= 0.5
                assert abs(stop - true[1]) <= 0.5
            assert scaled.donor[at][2 * r + 1] - scaled.donor[at][2 * r] == stop - start


def test_rescaling_refuses_another_rank_or_an_unknown_rounding() -> None:
    with pytest.raises(mx.MixError, match="2 extents"):
        cutmix().rescaled((6,))
    with pytest.raises(mx.MixError, match="inward"):
        cutmix().rescaled((12, 10), "up")
    with pytest.raises(mx.MixError, match="extents"):
        cutmix().rescaled((0, 10))


# -- rules -------------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "base": [0, 1],
    "partner": [[1, -1], [0, -2]],
    "box": [[[0, 2, 0, 2], [1, 3, 2, 4]]] * 2,
    "donor": [[[1, 3, 1, 3], [0, 0, 0, 0]]] * 2,
    "opacity": [[1.0, 1.0], [0.5, 1.0]],
    "weight": [[0.25, 0.0], [0.5, 0.0]],
    "shape": (3, 4),
    "fills": [0.0, 1.0],
}
BROKEN: dict[str, dict[str, Any]] = {
    "base below 0": {"base": [0, -1]},
    "partner beyond int32": {"partner": [[2**31, -1], [0, -2]]},
    "partner names no fill": {"partner": [[1, -1], [0, -3]]},
    "box outside of shape": {"box": [[[0, 2, 0, 5], [1, 3, 2, 4]]] * 2},
    "box below 0": {"box": [[[-1, 2, 0, 2], [1, 3, 2, 4]]] * 2},
    "stop before start": {"box": [[[2, 1, 0, 2], [1, 3, 2, 4]]] * 2},
    "donor outside of shape": {"donor": [[[2, 4, 1, 3], [0, 0, 0, 0]]] * 2},
    "opacity above 1": {"opacity": [[1.5, 1.0], [0.5, 1.0]]},
    "opacity below 0": {"opacity": [[-0.5, 1.0], [0.5, 1.0]]},
    "opacity NaN": {"opacity": [[np.nan, 1.0], [0.5, 1.0]]},
    "weight below 0": {"weight": [[-0.25, 0.0], [0.5, 0.0]]},
    "weight NaN": {"weight": [[np.nan, 0.0], [0.5, 0.0]]},
    "weights above 1": {"weight": [[1.25, 0.0], [0.5, 0.0]]},
    "a fill that weighs": {"weight": [[0.25, 0.25], [0.5, 0.0]]},
    "float rows": {"base": [0.0, 1.0]},
    "text": {"partner": [["a", "b"], ["c", "d"]]},
    "base of two axes": {"base": [[0, 1]]},
    "base of no axis": {"base": 0},
    "partner of one axis": {"partner": [1, 0]},
    "box of another rank": {"box": np.zeros((2, 2, 2), int)},
    "opacity of another size": {"opacity": [[1.0], [0.5]]},
    "weight of another size": {"weight": [[0.25, 0.0]]},
    "ragged": {"weight": [[0.25, 0.0], [0.5]]},
    "no extents": {"shape": None},
    "an extent of 0": {"shape": (3, 0)},
    "an extent beyond int32": {"shape": (3, 2**40)},
    "an extent of text": {"shape": ("h", "w")},
    "a broken extent": {"shape": (3.5, 4)},
    "four axes": {"shape": (3, 4, 5, 6), "box": np.zeros((2, 2, 8), int), "donor": np.zeros((2, 2, 8), int)},
    "fills of text": {"fills": "red"},
    "an infinite fill": {"fills": [0.0, np.inf]},
    "a fill beyond float32": {"fills": [0.0, 1e300]},
    "fills of two widths": {"fills": [(1, 2), (1, 2, 3)]},
    "a layer that is no name": {"layer": 3},
}


def test_the_plan_that_the_rules_are_tried_on_is_valid() -> None:
    mx.Plan(**GOOD).validate(2)


@pytest.mark.parametrize("broken", BROKEN)
def test_every_broken_rule_is_a_mix_error(broken: str) -> None:
    with pytest.raises(mx.MixError) as caught:
        mx.Plan(**(GOOD | BROKEN[broken]))
    assert len(str(caught.value)) > 15


def test_rows_beyond_the_source_are_refused_with_their_place() -> None:
    with pytest.raises(mx.MixError, match="row 0: partner out of range for 1 source rows"):
        replace(mx.Plan(**GOOD), base=[0, 0]).validate(1)
    with pytest.raises(mx.MixError, match="row 1: base out of range"):
        mx.Plan(**GOOD).validate(1)


def test_the_arrays_are_copies_of_the_right_type_and_locked() -> None:
    base = np.array([0, 1], np.int64)
    plan = mx.Plan(**(GOOD | {"base": base}))
    base[0] = 5
    assert plan.base.tolist() == [0, 1]
    for name in ARRAYS:
        array = getattr(plan, name)
        assert array.dtype == (np.float32 if name in ("opacity", "weight") else np.int32)
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(AttributeError):
        plan.base = base  # type: ignore[misc]


def test_two_tables_of_fills_join_in_the_order_of_memory_that_kernels_are_compiled_for() -> None:
    joined = mx.Fills.of([1.0, 2.0]).joined(mx.Fills.of([3.0, (4.0, 5.0, 6.0)]))
    assert joined.value.tolist() == [[1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 5, 6]]
    assert joined.value.flags.c_contiguous
    assert mx.Fills(np.asfortranarray(joined.value), joined.noise, joined.std, joined.key).value.flags.c_contiguous


def test_plans_are_equal_by_content_and_differ_in_any_field() -> None:
    plan = mx.Plan(**GOOD)
    assert plan == mx.Plan(**GOOD)
    others = [
        {"base": [1, 1]},
        {"partner": [[0, -1], [0, -2]]},
        {"opacity": [[1.0, 0.0], [0.5, 1.0]]},
        {"weight": [[0.0, 0.0], [0.5, 0.0]]},
        {"shape": (3, 5)},
        {"fills": [0.0, 2.0]},
        {"layer": "layer1"},
        {"donor": [[[0, 2, 1, 3], [0, 0, 0, 0]]] * 2},
    ]
    assert all(plan != mx.Plan(**(GOOD | other)) for other in others)
    assert plan != "plan"
    with pytest.raises(TypeError):
        hash(plan)


# -- paper and disk ----------------------------------------------------------------------------------------------------


@given(plans())
def test_a_saved_plan_replays_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, drawn: Any) -> None:
    plan, layout, shape = drawn
    path = tmp_path_factory.mktemp("plan") / "plan.npz"
    plan.save(path)
    again = mx.Plan.load(path)
    assert again == plan
    x = data("float32", shape)
    np.testing.assert_array_equal(mixed(x, again, layout), mixed(x, plan, layout))


@pytest.mark.parametrize(
    "op",
    [
        mx.RandomErasing(noise="pixel", std=2, fill=(1, 2, 3)),
        mx.CutMix() | mx.Mixup() | mx.Cutout(2),
        mx.OneOf([mx.Mixup(), mx.CutMix()], per="sample"),
    ],
)
def test_what_an_operator_drew_replays_from_its_file(tmp_path: Path, op: mx.Operator) -> None:
    plan = op.draw(np.random.default_rng(0), mx.Spec(4, (6, 5)))
    plan.save(str(tmp_path / "plan.npz"))
    again = mx.Plan.load(tmp_path / "plan.npz")
    assert again == plan
    x = data("float32", (4, 3, 6, 5))
    np.testing.assert_array_equal(mixed(x, again, "b c h w"), mixed(x, plan, "b c h w"))


def test_the_layer_is_saved(tmp_path: Path) -> None:
    plan = replace(mixup(), layer="encoder.layers.3")
    plan.save(tmp_path / "plan.npz")
    assert mx.Plan.load(tmp_path / "plan.npz").layer == "encoder.layers.3"


def test_a_plan_prints_as_a_table() -> None:
    text = repr(mx.Mixup().draw(np.random.default_rng(0), mx.Spec(30), lam=0.75, partner=np.roll(np.arange(30), 1)))
    assert "30 rows" in text
    assert "0.7500" in text
    assert "0.25 of row 29" in text
    assert len(text.splitlines()) < 20
    assert "Plan of 0 rows" in repr(mx.Plan.identity(0, (3, 4), 2))
    assert "fill 3" in repr(cutout())
    assert "pixel noise" in repr(mx.RandomErasing(noise="pixel").draw(np.random.default_rng(0), mx.Spec(2, (9, 9))))


def test_the_columns_of_the_table_align_whatever_rows_are_read() -> None:
    for plan in (mixup(), mixup()[[3, 3, 1, 0] * 3], mx.Plan.identity(200)[np.arange(199, -1, -1)]):
        _, head, *rows = repr(plan).splitlines()
        place = head.index("own share") + len("own share")
        shares = [f"{share:.4f}" for share in plan.lam[:12]]
        assert [row[:place].split()[-1] for row in rows[:12]] == shares
        assert all(row[place : place + 2] == "  " for row in rows[:12])


# -- sequences ---------------------------------------------------------------------------------------------------------


def test_a_sequence_is_its_plans_one_after_the_other(engine: Engine) -> None:
    steps = mx.PlanSequence((cutmix(), mixup(), cutout()))
    x = data("float32", (4, 3, 6, 5))
    wanted = x
    for plan in steps:
        wanted = engine.numpy(engine.mix(engine.array(wanted), plan, "b c h w"))
    np.testing.assert_array_equal(engine.numpy(engine.mix(engine.array(x), steps, "b c h w")), wanted)


def test_the_verbs_of_a_sequence_keep_its_meaning(tmp_path: Path) -> None:
    steps = mx.PlanSequence((cutmix(), mixup().then(cutout())))
    source, rows = data("float32", (9, 3, 6, 5)), [8, 0, 0, 5]
    wanted = mixed(source[rows], steps, "b c h w")
    np.testing.assert_array_equal(mixed(source, steps.on(rows), "b c h w"), wanted)
    np.testing.assert_array_equal(mixed(source[rows], steps[[3, 1]], "b c h w"), wanted[[3, 1]])
    large = mixed(source[rows].repeat(2, 2).repeat(2, 3), steps.rescaled((12, 10)), "b c h w")
    np.testing.assert_array_equal(large, wanted.repeat(2, 2).repeat(2, 3))
    steps.save(tmp_path / "steps.npz")
    assert mx.Plan.load(tmp_path / "steps.npz") == steps
    assert steps != mx.PlanSequence((cutmix(),))
    assert steps.where(np.zeros(4, bool)).is_identity
    assert (steps.n, len(steps), steps.shape, steps.layer) == (4, 4, (6, 5), None)
    assert "step 2 of 2" in repr(steps)


def test_the_lam_of_a_sequence_is_what_comes_from_the_own_source_row() -> None:
    swap = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.75, partner=[1, 0])
    there_and_back = mx.PlanSequence((swap, swap))
    assert there_and_back.lam.tolist() == [0.625, 0.625]  # 0.75 * 0.75 stayed, 0.25 * 0.25 went and came back
    assert mx.PlanSequence((swap[[1, 1]], swap)).lam.tolist() == [0.75, 0.75]  # source row 1 is in both rows by then
    alone = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(1), lam=0.75)
    assert mx.PlanSequence((alone,)).lam.tolist() == [1]
    assert mx.PlanSequence((swap, mx.Plan.identity(2, k=3))).k == 3


@given(
    st.lists(st.sampled_from([mx.Mixup(per="sample"), mx.CutMix(per="sample"), mx.Cutout(2)]), min_size=1, max_size=3),
    st.integers(0, 2**32),
    st.integers(0, 6),
)
def test_the_lam_of_a_sequence_is_the_diagonal_of_the_product_of_its_steps(ops: Any, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = (op.draw(rng, mx.Spec(n, (6, 5))) for op in ops)
    steps = mx.PlanSequence(tuple(plan for plan in drawn if isinstance(plan, mx.Plan)))
    product = np.eye(n)
    for plan in steps:
        matrix = np.diag(plan.lam.astype(np.float64))
        np.add.at(matrix, (np.arange(n)[:, None], np.maximum(plan.partner, 0)), plan.weight)
        product = matrix @ product
    np.testing.assert_allclose(steps.lam, product.diagonal(), atol=1e-6)
    assert steps.lam.dtype == np.float32


@pytest.mark.parametrize("steps", [(), (1,), (cutmix(3), mixup(4))])
def test_a_sequence_of_nothing_or_of_rows_that_are_not_there_is_refused(steps: tuple[Any, ...]) -> None:
    with pytest.raises(mx.MixError):
        mx.PlanSequence(steps)
