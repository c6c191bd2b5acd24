"""Ranks that share an epoch out: nothing lost, nothing twice, whatever number of them goes on in the middle."""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines import ArrayLoader, KeyedBatchSampler, MixLoader, keyed
from mixops.pipelines.text import BucketBatchSampler
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.data.distributed import DistributedSampler

import mixops as mx

N = st.integers(0, 60)
size = st.integers(1, 5)
#: A run: (ranks, batch size of each, batches until the next one takes over) one after the other.
Parts = list[tuple[int, int, int]]
runs = st.lists(st.tuples(st.integers(1, 5), size, st.integers(0, 8)), min_size=1, max_size=4).filter(
    # As many ranks as before must keep their batch size.
    lambda parts: all(a[0] != b[0] or a[1] == b[1] for a, b in pairwise(parts))
)


def sampler(n: int, world: int, batch: int, rank: int, **options: bool) -> KeyedBatchSampler:
    return KeyedBatchSampler(range(n), batch, seed=5, shuffle=True, rank=rank, world_size=world, **options)


def trained(made: Any, parts: Parts, epoch: int = 0) -> list[tuple[tuple[int, int, int], list[int]]]:
    """(key, indices) of every batch that was trained on: each run goes on from the state of the one before."""
    state, steps = None, []
    for place, (world, batch, cut) in enumerate(parts):
        ranks = [made(world, batch, rank) for rank in range(world)]
        for one in ranks:
            one.set_epoch(epoch)
            if state is not None:
                one.load_state_dict(json.loads(json.dumps(state)))
        last = place == len(parts) - 1
        handed = [list(one) for one in ranks]
        assert len({len(batches) for batches in handed}) == 1  # or a rank would wait for ever
        done = len(handed[0]) if last else min(cut, len(handed[0]))
        begun = 0 if state is None else state["step"]
        states = [one.state_dict(begun + done, epoch=epoch) for one in ranks]
        assert all(one == states[0] for one in states)
        state = states[0]
        steps += [(tuple(b.key), list(b)) for batches in handed for b in batches[:done]]
    return steps


@given(n=N, parts=runs, epoch=st.integers(0, 2))
def test_an_epoch_on_changing_numbers_of_ranks_loses_nothing_and_repeats_nothing_but_padding(
    n: int, parts: Parts, epoch: int
) -> None:
    steps = trained(lambda world, batch, rank: sampler(n, world, batch, rank), parts, epoch)
    seen = Counter(chain.from_iterable(indices for _, indices in steps))
    assert set(seen) == set(range(n))
    # Only the run that comes to the end pads; one that stopped there had nothing to leave.
    assert seen.total() - n < max(world for world, _, _ in parts)
    keys = [key for key, _ in steps]
    assert len(set(keys)) == len(keys)


@given(n=N, parts=runs)
def test_without_padding_every_sample_comes_once_and_every_rank_gets_as_many_batches(n: int, parts: Parts) -> None:
    steps = trained(lambda world, batch, rank: sampler(n, world, batch, rank, pad=False), parts)
    seen = Counter(chain.from_iterable(indices for _, indices in steps))
    assert set(seen) == set(range(n))
    assert all(indices for _, indices in steps)
    if all(batch > 1 for _, batch, _ in parts) and len({world for world, _, _ in parts}) == 1 and n >= parts[0][0]:
        assert seen.total() == n
    assert seen.total() - n < max(world for world, _, _ in parts)


@given(n=N, world=st.integers(1, 5), batch=size, drop_last=st.booleans(), pad=st.booleans())
def test_full_batches_lie_one_behind_the_other_and_sizes_differ_by_one_at_most(
    n: int, world: int, batch: int, drop_last: bool, pad: bool
) -> None:
    ranks = [list(sampler(n, world, batch, r, drop_last=drop_last, pad=pad)) for r in range(world)]
    whole = list(chain.from_iterable(sampler(n, 1, n or 1, 0)))
    for step, parts in enumerate(zip(*ranks, strict=True)):
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= (0 if pad or drop_last else 1)
        assert batch >= max(sizes)
        assert step >= len(ranks[0]) - 2 or sizes == [batch] * world
        if sizes == [batch] * world and max(len(p) for p in parts) * world * (step + 1) <= n:
            together = [parts[r][i] for i in range(batch) for r in range(world)]
            assert together == whole[step * world * batch :][: world * batch]
    if drop_last:
        assert sum(map(len, chain.from_iterable(ranks))) == n // (world * batch) * world * batch


