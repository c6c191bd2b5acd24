"""On a GPU: the batches of MixLoader(device=...) are those of the host, while the stream they are asked for is busy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from loading import CLASSES, FIELDS, OP, epochs, mixing, plain, same, stateful, table
from mixops.pipelines import ArrayLoader, KeyedBatchSampler, MixLoader
from mixops.pipelines.transfer import CudaLane, Lane
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import mixops as mx

pytestmark = pytest.mark.gpu

TO = {"image": mx.Output("b h w c", "float16", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))}
#: Long enough for the host to run through an epoch of small batches meanwhile.
BUSY = 200_000_000


def home(value: Any) -> Any:
    """A batch with its tensors back on the host."""
    if isinstance(value, dict):
        return {name: home(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(home(item) for item in value)
    return value.cpu() if isinstance(value, torch.Tensor) else value


def large(n: int = 12, seed: int = 0) -> list[dict[str, Any]]:
    """Batches whose copies take a while."""
    rng = np.random.default_rng(seed)
    return [
        {"image": rng.integers(0, 256, (32, 3, 128, 128), np.uint8), "label": rng.integers(0, CLASSES, 32)}
        for _ in range(n)
    ]


def test_a_cuda_lane_is_a_lane() -> None:
    assert isinstance(CudaLane(torch.device("cuda")), Lane)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pin", [False, True])
def test_bytes_are_those_of_the_host(workers: int, pin: bool) -> None:
    data = table()
    sampler = KeyedBatchSampler(data, 4, seed=3, shuffle=True)
    loader = mixing(
        DataLoader(data, batch_sampler=sampler, num_workers=workers, pin_memory=pin, persistent_workers=bool(workers)),
        device="cuda",
    )
    got = epochs(loader)
    tensors = [t for epoch in got for batch in epoch for t in (batch["image"], batch["label"], batch["id"])]
    assert all(t.is_cuda for t in tensors)
    assert same(home(got), epochs(mixing(plain())))


def test_the_tail_is_within_a_rounding_of_the_hosts() -> None:
    for one, other in zip(mixing(large(), to=TO, device="cuda"), mixing(large(), to=TO), strict=True):
        assert one["image"].dtype == torch.float16
        np.testing.assert_allclose(one["image"].float().cpu().numpy(), np.float32(other["image"]), 2**-10, 2**-10)


@pytest.mark.parametrize("pinned", [False, True])
def test_batches_are_right_while_the_stream_is_busy_and_the_reader_recycles_its_memory(pinned: bool) -> None:
    class Recycling:
        def __init__(self) -> None:
            first = large(1)[0]
            self.image = torch.from_numpy(first["image"])
            if pinned:
                self.image = self.image.pin_memory()

        def __iter__(self) -> Iterator[Any]:
            for batch in large():
                self.image.copy_(torch.from_numpy(batch["image"]))
                yield {**batch, "image": self.image}

    got = []
    for batch in mixing(Recycling(), device="cuda"):
        got.append(batch)
        torch.cuda._sleep(BUSY // 20)
    assert same([home(batch["image"]) for batch in got], [torch.as_tensor(batch["image"]) for batch in mixing(large())])


def test_memory_is_not_given_away_while_the_stream_has_work_with_it() -> None:
    expected = [int(torch.as_tensor(batch["image"]).sum(dtype=torch.int64)) for batch in mixing(large(40))]
    sums = []
    for batch in mixing(large(40), device="cuda"):
        torch.cuda._sleep(BUSY // 40)
        sums.append(batch["image"].sum(dtype=torch.int64))
        del batch  # only the work that is queued knows it now
    assert [int(s) for s in sums] == expected


def test_batches_belong_to_the_stream_they_are_asked_for() -> None:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        got = []
        for batch in mixing(large(), device="cuda"):
            torch.cuda._sleep(BUSY // 20)
            got.append(batch["image"] + 0)
    side.synchronize()
    assert same([image.cpu() for image in got], [torch.as_tensor(batch["image"]) for batch in mixing(large())])


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_no_call_waits_for_the_device() -> None:
    loader = mixing(large(), to=TO, device="cuda")
    list(loader)  # kernels are compiled and memory is there
    running = iter(loader)
    next(running)
    torch.cuda.synchronize()
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        began.record()
        torch.cuda._sleep(BUSY)
        ended.record()
        batches = [next(running), next(running), next(running)]
        assert not ended.query()  # the stream is still at it, and the host has three batches
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(bool(torch.isfinite(batch["image"].float()).all()) for batch in batches)


def test_device_memory_does_not_grow() -> None:
    loader = mixing(large(), to=TO, device="cuda")
    peaks = []
    for _ in range(4):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        for batch in loader:
            del batch
            torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[-1] <= peaks[1]


def test_every_device_can_be_named() -> None:
    expected = epochs(mixing(plain()), 1)
    for index in range(torch.cuda.device_count()):
        for device in (f"cuda:{index}", torch.device("cuda", index)):
            got = epochs(mixing(plain(), device=device), 1)
            assert got[0][0]["image"].device.index == index
            assert same(home(got), expected)
        with torch.cuda.device(index):
            assert next(iter(mixing(plain(), device="cuda")))["image"].device.index == index
    with pytest.raises(mx.MixError, match="CUDA devices, counted from 0"):
        mixing(plain(), device="cuda:99")


def test_batches_on_the_device_are_mixed_there() -> None:
    batches = [{name: torch.as_tensor(item).cuda() for name, item in batch.items()} for batch in large(3)]
    assert same(
        [home(batch["image"]) for batch in mixing(batches, device="cuda")],
        [torch.as_tensor(batch["image"]) for batch in mixing(large(3))],
    )


@stateful
def test_a_state_leaves_the_batch_that_was_sent_ahead_to_the_resumed_loader() -> None:
    def made(kind: str, device: Any) -> MixLoader:
        torch.manual_seed(3)
        loader = plain() if kind == "keyed" else StatefulDataLoader(table(), 4, shuffle=True, num_workers=0)
        return mixing(loader, device=device)

    for kind in ("keyed", "stateful"):
        whole = list(made(kind, None))
        first = made(kind, "cuda")
        running = iter(first)
        head = [next(running), next(running)]
        second = made(kind, "cuda")
        state = first.state_dict()
        second.load_state_dict(json.loads(json.dumps(state)) if kind == "keyed" else state)
        assert same(home(head + list(second)), whole)


def test_an_array_loader_that_pins_feeds_the_device() -> None:
    data = {"image": table().fields["image"], "label": table().fields["label"]}
    rows = ArrayLoader(data, mx.Mixup(alpha=0), {"image": FIELDS["image"]}, 4, seed=3, threads=2, pin_memory=True)
    got = list(MixLoader(rows, OP, FIELDS, 7, device="cuda"))
    expected = [{name: batch[name] for name in ("image", "label")} for batch in mixing(plain())]
    assert same(home(got), expected)
