"""JAX: one compilation serves a training run, transformations see through a mix, and what is traced is said in words.

The conformance tests hold jnp arrays to the plan as plain loops, without what the compiler optimises; here it does.
"""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
from conftest import data, token_evidence, with_float64
from operator_table import LAYOUTS, OPERATORS, case, drawn, fits

import mixops as mx

IMAGES = data("float32", (4, 3, 6, 7))
SPEC = mx.Spec.like(IMAGES, "b c h w")
LABELS = np.array([2, 0, 1, 1])
#: A layout for each operator, of the fewest axes that it draws on.
LAYOUT_OF = {
    name: next(a for a in ("b d", "b t d", "b c h w") if fits(row, a, "float32")) for name, row in OPERATORS.items()
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def optimised(function: Callable[..., Any], *args: Any) -> Any:
    """What the function gives when it is compiled as users compile it, not as ``conftest`` asks for."""
    return jax.jit(function).lower(*args).compile(compiler_options={"xla_backend_optimization_level": 3})(*args)


def redrawn(name: str, layout: str, seed: int) -> Any:
    op, spec = OPERATORS[name].op, mx.Spec.like(np.zeros(LAYOUTS[layout]), layout)
    return op.draw(rng(seed), spec, **token_evidence(op, spec))


# -- one compilation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATORS)
def test_fifty_draws_are_compiled_once_and_once_for_each_layer(name: str) -> None:
    layout = LAYOUT_OF[name]
    x, traces = jnp.array(data("float32", LAYOUTS[layout])), []

    @jax.jit
    def step(x: Any, plan: Any) -> Any:
        traces.append(plan.layer)
        return mx.mix(x, plan, layout)

    plans = [redrawn(name, layout, seed) for seed in range(50)]
    for plan in plans:
        result = step(x, plan)
    assert sorted(map(str, traces)) == sorted({str(plan.layer) for plan in plans})
    naive.mix(np.asarray(x), plans[-1], layout).check(np.asarray(result))


MIXED_FORMS = {
    "no fill, a fill, a fill of each channel, noise": mx.OneOf(
        [mx.Mixup(), mx.CutMix(), mx.Cutout(2, fill=(1, 2, 3)), mx.RandomErasing(noise="pixel", count=2)], p=[0.2] * 4
    ),
    "of each row": mx.OneOf([mx.Mixup(), mx.Cutout(2, fill=5), mx.RandomErasing(noise="pixel")], per="sample"),
    "under more fills": mx.OneOf([mx.Mixup(), mx.Cutout(2)]) | mx.RandomErasing(noise="channel"),
    "one step or two": mx.OneOf([mx.Mixup() | mx.CutMix(), mx.Cutout(2, fill=5)]),
}


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("forms", MIXED_FORMS)
def test_operators_of_different_forms_draw_plans_of_one(forms: str, n: int) -> None:
    def form(plan: Any) -> Any:
        leaves, tree = jax.tree.flatten(plan)
        return tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves)

    plans = [MIXED_FORMS[forms].draw(rng(seed), mx.Spec(n, (6, 7))) for seed in range(40)]
    assert len({form(plan) for plan in plans}) == 1
    x = data("float32", (n, 3, 6, 7))
    for plan in plans[:6]:
        plan.validate()
        naive.mix(x, plan, "b c h w").check(mx.mix(x, plan, "b c h w", backend="cpu"))


def test_donors_of_their_own_and_donors_where_boxes_are_draw_plans_of_one_form() -> None:
    spec = mx.Spec(5, (8,))
    for per in ("batch", "sample"):
        op = mx.OneOf([mx.CutMix(), mx.SSMix(0.3)], per=per)
        drawn_plans = [op.draw(rng(seed), spec, **token_evidence(op, spec)) for seed in range(30)]
        assert len({jax.tree.structure(plan) for plan in drawn_plans}) == 1


