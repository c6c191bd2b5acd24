"""Mixing by TensorFlow and in tf.data. Run by test_tf.py in a process of its own, which TensorFlow then fills."""

from __future__ import annotations

import doctest
from functools import partial
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
import tensorflow as tf
from frameworks import run_shown, shown
from mixops.pipelines import tf_, tf_ops, tf_plan
from mixops.pipelines.tf_ import mixed_dataset
from mixops.pipelines.tf_ops import mixed, soft_targets
from mixops.pipelines.tf_plan import TensorPlan, drawn
from operator_table import OPERATORS, TABLE, case

import mixops as mx
from mixops import streams

OP = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)]) | mx.Cutout(size=3)
FIELDS = {0: mx.Field("b h w c"), 1: mx.Labels(5)}
SHAPES = {"b h w c", "b t d", "t b d", "b t", "b d"}
CASES = [c for c in TABLE if c[0] in SHAPES and c[2] in ("float32", "bfloat16", "uint8", "int64")]


def images(n: int = 10) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 7, 3), np.uint8), np.arange(n) % 5


def batches(dataset: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(x.numpy(), y.numpy()) for x, y in dataset]


def expected(epoch: int, steps: range = range(3), op: mx.Operator = OP, n: int = 10, size: int = 4) -> Any:
    """What the core makes of the same rows by the same keys."""
    x, y = images(n)
    made = []
    for step in steps:
        batch = x[step * size : (step + 1) * size], y[step * size : (step + 1) * size]
        spec = mx.spec_of(batch, FIELDS, epoch=epoch)
        plan = op.draw(streams.plan_stream(7, epoch, step), spec)
        made.append(mx.mix_batch(batch, plan, FIELDS))
    return made


def assert_same(got: Any, want: Any) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        for one, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


# -- tensors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", sorted(SHAPES))
def test_every_operator_mixes_tensors_within_the_bound_of_every_backend(layout: str) -> None:
    seen = set()
    for where, name, dtype in CASES:
        if where == layout:
            x, plan, want = case(layout, name, dtype)
            want.check(mixed(x, plan, layout).numpy())
            seen.add(name)
    assert len(seen) > 3


@pytest.mark.parametrize("name", ["OneOf", "OneOf-sample", "Chain-steps", "Chain-fills", "RandomErasing-pixel"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_graph_draws_another_plan_at_each_step_and_is_traced_once(name: str, dtype: str) -> None:
    op, traces = OPERATORS[name].op, []

    @tf.function(
        input_signature=[tf.TensorSpec((None, 8, 7, 3), dtype), tf.TensorSpec((None,)), tf.TensorSpec((), "int64")]
    )
    def step(x: Any, y: Any, number: Any) -> Any:
        traces.append(1)
        plan = drawn(op, x, "b h w c", 7, number)
        return mixed(x, plan, "b h w c"), soft_targets(tf.cast(y, tf.int32), plan, 5, 0.1)

    for number, n in ((0, 4), (1, 4), (2, 3)):
        x, y = images(n)
        plan = op.draw(streams.plan_stream(7, 0, number), mx.Spec(n, (8, 7), epoch=0))
        got, soft = step(x.astype(dtype), y, number)
        want = mx.mix(x.astype(dtype), plan, "b h w c", backend="reference")
        np.testing.assert_allclose(
            got.numpy(), want, rtol=0 if dtype == "uint8" else 1e-6, atol=1e-4 if dtype == "float32" else 0
        )
        np.testing.assert_allclose(soft.numpy(), mx.soft_targets(y, plan, 5, 0.1), atol=1e-6)
    assert traces == [1]


def test_gradients_reach_every_row_by_its_share() -> None:
    rng = np.random.default_rng(0)
    x, seen = rng.normal(size=(2, 6, 5, 3)).astype(np.float32)
    for op in (mx.Mixup(0.8, per="sample"), mx.CutMix(1.0) | mx.Mixup(0.8)):
        shape = (5,) if isinstance(op, mx.Chain) else ()
        plan = op.draw(rng, mx.Spec(6, shape))
        with tf.GradientTape() as tape:
            value = tf.Variable(x)
            total = tf.reduce_sum(seen * mixed(value, plan, "b t d"))
        gradient = tape.gradient(total, value).numpy()
        np.testing.assert_allclose((gradient * x).sum(), total.numpy(), rtol=1e-4)  # it is linear
        assert (gradient != 0).any((1, 2)).all()


def test_a_nan_of_a_row_that_takes_no_part_stays_where_it_is() -> None:
    x = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 4.0]], np.float32)
    box = np.zeros((3, 1, 0), int)
    plan = mx.Plan([0, 1, 2], [[1], [2], [0]], box, box, [[0.0], [1.0], [0.5]], [[0.0], [1.0], [0.5]], ())
    assert mixed(x, plan, "b d").numpy().tolist() == [[1, 2], [3, 4], [2, 3]]


