"""Targets inside of functions that JAX compiles: what ``targets`` does, where values cannot be looked at.

An error that only the values would show is a NaN there: of a row whose class is out of range, or that has two weighted
donors where only one can be told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import MixTypeError, MixValueError
from .plan import Plan
from .sequence import PlanSequence
from .targets import check_classes, check_smoothing


def soft_targets(
    labels: Any,
    plan: Plan | PlanSequence,
    num_classes: int | None = None,
    smoothing: float = 0.0,
    *,
    ignore_index: int | None = None,
) -> Any:
    """See ``targets.soft_targets``."""
    check_smoothing(smoothing)
    if num_classes is not None:
        check_classes(num_classes)
    elif smoothing:
        raise MixValueError(f"smoothing={smoothing!r} without num_classes: say how many classes share it")
    labels = jnp.asarray(labels)
    mass: Any = 1.0
    if labels.ndim == 1 and (num_classes is not None or not _is_float(labels)):
        if num_classes is None:
            raise MixValueError(f"labels: got ids ({labels.dtype}), expected num_classes with them")
        ids, weights = sparse_targets(labels, plan, num_classes=num_classes, ignore_index=ignore_index)
        soft = _total(_spread(ids[:, m, None], weights[:, m, None], num_classes) for m in range(ids.shape[1]))
        mass = _total(weights[:, m, None] for m in range(ids.shape[1]))
    else:
        if ignore_index is not None:
            raise MixValueError(
                f"ignore_index={ignore_index!r} with labels that are no ids: expected ids of shape (N,)"
            )
        if labels.ndim not in (1, 2) or (num_classes is not None and labels.shape[1] != num_classes):
            expected = "(N,) or (N, C)" if num_classes is None else f"(N,) or (N, {num_classes})"
            raise MixValueError(f"labels: got shape {labels.shape}, expected {expected}")
        rows, weights = _shares(plan)
        soft = _total(_part(labels, rows[:, m], weights[:, m]) for m in range(rows.shape[1]))
    return soft * (1 - smoothing) + mass * (smoothing / (num_classes or 1)) if smoothing else soft


def sparse_targets(
    labels: Any, plan: Plan | PlanSequence, *, num_classes: int | None = None, ignore_index: int | None = None
) -> tuple[Any, Any]:
    """See ``targets.sparse_targets``; ids are int64 only with x64."""
    if num_classes is not None:
        check_classes(num_classes)
    labels = jnp.asarray(labels)
    if labels.ndim != 1 or _is_float(labels):
        raise MixTypeError(f"labels: got {labels.dtype} of shape {labels.shape}, expected integer ids of shape (N,)")
    rows, weights = _shares(plan)
    labels = labels.astype(jax.dtypes.canonicalize_dtype(np.int64))
    ids = _picked(labels, rows, -1)
    if ignore_index is not None:
        real = ids != ignore_index
        ids, weights = ids * real, weights * real
    bad = ids < 0 if num_classes is None else (ids < 0) | (ids >= num_classes)
    return ids, jnp.where(bad, jnp.nan, weights)


def pair_targets(labels: Any, plan: Plan | PlanSequence) -> tuple[Any, Any, Any]:
    """See ``targets.pair_targets``; lam is NaN in a row that has two weighted donors."""
    labels = jnp.asarray(labels)
    rows, weights = _shares(plan)
    own = rows[:, 0]
    other = (weights > 0) & (rows != own[:, None])
    partner = jnp.where(other, rows, -1).max(1)
    several = (other & (rows != partner[:, None])).any(1)
    itself = jnp.where((rows == own[:, None]) & other.any(1, keepdims=True), weights, 0)[:, 1:]
    lam = jnp.minimum(weights[:, 0] + itself.sum(1), 1)
    partner = jnp.where(partner < 0, own, partner)
    return _picked(labels, own), _picked(labels, partner), jnp.where(several, jnp.nan, lam)


def mixed_loss(fn: Callable[..., Any], logits: Any, ya: Any, yb: Any, lam: Any) -> Any:
    """See ``pair_loss.mixed_loss``."""
    share = jnp.asarray(lam)
    if not isinstance(share, jax.core.Tracer) and not bool(((share >= 0) & (share <= 1)).all()):
        raise MixValueError(f"mixed_loss: lam {lam!r}, expected shares from 0 to 1")
    la, lb = fn(logits, ya), fn(logits, yb)
    if la.ndim and share.ndim and (share.ndim != 1 or len(share) != len(la)):
        raise MixValueError(
            f"mixed_loss: lam has shape {share.shape} and the losses {la.shape}, expected one lam for each row"
        )
    if not la.ndim and share.ndim:
        if isinstance(share, jax.core.Tracer) or not bool((share == share[:1]).all()):
            raise MixValueError(
                "mixed_loss: the loss function gives one number for the batch, and lam is one for each row: expected "
                "a function that gives one for each row, as optax.softmax_cross_entropy_with_integer_labels does"
            )
        share = share[0] if len(share) else share.sum()
    share = share.reshape(-1, *[1] * (la.ndim - 1)) if share.ndim else share
    share = share.astype(la.dtype)
    return (share * la + (1 - share) * lb).mean()


def handed_over(result: Any, labels: Any) -> Any:
    """Targets that NumPy made, as JAX arrays beside the labels."""
    where = labels.sharding if isinstance(labels, jax.Array) and len(labels.sharding.device_set) == 1 else None
    return jax.tree.map(lambda array: jax.device_put(array, where), result)


def _shares(plan: Plan | PlanSequence) -> tuple[Any, Any]:
    """``leaves.target_shares`` of traced plans."""
    first, *later = plan.plans if isinstance(plan, PlanSequence) else (plan,)
    rows, shares = _of_step(first)
    for step in later:
        source, share = _of_step(step)
        width = source.shape[1] * rows.shape[1]
        shares = (share[..., None] * _picked(shares, source)).reshape(step.n, width)
        rows = _picked(rows, source).reshape(step.n, width)
    return rows, shares


def _of_step(plan: Plan) -> tuple[Any, Any]:
    base, weight = jnp.asarray(plan.base)[:, None], jnp.asarray(plan.weight)
    own = jnp.maximum(1 - _total((weight[:, k : k + 1] for k in range(plan.k)), jnp.zeros((plan.n, 1))), 0)
    return jnp.concatenate([base, jnp.where(weight > 0, plan.partner, base)], 1), jnp.concatenate([own, weight], 1)


def _spread(ids: Any, weights: Any, num_classes: int) -> Any:
    """(N, C): each weight at its id. By a choice and not by a product, which compilers lose a NaN in."""
    return jnp.where((ids == jnp.arange(num_classes)) | jnp.isnan(weights), weights, 0)


def _part(labels: Any, rows: Any, share: Any) -> Any:
    """The share of some rows of the labels. Those without a share may be NaN ("unknown"), which no target may show."""
    share = share.reshape(-1, *[1] * (labels.ndim - 1))
    picked = _picked(labels, rows).astype(jnp.float32)
    return jnp.where(share > 0, share * jnp.where(share > 0, picked, 0), 0)


def _picked(array: Any, rows: Any, beyond: Any = None) -> Any:
    """Rows of an array; one that is not there is ``beyond``: NaN of floats."""
    return array.at[rows].get(mode="fill", fill_value=beyond, wrap_negative_indices=False)


def _total(parts: Any, start: Any = None) -> Any:
    """The sum in the order of NumPy's loops, so that the same numbers come out."""
    for part in parts:
        start = part if start is None else start + part
    return start


def _is_float(labels: Any) -> bool:
    return bool(jnp.issubdtype(labels.dtype, jnp.floating))