@given(n=st.integers(1, 60), parts=runs, drop_last=st.booleans())
def test_a_resume_on_as_many_ranks_gives_the_very_batches(n: int, parts: Parts, drop_last: bool) -> None:
    world, batch, _ = parts[0]
    cuts = [(world, batch, cut) for _, _, cut in parts]

    def made(world: int, batch: int, rank: int) -> KeyedBatchSampler:
        return sampler(n, world, batch, rank, drop_last=drop_last)

    assert sorted(trained(made, cuts)) == sorted(trained(made, [(world, batch, 0)]))


@given(n=st.integers(1, 60), parts=runs, pool=st.integers(1, 3))
def test_buckets_keep_the_order_that_the_epoch_began_with(n: int, parts: Parts, pool: int) -> None:
    lengths = [i * 7 % 11 + 1 for i in range(n)]

    def made(world: int, batch: int, rank: int) -> BucketBatchSampler:
        return BucketBatchSampler(lengths, batch, seed=3, pool=pool, rank=rank, world_size=world)

    seen = Counter(chain.from_iterable(indices for _, indices in trained(made, parts)))
    assert set(seen) == set(range(n))
    assert seen.total() - n < max(world for world, _, _ in parts)


def test_the_epoch_after_is_whole_again_and_so_is_one_that_begins_anew() -> None:
    first = sampler(20, 2, 3, 0)
    running = iter(first)
    next(running), next(running)
    second = sampler(20, 1, 4, 0)
    second.load_state_dict(first.state_dict())
    assert sum(map(len, second)) == 8
    assert sum(map(len, second)) == 20
    second.load_state_dict(first.state_dict())
    with pytest.raises(mx.MixError, match="resumed at step 2 on another number of ranks"):
        second.seek(0, 1)
    assert len(list(second)) == 2
    second.load_state_dict(first.state_dict())
    second.seek(0)
    assert sum(map(len, second)) == 20
    assert second.state_dict()["origin"]["samples"] == 0


def test_a_random_sampler_of_torch_is_shared_out_anew_too() -> None:
    def made(world: int, batch: int, rank: int) -> KeyedBatchSampler:
        return KeyedBatchSampler(RandomSampler(range(24)), batch, seed=1, rank=rank, world_size=world)

    seen = Counter(chain.from_iterable(indices for _, indices in trained(made, [(4, 2, 1), (1, 3, 2), (2, 5, 0)])))
    assert seen == Counter(range(24))


def test_a_sampler_that_shards_by_itself_cannot_share_the_rest_out_anew() -> None:
    state = KeyedBatchSampler(DistributedSampler(range(12), 2, 0), 2).state_dict()
    with pytest.raises(mx.MixError, match="give KeyedBatchSampler the data set itself"):
        KeyedBatchSampler(DistributedSampler(range(12), 3, 0), 2).load_state_dict(state)


@pytest.mark.parametrize("kind", ["mix", "array"])
def test_loaders_go_on_with_another_number_of_ranks(kind: str) -> None:
    data = {"x": mx.streams.order_stream(1, 0).random((24, 2)), "id": list(range(24))}

    def made(world: int, batch: int, rank: int) -> MixLoader | ArrayLoader:
        op, fields = mx.Mixup(0.8), {"x": mx.Field("b d")}
        if kind == "array":
            return ArrayLoader(data, op, fields, batch, seed=7, rank=rank, world_size=world, threads=0)
        rows = [{"x": data["x"][i], "id": i} for i in range(24)]
        batches = KeyedBatchSampler(rows, batch, seed=7, shuffle=True, rank=rank, world_size=world)
        return MixLoader(DataLoader(keyed(rows), batch_sampler=batches), op, fields, 7)

    seen: list[int] = []
    state = None
    for world, batch, cut in ((4, 1, 2), (1, 3, 2), (1, 3, 0), (2, 4, 9)):
        ranks = [made(world, batch, rank) for rank in range(world)]
        for one in ranks:
            if state is not None:
                one.load_state_dict(json.loads(json.dumps(state)))
        running = [iter(one) for one in ranks]
        for _ in range(cut):
            seen += [int(i) for one in running for i in next(one, {"id": []})["id"]]
        state = ranks[0].state_dict()
        assert [one.state_dict() for one in ranks] == [state] * world
    assert sorted(seen) == list(range(24))
    assert state["epoch"] == 1