def test_flags_and_masks_follow_by_their_kind() -> None:
    x, mask = images(4)[0], np.arange(4)[:, None, None] * np.ones((4, 8, 7), np.int64)
    plan = (mx.CutMix(1.0) | mx.Cutout(4)).draw(np.random.default_rng(1), mx.Spec.like(x, "b h w c"))
    valid = np.arange(4 * 8).reshape(4, 8) % 3 == 0
    span = mx.CutMix(1.0).draw(np.random.default_rng(1), mx.Spec.like(valid, "b t"))
    for given, drawn_for, options in (
        (mask, plan, ("b h w", "discrete")),
        (mask, plan, ("b h w", "discrete", 255)),
        (valid, span, ("b t", "valid")),
    ):
        layout, kind, *fill = options
        got = mixed(given, drawn_for, layout, kind, fill=fill[0] if fill else None)
        want = mx.mix(given, drawn_for, layout, kind, fill=fill[0] if fill else None)
        np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("labels", [np.array([0, 2, 1, 2]), np.eye(3, dtype=np.float32)[[0, 2, 1, 2]]])
def test_targets_are_those_of_the_core(labels: np.ndarray) -> None:
    op = mx.CutMix(1.0) | mx.Mixup(0.8, per="sample")
    plan = op.draw(np.random.default_rng(0), mx.Spec(4, (6, 6)))
    np.testing.assert_allclose(soft_targets(labels, plan, 3, 0.1), mx.soft_targets(labels, plan, 3, 0.1), atol=1e-6)
    if labels.ndim == 1:
        got, want = (f(labels, plan, 3, 0.2, ignore_index=2) for f in (soft_targets, mx.soft_targets))
        np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_allclose(soft_targets(labels * 1.5, plan), mx.soft_targets(labels * 1.5, plan), atol=1e-6)


NORMALISED = mx.Output("b c h w", "float32", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3))


@pytest.mark.parametrize(
    ("name", "dtype", "to"),
    [
        ("RandomErasing-pixel", "uint8", NORMALISED),
        ("OneOf-sample", "bfloat16", NORMALISED),
        ("Chain-steps", "float16", mx.Output("c b w h", "float64", mean=(0.5, 0.4, 0.3))),
        ("Chain-steps", "uint8", mx.Output("b h w c", "bfloat16")),
        ("Chain-steps", "uint8", mx.Output("b c h w", "uint8")),
    ],
)
def test_the_tail_is_that_of_the_core(name: str, dtype: str, to: mx.Output) -> None:
    x, plan, _ = case("b h w c", name, dtype)
    naive.mix(x, plan, "b h w c", to=to).check(mixed(x, plan, "b h w c", to=to).numpy())
    if to.mean is not None:
        holes = mx.Cutout(3).draw(np.random.default_rng(0), mx.Spec.like(x, "b h w c"))
        want = naive.mix(x, holes, "b h w c", to=to, fill=to.mean_fill(dtype))
        want.check(mixed(x, holes, "b h w c", fill="mean", to=to).numpy())


@pytest.mark.parametrize(
    ("dtype", "kind", "options"),
    [
        ("uint8", "discrete", {"fill": 300}),
        ("uint8", "continuous", {"fill": -1}),
        ("int64", "discrete", {"fill": 0.5}),
        ("bool", "valid", {"fill": 1}),
        ("bool", "discrete", {"fill": 2}),
        ("float32", "continuous", {"fill": "mean"}),
        ("float32", "continuous", {"fill": (1, 2)}),
        ("int64", "continuous", {}),
        ("int64", "continuous", {"fill": 1, "to": mx.Output("b h w c")}),
        ("float32", "continuous", {"to": mx.Output("b h w")}),
        ("float32", "continuous", {"to": mx.Output("b c h w", mean=(1, 2))}),
    ],
)
def test_fills_and_tails_that_do_not_fit_are_the_errors_of_the_core(dtype: str, kind: str, options: Any) -> None:
    x = np.zeros((4, 8, 7, 3), dtype)
    plan = mx.Cutout(3, fill=0.25).draw(np.random.default_rng(0), mx.Spec.like(x, "b h w c"))
    said = []
    for mix in (mx.mix, mixed):
        with pytest.raises(mx.MixError) as caught:
            mix(x, plan, "b h w c", kind, **options)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_a_blend_of_ids_that_a_graph_draws_fails_when_it_runs() -> None:
    ids = tf.constant(np.arange(12).reshape(4, 3))
    step = tf.function(lambda op, n: mixed(ids, drawn(op, ids, "b t", 7, n), "b t", "discrete"), autograph=False)
    assert np.isin(step(mx.CutMix(1.0), 0), ids).all()
    with pytest.raises(tf.errors.InvalidArgumentError, match="ids cannot be averaged"):
        step(mx.Mixup(1.0), 0)


