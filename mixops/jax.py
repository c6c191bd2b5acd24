"""Plans as pytrees of JAX: ``jax.jit(lambda x, plan: mx.mix(x, plan, "b h w c"))`` takes them like arrays.

A plan is registered when the first one is made after ``import jax``, or by ``import mixops.jax``. Its arrays are the
leaves. What is not a leaf is the same from draw to draw: the extents, whether donors lie elsewhere than their boxes,
whether there is noise, whether rows leave their places, and the layer: one compilation serves a training run, and one
more each layer that is mixed at.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from .constant import is_ascending
from .fills import Fills
from .plan import Plan
from .sequence import PlanSequence

_OWN = ("base", "partner", "box", "opacity", "weight", "donor")
_FILLS = ("value", "noise", "std", "key")


class Form(NamedTuple):
    """What a compiled function knows of a plan, besides the shapes of its arrays.

    Args:
        shape: extents that boxes are measured on.
        shifted: do donors lie elsewhere than their boxes?
        noisy: may a fill be noise?
        layer: module whose output is mixed.
        moved: does a row start from another row of the source than that of its own place?
    """

    shape: tuple[int, ...]
    shifted: bool
    noisy: bool
    layer: str | None
    moved: bool


def form_of(plan: Plan) -> Form:
    """The form of a plan."""
    if plan.form is not None:
        return plan.form
    return Form(plan.shape, plan.donor is not plan.box, plan.fills.noisy, plan.layer, not is_ascending(plan.base))


def leaves(plan: Plan) -> list[Any]:
    """Its arrays in the order of the names above; donors last, and only where they lie elsewhere than their boxes.

    Keys of noise are pairs of 32-bit words, low and high: without x64 JAX has no whole numbers of 64 bits.
    """
    return _taken_apart(plan)[0]


def _taken_apart(plan: Plan) -> tuple[list[Any], Form]:
    """Its leaves, and all else. A step of a training waits for this, so nothing is found out twice."""
    form, fills = form_of(plan), plan.fills
    key = fills.words if plan.form is None else fills.key
    arrays = [plan.base, plan.partner, plan.box, plan.opacity, plan.weight, fills.value, fills.noise, fills.std, key]
    return [*arrays, plan.donor] if form.shifted else arrays, form


def plan_of(form: Form, arrays: Any) -> Plan:
    """The plan of these leaves, which are whatever JAX puts in their places: nothing is checked."""
    own, fills, donor = arrays[:5], arrays[5:9], arrays[9:]
    plan, table = object.__new__(Plan), object.__new__(Fills)
    table.__dict__.update(zip(_FILLS, fills, strict=True), noisy=form.noisy)
    plan.__dict__.update(zip(_OWN[:5], own, strict=True))
    plan.__dict__.update(
        donor=donor[0] if donor else plan.box, shape=form.shape, fills=table, layer=form.layer, form=form
    )
    return plan


def put(plan: Plan, given: dict[str, Any]) -> Plan:
    """The same plan with some of its fields replaced, unchecked; fills are a table of NumPy arrays."""
    fills = given.pop("fills", None)
    other = object.__new__(Plan)
    other.__dict__.update(plan.__dict__, **given)
    if fills is not None:
        table = object.__new__(Fills)
        table.__dict__.update(value=fills.value, noise=fills.noise, std=fills.std, key=fills.words)
        table.__dict__["noisy"] = fills.noisy
        other.__dict__.update(fills=table, form=form_of(plan)._replace(noisy=fills.noisy))
    return other


def fetched(plan: Plan | PlanSequence) -> Plan | PlanSequence:
    """The plan with its numbers in NumPy arrays.

    Raises:
        MixError: if they are no plan any more, as those of several plans stacked are not.
    """
    if isinstance(plan, PlanSequence):
        return PlanSequence(tuple(p if p.form is None else _fetched(p) for p in plan.plans))
    return _fetched(plan)


def _fetched(plan: Plan) -> Plan:
    base, partner, box, opacity, weight, value, noise, std, key, *donor = map(np.asarray, leaves(plan))
    words = key.astype(np.uint64)
    fills = Fills(value, noise, std, words[..., 0] | words[..., 1] << np.uint64(32))
    there = donor[0] if donor else box
    return Plan(base, partner, box, there, opacity, weight, plan.shape, fills, plan.layer)


def _named(plan: Plan) -> tuple[list[tuple[Any, Any]], Form]:
    names = [*_OWN[:5], *(f"fills.{name}" for name in _FILLS), "donor"]
    arrays, form = _taken_apart(plan)
    return [(jax.tree_util.GetAttrKey(name), a) for name, a in zip(names, arrays, strict=False)], form


def _sequence(_: None, plans: Any) -> PlanSequence:
    sequence = object.__new__(PlanSequence)
    sequence.__dict__["plans"] = tuple(plans)
    return sequence


jax.tree_util.register_pytree_with_keys(Plan, _named, plan_of, _taken_apart)
jax.tree_util.register_pytree_with_keys(
    PlanSequence,
    lambda steps: ([(jax.tree_util.SequenceKey(i), p) for i, p in enumerate(steps.plans)], None),
    _sequence,
    lambda steps: (steps.plans, None),
)
