"""What JAX has got hold of: its arrays, and plans whose numbers are its arrays. Never imports JAX."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from .errors import MixTypeError

if TYPE_CHECKING:
    from .plan import Plan

_Verb = TypeVar("_Verb", bound=Callable[..., Any])
_registered = False


def register() -> None:
    """Tell JAX what a plan is, if JAX is there and has not been told: every plan that is made asks for it."""
    global _registered
    if not _registered and sys.modules.get("jax") is not None:
        _registered = True  # first, for the import below makes no plans, but may be met by another thread
        from . import jax as _  # noqa: F401


def is_jax(x: Any) -> bool:
    """True for an array of JAX, traced ones too."""
    array = getattr(sys.modules.get("jax"), "Array", None)
    return array is not None and isinstance(x, array)


def is_tracer(x: Any) -> bool:
    """True for an array whose numbers are not known yet: a function is being transformed or compiled by JAX."""
    return is_jax(x) and isinstance(x, sys.modules["jax"].core.Tracer)


def has_tracers(plan: Any) -> bool:
    """True for a plan, or a sequence of plans, with such an array."""
    if hasattr(plan, "plans"):
        return any(map(has_tracers, plan.plans))
    if plan.form is None:
        return False
    from .jax import leaves

    return any(map(is_tracer, leaves(plan)))


def has_stand_ins(plan: Plan) -> bool:
    """True for a plan in which something else stands for an array: loaders send arrays apart from what holds them."""
    if plan.form is None:
        return False
    from .jax import leaves

    return not all(isinstance(leaf, np.ndarray) or is_jax(leaf) for leaf in leaves(plan))


def known(plan: Any) -> Any:
    """The plan, or the sequence, with its numbers in NumPy arrays, checked again; as it is where they are traced."""
    if plan.form is None or has_tracers(plan):
        return plan
    from .jax import fetched

    return fetched(plan)


def replaced(plan: Plan, **given: Any) -> Plan:
    """A traced plan with other arrays, or other fills, in the place of its own."""
    from .jax import put

    return put(plan, given)


def at_hand(verb: _Verb) -> _Verb:
    """For a verb of a plan that reads numbers: those that JAX has are fetched; MixTypeError where they are traced."""

    @wraps(verb)
    def done(plan: Plan, *args: Any, **options: Any) -> Any:
        if plan.form is not None:
            if has_tracers(plan):
                raise MixTypeError(
                    f"{verb.__name__} of a plan that JAX traces: its numbers are not known before the compiled "
                    "function runs; do this outside of jax.jit, jax.vmap and jax.grad, and pass the plan in"
                )
            plan = known(plan)
        return verb(plan, *args, **options)

    return cast(_Verb, done)