def test_a_label_without_a_share_is_not_looked_at() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(3), lam=[0.0, 0.5, 1.0], partner=[1, 2, 0])
    labels = np.array([np.nan, 1, 2], np.float32)
    assert soft_targets(labels, plan).numpy().tolist() == mx.soft_targets(labels, plan).tolist() == [1, 1.5, 2]


def test_labels_that_do_not_fit_are_refused_in_words() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4), lam=0.5)
    np.testing.assert_array_equal(soft_targets(np.arange(4) > 1, plan, 2), mx.soft_targets(np.arange(4) > 1, plan, 2))
    for wrong in (np.float32(3), np.zeros((4, 3, 2), np.float32), np.array(list("abcd"))):
        with pytest.raises(mx.MixValueError, match=r"expected numbers \(N,\) or \(N, C\)"):
            soft_targets(wrong, plan)
    with pytest.raises(mx.MixValueError, match="out of range for 2 source rows"):
        soft_targets(np.arange(2), plan, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected 0 and 1"):
        soft_targets(np.arange(8).reshape(4, 2), plan)
    with pytest.raises(mx.MixTypeError, match="RaggedTensor: expected a dense tensor"):
        soft_targets(tf.ragged.constant([[1.0], [2.0, 3.0]]), plan)


def test_a_tensor_of_a_graph_that_reaches_numpy_is_named() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4))
    with pytest.raises(mx.MixTypeError, match=r"mixops\.pipelines\.tf_ops\.soft_targets"):
        tf.function(lambda y: mx.soft_targets(y, plan, 4), autograph=False)(np.arange(4))


def test_what_does_not_fit_is_refused_in_words() -> None:
    x, _ = images(4)
    plan = mx.CutMix(1.0).draw(np.random.default_rng(0), mx.Spec(4, (9, 9)))
    with pytest.raises(mx.MixValueError, match=r"of \(8, 7\) .* drawn for \(9, 9\)"):
        mixed(x, plan, "b h w c")
    with pytest.raises(mx.MixValueError, match="row"):
        mixed(x[:2], mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4)), "b h w c")
    with pytest.raises(mx.MixTypeError, match="cannot be averaged"):
        mixed(np.arange(4), mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4), lam=0.5), "b")
    with pytest.raises(mx.MixTypeError, match="expected a Plan"):
        TensorPlan.of("plan")
    with pytest.raises(mx.MixValueError, match="kind='mask'"):
        mixed(x, plan, "b h w c", "mask")
    open_height = tf.TensorSpec((4, None, 7, 3), tf.uint8)
    with pytest.raises(mx.MixValueError, match="static extents"):
        tf.function(partial(drawn, OP, layout="b h w c", seed=7, step=0), [open_height], autograph=False)(x)
    whole = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4))
    with pytest.raises(mx.MixValueError, match="num_classes"):
        soft_targets(np.arange(4), whole)
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected 0 to 2"):
        soft_targets(np.arange(4), whole, 3)


# -- tf.data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [None, 2, tf.data.AUTOTUNE])
def test_each_pass_is_the_next_epoch_and_each_batch_that_of_its_key(calls: int | None) -> None:
    mixing = mixed_dataset(OP, FIELDS, seed=7, num_parallel_calls=calls)
    data = tf.data.Dataset.from_tensor_slices(images()).batch(4).apply(mixing)
    assert int(data.cardinality()) == 3
    for epoch in (0, 1):
        assert_same(batches(data), expected(epoch))
    mixing.set_epoch(5)
    assert_same(batches(data.repeat(2)), [*expected(5), *expected(6)])
    assert mixing.epoch == 7
    assert not np.array_equal(expected(0)[0][0], expected(1)[0][0])


def test_a_pass_resumes_at_a_step() -> None:
    data = tf.data.Dataset.from_tensor_slices(images()).batch(4)
    resumed = data.apply(mixed_dataset(OP, FIELDS, seed=7, epoch=2, step=1))
    assert_same(batches(resumed), expected(2)[1:])
    assert_same(batches(resumed), expected(3))


