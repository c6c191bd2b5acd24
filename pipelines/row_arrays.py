"""Whole arrays that batches take their rows from: opened, checked, and made into mixed batches without a stack."""

from __future__ import annotations

import mmap
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import mixops as mx
from mixops import MixTypeError, MixValueError

from .adapters import ArrayDataset
from .collate import draw_plan
from .keys import BatchKey, Keyed

FRAMEWORKS = ("torch", "numpy")


@dataclass(frozen=True)
class MappedFile:
    """The file behind an array that is mapped into memory.

    Args:
        name: of the array.
        file: path it was mapped from.
        mapping: it has the file open, so it knows the file's size even after it was renamed.
        needed: bytes of the file that the array reaches to.
    """

    name: Any
    file: str
    mapping: mmap.mmap
    needed: int

    def check(self, owner: str) -> None:
        """Raise MixError if the file was cut since: to read beyond its end would kill the process (SIGBUS)."""
        size = self.mapping.size()
        if size < self.needed:
            raise MixValueError(
                f"{owner}: {self.file}, mapped as {self.name!r}, has {size} bytes left of the {self.needed} that were "
                "mapped: put it back as it was and go on from here, or map what there is and make a new loader"
            )


@dataclass(frozen=True)
class RowArray:
    """One array of the data set, rows first.

    Args:
        plain: NumPy's view of its memory; bfloat16 as its bits.
        wrapped: rows as the batch shall hold them: itself, a tensor on the same memory, or a list of strings.
        mapped: the file behind it, or None.
    """

    plain: np.ndarray
    wrapped: Callable[[np.ndarray], Any]
    mapped: MappedFile | None

    def rows(self, rows: np.ndarray) -> Any:
        """Copies of some rows."""
        return self.wrapped(self.plain[rows])

    def whole(self) -> Any:
        """The array itself, to read only."""
        with warnings.catch_warnings():
            # Of a map that is read-only: nothing writes to this tensor.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
            return self.wrapped(self.plain)


def open_rows(owner: str, given: Any, framework: str | None) -> dict[Any, RowArray]:
    """The arrays by name, or by position.

    Args:
        owner: for the messages.
        given: an ArrayDataset, a mapping, or a tuple or list; of arrays, CPU tensors or what ``arrays()`` opens.
        framework: of the batches; None: torch where it is loaded.

    Raises:
        MixError: if there is none, lengths differ, or one is no array of rows.
    """
    if isinstance(given, ArrayDataset):
        given = given.fields
    if isinstance(given, (tuple, list)):
        given = dict(enumerate(given))
    if not isinstance(given, Mapping) or not given:
        raise MixTypeError(
            f"{owner}: arrays is {type(given).__name__}, expected one or more arrays: a dict {{name: array}}, a tuple, "
            "or arrays(name=...)"
        )
    if framework is not None and framework not in FRAMEWORKS:
        raise MixValueError(f"{owner}: framework={framework!r}, expected 'torch', 'numpy' or None")
    torch: Any = None
    if framework == "torch":
        import torch
    elif framework is None:
        torch = sys.modules.get("torch")
    opened = {name: _opened(owner, name, array, torch) for name, array in given.items()}
    lengths = {name: len(array.plain) for name, array in opened.items()}
    if len(set(lengths.values())) > 1:
        raise MixValueError(f"{owner}: lengths {lengths}, expected one length: a row of each makes a sample")
    return opened


def _opened(owner: str, name: Any, array: Any, torch: Any) -> RowArray:
    loaded = sys.modules.get("torch")
    if loaded is None or not isinstance(array, loaded.Tensor):
        plain = ArrayDataset({str(name): array}).fields[str(name)]
        return RowArray(np.asarray(plain), _wrapper(plain.dtype, torch), _mapped(name, plain))
    if array.device.type != "cpu" or array.requires_grad or array.layout != loaded.strided or not array.ndim:
        raise MixTypeError(
            f"{owner}: {name!r} is a tensor on {array.device} of shape {tuple(array.shape)} "
            f"(requires_grad={array.requires_grad}, {array.layout}), expected a plain CPU tensor of shape (n, ...): "
            ".detach().cpu()"
        )
    if array.dtype != loaded.bfloat16:
        return RowArray(array.numpy(), _wrapper(array.numpy().dtype, torch), None)
    if torch is None:
        raise MixTypeError(f"{owner}: {name!r} is a bfloat16 tensor, which NumPy lacks: leave framework out")
    return RowArray(array.view(loaded.int16).numpy(), partial(_tensor, dtype=loaded.bfloat16), None)


def _wrapper(dtype: np.dtype[Any], torch: Any) -> Callable[[np.ndarray], Any]:
    """How rows of this dtype come in a batch: as default_collate has them where that is torch's."""
    if torch is None:
        return _itself
    if dtype.kind in "US":
        return np.ndarray.tolist
    try:
        torch.from_numpy(np.empty(0, dtype))
    except TypeError:  # dates, foreign byte orders: torch has no such dtype
        return _itself
    return _tensor


def _itself(rows: np.ndarray) -> np.ndarray:
    return rows


def _tensor(rows: np.ndarray, dtype: Any = None) -> Any:
    import torch

    tensor = torch.from_numpy(rows)
    return tensor if dtype is None else tensor.view(dtype)


