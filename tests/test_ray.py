"""Corpora on Ray: the rows and files of one process, for any workers, any blocks, and after a worker was killed."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import benching  # noqa: F401
import numpy as np
import pyarrow as pa
import pytest
from mixed_corpora import BOTH, IMAGES, TEXT, files_of, image_file, image_table, mixed, plain, rows_of, text_table
from mixops.pipelines.cli import main
from mixops.pipelines.corpus import Generation, NGramModel, people_and_places
from mixops.pipelines.corpus.columns import column_of
from mixops.pipelines.corpus.grouped import GroupMixer
from mixops.pipelines.corpus.mixing import RECORD, mix_corpus

import mixops as mx

# After benching, which puts the folder of benchmarks on the path.
import ray_rows  # isort: skip

# What Ray warns of is Ray's own use of things; warnings of mixops are errors here as everywhere.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One Ray of two CPUs for all of this file."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        import ray.data

        ray.data.DataContext.get_current().enable_progress_bars = False
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a file of tests
        yield ray
        ray.shutdown()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return image_file(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_ray_writes_the_very_files(workers: int, ray: Any, images: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    there = mixed(
        images, tmp_path / "ray", engine="ray", workers=workers, progress=lambda done, all_: steps.append((done, all_))
    )
    here = mixed(images, tmp_path / "local")
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "local")
    assert there.shards == here.shards
    assert steps[0] == (0, 600)
    assert steps[-1] == (600, 600)
    assert len(steps) == 11


def test_an_error_of_the_caller_ends_the_work_on_ray(ray: Any, images: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(written: int, wanted: int) -> None:
        if written:
            raise Stopped

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = True
    try:
        with pytest.raises(Stopped) as held:
            mixed(images, tmp_path / "ray", engine="ray", workers=1, progress=stop)
        assert context.enable_progress_bars, f"what was changed for the run is as before while {held} is looked at"
    finally:
        context.enable_progress_bars = False
    assert mixed(images, tmp_path / "ray").rows == 600


def test_the_benchmark_runs_and_tells_every_corpus(ray: Any, tmp_path: Path) -> None:
    out = tmp_path / "ray_rows.json"
    assert ray_rows.main(["--tiny", "--out", str(out)]) == 0
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["command"] == "python benches/ray_rows.py --rounds 1 --rows 2000 --tiny"
    assert [row["rows"] for row in written["rows"]] == [250, 2000]
    for row in written["rows"]:
        assert min(row["plain"], row["one"], row["all"]) > 0
        assert row["met"] is (min(row["one"], row["all"]) >= ray_rows.AIM * row["plain"])
        assert f"| {row['name']} |" in out.with_suffix(".md").read_text(encoding="utf-8")


def test_the_benchmark_refuses_engines_that_write_other_files(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_rows, "timed", lambda workers, *given: (1.0, str(workers)))
    monkeypatch.setattr(ray_rows, "timed_side_by_side", lambda *given: (1.0, {"0"}))
    assert ray_rows.main(["--tiny", "--out", str(tmp_path / "none.json")]) == 1
    assert "the engines wrote different files" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def killed_once(flag: Path, scores: Callable[[dict[str, list[Any]]], Any]) -> Callable[[dict[str, list[Any]]], Any]:
    """Saliency; the first process that asks for one, once some shards are there, is killed."""

    def saliency(columns: dict[str, list[Any]]) -> Any:
        if len(columns["tokens"]) > 1 and not flag.exists():
            flag.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return scores(columns)

    return saliency


def lengths_of_words(columns: dict[str, list[Any]]) -> Any:
    return [[float(len(word) * 7 % 5 + at) for at, word in enumerate(row)] for row in columns["tokens"]]


def test_a_worker_that_is_killed_changes_nothing(ray: Any, tmp_path: Path) -> None:
    table = text_table().drop_columns(["saliency"])
    settings: dict[str, Any] = {"seed": 5, "group": 16, "shard": 32}
    flag = tmp_path / "killed"
    killing = killed_once(flag, lengths_of_words)
    mix_corpus(table, mx.SSMix(0.2), TEXT, tmp_path / "ray", saliency=killing, engine="ray", **settings)
    assert int(flag.read_text()) != os.getpid()
    mix_corpus(table, mx.SSMix(0.2), TEXT, tmp_path / "local", saliency=lengths_of_words, **settings)
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "local")
    assert all(path.name.startswith(("part-", RECORD)) for path in (tmp_path / "ray").iterdir())


def test_a_ray_dataset_gives_the_rows_of_the_files(ray: Any, tmp_path: Path) -> None:
    mixed(image_table(), tmp_path / "local", copies=1)
    held = image_table(300)
    values = column_of(held, "image", 0).values
    label = np.arange(300) % 10

    def rows(batch: dict[str, np.ndarray]) -> dict[str, Any]:
        at = batch["id"]
        return {"row": at, "image": values[at], "label": label[at], "name": [f"r{i}" for i in at]}

    from mixops.pipelines.ray_ import mix_dataset

    mixer = GroupMixer(BOTH, IMAGES, seed=7, group=32)
    shuffled = ray.data.range(300, override_num_blocks=7).map_batches(rows, batch_size=None)
    found = []
    for batch in mix_dataset(shuffled, mixer, partitions=3).iter_batches(batch_size=None, batch_format="pyarrow"):
        found += [str(row) for row in plain(batch)]
    assert sorted(found) == rows_of(tmp_path / "local")
    named = ray.data.from_items([{"row": 0, "mix_group": 1}])
    for wrong, said in (
        ([1], "expected a ray.data.Dataset"),
        (ray.data.range(3), "no column 'row' of row ids"),
        (named, "the rows have a column 'mix_group'"),
    ):
        with pytest.raises(mx.MixError, match=said):
            mix_dataset(wrong, mixer)
    mixer = GroupMixer(mx.Mixup(), {"x": mx.Field("b d")})
    twice = ray.data.from_items([{"row": 1, "x": [0.0, 1.0]}] * 2)
    with pytest.raises(ray.exceptions.RayError, match="the id 1 in 'row' comes twice"):
        mix_dataset(twice, mixer, partitions=2).take_all()


def test_blocks_of_another_schema_are_named(ray: Any) -> None:
    from mixops.pipelines.ray_ import mix_dataset

    mixer = GroupMixer(mx.Mixup(), {"x": mx.Field("b d")})
    known = ray.data.from_arrow([pa.table({"row": [0], "x": [[0.0]]}), pa.table({"row": [1], "x": [["a"]]})])
    with pytest.raises(mx.MixError, match=r"blocks of another schema: .*Field x has incompatible types"):
        mix_dataset(known, mixer)

    def made(batch: dict[str, np.ndarray]) -> pa.Table:
        return pa.table({"row": batch["id"], "x": [["a"] if i else [0.0] for i in batch["id"]]})

    found = ray.data.range(2, override_num_blocks=2).map_batches(made, batch_size=None)
    with pytest.raises(ray.exceptions.RayError, match=r"column 'x' is list<.*>, expected list<.*of one schema"):
        mix_dataset(found, mixer, partitions=2).take_all()


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_what_is_wrong_with_a_row_comes_back_as_it_is(engine: str, tmp_path: Path, request: Any) -> None:
    if engine == "ray":
        request.getfixturevalue("ray")
    good = text_table(64)
    bad = pa.concat_tables([good.slice(0, 40), good.slice(40, 1).set_column(2, "label", pa.array([None], pa.int64()))])
    with pytest.raises(mx.MixValueError, match=r"^row 40: 'label' is missing: fill it in"):
        mix_corpus(bad, mx.SSMix(), TEXT, tmp_path / "out", group=8, shard=16, engine=engine)
    assert {path.name for path in (tmp_path / "out").glob("*")} >= {RECORD}
    assert not list((tmp_path / "out").glob("part-000002*"))


def test_a_worker_that_cannot_write_is_heard(ray: Any, tmp_path: Path) -> None:
    def saliency(columns: dict[str, list[Any]]) -> Any:  # the folder goes while the first shard is being made
        if len(columns["tokens"]) > 1:
            (tmp_path / "out").rename(tmp_path / "gone")
        return [[0.0] * len(row) for row in columns["tokens"]]

    table = text_table(16).drop_columns(["saliency"])
    with pytest.raises(FileNotFoundError, match=r"part-000000\.parquet"):
        mix_corpus(table, mx.SSMix(), TEXT, tmp_path / "out", group=16, saliency=saliency, engine="ray")
    assert {path.name for path in (tmp_path / "gone").iterdir()} == {RECORD}


@pytest.mark.parametrize("scored", [False, True])
def test_seqmix_on_ray_gives_the_blocks_of_one_process(scored: bool, ray: Any, tmp_path: Path) -> None:
    from mixops.pipelines.ray_ import judge_on_ray

    corpus = people_and_places()
    words = sorted({token for sentence in corpus for token in sentence.tokens})
    vectors = np.random.default_rng(0).normal(size=(len(words), 5))
    model, flag = NGramModel.of(corpus), tmp_path / "killed"

    def score(sentences: list[list[str]]) -> Any:
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return model(sentences)

    settings: dict[str, Any] = {"embedding": (words, vectors), "ratio": 3.0, "seed": 2, "block": 16}
    op = mx.SeqMix("sub", 4, 2)
    here = Generation(corpus, op, score=model if scored else None, accept=(0, 60), **settings)
    there = Generation(corpus, op, score=score if scored else None, accept=(0, 60), **settings)
    wanted, found = (
        [(b.number, [(s.tokens, s.tags, s.score) for s in b.sentences], b.counts) for b in blocks]
        for blocks in (here.blocks(), there.blocks(judge=judge_on_ray))
    )
    assert found == wanted
    assert len(found) > 2
    assert flag.exists() == scored


def test_the_commands_give_the_same_files_from_both_engines(
    ray: Any, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mix = [
        "corpus",
        "mix",
        "CutMix(1.0, per='sample')",
        str(images),
        "--group",
        "32",
        "--shard",
        "64",
        "--classes",
        "10",
    ]
    seqmix = [
        "corpus",
        "seqmix",
        str(Path(mx.__file__).parent.parent / "pipelines/corpus/people.conll"),
        "--ratio",
        "1",
    ]
    words = sorted({token for sentence in people_and_places() for token in sentence.tokens})
    np.savez(tmp_path / "v.npz", words=np.array(words), vectors=np.random.default_rng(0).normal(size=(len(words), 5)))
    seqmix += ["--min-tags", "2", "--embedding", str(tmp_path / "v.npz"), "--score", "ngram"]
    for engine in ("local", "ray"):
        assert main([*mix, "-o", str(tmp_path / engine), "--engine", engine]) == 0
        assert f"300 rows in 5 shards: {tmp_path / engine}" in capsys.readouterr().out
        assert main([*seqmix, "-o", str(tmp_path / f"{engine}.jsonl"), "--engine", engine]) == 0
    assert files_of(tmp_path / "local") == files_of(tmp_path / "ray")
    assert (tmp_path / "local.jsonl").read_bytes() == (tmp_path / "ray.jsonl").read_bytes()
    assert main([*mix, "-o", str(tmp_path / "local")]) == 0
    assert "is already complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--workers", "2"], "--address and --workers are for --engine ray"),
        (["--field", "image"], "expected COLUMN=LAYOUT"),
        (["--field", "picture=b h w c"], "no column 'picture'"),
        (["--field", "image=b h w c:discrete"], "cannot be averaged"),
        (["--classes", "3"], "label"),
        (["--engine", "ray", "--address", "auto"], "Ray is connected already: leave address out"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    ray: Any, more: list[str], said: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["corpus", "mix", "Mixup(0.8)", str(images), "-o", str(tmp_path / "out"), *more]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
