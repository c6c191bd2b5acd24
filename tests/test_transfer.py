"""Batches on their way to a device: what travels, through which memory, and when that is used again."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lanes import LateLane, raw
from loading import FIELDS, OP, same
from mixops.pipelines import MixLoader
from mixops.pipelines.transfer import Lane, Sender, lane_to, on_the_cpu

import mixops as mx


class Pair(NamedTuple):
    image: Any
    label: Any


def arrived(batch: Any, fields: Any = None, lane: LateLane | None = None) -> Any:
    lane = lane or LateLane()
    got = Sender(lane).send(batch, fields or {}).opened()
    assert lane.faults == []
    return got


def test_a_late_lane_is_a_lane() -> None:
    assert isinstance(LateLane(), Lane)
    assert not isinstance("cuda", Lane)
    assert not isinstance(torch.device("cpu"), Lane)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "int32", "int64", "uint16", "uint64", "bool", "float16", "float32", "float64"]
)
def test_arrays_arrive_as_tensors_of_their_dtype(dtype: str) -> None:
    array = (np.arange(30).reshape(5, 6) * 7).astype(dtype)
    got = arrived({"x": array})["x"]
    assert str(got.dtype) == f"torch.{dtype}"
    assert np.array_equal(got.numpy(), array)


def test_halves_that_numpy_lacks_arrive_too() -> None:
    array = np.arange(6).astype(ml_dtypes.bfloat16)
    for given_one in (array, torch.arange(6).to(torch.bfloat16)):
        got = arrived([given_one])[0]
        assert got.dtype == torch.bfloat16
        assert got.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.transpose(1, 3),
        lambda x: x[:, :, ::2],
        lambda x: x[:, :1].expand(-1, 3, -1, -1),
        lambda x: x[:0],
        lambda x: x[0, 0, 0, 0],
    ],
)
def test_tensors_keep_values_and_where_there_are_no_gaps_their_strides(make: Any) -> None:
    x = make(torch.arange(2 * 3 * 4 * 5, dtype=torch.int16).reshape(2, 3, 4, 5))
    got = arrived((x,))[0]
    assert torch.equal(got, x)
    assert got.stride() == torch.empty_like(x).stride()


def test_arrays_of_any_strides_and_read_only_ones_arrive() -> None:
    x = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    x.flags.writeable = False
    for view in (x, x[::-1], x.transpose(2, 0, 1), x[:, ::-2], np.broadcast_to(x[0], (5, 3, 4))):
        assert np.array_equal(arrived([view])[0].numpy(), view)
    assert arrived([np.array(7)])[0].item() == 7


def test_what_is_no_array_comes_along_as_it_is() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2))
    words, days = ["a", "b"], np.array(["2026-01-01"], "datetime64[D]")
    swapped = np.arange(3, dtype=">i4")
    batch = {"x": np.zeros(2), "words": words, "days": days, "plan": plan, "n": 3, "none": None, "swapped": swapped}
    got = arrived(batch)
    assert isinstance(got["x"], torch.Tensor)
    assert all(got[name] is batch[name] for name in ("words", "days", "plan", "n", "none", "swapped"))
    assert isinstance(batch["x"], np.ndarray)  # the loader's own batch is left alone


def test_containers_keep_their_types_and_nest() -> None:
    x = torch.arange(3)
    batch = OrderedDict(a=Pair(x, {"b": [x, "c"]}), d=UserDict(e=(x,)))
    got = arrived(batch)
    assert type(got) is OrderedDict
    assert type(got["a"]) is Pair
    assert type(got["d"]) is UserDict
    found = [got["a"].image, got["a"].label["b"][0], got["d"]["e"][0]]
    assert all(torch.equal(one, x) and one is not x for one in found)
    assert got["a"].label["b"][1] == "c"


@pytest.mark.parametrize(("layout", "axis"), [("b h w", 0), ("h b w", 1)])
@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor])
def test_samples_of_a_field_become_one_tensor(layout: str, axis: int, make: Any) -> None:
    samples = [make(np.full((2, 3), i, np.uint8)) for i in range(4)]
    got = arrived([samples, samples], {0: mx.Field(layout)})
    assert torch.equal(got[0], torch.stack([torch.as_tensor(s) for s in samples], axis))
    assert isinstance(got[1], list)  # it has no field: who knows what it is
    assert same([np.asarray(one) for one in got[1]], [np.asarray(one) for one in samples])


def test_uneven_samples_arrive_as_they_are_for_mix_to_refuse() -> None:
    got = arrived([[torch.zeros(2, 2), torch.zeros(3, 2)]], {0: mx.Field("b h w")})
    assert [tuple(one.shape) for one in got[0]] == [(2, 2), (3, 2)]


def test_tensors_on_the_device_are_used_as_they_are_and_pinned_ones_read_where_they_lie() -> None:
    there, pinned, plain = torch.arange(4), torch.arange(5), torch.arange(6)
    lane = LateLane(there=[there], foreign=[pinned])
    sender = Sender(lane)
    parcel = sender.send([there, pinned, plain], {})
    (event,) = lane.events
    assert event.hosts[0] is pinned
    assert event.hosts[1].data_ptr() != plain.data_ptr()
    got = parcel.opened()
    assert got[0] is there
    assert same([t.numpy() for t in got[1:]], [pinned.numpy(), plain.numpy()])
    assert not event.ended
    sender.settle()
    assert event.ended
    sender.settle()
    assert lane.waits == 1


def test_pinned_memory_with_gaps_is_copied_without_them() -> None:
    x = torch.arange(12).reshape(3, 4)[:, :2]
    lane = LateLane(foreign=[x])
    assert torch.equal(arrived([x], lane=lane)[0], x)
    assert lane.blocks


def test_tensors_with_gradients_and_sparse_ones_move_by_torchs_own_means() -> None:
    x = torch.zeros(3, requires_grad=True)
    sparse = torch.eye(3).to_sparse()
    got = arrived([x, sparse])
    assert got[0].requires_grad
    assert got[1].is_sparse


def test_a_batch_without_arrays_asks_nothing_of_the_lane() -> None:
    lane = LateLane()
    batch = {"words": ["a"], "n": 1}
    assert arrived(batch, lane=lane) is batch
    assert lane.events == []
    assert lane.blocks == []


@given(
    sizes=st.lists(st.lists(st.integers(0, 300), max_size=4), max_size=12),
    blocks=st.integers(1, 3),
    seed=st.integers(0, 99),
    held=st.integers(0, 3),
)
def test_blocks_are_used_again_only_when_nothing_reads_them(
    sizes: list[list[int]], blocks: int, seed: int, held: int
) -> None:
    lane, rng = LateLane(seed), np.random.default_rng(seed)
    sender = Sender(lane, blocks)
    under_way: list[tuple[Any, Any]] = []
    for row in sizes:
        arrays = [rng.integers(0, 256, size, np.uint8) for size in row]
        under_way.append((sender.send(arrays, {}), [a.copy() for a in arrays]))
        for array in arrays:
            array[:] = 0  # whoever made the batch may use its memory again
        while len(under_way) > held:
            parcel, meant = under_way.pop(int(rng.integers(len(under_way))))
            assert same([t.numpy() for t in parcel.opened()], meant)
    for parcel, meant in under_way:
        assert same([t.numpy() for t in parcel.opened()], meant)
    assert lane.faults == []
    largest = max((sum(-(-size // 64) * 64 for size in row) for row in sizes), default=0)
    assert all(size < 2 * max(largest, 1) for size in lane.blocks)
    assert len(sender._blocks) <= min(blocks, len(sizes))


def test_a_block_whose_copies_have_ended_is_used_again_without_a_wait() -> None:
    lane = LateLane()
    sender = Sender(lane)
    for _ in range(10):
        parcel = sender.send({"x": torch.zeros(1000)}, {})
        parcel.opened()
        while not lane.done(lane.events[-1]):
            pass
    assert lane.blocks == [4096]
    assert lane.waits == 0


def test_what_a_lane_that_fails_was_given_can_be_sent_again() -> None:
    class Full(LateLane):
        full = True

        def copy(self, hosts: Any) -> Any:
            if self.full:
                raise torch.cuda.OutOfMemoryError("no memory")
            return super().copy(hosts)

    lane = Full()
    sender = Sender(lane)
    for _ in range(5):
        with pytest.raises(torch.cuda.OutOfMemoryError):
            sender.send([torch.arange(9)], {})
    lane.full = False
    assert torch.equal(sender.send([torch.arange(9)], {}).opened()[0], torch.arange(9))
    assert len(lane.blocks) == 1


def test_a_batch_sent_in_inference_mode_can_be_trained_on_and_its_block_used_outside() -> None:
    lane = LateLane()
    sender = Sender(lane, 1)
    with torch.inference_mode():
        parcel = sender.send([np.zeros(3, np.float32)], {})
    weight = torch.ones(3, requires_grad=True)
    (parcel.opened()[0] * weight).sum().backward()
    assert torch.equal(sender.send([torch.arange(3)], {}).opened()[0], torch.arange(3))
    assert lane.faults == []


def test_the_default_device_of_torch_changes_nothing() -> None:
    with torch.device("meta"):
        got = arrived([np.arange(3), np.zeros(0)])
    assert got[0].tolist() == [0, 1, 2]


def test_the_cpu_takes_arrays_on_their_own_memory() -> None:
    x, y = np.arange(6), torch.arange(3)
    got = on_the_cpu({"x": x, "y": y, "words": ["a"]})
    assert got["y"] is y
    assert got["x"].data_ptr() == x.ctypes.data
    assert got["words"] == ["a"]


def test_bytes_of_a_tensor_tell_its_strides_from_its_values() -> None:
    x = torch.arange(6, dtype=torch.uint8).reshape(2, 3)
    assert raw(x.t()) == bytes([0, 3, 1, 4, 2, 5])
    assert raw(x[:0]) == b""


# -- devices that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (0, "device is int, expected \"cuda\""),
        (True, "device is bool"),
        ("gpu", "device='gpu', expected \"cuda\""),
        ("mps", "device='mps', expected"),
        (torch.device("meta"), "device='meta', expected"),
    ],
)  # fmt: skip
def test_devices_that_are_none_are_refused_when_the_loader_is_made(device: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        MixLoader([], OP, FIELDS, 7, device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_without_cuda_the_loader_says_what_to_do(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(mx.MixError, match=r"device='cuda.*torch finds no CUDA device.*leave device= away"):
        MixLoader([], OP, FIELDS, 7, device=device)


def test_the_cpu_needs_no_lane() -> None:
    assert lane_to("MixLoader", "cpu") is None
    assert lane_to("MixLoader", torch.device("cpu")) is None
