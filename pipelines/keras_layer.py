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
            labels in the soft form.
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
        entries = entries_of(inputs)
        missing = [name for name in self.fields if name not in entries]
        if missing:
            raise MixValueError(f"MixLayer: field {missing[0]!r} is not among the inputs {list(entries)}")
        held = {name: entries[name] for name in self.fields}
        op = _Labelled(self.op, any(isinstance(field, mx.Labels) for field in self.fields.values()))
        mix = {"torch": _at_once, "jax": _in_jax, "tensorflow": _in_tensorflow}[keras.backend.backend()]
        mixed = mix(op, held, entries, self.fields, self.seed, self.step, bool(training))
        if training:
            self.step.assign_add(1)
        return rebuilt(inputs, {**entries, **mixed})

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """Shapes and dtypes of the outputs."""
        entries = entries_of(inputs)
        for name, field in self.fields.items():
            if isinstance(field, mx.Labels):
                shape = entries[name].shape
                soft = (*shape, field.num_classes) if len(shape) == 1 and field.num_classes else shape
                entries[name] = keras.KerasTensor(soft, "float32")
            else:
                entries[name] = keras.KerasTensor(entries[name].shape, entries[name].dtype)
        return rebuilt(inputs, entries)

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


class _Labelled:
    """An operator whose draws are refused where they would move labels that nobody mixes."""

    def __init__(self, op: mx.Operator, labelled: bool) -> None:
        self.op, self.labelled, self.needs, self.uses = op, labelled, op.needs, getattr(op, "uses", ())

    def draw(self, rng: np.random.Generator, spec: mx.Spec, **evidence: np.ndarray) -> mx.Plan | mx.PlanSequence:
        plan = self.op.draw(rng, spec, **evidence)
        steps = plan.plans if isinstance(plan, mx.PlanSequence) else (plan,)
        if not self.labelled and any(step.weight.any() for step in steps):
            raise MixValueError(
                f"MixLayer: {self.op!r} mixes labels too, and fields have none: give the layer the labels, "
                'fields={"x": Field(...), "y": Labels(...)}, or mix in MixPyDataset'
            )
        return plan


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
    spec = mx.spec_of(held, fields, training=training)
    seen = _seen(op, entries, fields)

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

    return mx.mix_batch(held, jax.pure_callback(on_host, kinds, step.value, *seen.values()), fields)


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
    plan = drawn(op, held[first], fields[first].layout, seed, step.value, training=training, evidence=seen)
    return {
        name: mixed(held[name], plan, field.layout, field.kind, fill=field.fill)
        if isinstance(field, mx.Field)
        else soft_targets(held[name], plan, field.num_classes, field.smoothing, ignore_index=field.ignore_index)
        for name, field in fields.items()
    }


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
