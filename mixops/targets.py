"""Targets: what a plan does to the labels of a batch. They follow the shares of the plan, never its pixels or fills."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np

from .backends import is_tensor
from .constant import ascending
from .devices import beside
from .dlpack import Loan, is_foreign
from .errors import MixTypeError, MixValueError
from .leaves import target_shares
from .plan import Plan
from .sequence import PlanSequence
from .traced import has_tracers, is_jax, is_tracer, known

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


def _in_jax(verb: _Verb) -> _Verb:
    """The verb for JAX arrays too: NumPy does the work where it may look at them, and jnp where they are traced."""

    @wraps(verb)
    def made(labels: Any, plan: Any, *more: Any, **options: Any) -> Any:
        by_jax = isinstance(plan, (Plan, PlanSequence)) and plan.form is not None
        if not by_jax and not is_jax(labels):
            return verb(labels, plan, *more, **options)
        from . import jax_targets

        if is_tracer(labels) or (by_jax and has_tracers(plan)):
            return getattr(jax_targets, verb.__name__)(labels, plan, *more, **options)
        plan = known(plan) if by_jax else plan
        if is_foreign(labels) or is_tensor(labels):
            return verb(labels, plan, *more, **options)
        return jax_targets.handed_over(verb(np.asarray(labels), plan, *more, **options), labels)

    return cast(_Verb, made)


@_in_jax
def soft_targets(
    labels: Any,
    plan: Plan | PlanSequence,
    num_classes: int | None = None,
    smoothing: float = 0.0,
    *,
    ignore_index: int | None = None,
) -> Any:
    """Blend the labels as the plan says: ỹ[n] = lam[n]·y[base[n]] + Σ_k weight[n, k]·y[partner[n, k]].

    Args:
        labels: one for each row of the source, an array or a tensor on any device: class ids (N,) of any integer dtype;
            one-hot or multi-label rows (N, C), floats or integers of 0 and 1; or, with no ``num_classes``, numbers
            (N,) or (N, D) to regress on. On a GPU their values are not looked at: that would wait for all work before.
        plan: what was drawn; with ``plan.on(rows)`` the labels are those of the whole data set.
        num_classes: C, needed for ids and for smoothing.
        smoothing: s in [0, 1): every label becomes (1 - s)·y + s/C before it is blended.
        ignore_index: the id that says "no label". Its share of a row adds nothing: the row sums to what is labelled.

    Returns:
        float32 of shape (N, C), or (N,) for plain numbers, of the kind and on the device of ``labels``.

    Raises:
        MixError: if ids come without num_classes, as floats or outside 0 to C - 1, integer rows hold more than 0 and 1,
            rows have another width than num_classes, the plan names a row that has no label, smoothing is outside
            [0, 1) or comes without num_classes, or ignore_index comes with labels that are no ids. On a GPU an id
            outside 0 to C - 1 fails as it does in torch's losses, by an assertion of the device.

    Example:
        >>> import mixops as mx
        >>> plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.75, partner=[1, 0])
        >>> soft_targets(np.array([2, 0]), plan, 3)
        array([[0.25, 0.  , 0.75],
               [0.75, 0.  , 0.25]], dtype=float32)
    """
    check_smoothing(smoothing)
    if num_classes is not None:
        check_classes(num_classes)
    elif smoothing:
        raise MixValueError(f"smoothing={smoothing!r} without num_classes: say how many classes share it")
    if is_foreign(labels):
        loan = Loan(labels)
        return loan.settled(soft_targets(loan.x, plan, num_classes, smoothing, ignore_index=ignore_index))
    labels = _given(labels)
    if is_tensor(labels) and labels.is_cpu and not _is_float(labels):
        # The same memory as an array: NumPy's small steps cost a fraction of torch's.
        soft = _softened(_given(labels.numpy()), plan, num_classes, smoothing, ignore_index)
        return sys.modules["torch"].from_numpy(soft)
    return _softened(labels, plan, num_classes, smoothing, ignore_index)


def _softened(
    labels: Any, plan: Plan | PlanSequence, num_classes: int | None, smoothing: float, ignore_index: int | None
) -> Any:
    """``soft_targets`` of checked arguments."""
    rows, weights = _leaves(plan, labels)
    if not weights[:1].all():  # where the first row weighs all of its columns, no column is idle
        used = weights.any(0)
        rows, weights = rows[:, used], weights[:, used]
    weights = _as(weights, labels)
    if labels.ndim == 1 and (num_classes is not None or not _is_float(labels)):
        ids, weights = _ids(labels, rows, weights, _needed(num_classes, labels), ignore_index)
        soft = _scattered(ids, weights, num_classes or 1)
        mass = weights.sum(1)[:, None] if smoothing else 1.0
    else:
        if ignore_index is not None:
            raise MixValueError(
                f"ignore_index={ignore_index!r} with labels that are no ids: expected ids of shape (N,)"
            )
        soft, mass = _blended(labels, rows, weights, num_classes), 1.0
    if smoothing:
        soft *= 1 - smoothing
        soft += mass * (smoothing / (num_classes or 1))
    return soft


@_in_jax
def sparse_targets(
    labels: Any, plan: Plan | PlanSequence, *, num_classes: int | None = None, ignore_index: int | None = None
) -> tuple[Any, Any]:
    """Name the classes of a row and their shares instead of filling a row of C numbers: for huge label spaces.

    Args:
        labels: class ids (N,), see ``soft_targets``.
        plan: see ``soft_targets``.
        num_classes: C, only to check the ids; None checks that they are not negative.
        ignore_index: see ``soft_targets``; its share gets id 0 and weight 0.

    Returns:
        (ids, weights): int64 and float32 of shape (N, 1 + K), the row's own label first, then those of its K patches.
        Fills and patches without a share have weight 0 and the row's own id. A sequence of plans multiplies the widths.

    Raises:
        MixError: as ``soft_targets`` does for ids.

    Example:
        >>> import mixops as mx
        >>> plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.75, partner=[1, 0])
        >>> ids, weights = sparse_targets(np.array([70_000, 5]), plan)
        >>> ids.tolist(), weights.tolist()
        ([[70000, 5], [5, 70000]], [[0.75, 0.25], [0.75, 0.25]])
    """
    if num_classes is not None:
        check_classes(num_classes)
    if is_foreign(labels):
        loan = Loan(labels)
        return loan.settled(sparse_targets(loan.x, plan, num_classes=num_classes, ignore_index=ignore_index))
    labels = _given(labels)
    rows, weights = _leaves(plan, labels)
    return _ids(labels, rows, _as(weights, labels), num_classes, ignore_index)


@_in_jax
def pair_targets(labels: Any, plan: Plan | PlanSequence) -> tuple[Any, Any, Any]:
    """The labels of both parents and the own share: ỹ[n] = lam[n]·ya[n] + (1 - lam[n])·yb[n].

    Args:
        labels: one for each row of the source, of any dtype and shape (N, ...): they are picked, never blended.
        plan: what was drawn; any number of patches, but at most one weighted donor a row.

    Returns:
        (ya, yb, lam): ya and yb like ``labels`` for the N rows of the plan, lam (N,) float32, of the same kind and on
        the same device. A row without a weighted donor has yb = ya and lam = 1.

    Raises:
        MixError: if a row has two weighted donors, or two steps of a sequence weigh: use ``soft_targets`` or
            ``sparse_targets`` there; if the plan names a row that has no label.

    Example:
        >>> import mixops as mx
        >>> plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.75, partner=[1, 0])
        >>> [part.tolist() for part in pair_targets(np.array([2, 0]), plan)]
        [[2, 0], [0, 2], [0.75, 0.75]]
    """
    if is_foreign(labels):
        loan = Loan(labels)
        return loan.settled(pair_targets(loan.x, plan))
    labels = _given(labels)
    rows, weights = _leaves(plan, labels)
    if isinstance(plan, PlanSequence) and sum(bool(p.weight.any()) for p in plan) > 1:
        raise MixValueError(
            "pair_targets: two steps of this sequence mix rows, so a row may have four labels: expected one such step; "
            "use soft_targets or sparse_targets"
        )
    own, share = rows[:, 0], weights[:, 0]
    other = (weights > 0) & (rows != own[:, None])
    partner = np.where(other, rows, -1).max(1)
    several = (other & (rows != partner[:, None])).any(1)
    if several.any():
        raise MixValueError(
            f"pair_targets: row {int(np.argmax(several))} has more than one weighted donor, expected one at most; use "
            "soft_targets or sparse_targets"
        )
    # A row that is also a donor of itself beside another donor: its own share is both.
    itself = np.where((rows == own[:, None]) & other.any(1, keepdims=True), weights, 0)[:, 1:].sum(1, dtype=np.float32)
    partner = np.where(partner < 0, own, partner)
    lam = np.minimum(share + itself, np.float32(1))
    return labels[_as(own, labels)], labels[_as(partner, labels)], _as(lam, labels)


def mixed_accuracy(logits: Any, *targets: Any) -> float:
    """Share of the target mass that lies on the predicted class: Σ_n ỹ[n, argmax logits[n]] / Σ ỹ.

    Plain accuracy counts a prediction of the second parent as a mistake, though the row shows it and the target asks
    for it: under mixing it looks poor and falls as λ nears ½, however good the model is. This measure gives each
    prediction the share that its class has in the row; the best model reaches the mean of the larger shares, not 1.

    Args:
        logits: scores (N, C, ...), an array or a tensor.
        *targets: soft targets (N, C, ...); or ids and weights (N, M); or ya, yb, lam. A tuple of these will do.

    Returns:
        A number from 0 to 1; NaN if there is no target mass at all.

    Raises:
        MixError: if targets are none of these three, have another number of rows than the logits, or JAX traces them.

    Example:
        >>> mixed_accuracy(np.array([[2.0, 1.0], [2.0, 1.0]]), np.array([[0.75, 0.25], [0.25, 0.75]]))
        0.5
    """
    parts = targets[0] if len(targets) == 1 and isinstance(targets[0], (tuple, list)) else targets
    if len(parts) not in (1, 2, 3):
        raise MixTypeError(f"mixed_accuracy: got {len(parts)} targets, expected soft, (ids, weights) or (ya, yb, lam)")
    given = [logits, *parts]
    if any(map(is_tracer, given)):
        raise MixTypeError(
            "mixed_accuracy of what JAX traces: it gives a number of Python; call it outside of jax.jit, on what the "
            "compiled function returns"
        )
    if not all(hasattr(p, "shape") and len(p.shape) for p in given) or len({len(p) for p in given}) != 1:
        shapes = ", ".join(str(tuple(np.shape(p))) for p in given)
        raise MixValueError(f"mixed_accuracy: got shapes {shapes}, expected the same number of rows in all of them")
    predicted = logits.argmax(1)
    if len(parts) == 1:
        (soft,) = parts
        if tuple(soft.shape) != tuple(logits.shape):
            raise MixValueError(
                f"mixed_accuracy: got logits {tuple(logits.shape)} and soft targets {tuple(soft.shape)}, expected one "
                "shape"
            )
        if is_tensor(soft) and is_tensor(predicted):
            hit = soft.gather(1, predicted.unsqueeze(1).to(soft.device))
        else:
            place = np.expand_dims(_host(predicted), 1)
            hit = soft.gather(1, _as(place, soft)) if is_tensor(soft) else np.take_along_axis(soft, place, 1)
        got, mass = hit.sum(), soft.sum()
    else:
        predicted = _host(predicted)
        if len(parts) == 2:
            ids, weights = map(_host, parts)
            got, mass = (weights * (ids == predicted[:, None])).sum(), weights.sum()
        else:
            ya, yb, lam = map(_host, parts)
            lam = lam.reshape(-1, *[1] * (predicted.ndim - 1))
            got, mass = (lam * (ya == predicted) + (1 - lam) * (yb == predicted)).sum(), predicted.size
    return float(got / mass) if mass else float("nan")


def check_classes(num_classes: Any) -> None:
    """Raise unless num_classes is a whole number of 1 or more."""
    if isinstance(num_classes, bool) or not isinstance(num_classes, (int, np.integer)) or num_classes < 1:
        raise MixValueError(f"num_classes={num_classes!r}: expected a whole number of 1 or more")


def check_smoothing(smoothing: Any) -> None:
    """Raise unless smoothing is a number of [0, 1)."""
    if isinstance(smoothing, bool) or not isinstance(smoothing, (int, float, np.integer, np.floating)):
        raise MixTypeError(f"smoothing={smoothing!r}: expected a number of at least 0 and below 1")
    if not 0 <= smoothing < 1:  # NaN fails too
        raise MixValueError(f"smoothing={smoothing!r}: expected a number of at least 0 and below 1")


def check_ignore_index(ignore_index: Any) -> None:
    """Raise unless ignore_index is a whole number or None."""
    if ignore_index is not None and (isinstance(ignore_index, bool) or not isinstance(ignore_index, (int, np.integer))):
        raise MixTypeError(f"ignore_index={ignore_index!r}: expected the id that means no label, or None")


def _leaves(plan: Plan | PlanSequence, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """The ``target_shares`` of a plan that names no row beyond the labels."""
    if not isinstance(plan, (Plan, PlanSequence)):
        raise MixTypeError(f"plan is {type(plan).__name__}, expected a Plan or a PlanSequence")
    rows, weights = target_shares(plan.plans if isinstance(plan, PlanSequence) else (plan,))
    top = int(rows.max(initial=-1))
    if top >= len(labels):
        raise MixValueError(
            f"labels: got {len(labels)} rows, the plan names row {top}: expected a label for every row of the source"
        )
    return rows, weights


def _ids(
    labels: Any, rows: np.ndarray, weights: Any, num_classes: int | None, ignore_index: int | None
) -> tuple[Any, Any]:
    """The ids of these rows and their weights, 0 for ignored ones; checked."""
    if labels.ndim != 1 or _is_float(labels):
        raise MixTypeError(
            f"labels: got {labels.dtype} of shape {tuple(labels.shape)}, expected integer ids of shape (N,); numbers "
            "to regress on take soft_targets without num_classes"
        )
    ids = _cast(labels[_as(rows, labels)], "int64")
    if ignore_index is not None:
        real = ids != ignore_index
        ids, weights = ids * real, weights * real
    # As unsigned numbers negative ids are the largest: one pass tells that an array of ids is in range.
    array = isinstance(ids, np.ndarray) and ids.size
    if array and np.maximum.reduce(ids.view(np.uint64), None) < (num_classes or 1 << 63):
        return ids, weights
    bad = ids < 0 if num_classes is None else (ids < 0) | (ids >= num_classes)
    if _at_hand(ids) and bool(bad.any()):
        where = "0 or more" if num_classes is None else f"0 to {num_classes - 1}"
        raise MixValueError(
            f"labels: got class {int(ids[bad][0])}, expected {where}; if it means no label, pass it as ignore_index"
        )
    return ids, weights


def _scattered(ids: Any, weights: Any, num_classes: int) -> Any:
    """(N, C) of zeros to which each weight is added at its id; a row's weights in order, so that all round alike."""
    if is_tensor(ids):  # scatter, unlike an index, takes an id below 0 or above the last class for a mistake
        soft = weights.new_zeros((len(ids), num_classes))
        for m in range(ids.shape[1]):
            at, share = ids[:, m : m + 1], weights[:, m : m + 1]
            soft.scatter_(1, at, soft.gather(1, at) + share if m else share)
        return soft
    cells = ids + ascending(len(ids), np.int64)[:, None] * num_classes
    soft = np.zeros(len(ids) * num_classes, weights.dtype)
    np.add.at(soft, cells.ravel(), weights.ravel())
    return soft.reshape(len(ids), num_classes)


