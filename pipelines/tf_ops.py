"""Mixing by TensorFlow's own operations: inside a model, a tf.function or a graph, with gradients, on any device.

It needs TensorFlow, and is imported by name: ``from mixops.pipelines.tf_ops import mixed``. What is mixed while data is
loaded is mixed faster by ``mixops.pipelines.tf_``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

try:
    import tensorflow as tf  # type: ignore[import-untyped]
except ImportError as error:
    raise ImportError("mixops.pipelines.tf_ops needs TensorFlow: pip install 'mixops[tensorflow]'") from error

import mixops as mx
from mixops import MixTypeError, MixValueError

from .tf_plan import PlanStep, TensorPlan

_AXES: tuple[tuple[str, ...], ...] = ((), ("t",), ("h", "w"), ("t", "h", "w"))
_FLOATS = (tf.float64, tf.float32, tf.float16, tf.bfloat16)


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def mixed(
    x: Any,
    plan: mx.Plan | mx.PlanSequence | TensorPlan,
    layout: str,
    kind: str = "continuous",
    *,
    fill: Any = None,
    to: mx.Output | None = None,
) -> Any:
    """Apply a plan to a tensor: ``mixops.mix`` in TensorFlow's operations; gradients flow to all rows that take part.

    Args:
        x: the source rows: a tensor, or what becomes one; float64/32/16, bfloat16 and uint8 blend; any dtype pastes.
        plan: what an operator drew; ``drawn`` draws one inside a graph.
        layout: axis names, "b h w c"; all but the batch's have static extents where boxes are measured on them.
        kind: "continuous", "discrete" or "valid", see ``mixops.mix``.
        fill: paints this instead of the plan's fills: a number, one for each channel, or "mean" (of ``to``).
        to: Output: normalise, cast and lay out what was mixed, without rounding in between.

    Returns:
        A tensor of the dtype of x: the integers of every backend for uint8, floats within its bound; or as ``to`` says.

    Raises:
        MixError: if x is no dense tensor, or layout, plan, kind, fill or to do not fit it. What only values show (a row
            that is not there, a blend of ids) raises at once where the plan is a ``Plan``, and as an
            InvalidArgumentError on CPUs where it was drawn in the graph.

    Example:
        >>> import numpy as np
        >>> plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.75, partner=[1, 0])
        >>> mixed([[0.0, 4.0], [4.0, 0.0]], plan, "b d").numpy().tolist()
        [[1.0, 3.0], [3.0, 1.0]]
    """
    if kind not in ("continuous", "discrete", "valid"):
        raise MixValueError(f"kind={kind!r}: expected one of continuous, discrete, valid")
    x = _tensor(x)
    names = _names(x, layout)
    if to is not None:
        to.check(names, tuple(x.shape.as_list()), kind, x.dtype.name)
    order = [names.index("b"), *(i for i, name in enumerate(names) if name != "b")]
    rows = tf.transpose(x, order)
    rest = tuple(name for name in names if name != "b")
    given = plan if isinstance(plan, TensorPlan) else TensorPlan.of(plan)
    paint = to.mean_fill(x.dtype.name) if isinstance(fill, str) and to is not None else fill
    for i, step in enumerate(given.steps):
        _check(step, x, rows, rest, kind)
        _check_fills(step, x, names, kind, fill, to)
        exact = to is not None and to.dtype != "uint8" and i == len(given.steps) - 1
        rows = _painted(step, rows, rest, kind, paint, exact)
    if to is None:
        return tf.transpose(rows, [order.index(i) for i in range(len(order))])
    return _finished(rows, rest, x.dtype.name, to)


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def soft_targets(
    labels: Any,
    plan: mx.Plan | mx.PlanSequence | TensorPlan,
    num_classes: int | None = None,
    smoothing: float = 0.0,
    *,
    ignore_index: int | None = None,
) -> Any:
    """Blend the labels as the plan says: ``mixops.soft_targets`` in TensorFlow's operations.

    Args:
        labels: class ids (N,) of any integer dtype; rows (N, C) of shares; or, with no num_classes, numbers (N,) or
            (N, D) to regress on.
        plan: what an operator drew, see ``mixed``.
        num_classes: C, needed for ids and for smoothing.
        smoothing: s in [0, 1): every label becomes (1 - s)·y + s/C before it is blended.
        ignore_index: the id that says "no label"; its share of a row adds nothing.

    Returns:
        A float32 tensor (N, C), or (N,) for plain numbers.

    Raises:
        MixError: if ids or smoothing come without num_classes, rows have another width, smoothing is outside [0, 1), or
            a ``Plan`` names a row that has no label.
        InvalidArgumentError: of TensorFlow, on CPUs, for an id outside 0 to C - 1, integer rows of more than 0 and 1,
            or a plan drawn in the graph that names a row that has no label.

    Example:
        >>> import numpy as np
        >>> plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.75, partner=[1, 0])
        >>> soft_targets([2, 0], plan, 3).numpy().tolist()
        [[0.25, 0.0, 0.75], [0.75, 0.0, 0.25]]
    """
    mx.Labels(num_classes, smoothing, ignore_index)  # refuses what is out of range
    soft = _label_rows(_tensor(labels), num_classes, smoothing, ignore_index)
    given = plan if isinstance(plan, TensorPlan) else TensorPlan.of(plan)
    for step in given.steps:
        if step.known is not None and soft.shape[0] is not None:
            step.known.check_rows(soft.shape[0])
        lam = tf.maximum(1.0 - tf.reduce_sum(step.weight, 1), 0.0)
        blended = _share_of(soft, step.base, lam)
        for k in range(step.k):
            weight = step.weight[:, k]
            blended += _share_of(soft, tf.where(weight > 0, step.partner[:, k], step.base), weight)
        soft = blended
    return soft


def _share_of(soft: Any, rows: Any, share: Any) -> Any:
    """These rows times their share. One without a share may be NaN ("unknown"), which no target may show."""
    share = _column(share, soft)
    return tf.where(share > 0, share * tf.gather(soft, rows), 0.0)


def _label_rows(labels: Any, num_classes: int | None, smoothing: float, ignore_index: int | None) -> Any:
    """Unmixed targets, float32."""
    if labels.dtype == tf.bool:
        labels = tf.cast(labels, tf.int32)
    if labels.shape.rank not in (1, 2) or not (labels.dtype.is_integer or labels.dtype.is_floating):
        raise MixValueError(f"labels: got {labels.dtype.name} of shape {labels.shape}, expected numbers (N,) or (N, C)")
    if labels.dtype.is_integer and labels.shape.rank == 1:
        if num_classes is None:
            raise MixValueError(f"class ids of {labels.dtype.name} without num_classes: say how many classes there are")
        known = labels != ignore_index if ignore_index is not None else tf.ones_like(labels, tf.bool)
        ids = tf.where(known, labels, tf.zeros_like(labels))
        ids = _asserted(ids, (ids >= 0) & (ids < num_classes), f"class ids: expected 0 to {num_classes - 1}, got")
        rows = tf.one_hot(tf.cast(ids, tf.int64), num_classes, dtype=tf.float32)
        return tf.where(known[:, None], rows * (1 - smoothing) + smoothing / num_classes, tf.zeros_like(rows))
    if ignore_index is not None:
        raise MixValueError(f"ignore_index={ignore_index!r} with labels that are no ids: expected ids of shape (N,)")
    if num_classes is not None and (labels.shape.rank != 2 or labels.shape[-1] != num_classes):
        raise MixValueError(f"labels of shape {labels.shape}: expected ids (N,), or rows of {num_classes} classes")
    if labels.dtype.is_integer:
        labels = _asserted(labels, (labels == 0) | (labels == 1), "rows of labels: expected 0 and 1, or floats, got")
    rows = tf.cast(labels, tf.float32)
    return rows * (1 - smoothing) + smoothing / num_classes if num_classes else rows


# -- what is checked ---------------------------------------------------------------------------------------------------


def _tensor(x: Any) -> Any:
    """What was given as a tensor."""
    try:
        return tf.convert_to_tensor(x)
    except (TypeError, ValueError) as error:
        raise MixTypeError(
            f"{type(x).__name__}: expected a dense tensor, or what becomes one; pad what is ragged ({str(error)[:200]})"
        ) from None


def _names(x: Any, layout: str) -> tuple[str, ...]:
    """Axis names of the layout, one for each axis of x."""
    if x.shape.rank is None:
        raise MixTypeError(f'a tensor of unknown rank for layout "{layout}": set its static shape, x.set_shape(...)')
    stub = np.broadcast_to(np.zeros(()), [extent or 1 for extent in x.shape.as_list()])
    mx.Spec.like(stub, layout)  # refuses what does not name every axis
    return tuple(layout.split())


def _check(step: PlanStep, x: Any, rows: Any, rest: tuple[str, ...], kind: str) -> None:
    """Raise unless the step fits these rows."""
    here = []
    for axis in _AXES[len(step.shape)]:
        if axis not in rest:
            raise MixValueError(f'a plan on {step.shape} for layout without axis {axis}: axes "b {" ".join(rest)}"')
        here.append(rows.shape[1 + rest.index(axis)])
    if tuple(here) != step.shape:
        raise MixValueError(
            f"a tensor of {tuple(here)} on the axes of the boxes, but the plan was drawn for {step.shape}: draw it for "
            "this tensor, or take plan.rescaled(...)"
        )
    if step.known is None:
        return
    if rows.shape[0] is not None:
        step.known.check_rows(rows.shape[0])
    if step.known.facts.resized is not None:
        raise MixValueError("donor and box differ in size, and resampling is not there yet: make them equal")
    if step.known.facts.blends and kind != "valid" and (kind == "discrete" or x.dtype not in (*_FLOATS, tf.uint8)):
        raise MixTypeError(
            f"{kind} {x.dtype.name} tensor with an opacity between 0 and 1: ids cannot be averaged; paste (CutMix), or "
            "mix their embeddings"
        )


def _check_fills(step: PlanStep, x: Any, names: tuple[str, ...], kind: str, fill: Any, to: mx.Output | None) -> None:
    """Let the core refuse fills that the tensor cannot hold: it paints them on one element of each channel."""
    known, which = step.known, np.zeros(1, np.int32)
    if fill is None:
        if known is None or not known.facts.paints or kind != "continuous" or x.dtype.is_floating:
            return
        which = np.unique(-1 - known.partner[known.facts.painted])
    fills = known.fills if fill is None and known is not None else mx.Fills.of(0)
    nowhere, ones = np.zeros((1, len(which), 0), np.int32), np.ones((1, len(which)))
    one = mx.Plan(np.zeros(1, np.int32), -1 - which[None], nowhere, nowhere, ones, 0 * ones, (), fills)
    extents = [(extent or 1) if name == "c" else 1 for name, extent in zip(names, x.shape.as_list(), strict=True)]
    stub = np.zeros(extents, x.dtype.as_numpy_dtype)
    mx.mix(stub, one, " ".join(names), kind, fill=fill, to=to, backend="reference")


def _asserted(values: Any, fit: Any, said: str) -> Any:
    """The values, once they are looked at: an InvalidArgumentError with these words unless all of them fit."""
    done = tf.debugging.Assert(tf.reduce_all(fit), [said, values])
    with tf.control_dependencies([] if done is None else [done]):
        return tf.identity(values)


# -- one plan ----------------------------------------------------------------------------------------------------------


def _painted(step: PlanStep, x: Any, rest: tuple[str, ...], kind: str, fill: Any, exact: bool = False) -> Any:
    """The rows that a step makes, the batch axis first; ``exact`` leaves them unrounded, as float32 where they fit."""
    row = tf.gather(x, step.base)
    narrow = (tf.float16, tf.bfloat16, tf.uint8) if exact else (tf.float16, tf.bfloat16)
    wide = tf.float32 if kind == "continuous" and x.dtype in narrow else x.dtype
    row = tf.cast(row, wide)
    fills_too = kind == "continuous" or fill is not None
    for k in range(step.k):
        partner, share = step.partner[:, k], step.opacity[:, k]
        painted = (partner < 0) & (share > 0)
        value = tf.cast(tf.gather(x, tf.where((partner >= 0) & (share > 0), partner, step.base)), wide)
        if step.shifted:
            value = _shifted(value, step.donor[:, k] - step.box[:, k], rest, len(step.shape))
        if step.paints and fills_too:
            value = tf.where(_column(painted, row), _fills(step, row, rest, k, fill), value)
        region = _column(share > 0 if fills_too or not step.paints else (share > 0) & ~painted, row)
        for r, axis in enumerate(_AXES[len(step.shape)]):
            region &= _between(step.box[:, k, 2 * r : 2 * r + 2], row, 1 + rest.index(axis))
        if kind == "discrete" or row.dtype not in (*_FLOATS, tf.uint8):
            region &= _column(_whole(step, share, kind), row)
        row = tf.where(region, _mixed_values(row, value, _column(share, row), kind), row)
    return row if exact else tf.cast(row, x.dtype)


def _whole(step: PlanStep, share: Any, kind: str) -> Any:
    """(N,) which rows of ids take a patch: a blend, which a known plan was refused for, fails, or else changes none."""
    if kind == "valid" or step.known is not None:
        return share > 0
    said = "ids cannot be averaged: expected opacities of 0 and 1, got"
    return _asserted(share, (share == 0) | (share == 1), said) == 1


def _finished(rows: Any, rest: tuple[str, ...], dtype: str, to: mx.Output) -> Any:
    """Rows normalised, cast and laid out; the batch axis first in, ``dtype`` what they were before they were mixed."""
    names = ("b", *rest)
    if to.dtype != "uint8":
        wide = np.float64 if to.dtype == "float64" else np.float32
        scale, shift = (
            a.astype(wide).reshape([len(a) if name == "c" else 1 for name in names]) for a in to.affine(dtype)
        )
        rows = tf.cast(rows, wide) * scale + shift
    return tf.cast(tf.transpose(rows, [names.index(name) for name in to.layout.split()]), to.dtype)


def _mixed_values(row: Any, value: Any, share: Any, kind: str) -> Any:
    """What stands inside the box: (1 - share)·row + share·value; bytes in whole numbers, the larger of two flags."""
    if kind == "valid":
        return row | value if row.dtype == tf.bool else tf.maximum(row, value)
    if kind == "discrete" or row.dtype not in (*_FLOATS, tf.uint8):
        return value
    if row.dtype == tf.uint8:
        q = tf.cast(tf.round(tf.cast(share, tf.float32) * 65536), tf.int32)
        own, donor = tf.cast(row, tf.int32), tf.cast(value, tf.int32)
        return tf.cast(tf.bitwise.right_shift((65536 - q) * own + q * donor + 32768, 16), tf.uint8)
    share = tf.cast(share, row.dtype)
    # A NaN of what takes no part stays out of the sum, and so out of the gradients too.
    own = tf.where(share == 1, tf.zeros_like(row), row)
    return tf.where(share == 1, value, (1 - share) * own + share * value)


def _shifted(value: Any, moves: Any, rest: tuple[str, ...], rank: int) -> Any:
    """Each row moved so that its donor region lies where its box is."""
    for r, axis in enumerate(_AXES[rank]):
        place = 1 + rest.index(axis)
        extent = value.shape[place]
        index = tf.clip_by_value(tf.range(extent) + moves[:, 2 * r, None], 0, extent - 1)
        value = tf.gather(value, index, axis=place, batch_dims=1)
    return value


def _between(edges: Any, row: Any, place: int) -> Any:
    """Where an axis lies between two edges: bool, and broadcasts over the rows."""
    at = tf.range(row.shape[place])
    line = (at >= edges[:, :1]) & (at < edges[:, 1:])
    return tf.reshape(line, [-1 if i == 0 else row.shape[place] if i == place else 1 for i in range(row.shape.rank)])


def _fills(step: PlanStep, row: Any, rest: tuple[str, ...], k: int, fill: Any) -> Any:
    """What patch k would paint over whole rows, in the dtype of the rows."""
    which = tf.maximum(-1 - step.partner[:, k], 0)
    if step.noisy and fill is None:
        return step.noise_rows(which, row, rest)
    if fill is None:
        values = tf.gather(step.value, which)
    else:
        values = tf.constant(mx.Fills.of(tuple(fill) if isinstance(fill, list) else fill).value)
        values = tf.repeat(values, tf.shape(which), 0)
    channels = values.shape[1]
    if channels is None or (channels > 1 and ("c" not in rest or row.shape[1 + rest.index("c")] != channels)):
        raise MixValueError(f"{channels} fill values: expected one number, or one for each channel of axis c")
    spread = [-1 if i == 0 else channels if rest[i - 1] == "c" else 1 for i in range(row.shape.rank)]
    painted = tf.reshape(values, spread)
    if row.dtype.is_floating:
        return tf.cast(painted, row.dtype)
    if row.dtype == tf.bool:
        return painted != 0
    return tf.saturate_cast(tf.round(tf.cast(painted, tf.float64)), row.dtype)


def _column(values: Any, like: Any) -> Any:
    """(N,) numbers that broadcast over the rows of ``like``."""
    return tf.reshape(values, [-1, *[1] * (like.shape.rank - 1)])
