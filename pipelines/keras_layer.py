"""MixLayer: an operator as a layer of Keras 3, which mixes while a model trains and does nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

try:
    import keras  # type: ignore[import-untyped]
except ImportError as error:
    raise ImportError("mixops.pipelines.keras_layer needs Keras 3: pip install 'mixops[keras]'") from error

import mixops as mx
from mixops import MixTypeError, MixValueError, streams

from .collate import check_mixing
from .nested import entries_of, rebuilt

_KINDS = {"Field": mx.Field, "Labels": mx.Labels}


@keras.saving.register_keras_serializable(package="mixops")
class MixLayer(keras.layers.Layer):  # type: ignore[misc]
    """A layer that mixes rows, and their labels where it is given them, in training only: as Dropout, it mixes in
    ``fit`` or when called with ``training=True``, and hands values on untouched otherwise.

    Inputs are one tensor, a dict, or a tuple; outputs are nested alike. Labels come out in their soft form at all
    times, so that one loss serves training and evaluation. Plans are drawn on the host, also from compiled functions,
    and applied by operations of the backend; they depend on the seed and on how many batches the layer has mixed, which
    is a weight of it: a model that is loaded goes on where it was saved. Mixing while data is loaded is faster, see
    MixPyDataset.

    Args:
        op: the operator.
        fields: {name: Field | Labels} of the inputs, by key or place; or a layout, for one tensor. No on_blend, and
            labels in the soft form. A field of other extents, a mask of stride 4 say, takes the plan rescaled.
        seed: of the draws, 0 ≤ seed < 2**64.
        **options: of Layer.

    Raises:
        MixError: if op, fields or seed is none; when it is called, if inputs and fields do not fit, or if a plan has
            shares of labels and fields have no Labels: they would be wrong from then on.

    Example:
        >>> import numpy as np
        >>> from mixops.pipelines.keras_ import MixLayer
        >>> mixing = MixLayer(mx.Mixup(0.8), {"x": mx.Field("b d"), "y": mx.Labels(4)}, seed=7)
        >>> batch = {"x": np.eye(4, dtype="float32"), "y": np.arange(4)}
        >>> mixed = mixing(batch, training=True)
        >>> bool(np.allclose(mixed["x"], mixed["y"]))
        True
        >>> MixLayer.from_config(mixing.get_config()).op
        Mixup(alpha=0.8)
    """

    def __init__(self, op: mx.Operator, fields: str | Mapping[Any, Any], seed: int, **options: Any) -> None:
        # Layers cast floats to their own dtype otherwise: labels and images are to come out as they went in.
        super().__init__(**({"autocast": False} | options))
        given = {0: mx.Field(fields)} if isinstance(fields, str) else fields
        check_mixing("MixLayer", op, given, seed)
        _check_fields(given)
        self.op, self.fields, self.seed = op, dict(given), seed
        self.supports_jit = keras.backend.backend() != "tensorflow"  # XLA there has no way to the host

    def build(self, input_shape: Any) -> None:
        """Make the count of batches."""
        self.step = self.add_weight(name="step", shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The inputs, mixed in training."""
        entries = self._entries(inputs)
        held = {name: entries[name] for name in self.fields}
        op, backend = _Suited(self.op, self.fields), keras.backend.backend()
        mix = {"torch": _at_once, "numpy": _at_once, "jax": _in_jax, "tensorflow": _in_tensorflow}.get(backend)
        if mix is None:
            raise MixTypeError(f"MixLayer on Keras' backend {backend!r}: expected torch, jax, tensorflow or numpy")
        mixed = mix(op, held, entries, self.fields, self.seed, self.step, bool(training))
        if training:
            self.step.assign_add(1)
        return rebuilt(inputs, {**entries, **mixed})

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """Shapes and dtypes of the outputs."""
        entries = self._entries(inputs)
        for name, given in entries.items():  # also those that are handed on: an output is never the input itself
            field, shape, dtype = self.fields.get(name), given.shape, given.dtype
            if isinstance(field, mx.Labels):
                shape, dtype = (
                    (*shape, field.num_classes) if len(shape) == 1 and field.num_classes else shape,
                    "float32",
                )
            entries[name] = keras.KerasTensor(shape, dtype)
        return rebuilt(inputs, entries)

    def _entries(self, inputs: Any) -> dict[Any, Any]:
        entries = entries_of(inputs)
        missing = [name for name in self.fields if name not in entries]
        if missing:
            raise MixValueError(f"MixLayer: field {missing[0]!r} is not among the inputs {list(entries)}")
        return entries

    def get_config(self) -> dict[str, Any]:
        """Plain JSON values; the operator as text, which is parsed and never run.

        Raises:
            MixError: if the operator has no text that it could be read from.
        """
        text = repr(self.op)
        try:
            same = mx.parse_op(text) == self.op
        except mx.MixError:
            same = False
        if not same:
            raise MixValueError(f"MixLayer: {text} cannot be saved: expected an operator that mixops.operators() lists")
        fields = [[name, type(field).__name__, asdict(field)] for name, field in self.fields.items()]
        return {**super().get_config(), "op": text, "fields": fields, "seed": self.seed}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MixLayer:
        """The layer of a config that get_config returned."""
        options = dict(config)
        fields = {
            name: _KINDS[kind](**{n: tuple(v) if isinstance(v, list) else v for n, v in given.items()})
            for name, kind, given in options.pop("fields")
        }
        return cls(mx.parse_op(options.pop("op")), fields, **options)


