"""The pool: memory comes back when the last view dies, is never given out twice, and is bounded while idle."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mixops as mx
from mixops.memory import SLACK, SMALL, PrivateBlocks

KIB = 1 << 10
BIG = 4 * SMALL


def place(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def filled(pool: mx.Pool, nbytes: int = BIG, value: int = 0) -> np.ndarray:
    array = pool.empty(nbytes, np.uint8)
    array[:] = value
    return array


@given(
    shape=st.lists(st.integers(0, 40), min_size=1, max_size=4).map(tuple),
    dtype=st.sampled_from([np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.uint8, np.int64, bool, "f4,i2"]),
)
def test_an_array_is_what_numpy_would_give(shape: tuple[int, ...], dtype: Any) -> None:
    pool = mx.Pool()
    array, like = pool.empty(shape, dtype), np.empty(shape, dtype)
    assert type(array) is np.ndarray
    assert (array.shape, array.dtype, array.strides) == (like.shape, like.dtype, like.strides)
    assert array.flags.writeable
    assert array.flags.c_contiguous
    pooled = array.nbytes >= SMALL
    assert pool.stats().alive_blocks == pooled
    assert not pooled or place(array) % 64 == 0


def test_small_results_are_plain_arrays() -> None:
    pool = mx.Pool()
    small, large = pool.empty(SMALL - 1, np.uint8), pool.empty(SMALL, np.uint8)
    assert small.base is None
    assert large.base is not None
    assert (pool.stats().fresh, pool.stats().alive_bytes) == (1, SMALL)


def in_a_cycle(view: Any) -> list[Any]:
    holder = [view]
    holder.append(holder)
    return holder


VIEWS: dict[str, Callable[[np.ndarray], Any]] = {
    "the array": lambda a: a,
    "a view of a view": lambda a: a.reshape(-1, 64)[3:5].view(np.float32).T,
    "memoryview": lambda a: memoryview(a)[10:20],
    "frombuffer": lambda a: np.frombuffer(a, np.float32, 8, 64),
    "tensor": lambda a: torch.from_numpy(a),
    "a view of a tensor": lambda a: torch.from_numpy(a).view(torch.float32)[5:9].as_strided((2, 2), (1, 2)),
    "array of a tensor": lambda a: torch.from_numpy(a)[7:].numpy()[2:],
    "DLPack array": lambda a: np.from_dlpack(a)[5:],
    "DLPack tensor": lambda a: torch.from_dlpack(a)[5:],
    "DLPack capsule": lambda a: a.__dlpack__(),
    "garbage in a cycle": lambda a: in_a_cycle(torch.from_numpy(a)),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_block_returns_when_the_last_view_of_any_kind_dies_and_not_before(view: Callable[[np.ndarray], Any]) -> None:
    pool = mx.Pool()
    array = filled(pool)
    where, held = place(array), view(array)
    del array
    gc.collect()
    other = filled(pool)
    assert place(other) != where
    assert pool.stats().alive_blocks == 2
    del held
    gc.collect()
    assert (pool.stats().alive_blocks, pool.stats().idle_blocks) == (1, 1)
    assert place(filled(pool)) == where


def test_a_view_that_outlives_the_pool_keeps_its_memory() -> None:
    pool = mx.Pool()
    array = filled(pool, value=7)
    del pool
    gc.collect()
    assert (array == 7).all()


def test_the_best_fitting_idle_block_is_used_and_none_that_is_far_too_large() -> None:
    pool = mx.Pool()
    sizes = [BIG, BIG * 11 // 10, BIG * 12 // 10, int(BIG * SLACK) + 65]
    blocks = [filled(pool, size) for size in sizes]
    places = [place(block) for block in blocks]
    blocks.clear()
    taken = [filled(pool, size) for size in (BIG + 1, BIG, sizes[1] + 1)]
    assert [place(block) for block in taken] == [places[1], places[0], places[2]]
    taken.clear()
    assert pool.trim() == sum(sizes)
    lone = filled(pool, sizes[3])
    del lone
    before = pool.stats()
    filled(pool, BIG)
    after = pool.stats()
    assert (after.fresh, after.reused) == (before.fresh + 1, before.reused)


def test_idle_memory_is_bounded_and_the_block_that_was_idle_longest_goes_first() -> None:
    pool = mx.Pool(limit=2 * BIG)
    blocks = [filled(pool) for _ in range(4)]
    assert pool.stats().alive_bytes == 4 * BIG  # what is alive is not bounded
    places = [place(block) for block in blocks]
    while blocks:
        blocks.pop(0)
    stats = pool.stats()
    assert (stats.idle_blocks, stats.idle_bytes, stats.evicted) == (2, 2 * BIG, 2)
    assert place(filled(pool)) == places[3]  # the latest first: it may be in cache
    pool.limit = BIG
    assert (pool.limit, pool.stats().idle_bytes, pool.stats().evicted) == (BIG, BIG, 3)
    pool.limit = 0
    filled(pool)
    assert (pool.stats().idle_blocks, pool.stats().alive_blocks) == (0, 0)


def test_trim_frees_what_is_idle_and_nothing_else() -> None:
    pool = mx.Pool()
    kept, gone = filled(pool, value=3), filled(pool)
    del gone
    assert pool.trim() == BIG
    assert pool.trim() == 0
    assert (pool.stats().alive_blocks, pool.stats().idle_blocks) == (1, 0)
    assert (kept == 3).all()


@pytest.mark.parametrize("limit", [-1, 1.5, "1", None, True])
def test_a_limit_that_is_no_number_of_bytes_is_refused_and_the_pool_stays_as_it_was(limit: Any) -> None:
    with pytest.raises(mx.MixError, match="whole number of 0 or more"):
        mx.Pool(limit)
    pool = mx.Pool(BIG)
    with pytest.raises(mx.MixError, match="whole number of 0 or more"):
        pool.limit = limit
    assert pool.limit == BIG


def test_objects_are_refused() -> None:
    with pytest.raises(mx.MixError, match="expected numbers"):
        mx.pool.empty(BIG, object)


def test_an_array_beyond_the_memory_is_refused_as_numpy_does_and_frees_what_was_idle() -> None:
    pool = mx.Pool()
    filled(pool)
    assert pool.stats().idle_blocks == 1
    with pytest.raises(MemoryError):
        pool.empty(1 << 60, np.uint8)
    assert (pool.stats().idle_blocks, pool.stats().refused) == (0, 1)
    assert (filled(pool, value=5) == 5).all()


def test_a_pool_prints_what_it_holds() -> None:
    pool = mx.Pool(limit=64 << 20)
    kept, _ = filled(pool, 1 << 20), filled(pool, 3 << 20)
    del _
    assert kept.size
    assert repr(pool) == (
        "<Pool: 1 alive (1.0 MiB), 1 idle (3.0 of 64.0 MiB); 0 reused, 2 fresh, 0 refused, 0 evicted>"
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_memory_is_given_out_twice_and_the_counts_are_right(data: st.DataObject) -> None:
    limit = data.draw(st.integers(0, 8)) * SMALL
    pool = mx.Pool(limit)
    held: list[tuple[np.ndarray, int]] = []
    served = 0
    for step in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["take", "take", "drop", "trim", "limit"]))
        if what == "take":
            size = data.draw(st.integers(SMALL, 5 * SMALL))
            held.append((filled(pool, size, step), step))
            served += 1
        elif what == "drop" and held:
            held.pop(data.draw(st.integers(0, len(held) - 1)))
        elif what == "trim":
            pool.trim()
        else:
            limit = data.draw(st.integers(0, 8)) * SMALL
            pool.limit = limit
        assert all((array[:: 4 * KIB] == value).all() and array[-1] == value for array, value in held)
        stats = pool.stats()
        assert stats.alive_blocks == len(held)
        assert sum(a.nbytes for a, _ in held) <= stats.alive_bytes <= SLACK * sum(a.nbytes for a, _ in held)
        assert stats.idle_bytes <= stats.limit == limit
        assert stats.reused + stats.fresh == served
        assert stats.fresh == stats.alive_blocks + stats.idle_blocks + stats.evicted


def test_eight_threads_share_a_pool() -> None:
    pool, wrong, passed = mx.Pool(limit=4 * BIG), [], threading.Barrier(8)

    def work(mine: int) -> None:
        rng = np.random.Generator(np.random.PCG64(mine))
        held: list[np.ndarray] = []
        passed.wait()
        for i in range(150):
            array = filled(pool, int(rng.integers(SMALL, 3 * SMALL)), mine)
            held.append(torch.from_numpy(array)[::64].numpy() if i % 3 else array)
            if len(held) > 3:
                one = held.pop(int(rng.integers(3)))
                if not (one == mine).all():
                    wrong.append(mine)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    stats = pool.stats()
    assert (stats.alive_blocks, stats.alive_bytes) == (0, 0)
    assert stats.reused + stats.fresh == 8 * 150
    assert stats.idle_bytes <= 4 * BIG


class Finalized:
    """Garbage that gives a block back, and wants another one, while it is collected."""

    def __init__(self, pool: mx.Pool, array: np.ndarray, seen: list[np.ndarray]) -> None:
        self.pool, self.array, self.seen, self.me = pool, array, seen, self

    def __del__(self) -> None:
        del self.array
        self.seen.append(filled(self.pool, value=9))
        self.pool.trim()


class Collecting(PrivateBlocks):
    """Collects garbage in the middle of the pool's work, as any allocation may."""

    def allocate(self, nbytes: int) -> np.ndarray | None:
        gc.collect()
        return super().allocate(nbytes)


