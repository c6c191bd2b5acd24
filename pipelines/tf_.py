"""Mixing in tf.data: a transformation for Dataset.apply that mixes on the host, where datasets are made.

It needs TensorFlow, and is imported by name: ``from mixops.pipelines.tf_ import mixed_dataset``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

try:
    import tensorflow as tf  # type: ignore[import-untyped]
except ImportError as error:
    raise ImportError("mixops.pipelines.tf_ needs TensorFlow: pip install 'mixops[tensorflow]'") from error

import mixops as mx
from mixops import MixTypeError, MixValueError

from .collate import check_mixing, draw_plan
from .keys import BatchKey
from .nested import entries_of, rebuilt
from .state import count


class DatasetMixing:
    """What ``mixed_dataset`` returns: call it with a dataset of batches, or hand it to ``Dataset.apply``.

    Every pass over the mixed dataset is the next epoch; it begins when its first batch is asked for.
    """

    def __init__(
        self,
        op: mx.Operator,
        fields: Mapping[Any, Any],
        seed: int,
        to: Mapping[Any, mx.Output],
        rank: int,
        training: bool,
        num_parallel_calls: int | None,
        place: tuple[int, int],
    ) -> None:
        self.op, self.fields, self.seed, self.to = op, dict(fields), seed, dict(to)
        self.rank, self.training, self.num_parallel_calls = rank, bool(training), num_parallel_calls
        self._next = place
        mx.preload()

    def __repr__(self) -> str:
        return f"mixed_dataset({self.op!r}, {self.fields!r}, seed={self.seed})"

    @property
    def epoch(self) -> int:
        """Epoch of the pass that begins next."""
        return self._next[0]

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be this epoch, from its start; a place given for this very epoch is kept.

        Raises:
            MixError: if epoch is no whole number of 0 or more.
        """
        if count("mixed_dataset", "epoch", epoch) != self._next[0]:
            self._next = epoch, 0

    def __call__(self, dataset: Any) -> Any:
        """The dataset of mixed batches, nested as the given ones are.

        Raises:
            MixError: if the elements lack a field, are no dense batches, or fields, operator and element do not fit;
                what only values show, an id beyond num_classes say, is an InvalidArgumentError when they are read.
        """
        if not isinstance(dataset, tf.data.Dataset):
            raise MixTypeError(f"mixed_dataset: got {type(dataset).__name__}, expected a tf.data.Dataset of batches")
        element = dataset.element_spec
        read = self._read(entries_of(element))
        results = self._results(read)
        types = [spec.dtype for specs in results.values() for spec in specs]
        # Stateless is what it is: its results are a function of its arguments. So the place in a dataset can be saved
        # (tf.train.Checkpoint), and parallel calls may run in any order.
        on_host = partial(self._mix, tuple(read))

        def numbered(epoch: Any, step: Any, training: Any) -> Any:
            place = tf.data.Dataset.from_tensors((epoch, training)).repeat()
            return tf.data.Dataset.zip(place, dataset.enumerate().skip(step))

        def mixed(place: Any, counted: Any) -> Any:
            (epoch, training), (step, batch) = place, counted
            entries = entries_of(batch)
            given = [epoch, step, training, *(entries[name] for name in read)]
            flat = iter(tf.numpy_function(on_host, given, types, stateful=False))
            for name, specs in results.items():
                parts = [tf.ensure_shape(next(flat), spec.shape) for spec in specs]
                entries[name] = parts[0] if len(parts) == 1 else tuple(parts)
            return rebuilt(batch, entries)

        plain = tf.autograph.experimental.do_not_convert
        kinds = [tf.int64, tf.int64, tf.bool]
        begun = tf.data.Dataset.from_tensors(0).map(
            plain(lambda zero: tf.numpy_function(self._begin, [zero], kinds, stateful=False))
        )
        numbers = begun.flat_map(plain(numbered))
        calls = self.num_parallel_calls
        made = numbers.map(plain(mixed), num_parallel_calls=calls, deterministic=None if calls is None else True)
        length = dataset.cardinality()
        known = int(length) >= 0 and self._next[1] == 0
        return made.apply(tf.data.experimental.assert_cardinality(length)) if known else made

    # -- on the host -----------------------------------------------------------------------------------------------

    def _begin(self, _: Any) -> tuple[np.int64, np.int64, np.bool_]:
        """Place of the first batch of a pass that begins now."""
        epoch, step = self._next
        self._next = epoch + 1, 0
        return np.int64(epoch), np.int64(step), np.bool_(self.training)

    def _mix(self, names: tuple[Any, ...], epoch: Any, step: Any, training: Any, *arrays: Any) -> list[np.ndarray]:
        """The mixed entries of the batch in this place, one after the other."""
        key = BatchKey(int(epoch), int(step), self.rank)
        mixed = self._mixed(dict(zip(names, arrays, strict=True)), key, bool(training))
        return [part for parts in mixed.values() for part in parts]

    def _mixed(
        self, entries: dict[Any, np.ndarray], key: BatchKey, training: bool
    ) -> dict[Any, tuple[np.ndarray, ...]]:
        """The mixed fields of a batch, each as one array or more; entries that are no field are evidence."""
        plan = draw_plan(entries, self.op, self.fields, self.seed, key, training=training)
        threads = None if self.num_parallel_calls is None else 1
        held = {name: entries[name] for name in self.fields}
        mixed = mx.mix_batch(held, plan, self.fields, to=self.to, threads=threads)
        return {name: item if isinstance(item, tuple) else (item,) for name, item in mixed.items()}

    # -- when the dataset is made ----------------------------------------------------------------------------------

    def _read(self, specs: dict[Any, Any]) -> dict[Any, Any]:
        """The specs of the entries that mixing reads: the fields, and evidence that the batch has."""
        missing = [name for name in self.fields if name not in specs]
        if missing:
            raise MixValueError(
                f"mixed_dataset: field {missing[0]!r} is not in the batch, expected one of {list(specs)}"
            )
        wanted = [name for name in (*self.op.needs, *getattr(self.op, "uses", ())) if name in specs]
        read = {name: specs[name] for name in dict.fromkeys((*self.fields, *wanted))}
        for name, spec in read.items():
            if not isinstance(spec, tf.TensorSpec) or spec.shape.rank is None or not spec.shape.rank:
                raise MixTypeError(
                    f"mixed_dataset: entry {name!r} is {spec}, expected a dense batch of known rank: batch the dataset "
                    "first, and pad what is ragged"
                )
        return read

    def _results(self, read: dict[Any, Any]) -> dict[Any, list[Any]]:
        """Dtypes and static shapes of what mixing makes, seen on zeros: an extent that follows an open one is open."""
        batches = [self._mixed(_zeros(read, extent), BatchKey(0, 0, self.rank), True) for extent in (2, 3)]
        return {
            name: [_spec_of(a, b) for a, b in zip(parts, batches[1][name], strict=True)]
            for name, parts in batches[0].items()
        }


