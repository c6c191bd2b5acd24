"""Batches go from a DataLoader's workers to the main process in shared memory that is kept, without a copy.

torch copies every tensor of a worker's batch into fresh shared memory, which the main process then maps anew: for a
large batch that costs more than the mixing. Here ``mixops.pool`` of a worker takes its blocks from shared memory
(`SharedBlocks`), and what a queue pickles of such a block is a handle (`_lend`); the main process maps a block once and
makes ordinary tensors and arrays over the mapping. Each carries a `_Loan`: when the last view dies, the loan ends, and
the worker may write the block again. Everything that does not lie in such a block travels as always.

A block is a nameless file in memory (memfd): no mount can be too small for it, and a lack of memory shows when it is
allocated. Its first page says who reads the rest.
"""

from __future__ import annotations

import mmap
import os
import sys
import uuid
import weakref
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import numpy as np

import mixops as mx

# The first page of a block, as 32-bit words: who made it and which it is, whether its maker has dropped it, and a slot
# for each loan, 0 if it is free. A slot has one writer at a time, so nothing needs a lock between the processes.
_PAGE = 4096
_GONE = 5
_SENT = slice(8, 136)  # taken by the worker, for what it sends
_FORKED = slice(136, 1024)  # taken by the receiver when it forks: its child has the same views
_SLOTS = slice(_SENT.start, _FORKED.stop)
_ON_ITS_WAY = -1  # else the process that holds the loan
_DYING = 5.0  # seconds from the closing of a process's files to its end, at most


class _Handle(NamedTuple):
    """What travels: where a block is found, and the slot of the loan."""

    maker: bytes
    serial: int
    pid: int
    fd: int
    nbytes: int
    slot: int


