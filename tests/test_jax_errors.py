"""JAX: what compiled code cannot do, or cannot know, is said in words; and what only values would show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
import test_errors
from conftest import data, with_float64

import mixops as mx

IMAGES = data("float32", (4, 3, 6, 7))
SPEC = mx.Spec.like(IMAGES, "b c h w")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("bad", test_errors.BAD_MIX)
def test_a_bad_mix_is_the_same_clear_error(bad: str) -> None:
    array, plan, layout, options, words = test_errors.BAD_MIX[bad]
    with with_float64(), pytest.raises(mx.MixError) as caught:
        mx.mix(jnp.array(array), plan, layout, **options)
    test_errors.check(caught.value, words)


def test_out_is_refused() -> None:
    x, plan = jnp.array(IMAGES), mx.Mixup().draw(rng(), SPEC)
    for out in (x, jnp.zeros_like(x), IMAGES.copy()):
        with pytest.raises(mx.MixTypeError, match=r"arrays never change; leave out= away.*donate_argnums"):
            mx.mix(x, plan, "b c h w", out=out)


def test_a_plan_of_another_shape_is_refused_while_it_is_traced() -> None:
    plan = mx.CutMix().draw(rng(), mx.Spec(4, (8, 8)))
    with pytest.raises(mx.MixValueError, match="axis 'h' has extent 6, the plan was drawn for 8"):
        jax.jit(lambda x, p: mx.mix(x, p, "b c h w"))(IMAGES, plan)
    with pytest.raises(mx.MixValueError, match="3 fill values"):
        jax.jit(lambda x, p: mx.mix(x, p, "b h w"))(IMAGES[:, 0], mx.Cutout(2, fill=(1, 2, 3)).draw(rng(), SPEC))
    with pytest.raises(mx.MixValueError, match=r"several plans stacked go through jax\.vmap"):
        jax.jit(lambda x, p: mx.mix(x, p, "b c h w"))(IMAGES, jax.tree.map(lambda leaf: leaf[None], plan))


@pytest.mark.parametrize(
    ("kind", "fill"), [("discrete", 300), ("discrete", -1), ("discrete", 0.5), ("continuous", 256)]
)
def test_a_fill_that_is_given_is_checked_while_the_plan_is_traced(kind: str, fill: float) -> None:
    plan, ids = mx.Cutout(2).draw(rng(), SPEC), np.zeros((4, 6, 7), np.uint8)
    said = []
    for mix in (mx.mix, jax.jit(mx.mix, static_argnums=(2, 3), static_argnames="fill")):
        with pytest.raises(mx.MixError, match="with a fill of") as caught:
            mix(jnp.array(ids), plan, "b h w", kind, fill=fill)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_rows_that_are_not_there_are_nan_in_compiled_code() -> None:
    mixed = jax.jit(lambda x, p: mx.mix(x, p, "b c h w"))(IMAGES, mx.Mixup(0).draw(rng(), mx.Spec(6)))
    np.testing.assert_array_equal(mixed[:4], IMAGES)
    assert np.isnan(mixed[4:]).all()


def test_a_traced_plan_says_what_must_be_done_outside() -> None:
    plan = mx.CutMix().draw(rng(), SPEC)
    verbs: dict[str, Callable[[Any], Any]] = {
        "where": lambda p: p.where(np.ones(4, bool)),
        "__getitem__": lambda p: p[[0]],
        "on": lambda p: p.on(np.arange(4)),
        "facts": lambda p: p.facts,
        "rescaled": lambda p: p.rescaled((12, 14)),
        "save": lambda p: p.save("plan.npz"),
    }
    for name, verb in verbs.items():
        with pytest.raises(mx.MixTypeError, match=rf"{name} of a plan that JAX traces.*outside of jax\.jit"):
            jax.jit(lambda p, verb=verb: verb(p) and 0)(plan)


def test_a_tracer_that_reaches_numpy_is_named() -> None:
    with pytest.raises(mx.MixTypeError, match="Spec lengths: its values are traced by JAX"):
        jax.jit(lambda n: mx.Spec(4, (8,), lengths=n).n)(jnp.arange(4))
    with pytest.raises(mx.MixTypeError, match=r"plan\[rows\]: its values are traced by JAX"):
        jax.jit(lambda rows: mx.Mixup().draw(rng(), SPEC)[rows].n)(jnp.arange(4))


def test_the_accuracy_of_what_is_traced_is_refused() -> None:
    soft = jnp.eye(4)
    assert mx.mixed_accuracy(soft, soft) == 1
    with pytest.raises(mx.MixTypeError, match=r"mixed_accuracy of what JAX traces.*outside of jax\.jit"):
        jax.jit(mx.mixed_accuracy)(soft, soft)


def test_samples_of_several_libraries_are_refused() -> None:
    import torch

    plan = mx.CutMix().draw(rng(), SPEC)
    given = {"numpy": IMAGES[0], "jax": jnp.array(IMAGES[0]), "torch": torch.from_numpy(IMAGES[0])}
    for one in given.values():
        for other in given.values():
            samples = [one, one, other, one]
            if one is other:
                mx.mix(samples, plan, "b c h w")
            else:
                with pytest.raises(mx.MixError, match=r"sample 0 is .*, sample 2 "):
                    mx.mix(samples, plan, "b c h w")
    with pytest.raises(mx.MixTypeError, match=r"sample 0 is a ndarray, sample 1 a .*Tracer: expected samples of one"):
        jax.jit(lambda x: mx.mix([IMAGES[0], x, *IMAGES[2:]], plan, "b c h w"))(IMAGES[1])
    together = jax.jit(lambda x: mx.mix([jnp.array(IMAGES[0]), x, *map(jnp.array, IMAGES[2:])], plan, "b c h w"))
    naive.mix(IMAGES, plan, "b c h w").check(np.asarray(together(IMAGES[1])))
    views = [IMAGES[0], IMAGES[1].view(np.memmap), *IMAGES[2:]]
    naive.mix(IMAGES, plan, "b c h w").check(mx.mix(views, plan, "b c h w"))


def test_a_traced_plan_on_a_tensor_is_refused() -> None:
    import torch

    plan = mx.Mixup().draw(rng(), SPEC)
    with pytest.raises(mx.MixTypeError, match="backend='jax' on Tensor"):
        jax.jit(lambda p: mx.mix(torch.tensor(IMAGES), p, "b c h w"))(plan)
    with pytest.raises(mx.MixTypeError, match='with a plan that JAX traces: only "jax"'):
        jax.jit(lambda p: mx.mix(IMAGES, p, "b c h w", backend="cpu"))(plan)
    with pytest.raises(mx.MixTypeError, match="backend='jax' on Tensor: expected a JAX array or a NumPy array"):
        mx.mix(torch.tensor(IMAGES), plan, "b c h w", backend="jax")
    with pytest.raises(mx.MixTypeError, match="backend='cpu' on ArrayImpl"):
        mx.mix(jnp.array(IMAGES), plan, "b c h w", backend="cpu")