# -- the same numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("name", OPERATORS)
def test_optimised_code_gives_what_the_loops_give(name: str, dtype: str) -> None:
    x, plan, expected = case(LAYOUT_OF[name], name, dtype)
    expected.check(np.asarray(optimised(functools.partial(mx.mix, layout=LAYOUT_OF[name]), jnp.array(x), plan)))


@pytest.mark.parametrize("name", ["RandomErasing-channel", "RandomErasing-pixel"])
@pytest.mark.parametrize("known", [False, True])
def test_noise_replays_bit_for_bit_in_optimised_code(name: str, known: bool) -> None:
    x, plan = np.zeros(LAYOUTS["b h w c"], np.float32), redrawn(name, "b h w c", 0)
    if known:
        mixed = optimised(lambda x: mx.mix(x, plan, "b h w c"), x)
    else:
        mixed = optimised(lambda x, plan: mx.mix(x, plan, "b h w c"), x, plan)
    np.testing.assert_array_equal(mixed, mx.mix(x, plan, "b h w c", backend="reference"))


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_tail_lists_and_rows_of_a_source_in_compiled_code(dtype: str) -> None:
    source, rows = data(dtype, (9, 7, 5, 3)), np.array([8, 1, 1, 4, 0])
    plan = drawn("OneOf-sample", source[rows], "b h w c").on(rows)
    to = mx.Output("b c h w", "float32", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3))
    expected = naive.mix(source, plan, "b h w c", to=to)
    expected.check(np.asarray(optimised(lambda x, p: mx.mix(x, p, "b h w c", to=to), jnp.array(source), plan)))
    samples = [jnp.array(sample) for sample in source]
    expected.check(np.asarray(optimised(lambda x, p: mx.mix(x, p, "b h w c", to=to), samples, plan)))


def test_rows_are_gathered_only_where_they_leave_their_places() -> None:
    whole = drawn("CutMix-sample", IMAGES, "b c h w")
    some = jax.tree.map(lambda leaf: leaf[:2] if len(leaf) == 4 else leaf, whole)
    plans = {"all": whole, "turned": whole[::-1], "of others": whole.on([1, 1, 0, 3]), "leaves of some rows": some}
    gathers = {}
    for name, plan in plans.items():
        mixed = optimised(lambda x, p: mx.mix(x, p, "b c h w"), jnp.array(IMAGES), plan)
        naive.mix(IMAGES, whole[:2] if plan is some else plan, "b c h w").check(np.asarray(mixed))
        gathers[name] = str(jax.make_jaxpr(lambda p: mx.mix(IMAGES, p, "b c h w", fill=0))(plan)).count("= gather[")
    assert set(gathers.values()) == {gathers["all"], gathers["all"] + 1}
    assert [name for name in gathers if gathers[name] == gathers["all"]] == ["all"]


@pytest.mark.parametrize("kind", ["discrete", "valid"])
def test_ids_and_masks_in_compiled_code(kind: str) -> None:
    x = data("uint8", (5, 21)) > 127
    for name in ("CutMix-sample", "Cutout", "SSMix"):
        plan = drawn(name, x, "b t")
        mixed = jax.jit(lambda x, p: mx.mix(x, p, "b t", kind))(jnp.array(x), plan)
        naive.mix(x, plan, "b t", kind).check(np.asarray(mixed))
    plan = drawn("Cutout", x, "b t")
    filled = jax.jit(lambda x, p: mx.mix(x, p, "b t", "discrete", fill=9))(jnp.array(x, jnp.int32), plan)
    naive.mix(x.astype(np.int32), plan, "b t", "discrete", fill=9).check(np.asarray(filled))


def test_a_blend_of_ids_that_compiled_code_cannot_refuse_changes_none() -> None:
    ids = jnp.arange(12).reshape(4, 3)
    blend = mx.Mixup().draw(rng(), mx.Spec(4), lam=[0.3, 1.0, 0.0, 0.6], partner=[1, 2, 3, 0])
    mixed = jax.jit(lambda x, p: mx.mix(x, p, "b t", "discrete"))(ids, blend)
    assert mixed[:, 0].tolist() == [0, 3, 9, 9]
    with pytest.raises(mx.MixTypeError, match="cannot be averaged"):
        mx.mix(ids, blend, "b t", "discrete")