class _SharedBlock:
    """A mapped block, in the process that made it or in one that reads it."""

    def __init__(self, fd: int, nbytes: int) -> None:
        self.file = mmap.mmap(fd, _PAGE + nbytes, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
        self.words = np.frombuffer(self.file, np.int32, _PAGE // 4)
        self.memory = np.frombuffer(self.file, np.uint8, nbytes, _PAGE)
        self.address: int = self.memory.__array_interface__["data"][0]

    def take(self, slots: slice) -> int | None:
        """A slot that nobody holds, now marked as on its way; None if there is none."""
        for slot in range(slots.start, slots.stop):
            if not _holds(int(self.words[slot])):
                self.words[slot] = _ON_ITS_WAY
                return slot
        return None

    @property
    def lent(self) -> bool:
        """Whether anybody has a loan of it."""
        slots = self.words[_SLOTS]
        return bool(slots.any()) and any(_holds(int(word)) for word in slots[slots != 0])


def _name(maker: bytes, serial: int) -> np.ndarray:
    """The words that begin the block of this maker and number."""
    return np.frombuffer(maker + serial.to_bytes(4, "little"), np.int32)


def _holds(word: int) -> bool:
    """Whether a slot is taken: by a loan on its way, or by a process that lives."""
    if word <= 0:
        return word == _ON_ITS_WAY
    try:
        os.kill(word, 0)
    except ProcessLookupError:  # a forked child that ended without clearing up
        return False
    except PermissionError:
        return True
    return True


# -- in the worker ----------------------------------------------------------------------------------------------------


class SharedBlocks:
    """Blocks of ``mixops.pool`` in memory that other processes can map; ``pool.limit`` bounds them all together."""

    def __init__(self) -> None:
        self._maker, self._pid, self._serial = uuid.uuid4().bytes, os.getpid(), 0
        self._blocks: dict[int, tuple[_SharedBlock, int, int]] = {}  # by address: the block, its descriptor and number

    def allocate(self, nbytes: int) -> np.ndarray | None:
        """A new block, or None beyond the limit or where there is no memory for it."""
        nbytes = -(-nbytes // _PAGE) * _PAGE
        if sum(block.memory.nbytes for block, _, _ in self._blocks.values()) + nbytes > mx.pool.limit:
            return None
        fd = -1
        try:
            fd = os.memfd_create("mixops", os.MFD_CLOEXEC)
            os.posix_fallocate(fd, 0, _PAGE + nbytes)  # fails here, rather than when the memory is written
            block = _SharedBlock(fd, nbytes)
        except OSError:
            if fd >= 0:
                os.close(fd)
            return None
        self._serial += 1
        block.words[:_GONE] = _name(self._maker, self._serial)
        self._blocks[block.address] = block, fd, self._serial
        return block.memory

    def reusable(self, memory: np.ndarray) -> bool:
        """Whether all loans of this block have ended."""
        return not self._blocks[memory.__array_interface__["data"][0]][0].lent

    def evict(self, memory: np.ndarray) -> None:
        """Drop a block, and tell who keeps a mapping of it."""
        block, fd, _ = self._blocks.pop(memory.__array_interface__["data"][0])
        block.words[_GONE] = 1
        os.close(fd)

    def lend(self, low: int, high: int) -> tuple[_Handle, int] | None:
        """A loan of the block that these addresses lie in, and where in it; None if they lie in no block."""
        for block, fd, serial in self._blocks.values():
            if block.address <= low and high <= block.address + block.memory.nbytes:
                slot = block.take(_SENT)
                if slot is None:
                    return None
                handle = _Handle(self._maker, serial, self._pid, fd, block.memory.nbytes, slot)
                return handle, low - block.address
        return None


def share_results() -> None:
    """In a DataLoader worker, from now on: large results of ``mix`` in shared memory, sent without a copy.

    Does nothing elsewhere, or where the system has no memfd or no /proc (it is for Linux): batches then travel as torch
    sends them. So does a batch for which there is no block, as the limit is reached (somebody keeps all batches) or
    memory is short; ``mixops.pool.stats()`` of the worker counts it as refused.
    """
    data = sys.modules.get("torch.utils.data")
    if data is None or data.get_worker_info() is None or isinstance(mx.pool.source, SharedBlocks) or not _usable():
        return
    import torch

    mx.pool.source = SharedBlocks()
    ForkingPickler.register(torch.Tensor, _reduce_tensor)
    ForkingPickler.register(np.ndarray, _reduce_array)


def _usable() -> bool:
    """Whether a nameless file can be made here and opened by way of /proc."""
    if not hasattr(os, "memfd_create"):
        return False
    try:
        fd = os.memfd_create("mixops", os.MFD_CLOEXEC)
    except OSError:
        return False
    try:
        os.close(os.open(_path(os.getpid(), fd), os.O_RDWR))
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _path(pid: int, fd: int) -> str:
    return f"/proc/{pid}/fd/{fd}"


def _lend(low: int, high: int) -> tuple[_Handle, int] | None:
    source = mx.pool.source
    return source.lend(low, high) if isinstance(source, SharedBlocks) else None


def _reduce_tensor(tensor: Any) -> Any:
    """How a queue pickles a tensor: by its handle if it lies in a block, else as torch does it."""
    import torch
    from torch.multiprocessing import reductions

    as_torch_does: Any = reductions.reduce_tensor
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.requires_grad or tensor.is_conj() or tensor.is_neg() or not tensor.numel():
        return as_torch_does(tensor)
    last = sum((extent - 1) * step for extent, step in zip(tensor.shape, tensor.stride(), strict=True))
    low = tensor.data_ptr()
    lent = _lend(low, low + (last + 1) * tensor.element_size())
    if lent is None:
        return as_torch_does(tensor)
    return _tensor_of, (*lent, tensor.dtype, last + 1, tuple(tensor.shape), tensor.stride())


def _reduce_array(array: np.ndarray) -> Any:
    """How a queue pickles an array: by its handle if it lies in a block, else as NumPy does it."""
    low, high = np.lib.array_utils.byte_bounds(array)
    lent = None if array.dtype.hasobject or not array.size else _lend(low, high)
    if lent is None:
        return array.__reduce_ex__(4)
    handle, start = lent
    first = array.__array_interface__["data"][0] - low
    return _array_of, (handle, start + first, array.dtype, array.shape, array.strides)


# -- in the process that receives -------------------------------------------------------------------------------------


class _Loan:
    """What every view of a received block holds on to. NumPy reads the interface, and keeps the loan as the base."""

    __slots__ = ("__array_interface__", "__weakref__", "_block", "_for_child", "_pid", "_slot")

    def __init__(self, block: _SharedBlock, slot: int) -> None:
        self._block, self._slot, self._pid = block, slot, os.getpid()
        self._for_child: int | None = None
        block.words[slot] = self._pid
        self.__array_interface__ = block.memory.__array_interface__
        _LOANS[id(self)] = self

    def __del__(self, getpid: Any = os.getpid) -> None:
        # Any thread may end it: one store, and no lock. A child's copy of the loan has no say in this slot.
        if getpid() == self._pid:
            self._block.words[self._slot] = 0

    def before_fork(self) -> None:
        """Take a slot for the child; where there is none, never end the loan: its worker then makes another block."""
        self._for_child = self._block.take(_FORKED)
        if self._for_child is None:
            self._pid = 0

    def in_child(self) -> None:
        """Hold the slot that was taken for this process."""
        if self._for_child is not None:
            self._slot, self._pid = self._for_child, os.getpid()
            self._block.words[self._slot] = self._pid


_LOANS: weakref.WeakValueDictionary[int, _Loan] = weakref.WeakValueDictionary()
_KEPT: dict[bytes, dict[int, _SharedBlock]] = {}  # the mappings of each worker, as long as its Process object lives


def _received(handle: _Handle) -> np.ndarray:
    """The bytes of a block, with the loan as their base."""
    kept = _KEPT.get(handle.maker, {})
    block = kept.get(handle.serial)
    if block is None:
        block = _opened(handle)
        for serial in [s for s, old in kept.items() if old.words[_GONE]]:
            kept.pop(serial, None)
        _keep(handle, block)
    return np.asarray(_Loan(block, handle.slot))


def _opened(handle: _Handle) -> _SharedBlock:
    try:
        fd = os.open(_path(handle.pid, handle.fd), os.O_RDWR | os.O_CLOEXEC)
        try:
            block = _SharedBlock(fd, handle.nbytes)
        finally:
            os.close(fd)
        if not np.array_equal(block.words[:_GONE], _name(handle.maker, handle.serial)):
            raise FileNotFoundError("another process has its number now")
    except (OSError, ValueError) as error:
        worker = _worker(handle)
        if worker is not None:  # it is dying, with its files closed already; only of one that has ended torch says so
            worker.join(timeout=_DYING)
        raise ConnectionError(f"worker {handle.pid} cannot be reached for the batch it sent: {error}") from error
    return block


def _worker(handle: _Handle) -> BaseProcess | None:
    """The Process object of who made it, if that is a child of ours that has not ended."""
    return next((child for child in active_children() if child.pid == handle.pid), None)


def _keep(handle: _Handle, block: _SharedBlock) -> None:
    """Keep the mapping while the worker's Process object lives; one of no child of ours lives with its views only."""
    if handle.maker not in _KEPT:
        worker = _worker(handle)
        if worker is None:
            return
        _KEPT[handle.maker] = {}
        weakref.finalize(worker, _KEPT.pop, handle.maker, None).atexit = False
    _KEPT[handle.maker][handle.serial] = block


def _tensor_of(handle: _Handle, start: int, dtype: Any, count: int, shape: Any, strides: Any) -> Any:
    import torch

    return torch.frombuffer(_received(handle), dtype=dtype, count=count, offset=start).as_strided(shape, strides)


def _array_of(handle: _Handle, start: int, dtype: np.dtype[Any], shape: Any, strides: Any) -> np.ndarray:
    return np.ndarray(shape, dtype, _received(handle), start, strides)


def _live() -> list[_Loan]:
    # A list of references is made in one step: other threads may receive batches meanwhile.
    return [loan for reference in _LOANS.valuerefs() if (loan := reference()) is not None]


def _before_fork() -> None:
    for loan in _live():
        loan.before_fork()


def _in_child() -> None:
    _KEPT.clear()
    for loan in _live():
        loan.in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)