def _blended(labels: Any, rows: np.ndarray, weights: Any, num_classes: int | None) -> Any:
    """Σ_m weights[:, m]·labels[rows[:, m]] of rows or numbers."""
    if labels.ndim not in (1, 2) or (num_classes is not None and labels.shape[1] != num_classes):
        expected = "(N,) or (N, C)" if num_classes is None else f"(N,) or (N, {num_classes})"
        raise MixValueError(
            f"labels: got shape {tuple(labels.shape)}, expected {expected}; per-pixel and per-token labels are a "
            'Field(layout, "discrete")'
        )
    total = None
    for m in range(rows.shape[1]):
        picked = labels[_as(rows[:, m], labels)]
        if _at_hand(labels) and not _is_float(labels) and bool(((picked != 0) & (picked != 1)).any()):
            raise MixTypeError(
                f"labels: got {labels.dtype} of shape {tuple(labels.shape)} with other values than 0 and 1, expected "
                "ids of shape (N,), rows of 0 and 1, or floats to blend"
            )
        share = weights[:, m] if labels.ndim == 1 else weights[:, m, None]
        # A label that has no share may be NaN ("unknown"): it must not reach the target.
        part = _where(share > 0, share * _cast(picked, "float32"))
        total = part if total is None else total + part
    return total if total is not None else _zeros((len(rows), *labels.shape[1:]), weights)


