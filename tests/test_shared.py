"""Batches in kept shared memory: they arrive as they were sent, stay as they are, and their blocks are used again."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from select import select
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import same
from mixops.pipelines import KeyedBatchSampler, MixCollator, arrays, keyed
from mixops.pipelines.shared import SharedBlocks, _array_of, _reduce_array, _reduce_tensor, _tensor_of, share_results
from sharing import (
    MIB,
    Numbered,
    descriptors,
    mappings,
    numbered,
    switched_off,
    three_mib,
    whole,
    without_memfd,
)
from torch.utils.data import DataLoader

import mixops as mx

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="shared blocks are for Linux")


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    gc.collect()
    before = mappings(), descriptors()  # none, unless a test that failed is being shown
    yield
    gc.collect()
    assert mappings() <= before[0]
    assert descriptors() <= before[1]


@contextmanager
def shared_pool() -> Iterator[None]:
    """This process as maker and receiver at once; within, nothing may be kept."""
    before = mx.pool.source
    mx.pool.source = SharedBlocks()
    try:
        yield
    finally:
        mx.pool.source = before
        mx.pool.trim()


@pytest.fixture
def sharing_pool() -> Iterator[None]:
    with shared_pool():
        yield


# -- through the loader -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"persistent_workers": True},
        {"multiprocessing_context": "spawn", "persistent_workers": True},
        {"prefetch_factor": 4},
    ],
    ids=str,
)
def test_batches_arrive_whole_and_a_few_blocks_serve_them_all(options: dict[str, Any]) -> None:
    loader = numbered(50, **options)
    for _ in range(2 if options.get("persistent_workers") else 1):
        places, last = set(), {}
        for i, batch in enumerate(loader):
            assert batch["number"] == i
            assert whole(batch)
            places.add(batch["x"].data_ptr())
            last[batch["worker"]] = batch
            assert mappings() >= 1
        blocks = 2 + options.get("prefetch_factor", 2) + 2  # being written, on their way, read
        assert len(places) <= 2 * blocks
        assert all(batch["fresh"] <= blocks and batch["refused"] == 0 for batch in last.values())
        assert len(last) == 2
        del batch, last


def collated(workers: int, **options: Any) -> DataLoader[Any]:
    rng = np.random.Generator(np.random.PCG64(0))
    data = arrays(image=rng.integers(0, 256, (40, 96, 96, 3), np.uint8), label=np.arange(40) % 5, id=np.arange(40))
    op = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0, per="sample")]) | mx.Cutout(size=30)
    fields = {"image": mx.Field("b h w c"), "label": mx.Labels(5)}
    to = {"image": mx.Output("b c h w", "float32", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))}
    sampler = KeyedBatchSampler(data, 4, seed=3, shuffle=True)
    return DataLoader(
        keyed(data), batch_sampler=sampler, collate_fn=MixCollator(op, fields, 7, to=to), num_workers=workers, **options
    )


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_the_collator_gives_the_batches_of_the_main_process(context: str) -> None:
    expected, loader = list(collated(0)), collated(2, multiprocessing_context=context)
    kept = list(loader)
    assert all(same(a, b) for a, b in zip(kept, expected, strict=True))
    assert mappings() == len(kept)  # every image came in a kept block
    assert all(type(batch) is dict and type(batch["image"]) is torch.Tensor for batch in kept)


def test_a_parent_that_keeps_every_batch_sees_no_corruption() -> None:
    kept = list(numbered(40))
    assert len({batch["x"].data_ptr() for batch in kept}) == 40
    assert all(map(whole, kept))
    assert max(batch["refused"] for batch in kept) == 0
    assert all(map(whole, numbered(20)))
    assert all(map(whole, kept))


def test_beyond_the_limit_batches_travel_as_torch_sends_them() -> None:
    kept = list(numbered(20, worker_init_fn=three_mib))
    assert all(map(whole, kept))
    assert mappings() == 6  # three of each worker
    assert {batch["fresh"] for batch in kept[-2:]} == {3}
    assert {batch["refused"] for batch in kept[-2:]} == {7}


def test_a_limit_of_nothing_switches_it_off() -> None:
    kept = list(numbered(6, worker_init_fn=switched_off))
    assert all(map(whole, kept))
    assert mappings() == 0


def test_views_of_views_keep_their_batch_and_nothing_else_does() -> None:
    loader = iter(numbered(40, workers=1))
    held = []
    for batch in loader:
        if batch["number"] < 10:
            view = (
                batch["x"].view(torch.int32).reshape(-1, 64)[3:5].numpy()[1:].T
                if batch["number"] % 2
                else batch["view"][7:]
            )
            held.append((batch["number"], memoryview(view)))
        fresh = batch["fresh"]
    del batch
    assert 10 <= fresh <= 16
    for number, view in held:
        array = np.asarray(view)
        assert (array.view(np.float32) == number).all()


def test_a_worker_that_is_killed_takes_no_delivered_batch_with_it() -> None:
    running = iter(numbered(60))
    held = [next(running) for _ in range(6)]
    # torch's handler would raise at any line, of this test or of pytest; without it torch asks every five seconds.
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        os.kill(held[0]["worker"], signal.SIGKILL)
        with pytest.raises(RuntimeError, match="exited unexpectedly"):
            held.extend(running)
    finally:
        signal.signal(signal.SIGCHLD, handler)
    assert all(map(whole, held))
    del running
    gc.collect()
    assert mappings() == len(held)  # the mappings live with their views
    assert all(map(whole, numbered(10)))
    assert all(map(whole, held))


def test_where_no_memory_can_be_had_batches_travel_as_torch_sends_them() -> None:
    # One batch at a time: while the limit is set, torch's own thread could not send the batch before.
    kept = list(numbered(8, collate=Numbered(file_limit=MIB // 2), prefetch_factor=1))
    assert all(map(whole, kept))
    assert mappings() == 0
    assert {batch["refused"] for batch in kept[-2:]} == {4}


def test_where_the_system_has_no_memfd_batches_travel_as_torch_sends_them() -> None:
    kept = list(numbered(8, worker_init_fn=without_memfd))
    assert all(map(whole, kept))
    assert mappings() == 0


def test_epochs_that_are_left_early_lose_no_block() -> None:
    loader = numbered(20, persistent_workers=True)
    for _ in range(8):
        for batch in loader:
            assert whole(batch)
            if batch["number"] == 3:
                break
    assert batch["fresh"] <= 6
    assert batch["refused"] == 0
    assert mappings() <= 12


def test_blocks_that_a_worker_drops_are_unmapped() -> None:
    sizes = tuple(MIB // 2 + i * MIB // 4 for i in range(5))
    most = 0
    for batch in numbered(40, workers=1, collate=Numbered(sizes=sizes), worker_init_fn=three_mib):
        assert whole(batch)
        most = max(most, mappings())
    assert batch["fresh"] > 8
    assert most <= 6


def test_many_views_of_one_block_travel_together() -> None:
    for batch in numbered(6, collate=Numbered(parts=200)):
        assert whole(batch)
        assert len(batch["parts"]) == 200
        assert all(bool((part == batch["number"]).all()) for part in batch["parts"])


def test_a_forked_child_keeps_the_batches_it_was_born_with() -> None:
    children: list[tuple[int, int]] = []
    ended: list[int] = []

    def end(child: int, tell: int) -> None:
        os.write(tell, b".")
        os.close(tell)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    for batch in numbered(60, workers=1):
        if batch["number"] % 3 == 0 and batch["number"] < 45:
            told, tell = os.pipe()
            child = os.fork()
            if child == 0:
                select([told], [], [], 30)  # many batches later
                os._exit(0 if whole(batch) else 1)
            os.close(told)
            children.append((child, tell))
        if len(children) > 2:
            end(*children.pop(0))
    for child, tell in children:
        end(child, tell)
    assert ended == [0] * 15
    assert batch["fresh"] <= 9  # blocks of children that have ended are used again


# -- what a handle carries --------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(data=st.data())
def test_any_view_arrives_with_its_shape_strides_and_values(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["float32", "float16", "bfloat16", "uint8", "int64", "bool"]))
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    cuts = tuple(data.draw(st.slices(n)) for n in (8, 12, 5))
    axes = data.draw(st.permutations(range(3)))

    def check() -> None:
        array = mx.pool.empty((8, 12, MIB // 96 // kind.itemsize), kind)[:, :, -5:]
        array[...] = np.arange(array.size).reshape(array.shape) % 251
        view = array[cuts].transpose(axes)
        make, arguments = _reduce_array(view)[:2]
        if not view.size:
            assert make is not _array_of
            return
        arrived = make(*arguments)
        assert make is _array_of
        assert (arrived.dtype, arrived.shape) == (view.dtype, view.shape)
        assert np.array_equal(arrived, view)
        assert arrived.flags.writeable
        if kind.name != "bfloat16" and min(view.strides) >= 0:
            tensor = torch.from_numpy(view)
            make, arguments = _reduce_tensor(tensor)
            sent = make(*arguments)
            assert make is _tensor_of
            assert (sent.dtype, sent.shape, sent.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
            assert torch.equal(sent, tensor)
            array[...] = 1
            assert bool((sent == 1).all())  # the same memory

    with shared_pool():
        check()


def test_a_block_is_busy_until_its_last_loan_has_ended(sharing_pool: None) -> None:
    array = mx.pool.empty(MIB, np.uint8)
    array[:] = 3
    (make, arguments), (again, others) = _reduce_tensor(torch.from_numpy(array)), _reduce_array(array[5:9])
    where = array.__array_interface__["data"][0]
    del array
    assert (mx.pool.stats().alive_blocks, mx.pool.stats().idle_blocks) == (1, 0)  # on its way, and nobody holds it
    one, two = make(*arguments), again(*others)
    view = one[7:9]
    del one
    assert mx.pool.stats().alive_blocks == 1
    del two
    assert mx.pool.stats().alive_blocks == 1
    assert view.tolist() == [3, 3]
    del view
    assert (mx.pool.stats().alive_blocks, mx.pool.stats().idle_blocks) == (0, 1)
    assert mx.pool.empty(MIB, np.uint8).__array_interface__["data"][0] == where


def test_bfloat16_tensors_travel_in_their_block(sharing_pool: None) -> None:
    bits = mx.pool.empty(MIB // 2, np.int16)
    tensor = torch.from_numpy(bits).view(torch.bfloat16)
    tensor.fill_(1.5)
    make, arguments = _reduce_tensor(tensor)
    assert make is _tensor_of
    sent = make(*arguments)
    assert sent.dtype == torch.bfloat16
    assert torch.equal(sent, tensor)


def test_what_lies_elsewhere_or_is_more_than_memory_travels_as_always(sharing_pool: None) -> None:
    tensor = torch.from_numpy(mx.pool.empty(MIB, np.float32))
    others = [torch.zeros(MIB), tensor[:0], tensor.clone().requires_grad_(), tensor.to_sparse(), tensor.to("meta")]
    for other in [*others, tensor.view(torch.complex64).conj(), tensor.detach().requires_grad_()]:
        assert _reduce_tensor(other)[0] is not _tensor_of
    assert _reduce_array(np.zeros(MIB))[0] is not _array_of
    assert _reduce_array(np.array([None, "a"], object))[0] is not _array_of


def test_a_handle_whose_maker_is_gone_is_an_error_that_says_so(sharing_pool: None) -> None:
    tensor = torch.from_numpy(mx.pool.empty(MIB, np.uint8))
    make, (handle, *rest) = _reduce_tensor(tensor)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(ConnectionError, match=f"worker {child} cannot be reached"):
        make(handle._replace(pid=child, maker=b"0" * 16), *rest)
    with pytest.raises(ConnectionError, match="has its number now"):
        make(handle._replace(maker=b"0" * 16), *rest)
    del tensor
    assert make(handle, *rest).shape == (MIB,)  # the loan of the true handle still holds


def test_nothing_happens_outside_a_worker() -> None:
    before = mx.pool.source
    share_results()
    assert mx.pool.source is before
