"""MixLoader with a device: the same batches as without one, whatever is read ahead, fails, stops or starts again."""

from __future__ import annotations

import copy
import gc
import json
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from host_chip import on_the_host
from hypothesis import given, settings
from hypothesis import strategies as st
from lanes import LateLane
from loading import CLASSES, FIELDS, OP, N, epochs, mixing, pairs, plain, same, stateful, table
from mixops.pipelines import ArrayLoader, KeyedBatchSampler, MixLoader
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import mixops as mx
import mixops.execute

TO = {"image": mx.Output("b h w c", "float32", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))}


@dataclass
class Source:
    """Batches of images that tell their epoch and step, from a reader that fails where it is told to.

    Args:
        n: batches an epoch.
        bad: {step: what is wrong there}.
        tensors: tensors rather than arrays.
        recycled: every batch lies in the same memory: whoever holds one sees it change when the next is read.
        lane: counts that memory as pinned.
        remembers: it has a state of its own.
    """

    n: int = 5
    bad: dict[int, str] = field(default_factory=dict)
    tensors: bool = False
    recycled: bool = False
    lane: LateLane | None = None
    remembers: bool = False
    epoch: int = 0
    place: int = 0

    def __post_init__(self) -> None:
        self.memory = np.zeros((4, 3, 6, 6), np.uint8)
        self.shared = torch.from_numpy(self.memory)
        if self.lane is not None:
            self.lane.foreign.append(self.shared)
        if self.remembers:
            self.state_dict = lambda: {"place": [self.epoch, self.place]}
            self.load_state_dict = self._load

    def _load(self, state: Any) -> None:
        self.epoch, self.place = state["place"]

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Any]:
        return _Reader(self)

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.place = epoch, 0

    def batch(self, step: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.epoch, step))
        image = rng.integers(0, 256, self.memory.shape, np.uint8)
        if self.recycled:
            self.memory[:] = image
            image = self.memory
        label = rng.integers(0, CLASSES, 4)
        held: dict[str, Any] = {"image": image, "label": label, "nested": (np.arange(3) + step, ["a", step])}
        if self.tensors:
            held["image"] = self.shared if self.recycled else torch.from_numpy(image)
            held["label"] = torch.from_numpy(label)
        wrong = self.bad.get(step)
        if wrong == "no label":
            del held["label"]
        if wrong == "labels of other rows":
            held["label"] = held["label"][:3]
        if wrong == "flat images":
            held["image"] = held["image"][:, 0]
        if wrong == "unknown class":
            held["label"] = held["label"] + CLASSES
        return held


class _Reader:
    def __init__(self, source: Source) -> None:
        self.source, self.at = source, source.place if source.remembers else 0

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> Any:
        source, step = self.source, self.at
        if step >= source.n:
            source.place = 0
            raise StopIteration
        self.at = source.place = step + 1
        if source.bad.get(step) == "unreadable":
            raise OSError(f"cannot read {step}")
        return source.batch(step)


