"""Recycled memory for results: a block goes back to its pool when the last view of it dies, by ownership alone.

A large result in fresh memory costs more in page faults than the mixing does, so results of `SMALL` bytes and more are
views of blocks that a pool keeps. A view holds a lease through its ``base``; torch tensors made of it, memoryviews and
DLPack capsules hold the view; so the lease ends exactly when nobody can reach the memory any more.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from .errors import MixTypeError, MixValueError

#: Results below this many bytes are plain arrays: the allocator recycles them well enough by itself.
SMALL = 256 << 10
#: A block serves results of down to 1 / SLACK of its size.
SLACK = 1.25
_LIMIT = 512 << 20
_ALIGNED = 64
_R = TypeVar("_R")


class BlockSource(Protocol):
    """Where a pool takes its blocks from; all calls come one at a time, under the pool's lock."""

    def allocate(self, nbytes: int) -> np.ndarray | None:
        """A writable, contiguous, 64-byte aligned uint8 array of nbytes or more that keeps its memory alive; None if
        there is no more to be had, and the result is a plain array then."""

    def reusable(self, memory: np.ndarray) -> bool:
        """Whether memory that has no view in this process any more may be written again (nobody else reads it)."""

    def evict(self, memory: np.ndarray) -> None:
        """Told that the pool drops this memory; only memory that was reusable is dropped."""


class PrivateBlocks:
    """Memory of this process, from NumPy's allocator, which asks for huge pages."""

    def allocate(self, nbytes: int) -> np.ndarray | None:
        """See BlockSource."""
        try:
            whole = np.empty(nbytes + _ALIGNED, np.uint8)
        except MemoryError:  # the pool frees what lies idle and asks again
            return None
        skip = -whole.__array_interface__["data"][0] % _ALIGNED
        return whole[skip : skip + nbytes]

    def reusable(self, memory: np.ndarray) -> bool:
        """See BlockSource."""
        return True

    def evict(self, memory: np.ndarray) -> None:
        """See BlockSource; the memory is freed with the array."""


@dataclass(frozen=True)
class PoolStats:
    """What a pool holds and has done; a snapshot.

    Args:
        alive_blocks: blocks that somebody holds a view of.
        alive_bytes: their sizes together.
        idle_blocks: blocks that wait to be used again.
        idle_bytes: their sizes together, at most ``limit``.
        limit: bytes that may be idle.
        reused: results that were given a block used before.
        fresh: results that needed a new block.
        refused: results that became plain arrays, as there was no block to be had.
        evicted: idle blocks that were freed, for the limit or by ``trim``.

    Example:
        >>> print(PoolStats(1, 38535168, 2, 77070336, 536870912, reused=48, fresh=3, refused=0, evicted=1))
        1 alive (36.8 MiB), 2 idle (73.5 of 512.0 MiB); 48 reused, 3 fresh, 0 refused, 1 evicted
    """

    alive_blocks: int
    alive_bytes: int
    idle_blocks: int
    idle_bytes: int
    limit: int
    reused: int
    fresh: int
    refused: int
    evicted: int

    def __str__(self) -> str:
        mib = 1 << 20
        return (
            f"{self.alive_blocks} alive ({self.alive_bytes / mib:.1f} MiB), "
            f"{self.idle_blocks} idle ({self.idle_bytes / mib:.1f} of {self.limit / mib:.1f} MiB); "
            f"{self.reused} reused, {self.fresh} fresh, {self.refused} refused, {self.evicted} evicted"
        )


class _Block:
    """Memory and where it came from."""

    __slots__ = ("interface", "memory", "size", "source")

    def __init__(self, memory: np.ndarray, source: BlockSource) -> None:
        self.memory, self.size, self.source = memory, memory.nbytes, source
        self.interface = {"shape": memory.shape, "typestr": "|u1", "version": 3}
        self.interface["data"] = (memory.__array_interface__["data"][0], False)


class _Lease:
    """What every view of a block holds on to. NumPy reads the interface, and keeps the lease as the view's base."""

    __slots__ = ("__array_interface__", "_block", "_give_back")

    def __init__(self, block: _Block, give_back: Callable[[_Block], None]) -> None:
        self.__array_interface__ = block.interface
        self._block, self._give_back = block, give_back

    def __del__(self) -> None:
        # Any thread, even one that is inside the pool while garbage is collected: so no lock, only an atomic append.
        self._give_back(self._block)


