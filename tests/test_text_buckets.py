"""Batches of similar length: every sample once, the same on every rank, and less padding; and the padding itself."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from mixops.pipelines import KeyedBatchSampler, keyed
from mixops.pipelines.text import (
    BucketBatchSampler,
    Sentences,
    TokenizedSentences,
    Vocabulary,
    pad_batch,
    padding_share,
)
from torch.utils.data import DataLoader

import mixops as mx

lengths_of = st.lists(st.integers(0, 30), max_size=60)
sizes = st.integers(1, 7)
pools = st.integers(1, 4)


def keys_of(batches: Any) -> list[tuple[int, int, int]]:
    return [tuple(batch.key) for batch in batches]


@given(
    lengths=lengths_of, size=sizes, pool=pools, shuffle=st.booleans(), drop_last=st.booleans(), epoch=st.integers(0, 3)
)
def test_an_epoch_visits_every_sample_once_and_numbers_its_batches(
    lengths: list[int], size: int, pool: int, shuffle: bool, drop_last: bool, epoch: int
) -> None:
    sampler = BucketBatchSampler(lengths, size, seed=5, pool=pool, shuffle=shuffle, drop_last=drop_last)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert keys_of(batches) == [(epoch, step, 0) for step in range(len(batches))]
    seen = [i for batch in batches for i in batch]
    assert len(seen) == len(set(seen)) == (len(lengths) // size * size if drop_last else len(lengths))
    assert all(len(batch) == size for batch in batches[:-1])
    assert set(seen) <= set(range(len(lengths)))


@given(lengths=lengths_of, size=sizes, pool=pools, world=st.integers(1, 4), drop_last=st.booleans())
def test_ranks_share_out_one_order_in_equally_many_batches(
    lengths: list[int], size: int, pool: int, world: int, drop_last: bool
) -> None:
    ranks = [
        list(BucketBatchSampler(lengths, size, seed=2, pool=pool, rank=r, world_size=world, drop_last=drop_last))
        for r in range(world)
    ]
    assert len({tuple(map(len, batches)) for batches in ranks}) == 1
    seen = [i for batches in ranks for batch in batches for i in batch]
    if drop_last:
        assert len(seen) == len(set(seen)) == len(lengths) // world // size * size * world
    else:
        assert set(seen) == set(range(len(lengths)))
        assert len(seen) == -(-len(lengths) // world) * world


@given(lengths=lengths_of.filter(bool), size=sizes, pool=pools, world=st.integers(1, 3), cut=st.integers(0, 60))
def test_a_resumed_epoch_yields_exactly_the_rest(
    lengths: list[int], size: int, pool: int, world: int, cut: int
) -> None:
    def made() -> BucketBatchSampler:
        return BucketBatchSampler(lengths, size, seed=9, pool=pool, rank=world - 1, world_size=world)

    first, second = made(), made()
    list(first)  # epoch 0
    batches = list(first)
    state = json.loads(json.dumps(first.state_dict(min(cut, len(batches)))))
    second.load_state_dict(state)
    rest = list(second)
    assert rest == batches[cut:]
    assert keys_of(rest) == keys_of(batches[cut:])
    assert list(second) == list(first)


@given(lengths=st.lists(st.integers(1, 99), min_size=1, max_size=80), size=sizes, world=st.integers(1, 3))
@example(lengths=[i * 37 % 64 + 1 for i in range(64)], size=4, world=3)
def test_batches_of_a_pool_overlap_in_length_at_their_ends_only(lengths: list[int], size: int, world: int) -> None:
    ranks = [BucketBatchSampler(lengths, size, seed=3, pool=10**6, rank=r, world_size=world) for r in range(world)]
    steps = [sorted(lengths[i] for part in parts for i in part) for parts in zip(*ranks, strict=True)]
    whole = sorted(steps[: len(lengths) // (size * world)])  # what follows is set aside, and dealt on from the start
    assert all(one[-1] <= two[0] for one, two in pairwise(whole))


def test_orders_differ_between_epochs_and_seeds_and_repeat_for_one_key() -> None:
    lengths = np.arange(100) % 7 + 1
    sampler = BucketBatchSampler(lengths, 10, seed=1)
    one, two = list(sampler), list(sampler)
    assert one != two
    sampler.set_epoch(0)
    assert list(sampler) == one
    assert list(BucketBatchSampler(lengths, 10, seed=2)) != one


def test_long_batches_come_at_any_time_and_equal_lengths_change_their_neighbours() -> None:
    lengths = np.repeat([1, 2, 3, 4], 25)
    sampler = BucketBatchSampler(lengths, 5, seed=4)
    firsts, neighbours = set(), set()
    for _ in range(30):
        batches = list(sampler)
        firsts.add(int(lengths[batches[0][0]]))
        neighbours |= {frozenset(batch) for batch in batches if 0 in batch}
    assert firsts == {1, 2, 3, 4}
    assert len(neighbours) > 20


def test_what_drop_last_leaves_out_has_any_length() -> None:
    sampler = BucketBatchSampler(range(1, 12), 4, seed=0, drop_last=True)
    left = np.zeros(11, int)
    for _ in range(300):
        for i in set(range(11)) - {i for batch in sampler for i in batch}:
            left[i] += 1
    assert left.sum() == 900
    assert left.min() > 45  # 82 each expected, standard deviation 8
    assert left.max() < 125


def test_without_shuffle_the_longest_come_first_in_every_epoch() -> None:
    sampler = BucketBatchSampler([2, 5, 1, 5], 2, shuffle=False)
    assert list(sampler) == list(sampler) == [[1, 3], [0, 2]]


def test_buckets_save_most_of_the_padding() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 2000)
    plain = padding_share(lengths, KeyedBatchSampler(range(2000), 50, shuffle=True))
    assert padding_share(lengths, BucketBatchSampler(lengths, 50)) < 0.05 < 0.4 < plain


@given(lengths=lengths_of, size=sizes)
def test_the_share_of_padding_is_that_of_the_padded_batches(lengths: list[int], size: int) -> None:
    batches = [list(range(i, min(i + size, len(lengths)))) for i in range(0, len(lengths), size)]
    padded = [[lengths[i] for i in batch] for batch in batches]
    positions = sum(len(row) * max(row) for row in padded)
    share = padding_share(lengths, batches)
    assert share * positions == pytest.approx(positions - sum(lengths))
    assert 0 <= share <= 1


def saved(**change: Any) -> dict[str, Any]:
    return {**BucketBatchSampler([1, 2, 3, 4], 2, pool=3).state_dict(), **change}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (BucketBatchSampler([1, 2, 3, 5], 2, pool=3).state_dict(), "lengths"),
        (BucketBatchSampler([1, 2, 3, 4], 2, pool=4).state_dict(), "pool=4"),
        (KeyedBatchSampler(range(4), 2, shuffle=True).state_dict(), "lacks kind"),
        (saved(seed=3), "seed=3"),
        (saved(step=3), "step=3"),
        (None, "state is NoneType"),
    ],
)
def test_a_state_of_another_order_is_refused_and_the_sampler_stays_as_it_was(state: Any, message: str) -> None:
    sampler = BucketBatchSampler([1, 2, 3, 4], 2, pool=3)
    next(iter(sampler))
    before = sampler.state_dict()
    with pytest.raises(mx.MixError, match=message):
        sampler.load_state_dict(state)
    assert sampler.state_dict() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lengths": [3, -1]}, r"lengths\[1\]=-1"),
        ({"lengths": [1.5]}, "whole numbers"),
        ({"lengths": [[1, 2]]}, "shape"),
        ({"lengths": ["a b"]}, "whole numbers"),
        ({"pool": 0}, "pool=0"),
        ({"pool": 1.5}, "pool=1.5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"rank": 1}, "both or neither"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        BucketBatchSampler(**{"lengths": [1, 2], "batch_size": 2, **arguments})


def test_samplers_print_what_they_hold() -> None:
    sampler = BucketBatchSampler([1, 2, 3], 4, seed=7, pool=9, rank=1, world_size=2)
    expected = "BucketBatchSampler(<lengths of 3>, 4, shuffle=True, seed=7, rank=1, world_size=2, pool=9)"
    assert repr(sampler) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_delivers_every_sentence_with_its_key(workers: int) -> None:
    data = Sentences([" ".join("ab"[i % 2] * (i % 9 + 1)) for i in range(23)], np.arange(23) % 3, ["x", "y", "z"])
    rows = TokenizedSentences(data, Vocabulary(["a", "b"]))
    sampler = BucketBatchSampler(rows.lengths, 5, seed=1, pool=2)
    loader = DataLoader(
        keyed(rows), batch_sampler=sampler, num_workers=workers, collate_fn=lambda s: {**pad_batch(s), "key": s.key}
    )
    for epoch in range(2):
        batches = list(loader)
        assert [tuple(batch["key"]) for batch in batches] == [(epoch, step, 0) for step in range(5)]
        assert sorted(int(n) for batch in batches for n in batch["attention_mask"].sum(1)) == sorted(rows.lengths)


@given(
    rows=st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=6), pad=st.integers(0, 3)
)
def test_padding_keeps_every_token_and_marks_it(rows: list[list[int]], pad: int) -> None:
    batch = pad_batch([{"input_ids": np.array(row), "label": i} for i, row in enumerate(rows)], pad=pad)
    assert {name: (tensor.dtype, type(tensor)) for name, tensor in batch.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "labels"), (torch.int64, torch.Tensor)
    )
    ids, mask = batch["input_ids"].numpy(), batch["attention_mask"].numpy()
    assert ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    for i, row in enumerate(rows):
        assert ids[i, mask[i] == 1].tolist() == row
        assert mask[i].tolist() == [1] * len(row) + [0] * (ids.shape[1] - len(row))
    assert (ids[mask == 0] == pad).all()
    assert batch["labels"].tolist() == list(range(len(rows)))


def test_without_torch_a_batch_is_of_numpy_arrays() -> None:
    code = (
        "import sys; from mixops.pipelines.text import pad_batch; "
        "b = pad_batch([{'input_ids': [4, 5], 'label': 1}]); "
        "print(*[f'{type(v).__name__} {v.dtype} {v.tolist()}' for v in b.values()], 'torch' in sys.modules, sep='; ')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ndarray int64 [[4, 5]]; ndarray int64 [[1, 1]]; ndarray int64 [1]; False\n"


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "no sample"),
        ([{"input_ids": [1], "label": 0}, {"input_ids": [], "label": 0}], r"sample 1 has ids of shape \(0,\)"),
        ([{"input_ids": [[1]], "label": 0}], r"shape \(1, 1\)"),
        ([{"input_ids": [1.5], "label": 0}], "float64"),
        ([{"text": "so good", "label": 0}], r"\['text', 'label'\].*TokenizeStage"),
        ([{"input_ids": [1]}], "expected input_ids and label"),
        (["so good"], "is str"),
        ([{"input_ids": [1], "labels": 0}], r"\['input_ids', 'labels'\].*under this name"),
        ([{"input_ids": [[1], [1, 2]], "label": 0}], "several rows of ids"),
        ([{"input_ids": [1], "label": 0}, {"input_ids": [1], "label": 0.7}], "sample 1 has the label 0.7"),
        ([{"input_ids": [1], "label": [0, 1]}], r"label \[0, 1\], expected a whole number"),
        ([{"input_ids": [1], "label": None}], "label None"),
        ([{"input_ids": [1], "label": "place"}], "label 'place'"),
    ],
)
def test_samples_that_make_no_batch_are_refused(samples: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        pad_batch(samples)


def test_labels_may_be_of_any_whole_kind_and_padding_is_an_id() -> None:
    kinds = (3, np.int8(3), np.array(3), torch.tensor(3), True)
    batch = pad_batch([{"input_ids": torch.tensor([5]), "label": label} for label in kinds])
    assert batch["labels"].tolist() == [3, 3, 3, 3, 1]
    for pad in (None, -1, "x"):
        with pytest.raises(mx.MixError, match="pad="):
            pad_batch([{"input_ids": [5], "label": 0}], pad=pad)