def test_garbage_that_is_collected_inside_the_pool_may_give_back_and_take_memory() -> None:
    pool, seen = mx.Pool(source=Collecting()), []
    Finalized(pool, filled(pool), seen)
    array = filled(pool, 2 * BIG, 4)
    assert (seen[0] == 9).all()
    assert (array == 4).all()
    assert (pool.stats().alive_blocks, pool.stats().idle_blocks) == (1, 1)


class Slow(PrivateBlocks):
    """Stays in the pool, with its lock held, until told."""

    def __init__(self) -> None:
        self.inside, self.go_on = threading.Event(), threading.Event()

    def allocate(self, nbytes: int) -> np.ndarray | None:
        self.inside.set()
        self.go_on.wait(20)
        return super().allocate(nbytes)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_while_a_thread_is_in_the_pool_can_use_it() -> None:
    source = Slow()
    source.go_on.set()
    pool = mx.Pool(source=source)
    kept, idle = filled(pool, value=1), filled(pool, value=2)
    del idle
    source.go_on.clear()
    source.inside.clear()
    thread = threading.Thread(target=lambda: filled(pool, 8 * BIG))
    thread.start()
    source.inside.wait(20)
    child = os.fork()
    if child == 0:
        try:
            stats = pool.stats()
            empty = (stats.alive_blocks, stats.idle_blocks, stats.fresh) == (0, 0, 0)
            two = [filled(pool, value=5), filled(pool, value=6)]
            fine = empty and bool((two[0] == 5).all()) and bool((kept == 1).all()) and pool.stats().alive_blocks == 2
            two.clear()
            kept[:] = 8  # of the child alone
            os._exit(0 if fine and pool.stats().idle_blocks == 2 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    source.go_on.set()
    thread.join()
    assert (kept == 1).all()
    assert (pool.stats().alive_blocks, pool.stats().idle_blocks) == (1, 2)


class Few(PrivateBlocks):
    """Two blocks and no more; what it gave out may be in use elsewhere."""

    def __init__(self) -> None:
        self.left, self.elsewhere, self.evicted = 2, False, 0

    def allocate(self, nbytes: int) -> np.ndarray | None:
        if not self.left:
            return None
        self.left -= 1
        return super().allocate(nbytes)

    def reusable(self, memory: np.ndarray) -> bool:
        return not self.elsewhere

    def evict(self, memory: np.ndarray) -> None:
        self.left, self.evicted = self.left + 1, self.evicted + 1


def test_where_a_source_has_no_more_the_array_is_a_plain_one() -> None:
    pool = mx.Pool(source=Few())
    arrays = [filled(pool, value=i) for i in range(4)]
    assert [int(a[-1]) for a in arrays] == [0, 1, 2, 3]
    assert (pool.stats().fresh, pool.stats().refused, pool.stats().alive_blocks) == (2, 2, 2)
    assert arrays[3].base is None
    arrays.clear()
    assert pool.stats().idle_blocks == 2
    large = filled(pool, 4 * BIG)  # idle blocks that do not fit make room
    assert large.base is not None
    assert pool.stats().evicted == 1


def test_a_block_that_is_in_use_elsewhere_is_not_given_out() -> None:
    source = Few()
    pool = mx.Pool(source=source)
    where = place(filled(pool))
    source.elsewhere = True
    array = filled(pool)
    assert place(array) != where
    assert (pool.stats().alive_blocks, pool.stats().idle_blocks) == (2, 0)
    source.elsewhere = False
    assert place(filled(pool)) == where


def test_another_source_gets_back_what_it_gave() -> None:
    old = Few()
    pool = mx.Pool(source=old)
    kept, idle = filled(pool, value=1), filled(pool)
    del idle
    pool.source = PrivateBlocks()
    assert (old.evicted, pool.stats().idle_blocks) == (1, 0)
    assert (kept == 1).all()
    del kept
    assert pool.stats().alive_blocks == 0
    assert (old.evicted, pool.stats().idle_blocks) == (2, 0)