def test_float64_needs_x64() -> None:
    plan = mx.Mixup().draw(rng(), SPEC)
    with pytest.raises(mx.MixTypeError, match="jax_enable_x64"):
        mx.mix(jnp.array(IMAGES), plan, "b c h w", to=mx.Output("b c h w", "float64"))
    with with_float64():
        wide = mx.mix(jnp.array(IMAGES), plan, "b c h w", to=mx.Output("b c h w", "float64"))
    assert wide.dtype == np.float64


def test_numpy_arrays_go_to_jax_where_the_plan_is_traced_or_it_is_asked_for() -> None:
    plan = mx.CutMix().draw(rng(), SPEC)
    expected = naive.mix(IMAGES, plan, "b c h w")
    for mixed in (
        jax.jit(lambda p: mx.mix(IMAGES, p, "b c h w"))(plan),
        jax.jit(lambda x: mx.mix(x, plan, "b c h w"))(IMAGES),
        mx.mix(IMAGES, plan, "b c h w", backend="jax"),
    ):
        assert isinstance(mixed, jax.Array)
        expected.check(np.asarray(mixed))


# -- transformations ---------------------------------------------------------------------------------------------------


def test_vmap_runs_over_a_stack_of_plans() -> None:
    plans = [(mx.CutMix(per="sample") | mx.Mixup()).draw(rng(seed), SPEC) for seed in range(3)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *plans)
    mixed = jax.jit(jax.vmap(lambda plan: mx.mix(IMAGES, plan, "b c h w")))(stack)
    for plan, one in zip(plans, mixed, strict=True):
        naive.mix(IMAGES, plan, "b c h w").check(np.asarray(one))
    soft = jax.vmap(lambda plan: mx.soft_targets(LABELS, plan, 3))(stack)
    np.testing.assert_allclose(soft[1], mx.soft_targets(LABELS, plans[1], 3), rtol=0, atol=2**-22)


def test_vmap_runs_over_arrays_and_plans_together() -> None:
    x = data("uint8", (3, 4, 6, 7))
    plans = [mx.RandomErasing(noise="pixel", std=60).draw(rng(seed), SPEC) for seed in range(3)]
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *plans)
    mixed = jax.vmap(lambda x, plan: mx.mix(x, plan, "b h w"))(x, stack)
    for i, plan in enumerate(plans):
        naive.mix(x[i], plan, "b h w").check(np.asarray(mixed[i]))


