"""MixCollator and MixLoader: the same batches whatever runs them, and after a restart."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import resumable
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines import (
    BatchKey,
    Keyed,
    KeyedBatchSampler,
    MixCollator,
    MixLoader,
    arrays,
    keyed,
    numpy_collate,
)
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.distributed import DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

import mixops as mx

more_workers = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # than CPUs, on purpose

# torchdata 0.11 calls what torch 2.13 has deprecated.
stateful = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")

N, CLASSES = 19, 4
OP = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0, per="sample")]) | mx.Cutout(size=3)
VECTOR = mx.Field("b d")
FIELDS = {"image": mx.Field("b c h w"), "label": mx.Labels(CLASSES)}


def table(n: int = N) -> Any:
    rng = np.random.Generator(np.random.PCG64(1))
    return arrays(image=rng.integers(0, 256, (n, 3, 8, 8), np.uint8), label=np.arange(n) % CLASSES, id=np.arange(n))


def pairs(n: int = N) -> list[tuple[Any, int]]:
    data = table(n)
    return [(data[i]["image"], int(data[i]["label"])) for i in range(n)]


def worked(
    workers: int = 0, *, data: Any = None, size: int = 4, rank: int = 0, world: int = 1, seed: int = 7, **options: Any
) -> DataLoader[Any]:
    """Mixing in the workers."""
    data = table() if data is None else data
    sampler = KeyedBatchSampler(data, size, seed=3, shuffle=True, rank=rank, world_size=world)
    collate = MixCollator(OP, FIELDS, seed, plan_key="plan")
    return DataLoader(keyed(data), batch_sampler=sampler, collate_fn=collate, num_workers=workers, **options)


def plain(workers: int = 0, *, data: Any = None, size: int = 4) -> DataLoader[Any]:
    """Keyed, not mixed."""
    data = table() if data is None else data
    sampler = KeyedBatchSampler(data, size, seed=3, shuffle=True)
    return DataLoader(data, batch_sampler=sampler, num_workers=workers)


def mixing(loader: Any, **options: Any) -> MixLoader:
    """Mixing in the main process."""
    return MixLoader(loader, OP, FIELDS, 7, plan_key="plan", **options)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (torch.Tensor, np.ndarray)):
        return a.dtype == b.dtype and np.array_equal(np.asarray(a), np.asarray(b))
    return bool(a == b)


def epochs(loader: Any, count: int = 2) -> list[list[Any]]:
    return [list(loader) for _ in range(count)]


@pytest.fixture(scope="module")
def expected() -> list[list[Any]]:
    """Two epochs, mixed in one process by one thread."""
    return epochs(worked())


@more_workers
@pytest.mark.parametrize(
    ("workers", "options"),
    [
        (1, {"multiprocessing_context": "fork"}),
        (4, {"multiprocessing_context": "fork", "prefetch_factor": 3}),
        (2, {"multiprocessing_context": "fork", "persistent_workers": True}),
        (2, {"multiprocessing_context": "spawn", "persistent_workers": True}),
    ],
)
def test_batches_do_not_depend_on_the_workers(expected: Any, workers: int, options: Any) -> None:
    assert same(epochs(worked(workers, **options)), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_collator_and_the_loader_make_the_same_batches(expected: Any, workers: int) -> None:
    assert same(epochs(mixing(plain(workers))), expected)


def test_threads_make_the_same_batches(expected: Any) -> None:
    data, collate = keyed(table()), MixCollator(OP, FIELDS, 7, plan_key="plan")
    sampler = KeyedBatchSampler(data, 4, seed=3, shuffle=True)
    with ThreadPoolExecutor(4) as pool:
        for epoch in expected:
            assert same(list(pool.map(lambda batch: collate(data.__getitems__(batch)), list(sampler))), epoch)


def test_what_the_plan_says_is_what_the_batch_holds(expected: Any) -> None:
    data = table()
    for batch in expected[0]:
        ids = batch["id"].numpy()
        images, labels = data.fields["image"][ids], data.fields["label"][ids]
        assert np.array_equal(batch["image"], mx.mix(images, batch["plan"], "b c h w"))
        assert np.array_equal(batch["label"], mx.soft_targets(labels, batch["plan"], CLASSES))
    assert [len(batch["id"]) for batch in expected[0]] == [4, 4, 4, 4, 3]
    assert sorted(np.concatenate([b["id"] for b in expected[0]]).tolist()) == list(range(N))


def test_plans_differ_between_epochs_steps_ranks_and_seeds() -> None:
    def plans(**options: Any) -> list[Any]:
        return [batch["plan"] for epoch in epochs(worked(size=3, **options)) for batch in epoch]

    seen = plans(rank=0, world=2) + plans(rank=1, world=2) + plans(seed=8)
    whole = [p for p in seen if len(p) == 3]
    assert len(whole) > 10
    assert not any(a == b for i, a in enumerate(whole) for b in whole[:i])


@given(n=st.integers(1, 9), size=st.integers(1, 5), seed=st.integers(0, 2**64 - 1))
def test_any_size_of_batch_mixes(n: int, size: int, seed: int) -> None:
    data = table(n)
    loader = MixLoader(plain(data=data, size=size), OP, FIELDS, seed)
    got = list(loader)
    assert [len(b["image"]) for b in got] == [min(size, n - i) for i in range(0, n, size)]
    for batch in got:
        assert torch.allclose(batch["label"].sum(1), torch.ones(len(batch["label"])))


def test_tuple_batches_are_keyed_by_position() -> None:
    data, fields = pairs(), {0: FIELDS["image"], 1: FIELDS["label"]}
    sampler = KeyedBatchSampler(range(N), 4, seed=3, shuffle=True)
    in_workers = DataLoader(keyed(data), batch_sampler=sampler, collate_fn=MixCollator(OP, fields, 7), num_workers=2)
    in_main = MixLoader(
        DataLoader(data, batch_sampler=KeyedBatchSampler(range(N), 4, seed=3, shuffle=True)), OP, fields, 7
    )
    by_name = [[b["image"], b["label"]] for b in mixing(plain())]
    assert same(list(in_workers), by_name)
    assert same(list(in_main), by_name)


def test_a_plain_list_of_numpy_batches_needs_no_torch() -> None:
    code = (
        "import sys, numpy as np, mixops as mx\n"
        "from mixops.pipelines import KeyedBatchSampler, MixCollator, MixLoader, PerSample, arrays, keyed\n"
        "data = keyed(arrays(x=np.eye(4, dtype=np.float32), y=np.arange(4)), PerSample(lambda s: s, 1))\n"
        "op, fields = mx.Mixup(0.8), {'x': mx.Field('b d'), 'y': mx.Labels(4)}\n"
        "collate = MixCollator(op, fields, seed=7)\n"
        "one = [collate(data.__getitems__(batch)) for batch in KeyedBatchSampler(data, 2)]\n"
        "two = list(MixLoader([data.dataset[:2], data.dataset[2:]], op, fields, seed=7))\n"
        "for a, b in zip(one, two, strict=True):\n"
        "    assert np.array_equal(a['x'], b['x']) and np.allclose(a['x'], a['y'])\n"
        "assert not {'torch', 'sklearn', 'PIL', 'albumentations'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


# -- epochs, places and states ----------------------------------------------------------------------------------------


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


def test_a_bad_batch_takes_its_number_with_it_and_the_next_one_comes(expected: Any) -> None:
    good = list(DataLoader(table(), batch_sampler=KeyedBatchSampler(table(), 4, seed=3, shuffle=True)))
    batches = [good[0], {"image": good[1]["image"]}, *good[2:]]
    loader = mixing(batches)
    running = iter(loader)
    first = next(running)
    with pytest.raises(mx.MixError, match="label"):
        next(running)
    assert (loader.epoch, loader.step) == (0, 1)  # the bad batch was not delivered
    assert same([first, *running], [expected[0][0], *expected[0][2:]])
    assert loader.epoch == 1


def test_a_reader_that_fails_leaves_the_place_countable() -> None:
    class Failing:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            if index == 5:
                raise RuntimeError("cannot read 5")
            return {"image": np.full((3, 8, 8), index, np.uint8), "label": 0}

    loader = mixing(DataLoader(Failing(), batch_sampler=KeyedBatchSampler(Failing(), 2)))  # type: ignore[arg-type]
    running = iter(loader)
    next(running), next(running)
    with pytest.raises(RuntimeError, match="cannot read 5"):
        next(running)
    assert loader.state_dict()["step"] == 2
    assert next(running)["image"].float().mean() > 5
    assert loader.state_dict()["step"] == 4


def test_train_and_eval_and_until_switch_the_mixing() -> None:
    loader = MixLoader(plain(), mx.Mixup(0.8, until=1), FIELDS, 7, plan_key="plan")
    on, off = epochs(loader)
    assert not any(b["plan"].is_identity for b in on)
    assert all(b["plan"].is_identity for b in off)
    loader.set_epoch(0)
    loader.eval()
    for batch in loader:
        images = table().fields["image"][batch["id"].numpy()]
        assert np.array_equal(batch["image"], images)
        assert batch["label"].shape == (len(images), CLASSES)
    loader.set_epoch(0)
    assert same(list(loader.train()), on)


def test_a_collator_that_does_not_train_leaves_values_untouched() -> None:
    data = table()
    (batch,) = KeyedBatchSampler(data, N)
    got = MixCollator(OP, FIELDS, 7, training=False)(keyed(data).__getitems__(batch))
    assert np.array_equal(got["image"], data.fields["image"])
    assert np.array_equal(got["label"].argmax(1), data.fields["label"])


def test_a_collate_of_ones_own_is_used() -> None:
    samples = Keyed(pairs(4), BatchKey(0, 0, 0))
    fields = {0: FIELDS["image"], 1: FIELDS["label"]}
    image, label = MixCollator(OP, fields, 7, collate=numpy_collate)(samples)
    assert isinstance(image, np.ndarray)
    torch_image, torch_label = MixCollator(OP, fields, 7)(samples)
    assert np.array_equal(image, torch_image.numpy())
    assert np.array_equal(label, torch_label.numpy())


def test_labels_reach_operators_that_pair_by_class() -> None:
    loader = MixLoader(plain(size=N), mx.Mixup(pairing="other_class"), FIELDS, 7, plan_key="plan")
    (batch,) = loader
    labels = table().fields["label"][batch["id"].numpy()]
    assert (labels[batch["plan"].partner[:, 0]] != labels).all()


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 20}, "length=20"),
        ({"batches": 7}, "batches=7"),
        ({"seed": 8}, "seed=8"),
        ({"kind": "plain"}, "kind='plain'"),
        ({"version": 2}, "version 2"),
        ({"step": 9}, "step=9"),
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


def test_samples_without_a_key_are_refused_with_the_way_out() -> None:
    collate = MixCollator(OP, FIELDS, 7)
    for loader in (
        DataLoader(table(), 4, collate_fn=collate),
        DataLoader(keyed(table()), 4, collate_fn=collate),
        DataLoader(table(), batch_sampler=KeyedBatchSampler(table(), 4), collate_fn=collate),
    ):
        with pytest.raises(mx.MixError, match=r"keyed\(dataset\).*KeyedBatchSampler.*MixLoader"):
            next(iter(loader))


def generator() -> Iterator[Any]:
    yield {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mixing(3), "expected an iterable"),
        (lambda: mixing(generator()), "iterated only once"),
        (lambda: MixLoader([], "Mixup", FIELDS, 7), "op is str"),  # type: ignore[arg-type]
        (lambda: MixLoader([], OP, {}, 7), "fields is {}"),
        (lambda: MixLoader([], OP, {"x": "b d"}, 7), r"fields\['x'\] is str"),
        (lambda: MixLoader([], OP, FIELDS, -7), "seed=-7"),
        (lambda: MixCollator(OP, [], 7), "fields is"),  # type: ignore[arg-type]
        (lambda: next(iter(MixLoader([(1, 2)], OP, FIELDS, 7))), "'image' is not in the batch"),
        (lambda: next(iter(MixLoader([[np.eye(2)]], mx.Mixup(), {0: VECTOR}, 7, plan_key="p"))), "dict batches"),
        (lambda: next(iter(MixLoader([{"p": np.eye(2)}], mx.Mixup(), {"p": VECTOR}, 7, plan_key="p"))), "already"),
        (lambda: mixing([]).set_epoch(-1), "epoch=-1"),
        (lambda: numpy_collate([]), "no sample"),
        (lambda: numpy_collate([np.zeros(2), np.zeros(3)]), r"\(2,\), \(3,\)"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(make: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        make()


def test_numpy_collate_keeps_the_structure_of_the_samples() -> None:
    got = numpy_collate([{"a": (np.zeros(2), 1), "b": "x"}, {"a": (np.ones(2), 2), "b": "y"}])
    assert got["a"][0].tolist() == [[0, 0], [1, 1]]
    assert got["a"][1].tolist() == [1, 2]
    assert got["b"] == ["x", "y"]


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