def frozen(value: Any) -> Any:
    """A batch as arrays of its own."""
    if isinstance(value, dict):
        return {name: frozen(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [frozen(item) for item in value]
    value = value.numpy() if isinstance(value, torch.Tensor) else value
    return value.copy() if isinstance(value, np.ndarray) else value


class Run:
    """What a user does with a loader, and what comes of it."""

    def __init__(self, make: Any) -> None:
        self.make = make
        self.loader: MixLoader = make()
        self.running = iter(self.loader)
        self.saved = copy.deepcopy(self.loader.state_dict())
        self.failed = False

    def does(self, action: str) -> Any:
        if action == "next":
            return self.next()
        if action == "save":
            self.saved = json.loads(json.dumps(self.loader.state_dict()))
            return self.saved
        if action == "resume":
            self.loader = self.make()
            self.loader.load_state_dict(self.saved)
            self.running = iter(self.loader)
        if action == "leave":
            self.running = iter(self.loader)
        if action == "next epoch":
            self.loader.set_epoch(self.loader.epoch + 1)
        if action == "train":
            self.loader.train()
        if action == "eval":
            self.loader.eval()
        return self.loader.epoch, self.loader.step

    def next(self) -> Any:
        try:
            got = frozen(next(self.running))
        except StopIteration:
            got = "end"
        except (mx.MixError, OSError) as error:
            got = type(error).__name__, str(error)
        return got, self.loader.epoch, self.loader.step


ACTIONS = st.sampled_from(["next"] * 8 + ["save", "resume", "leave", "next epoch", "train", "eval"])
WRONG = st.sampled_from(["unreadable", "no label", "labels of other rows", "flat images", "unknown class"])


@settings(max_examples=150)
@given(
    actions=st.lists(ACTIONS, min_size=4, max_size=30),
    n=st.integers(0, 5),
    bad=st.dictionaries(st.integers(0, 4), WRONG, max_size=2),
    tensors=st.booleans(),
    recycled=st.booleans(),
    pinned=st.booleans(),
    remembers=st.booleans(),
    tail=st.booleans(),
    seed=st.integers(0, 50),
)
def test_whatever_is_done_the_batches_are_those_without_a_device(
    actions: list[str],
    n: int,
    bad: dict[int, str],
    tensors: bool,
    recycled: bool,
    pinned: bool,
    remembers: bool,
    tail: bool,
    seed: int,
) -> None:
    lane = LateLane(seed)

    def made(device: Any) -> MixLoader:
        source = Source(n, bad, tensors, recycled, lane if pinned and device else None, remembers)
        return mixing(source, to=TO if tail else None, device=device)

    ahead, here = Run(lambda: made(lane)), Run(lambda: made(None))
    for i, action in enumerate([*actions, *["next"] * (n + 2)]):
        assert same(ahead.does(action), here.does(action)), f"{action}, number {i}"
    assert lane.faults == []


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cut", [0, 1, 3, 4, 5])
def test_a_resumed_loader_goes_on_with_the_batch_that_was_read_ahead_but_not_delivered(workers: int, cut: int) -> None:
    expected = epochs(mixing(plain()))
    first = mixing(plain(workers), device=LateLane())
    running = iter(first)
    head = [next(running) for _ in range(cut)]
    state = json.loads(json.dumps(first.state_dict()))
    assert (state["epoch"], state["step"]) == (0, cut)
    second = mixing(plain(), device=LateLane(1))
    second.load_state_dict(state)
    assert same([head + list(second), list(second)], expected)
    without = mixing(plain())
    without.load_state_dict(state)
    assert same(head + list(without), expected[0])


@stateful
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_stateful_data_loader_resumes_with_what_was_delivered(workers: int, cut: int) -> None:
    def made(device: Any) -> MixLoader:
        torch.manual_seed(3)
        return mixing(StatefulDataLoader(table(), 4, shuffle=True, num_workers=workers), device=device)

    whole = list(made(None))
    first = made(LateLane())
    running = iter(first)
    head = [next(running) for _ in range(cut)]
    state = copy.deepcopy(first.state_dict())
    second = made(LateLane())
    torch.manual_seed(99)
    second.load_state_dict(state)
    assert same(head + list(second), whole)
    assert same(head + list(running), whole)


def test_a_state_stays_what_it_was_when_the_loader_goes_on() -> None:
    loader = mixing(Source(remembers=True), device=LateLane())
    running = iter(loader)
    next(running)
    state = loader.state_dict()
    before = copy.deepcopy(state)
    next(running)
    assert state == before
    assert state["loader"] == {"place": [0, 1]}
    assert loader.state_dict()["loader"] == {"place": [0, 2]}


@pytest.mark.parametrize("device", [LateLane(), None], ids=["ahead", "here"])
@pytest.mark.parametrize(("wrong", "step"), [("unreadable", 1), ("no label", 2)])
def test_behind_an_error_a_state_goes_on_where_the_loader_does(device: Any, wrong: str, step: int) -> None:
    def made() -> MixLoader:
        return mixing(Source(bad={1: wrong}, remembers=True), device=device)

    loader = made()
    running = iter(loader)
    next(running)
    with pytest.raises((OSError, mx.MixError)):
        next(running)
    state = loader.state_dict()
    assert (state["step"], state["loader"]) == (step, {"place": [0, 2]})
    resumed = made()
    resumed.load_state_dict(state)
    assert same(list(map(frozen, resumed)), list(map(frozen, running)))


def test_an_error_of_the_loader_is_raised_in_its_turn_and_tells_where_it_came_from() -> None:
    loader = mixing(Source(bad={1: "unreadable"}), device=LateLane())
    running = iter(loader)
    assert next(running)["image"].shape == (4, 3, 6, 6)  # it has been met by now
    assert loader.step == 1
    with pytest.raises(OSError, match="cannot read 1") as caught:
        next(running)
    assert "test_loader_device.py" in caught.value.__notes__[0]
    assert 'raise OSError(f"cannot read {step}")' in caught.value.__notes__[0]
    assert loader.step == 1
    assert len(list(running)) == 3


def test_batches_are_sent_one_ahead_and_the_first_ones_plan_is_drawn_again_when_training_ends() -> None:
    lane = LateLane()
    loader = mixing(Source(), device=lane)
    running = iter(loader)
    assert lane.events == []
    next(running)
    assert len(lane.events) == 2
    assert not lane.events[1].made
    loader.eval()
    assert next(running)["plan"].is_identity
    assert lane.faults == []


def test_a_wait_for_the_loader_that_is_interrupted_loses_no_batch() -> None:
    whole = list(mixing(Source(tensors=True)))
    source = Source(tensors=True)
    read, struck = source.batch, []

    def batch(step: int) -> dict[str, Any]:
        if step == 2 and not struck:
            struck.append(step)
            raise KeyboardInterrupt
        return read(step)

    source.batch = batch  # type: ignore[method-assign]
    loader = mixing(source, device=LateLane())
    running = iter(loader)
    got = [next(running)]
    with pytest.raises(KeyboardInterrupt):
        next(running)  # while batch 2 was read ahead of batch 1
    assert loader.step == 1
    got.append(next(running))
    assert same(frozen(got), frozen(whole[:2]))


def test_a_pass_with_an_error_ahead_is_freed_at_once() -> None:
    source = Source(bad={1: "unreadable"})
    running = iter(mixing(source, device=LateLane()))
    next(running)
    gone = weakref.ref(running)
    gc.disable()
    try:
        del running
        assert gone() is None
    finally:
        gc.enable()


def test_tuple_batches_arrays_and_samples_become_tensors() -> None:
    fields = {0: FIELDS["image"], 1: FIELDS["label"]}

    def batches(make: Any) -> list[Any]:
        images, labels = zip(*pairs(), strict=True)
        return [make(images[i : i + 4], labels[i : i + 4]) for i in range(0, N, 4)]

    stacked = batches(lambda x, y: (np.stack(x), np.array(y)))
    listed = batches(lambda x, y: (list(x), np.array(y)))
    got = list(MixLoader(stacked, OP, fields, 7, device=LateLane()))
    assert all(type(batch) is tuple and all(isinstance(t, torch.Tensor) for t in batch) for batch in got)
    expected = list(MixLoader(stacked, OP, fields, 7))
    for device in (LateLane(), None):
        assert same([frozen(b) for b in MixLoader(listed, OP, fields, 7, device=device)], list(map(frozen, expected)))
    assert same(list(map(frozen, got)), list(map(frozen, expected)))


@pytest.mark.parametrize(
    "label", [mx.Labels(CLASSES, smoothing=0.1), mx.Labels(form="pair"), mx.Labels(CLASSES, form="sparse")]
)
def test_labels_of_every_form_arrive_as_tensors(label: mx.Labels) -> None:
    op, fields = mx.Mixup(0.8), {"image": FIELDS["image"], "label": label}
    lane = LateLane()
    got, expected = (list(MixLoader(Source(), op, fields, 7, device=device)) for device in (lane, None))
    assert same(list(map(frozen, got)), list(map(frozen, expected)))
    assert all(isinstance(t, torch.Tensor) for batch in got for t in torch.utils._pytree.tree_leaves(batch["label"]))
    assert lane.faults == []


@pytest.mark.parametrize("names", [("image",), ("label",)])
def test_fields_of_one_sort_alone_will_do(names: tuple[str, ...]) -> None:
    fields, op = {name: FIELDS[name] for name in names}, mx.Mixup(0.8)
    lane = LateLane()
    got, expected = (
        list(MixLoader(Source(), op, fields, 7, plan_key="plan", device=device)) for device in (lane, None)
    )
    assert same(list(map(frozen, got)), list(map(frozen, expected)))
    assert got[0]["plan"] == expected[0]["plan"]
    assert lane.faults == []


def test_a_batch_that_is_on_the_device_already_is_mixed_there_and_left_alone() -> None:
    batches = [{"image": torch.from_numpy(Source().batch(i)["image"]), "label": torch.arange(4)} for i in range(3)]
    before = copy.deepcopy(batches)
    lane = LateLane(there=[t for batch in batches for t in batch.values()])
    got = list(mixing(batches, device=lane))
    assert same(got, list(mixing(batches)))
    assert same(batches, before)
    # The targets are made of labels where these are: had they been on the host, they would have travelled.
    assert all(len(event.hosts) == 1 for event in lane.events)


def test_pinned_batches_are_read_where_they_lie_before_the_loader_may_use_them_again() -> None:
    lane = LateLane()
    source = Source(tensors=True, recycled=True, lane=lane)
    got = [frozen(batch) for batch in mixing(source, device=lane)]
    assert same(got, [frozen(batch) for batch in mixing(Source(tensors=True))])
    assert any(host is source.shared for event in lane.events for host in event.hosts)
    assert lane.faults == []


def test_an_array_loader_gathers_in_threads_what_is_mixed_on_the_device() -> None:
    data = {"image": table().fields["image"], "label": table().fields["label"]}

    def made(device: Any) -> MixLoader:
        rows = ArrayLoader(data, mx.Mixup(alpha=0), {"image": FIELDS["image"]}, 4, seed=3, threads=2)
        return MixLoader(rows, OP, FIELDS, 7, device=device)

    whole = epochs(mixing(plain()))
    for epoch in whole:
        for batch in epoch:
            del batch["plan"], batch["id"]
    assert same(epochs(made(LateLane())), whole)
    first = made(LateLane())
    running = iter(first)
    head = [next(running), next(running)]
    second = made(LateLane())
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert same([head + list(second), list(second)], whole)


def test_the_cpu_as_a_device_makes_tensors_and_reads_nothing_ahead() -> None:
    source = Source(bad={1: "unreadable"}, remembers=True)
    loader = mixing(source, device="cpu")
    running = iter(loader)
    got = next(running)
    assert source.place == 1
    assert all(isinstance(got[name], torch.Tensor) for name in ("image", "label"))
    assert isinstance(got["nested"][0], torch.Tensor)
    assert same(frozen(got), frozen(next(iter(mixing(Source())))))


def test_loaders_print_their_device() -> None:
    assert repr(MixLoader([], mx.Mixup(), {"y": mx.Labels(2)}, 7, device="cpu")).endswith("seed=7, device='cpu')")


def test_keyed_batches_with_pinning_and_workers_go_through(recwarn: pytest.WarningsRecorder) -> None:
    data = table()
    sampler = KeyedBatchSampler(data, 4, seed=3, shuffle=True)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=2, persistent_workers=True)
    lane = LateLane()
    assert same(epochs(mixing(loader, device=lane)), epochs(mixing(plain())))
    assert lane.faults == []
    assert [w for w in recwarn.list if "os.fork" not in str(w.message)] == []  # JAX says so once it was imported


def test_each_field_is_one_launch_of_the_kernel_tail_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {**FIELDS, "mask": mx.Field("b h w", "discrete")}

    def batches() -> list[Any]:
        images = [Source().batch(i)["image"] for i in range(3)]
        return [{"image": x, "mask": x[:, 0], "label": np.arange(4)} for x in images]

    op = mx.CutMix(1.0, per="sample") | mx.Cutout(2)
    expected = list(MixLoader(batches(), op, fields, 7, to=TO))
    choose = mixops.execute.backend_for  # a tensor on a GPU is given to the kernel; these are on the CPU
    monkeypatch.setattr(mixops.execute, "backend_for", lambda x, name=None: choose(x, name or "cuda"))
    with on_the_host() as chip:
        got = list(MixLoader(batches(), op, fields, 7, to=TO, device=LateLane()))
    assert len(chip.launches) == 2 * 3
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one["image"].numpy(), other["image"], rtol=1e-5, atol=1e-6)
        assert np.array_equal(one["mask"].numpy(), other["mask"])
        assert np.array_equal(one["label"].numpy(), other["label"])