@pytest.mark.parametrize("name", ["Mixup-sample", "CutMix-sample", "OneOf-sample", "Chain-steps", "Cutout"])
def test_the_gradient_of_a_mix_is_that_of_the_formula(name: str) -> None:
    plan = drawn(name, IMAGES, "b c h w")
    weights = data("float32", IMAGES.shape, seed=1)
    loss = jax.jit(jax.grad(lambda x, plan: (mx.mix(x, plan, "b c h w") * weights).sum()))
    found = np.asarray(loss(jnp.array(IMAGES), plan))
    import torch

    x = torch.tensor(IMAGES, requires_grad=True)
    (mx.mix(x, plan, "b c h w", backend="torch") * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(found, x.grad.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nan_that_takes_no_part_stays_out_of_values_and_gradients(bad: float) -> None:
    x = IMAGES.copy()
    x[2] = bad
    plan = mx.Mixup().draw(rng(), mx.Spec(4), partner=[2, 0, 1, 3], lam=[1.0, 0.5, 0.0, 1.0])

    def loss(x: Any, opacity: Any) -> Any:
        leaves, tree = jax.tree.flatten(plan)
        leaves[3] = opacity
        return mx.mix(x, jax.tree.unflatten(tree, leaves), "b c h w").sum()

    assert jax.tree.leaves(plan)[3] is plan.opacity
    value, (by_x, by_opacity) = jax.jit(jax.value_and_grad(loss, (0, 1)))(x, jnp.array(plan.opacity))
    assert np.isfinite(value)
    assert np.isfinite(by_x).all()
    assert np.isfinite(by_opacity).all()
    assert not np.asarray(by_x)[2].any(), "a row that is in no result has no gradient"


def test_memory_that_is_given_away_is_used_again() -> None:
    plan = mx.Mixup().draw(rng(), SPEC)
    x = jnp.array(IMAGES)
    mixed = jax.jit(lambda x, plan: mx.mix(x, plan, "b c h w"), donate_argnums=0)(x, plan)
    assert x.is_deleted()
    naive.mix(IMAGES, plan, "b c h w").check(np.asarray(mixed))


def test_a_scan_carries_plans() -> None:
    plans = [mx.CutMix().draw(rng(seed), SPEC) for seed in range(3)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *plans)
    last, _ = jax.lax.scan(lambda x, plan: (mx.mix(x, plan, "b c h w"), None), jnp.array(IMAGES), stack)
    naive.mix(IMAGES, mx.PlanSequence(tuple(plans)), "b c h w").check(np.asarray(last))


# -- plans as trees ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Mixup", "RandomErasing-pixel", "SSMix", "Chain-steps", "ManifoldMixup"])
def test_a_plan_is_the_same_taken_apart_and_put_together(name: str) -> None:
    layout = LAYOUT_OF[name]
    plan = redrawn(name, layout, 3)
    leaves, tree = jax.tree.flatten(plan)
    again = jax.tree.unflatten(tree, leaves)
    assert again == plan
    assert jax.tree.structure(again) == tree
    on_device = jax.device_put(plan)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(on_device))
    assert on_device == plan
    assert repr(on_device) == repr(plan)
    x = data("float32", LAYOUTS[layout])
    for given in (x, jnp.array(x)):
        naive.mix(x, plan, layout).check(np.asarray(mx.mix(given, on_device, layout)))


def test_a_plan_that_jax_holds_saves_and_travels(tmp_path: Any) -> None:
    plan = mx.RandomErasing(noise="pixel").draw(rng(), SPEC)
    held = jax.jit(lambda plan: plan)(plan)
    held.save(tmp_path / "plan.npz")
    assert mx.Plan.load(tmp_path / "plan.npz") == plan
    assert held[[1, 0]] == plan[[1, 0]]
    assert held.then(held) == plan.then(plan)


def test_a_plan_travels_while_something_stands_in_for_its_arrays() -> None:
    # As Grain's workers send a batch: the arrays through shared memory, the rest pickled with tickets in their places.
    for plan in (mx.CutMix().draw(rng(), SPEC), (mx.CutMix() | mx.Mixup()).draw(rng(), SPEC)):
        leaves, tree = jax.tree.flatten(plan)
        sent = {f"ticket {i}": leaf for i, leaf in enumerate(leaves)}
        again = jax.tree.map(sent.get, pickle.loads(pickle.dumps(jax.tree.unflatten(tree, list(sent)))))
        assert again == plan
        np.testing.assert_array_equal(mx.mix(IMAGES, again, "b c h w"), mx.mix(IMAGES, plan, "b c h w"))


def test_a_process_that_is_sent_a_plan_knows_it_as_a_tree() -> None:
    sent = pickle.dumps(mx.Mixup().draw(rng(), mx.Spec(4))).hex()
    code = f"import jax, pickle; plan = pickle.loads(bytes.fromhex('{sent}')); assert len(jax.tree.leaves(plan)) == 9"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_traced_plan_cannot_be_pickled() -> None:
    with pytest.raises(mx.MixTypeError, match="that JAX traces"):
        jax.jit(lambda plan: pickle.dumps(plan))(mx.Mixup().draw(rng(), mx.Spec(4)))


def test_a_plan_that_was_altered_leaf_by_leaf_is_checked_again() -> None:
    plan = mx.Mixup().draw(rng(), mx.Spec(4))
    leaves, tree = jax.tree.flatten(plan)
    wrong = jax.tree.unflatten(tree, [leaves[0], leaves[1] + 7, *leaves[2:]])
    with pytest.raises(mx.MixValueError):
        mx.mix(IMAGES, wrong, "b c h w")
    stack = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), plan)
    with pytest.raises(mx.MixError):
        mx.mix(IMAGES, stack, "b c h w")