class Pool:
    """Arrays on recycled memory: a block is used again when the last view of it, of any kind, is gone.

    ``mixops.pool`` is the one that ``mix`` takes its new results from. Only idle memory is bounded; what is alive is
    the caller's. The memory is not pinned: with ``pin_memory=True`` torch's loaders copy into torch's own recycled
    pinned memory, which also knows when a running copy to a GPU has ended. Any thread may call; a forked child starts
    empty.

    Args:
        limit: bytes that may lie idle, 0 or more; the block that has been idle longest is freed first.
        source: where blocks come from; None: memory of this process.

    Raises:
        MixError: if limit is no whole number of 0 or more.

    Example:
        >>> pool = Pool()
        >>> a = pool.empty((64, 3, 64, 64), np.float32)
        >>> del a
        >>> b = pool.empty((64, 3, 64, 64), np.float32)
        >>> pool.stats().reused, pool.stats().alive_blocks
        (1, 1)
    """

    def __init__(self, limit: int = _LIMIT, *, source: BlockSource | None = None) -> None:
        self._limit = _checked_limit(limit)
        self._source: BlockSource = _PRIVATE if source is None else source
        self._begin()
        _POOLS.add(self)

    def _begin(self) -> None:
        """Hold nothing; also what a forked child begins with, whatever other threads were doing at the fork."""
        self._lock, self._inside = threading.RLock(), False
        self._returned: deque[_Block] = deque()  # by leases that ended, not looked at yet
        self._away: list[_Block] = []  # without a view here, but their source says that they are in use elsewhere
        self._idle: list[tuple[int, int, _Block]] = []  # by size, the latest returned first among equals
        self._clock = self._alive_blocks = self._alive_bytes = self._idle_bytes = 0
        self._reused = self._fresh = self._refused = self._evicted = 0

    def __repr__(self) -> str:
        return f"<Pool: {self.stats()}>"

    @property
    def limit(self) -> int:
        """Bytes that may lie idle; lowering it frees what is too much at once."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = _checked_limit(limit)
        self._alone(self._collect)

    @property
    def source(self) -> BlockSource:
        """Where new blocks come from; setting it frees the idle ones, and those of the old source as they return."""
        return self._source

    @source.setter
    def source(self, source: BlockSource) -> None:
        self._source = source
        self.trim()

    def empty(self, shape: int | Sequence[int], dtype: Any) -> np.ndarray:
        """A new C-contiguous array of any content, like ``np.empty``, aligned to 64 bytes.

        Args:
            shape: of the array.
            dtype: of the array, anything but objects.

        Returns:
            A writable array. From `SMALL` bytes on its memory is a block of this pool.

        Raises:
            MixError: if dtype holds Python objects.
            MemoryError: if there is no memory.

        Example:
            >>> Pool().empty((2, 3), np.float32).shape
            (2, 3)
        """
        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise MixTypeError(f"Pool.empty(dtype={dtype}): memory is recycled as bytes, expected numbers")
        nbytes = (math.prod(shape) if isinstance(shape, Sequence) else int(shape)) * dtype.itemsize
        if nbytes < SMALL:
            return np.empty(shape, dtype)
        block = self._alone(self._take, nbytes)
        if block is None:
            return np.empty(shape, dtype)
        return np.ndarray(shape, dtype, np.asarray(_Lease(block, self._returned.append)))

    def trim(self) -> int:
        """Free all idle blocks.

        Returns:
            The bytes that were freed.
        """
        return self._alone(self._free_idle) or 0

    def stats(self) -> PoolStats:
        """What the pool holds, and has done in this process."""
        self._alone(self._collect)
        return PoolStats(
            alive_blocks=self._alive_blocks,
            alive_bytes=self._alive_bytes,
            idle_blocks=len(self._idle),
            idle_bytes=self._idle_bytes,
            limit=self._limit,
            reused=self._reused,
            fresh=self._fresh,
            refused=self._refused,
            evicted=self._evicted,
        )

    def _alone(self, work: Callable[..., _R], *arguments: Any) -> _R | None:
        """Run what touches the lists, one thread at a time; None where this very thread is inside already.

        That is possible: garbage is collected, or a signal handled, anywhere, and what runs then may want memory too.
        """
        with self._lock:
            if self._inside:
                return None
            self._inside = True
            try:
                return work(*arguments)
            finally:
                self._inside = False

    def _take(self, nbytes: int) -> _Block | None:
        self._collect()
        place = bisect_left(self._idle, (nbytes,))
        if place < len(self._idle) and self._idle[place][0] <= SLACK * nbytes:
            block = self._idle.pop(place)[2]
            self._idle_bytes -= block.size
            self._reused += 1
        else:
            memory = self._source.allocate(nbytes)
            while memory is None and self._idle:
                self._drop_oldest()
                memory = self._source.allocate(nbytes)
            if memory is None:
                self._refused += 1
                return None
            block = _Block(memory, self._source)
            self._fresh += 1
        self._alive_blocks += 1
        self._alive_bytes += block.size
        return block

    def _collect(self) -> None:
        """Put what has been returned among the idle blocks, and keep to the limit."""
        if self._returned or self._away:
            returned, self._away = self._away, []
            while self._returned:
                returned.append(self._returned.popleft())
            for block in returned:
                if not block.source.reusable(block.memory):
                    self._away.append(block)
                    continue
                self._alive_blocks -= 1
                self._alive_bytes -= block.size
                if block.source is self._source:
                    self._clock += 1
                    insort(self._idle, (block.size, -self._clock, block))
                    self._idle_bytes += block.size
                else:
                    self._drop(block)
        while self._idle_bytes > self._limit:
            self._drop_oldest()

    def _free_idle(self) -> int:
        self._collect()
        freed = self._idle_bytes
        while self._idle:
            self._drop_oldest()
        return freed

    def _drop_oldest(self) -> None:
        oldest = max(range(len(self._idle)), key=lambda i: self._idle[i][1])
        block = self._idle.pop(oldest)[2]
        self._idle_bytes -= block.size
        self._drop(block)

    def _drop(self, block: _Block) -> None:
        self._evicted += 1
        block.source.evict(block.memory)


def _checked_limit(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or limit < 0:
        raise MixValueError(f"Pool(limit={limit!r}): expected bytes, a whole number of 0 or more")
    return int(limit)


_PRIVATE = PrivateBlocks()
_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


def _begin_anew() -> None:
    """In a forked child: what was idle belongs to the parent, who may be sharing it with others."""
    for one in _POOLS:
        one._source = _PRIVATE
        one._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)

pool = Pool()