class _Suited:
    """An operator whose draws are refused where fields do not suit them: compiled code could not tell any more.

    Args:
        op: the operator.
        fields: of the layer.
        extents: that its plans are rescaled to, None for those that it draws on.
    """

    def __init__(self, op: mx.Operator, fields: Mapping[Any, Any], extents: tuple[int, ...] | None = None) -> None:
        self.op, self.fields, self.extents = op, fields, extents
        self.needs, self.uses = op.needs, getattr(op, "uses", ())

    def on(self, extents: tuple[int, ...] | None) -> _Suited:
        """The same draws on other extents."""
        return _Suited(self.op, self.fields, extents)

    def draw(self, rng: np.random.Generator, spec: mx.Spec, **evidence: np.ndarray) -> mx.Plan | mx.PlanSequence:
        plan = self.op.draw(rng, spec, **evidence)
        steps = plan.plans if isinstance(plan, mx.PlanSequence) else (plan,)
        labelled = any(isinstance(field, mx.Labels) for field in self.fields.values())
        if not labelled and any(step.weight.any() for step in steps):
            raise MixValueError(
                f"MixLayer: {self.op!r} mixes labels too, and fields have none: give the layer the labels, "
                'fields={"x": Field(...), "y": Labels(...)}, or mix in MixPyDataset'
            )
        ids = [n for n, field in self.fields.items() if isinstance(field, mx.Field) and field.kind == "discrete"]
        if ids and any(step.facts.blends for step in steps):
            raise MixTypeError(
                f"MixLayer: {self.op!r} blends, and field {ids[0]!r} is discrete: ids and class masks cannot be "
                "averaged; paste (CutMix), or mix in MixPyDataset with on_blend"
            )
        # The layer that an operator of hidden states names is the one this stands in for: it is part of no form.
        steps = tuple(mx.Plan.trusted(step, layer=None) for step in steps)
        if self.extents is not None:
            steps = tuple(step.rescaled(self.extents) if step.rank else step for step in steps)
        return mx.PlanSequence(steps) if isinstance(plan, mx.PlanSequence) else steps[0]


def _check_fields(fields: Mapping[Any, Any]) -> None:
    arrays = [field for field in fields.values() if isinstance(field, mx.Field)]
    if not arrays:
        raise MixTypeError(f"MixLayer: fields {dict(fields)!r} have no Field: expected one or more to mix")
    for name, field in fields.items():
        plain = field.form == "soft" if isinstance(field, mx.Labels) else field.on_blend == "error"
        if not plain or (isinstance(field, mx.Field) and isinstance(field.fill, str)):
            raise MixValueError(
                f'MixLayer: fields[{name!r}] is {field!r}: expected on_blend="error", a fill in numbers and soft '
                "labels; MixPyDataset has the others"
            )


# -- one way for each backend ------------------------------------------------------------------------------------------


def _at_once(
    op: Any, held: dict[Any, Any], entries: dict[Any, Any], fields: Any, seed: int, step: Any, training: bool
) -> Any:
    """Draw and mix now: torch, and arrays of JAX that are known."""
    spec = mx.spec_of(held, fields, training=training)
    plan = op.draw(streams.plan_stream(seed, 0, int(step.value)), spec, **mx.evidence_of(entries, fields, op))
    return mx.mix_batch(held, plan, fields)