def test_a_plan_made_before_jax_was_imported_needs_only_mixops_jax() -> None:
    code = (
        "import numpy as np, mixops as mx, sys; plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4));"
        "assert 'jax' not in sys.modules; import jax;"
        "assert len(jax.tree.leaves(plan)) == 1; {}; assert len(jax.tree.leaves(plan)) == 9"
    )
    for told in ("import mixops.jax", "mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4))"):
        subprocess.run([sys.executable, "-c", code.format(told)], check=True, timeout=120)


# -- targets -----------------------------------------------------------------------------------------------------------

PLANS = {
    "one donor": mx.Mixup(per="sample").draw(rng(1), mx.Spec(4)),
    "a donor, then fills": (mx.CutMix(per="sample") | mx.Cutout(2)).draw(rng(1), SPEC),
    "two steps": (mx.Mixup(per="sample") | mx.CutMix()).draw(rng(2), SPEC),
    "nothing": mx.Mixup(0).draw(rng(), mx.Spec(4)),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("options", [{}, {"smoothing": 0.1}, {"ignore_index": 1}])
def test_soft_and_sparse_targets_are_those_of_numpy(plan: Any, options: dict[str, Any]) -> None:
    expected = mx.soft_targets(LABELS, plan, 3, **options)
    eager = mx.soft_targets(jnp.array(LABELS), plan, 3, **options)
    assert isinstance(eager, jax.Array)
    np.testing.assert_array_equal(eager, expected)
    traced = jax.jit(lambda y, p: mx.soft_targets(y, p, 3, **options))(jnp.array(LABELS), plan)
    np.testing.assert_allclose(traced, expected, rtol=0, atol=2**-22)
    if "smoothing" not in options:
        ids, weights = jax.jit(lambda y, p: mx.sparse_targets(y, p, num_classes=3, **options))(LABELS, plan)
        for mine, theirs in zip((ids, weights), mx.sparse_targets(LABELS, plan, num_classes=3, **options), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=2**-22)


def test_rows_of_labels_and_numbers_blend() -> None:
    plan = PLANS["one donor"]
    for labels in (np.eye(4, dtype=np.float32), data("float32", (4,)), np.eye(4, dtype=np.int32)):
        expected = mx.soft_targets(labels, plan)
        np.testing.assert_array_equal(mx.soft_targets(jnp.array(labels), plan), expected)
        np.testing.assert_allclose(jax.jit(mx.soft_targets)(labels, plan), expected, rtol=2**-21)


@pytest.mark.parametrize("name", ["one donor", "a donor, then fills", "nothing"])
def test_pairs_are_those_of_numpy(name: str) -> None:
    expected = mx.pair_targets(LABELS, PLANS[name])
    for found in (mx.pair_targets(jnp.array(LABELS), PLANS[name]), jax.jit(mx.pair_targets)(LABELS, PLANS[name])):
        for mine, theirs in zip(found, expected, strict=True):
            assert isinstance(mine, jax.Array)
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=2**-23)


def test_what_only_values_would_show_is_nan_in_compiled_code() -> None:
    plan = PLANS["one donor"]
    soft = jax.jit(lambda y, p: mx.soft_targets(y, p, 3))(jnp.array([0, 1, 7, 2]), plan)
    reached = (plan.base == 2) | ((plan.partner[:, 0] == 2) & (plan.weight[:, 0] > 0))
    np.testing.assert_array_equal(np.isnan(soft).any(1), reached)
    with pytest.raises(mx.MixValueError, match="class 7"):
        mx.soft_targets(jnp.array([0, 1, 7, 2]), plan, 3)
    twice = mx.Plan([0, 1], [[1, 2], [0, 0]], *[np.zeros((2, 2, 0), int)] * 2, *[np.full((2, 2), 0.25)] * 2, ())
    lam = jax.jit(mx.pair_targets)(LABELS, twice)[2]
    np.testing.assert_array_equal(np.isnan(lam), [True, False])


