"""A loader saved in the middle of an epoch, and resumed: the same batches, and only the remaining reads."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import resumable
import torch
from loading import FIELDS, OP, N, epochs, mixing, plain, same, stateful, table, worked
from mixops.pipelines import (
    KeyedBatchSampler,
    MixCollator,
    MixLoader,
    keyed,
)
from mixops.pipelines.streaming import StreamLoader
from torch.utils.data import DataLoader, IterableDataset, default_collate
from torch.utils.data.distributed import DistributedSampler
from torchdata import nodes
from torchdata.stateful_dataloader import StatefulDataLoader

import mixops as mx


@pytest.fixture(scope="module")
def expected() -> list[list[Any]]:
    """Two epochs, mixed in one process by one thread."""
    return epochs(worked())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cut", [0, 1, 3, 5])
def test_a_resumed_loader_goes_on_with_the_next_batch_and_reads_only_the_rest(
    workers: int, cut: int, tmp_path: Path
) -> None:
    def made(name: str) -> MixLoader:
        data = resumable.Counted(tmp_path / name, N)
        return mixing(plain(workers, data=data))

    expected = epochs(made("whole"))
    first = made("first")
    running = iter(first)
    head = [next(running) for _ in range(cut)]
    state = json.loads(json.dumps(first.state_dict()))
    assert (state["epoch"], state["step"]) == (0, cut)
    second = made("second")
    second.load_state_dict(state)
    assert (second.epoch, second.step) == (0, cut)
    rest = epochs(second)
    assert same(head + rest[0], expected[0])
    assert same(rest[1], expected[1])
    reads = (tmp_path / "second").read_text().split()
    assert len(reads) == max(N - 4 * cut, 0) + N


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_resumes_to_the_batches_of_an_unbroken_one(workers: int, tmp_path: Path) -> None:
    def run(folder: Path, kill_after: int) -> int:
        command = [sys.executable, resumable.__file__, str(folder), str(workers), "2", str(kill_after)]
        return subprocess.run(command, cwd=Path(__file__).parent.parent).returncode

    (tmp_path / "whole").mkdir()
    resumable.main(tmp_path / "whole", workers, 2, 0)
    broken = tmp_path / "broken"
    broken.mkdir()
    assert run(broken, 8) == 9  # in the middle of epoch 1: 6 batches and 2
    reads = broken / "reads.txt"
    reads.rename(broken / "before.txt")
    assert run(broken, 0) == 0
    whole = (tmp_path / "whole" / "batches.txt").read_text().split()
    assert len(whole) == len(set(whole)) == 12
    assert (broken / "batches.txt").read_text().split() == whole
    assert len(reads.read_text().split()) == 22 - 2 * 4


def test_after_the_last_batch_the_rest_is_empty_and_after_the_pass_the_next_epoch_comes() -> None:
    loader = mixing(plain())
    running = iter(loader)
    for _ in range(len(loader)):
        next(running)
    assert (loader.epoch, loader.step) == (0, 5)
    resumed = mixing(plain())
    resumed.load_state_dict(loader.state_dict())
    assert list(resumed) == []
    assert next(running, None) is None
    assert (loader.epoch, loader.step) == (1, 0)
    assert same(list(resumed), list(loader))


def test_each_pass_is_the_next_epoch_and_set_epoch_sets_it(expected: Any) -> None:
    loader = mixing(plain())
    next(iter(loader))
    assert same(list(loader), expected[1])  # a pass that was left counts
    loader.set_epoch(0)
    assert same(epochs(loader), expected)
    loader.load_state_dict({**loader.state_dict(), "epoch": 1, "step": 2, "sampler": plain_state(1, 2)})
    loader.set_epoch(1)
    assert same(list(loader), expected[1][2:])
    loader.load_state_dict({**loader.state_dict(), "epoch": 1, "step": 2, "sampler": plain_state(1, 2)})
    loader.set_epoch(0)
    assert same(list(loader), expected[0])


def plain_state(epoch: int, step: int) -> dict[str, Any]:
    sampler = plain().batch_sampler
    assert isinstance(sampler, KeyedBatchSampler)
    return sampler.state_dict(step, epoch=epoch)


@stateful
def test_a_stateful_data_loader_resumes_through_its_own_state() -> None:
    def made() -> MixLoader:
        torch.manual_seed(3)
        return mixing(StatefulDataLoader(table(), 4, shuffle=True, num_workers=0))

    whole = epochs(made())
    first = made()
    running = iter(first)
    head = [next(running) for _ in range(2)]
    state = copy.deepcopy(first.state_dict())
    second = made()
    torch.manual_seed(99)
    second.load_state_dict(state)
    assert same(head + list(second), whole[0])
    assert (second.epoch, second.step) == (1, 0)


def tried(batches: Any) -> list[Any]:
    """What comes, errors left out."""
    running, got = iter(batches), []
    while True:
        try:
            got.append(next(running))
        except StopIteration:
            return got
        except (mx.MixError, OSError):
            pass


class Rows:
    """The table, with one sample that cannot be read, or one of an unknown class."""

    def __init__(self, wrong: str, bad: int) -> None:
        self.table, self.wrong, self.bad = table(), wrong, bad

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        if index == self.bad and self.wrong == "unreadable":
            raise OSError("cannot read")
        row = self.table[index]
        return {**row, "label": 99} if index == self.bad else row


@stateful
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("wrong", ["unreadable", "unknown class"])
@pytest.mark.parametrize(("bad", "more"), [(0, 0), (9, 0), (9, 1)])
def test_behind_a_batch_that_fails_a_loader_with_its_own_state_resumes_to_the_same_plans(
    bad: int, more: int, wrong: str, workers: int
) -> None:
    def made() -> MixLoader:
        return mixing(StatefulDataLoader(Rows(wrong, bad), 4, num_workers=workers))  # type: ignore[arg-type]

    loader = made()
    running = iter(loader)
    got = [next(running) for _ in range(bad // 4)]
    with pytest.raises((mx.MixError, OSError)):
        next(running)
    got += [next(running) for _ in range(more)]
    resumed = made()
    resumed.load_state_dict(copy.deepcopy(loader.state_dict()))
    whole = got + tried(running)
    assert len(whole) == 4
    assert same(got + tried(resumed), whole)


def test_a_loader_that_resumes_by_reading_on_passes_by_what_could_not_be_read() -> None:
    def made() -> MixLoader:
        return mixing(DataLoader(Rows("unreadable", 5), 4))  # type: ignore[arg-type]

    loader = made()
    running = iter(loader)
    got = [next(running)]
    with pytest.raises(OSError, match="cannot read"):
        next(running)
    got.append(next(running))
    resumed = made()
    resumed.load_state_dict(loader.state_dict())
    assert same([*got, *resumed], [*got, *running])


@stateful
@pytest.mark.parametrize("make", [lambda: StatefulDataLoader(table(), 4, num_workers=0), lambda: streamed()])
def test_set_epoch_in_the_middle_of_a_pass_is_saved_as_the_start_of_that_epoch(make: Any) -> None:
    expected = mixing(make())
    expected.set_epoch(5)
    whole = epochs(expected)
    for mid in (0, 5):  # leave another epoch, or this very one
        loader = mixing(make())
        loader.set_epoch(mid)
        running = iter(loader)
        next(running), next(running)
        loader.set_epoch(5)
        state = json.loads(json.dumps(loader.state_dict()))
        assert (state["epoch"], state["step"], state["loader"]) == (5, 0, None)
        assert next(running)  # of the pass that was left: nobody's place
        assert loader.state_dict() == state
        resumed = mixing(make())
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        assert same(epochs(resumed), whole)
        assert same(epochs(loader), whole)


def streamed() -> StreamLoader:
    data = table()
    return StreamLoader([[data[i] for i in range(k, N, 2)] for k in range(2)], 4, seed=3)


@stateful
@pytest.mark.parametrize("make", [lambda: StatefulDataLoader(table(), 4, num_workers=0), lambda: streamed()])
def test_a_place_that_was_loaded_and_left_again_is_forgotten(make: Any) -> None:
    whole = epochs(mixing(make()))
    first = mixing(make())
    start = first.state_dict()
    running = iter(first)
    next(running)
    state = copy.deepcopy(first.state_dict())
    loader = mixing(make())
    loader.load_state_dict(state)
    loader.set_epoch(1)
    assert same(list(loader), whole[1])
    loader.load_state_dict(state)
    loader.load_state_dict({**start, "loader": None})
    assert same(epochs(loader), whole)


def test_between_load_state_dict_and_the_next_pass_a_state_is_what_was_loaded() -> None:
    def made() -> MixLoader:
        batches = nodes.Batcher(nodes.IterableWrapper([table()[i] for i in range(N)]), 4, drop_last=False)
        return mixing(nodes.Loader(nodes.Mapper(batches, default_collate)))

    loader = made()
    running = iter(loader)
    next(running)
    state = copy.deepcopy(loader.state_dict())
    rest = list(running)
    loader.load_state_dict(state)
    assert loader.state_dict() == state
    assert same(list(loader), rest)


@stateful
def test_the_samplers_of_a_loader_with_its_own_state_are_in_the_epoch_that_is_resumed() -> None:
    def made() -> MixLoader:
        data = table()
        sampler: Any = DistributedSampler(data, 2, 1, seed=5)
        return mixing(StatefulDataLoader(data, 4, sampler=sampler, num_workers=0))

    whole = epochs(made())
    first = made()
    list(first)
    running = iter(first)
    head = [next(running)]
    second = made()
    second.load_state_dict(first.state_dict())
    assert same(head + list(second), whole[1])


@stateful
def test_a_stateful_data_loader_over_keyed_batches_resumes_with_another_number_of_workers(tmp_path: Path) -> None:
    def made(workers: int) -> MixLoader:
        data = table()
        return mixing(
            StatefulDataLoader(
                data, batch_sampler=KeyedBatchSampler(data, 4, seed=3, shuffle=True), num_workers=workers
            )
        )

    whole = epochs(made(0))
    first = made(2)
    running = iter(first)
    head = [next(running) for _ in range(2)]
    second = made(0)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert same([head + list(second), list(second)], whole)


@stateful
def test_a_keyed_sampler_in_a_stateful_data_loader_alone_keeps_its_place(expected: Any) -> None:
    def made() -> StatefulDataLoader[Any]:
        data = table()
        sampler = KeyedBatchSampler(data, 4, seed=3, shuffle=True)
        return StatefulDataLoader(
            keyed(data), batch_sampler=sampler, collate_fn=MixCollator(OP, FIELDS, 7, plan_key="plan"), num_workers=2
        )

    first = made()
    running = iter(first)
    head = [next(running) for _ in range(2)]
    second = made()
    second.load_state_dict(first.state_dict())
    assert same([head + list(second), list(second)], expected)


@pytest.mark.parametrize("kind", ["list", "sequential", "distributed"])
def test_a_loader_that_repeats_its_order_resumes_by_reading_on(kind: str) -> None:
    def made() -> MixLoader:
        data = table()
        batches = DataLoader(data, 4)
        if kind == "distributed":
            batches = DataLoader(data, 4, sampler=DistributedSampler(data, 2, 1, seed=5))  # type: ignore[arg-type]
        return mixing(list(batches) if kind == "list" else batches)

    whole = epochs(made())
    assert not same(whole[0], whole[1])
    first = made()
    running = iter(first)
    head = [next(running) for _ in range(2)]
    second = made()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert same([head + list(second), list(second)], whole)


def test_a_data_loader_that_shuffles_by_itself_says_how_to_make_it_resumable() -> None:
    loader = mixing(DataLoader(table(), 4, shuffle=True))
    start = loader.state_dict()
    running = iter(loader)
    next(running)
    with pytest.raises(mx.MixError, match="KeyedBatchSampler"):
        loader.state_dict()
    with pytest.raises(mx.MixError, match="KeyedBatchSampler"):
        loader.load_state_dict({**start, "step": 2})
    assert (loader.epoch, loader.step) == (0, 1)
    assert len([*running]) == 4
    assert loader.state_dict()["epoch"] == 1  # between epochs there is nothing to find again


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 20}, "length=20"),
        ({"batches": 7}, "batches=7"),
        ({"seed": 8}, "seed=8"),
        ({"kind": "plain"}, "kind='plain'"),
        ({"version": 2}, "version 2"),
        ({"step": 9}, "different places"),
        ({"step": 9, "sampler": plain_state(1, 0) | {"epoch": 0, "step": 9}}, "step=9"),
        ({"epoch": None}, "epoch=None"),
        ({"sampler": None}, "lacks 'sampler'"),
        ({"sampler": {}}, "different places"),
        ({"sampler": {"epoch": 0, "step": 0}}, "lacks version"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_the_place_is_kept(change: Any, message: str) -> None:
    saved = mixing(plain()).state_dict()
    loader = mixing(plain())
    running = iter(loader)
    next(running)
    before = loader.state_dict()
    with pytest.raises(mx.MixError, match=message):
        loader.load_state_dict({**saved, **change})
    assert loader.state_dict() == before
    assert len(list(running)) == 4


@stateful
@pytest.mark.parametrize("make", [plain, lambda data: DataLoader(data, 4), lambda data: StatefulDataLoader(data, 4)])
def test_a_data_set_of_another_length_is_refused(make: Any) -> None:
    state = mixing(make(data=table(20))).state_dict()
    with pytest.raises(mx.MixError, match=r"length=20.* has 19"):
        mixing(make(data=table())).load_state_dict(state)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return (table()[i] for i in range(N))


def test_a_stream_mixes_and_resumes_by_reading_on() -> None:
    whole = epochs(mixing(DataLoader(Stream(), 4)))
    loader = mixing(DataLoader(Stream(), 4))
    running = iter(loader)
    head = [next(running)]
    resumed = mixing(DataLoader(Stream(), 4))
    resumed.load_state_dict(loader.state_dict())
    assert same([head + list(resumed), list(resumed)], whole)
