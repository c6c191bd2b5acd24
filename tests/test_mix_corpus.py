"""Corpora mixed in fixed groups: what a group becomes, rows by their numbers, shards that are whole or not there."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tarfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from mixed_corpora import BOTH, IMAGES, TEXT, files_of, image_file, image_table, mixed, rows_of, text_table
from mixops.pipelines.corpus.columns import column_of
from mixops.pipelines.corpus.grouped import GroupMixer
from mixops.pipelines.corpus.mixing import RECORD, mix_corpus
from mixops.pipelines.corpus.rows import open_corpus
from PIL import Image
from pyarrow import parquet

import mixops as mx
from mixops import streams


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return image_file(tmp_path)


# -- what a group becomes ---------------------------------------------------------------------------------------------


def test_a_group_is_mixed_by_the_plan_of_its_number() -> None:
    table = image_table(64)
    mixed = GroupMixer(BOTH, IMAGES, seed=7, group=64).mix(table, number=3, copy=2)
    x = column_of(table, "image", 0).values
    plan = BOTH.draw(streams.plan_stream(7, 2, 3), mx.Spec.like(x, "b h w c", epoch=2))
    assert np.array_equal(column_of(mixed, "image", 0).values, mx.mix(x, plan, "b h w c"))
    soft = mx.soft_targets(np.arange(64) % 10, plan, 10)
    assert np.array_equal(column_of(mixed, "label", 0).values, soft)
    assert mixed["mix_row"].to_pylist() == list(range(192, 256))
    assert set(mixed["mix_copy"].to_pylist()) == {2}
    for row, (parents, shares) in enumerate(
        zip(mixed["mix_parents"].to_pylist(), mixed["mix_shares"].to_pylist(), strict=True)
    ):
        assert parents[0] == row + 192
        assert np.allclose(np.bincount([(p - 192) % 10 for p in parents], shares, 10), soft[row])
    assert mixed["name"] == table["name"]


def test_spans_of_words_move_with_their_labels_and_keep_lengths() -> None:
    table = text_table()
    mixed = GroupMixer(mx.SSMix(0.3), TEXT, seed=1, group=200).mix(table)
    changed = 0
    for old, new in zip(table.to_pylist(), mixed.to_pylist(), strict=True):
        assert len(new["tokens"]) == len(old["tokens"])
        donor = table["tokens"][new["mix_parents"][-1]].as_py()
        differ = [t for t, was in zip(new["tokens"], old["tokens"], strict=True) if t != was]
        assert set(differ) <= set(donor)
        changed += bool(differ)
        assert new["label"] == old["label"]
        assert new["label_partner"] == table["label"][new["mix_parents"][-1]].as_py()
        assert new["label_lam"] == pytest.approx(new["mix_shares"][0])
    assert changed > 100


def test_a_function_may_make_the_saliency() -> None:
    table = text_table()
    scores = table["saliency"].to_pylist()
    given = GroupMixer(mx.SSMix(0.3), TEXT, group=200).mix(table)
    made = GroupMixer(mx.SSMix(0.3), TEXT, group=200, saliency=lambda columns: scores).mix(
        table.drop_columns(["saliency"])
    )
    assert made == given.drop_columns(["saliency"])


@pytest.mark.parametrize(
    ("table", "op", "said"),
    [
        ({"tokens": [["a"], None], "label": [0, 1]}, mx.SpanMix(), "row 1: 'tokens' is missing"),
        ({"tokens": ["a", "b"], "label": [0, 1]}, mx.SpanMix(), "'tokens' is string, expected numbers, lists"),
        ({"tokens": [["a"], ["b"]]}, mx.SpanMix(), "no column 'label', the rows have 'tokens'"),
        ({"tokens": [["a"], ["b"]], "label": [0, 1], "mix_row": [0, 1]}, mx.SpanMix(), "these rows are mixed already"),
        ({"tokens": [["a"], ["b"]], "label": [0, 1]}, mx.SSMix(), "needs saliency"),
        ({"tokens": [["a"], ["b"]], "label": [0, 1]}, mx.TokenDelete(count=1), "blanks or deletes tokens"),
        ({"tokens": [["a"], ["b"]], "label": [0, 1]}, mx.Mixup(0.8), "cannot be averaged"),
        (
            {"tokens": [["a"], ["b"]], "label": [0, 1], "label_lam": [1, 1]},
            mx.SpanMix(),
            "'label_lam', which mixed lab",
        ),
        (
            {"tokens": [["a"], ["b"]], "label": [0, 1], "s": pa.nulls(2, pa.string_view())},
            mx.SpanMix(),
            "'s' is string_vi",
        ),
    ],
)
def test_rows_that_cannot_be_mixed_are_named(table: dict[str, Any], op: mx.Operator, said: str) -> None:
    tokens = [["a", "b", "c"]] * 2 if isinstance(op, mx.TokenDelete) else table["tokens"]
    with pytest.raises(mx.MixError, match=said):
        GroupMixer(op, TEXT).mix(pa.table({**table, "tokens": tokens}))


def test_rows_without_a_word_stay_as_they_are() -> None:
    table = pa.table(
        {"tokens": pa.array([[], ["a", "b"], [], ["c", "d"]], pa.list_(pa.string())), "label": [0, 1, 2, 3]}
    )
    mixer = GroupMixer(mx.SpanMix(0.5, pairing="roll"), TEXT)
    assert mixer.mix(table.slice(0, 1))["tokens"].to_pylist() == [[]]
    assert [len(row) for row in mixer.mix(table)["tokens"].to_pylist()] == [0, 2, 0, 2]


def test_a_number_that_is_missing_in_a_tensor_is_named() -> None:
    kind = pa.fixed_shape_tensor(pa.float32(), (2, 1))
    for last in (None, 4.0):
        held = pa.array([[1.0, 2.0], [3.0, last]], pa.list_(pa.float32(), 2))
        table = pa.table({"x": pa.ExtensionArray.from_storage(kind, held)})
        mixer = GroupMixer(mx.Mixup(0.8), {"x": mx.Field("b h w")})
        if last is None:
            with pytest.raises(
                mx.MixError, match="row 0, 'x': a number in the lists of this column or a later row is mis"
            ):
                mixer.mix(table)
        else:
            assert column_of(mixer.mix(table), "x", 0).values.shape == (2, 2, 1)


def test_names_that_come_twice_are_refused() -> None:
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2]), pa.array([3])], names=["x", "id", "id"])
    with pytest.raises(mx.MixError, match="2 columns 'id', expected each name once"):
        GroupMixer(mx.Mixup(), {"x": mx.Field("b")}).mix(table)


def test_lists_of_other_lengths_are_no_vectors() -> None:
    table = pa.table({"x": [[1.0, 2.0], [3.0]]})
    with pytest.raises(mx.MixError, match=r"row 6: 1 values in 'x' and 2 in row 5"):
        GroupMixer(mx.Mixup(), {"x": mx.Field("b d")}, group=5).mix(table, number=1)


# -- rows by their numbers --------------------------------------------------------------------------------------------


def sources(folder: Path) -> dict[str, Any]:
    """The same 300 rows in files of different kinds."""
    table = image_table().drop_columns(["image"])
    parquet.write_table(table.slice(0, 120), folder / "a.parquet", row_group_size=37)
    parquet.write_table(table.slice(120), folder / "b.parquet", row_group_size=1000)
    lines = [f'{{"label": {r["label"]}, "name": "{r["name"]}"}}\n' for r in table.to_pylist()]
    (folder / "a.jsonl").write_text("".join(lines[:50]))
    (folder / "b.jsonl").write_text("".join(lines[50:])[:-1])
    return {
        "parquet": [folder / "a.parquet", folder / "b.parquet"],
        "json": [folder / "a.jsonl", folder / "b.jsonl"],
        "table": table,
    }


@pytest.mark.parametrize("kind", ["parquet", "json", "table"])
def test_any_range_of_rows_is_read_by_itself(kind: str, tmp_path: Path) -> None:
    rows = open_corpus(sources(tmp_path)[kind])
    whole = image_table().drop_columns(["image"])
    assert len(rows) == 300
    for start, stop in ((0, 300), (0, 1), (36, 38), (119, 121), (49, 51), (120, 300), (299, 300)):
        groups = list(rows.groups(start, stop, 7))
        assert [len(group) for group in groups[:-1]] == [7] * (len(groups) - 1)
        assert pa.concat_tables(groups).to_pylist() == whole.slice(start, stop - start).to_pylist()


def test_lines_beyond_those_that_are_remembered_are_found(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text("".join(f'{{"x": {i}}}\n' for i in range(5000)))
    rows = open_corpus(path)
    for start in (0, 1023, 1024, 1025, 2047, 4998):
        got = pa.concat_tables(rows.pieces(start, min(start + 1500, 5000)))["x"].to_pylist()
        assert got == list(range(start, min(start + 1500, 5000)))


def test_texts_of_json_stay_texts_and_empty_files_have_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.jsonl").write_text('{"day": "2020-01-01", "days": ["2020-01-02"], "more": {"day": "2020-01-03"}}\n')
    (tmp_path / "c.jsonl").write_text('{"day": "no day", "days": [], "more": {"day": null}}\n')
    rows = open_corpus([tmp_path / f"{name}.jsonl" for name in "abc"])
    assert pa.concat_tables(rows.pieces(0, len(rows))).to_pylist() == [
        {"day": "2020-01-01", "days": ["2020-01-02"], "more": {"day": "2020-01-03"}},
        {"day": "no day", "days": [], "more": {"day": None}},
    ]


def test_a_folder_without_rows_is_named(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "deeper" / "a.parquet")
    with pytest.raises(
        mx.MixError, match=r"no readable image .*nor are there \.parquet or \.jsonl files in the folder"
    ):
        open_corpus(tmp_path)


def test_another_content_has_another_digest(tmp_path: Path) -> None:
    found = {kind: open_corpus(source).digest for kind, source in sources(tmp_path).items()}
    assert {kind: open_corpus(source).digest for kind, source in sources(tmp_path).items()} == found
    parquet.write_table(image_table().drop_columns(["image"]).slice(0, 119), tmp_path / "a.parquet", row_group_size=37)
    assert open_corpus([tmp_path / "a.parquet", tmp_path / "b.parquet"]).digest != found["parquet"]


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"x": ["1"]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 nothing")
    (tmp_path / "d.jsonl").write_text('{"x": 1}\n\n{"x": 2}\n')
    (tmp_path / "e.jsonl").write_text('{"x": 1}\n' * 2000 + '{"x": "one"}\n')
    (tmp_path / "f.jsonl.gz").write_bytes(b"")
    for names, said in (
        (["a.parquet", "b.parquet"], r"b\.parquet: column 'x' is string, expected int64 as in .*a\.parquet"),
        (["c.parquet"], r"c\.parquet: no Parquet file"),
        (["d.jsonl"], r"d\.jsonl, line 2: an empty line"),
        (["a.parquet", "d.jsonl"], "files of another kind"),
        (["f.jsonl.gz"], r"unpack \.gz first"),
    ):
        with pytest.raises(mx.MixError, match=said):
            open_corpus([tmp_path / name for name in names])
    with pytest.raises(mx.MixError, match=r"e\.jsonl, lines 1025 to 2001|lines 1025 to 2048|lines 1025 to"):
        list(open_corpus(tmp_path / "e.jsonl").pieces(0, 2001))


def test_images_of_a_folder_are_shuffled_once(tmp_path: Path) -> None:
    for i in range(24):
        (tmp_path / "ab"[i // 12]).mkdir(exist_ok=True)
        Image.fromarray(np.full((5, 5, 3), i * 10, np.uint8)).save(tmp_path / "ab"[i // 12] / f"{i:02d}.png")
    table = next(open_corpus(tmp_path, size=5, seed=3).groups(0, 24, 24))
    labels = table["label"].to_pylist()
    assert sorted(labels) == [0] * 12 + [1] * 12
    assert labels != sorted(labels)
    assert [int(name[:2]) // 12 for name in table["file"].to_pylist()] == labels
    assert next(open_corpus(tmp_path, size=5, seed=3).groups(0, 24, 24)).equals(table)
    assert not next(open_corpus(tmp_path, size=5, seed=4).groups(0, 24, 24)).equals(table)


# -- the same rows however they are made ------------------------------------------------------------------------------


def test_pieces_of_any_size_hold_the_same_rows(images: Path, tmp_path: Path) -> None:
    found = mixed(images, tmp_path / "a")
    assert found.rows == 600
    assert len(found.shards) == 10
    parquet.write_table(image_table(), tmp_path / "other.parquet", row_group_size=256)
    for name, source, shard in (("b", images, 1), ("c", images, 100_000), ("d", tmp_path / "other.parquet", None)):
        mixed(source, tmp_path / name, shard=shard)
        assert rows_of(tmp_path / name) == rows_of(tmp_path / "a")
    mixed(images, tmp_path / "e", group=33)
    assert rows_of(tmp_path / "e") != rows_of(tmp_path / "a")


# -- stopped, killed, full --------------------------------------------------------------------------------------------


def test_shards_of_other_schemas_are_named(tmp_path: Path) -> None:
    for i, side in enumerate((5, 5, 6)):
        Image.fromarray(np.zeros((side, 5, 3), np.uint8)).save(tmp_path / f"{i}.png")
    encoded = [(tmp_path / f"{i}.png").read_bytes() for i in range(3)]
    table = pa.table({"image": encoded})
    fields = {"image": mx.Field("b h w c")}
    with pytest.raises(mx.MixError, match=r"part-000002.* shape=\[6,5,3\].* and part-000000.* shape=\[5,5,3\]"):
        mix_corpus(table, BOTH, fields, tmp_path / "a", group=1, shard=1)
    with pytest.raises(mx.MixError, match=r"from row 2 on: image: .*\[6,5,3\].*, expected image: .*\[5,5,3\]"):
        mix_corpus(table, BOTH, fields, tmp_path / "b", group=1, shard=3)
    with pytest.raises(mx.MixError, match=r"row 2, 'image': \(6, 5, 3\), expected \(5, 5, 3\).*set size="):
        mix_corpus(table, BOTH, fields, tmp_path / "c", group=3)
    assert mix_corpus(table, BOTH, fields, tmp_path / "d", group=3, size=4).rows == 3


RUN = """
import sys, time, mixops as mx
from mixops.pipelines.corpus.mixing import mix_corpus
op = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)], per="sample")
fields = {"image": mx.Field("b h w c"), "label": mx.Labels(10)}
mix_corpus(sys.argv[1], op, fields, sys.argv[2], seed=7, group=32, shard=64, copies=2)
"""


def test_a_killed_driver_leaves_whole_shards_and_goes_on(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    slow = RUN.replace("mix_corpus(sys", "mix_corpus(progress=lambda *done: time.sleep(0.2), source=sys").replace(
        "op, fields, sys.argv[2]", "op=op, fields=fields, out=sys.argv[2]"
    )
    run = subprocess.Popen([sys.executable, "-c", slow, str(images), str(out)])
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(list(out.glob("part-*"))) < 2:
            time.sleep(0.01)
    finally:
        run.kill()
        run.wait()
    (out / ".part-000009.parquet-0123.unfinished").write_bytes(b"half a shard")
    half = {path.name: path.read_bytes() for path in out.glob("part-*.parquet")}
    assert 2 <= len(half) < 10
    mixed(images, tmp_path / "whole")
    assert half.items() <= files_of(tmp_path / "whole").items()
    done = mixed(images, out)
    assert 1 <= done.resumed <= len(half)
    assert files_of(out) == files_of(tmp_path / "whole")
    again = mixed(images, out)
    assert again.complete
    assert again.rows == 600


def test_a_full_disk_leaves_no_half_shard(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n" + RUN
    run = subprocess.run([sys.executable, "-B", "-c", full, str(images), str(out)], capture_output=True, text=True)
    assert run.returncode == 1
    assert "File too large" in run.stderr
    assert {path.name for path in out.iterdir()} == {RECORD}
    mixed(images, out)
    mixed(images, tmp_path / "whole")
    assert files_of(out) == files_of(tmp_path / "whole")


def test_a_folder_that_holds_something_else_stays_as_it_is(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mixed(images, out)
    before = files_of(out)
    with pytest.raises(mx.MixError, match="holds another run: seed was 7, is now 8: name another folder"):
        mixed(images, out, seed=8)
    assert files_of(out) == before
    (out / "mine.txt").write_text("mine")
    mixed(images, out, seed=8, force=True)
    assert (out / "mine.txt").read_text() == "mine"
    assert files_of(out)["part-000000.parquet"] != before["part-000000.parquet"]
    (out / "part-000003.parquet").write_bytes(b"")
    with pytest.raises(mx.MixError, match=r"part-000003\.parquet: not what _corpus\.json says was written"):
        mixed(images, out, seed=8)
    (out / RECORD).write_text("[]")
    with pytest.raises(mx.MixError, match="no record of a run"):
        mixed(images, out)
    (out / RECORD).unlink()
    with pytest.raises(mx.MixError, match="no run that could go on in it"):
        mixed(images, out)


def test_a_run_that_made_nothing_does_not_keep_others_out(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    few = {"image": mx.Field("b h w c"), "label": mx.Labels(4)}
    with pytest.raises(mx.MixError, match="expected 0 to 3"):
        mix_corpus(images, BOTH, few, out, group=32)
    (out / f".{RECORD}.unfinished").write_text("{")
    assert mixed(images, out).rows == 600


def test_a_run_that_was_overtaken_by_another_says_so(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def overtake(written: int, wanted: int) -> None:
        if not written:
            mixed(images, out, seed=8, force=True)

    with pytest.raises(mx.MixError, match="another run was begun in it meanwhile"):
        mixed(images, out, progress=overtake)


def test_a_cluster_that_does_not_answer_is_named_at_once(images: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", f"[::1]:{port}", "127.0.0.1:123456"):
        with pytest.raises(mx.MixError, match=re.escape(f"no Ray cluster at {address}: ")):
            mixed(images, tmp_path / "out", engine="ray", address=address)
    assert mixed(images, tmp_path / "out").rows == 600


def test_ray_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, images: Path, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(mx.MixTypeError, match=r"needs Ray Data, which is not installed: pip install 'mixops\[ray\]'"):
        mixed(images, tmp_path / "out", engine="ray")


def test_numbers_of_numpy_are_those_of_python(tmp_path: Path) -> None:
    given: dict[str, Any] = {"seed": 3, "group": 16, "copies": 2, "shard": 32, "size": 8}
    mixed(image_table(40), tmp_path / "a", **given)
    done = mixed(image_table(40), tmp_path / "a", **{name: np.int64(value) for name, value in given.items()})
    assert done.complete


@pytest.mark.parametrize(
    "wrong",
    [
        *({"engine": "dask"}, {"form": "csv"}, {"copies": 0}, {"shard": 0}, {"group": 0}),
        *({"size": size} for size in (0, "64", 2.5, True, (4,), (4, 4, 4))),
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(mx.MixError, match=next(iter(wrong))):
        mixed(image_table(), tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


# -- other forms and commands -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("day", pa.array([0, 1], pa.date32()), r"column 'day' is date32\[day\], which the \.json .* cannot hold"),
        ("photo", [{"bytes": b"1"}] * 2, r"column 'photo' is struct<bytes: binary>, which the \.json .* cannot hold"),
        ("../etc/file", [b"1", b"2"], r"column '\.\./etc/file' would be a file of that name"),
        ("json", [b"1", b"2"], "column 'json' would be a file of that name"),
        ("x" * 61, [b"1", b"2"], "expected a name of 1 to 60 bytes"),
    ],
)
def test_what_a_tar_file_cannot_hold_is_named_before_anything_is_written(
    name: str, values: Any, said: str, tmp_path: Path
) -> None:
    table = pa.table({"x": [[1.0, 2.0], [3.0, 4.0]], name: values})
    settings: dict[str, Any] = {"op": mx.Mixup(0.8), "fields": {"x": mx.Field("b d")}}
    with pytest.raises(mx.MixError, match=said):
        mix_corpus(table, out=tmp_path / "tar", form="webdataset", **settings)
    assert not (tmp_path / "tar").exists()
    assert mix_corpus(table, out=tmp_path / "parquet", **settings).rows == 2


def test_json_has_null_for_nan(tmp_path: Path) -> None:
    table = pa.table({"x": [[1.0, 2.0]], "score": [[float("nan"), 1.0]], "more": [{"name": "é", "at": float("inf")}]})
    mix_corpus(table, mx.Mixup(0.8), {"x": mx.Field("b d")}, tmp_path / "out", form="webdataset")
    with tarfile.open(tmp_path / "out" / "part-000000.tar") as shard:
        (held,) = (shard.extractfile(member) for member in shard if member.name.endswith(".json"))
        assert held is not None
        row = json.loads(held.read(), parse_constant=pytest.fail)
    assert (row["score"], row["more"], row["x"]) == ([None, 1.0], {"name": "é", "at": None}, [1.0, 2.0])


def test_tar_files_are_read_by_webdataset(tmp_path: Path) -> None:
    mixed(image_table(50), tmp_path / "tar", form="webdataset", copies=1)
    mixed(image_table(50), tmp_path / "parquet", copies=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        shards = [str(path) for path in sorted((tmp_path / "tar").glob("*.tar"))]
        samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    table = pa.concat_tables(parquet.read_table(path) for path in sorted((tmp_path / "parquet").glob("*.parquet")))
    wanted = column_of(table, "image", 0).values
    assert len(samples) == 50
    for i, sample in enumerate(samples):
        assert sample["__key__"] == f"{i:012d}-00"
        assert np.array_equal(sample["image.png"], wanted[i])
        assert sample["json"] == table.drop_columns(["image"]).slice(i, 1).to_pylist()[0]