def test_an_iterator_resumes_from_a_checkpoint_and_goes_on_counting(tmp_path: Path) -> None:
    data = tf.data.Dataset.from_tensor_slices(images()).batch(4)
    first = iter(data.apply(mixed_dataset(OP, FIELDS, seed=7, epoch=3)).repeat(2))
    next(first)
    saved = tf.train.Checkpoint(place=first).save(str(tmp_path / "place"))
    again = iter(data.apply(mixed_dataset(OP, FIELDS, seed=7, epoch=4)).repeat(2))
    tf.train.Checkpoint(place=again).restore(saved)
    assert_same(batches(again), [*expected(3)[1:], *expected(4)])


def test_static_shapes_survive_and_only_open_extents_stay_open() -> None:
    data = tf.data.Dataset.from_tensor_slices(images())
    to = {0: mx.Output("b c h w", "float32", mean=0.5, std=0.25)}
    for ragged, n in ((False, 4), (True, None)):
        batched = data.batch(4, drop_remainder=not ragged)
        x, y = batched.apply(mixed_dataset(OP, FIELDS, seed=7, to=to)).element_spec
        assert (x, y) == (tf.TensorSpec((n, 3, 8, 7), tf.float32), tf.TensorSpec((n, 5), tf.float32))


def test_nested_elements_keep_their_form_and_what_is_no_field_passes_through() -> None:
    ids = np.random.default_rng(0).integers(1, 50, (6, 9))
    inputs = {"ids": ids, "lengths": np.full(6, 9), "name": np.array([f"row {i}" for i in range(6)])}
    op, fields = mx.SpanMix(0.3), {"ids": mx.Field("b t", "discrete"), 1: mx.Labels(3)}
    data = tf.data.Dataset.from_tensor_slices((inputs, np.arange(6) % 3)).batch(6)
    (got, soft), *_ = data.apply(mixed_dataset(op, fields, seed=7))
    plan = op.draw(streams.plan_stream(7), mx.Spec(6, (9,), inputs["lengths"], epoch=0))
    np.testing.assert_array_equal(got["ids"], mx.mix(ids, plan, "b t", "discrete"))
    np.testing.assert_array_equal(soft, mx.soft_targets(np.arange(6) % 3, plan, 3))
    assert [name.decode() for name in got["name"].numpy()] == inputs["name"].tolist()


def test_evaluation_leaves_values_and_softens_labels() -> None:
    x, y = images()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(10)
    [(got, soft)] = batches(data.apply(mixed_dataset(OP, FIELDS, seed=7, training=False)))
    np.testing.assert_array_equal(got, x)
    np.testing.assert_array_equal(soft, np.eye(5, dtype=np.float32)[y])


def test_mistakes_are_told_when_the_dataset_is_made() -> None:
    data = tf.data.Dataset.from_tensor_slices(images())
    with pytest.raises(mx.MixValueError, match="field 'image' is not in the batch"):
        data.batch(4).apply(mixed_dataset(OP, {"image": mx.Field("b h w c")}, seed=7))
    with pytest.raises(mx.MixValueError, match="field 0"):
        data.apply(mixed_dataset(OP, {0: mx.Field("b h w c")}, seed=7))  # not batched
    rows = tf.data.Dataset.from_tensor_slices(tf.ragged.constant([[1.0, 2.0], [3.0]])).ragged_batch(2)
    with pytest.raises(mx.MixTypeError, match="expected a dense batch"):
        rows.apply(mixed_dataset(mx.Mixup(), {0: mx.Field("b d")}, seed=7))
    with pytest.raises(mx.MixTypeError, match=r"expected a tf.data.Dataset"):
        mixed_dataset(OP, FIELDS, seed=7)(images())
    with pytest.raises(mx.MixValueError, match="num_parallel_calls=0"):
        mixed_dataset(OP, FIELDS, seed=7, num_parallel_calls=0)
    few = {0: FIELDS[0], 1: mx.Labels(2)}
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected 0 to 1"):
        batches(data.batch(4).apply(mixed_dataset(OP, few, seed=7)))


@pytest.mark.parametrize("module", [tf_, tf_ops, tf_plan])
def test_the_examples_run(module: Any) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 3
    assert not found.failed


SHOWN = shown("tf_ import")


@pytest.mark.parametrize("block", SHOWN)
def test_what_the_page_shows_runs(block: str) -> None:
    run_shown(block)


def test_the_page_shows_something() -> None:
    assert SHOWN