def _in_jax(
    op: Any, held: dict[Any, Any], entries: dict[Any, Any], fields: Any, seed: int, step: Any, training: bool
) -> Any:
    """Mix by jnp, inside a function that JAX compiles or beside one; the host draws when it runs."""
    import jax

    if not any(isinstance(array, jax.core.Tracer) for array in (step.value, *held.values())):
        return _at_once(op, held, entries, fields, seed, step, training)
    mixed: dict[Any, Any] = {}
    spec, seen = mx.spec_of(held, fields, training=training), _seen(op, entries, fields)
    for extents, part in _by_extents(held, fields, spec.shape).items():
        plan = _called_back(op.on(extents), spec, seed, step, seen)
        mixed |= mx.mix_batch({name: held[name] for name in part}, plan, part)
    return mixed


def _called_back(op: _Suited, spec: mx.Spec, seed: int, step: Any, seen: dict[str, Any]) -> Any:
    """A plan that the host draws whenever the compiled function runs."""
    import jax

    def draw(number: Any, *arrays: Any) -> Any:
        evidence = {name: np.asarray(array) for name, array in zip(seen, arrays, strict=True)}
        return op.draw(streams.plan_stream(seed, 0, int(number)), spec, **evidence)

    like = draw(0, *(np.zeros(array.shape, array.dtype) for array in seen.values()))
    form: Any = jax.tree.structure(like)
    kinds: Any = jax.eval_shape(lambda: like)

    def on_host(*numbers: Any) -> Any:
        drawn = draw(*numbers)
        leaves = zip(jax.tree.leaves(drawn), jax.tree.leaves(kinds), strict=False)
        if jax.tree.structure(drawn) != form or any(a.shape != b.shape for a, b in leaves):
            raise MixValueError(f"MixLayer: {op.op!r} drew a plan of another form than before: mix in MixPyDataset")
        return drawn

    return jax.pure_callback(on_host, kinds, step.value, *seen.values())


def _in_tensorflow(
    op: Any, held: dict[Any, Any], entries: dict[Any, Any], fields: Any, seed: int, step: Any, training: bool
) -> Any:
    """Mix by TensorFlow's operations, in a graph or beside one; the host draws when it runs."""
    from .tf_ops import mixed, soft_targets
    from .tf_plan import drawn

    arrays = {name: field for name, field in fields.items() if isinstance(field, mx.Field)}
    boxed = [n for n, f in arrays.items() if f.kind == "continuous" and {"t", "h", "w"} & set(f.layout.split())]
    first = (boxed or list(arrays))[0]
    seen = _seen(op, entries, fields)
    made = {}
    for extents, part in _by_extents(held, fields, _extents(held[first], fields[first])).items():
        plan = drawn(
            op.on(extents), held[first], fields[first].layout, seed, step.value, training=training, evidence=seen
        )
        for name, field in part.items():
            if isinstance(field, mx.Field):
                made[name] = mixed(held[name], plan, field.layout, field.kind, fill=field.fill)
            else:
                made[name] = soft_targets(
                    held[name], plan, field.num_classes, field.smoothing, ignore_index=field.ignore_index
                )
    return made


def _extents(array: Any, field: mx.Field) -> tuple[int, ...]:
    """Of the axes that boxes are drawn on."""
    return tuple(n for axis, n in zip(field.layout.split(), array.shape, strict=False) if axis in ("t", "h", "w"))


def _by_extents(
    held: dict[Any, Any], fields: Mapping[Any, Any], drawn_on: tuple[int, ...]
) -> dict[tuple[int, ...] | None, dict[Any, Any]]:
    """Fields by the extents that the plan is rescaled to for them, a mask of stride 4 say; None where it is not."""
    parts: dict[tuple[int, ...] | None, dict[Any, Any]] = {}
    for name, field in fields.items():
        here = _extents(held[name], field) if isinstance(field, mx.Field) else drawn_on
        other = here != drawn_on and len(here) == len(drawn_on)
        parts.setdefault(here if other else None, {})[name] = field
    return parts


def _seen(op: Any, entries: dict[Any, Any], fields: Mapping[Any, Any]) -> dict[str, Any]:
    """What the operator looks at, by the rules of ``evidence_of``, as it lies: its numbers may not be known yet."""
    seen = {}
    for need in (*op.needs, *op.uses):
        labels = [name for name, field in fields.items() if isinstance(field, mx.Labels)] if need == "labels" else []
        name = labels[0] if labels else need
        if name in entries:
            seen[need] = entries[name]
        elif need in op.needs:
            raise MixValueError(
                f"MixLayer: {op.op!r} needs {need}, and the inputs have none: give the layer an input {need!r}"
            )
    return seen
