"""Keyed batches: who comes when, what a rank gets, and where a run goes on."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines import KeyedBatchSampler, PerSample, arrays, keyed
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

import mixops as mx

sizes = st.integers(0, 40)
batch_sizes = st.integers(1, 9)


def keys_of(batches: Any) -> list[tuple[int, int, int]]:
    return [tuple(batch.key) for batch in batches]


@given(n=sizes, size=batch_sizes, drop_last=st.booleans(), shuffle=st.booleans(), epoch=st.integers(0, 5))
def test_an_epoch_visits_every_sample_once_and_numbers_its_batches(
    n: int, size: int, drop_last: bool, shuffle: bool, epoch: int
) -> None:
    sampler = KeyedBatchSampler(range(n), size, drop_last, shuffle=shuffle)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert keys_of(batches) == [(epoch, step, 0) for step in range(len(batches))]
    seen = [i for batch in batches for i in batch]
    assert len(seen) == len(set(seen)) == (n // size * size if drop_last else n)
    assert all(len(batch) == size for batch in batches[:-1])
    assert set(seen) <= set(range(n))


@given(n=sizes, size=batch_sizes, drop_last=st.booleans(), world=st.integers(1, 5), shuffle=st.booleans())
def test_ranks_get_equally_many_batches_and_share_the_samples_out(
    n: int, size: int, drop_last: bool, world: int, shuffle: bool
) -> None:
    ranks = [
        list(KeyedBatchSampler(range(n), size, drop_last, shuffle=shuffle, rank=r, world_size=world))
        for r in range(world)
    ]
    assert len({tuple(map(len, batches)) for batches in ranks}) == 1
    assert [keys_of(batches) for batches in ranks] == [
        [(0, step, r) for step in range(len(ranks[0]))] for r in range(world)
    ]
    seen = [i for batches in ranks for batch in batches for i in batch]
    if drop_last:
        assert len(seen) == len(set(seen)) == n // world // size * size * world
    else:
        assert set(seen) == set(range(n))
        assert len(seen) == -(-n // world) * world


@given(n=st.integers(1, 40), size=batch_sizes, world=st.integers(1, 3), cut=st.integers(0, 40), seed=st.integers(0, 9))
def test_a_resumed_epoch_yields_exactly_the_rest(n: int, size: int, world: int, cut: int, seed: int) -> None:
    def made() -> KeyedBatchSampler:
        return KeyedBatchSampler(range(n), size, seed=seed, shuffle=True, rank=world - 1, world_size=world)

    first, whole = made(), made()
    list(first), list(whole)  # epoch 0
    batches = list(whole)
    cut = min(cut, len(batches))
    running = iter(first)
    head = [next(running) for _ in range(cut)]
    state = json.loads(json.dumps(first.state_dict() if cut else first.state_dict(0, epoch=1)))
    second = made()
    second.load_state_dict(state)
    rest = list(second)
    assert head + rest == batches
    assert keys_of(head + rest) == keys_of(batches)
    assert list(second) == list(whole)


def test_orders_differ_between_epochs_and_seeds_and_repeat_for_one_key() -> None:
    sampler = KeyedBatchSampler(range(100), 100, seed=1, shuffle=True)
    (one,), (two,) = list(sampler), list(sampler)
    assert one != two
    sampler.set_epoch(0)
    assert list(sampler) == [one]
    assert list(KeyedBatchSampler(range(100), 100, seed=2, shuffle=True)) != [one]


def test_delivered_counts_what_was_trained_on_not_what_workers_fetched_ahead() -> None:
    sampler = KeyedBatchSampler(range(10), 2)
    running = iter(sampler)
    batches = [next(running) for _ in range(4)]
    state = sampler.state_dict(delivered=1)
    assert (state["epoch"], state["step"]) == (0, 1)
    sampler.load_state_dict(state)
    assert list(sampler)[:3] == batches[1:]
    with pytest.raises(mx.MixError, match=r"delivered=9.*handed out"):
        sampler.state_dict(delivered=9)


def test_set_epoch_keeps_a_place_that_was_loaded_within_that_epoch() -> None:
    sampler = KeyedBatchSampler(range(10), 2)
    sampler.seek(3, 4)
    sampler.set_epoch(3)
    assert keys_of(sampler) == [(3, 4, 0)]
    sampler.seek(3, 4)
    sampler.set_epoch(2)
    assert keys_of(sampler)[0] == (2, 0, 0)


def test_a_pass_that_was_never_read_is_no_epoch() -> None:
    sampler = KeyedBatchSampler(range(4), 2)
    iter(sampler)
    assert keys_of(sampler) == [(0, 0, 0), (0, 1, 0)]


def saved(**change: Any) -> dict[str, Any]:
    return {**KeyedBatchSampler(range(10), 2, seed=3, shuffle=True).state_dict(), **change}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (saved(length=11), "length=11"),
        (saved(batch_size=4), "batch_size=4"),
        (saved(pad=False), "pad=False"),
        (saved(world_size=0), "expected 1 or more"),
        (saved(world_size=2, step=6), "step=6"),
        (saved(origin=None), "origin=None"),
        (saved(origin={"step": 0, "samples": -1, "together": 2}), "samples=-1"),
        (saved(origin={"step": 3, "samples": 6, "together": 2}), "before that of its origin"),
        (saved(origin={"step": 3, "samples": 6, "together": 2}, world_size=2), "step=0"),
        (saved(origin={"step": 0, "samples": 11, "together": 2}, world_size=2), "its epoch has"),
        (saved(seed=4), "seed=4"),
        (saved(shuffle=False), "shuffle=False"),
        (saved(drop_last=True), "drop_last=True"),
        (saved(version=99), "version 99"),
        (saved(step=-1), "step=-1"),
        (saved(step=6), "step=6"),
        (saved(step="2"), "step='2'"),
        (saved(epoch=1.5), "epoch=1.5"),
        (saved(epoch=True), "epoch=True"),
        ({"epoch": 1}, "lacks version"),
        ([], "state is list"),
        (None, "state is NoneType"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_the_sampler_stays_as_it_was(state: Any, message: str) -> None:
    sampler = KeyedBatchSampler(range(10), 2, seed=3, shuffle=True)
    next(iter(sampler))
    before = sampler.state_dict()
    with pytest.raises(mx.MixError, match=message):
        sampler.load_state_dict(state)
    assert sampler.state_dict() == before


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"batch_size": True}, "batch_size=True"),
        ({"seed": -1}, "seed=-1"),
        ({"rank": 1}, "both or neither"),
        ({"rank": 2, "world_size": 2}, "rank < world_size"),
        ({"sampler": 7}, "neither a data set nor an iterable"),
        ({"sampler": [4, 2]}, "indices or a data set"),
        ({"sampler": range(5, 9)}, r"expected range\(n\)"),
        ({"sampler": Stream()}, "IterableDataset"),
        ({"sampler": DataLoader(range(4))}, "pass its data set or sampler"),  # type: ignore[arg-type]
        ({"sampler": BatchSampler(SequentialSampler(range(4)), 2, False)}, "yields batches"),
        ({"sampler": SequentialSampler(range(4)), "shuffle": True}, "order of its own"),
        ({"sampler": DistributedSampler(range(4), 2, 0), "rank": 1, "world_size": 2}, "shards as"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        KeyedBatchSampler(**{"sampler": range(10), "batch_size": 2, **arguments})


def test_a_sampler_without_length_works_on_one_rank_and_is_refused_on_two() -> None:
    class Endless:
        def __iter__(self) -> Any:
            return iter(range(5))

    sampler = KeyedBatchSampler(Endless(), 2)
    assert list(sampler) == [[0, 1], [2, 3], [4]]
    sampler.load_state_dict({**sampler.state_dict(), "step": 2})
    assert list(sampler) == [[4]]
    with pytest.raises(TypeError):
        len(sampler)
    with pytest.raises(mx.MixError, match="no length"):
        list(KeyedBatchSampler(Endless(), 2, rank=0, world_size=2))


@pytest.mark.parametrize("held", [None, torch.Generator().manual_seed(5)])
@pytest.mark.parametrize(
    "kind",
    [
        lambda g: RandomSampler(range(20), generator=g),
        lambda g: WeightedRandomSampler(list(range(1, 21)), 20, generator=g),
        lambda g: SubsetRandomSampler(list(range(20)), generator=g),
    ],
)
def test_the_random_samplers_of_torch_follow_the_key_and_leave_global_state_alone(kind: Any, held: Any) -> None:
    one, two = KeyedBatchSampler(kind(held), 4, seed=1), KeyedBatchSampler(kind(held), 4, seed=1)
    before = torch.get_rng_state()
    first, second = list(one), list(one)
    assert first != second
    two.set_epoch(1)
    assert list(two) == second
    assert torch.equal(before, torch.get_rng_state())
    assert one.sampler.generator is held
    assert list(KeyedBatchSampler(kind(held), 4, seed=2)) != first


def test_a_sampler_that_shards_is_told_the_epoch_and_keeps_its_shares() -> None:
    data = range(11)
    shards = [DistributedSampler(data, 2, rank, seed=3) for rank in range(2)]
    samplers = [KeyedBatchSampler(shard, 2) for shard in shards]
    assert [s.state_dict()["length"] for s in samplers] == [11, 11]
    for epoch in range(2):
        for rank, sampler in enumerate(samplers):
            batches = list(sampler)
            plain = DistributedSampler(data, 2, rank, seed=3)
            plain.set_epoch(epoch)
            assert [i for batch in batches for i in batch] == list(plain)
            assert keys_of(batches) == [(epoch, step, rank) for step in range(3)]


def one_rank(rank: int, store: str, answers: Any) -> None:
    sampler = KeyedBatchSampler(range(8), 2)  # made before the group is there
    alone = (sampler.rank, sampler.world_size, len(sampler))
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    answers.put((sampler.rank, alone, list(map(list, sampler))))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_rank_and_world_size_come_from_torch_distributed_when_it_is_initialised(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    ranks = [context.Process(target=one_rank, args=(rank, str(tmp_path / "store"), answers)) for rank in range(2)]
    for process in ranks:
        process.start()
    got = sorted(answers.get() for _ in ranks)
    for process in ranks:
        process.join()
    assert got == [(0, (0, 1, 4), [[0, 2], [4, 6]]), (1, (0, 1, 4), [[1, 3], [5, 7]])]


def test_keyed_batches_pickle_with_their_key() -> None:
    (batch,) = KeyedBatchSampler(range(3), 3)
    copy = pickle.loads(pickle.dumps(batch))
    assert copy == batch
    assert copy.key == batch.key


class Squares(Dataset[int]):
    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> int:
        return index * index


class Batched(Squares):
    def __getitems__(self, indices: list[int]) -> list[int]:
        assert type(indices) is list
        return [-i for i in indices]


def test_keyed_hands_the_key_on_and_fetches_as_the_data_set_does() -> None:
    (batch,) = KeyedBatchSampler(range(3), 3)
    for data, expected in ((Squares(), [0, 1, 4]), (Batched(), [0, -1, -2])):
        samples = keyed(data).__getitems__(batch)
        assert samples == expected
        assert samples.key == (0, 0, 0)
    assert not hasattr(keyed(Squares()).__getitems__([1, 2]), "key")
    assert keyed(Squares())[3] == 9
    assert len(keyed(Squares())) == 9


@pytest.mark.parametrize("workers", [0, 2])
def test_the_key_reaches_collate_fn_through_a_data_loader(workers: int) -> None:
    loader = DataLoader(
        keyed(Squares()),
        batch_sampler=KeyedBatchSampler(Squares(), 2),
        collate_fn=lambda s: (list(s), s.key),
        num_workers=workers,
    )
    for epoch in range(2):
        got = list(loader)
        assert [tuple(key) for _, key in got] == [(epoch, step, 0) for step in range(5)]
        assert [i for samples, _ in got for i in samples] == [i * i for i in range(9)]


def test_a_sample_without_its_epoch_is_refused_where_stages_need_it() -> None:
    data = keyed(arrays(x=np.arange(4)), stage=PerSample(lambda s, rng: rng.random(), seed=1))
    with pytest.raises(mx.MixError, match="KeyedBatchSampler"):
        data[0]
    with pytest.raises(mx.MixError, match="KeyedBatchSampler"):
        next(iter(DataLoader(data, batch_size=2)))
    batch = next(iter(KeyedBatchSampler(data, 2)))
    assert data.__getitems__(batch) == [data.sample(0), data.sample(1)]


@pytest.mark.parametrize("bad", [7, iter([1])])
def test_keyed_refuses_what_has_no_indexing(bad: Any) -> None:
    with pytest.raises(mx.MixError, match="map-style"):
        keyed(bad)


class Staged:
    def __call__(self, sample: Any, epoch: int, index: int, place: int) -> Any:
        return sample, epoch, index, place


def test_any_callable_of_a_sample_and_its_place_is_a_stage() -> None:
    for stage in (Staged(), Staged().__call__, lambda *given: given):
        assert keyed([5, 6], stage=[stage]).sample(1, epoch=3) == (6, 3, 1, 0)


@pytest.mark.parametrize(
    ("stage", "name"),
    [(lambda sample: sample, "lambda"), (torch.nn.Flatten(), "Flatten"),
     (albumentations.HorizontalFlip(), "HorizontalFlip"), (albumentations.Compose([]), "Compose")],
)  # fmt: skip
def test_a_transform_that_is_not_wrapped_is_refused_at_once(stage: Any, name: str) -> None:
    with pytest.raises(mx.MixTypeError, match=rf"{name}.*PerSample\(fn, seed\)"):
        keyed(Squares(), stage=stage)


def test_samplers_and_data_sets_print_what_they_hold() -> None:
    sampler = KeyedBatchSampler(Squares(), 4, drop_last=True, seed=7, rank=1, world_size=2)
    assert repr(sampler) == "KeyedBatchSampler(<Squares of 9>, 4, drop_last=True, seed=7, rank=1, world_size=2)"
    assert repr(KeyedBatchSampler(range(5), 2)) == "KeyedBatchSampler(range(0, 5), 2, seed=0)"
    assert repr(keyed(Squares())) == "keyed(<Squares of 9>)"
    stage = PerSample(abs, seed=1, field="x")
    assert repr(keyed([1], stage=stage)) == "keyed(<list of 1>, stage=[PerSample(abs, seed=1, field='x')])"


def test_keyed_refuses_a_stage_that_cannot_be_called() -> None:
    with pytest.raises(mx.MixError, match="callable"):
        keyed(Squares(), stage=[3])
