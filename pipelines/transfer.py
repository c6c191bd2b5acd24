"""The way of a batch to a device: through pinned memory that is used again, and ahead of the work that needs it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

import mixops as mx
from mixops import MixTypeError, MixValueError

#: Tensors begin at multiples of this in a pinned block.
_ALIGNED = 64


@runtime_checkable
class Lane(Protocol):
    """A way to a device beside the work that runs there: copies on it wait for nothing, and nothing waits for them
    before ``arrive`` says so. An event stands for the copies of one call.

    Args:
        device: where it leads.
    """

    device: torch.device

    def holds(self, tensor: Tensor) -> bool:
        """Does the tensor lie there already?"""

    def pinned(self, nbytes: int) -> Tensor:
        """(nbytes,) uint8 of host memory that copies read by themselves, while the host goes on."""

    def direct(self, tensor: Tensor) -> bool:
        """Is this host tensor in such memory?"""

    def copy(self, hosts: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
        """Begin to copy tensors from pinned memory; where they will be, in the same strides, and the event.

        The host tensors must be left as they are until the event is reached. If it raises, none is read any more.
        """

    def done(self, event: Any) -> bool:
        """Has the event been reached?"""

    def wait(self, event: Any) -> None:
        """Let the host wait for the event."""

    def arrive(self, event: Any, tensors: Sequence[Tensor]) -> None:
        """Let the work that is put on the device from now on wait for the event; it may then use these copies."""


class CudaLane:
    """A stream of its own to a CUDA device.

    The memory of the copies belongs to that stream: only so need no copy wait until the current stream is done with
    what lay there before. ``arrive`` tells the allocator that the current stream uses it too, so that it is given away
    again only after the work that was put there before its tensor died.

    Args:
        device: "cuda" is the current device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def holds(self, tensor: Tensor) -> bool:
        """See Lane."""
        return tensor.device == self.device

    def pinned(self, nbytes: int) -> Tensor:
        """See Lane."""
        return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=True)

    def direct(self, tensor: Tensor) -> bool:
        """See Lane."""
        return tensor.is_pinned()

    def copy(self, hosts: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
        """See Lane."""
        with torch.cuda.stream(self._stream):
            try:
                sent = [host.to(self.device, non_blocking=True) for host in hosts]
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(self._stream)
            except BaseException:  # out of memory, say: those before are under way
                self._stream.synchronize()
                raise
        return sent, event

    def done(self, event: Any) -> bool:
        """See Lane."""
        return bool(event.query())

    def wait(self, event: Any) -> None:
        """See Lane."""
        event.synchronize()

    def arrive(self, event: Any, tensors: Sequence[Tensor]) -> None:
        """See Lane."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)
        for tensor in tensors:
            tensor.record_stream(current)


def lane_to(owner: str, device: Any) -> Callable[[], Lane] | None:
    """What opens a lane to a device, when a pass begins; None for the CPU, which needs none.

    Args:
        owner: for the messages.
        device: "cpu", "cuda", "cuda:1", a torch.device, or a Lane.

    Raises:
        MixError: if device is none of these, or torch finds no such device.
    """
    if isinstance(device, Lane):
        return partial(_itself, device)
    if not isinstance(device, (str, torch.device)):
        raise MixTypeError(f'{owner}: device is {type(device).__name__}, expected "cuda", "cuda:1" or a torch.device')
    try:
        place = torch.device(device)
    except RuntimeError:
        place = None
    if place is None or place.type not in ("cpu", "cuda"):
        raise MixValueError(f'{owner}: device={str(device)!r}, expected "cuda", "cuda:1", "cpu" or None')
    if place.type == "cpu":
        return None
    if not torch.cuda.is_available():
        built = "" if torch.version.cuda or torch.version.hip else ": this torch is built for CPUs only"
        raise MixValueError(
            f"{owner}: device={str(device)!r}, but torch finds no CUDA device{built}; leave device= away, and move the "
            "batches yourself where there is one"
        )
    found = torch.cuda.device_count()
    if place.index is not None and place.index >= found:
        raise MixValueError(f"{owner}: device={str(device)!r}, but torch finds {found} CUDA devices, counted from 0")
    return partial(CudaLane, place)


def _itself(lane: Lane) -> Lane:
    return lane


@dataclass(frozen=True)
class Parcel:
    """A batch that is on its way.

    Args:
        contents: the batch, its tensors on the device: not there yet.
        lane: the way they take.
        tensors: those that are being copied.
        event: behind them; None if there are none.
    """

    contents: Any
    lane: Lane
    tensors: list[Tensor]
    event: Any

    def opened(self) -> Any:
        """The batch, for work that is put on the device from now on."""
        if self.tensors:
            self.lane.arrive(self.event, self.tensors)
        return self.contents


@dataclass
class _Block:
    """Pinned memory, and the event behind the copies that read it."""

    memory: Tensor
    event: Any = None


class Sender:
    """Copies batches to a device, one after the other, and does not wait for them.

    What is not in pinned memory is put into blocks of it that are used again, each when the copies that read it have
    ended. What is there already is read where it lies.

    Args:
        lane: the way.
        blocks: how many there may be, 1 or more: two batches are on their way at most, the next and the last one.
    """

    def __init__(self, lane: Lane, blocks: int = 2) -> None:
        self._lane, self._most = lane, blocks
        self._blocks: list[_Block] = []  # the one that was used longest ago comes first
        self._read: list[tuple[Any, list[Tensor]]] = []

    def send(self, batch: Any, fields: Mapping[Any, Any]) -> Parcel:
        """Let the tensors and arrays of a batch begin their way.

        Args:
            batch: dicts, tuples and lists of them, and of other things, which come along as they are.
            fields: the samples of a Field that come as a list become one tensor.

        Returns:
            The parcel, of a batch of the same types.
        """
        loads: list[_Load] = []
        axes = {name: field.layout.split().index("b") for name, field in fields.items() if isinstance(field, mx.Field)}
        noted = _walked(batch, partial(self._noted, loads), axes)
        if not loads:
            return Parcel(noted, self._lane, [], None)
        with torch.inference_mode(False):  # whoever asks for the next batch may be in another mode
            tensors, event = self._copied(loads)
        return Parcel(_walked(noted, partial(_unpacked, tensors)), self._lane, tensors, event)

    def settle(self) -> None:
        """Wait until no memory is read but that of the blocks: who filled the rest may use it for the next batch."""
        while self._read:
            self._lane.wait(self._read[0][0])
            self._read.pop(0)

    def _noted(self, loads: list[_Load], leaf: Any) -> Any:
        """Note what is to be copied, and leave its place."""
        if isinstance(leaf, Tensor):
            if self._lane.holds(leaf):
                return leaf
            if not _is_plain(leaf):
                return leaf.to(self._lane.device)
        load = leaf if isinstance(leaf, _Load) else _Load.of(leaf)
        if load is None:
            return leaf
        loads.append(load)
        return _Place(len(loads) - 1)

    def _copied(self, loads: list[_Load]) -> tuple[list[Tensor], Any]:
        direct = [load.whole is not None and load.dense and self._lane.direct(load.whole) for load in loads]
        starts, end = [], 0
        for load, as_it_is in zip(loads, direct, strict=True):
            starts.append(end)
            end += 0 if as_it_is else -(-load.nbytes // _ALIGNED) * _ALIGNED
        block = self._block(end) if end else None
        hosts: list[Tensor] = []
        for load, start, as_it_is in zip(loads, starts, direct, strict=True):
            if as_it_is and load.whole is not None:
                hosts.append(load.whole)
            else:
                hosts.append(
                    load.put(torch.empty(0, dtype=torch.uint8, device="cpu") if block is None else block.memory, start)
                )
        tensors, event = self._lane.copy(hosts)
        if block is not None:
            block.event = event
        if any(direct):
            self._read.append((event, [host for host, as_it_is in zip(hosts, direct, strict=True) if as_it_is]))
        return tensors, event

    def _block(self, nbytes: int) -> _Block:
        """A block that nothing reads, the last in the list from now on."""
        size = 1 << (nbytes - 1).bit_length()  # as much as the allocator would take for it
        at = next((i for i, b in enumerate(self._blocks) if b.event is None or self._lane.done(b.event)), None)
        if at is None and len(self._blocks) < self._most:
            block = _Block(self._lane.pinned(size))
        else:
            if at is None:
                self._lane.wait(self._blocks[0].event)
            block = self._blocks.pop(at or 0)
            block.event = None
            if block.memory.numel() < nbytes:
                block.memory = self._lane.pinned(size)
        self._blocks.append(block)
        return block


class _Place:
    """Where copy number ``index`` belongs."""

    def __init__(self, index: int) -> None:
        self.index = index


def _unpacked(tensors: list[Tensor], leaf: Any) -> Any:
    return tensors[leaf.index] if isinstance(leaf, _Place) else leaf


@dataclass(frozen=True)
class _Load:
    """A host tensor to be copied, or samples that become one.

    Args:
        parts: the tensor, or the samples.
        axis: along which samples are stacked; None: there is one tensor.
        shape, strides: of the copy, without gaps.
    """

    parts: list[Tensor]
    axis: int | None
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, item: Any, axis: int | None = None) -> _Load | None:
        """That of an array, a tensor, or, with an axis, of a list of them; None for anything else."""
        given = [item] if axis is None else list(item)
        parts = [tensor for one in given if (tensor := _tensor(one)) is not None and _is_plain(tensor)]
        if not parts or len(parts) < len(given) or len({(p.shape, p.dtype) for p in parts}) > 1:
            return None
        first = parts[0]
        if axis is None:
            return cls(parts, None, tuple(first.shape), torch.empty_like(first, device="meta").stride())
        shape = (*first.shape[:axis], len(parts), *first.shape[axis:])
        return cls(parts, axis, shape, torch.empty(shape, device="meta").stride())

    @property
    def whole(self) -> Tensor | None:
        """The tensor, if there is one."""
        return self.parts[0] if self.axis is None else None

    @property
    def dense(self) -> bool:
        """Does it lie without gaps?"""
        return self.parts[0].stride() == self.strides

    @property
    def nbytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in self.parts)

    def put(self, memory: Tensor, start: int) -> Tensor:
        """A copy in this memory."""
        run = memory[start : start + self.nbytes].view(self.parts[0].dtype)
        view = run.as_strided(self.shape, self.strides)
        if self.axis is None:
            return view.copy_(self.parts[0])
        return torch.stack(self.parts, self.axis, out=view)


def _is_plain(tensor: Tensor) -> bool:
    """Can it be copied as bytes? Gradients, sparse forms and subclasses are torch's own business."""
    usual = type(tensor) is Tensor and tensor.is_cpu and tensor.layout == torch.strided
    return usual and not tensor.requires_grad and not tensor.is_quantized


def _tensor(value: Any) -> Tensor | None:
    """A tensor, or one on the memory of an array; None for what torch has no dtype for, and for anything else."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, np.ndarray):
        return None
    half = value.dtype.name == "bfloat16"
    if any(step < 0 for step in value.strides):
        value = np.ascontiguousarray(value)
    with warnings.catch_warnings():
        # Of arrays that are read-only: nothing writes to this tensor.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        try:
            tensor = torch.from_numpy(value.view(np.int16) if half else value)
        except (TypeError, ValueError):  # strings, dates, objects; foreign byte orders
            return None
    return tensor.view(torch.bfloat16) if half else tensor


def on_the_cpu(batch: Any) -> Any:
    """A batch with its arrays as tensors on the same memory, and its tensors from elsewhere copied here."""
    return _walked(batch, _here)


def _here(leaf: Any) -> Any:
    tensor = _tensor(leaf)
    return leaf if tensor is None else tensor.cpu()


def _walked(value: Any, change: Callable[[Any], Any], axes: Mapping[Any, int] | None = None) -> Any:
    """The same structure with every leaf changed; what holds no leaf that changes is handed on as it is.

    Args:
        value: dicts, tuples and lists, and leaves.
        change: of a leaf.
        axes: {name: axis} of entries of the outermost level whose list is samples, stacked along that axis.
    """
    if isinstance(value, Mapping):
        items = dict(value.items())
    elif isinstance(value, (list, tuple)):
        items = dict(enumerate(value))
    else:
        return change(value)
    changed = {}
    for name, item in items.items():
        samples = axes is not None and name in axes and isinstance(item, (list, tuple))
        load = _Load.of(item, axes[name]) if samples and axes is not None else None
        changed[name] = _walked(item, change) if load is None else change(load)
    if all(changed[name] is item for name, item in items.items()):
        return value
    if isinstance(value, MutableMapping):
        result = copy.copy(value)
        result.update(changed)
        return result
    if isinstance(value, Mapping):
        return changed
    return type(value)._make(changed.values()) if hasattr(value, "_make") else type(value)(changed.values())
