"""ArrayLoader: mixed batches straight from whole arrays, made ahead by threads, with a place that can be saved."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any
from weakref import finalize

import mixops as mx
from mixops import MixTypeError, MixValueError

from .collate import check_mixing
from .keys import Keyed, KeyedBatchSampler
from .passes import Passes
from .row_arrays import BatchMaker, RowArray, direct_sources, in_layout, open_rows
from .state import count


class ArrayLoader(Passes):
    """Iterate over mixed batches of rows of whole arrays: gathered, mixed, normalised, cast and laid out in one pass.

    There is no data set object, nothing is stacked and no process is started: threads make batches ahead of the user,
    each a whole batch at a time, and the kernels let them run side by side. The batches are those of
    ``DataLoader(keyed(arrays(...)), batch_sampler=KeyedBatchSampler(..., seed=seed), collate_fn=MixCollator(op, fields,
    seed))``, whatever the number of threads: they depend on (seed, epoch, step, rank) alone.

    Every pass is the next epoch, from 0; it begins when its first batch is asked for. A batch that fails raises in its
    turn and is not counted: the next call tries it again. ``close()`` of a pass ends its threads, and so does dropping
    it.

    Args:
        arrays: {name: array}, or a tuple or list, of arrays of n rows each; or an ArrayDataset. NumPy arrays (maps of
            files too), CPU tensors, or anything that ``arrays()`` opens. Rows are the first axis whatever the layout
            says; they are read while batches are made: do not write to them meanwhile.
        op: the operator.
        fields: {name: Field | Labels}; for a tuple {position: ...}. Rows of other arrays are copied as they are.
        batch_size: rows a batch, 1 or more; the last batch of an epoch may be smaller.
        seed: of order and draws, 0 ≤ seed < 2**64.
        shuffle: visit the rows in random order, another one each epoch.
        drop_last: leave a smaller last batch out.
        to: {name: Output} of fields that are normalised, cast or laid out in the pass that mixes.
        threads: that make batches; None: the CPUs of this process. 0: the caller's, when a batch is asked for, with as
            many threads inside it as ``mix`` takes.
        prefetch: batches made ahead beyond one for each thread: at most threads + prefetch are waiting at any time.
        rank: of this process, 0 ≤ rank < world_size; None reads torch.distributed, if it is initialised, at each pass.
        world_size: number of processes that share the rows out.
        training: False draws the identity; also train() and eval().
        plan_key: name under which a dict batch is given its Plan; None leaves it out.
        pin_memory: results in page-locked memory, for copies to a CUDA device that do not wait. The blocks are torch's,
            which recycles them by the copies that use them.
        framework: "torch" or "numpy": what the batches hold, on the same memory; None: torch where it is loaded.

    Raises:
        MixError: if arrays differ in length or are no arrays, fields or to name none of them, an argument is out of
            range, op finds no array that it needs, or pin_memory comes without CUDA; while iterating, if arrays,
            fields and operator do not fit, or a mapped file was cut since (it is looked at before each batch).

    Example:
        >>> import numpy as np
        >>> import mixops as mx
        >>> from mixops.pipelines import ArrayLoader
        >>> images, labels = np.zeros((10, 8, 8, 3), np.uint8), np.arange(10) % 4
        >>> fields = {"image": mx.Field("b h w c"), "label": mx.Labels(4)}
        >>> to = {"image": mx.Output("b c h w", "float32", mean=0.5, std=0.25)}
        >>> loader = ArrayLoader({"image": images, "label": labels}, mx.CutMix(1.0), fields, 4, seed=7, to=to)
        >>> [tuple(batch["image"].shape) for batch in loader]
        [(4, 3, 8, 8), (4, 3, 8, 8), (2, 3, 8, 8)]
        >>> loader.state_dict()["epoch"]
        1
    """

    def __init__(
        self,
        arrays: Any,
        op: mx.Operator,
        fields: Mapping[Any, Any],
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = False,
        to: Mapping[Any, mx.Output] | None = None,
        threads: int | None = None,
        prefetch: int = 2,
        rank: int | None = None,
        world_size: int | None = None,
        training: bool = True,
        plan_key: str | None = None,
        pin_memory: bool = False,
        framework: str | None = None,
    ) -> None:
        super().__init__(training)
        owner = type(self).__name__
        check_mixing(owner, op, fields, seed, to)
        opened = open_rows(owner, arrays, framework)
        unknown = [name for name in fields if name not in opened]
        if unknown:
            raise MixValueError(f"{owner}: field {unknown[0]!r} is not among the arrays {list(opened)}")
        if plan_key is not None and (isinstance(arrays, (tuple, list)) or plan_key in opened):
            raise MixValueError(
                f"{owner}: plan_key={plan_key!r} needs named arrays and a name of its own, got {list(opened)}"
            )
        if pin_memory:
            _check_pinning(owner, framework)
        _check_fields(opened, op, fields)
        self.threads = _cpus() if threads is None else count(owner, "threads", threads)
        self.prefetch = count(owner, "prefetch", prefetch)
        length = len(next(iter(opened.values())).plain)
        self._sampler = KeyedBatchSampler(range(length), batch_size, drop_last, seed, shuffle, rank, world_size)
        self._maker = BatchMaker(
            owner,
            opened,
            direct_sources(opened, fields),
            op,
            dict(fields),
            seed,
            dict(to or {}),
            plan_key,
            _shaped_like(arrays),
            1 if self.threads else None,
            pin_memory,
        )
        mx.preload()

    def __repr__(self) -> str:
        maker, batches = self._maker, self._sampler
        sizes = ", ".join(f"{n!r}: {a.plain.dtype} {a.plain.shape}" for n, a in maker.arrays.items())
        words = [f"{{{sizes}}}", repr(maker.op), repr(maker.fields), str(batches.batch_size), f"seed={maker.seed}"]
        words += [] if batches.shuffle else ["shuffle=False"]
        words += ["drop_last=True"] if batches.drop_last else []
        words += [f"to={maker.to!r}"] if maker.to else []
        words += [f"threads={self.threads}", f"prefetch={self.prefetch}"]
        return f"{type(self).__name__}({', '.join(words)})"

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        return len(self._sampler)

    def __iter__(self) -> Iterator[Any]:
        return _Pass(self)

    def state_dict(self) -> dict[str, Any]:
        """The place of the next batch that was not delivered yet, and what it depends on, as plain JSON values.

        Batches that threads have made ahead do not count. The same on every rank, and that of a KeyedBatchSampler over
        the same rows: either resumes the other.
        """
        return self._sampler.state_dict(self._step, epoch=self._epoch)

    def load_state_dict(self, state: Any) -> None:
        """Go on where state_dict was taken: the next pass yields the rest of that epoch and reads only its rows.

        Raises:
            MixError: if the state is broken, of another version, or of another seed, length, shuffle or drop_last, or
                of another batch size for as many ranks; the loader then stays as it was.
        """
        self._sampler.load_state_dict(state)
        self._put(state["epoch"], state["step"])


@dataclass
class _Order:
    """A batch that was asked for.

    Args:
        indices: its rows, with the key.
        training: was it to be mixed when a thread was given it?
        made: the batch to come from that thread; None: no thread has it.
    """

    indices: Keyed
    training: bool = True
    made: Future[Any] | None = None

    def failed(self) -> bool:
        """Is it known that there will be none?"""
        return self.made is not None and self.made.done() and self.made.exception() is not None


class _Pass:
    """One pass over an ArrayLoader. A class, not a generator: an error in one batch does not end it."""

    def __init__(self, owner: ArrayLoader) -> None:
        self._owner = owner
        self._indices: Iterator[Keyed] | None = None
        self._orders: deque[_Order] = deque()
        self._step = 0
        self._crew: ThreadPoolExecutor | None = None
        self._pid = os.getpid()
        self._failing = False
        self._token = object()

    def __iter__(self) -> _Pass:
        return self

    def __next__(self) -> Any:
        owner = self._owner
        if self._indices is None:
            self._start()
        self._fill()
        if not self._orders:
            self._dismiss(wait=False)
            owner._end_pass(self._token)
            raise StopIteration
        order = self._orders[0]
        try:
            batch = owner._maker(order.indices, owner.training) if order.made is None else order.made.result()
        except Exception:
            # The error knows this frame, and with it the pass: a pass that knew the error would close a circle.
            order.made, self._failing = None, True
            raise
        self._orders.popleft()  # only now: a wait that is interrupted loses nothing
        self._step += 1
        owner._delivered(self._token, self._step)
        self._fill()
        return batch

    def close(self) -> None:
        """End the pass where it stands, and its threads as soon as they have made what they are at."""
        self._indices, self._token = iter(()), object()  # the place stays where it is
        self._orders.clear()
        self._dismiss(wait=True)

    def _start(self) -> None:
        owner = self._owner
        epoch, self._step = owner._next_place()
        owner._sampler.seek(epoch, self._step)
        self._indices = iter(owner._sampler)
        owner._begin_pass(self._token)

    def _fill(self) -> None:
        """Ask for as many batches as may be waiting, and let threads make those that none of them has."""
        assert self._indices is not None
        threads, training = self._owner.threads, self._owner.training
        allowed = threads + self._owner.prefetch if threads else 1
        missing = islice(self._indices, max(allowed - len(self._orders), 0))
        self._orders += map(_Order, missing)
        if not threads:
            return
        forked = self._pid != os.getpid()
        if forked:
            self._crew, self._pid = None, os.getpid()
        for order in self._orders:
            # Whoever was told of an error has had time to mend its cause, which others made ahead may have met too.
            stale = forked or order.training != training or (self._failing and order.failed())
            if order.made is None or stale:
                order.training, order.made = training, self._submit(order.indices, training)
        self._failing = False

    def _submit(self, indices: Keyed, training: bool) -> Future[Any]:
        if self._crew is None:
            self._crew = ThreadPoolExecutor(self._owner.threads, "mixops-loader")
            finalize(self, _send_home, self._crew, self._pid)
        return self._crew.submit(self._owner._maker, indices, training)

    def _dismiss(self, wait: bool) -> None:
        if self._crew is not None:
            _send_home(self._crew, self._pid, wait)
            self._crew = None


def _send_home(crew: ThreadPoolExecutor, pid: int, wait: bool = False) -> None:
    """End the threads, unless they are those of the process that this one was forked from."""
    if pid == os.getpid():
        crew.shutdown(wait, cancel_futures=True)


def _shaped_like(arrays: Any) -> Callable[[dict[Any, Any]], Any]:
    """Batches come by name or by position, as the arrays came; named tuples as such."""
    if hasattr(arrays, "_make"):
        make: Callable[[Any], Any] = arrays._make
    elif isinstance(arrays, (tuple, list)):
        make = tuple
    else:
        return dict
    return lambda items: make(items.values())


def _check_fields(arrays: Mapping[Any, RowArray], op: mx.Operator, fields: Mapping[Any, Any]) -> None:
    """Refuse layouts of another rank and missing evidence now: one row shows both."""
    row = {name: in_layout(array.plain[:1], fields.get(name)) for name, array in arrays.items()}
    for name, field in fields.items():
        mx.spec_of(row, {name: field})
    mx.evidence_of(row, fields, op)


def _check_pinning(owner: str, framework: str | None) -> None:
    torch = sys.modules.get("torch")
    if framework == "numpy" or torch is None:
        raise MixTypeError(f"{owner}: pin_memory=True pins tensors: import torch first, and leave framework out")
    if not torch.cuda.is_available():
        raise MixValueError(f"{owner}: pin_memory=True without CUDA: torch finds no device; leave pin_memory out")


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
