"""What is said of streams that cannot be read, and that a pass goes on after it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import streamed
import webdataset as wds
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from mixops.pipelines.streaming import StreamLoader, huggingface_shards
from streamed import KINDS, ids, plain

import mixops as mx


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return streamed.write(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """The tar files; in the second the picture of sample 30 is cut off."""
    for path in folder.glob("*.tar"):
        shutil.copy(path, tmp_path)
    with wds.TarWriter(str(tmp_path / "digits-1.tar")) as writer:
        for row in streamed.rows()[1]:
            image = row["image"][:40] if row["id"] == 30 else row["image"]
            writer.write({"__key__": f"{row['id']:04d}", "png": image, "cls": row["label"], "id": row["id"]})
    return tmp_path


def gone_through(loader: Any) -> tuple[list[Any], list[str]]:
    batches, errors, running = [], [], iter(loader)
    while True:
        try:
            batches.append(next(running))
        except StopIteration:
            return batches, errors
        except mx.MixError as err:
            errors.append(str(err))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_member_is_named_and_the_pass_goes_on_without_it(workers: int, broken: Path) -> None:
    batches, errors = gone_through(streamed.mixed(streamed.shards(broken, "tar"), workers))
    assert len(errors) == 1
    assert "digits-1.tar, sample 7: 0030.png cannot be decoded" in errors[0]
    assert sorted(ids(batches)) == [i for i in range(streamed.N) if i != 30]


def test_a_broken_member_can_be_left_out_with_a_warning(broken: Path) -> None:
    loader = streamed.mixed(streamed.shards(broken, "tar"), on_bad="warn")
    with pytest.warns(UserWarning, match=r"left out: digits-1.tar, sample 7: 0030.png"):
        batches = list(loader)
    assert sorted(ids(batches)) == [i for i in range(streamed.N) if i != 30]


class Torn:
    """Samples of a shard that fails behind them."""

    def __init__(self, samples: list[int]) -> None:
        self.samples = samples

    def __iter__(self) -> Any:
        yield from self.samples
        raise OSError("torn")


def no_seven(sample: int, epoch: int, index: int, place: int) -> int:
    if sample % 7 == 0:
        raise ValueError(f"{sample} of all numbers")
    return sample


def unlucky(samples: Any) -> list[int]:
    if 5 in samples:
        raise KeyError("five")
    return list(samples)


def told(running: Any, most: int = 1000) -> list[Any]:
    """What is handed out: batches, and what is said of those that fail."""
    got: list[Any] = []
    while len(got) < most:
        try:
            got.append(next(running))
        except StopIteration:
            break
        except mx.MixError as err:
            got.append(str(err))
    return got


@settings(max_examples=150)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    torn=st.sets(st.integers(0, 5)),
    lanes=st.integers(1, 3),
    shuffle=st.integers(0, 7),
    size=st.integers(1, 4),
    cuts=st.lists(st.integers(0, 9), min_size=1, max_size=3),
)
def test_a_resume_behind_errors_brings_the_batches_and_errors_that_are_left(
    sizes: list[int], torn: set[int], lanes: int, shuffle: int, size: int, cuts: list[int]
) -> None:
    numbers = iter(range(100))
    lists = [[next(numbers) for _ in range(n)] for n in sizes]
    shards = [Torn(one) if i in torn else one for i, one in enumerate(lists)]

    def made() -> StreamLoader:
        most = min(lanes, len(sizes))
        return StreamLoader(shards, size, seed=3, shuffle=shuffle, lanes=most, stage=no_seven, collate=unlucky)

    whole = told(iter(made()))
    loader, got = made(), []
    for cut in cuts:
        running = iter(loader)
        got += told(running, cut)
        state = json.loads(json.dumps(loader.state_dict()))
        if state["epoch"]:
            break
        loader = made()
        loader.load_state_dict(state)
        assert loader.step == sum(isinstance(one, list) for one in got)
    assert (got if state["epoch"] else got + told(iter(loader))) == whole


def test_a_batch_that_cannot_be_collated_is_told_in_words() -> None:
    loader = StreamLoader([[1, 2, 5, 6, 8]], 2, seed=0, collate=unlucky)
    assert told(iter(loader)) == [[1, 2], "a batch of 2 samples cannot be collated: KeyError: 'five'", [8]]


def test_a_tar_file_that_is_cut_off_is_named_and_the_others_are_read(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.tar"):
        shutil.copy(path, tmp_path)
    cut = tmp_path / "digits-2.tar"
    cut.write_bytes(cut.read_bytes()[: 512 * 31 + 100])
    batches, errors = gone_through(streamed.loader(streamed.shards(tmp_path, "tar")))
    assert len(errors) == 1
    assert "digits-2.tar cannot be read after sample '00" in errors[0]
    assert "the rest of this shard is left out" in errors[0]
    came = set(ids(batches))
    assert {*range(42), *range(72, 100)} <= came
    assert 42 in came
    assert len(came) < streamed.N


@pytest.mark.parametrize("harm", ["garbled", "cut"])
def test_a_tar_file_that_seems_to_end_early_is_named(harm: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with wds.TarWriter(str(path)) as writer:
        for i in range(20):
            writer.write({"__key__": f"{i:02d}", "cls": i})
    whole = path.read_bytes()  # a sample takes 2048 bytes
    path.write_bytes(whole[:10240] + b"\xff" * 512 + whole[10752:] if harm == "garbled" else whole[:10240])
    batches, errors = gone_through(StreamLoader(streamed.tar_shards([str(path)], {"cls": "id"}), 4, seed=0))
    assert ids(batches) == list(range(4))  # whether sample 4 is whole nobody knows
    assert len(errors) == 1
    assert "a.tar cannot be read after sample '03': ReadError" in errors[0]


def test_a_pickle_in_a_tar_file_is_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "a.tar", tmp_path / "ran"
    harm = f"cposix\nsystem\n(S'touch {trace}'\ntR.".encode()
    with wds.TarWriter(str(path)) as writer:
        writer.write({"__key__": "0", "pyd": harm, "cls": 1})
    for columns in ({"pyd": "x"}, {"cls": "y"}):
        loader = StreamLoader(streamed.tar_shards([str(path)], columns), 1, seed=0)
        if "pyd" in columns:
            with pytest.raises(mx.MixError, match=r"a.tar, sample 0: 0.pyd .*to read a pickle is to run it"):
                next(iter(loader))
        else:
            assert next(iter(loader))["y"].tolist() == [1]
    assert not trace.exists()


def test_what_is_no_stream_is_refused(folder: Path) -> None:
    data = Dataset.from_dict({"x": [1, 2]})
    stream = data.to_iterable_dataset(num_shards=2)
    for given_, match in (
        (data, "expected an IterableDataset: pass it with keyed"),
        ({"train": stream}, r"choose a split: dataset\['train'\]"),
    ):
        with pytest.raises(mx.MixTypeError, match=match):
            huggingface_shards(given_, ["x"])
    with pytest.raises(mx.MixError, match="no column 'z', the data set has"):
        huggingface_shards(stream, ["z"])
    for shuffled in (stream.shuffle(seed=1, buffer_size=2), stream.shuffle(seed=1, buffer_size=2).map(dict)):
        with pytest.raises(mx.MixError, match="shuffled by itself"):
            huggingface_shards(shuffled, ["x"])
    from datasets.distributed import split_dataset_by_node

    with pytest.raises(mx.MixError, match="split by node"):
        huggingface_shards(split_dataset_by_node(stream, 0, 2), ["x"])
    tables = huggingface_shards(stream.with_format("arrow"), ["x"])
    with pytest.raises(mx.MixError, match=r"shard 0 of 2: rows come as Table: give the data set .with_format"):
        next(iter(StreamLoader(tables, 1, seed=0)))
    with pytest.raises(mx.MixError, match=r"'0000' has \['cls', 'id', 'png'\], expected 'jpg'"):
        next(iter(StreamLoader(streamed.tar_shards(str(folder / "digits-0.tar"), ["jpg"]), 1, seed=0)))
    with pytest.raises(mx.MixError, match=r"nothing\.tar cannot be read at its start"):
        next(iter(StreamLoader(streamed.tar_shards(str(folder / "nothing.tar"), ["jpg"]), 1, seed=0)))
    for urls, got in (([], "no url"), (["a.tar", "a.tar"], "a.tar twice")):
        with pytest.raises(mx.MixError, match=got):
            streamed.tar_shards(urls, ["jpg"])


@pytest.mark.parametrize(
    ("shards", "options", "match"),
    [
        (
            [[1]],
            {"num_workers": 2},
            "num_workers=2, but 1 lanes can be read side by side: take fewer workers, or write",
        ),
        ([[1]] * 8, {"num_workers": 6}, "or up to 8 with lanes=8"),
        ([[1]] * 3, {"rank": 0, "world_size": 4}, "3 shards for 4 ranks"),
        ([[1]] * 3, {"lanes": 4}, "lanes=4, but a rank has 3 shards"),
        ([[1]], {"lanes": 0}, "lanes=0"),
        ([], {}, "no shards"),
        ([iter([1])], {}, "starts anew each time"),
        ("abc", {}, "expected a list of shards"),
        ([[1]], {"batch_size": 0}, "batch_size=0"),
        ([[1]], {"seed": -1}, "seed=-1"),
        ([[1]], {"on_bad": "skip"}, "on_bad='skip'"),
        ([[1]], {"rank": 0}, "expected both or neither"),
        ([[1]], {"collate": 3}, "collate is int"),
        ([[1]], {"stage": 3}, "stage 3 is no callable"),
        ([[1]], {"shuffle": True}, "shuffle=True, expected how many samples"),
        ([[1]], {"colate": list}, "got colate=, expected arguments of its own, or of a DataLoader prefetch_factor"),
        ([[1]], {"in_order": False}, "got in_order="),
    ],
)
def test_arguments_that_do_not_fit_are_refused(shards: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(mx.MixError, match=match):
        StreamLoader(shards, **({"batch_size": 1, "seed": 0} | options))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s.pop("places"), "lacks places"),
        (lambda s: s.update(version=9), "version 9"),
        (lambda s: s.update(seed=1), "seed=1"),
        (lambda s: s.update(source="x"), "resume with the shards that were saved"),
        (lambda s: s.update(shuffle=3), "shuffle=3"),
        (lambda s: s.update(turn=2), "not those of 2 lanes"),
        (lambda s: s["places"].pop(), "not those of 2 lanes"),
        (lambda s: s["places"][0].pop("skip"), "expected a dict of at, batches, read, shard, skip, told"),
        (lambda s: s["places"][0].update(read=-1), "state read=-1"),
        (lambda s: s["places"][0].update(shard=3), "shard=3, but its lane has 1 shards"),
        (lambda s: s.update(step=99), "edited"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_the_loader_stays_where_it_was(change: Any, match: str) -> None:
    loader = StreamLoader([[1, 2, 3], [4, 5, 6]], 1, seed=0, collate=plain)
    running = iter(loader)
    state = loader.state_dict()
    change(state)
    head = [next(running)]
    with pytest.raises(mx.MixError, match=match):
        loader.load_state_dict(state)
    assert head + list(running) == [[1], [4], [2], [5], [3], [6]]


def test_a_state_of_another_source_is_refused(folder: Path) -> None:
    tars, rows = (streamed.loader(streamed.shards(folder, kind)) for kind in KINDS)
    with pytest.raises(mx.MixError, match="resume with the shards that were saved"):
        rows.load_state_dict(tars.state_dict())
    with pytest.raises(mx.MixTypeError, match="state is list"):
        rows.load_state_dict([])
    broken = rows.state_dict()
    broken["places"][0]["at"] = {"state": {"epoch": 0}, "skip": 0}
    rows.load_state_dict(broken)
    with pytest.raises(mx.MixError, match=r"shard \d of 5: KeyError"):
        next(iter(rows))


@pytest.mark.parametrize("package", ["webdataset", "datasets", "torch"])
def test_a_package_that_is_not_installed_is_named_with_its_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    calls = {
        "webdataset": lambda: streamed.tar_shards("a.tar", ["jpg"]),
        "datasets": lambda: huggingface_shards([], ["x"]),
        "torch": lambda: StreamLoader([[1], [2]], 1, seed=0, num_workers=2),
    }
    with pytest.raises(mx.MixTypeError, match=rf'needs {package}, which is not installed: .*"mixops\[streams\]"'):
        calls[package]()