def _mapped(name: Any, array: Any) -> MappedFile | None:
    """The np.memmap that an array is, or is a view of."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
            return MappedFile(name, str(array.filename), array.base, array.offset + array.nbytes)
        array = array.base
    return None


@dataclass(frozen=True)
class BatchMaker:
    """Makes the mixed batch of some rows; safe in threads, for it never changes.

    Args:
        owner: for the messages.
        arrays: the data set.
        direct: {name: source} of the entries that are read from the whole arrays; rows of all others are gathered.
        op, fields, seed, to, plan_key: see MixCollator.
        shape: batch items by name or position, made into what the user gets.
        threads: of the kernels.
        pinned: results in page-locked memory.
    """

    owner: str
    arrays: dict[Any, RowArray]
    direct: dict[Any, Any]
    op: mx.Operator
    fields: dict[Any, Any]
    seed: int
    to: dict[Any, mx.Output]
    plan_key: str | None
    shape: Callable[[dict[Any, Any]], Any]
    threads: int | None
    pinned: bool

    def __call__(self, indices: Keyed, training: bool) -> Any:
        """The batch of these indices and their key."""
        for array in self.arrays.values():
            if array.mapped is not None:
                array.mapped.check(self.owner)
        rows = np.array(indices, np.int64)
        gathered = {n: self._in_layout(n, a.rows(rows)) for n, a in self.arrays.items() if n not in self.direct}
        plan = self._drawn(rows, gathered, indices.key, training)
        mixed = self._mixed(gathered, plan) | self._mixed(self.direct, plan.on(rows))
        if self.pinned:
            mixed = {name: _pinned(item) for name, item in mixed.items()}
        batch = {name: mixed[name] for name in self.arrays}
        return self.shape(batch if self.plan_key is None else {**batch, self.plan_key: plan})

    def _drawn(
        self, rows: np.ndarray, gathered: dict[Any, Any], key: BatchKey, training: bool
    ) -> mx.Plan | mx.PlanSequence:
        """The plan of the batch. What the operator looks at is gathered; of other arrays it only asks the extents."""
        seen = dict(gathered)
        for name in self.direct:
            looked_at = name in self.op.needs or (
                isinstance(self.fields[name], mx.Labels) and "labels" in self.op.needs
            )
            seen[name] = self._in_layout(name, self.arrays[name].plain[rows if looked_at else slice(len(rows))])
        return draw_plan(seen, self.op, self.fields, self.seed, key, training=training)

    def _mixed(self, items: dict[Any, Any], plan: mx.Plan | mx.PlanSequence) -> dict[Any, Any]:
        fields = {name: self.fields[name] for name in items if name in self.fields}
        if not fields:
            return items
        to = {name: tail for name, tail in self.to.items() if name in fields}
        out = self._pinned_outputs(items, plan.n) if self.pinned and items is self.direct else None
        mixed: dict[Any, Any] = mx.mix_batch(items, plan, fields, to=to, out=out, threads=self.threads)
        return mixed

    def _in_layout(self, name: Any, rows: Any) -> Any:
        return in_layout(rows, self.fields.get(name))

    def _pinned_outputs(self, items: dict[Any, Any], n: int) -> dict[Any, Any]:
        import torch

        outputs = {}
        for name, source in items.items():
            if isinstance(self.fields[name], mx.Field):
                layout, tail = self.fields[name].layout, self.to.get(name)
                extent = dict(zip(layout.split(), source.shape, strict=True)) | {"b": n}
                axes = (layout if tail is None else tail.layout).split()
                dtype = source.dtype if tail is None else getattr(torch, tail.dtype)
                outputs[name] = torch.empty([extent[a] for a in axes], dtype=dtype, pin_memory=True)
        return outputs


def in_layout(rows: Any, field: mx.Field | mx.Labels | None) -> Any:
    """Rows, first in the data set, where the layout of the field has its batch axis."""
    at = field.layout.split().index("b") if isinstance(field, mx.Field) else 0
    if not at:
        return rows
    return np.moveaxis(rows, 0, at) if isinstance(rows, np.ndarray) else rows.movedim(0, at)


def direct_sources(arrays: Mapping[Any, RowArray], fields: Mapping[Any, Any]) -> dict[Any, Any]:
    """The entries that can be mixed from the whole array, in the layout of their field.

    Not fields that are rewritten before they are mixed (planes of classes), that no kernel mixes (valid masks), or
    whose rows are not dense in memory: the mixing would copy all of such an array.
    """
    sources = {}
    for name, field in fields.items():
        array = arrays[name]
        fit = isinstance(field, mx.Labels) or (
            field.kind != "valid" and field.on_blend != "planes" and _dense_rows(array.plain)
        )
        if fit and min(array.plain.strides) >= 0:  # torch has no negative ones
            sources[name] = in_layout(array.whole(), field)
    return sources


def _dense_rows(array: np.ndarray) -> bool:
    """Do the elements of a row lie side by side, in whatever order of the axes?"""
    step = array.itemsize
    for stride, extent in sorted(zip(array.strides[1:], array.shape[1:], strict=True)):
        if extent != 1:
            if stride != step:
                return False
            step *= extent
    return True


def _pinned(item: Any) -> Any:
    if isinstance(item, tuple):
        return tuple(map(_pinned, item))
    return item.pin_memory() if hasattr(item, "pin_memory") else item  # a pinned tensor as it is
