"""Shortcuts change no bit: what is drawn or read the short way is what the long way makes of the same numbers."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mixops as mx
from mixops.backends import addresses, share_memory
from mixops.backends.order import LARGEST, walk
from mixops.constant import ascending, is_ascending
from mixops.streams import child_streams, plan_stream

SEED = st.integers(0, 2**32 - 1)


@given(SEED, st.integers(1, 9), st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from(["clip", "inside"]))
def test_one_box_for_the_batch_is_laid_as_boxes_of_rows_are(
    seed: int, n: int, shape: tuple[int, int], edge: str
) -> None:
    spec = mx.Spec(n, shape)
    for label in ("area", "nominal"):
        op = mx.CutMix(0.7, edge=edge, label=label)
        rng = np.random.default_rng(seed)
        partner, lam = rng.permutation(n), rng.beta(0.7, 0.7)
        rng.random()
        side = np.floor(np.sqrt(1 - lam) * np.array(shape)).astype(int)
        bound = np.array(shape) - side + 1 if edge == "inside" else np.array(shape)
        at = rng.integers(0, bound, (n, 2))[0]
        assert op.draw(np.random.default_rng(seed), spec) == op.draw(rng, spec, partner=partner, lam=lam, at=at)


@given(SEED, st.sampled_from([None, [0.3, 0.4, 0.2]]))
def test_a_choice_for_the_batch_does_not_depend_on_what_was_drawn_before(seed: int, p: Any) -> None:
    def made() -> mx.Operator:
        return mx.OneOf([mx.Mixup(0.8), mx.CutMix() | mx.Cutout(3), mx.RandomErasing(count=3)], p=p) | mx.Cutout(2)

    used, spec = made(), mx.Spec(5, (9, 8))
    for other in (mx.Spec(4, (9, 8)), spec, spec):
        used.draw(np.random.default_rng(seed + 1), other)
    for training in (True, False):
        at = mx.Spec(5, (9, 8), training=training)
        drawn = used.draw(np.random.default_rng(seed), at)
        assert drawn == made().draw(np.random.default_rng(seed), at)
        assert drawn.k == 4
        assert pickle.loads(pickle.dumps(used)) == used == made()


def test_a_choice_refuses_what_any_of_its_operators_refuses_each_time() -> None:
    op = mx.OneOf([mx.Mixup(), mx.CutMix()])
    for seed in range(8):
        with pytest.raises(mx.MixError, match="no axes"):
            op.draw(np.random.default_rng(seed), mx.Spec(4))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_streams_are_philox_of_key_and_counter(seed: int, step: int) -> None:
    key, counter = np.array((seed, 0), np.uint64), np.array((0, step, 3, 0), np.uint64)
    plain = np.random.Generator(np.random.Philox(key=key, counter=counter))
    stream = plan_stream(seed, 3, step)
    copied = pickle.loads(pickle.dumps(stream))
    wanted = plain.random(6)
    np.testing.assert_array_equal(stream.random(6), wanted)
    np.testing.assert_array_equal(copied.random(6), wanted)


def test_children_of_a_stream_are_philox_of_its_word() -> None:
    word = int(np.random.default_rng(5).integers(1 << 64, dtype=np.uint64))
    for place, child in enumerate(child_streams(np.random.default_rng(5), 3)):
        plain = np.random.Generator(np.random.Philox(key=np.array((word, 1 << 32 | place), np.uint64)))
        np.testing.assert_array_equal(child.random(4), plain.random(4))


def test_arrays_that_are_shared_cannot_be_written() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(6))
    assert plan.base is ascending(6)
    with pytest.raises(ValueError, match="read-only"):
        plan.base[0] = 1
    assert is_ascending(np.arange(6))
    assert not is_ascending(np.arange(6)[::-1])


@pytest.mark.parametrize("heads", [True, False])
def test_addresses_are_those_that_arrays_and_tensors_tell(monkeypatch: pytest.MonkeyPatch, heads: bool) -> None:
    assert addresses._HEADS, "this is CPython's NumPy: its arrays are read at their heads"
    monkeypatch.setattr(addresses, "_HEADS", heads)
    whole = np.arange(60, dtype=np.uint8).reshape(5, 3, 4)
    frozen = whole[2, :0:-1]
    frozen.setflags(write=False)
    parts = [whole[0], whole[1][1:], frozen, np.empty((0, 3)), whole.view(np.recarray)[3], np.array(7)]
    told = [p.__array_interface__["data"][0] for p in parts]
    for count in (len(parts), 3):
        assert addresses.starts(parts[:count]).tolist() == told[:count]
    tensors = [*torch.from_numpy(whole), torch.zeros(3)]
    assert addresses.starts(tensors).tolist() == [t.data_ptr() for t in tensors]


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("take", [slice(None), np.s_[:, ::2], np.s_[:, :, :0]])
def test_samples_that_lie_in_the_result_are_noticed(kind: Any, take: Any) -> None:
    memory = np.zeros((8, 4, 6), np.float32)
    for low in range(8):
        samples, out = [kind(memory[i])[take[1:] if isinstance(take, tuple) else take] for i in (1, 4)], kind(memory)
        inside = low in (1, 4) and 0 not in samples[0].shape
        assert share_memory(samples, out[low : low + 1]) is inside
        assert share_memory([samples[0], samples[1].T.reshape(samples[1].shape)], out[7:]) is False
    uneven = [kind(memory[1]), kind(np.ascontiguousarray(memory[2].T)).T]
    assert share_memory(uneven, kind(memory)[1:2])
    assert not share_memory(uneven, kind(memory)[2:3])
    assert not share_memory([kind(memory[1])], kind(memory)[1:1])


@given(SEED, st.integers(0, 12))
def test_a_walk_asked_for_again_is_the_same_and_nobody_elses(seed: int, n: int) -> None:
    donor = np.random.default_rng(seed).integers(0, max(n, 1), n)
    first = walk(donor)
    kept = [part.copy() for part in first]
    for part in first:
        part[...] = 0
    for part, wanted in zip(walk(donor), kept, strict=True):
        np.testing.assert_array_equal(part, wanted)


def test_walks_too_long_to_keep_are_walked_alike() -> None:
    n = LARGEST + 2
    order, saves, reads = walk(np.arange(n)[::-1])
    few_order, few_saves, few_reads = walk(np.arange(6)[::-1])
    np.testing.assert_array_equal(order[:6], [0, n - 1, 1, n - 2, 2, n - 3])
    np.testing.assert_array_equal(few_order, [0, 5, 1, 4, 2, 3])
    np.testing.assert_array_equal((saves >= 0).nonzero()[0], np.arange(n // 2))
    np.testing.assert_array_equal((few_saves >= 0).nonzero()[0], np.arange(3))
    np.testing.assert_array_equal(reads, np.arange(n) >= n // 2)
    np.testing.assert_array_equal(few_reads, np.arange(6) >= 3)


def test_a_plan_is_not_laid_on_rows_before_the_first() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2))
    with pytest.raises(mx.MixError, match="-1"):
        plan.on([-1, 3])
