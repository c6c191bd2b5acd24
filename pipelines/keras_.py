"""Mixing for Keras 3, on each of its backends: a data set for ``fit`` and a layer.

It needs Keras 3 and TensorFlow, JAX or torch, and is imported by name:
``from mixops.pipelines.keras_ import MixPyDataset, FollowEpochs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

try:
    import keras  # type: ignore[import-untyped]
except ImportError as error:
    raise ImportError("mixops.pipelines.keras_ needs Keras 3: pip install 'mixops[keras]'") from error

import mixops as mx
from mixops import MixTypeError, MixValueError

from .collate import check_mixing, draw_plan
from .keras_layer import MixLayer
from .keys import BatchKey, Keyed, KeyedBatchSampler
from .nested import entries_of, rebuilt
from .row_arrays import BatchMaker, direct_sources, open_rows
from .state import count

__all__ = ["FollowEpochs", "MixLayer", "MixPyDataset"]


class MixPyDataset(keras.utils.PyDataset):  # type: ignore[misc]
    """Mixed batches for fit on any backend of Keras: ``fit(data, shuffle=False, callbacks=[FollowEpochs(data)])``.

    A batch depends on (seed, epoch, its number, rank) alone: it is the same on every backend, for any number of
    workers, threads or processes, and after a restart. Batches are NumPy arrays, which Keras converts.

    Keras does not say which epoch it is at, and may look at batches before the first one: FollowEpochs tells. Without
    it each pass that Keras makes counts as one, from 0.

    Args:
        data: another PyDataset, whose batches are mixed; or whole arrays of n rows each, nested as batches are to be:
            ``(x, y)``, ``({"ids": ids, "mask": mask}, y)`` or a dict. Maps of files are read row by row.
        op: the operator.
        fields: {name: Field | Labels} of the entries of a batch: places in a tuple, and keys of a dict, also of one in
            a tuple. Entries that it does not name pass through.
        seed: of order and draws, 0 ≤ seed < 2**64.
        batch_size: rows a batch, for arrays only.
        shuffle: visit the rows of arrays in random order, another one each epoch. Give ``fit`` shuffle=False: its own
            hands out the same batches in an order of Python's global generator.
        drop_last: leave a smaller last batch of arrays out.
        to: {name: Output} of fields that are normalised, cast or laid out in the pass that mixes.
        rank: of this process, 0 ≤ rank < world_size, where several train.
        world_size: number of processes that share the rows of arrays.
        training: False draws the identity: values untouched, labels in the same form as in training.
        **options: workers, use_multiprocessing and max_queue_size, of PyDataset. With workers, on JAX and torch, let
            the model see a batch before its first fit, ``model.test_on_batch(*data[0])``: otherwise Keras looks at one
            itself, and trains on those that its workers made ahead of it before the epoch begins.

    Raises:
        MixError: if op, fields, to or a number is none, arrays differ in length, batch_size is missing or comes with a
            PyDataset, or fields, operator and arrays do not fit; with a PyDataset, when such a batch is asked for.

    Example:
        >>> import numpy as np
        >>> x, y = np.eye(6, dtype=np.float32), np.arange(6)
        >>> data = MixPyDataset((x, y), mx.Mixup(0.8), {0: mx.Field("b d"), 1: mx.Labels(6)}, seed=7, batch_size=4)
        >>> [(images.shape, bool(np.allclose(images, soft))) for images, soft in data]
        [((4, 6), True), ((2, 6), True)]
    """

    def __init__(
        self,
        data: Any,
        op: mx.Operator,
        fields: Mapping[Any, Any],
        seed: int,
        *,
        batch_size: int | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        to: Mapping[Any, mx.Output] | None = None,
        rank: int = 0,
        world_size: int = 1,
        training: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        owner = type(self).__name__
        check_mixing(owner, op, fields, seed, to)
        self.op, self.fields, self.seed, self.to = op, dict(fields), seed, dict(to or {})
        self.rank, self.training = count(owner, "rank", rank), bool(training)
        self._given = data if isinstance(data, keras.utils.PyDataset) else None
        self._epoch, self._within = 0, False
        if self._given is not None:
            if batch_size is not None:
                raise MixValueError(f"{owner}: batch_size={batch_size!r} with a PyDataset, which makes batches itself")
        else:
            if batch_size is None:
                raise MixValueError(f"{owner}: arrays without batch_size: say how many rows make a batch")
            opened = open_rows(owner, entries_of(data), "numpy")
            unknown = [name for name in fields if name not in opened]
            if unknown:
                raise MixValueError(f"{owner}: field {unknown[0]!r} is not among the arrays {list(opened)}")
            length = len(next(iter(opened.values())).plain)
            self._sampler = KeyedBatchSampler(range(length), batch_size, drop_last, seed, shuffle, rank, world_size)
            # What a batch is nested like, without the arrays: they would travel to workers twice.
            shape = partial(rebuilt, rebuilt(data, dict.fromkeys(opened)))
            direct = direct_sources(opened, self.fields)
            self._maker = BatchMaker(
                owner, opened, direct, op, self.fields, seed, self.to, None, shape, threads=1, pinned=False
            )
            self._maker(Keyed(range(min(length, 2)), (0, 0, self.rank)), self.training)  # shows what does not fit
        self.set_epoch(0)
        mx.preload()

    @property
    def epoch(self) -> int:
        """Epoch whose batches these are."""
        return self._epoch

    @property
    def num_batches(self) -> int | None:
        """Batches an epoch; None where the PyDataset that is mixed has no end."""
        return len(self._order) if self._given is None else self._given.num_batches

    def __len__(self) -> int:
        batches = self.num_batches
        if batches is None:
            raise TypeError(f"{type(self).__name__}: the data set that is mixed has no end")
        return batches

    def __getitem__(self, index: int) -> Any:
        """The mixed batch of this number, in the current epoch.

        Raises:
            IndexError: if arrays have fewer.
        """
        if self._given is None:
            return self._maker(self._order[index], self.training)
        key = BatchKey(self._epoch, index, self.rank)
        batch = self._given[index]
        entries = entries_of(batch)
        plan = draw_plan(entries, self.op, self.fields, self.seed, key, training=self.training)
        return rebuilt(batch, mx.mix_batch(entries, plan, self.fields, to=self.to))

    def set_epoch(self, epoch: int) -> None:
        """Let the batches be those of this epoch.

        Raises:
            MixError: if epoch is no whole number of 0 or more.
        """
        self._epoch = count(type(self).__name__, "epoch", epoch)
        if self._given is None:
            self._sampler.seek(self._epoch)
            self._order = list(self._sampler)

    def on_epoch_begin(self) -> None:
        """Called by Keras when a pass begins."""
        self._within = True
        if self._given is not None:
            self._given.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Called by Keras when a pass ends: the next one is the next epoch."""
        if self._given is not None:
            self._given.on_epoch_end()
        if self._within:  # Keras also calls this before any pass
            self._within = False
            self.set_epoch(self._epoch + 1)


class FollowEpochs(keras.callbacks.Callback):  # type: ignore[misc]
    """A callback that tells data sets which epoch ``fit`` is at, so that ``initial_epoch`` resumes with its batches.

    Args:
        *data: MixPyDataset, what ``mixed_dataset`` returned, or anything with ``set_epoch``.

    Raises:
        MixError: if one has none.

    Example:
        >>> def fit(model, data):
        ...     model.fit(data, epochs=30, initial_epoch=10, callbacks=[FollowEpochs(data)])
    """

    def __init__(self, *data: Any) -> None:
        super().__init__()
        for one in data:
            if not callable(getattr(one, "set_epoch", None)):
                raise MixTypeError(f"FollowEpochs: {type(one).__name__} has no set_epoch, expected MixPyDataset(...)")
        self._data = data

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Called by Keras before it asks for batches of the epoch."""
        for one in self._data:
            one.set_epoch(epoch)
