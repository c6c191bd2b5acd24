"""Plans as TensorFlow has them: constants of a plan that is known, or tensors that a graph draws when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

try:
    import tensorflow as tf  # type: ignore[import-untyped]
except ImportError as error:
    raise ImportError("mixops.pipelines.tf_plan needs TensorFlow: pip install 'mixops[tensorflow]'") from error

import mixops as mx
from mixops import MixTypeError, MixValueError, streams

_ARRAYS = ("base", "partner", "box", "donor", "opacity", "weight")
_FILLS = ("value", "noise", "std", "key")
#: Draws, and rows of each, that show what an operator's plans have in common.
_SAMPLES, _ROWS = 64, 32


@dataclass(frozen=True)
class Form:
    """What a graph knows of a plan before it is drawn.

    Args:
        k: patches a row.
        shape: extents that boxes are measured on.
        shifted: may donors lie elsewhere than their boxes?
        paints: may there be fills?
        noisy: may a fill be noise?
        channels: of a fill.
    """

    k: int
    shape: tuple[int, ...]
    shifted: bool
    paints: bool
    noisy: bool
    channels: int

    @classmethod
    def of(cls, plan: mx.Plan) -> Form:
        """That of one plan."""
        table = plan.fills
        shifted = plan.donor is not plan.box
        return cls(plan.k, plan.shape, shifted, plan.has_fills, table.noisy, table.value.shape[1])

    def joined(self, other: Form) -> Form:
        """What fits both."""
        return Form(
            max(self.k, other.k),
            max(self.shape, other.shape, key=len),
            self.shifted or other.shifted,
            self.paints or other.paints,
            self.noisy or other.noisy,
            max(self.channels, other.channels),
        )

    def arrays(self, plan: mx.Plan) -> list[np.ndarray]:
        """The arrays of a plan in this form.

        Raises:
            MixError: if it does not fit.
        """
        if self.joined(Form.of(plan)) != self:
            raise MixValueError(f"drew a plan of {Form.of(plan)}, but the graph was made for {self}: draw it outside")
        plan = plan.promoted(self.shape).padded(self.k)
        fills = {name: getattr(plan.fills, name) for name in _FILLS}
        fills["value"] = np.broadcast_to(fills["value"], (len(plan.fills), self.channels))
        return [*(getattr(plan, name) for name in _ARRAYS), *fills.values()]


@dataclass(frozen=True, eq=False)
class PlanStep:
    """One plan as tensors; ``known`` is the plan itself where it is known."""

    form: Form
    base: Any
    partner: Any
    box: Any
    donor: Any
    opacity: Any
    weight: Any
    value: Any
    noise: Any
    std: Any
    key: Any
    known: mx.Plan | None = field(default=None)

    @property
    def k(self) -> int:
        """Patches a row."""
        return self.form.k

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents that boxes are measured on."""
        return self.form.shape

    @property
    def shifted(self) -> bool:
        """May donors lie elsewhere than their boxes?"""
        return self.form.shifted

    @property
    def paints(self) -> bool:
        """May there be fills?"""
        return self.form.paints

    @property
    def noisy(self) -> bool:
        """May a fill be noise?"""
        return self.form.noisy

    def noise_rows(self, which: Any, like: Any, rest: tuple[str, ...]) -> Any:
        """Fill ``which[n]`` painted over the whole of row n, made on the host: an array like ``like``."""
        paint = partial(_paint, " ".join(("b", *rest)), self.shape)
        given = [which, tf.shape(like), self.value, self.noise, self.std, self.key]
        dtype = like.dtype
        rows = tf.numpy_function(partial(paint, dtype.as_numpy_dtype), given, dtype, stateful=False)
        return tf.ensure_shape(rows, like.shape)