def _needed(num_classes: int | None, labels: Any) -> int:
    if num_classes is None:
        raise MixValueError(f"labels: got ids ({labels.dtype}), expected num_classes with them")
    return num_classes


# -- the few things that arrays and tensors spell differently --------------------------------------------------------


def _given(labels: Any) -> Any:
    if not is_tensor(labels):
        try:
            labels = np.asarray(labels)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise MixTypeError(
                f"labels: got {type(labels).__name__}, which is no array now ({error}): expected an array, a tensor or "
                "a list of numbers; tensors in a graph of TensorFlow: mixops.pipelines.tf_ops.soft_targets"
            ) from None
    if not labels.ndim:
        raise MixValueError(f"labels: got the single value {labels!r}, expected one for each row")
    if not is_tensor(labels) and labels.dtype.kind not in "biuf" and labels.dtype.name != "bfloat16":
        raise MixTypeError(f"labels: got {labels.dtype}, expected numbers; number the classes first")
    return labels


def _is_float(labels: Any) -> bool:
    return bool(labels.is_floating_point()) if is_tensor(labels) else labels.dtype.kind not in "biu"


def _as(array: np.ndarray, like: Any) -> Any:
    """The array, or a tensor of it beside ``like``."""
    return beside(array, like) if is_tensor(like) else array


def _at_hand(x: Any) -> bool:
    """Can values be looked at without waiting for a device?"""
    return not is_tensor(x) or x.device.type == "cpu"


def _zeros(shape: tuple[int | None, ...], like: Any) -> Any:
    return like.new_zeros(shape) if is_tensor(like) else np.zeros(shape, like.dtype)


def _cast(x: Any, dtype: str) -> Any:
    return x.to(getattr(sys.modules["torch"], dtype)) if is_tensor(x) else x.astype(dtype, copy=False)


def _where(condition: Any, x: Any) -> Any:
    return x.where(condition, x.new_zeros(())) if is_tensor(x) else np.where(condition, x, x.dtype.type(0))


def _host(x: Any) -> np.ndarray:
    return np.asarray(x.detach().cpu().numpy() if is_tensor(x) else x)
