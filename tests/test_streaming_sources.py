"""Streams as sources: the same batches for any number of workers and after a restart, nothing lost, nothing twice."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamed
import webdataset as wds
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import more_workers, same, stateful
from mixops.pipelines import MixLoader, PerSample
from mixops.pipelines.ranks import about
from mixops.pipelines.stream_lanes import Pass, Turns
from mixops.pipelines.streaming import StreamLoader, huggingface_shards
from streamed import KINDS, ids, plain
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import mixops as mx


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return streamed.write(tmp_path_factory.mktemp("shards"))


def through_json(state: Any) -> Any:
    return json.loads(json.dumps(state))


# -- order ---------------------------------------------------------------------------------------------------------


@more_workers
@pytest.mark.parametrize("kind", KINDS)
def test_every_sample_comes_once_and_the_batches_are_the_same_for_any_number_of_workers(
    kind: str, folder: Path
) -> None:
    source = streamed.shards(folder, kind)
    expected = None
    for workers in (0, 1, 2, 4):
        loader = streamed.mixed(source, workers)
        got = [list(loader) for _ in range(2)]
        expected = expected or got
        assert same(got, expected), workers
    assert expected
    first, second = map(ids, expected)
    assert sorted(first) == sorted(second) == list(range(streamed.N))
    assert first != second
    assert sum(len(batch["id"]) < 8 for batch in expected[0]) <= 4  # of each lane the last


def test_mixing_in_the_main_process_is_keyed_by_the_step_as_always(folder: Path) -> None:
    source = streamed.shards(folder, "tar")
    whole = list(streamed.mixing(source))
    plain = list(streamed.loader(source))
    assert same(whole, list(MixLoader(plain, streamed.OP, streamed.FIELDS, seed=7)))
    assert same([b["id"] for b in whole], [b["id"] for b in streamed.mixed(source)])


def test_tar_and_parquet_hold_the_digits(folder: Path) -> None:
    images, labels = streamed.digits()
    for kind in KINDS:
        for batch in streamed.loader(streamed.shards(folder, kind), shuffle=0, stage=None):
            at = np.asarray(batch["id"])
            assert np.array_equal(np.asarray(batch["image"]).reshape(-1, 8, 8), images[at, 0])
            assert np.array_equal(batch["label"], labels[at])


@st.composite
def jobs(draw: st.DrawFn) -> tuple[list[list[int]], dict[str, Any]]:
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=8))
    numbers = iter(range(100))
    options = {
        "lanes": draw(st.integers(1, len(sizes))),
        "shuffle": draw(st.integers(0, 7)),
        "drop_last": draw(st.booleans()),
    }
    return [[next(numbers) for _ in range(size)] for size in sizes], options


@settings(max_examples=150)
@given(jobs(), st.integers(1, 4), st.data())
def test_a_stream_goes_on_where_it_was_saved_and_loses_and_repeats_nothing(
    job: tuple[list[list[int]], dict[str, Any]], size: int, data: st.DataObject
) -> None:
    shards, options = job
    options |= {"seed": 3, "collate": plain}
    whole = list(StreamLoader(shards, size, **options))
    came = sorted(chain.from_iterable(whole))
    assert len(set(came)) == len(came)
    assert set(came) == set(chain.from_iterable(shards)) or options["drop_last"]
    assert all(len(batch) == size for batch in whole) or not options["drop_last"]

    loader = StreamLoader(shards, size, **options)
    cut = data.draw(st.integers(0, len(whole)))
    running = iter(loader)
    head = [next(running) for _ in range(cut)]
    assert loader.step == cut
    resumed = StreamLoader(shards, size, **options)
    resumed.load_state_dict(through_json(loader.state_dict()))
    assert head + list(resumed) == whole
    assert resumed.epoch == 1
    assert list(resumed) == list(chain(running, loader))[len(whole) - cut :]


@given(jobs(), st.integers(1, 3), st.integers(1, 6), st.data())
def test_workers_that_take_turns_hand_out_the_order_of_one(
    job: tuple[list[list[int]], dict[str, Any]], size: int, workers: int, data: st.DataObject
) -> None:
    shards, options = job
    loader = StreamLoader(shards, size, seed=3, collate=plain, **options)
    running = iter(loader)
    for _ in range(data.draw(st.integers(0, 4))):
        next(running, None)
    made = loader._job(loader.epoch)

    def handed_out(job: Pass, workers: int) -> list[Any]:
        active, got = [Turns(job, worker, workers) for worker in range(workers)], []
        while active:  # as a DataLoader asks its workers
            for one in list(active):
                try:
                    got.append(next(one))
                except StopIteration:
                    active.remove(one)
        return [(d.lane, d.batch, d.place) for d in got if d.lane >= 0]

    assert handed_out(made, workers) == handed_out(made, 1)


# -- resuming ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("cut", "before", "after"), [(0, 0, 0), (3, 2, 0), (7, 0, 2), (14, 0, 0)])
def test_a_run_goes_on_with_another_number_of_workers(
    kind: str, cut: int, before: int, after: int, folder: Path
) -> None:
    source = streamed.shards(folder, kind)
    whole = streamed.mixing(source)
    expected = [list(whole) for _ in range(2)]
    first = streamed.mixing(source, before)
    running = iter(first)
    head = [next(running) for _ in range(cut)]
    second = streamed.mixing(streamed.shards(folder, kind), after)
    second.load_state_dict(through_json(first.state_dict()))
    assert same([head + list(second), list(second)], expected)


def test_a_run_that_is_killed_goes_on_with_the_same_batches(tmp_path: Path) -> None:
    folder, kind = streamed.write(tmp_path), "parquet"
    whole = streamed.mixing(streamed.shards(folder, kind))
    expected = [streamed.digest(batch) for _ in range(2) for batch in whole]
    command = [sys.executable, streamed.__file__, str(folder), kind, "2", "5"]
    assert subprocess.run(command, check=False).returncode == 9
    streamed.main(folder, kind, 0, 0)
    assert (folder / "batches.txt").read_text().split() == expected


def test_a_data_set_of_hugging_face_goes_on_through_its_own_state() -> None:
    seen: list[int] = []

    def noted(row: dict[str, int]) -> dict[str, int]:
        seen.append(row["x"])
        return row

    stream = Dataset.from_dict({"x": range(1000)}).to_iterable_dataset(num_shards=2).map(noted)
    loader = StreamLoader(huggingface_shards(stream, ["x"]), 10, seed=0)
    running = iter(loader)
    for _ in range(40):
        next(running)
    state = through_json(loader.state_dict())
    seen.clear()
    resumed = StreamLoader(huggingface_shards(stream, ["x"]), 10, seed=0)
    resumed.load_state_dict(state)
    rest = [int(x) for batch in resumed for x in batch["x"]]
    assert sorted(rest) == [*range(200, 500), *range(700, 1000)]
    assert len(seen) <= 600 + 2 * 32  # of each shard the chunk that was begun is read again


def test_samples_that_are_skipped_are_not_decoded(folder: Path) -> None:
    decoded: list[int] = []

    def noted(sample: dict[str, Any]) -> dict[str, Any]:
        decoded.append(sample["id"])
        return sample

    source = streamed.shards(folder, "tar")
    loader = StreamLoader(source, 4, seed=1, stage=PerSample(noted, 0))
    running = iter(loader)
    for _ in range(6):
        next(running)
    resumed = StreamLoader(source, 4, seed=1, stage=PerSample(noted, 0))
    resumed.load_state_dict(loader.state_dict())
    decoded.clear()
    assert len(ids(resumed)) == len(decoded) == streamed.N - 24


def test_stages_draw_the_same_for_any_lanes(folder: Path) -> None:
    def table(**options: Any) -> dict[int, bytes]:
        batches = streamed.loader(streamed.shards(folder, "tar"), **options)
        return {
            int(i): np.asarray(x).tobytes()
            for batch in batches
            for i, x in zip(batch["id"], batch["image"], strict=True)
        }

    assert table(lanes=1) == table(lanes=5) == table(shuffle=0)
    assert table(stage=PerSample(streamed.with_channel, 6)) != table()


# -- ranks ---------------------------------------------------------------------------------------------------------


def test_ranks_share_the_stream_and_draw_different_plans(folder: Path) -> None:
    source = streamed.shards(folder, "tar")
    ranks = [list(streamed.mixed(source, rank=rank, world_size=2)) for rank in range(2)]
    assert sorted(ids(chain(*ranks))) == list(range(streamed.N))
    lams = [np.asarray(batches[0]["label"]).max(1).tolist() for batches in ranks]
    assert lams[0] != lams[1]


def test_ranks_that_read_one_stream_do_not_differ_by_their_rank(folder: Path) -> None:
    source = streamed.shards(folder, "tar")
    words = [about({"loader": streamed.mixing(source, rank=rank, world_size=2)}) for rank in range(2)]
    assert words[0] == words[1]
    assert words[0] != about({"loader": streamed.mixing(source, rank=1, world_size=2, seed=8)})


def test_a_state_belongs_to_a_rank(folder: Path) -> None:
    source = streamed.shards(folder, "tar")
    state = streamed.loader(source, rank=0, world_size=2).state_dict()
    with pytest.raises(mx.MixError, match=r"rank=0.* has 1: each rank saves and loads a state of its own"):
        streamed.loader(source, rank=1, world_size=2).load_state_dict(state)
    with pytest.raises(mx.MixError, match=r"ranks=2.* has 1"):
        streamed.loader(source).load_state_dict(state)


# -- what the libraries bring themselves ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_pipeline_of_webdataset_resumes_by_reading_on(workers: int, folder: Path) -> None:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]

    def made() -> MixLoader:
        data = wds.WebDataset(urls, shardshuffle=False).decode("l8").to_tuple("png", "cls").batched(8)
        fields = {0: mx.Field("b h w"), 1: mx.Labels(10)}
        return MixLoader(wds.WebLoader(data, batch_size=None, num_workers=workers), streamed.OP, fields, seed=7)

    whole, first = list(made()), made()
    running = iter(first)
    head = [next(running) for _ in range(5)]
    second = made()
    second.load_state_dict(through_json(first.state_dict()))
    assert same(head + list(second), whole)
    gc.collect()  # webdataset leaves files open
    assert sum(len(batch[0]) for batch in whole) == streamed.N


@stateful
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_over_hugging_face_resumes_through_its_own_state(workers: int) -> None:
    columns = {"x": np.random.default_rng(0).random((50, 4), np.float32), "y": np.arange(50) % 3}

    def made(workers: int) -> MixLoader:
        stream = Dataset.from_dict(columns).to_iterable_dataset(num_shards=2).with_format("torch")
        loader = StatefulDataLoader(stream, batch_size=4, num_workers=workers)
        return MixLoader(loader, mx.Mixup(0.8), {"x": mx.Field("b d"), "y": mx.Labels(3)}, seed=7)

    whole, first = list(made(workers)), made(workers)
    running = iter(first)
    head = [next(running) for _ in range(5)]
    second = made(workers)
    second.load_state_dict(first.state_dict())
    assert same(head + list(second), whole)


@stateful
def test_the_epochs_behind_a_resumed_one_of_hugging_face_are_whole_and_shuffled_anew() -> None:
    def made() -> MixLoader:
        rows = {"x": np.eye(20, dtype=np.float32), "id": range(20)}
        stream = Dataset.from_dict(rows).to_iterable_dataset(num_shards=2).with_format("torch")
        loader = StatefulDataLoader(stream.shuffle(seed=3, buffer_size=20), 4, num_workers=0)
        return MixLoader(loader, mx.Mixup(0.8), {"x": mx.Field("b d")}, seed=7)

    loader = made()
    whole = [list(loader) for _ in range(3)]
    orders = [ids(epoch) for epoch in whole]
    assert [sorted(order) for order in orders] == [list(range(20))] * 3
    assert orders[0] != orders[1]
    first = made()
    list(first)
    running = iter(first)
    next(running)
    second = made()
    second.load_state_dict(first.state_dict())
    list(second)  # without the samples that the buffer held, so Hugging Face has it
    assert same(list(second), whole[2])


def test_a_plain_dataloader_over_hugging_face_depends_on_the_number_of_workers() -> None:
    stream = Dataset.from_dict({"x": range(40)}).to_iterable_dataset(num_shards=4)
    orders = [[batch["x"].tolist() for batch in DataLoader(stream, 4, num_workers=workers)] for workers in (0, 2)]
    assert orders[0] != orders[1]  # docs/sources.md says so


def test_an_epoch_that_is_left_makes_way_for_the_next() -> None:
    loader = StreamLoader([[1, 2, 3], [4, 5, 6]], 1, seed=0, shuffle=2, collate=plain)
    epochs = [list(loader) for _ in range(3)]
    loader.set_epoch(0)
    assert [batch for _, batch in zip(range(2), loader, strict=False)] == epochs[0][:2]
    assert list(loader) == epochs[1]
    assert loader.epoch == 2
    loader.set_epoch(1)
    assert list(loader) == epochs[1]
    assert repr(loader) == "StreamLoader(<2 shards>, 1, seed=0, shuffle=2, lanes=2)"