@dataclass(frozen=True, eq=False)
class TensorPlan:
    """A plan, or a sequence of plans, as tensors: what ``drawn`` returns, for ``mixed`` and ``soft_targets``.

    Args:
        steps: to be applied one after the other.
    """

    steps: tuple[PlanStep, ...]

    @classmethod
    def of(cls, plan: Any) -> TensorPlan:
        """The constants of a plan that is known.

        Raises:
            MixError: if it is no plan.
        """
        if not isinstance(plan, (mx.Plan, mx.PlanSequence)):
            raise MixTypeError(
                f"plan is {type(plan).__name__}, expected a Plan, a PlanSequence or what drawn() returned"
            )
        steps = []
        for step in _steps(plan):
            form = Form.of(step)
            arrays = dict(zip((*_ARRAYS, *_FILLS), map(tf.constant, form.arrays(step)), strict=True))
            steps.append(PlanStep(form=form, known=step, **arrays))
        return cls(tuple(steps))


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def drawn(
    op: mx.Operator,
    x: Any,
    layout: str,
    seed: int,
    step: Any,
    *,
    epoch: Any = 0,
    rank: int = 0,
    training: bool = True,
    evidence: Mapping[str, Any] | None = None,
) -> TensorPlan:
    """Draw a plan for a tensor, inside a tf.function or eagerly; in a graph another one each time it runs.

    Args:
        op: the operator.
        x: the tensor whose rows are to be mixed; extents that boxes are drawn on are static.
        layout: its axis names.
        seed: of the draws, 0 ≤ seed < 2**64.
        step: number of the batch, a whole number or a tensor: the plan depends on (seed, epoch, step, rank) alone.
        epoch: a whole number or a tensor.
        rank: of the process.
        training: False draws the identity.
        evidence: {name: tensor} of what the operator needs to look at: labels, lengths.

    Returns:
        A TensorPlan.

    Raises:
        MixError: if the layout does not fit x, or an extent is not static; in a graph, as an InvalidArgumentError when
            it runs, if a plan is drawn that has more patches than those drawn to make the graph.

    Example:
        >>> import tensorflow as tf
        >>> from mixops.pipelines.tf_ops import mixed
        >>> from mixops.pipelines.tf_plan import drawn
        >>> @tf.function
        ... def mixing(x, step):
        ...     return mixed(x, drawn(mx.Mixup(0.8), x, "b d", 7, step), "b d")
        >>> mixing(tf.eye(4), tf.constant(0)).shape
        TensorShape([4, 4])
    """
    x = tf.convert_to_tensor(x)
    names, extents = layout.split(), x.shape.as_list()
    batch = names.index("b") if "b" in names else 0
    stub = np.broadcast_to(np.zeros(()), [extent or (2 if i == batch else 0) for i, extent in enumerate(extents)])
    if 0 in stub.shape:
        raise MixValueError(
            f"a tensor of shape {x.shape} to draw for: expected static extents of all axes but the batch"
        )
    spec = mx.Spec.like(stub, layout, training=training)
    seen = {name: tf.convert_to_tensor(given) for name, given in (evidence or {}).items()}
    draw = partial(_draw, op, seed, rank, training, spec.shape, tuple(seen))
    if tf.executing_eagerly():
        return TensorPlan.of(draw(spec.n, int(epoch), int(step), *(array.numpy() for array in seen.values())))
    forms = _forms(op, seed, mx.Spec(_ROWS, spec.shape), {name: _zeros(array) for name, array in seen.items()})
    numbers = [tf.shape(x)[batch], tf.cast(epoch, tf.int64), tf.cast(step, tf.int64), *seen.values()]
    dtypes = [tf.int32] * 4 + [tf.float32] * 3 + [tf.uint8, tf.float32, tf.uint64]
    flat = iter(tf.numpy_function(partial(_flat, forms, draw), numbers, dtypes * len(forms), stateful=False))
    steps = []
    for form in forms:
        n, k, edges = x.shape[batch], form.k, 2 * len(form.shape)
        shapes = ([n], [n, k], [n, k, edges], [n, k, edges], [n, k], [n, k], [None, form.channels], *[[None]] * 3)
        steps.append(PlanStep(form, *(tf.ensure_shape(next(flat), shape) for shape in shapes)))
    return TensorPlan(tuple(steps))


def _draw(
    op: mx.Operator,
    seed: int,
    rank: int,
    training: bool,
    shape: tuple[int, ...],
    names: tuple[str, ...],
    n: Any,
    epoch: Any,
    step: Any,
    *evidence: np.ndarray,
) -> mx.Plan | mx.PlanSequence:
    rng = streams.plan_stream(seed, int(epoch), int(step), rank)
    spec = mx.Spec(int(n), shape, epoch=int(epoch), training=training)
    return op.draw(rng, spec, **dict(zip(names, evidence, strict=True)))


def _flat(forms: tuple[Form, ...], draw: Any, *numbers: Any) -> list[np.ndarray]:
    """The arrays of all steps of a plan that is drawn now."""
    steps = _steps(draw(*numbers))
    if len(steps) != len(forms):
        raise MixValueError(f"drew {len(steps)} plans, but the graph was made for {len(forms)}: draw them outside")
    return [array for form, step in zip(forms, steps, strict=True) for array in form.arrays(step)]


def _forms(op: mx.Operator, seed: int, spec: mx.Spec, evidence: Mapping[str, np.ndarray]) -> tuple[Form, ...]:
    """What the plans of an operator have in common, seen on a few that are drawn apart from those of any training."""
    forms: tuple[Form, ...] = ()
    for i in range(_SAMPLES):
        plan = op.draw(streams.sample_stream(seed, 0, i), spec, **evidence)
        found = tuple(Form.of(step) for step in _steps(plan))
        forms = tuple(a.joined(b) for a, b in zip(forms, found, strict=True)) if forms else found
    return forms


def _steps(plan: mx.Plan | mx.PlanSequence) -> tuple[mx.Plan, ...]:
    return plan.plans if isinstance(plan, mx.PlanSequence) else (plan,)


def _zeros(tensor: Any) -> np.ndarray:
    """Evidence of so many rows, in which there is nothing to see."""
    return np.zeros([_ROWS, *tensor.shape.as_list()[1:]], tensor.dtype.as_numpy_dtype)


def _paint(
    layout: str, shape: tuple[int, ...], dtype: Any, which: np.ndarray, extents: np.ndarray, *fills: np.ndarray
) -> np.ndarray:
    """Rows that are fills from edge to edge, made by the host's kernels: the noise of every backend."""
    n = len(which)
    box = np.tile(np.array([edge for extent in shape for edge in (0, extent)], np.int32), (n, 1, 1))
    one, none = np.ones((n, 1)), np.zeros((n, 1))
    plan = mx.Plan(np.arange(n), -1 - which[:, None], box, box, one, none, shape, mx.Fills(*fills))
    return mx.mix(np.zeros(extents, dtype), plan, layout)
