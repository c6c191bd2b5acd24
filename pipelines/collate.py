"""MixCollator: collate the samples of a batch, draw its plan from the key it carries, and mix. Runs in the workers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import mixops as mx
from mixops import MixTypeError, MixValueError, streams

from .keys import BatchKey
from .shared import share_results


class MixCollator:
    """A ``collate_fn`` that mixes: the plan of a batch depends on its key (epoch, step, rank) and the seed alone.

    From the workers of a DataLoader (on Linux) large results reach the main process in shared memory that is kept,
    without a copy, and their memory is used again when the last view of them there has died. ``mixops.pool.limit`` of
    a worker bounds that memory; a batch that finds none, since all batches are kept, say, is copied as torch does it,
    and a limit of 0 (in ``worker_init_fn``) always leaves it to torch.

    Args:
        op: the operator.
        fields: {name: Field | Labels}; for tuple samples {position: ...}. Entries it does not name pass through.
        seed: of the draws, 0 ≤ seed < 2**64.
        collate: samples to batch; None: as torch's default_collate where torch is loaded, else as numpy_collate; arrays
            that are mixed are then read from the samples by the mixing itself and never stacked.
        training: False draws the identity: values untouched, labels in the same form as in training.
        plan_key: name under which a dict batch is given the Plan; None leaves it out.
        to: {name: Output} of fields that are normalised, cast or laid out in the pass that mixes.

    Raises:
        MixError: if op is no operator, fields are no Field or Labels, or the seed is out of range; on a call, if the
            samples carry no key, or batch, fields and operator do not fit.

    Example:
        >>> import mixops as mx
        >>> from mixops.pipelines import KeyedBatchSampler, MixCollator, arrays, keyed
        >>> data = keyed(arrays(x=np.eye(4, dtype=np.float32), y=np.arange(4)))
        >>> collate = MixCollator(mx.Mixup(0.8), {"x": mx.Field("b d"), "y": mx.Labels(4)}, seed=7)
        >>> batch = collate(data.__getitems__(next(iter(KeyedBatchSampler(data, 4)))))
        >>> bool(np.allclose(batch["x"], batch["y"]))
        True
    """

    def __init__(
        self,
        op: mx.Operator,
        fields: Mapping[Any, Any],
        seed: int,
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        training: bool = True,
        plan_key: str | None = None,
        to: Mapping[Any, mx.Output] | None = None,
    ) -> None:
        check_mixing(type(self).__name__, op, fields, seed, to)
        self.op, self.fields, self.seed, self.to = op, dict(fields), seed, dict(to or {})
        self.collate, self.training, self.plan_key = collate, training, plan_key
        mx.preload()  # workers that are forked from here on need not load the kernels one by one

    def __repr__(self) -> str:
        words = [repr(self.op), repr(self.fields), f"seed={self.seed}"]
        words += [] if self.training else ["training=False"]
        given = {"collate": self.collate, "plan_key": self.plan_key, "to": self.to}
        words += [f"{name}={value!r}" for name, value in given.items() if value]
        return f"{type(self).__name__}({', '.join(words)})"

    def __call__(self, samples: Sequence[Any]) -> Any:
        """The mixed batch of these samples."""
        key = getattr(samples, "key", None)
        if key is None:
            raise MixValueError(
                "MixCollator: the samples carry no key: use DataLoader(keyed(dataset), "
                "batch_sampler=KeyedBatchSampler(...), collate_fn=MixCollator(...)), with keyed() outermost; or leave "
                "the loader as it is and wrap it in MixLoader"
            )
        share_results()
        batch = self.collate(list(samples)) if self.collate else collate_for_mixing(samples, self.fields)
        plan = draw_plan(batch, self.op, self.fields, self.seed, key, training=self.training)
        return mix_with_plan(batch, plan, self.fields, self.plan_key, to=self.to)


def check_mixing(owner: str, op: Any, fields: Any, seed: Any, to: Any = None) -> None:
    """Refuse early what would otherwise fail in a worker."""
    if not isinstance(op, mx.Operator):
        raise MixTypeError(f"{owner}: op is {type(op).__name__}, expected an operator such as Mixup(0.8)")
    if not isinstance(fields, Mapping) or not fields:
        raise MixTypeError(f"{owner}: fields is {fields!r}, expected {{name: Field(...) or Labels(...)}}")
    for name, field in fields.items():
        if not isinstance(field, (mx.Field, mx.Labels)):
            raise MixTypeError(
                f"{owner}: fields[{name!r}] is {type(field).__name__}, expected Field(...) or Labels(...)"
            )
    if to is not None and not (isinstance(to, Mapping) and all(isinstance(t, mx.Output) for t in to.values())):
        raise MixTypeError(f"{owner}: to is {to!r}, expected {{name: Output(...)}}")
    unknown = [name for name in to or () if not isinstance(fields.get(name), mx.Field)]
    if unknown:
        raise MixValueError(f"{owner}: to names {unknown[0]!r}, expected Fields of {list(fields)}")
    streams.plan_stream(seed)


def draw_plan(
    batch: Any, op: mx.Operator, fields: Mapping[Any, Any], seed: int, key: BatchKey, *, training: bool
) -> mx.Plan | mx.PlanSequence:
    """The plan of the batch with this key."""
    spec = mx.spec_of(batch, fields, epoch=key.epoch, training=training)
    rng = streams.plan_stream(seed, key.epoch, key.step, key.rank)
    return op.draw(rng, spec, **mx.evidence_of(batch, fields, op))


def mix_with_plan(
    batch: Any,
    plan: mx.Plan | mx.PlanSequence,
    fields: Mapping[Any, Any],
    plan_key: str | None = None,
    threads: int | None = None,
    to: Mapping[Any, mx.Output] | None = None,
) -> Any:
    """The mixed batch, with its plan under ``plan_key`` if that is given."""
    if plan_key is not None and not isinstance(batch, Mapping):
        raise MixTypeError(f"plan_key={plan_key!r} needs dict batches, got {type(batch).__name__}: leave plan_key out")
    if plan_key is not None and plan_key in batch:
        raise MixValueError(f"plan_key={plan_key!r} is already an entry of the batch: choose another name")
    mixed = mx.mix_batch(batch, plan, fields, to=to, threads=threads)
    return mixed if plan_key is None else {**mixed, plan_key: plan}


def collate_for_mixing(samples: Sequence[Any], fields: Mapping[Any, Any]) -> Any:
    """Collate by default, but leave each array that is to be mixed as the list of its samples: stacking is a pass."""
    first, collate = samples[0], _default_collate()
    if isinstance(first, Mapping):
        names: list[Any] = list(first)
    elif isinstance(first, (tuple, list)):
        names = list(range(len(first)))
    else:
        return collate(list(samples))
    items = {}
    for name in names:
        column = [sample[name] for sample in samples]
        rows = _rows(name, column) if isinstance(fields.get(name), mx.Field) else None
        items[name] = collate(column) if rows is None else rows
    if isinstance(first, Mapping):
        return items
    return type(first)(*items.values()) if hasattr(first, "_fields") else list(items.values())


def _check_column(name: Any, column: list[Any]) -> None:
    """Refuse samples that no Field can mix: what collates them would say neither which entry nor what to do."""
    first = column[0]
    for i, one in enumerate(column):
        if not hasattr(one, "shape") and not isinstance(one, (int, float)):
            raise MixTypeError(
                f"field {name!r}: sample {i} is {type(one).__name__}, expected an array or a tensor: convert it, "
                "np.asarray(image), in the data set or in a stage, keyed(dataset, stage=PerSample(...))"
            )
        if isinstance(one, np.ndarray) != isinstance(first, np.ndarray):
            raise MixTypeError(
                f"field {name!r}: sample 0 is {type(first).__name__} and sample {i} {type(one).__name__}, expected "
                "one kind of array: convert them in the data set or in a stage"
            )
        if np.shape(one) != np.shape(first):
            raise MixValueError(
                f"field {name!r}: sample 0 has shape {tuple(np.shape(first))} and sample {i} {tuple(np.shape(one))}, "
                "expected one shape: resize, crop or pad them in the data set or in a stage, keyed(dataset, "
                "stage=PerSample(...))"
            )


def _rows(name: Any, column: list[Any]) -> list[Any] | None:
    """The samples as a source of rows that mix takes, tensors where torch is loaded; None unless all are alike."""
    first, torch = column[0], sys.modules.get("torch")
    kind = np.ndarray if torch is None or isinstance(first, np.ndarray) else torch.Tensor
    shape, dtype = getattr(first, "shape", None), getattr(first, "dtype", None)
    if not all(isinstance(one, kind) and one.shape == shape and one.dtype == dtype for one in column):
        _check_column(name, column)
        return None
    if not shape:
        return None
    return column if torch is None or kind is torch.Tensor else [torch.as_tensor(one) for one in column]


def _default_collate() -> Callable[[list[Any]], Any]:
    data = sys.modules.get("torch.utils.data")
    return numpy_collate if data is None else data.default_collate


def numpy_collate(samples: Sequence[Any]) -> Any:
    """Stack samples without torch: dicts by name, tuples and lists by position, arrays and numbers into arrays.

    Args:
        samples: at least one, all of one structure and size.

    Returns:
        A dict or tuple of arrays, an array, or a list for anything else (strings, say).

    Raises:
        MixError: if there is no sample, or arrays differ in shape.

    Example:
        >>> numpy_collate([{"x": np.zeros(2), "name": "a"}, {"x": np.ones(2), "name": "b"}])["x"].shape
        (2, 2)
    """
    if not samples:
        raise MixValueError("numpy_collate: got no sample, expected at least one")
    first = samples[0]
    if isinstance(first, Mapping):
        return {name: numpy_collate([sample[name] for sample in samples]) for name in first}
    if isinstance(first, (tuple, list)):
        return tuple(numpy_collate(column) for column in zip(*samples, strict=True))
    if isinstance(first, (np.ndarray, np.generic, int, float)):
        shapes = {np.shape(sample) for sample in samples}
        if len(shapes) > 1:
            raise MixValueError(
                f"numpy_collate: samples of shapes {sorted(shapes)}, expected one shape: resize or pad them"
            )
        return np.stack([np.asarray(sample) for sample in samples])
    return list(samples)