def test_the_loss_of_both_parents_is_that_of_soft_targets() -> None:
    plan, logits = PLANS["one donor"], jnp.array(data("float32", (4, 3)))

    def rows(logits: Any, y: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)[:, 0]

    @jax.jit
    def both(logits: Any, y: Any, plan: Any) -> Any:
        return mx.mixed_loss(rows, logits, *mx.pair_targets(y, plan))

    soft = -(mx.soft_targets(jnp.array(LABELS), plan, 3) * jax.nn.log_softmax(logits)).sum(1).mean()
    np.testing.assert_allclose(both(logits, LABELS, plan), soft, rtol=1e-6)
    assert np.isfinite(jax.grad(both)(logits, LABELS, plan)).all()
    ya, yb, lam = mx.pair_targets(LABELS, plan)
    with pytest.raises(mx.MixValueError, match="one number for the batch"):
        mx.mixed_loss(lambda logits, y: rows(logits, y).mean(), logits, ya, yb, lam)
    with pytest.raises(mx.MixValueError, match="from 0 to 1"):
        mx.mixed_loss(rows, logits, ya, yb, 1.5)
    with pytest.raises(mx.MixValueError, match="one lam for each row"):
        mx.mixed_loss(rows, logits, ya, yb, lam[:3])
    np.testing.assert_allclose(mx.mixed_loss(rows, logits, ya, ya, 0.3), rows(logits, ya).mean(), rtol=1e-6)


def test_a_batch_mixes_whole_in_compiled_code_and_outside() -> None:
    fields = {
        "image": mx.Field("b c h w"),
        "mask": mx.Field("b h w", "discrete", fill=9),
        "planes": mx.Field("b h w", "discrete", on_blend="planes", num_classes=4),
        "label": mx.Labels(3),
    }
    mask = rng(3).integers(0, 4, (4, 6, 7)).astype(np.int32)
    batch = {"image": IMAGES, "mask": mask, "planes": mask, "label": LABELS}
    plan = (mx.CutMix() | mx.Cutout(2)).draw(rng(4), SPEC)
    expected = mx.mix_batch(batch, plan, fields)
    arrays = jax.tree.map(jnp.array, batch)
    del fields["planes"], arrays["planes"]
    compiled = jax.jit(lambda batch, plan: mx.mix_batch(batch, plan, fields))(arrays, plan)
    fields["planes"] = mx.Field("b h w", "discrete", on_blend="planes", num_classes=4)
    eager = mx.mix_batch(arrays | {"planes": jnp.array(mask)}, plan, fields)
    for name, wanted in expected.items():
        for mixed in (compiled, eager) if name in compiled else (eager,):
            assert isinstance(mixed[name], jax.Array)
            np.testing.assert_allclose(mixed[name], wanted, rtol=2**-21)


def test_targets_take_their_arguments_by_name() -> None:
    plan = PLANS["one donor"]
    for labels in (LABELS, jnp.array(LABELS)):
        np.testing.assert_array_equal(mx.sparse_targets(plan=plan, labels=labels), mx.sparse_targets(LABELS, plan))
        np.testing.assert_array_equal(mx.pair_targets(labels=labels, plan=plan), mx.pair_targets(LABELS, plan))
        soft = mx.soft_targets(labels=labels, plan=plan, num_classes=3)
        np.testing.assert_array_equal(soft, mx.soft_targets(LABELS, plan, 3))
    with pytest.raises(TypeError, match=r"soft_targets\(\) missing 1 required positional argument: 'plan'"):
        mx.soft_targets(LABELS)