def _zeros(specs: dict[Any, Any], extent: int) -> dict[Any, np.ndarray]:
    """Arrays of these specs, every open extent as given."""
    return {n: np.zeros([e or extent for e in s.shape.as_list()], s.dtype.as_numpy_dtype) for n, s in specs.items()}


def _spec_of(a: np.ndarray, b: np.ndarray) -> Any:
    shape = [m if m == n else None for m, n in zip(a.shape, b.shape, strict=True)]
    return tf.TensorSpec(shape, tf.as_dtype(a.dtype))


def mixed_dataset(
    op: mx.Operator,
    fields: Mapping[Any, Any],
    seed: int,
    *,
    to: Mapping[Any, mx.Output] | None = None,
    epoch: int = 0,
    step: int = 0,
    rank: int = 0,
    training: bool = True,
    num_parallel_calls: int | None = None,
) -> DatasetMixing:
    """Mix the batches of a tf.data dataset: ``dataset.batch(64).apply(mixed_dataset(op, fields, seed))``.

    Each batch is mixed on the host by the compiled kernels, in one pass. Its plan depends on (seed, epoch, step, rank)
    alone, where every pass over the dataset is the next epoch (``set_epoch`` says which) and step is the number of the
    batch in its pass; under ``repeat()``, too, if it comes after this. Static shapes are kept. The place of an iterator
    can be saved by tf.train.Checkpoint, as long as the dataset it mixes can; in the process that restores it, ``epoch``
    is that of the pass that comes next.

    Args:
        op: the operator.
        fields: {name: Field | Labels} of the entries of a batch: keys of a dict, places in a tuple, and keys of a dict
            within a tuple; entries that it does not name pass through.
        seed: of the draws, 0 ≤ seed < 2**64.
        to: {name: Output} of fields that are normalised, cast or laid out in the pass that mixes.
        epoch: of the first pass, counted from 0.
        step: the first batch of the first pass; those before are read, but neither mixed nor handed out.
        rank: of the process, where several train.
        training: False draws the identity: values untouched, labels in the same form as in training.
        num_parallel_calls: batches that are mixed at the same time, with one thread each (tf.data.AUTOTUNE too); None:
            one after the other, with as many threads as ``mix`` takes. The batches are the same.

    Returns:
        A DatasetMixing, to be called with the dataset; ``set_epoch(n)`` for the pass that begins next.

    Raises:
        MixError: if op is no operator, fields are no Field or Labels, to names no Field, or a number is out of range.

    Example:
        >>> import numpy as np
        >>> import tensorflow as tf
        >>> data = tf.data.Dataset.from_tensor_slices((np.eye(4, dtype=np.float32), np.arange(4))).batch(4)
        >>> fields = {0: mx.Field("b d"), 1: mx.Labels(4)}
        >>> for x, soft in data.apply(mixed_dataset(mx.Mixup(0.8), fields, seed=7)):
        ...     print(x.shape, bool(np.allclose(x, soft)))
        (4, 4) True
    """
    owner = "mixed_dataset"
    check_mixing(owner, op, fields, seed, to)
    parallel = num_parallel_calls not in (None, tf.data.AUTOTUNE)
    if parallel and not count(owner, "num_parallel_calls", num_parallel_calls):
        raise MixValueError(f"{owner}: num_parallel_calls=0, expected 1 or more, tf.data.AUTOTUNE or None")
    place = count(owner, "epoch", epoch), count(owner, "step", step)
    return DatasetMixing(op, fields, seed, to or {}, count(owner, "rank", rank), training, num_parallel_calls, place)
