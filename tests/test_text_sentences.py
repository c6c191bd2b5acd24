"""Labelled sentences: every form they come in, and what is said of those that do not fit."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines.text import Sentences, read_sentences

import mixops as mx

# What a line of a file can hold: no line ends, no tabs, no surrogates; and something that is no space.
text_of = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1).filter(
    lambda t: bool(t.split())
)
rows_of = st.lists(st.tuples(text_of, st.integers(0, 4)), min_size=1, max_size=6)


def written(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(sentences: Sentences) -> list[tuple[str, str]]:
    """Text and class name of every row."""
    return [(one["text"], sentences.classes[one["label"]]) for one in (sentences[i] for i in range(len(sentences)))]


@given(
    rows=rows_of, suffix=st.sampled_from([".tsv", ".tsv.gz"]), end=st.sampled_from(["\n", "\r\n"]), last=st.booleans()
)
def test_a_tsv_gives_its_texts_as_they_are(
    tmp_path_factory: Any, rows: list[tuple[str, int]], suffix: str, end: str, last: bool
) -> None:
    lines = ["label\ttext", *(f"{label}\t{text}" for text, label in rows)]
    path = written(tmp_path_factory.mktemp("t") / f"a{suffix}", end.join(lines) + (end if last else ""))
    sentences = read_sentences(path)
    assert list(sentences.texts) == [text for text, _ in rows]
    assert sentences.labels.tolist() == [label for _, label in rows]
    assert sentences.labels.dtype == np.int64
    assert sentences.classes == tuple(str(i) for i in range(max(label for _, label in rows) + 1))


@given(
    rows=st.lists(
        st.tuples(st.text(min_size=1).filter(lambda t: t.split() and t.isprintable()), st.integers(0, 4)), min_size=1
    )
)
def test_a_csv_and_a_list_give_the_same_sentences(tmp_path_factory: Any, rows: list[tuple[str, int]]) -> None:
    path = tmp_path_factory.mktemp("t") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    pairs, dicts = (
        read_sentences(rows),
        read_sentences([{"text": text, "label": label, "id": 0} for text, label in rows]),
    )
    assert read(read_sentences(path)) == read(pairs) == read(dicts)


def test_quotes_are_quotes_in_a_csv_and_characters_in_a_tsv(tmp_path: Path) -> None:
    table = written(tmp_path / "a.csv.gz", 'label,text\n0,"so, ""good""\nindeed"\n1,dull\n')
    assert read_sentences(table).texts == ('so, "good"\nindeed', "dull")
    assert read_sentences(written(tmp_path / "a.tsv", 'label\ttext\n0\t"so\n')).texts == ('"so',)


def test_columns_are_chosen_by_name_or_by_position_without_a_header(tmp_path: Path) -> None:
    named = written(tmp_path / "a.tsv", "fine\tcoarse\tquestion\nx\tNUM\thow many\ny\tLOC\twhere to\n")
    assert read(read_sentences(named, text="question", label="coarse")) == [("how many", "NUM"), ("where to", "LOC")]
    bare = written(tmp_path / "b.tsv", "x\tNUM\thow many\n\ny\tLOC\twhere to\n")
    assert read(read_sentences(bare, text=2, label=1)) == [("how many", "NUM"), ("where to", "LOC")]
    assert read(read_sentences(bare, text=2, label=0)) == [("how many", "x"), ("where to", "y")]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert read_sentences(written(tmp_path / "a.tsv", "\ufefftext\tlabel\nso\t0\n")).texts == ("so",)


def test_names_are_numbered_in_sorted_order_or_in_that_of_classes() -> None:
    rows = [("a", "pos"), ("b", "neg"), ("c", "pos")]
    assert (read_sentences(rows).classes, read_sentences(rows).labels.tolist()) == (("neg", "pos"), [1, 0, 1])
    given_order = read_sentences(rows, classes=["pos", "neg", "other"])
    assert (given_order.classes, given_order.labels.tolist()) == (("pos", "neg", "other"), [0, 1, 0])


def test_a_test_set_is_numbered_as_its_training_set(tmp_path: Path) -> None:
    train = read_sentences(written(tmp_path / "a.tsv", "label\ttext\n0\ta\n5\tb\n"))
    test = read_sentences(written(tmp_path / "b.tsv", "label\ttext\n3\tc\n"), classes=train.classes)
    assert (test.labels.tolist(), test.classes) == ([3], train.classes)
    assert read_sentences([("c", 3)], classes=train.classes).labels.tolist() == [3]


def test_a_hugging_face_data_set_brings_the_names_of_its_classes() -> None:
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["neg", "pos"]), "id": Value("int64")})
    data = Dataset.from_dict({"sentence": ["so good", "so dull"], "label": [1, 0], "id": [7, 8]}, features=features)
    sentences = read_sentences(data, text="sentence")
    assert read(sentences) == [("so good", "pos"), ("so dull", "neg")]
    assert read_sentences(data, text="sentence", where=lambda row: row["id"] == 8).texts == ("so dull",)
    tensors = data.with_format("torch")
    assert read(read_sentences(tensors, text="sentence")) == read(sentences)
    with pytest.raises(mx.MixError, match=r"dataset\['train'\]"):
        read_sentences(DatasetDict(train=data))
    with pytest.raises(mx.MixError, match=r"streams, expected .*from_list"):
        read_sentences(data.to_iterable_dataset(), text="sentence")
    with pytest.raises(mx.MixError, match=r"data set, row 1: label -1.*without a label"):
        read_sentences(Dataset.from_dict({"text": ["a", "b"], "label": [0, -1]}))


def test_where_sees_all_columns_of_a_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", "fold\tlabel\ttext\n0\t1\ta\n3\t0\tb\n0\t0\tc\n")
    assert read_sentences(path, where=lambda row: row["fold"] == "0").texts == ("a", "c")
    assert read_sentences(path, where=lambda row: row["fold"] != "0").texts == ("b",)
    with pytest.raises(mx.MixError, match="no sentence for which where"):
        read_sentences(path, where=lambda row: False)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "label\ttext\n0\ta\n1\n0\tb\tc\n", "a.tsv, line 3: 1 fields, expected 2 .* 2 of 3 lines"),
        ("a.csv", 'label,text\n0,"a\nb"\n1\n', "a.csv, line 4: 1 fields, expected 2 .* 1 of 2 lines"),
        ("a.csv", 'label,text\n0,a\n1,"b"c\n', "a.csv, line 3: .*quotes"),
        ("a.tsv", "label\ttext\n0\ta\n\n1\t \n", "a.tsv, line 4: a sentence with no tokens"),
        ("a.tsv", "label\tsentense\n0\ta\n", "no column 'text'.*nearest are 'label', 'sentense'"),
        ("a.tsv", "labels\ttext\n0\ta\n", "no column 'label'.*nearest are 'labels'"),
        ("a.tsv", "label\ttext\tlabel\n0\ta\t1\n", "names a column twice"),
        ("a.tsv", "label\ttext\n", "a.tsv: no sentence"),
        ("a.tsv", "", "an empty file"),
        ("a.tsv", b"label\ttext\n0\ta\n0\t\xff\n", "line 3: not UTF-8"),
        ("a.tsv", "label\ttext\n0\ta\n-1\tb\n", "a.tsv, line 3: label -1"),
        ("a.tsv", "label\ttext\n0\ta\n1.5\tb\n", "line 3: label 1.5, expected a whole number"),
        ("a.tsv", "label\ttext\n0\ta\nneg\tb\n", "line 3: label 'neg' among numbers"),
        ("a.tsv", "label\ttext\n0\ta\n90000000\tb\n", "line 3: label 90000000 would need"),
        ("a.txt", "label\ttext\n0\ta\n", "another kind.*tsv"),
        ("a.tsv", "label\ttext\npos\ta\n\tb\n", "line 3: label '', expected one"),
        ("a.tsv", "label\ttext\n0\ta\n \tb\n", "line 3: label ' ', expected one"),
        ("a.csv", "label,text\npos,a\nneg,b\npos ,c\n", "line 4: label 'pos ', and 'pos' in a.csv, line 2, differ"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(mx.MixError, match=message):
        read_sentences(written(tmp_path / name, content))


def test_a_gzip_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv.gz"
    data = gzip.compress(b"label\ttext\n" + b"0\tso good\n" * 99)
    for broken in (data[:-9], data[:20], b"label\ttext\n0\ta\n"):
        path.write_bytes(broken)
        with pytest.raises(mx.MixError, match="no whole gzip file"):
            read_sentences(path)
    with pytest.raises(FileNotFoundError):
        read_sentences(tmp_path / "none.tsv")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ([("a", 0), ("b", 1, 2)], {}, "list, row 1: .*expected .text, label."),
        ([("a", 0), (" ", 0)], {}, "list, row 1: a sentence with no tokens"),
        ([("a", 0), (None, 0)], {}, "row 1: the sentence is NoneType"),
        ([("a", 0), ("b", -2)], {}, "row 1: label -2"),
        ([("a", 0), ("b", 0.5)], {}, "row 1: label 0.5"),
        ([("a", 0), ("b", float("nan"))], {}, "row 1: label nan"),
        ([("a", 0), ("b", None)], {}, "row 1: label None"),
        ([("a", "x"), ("b", 0)], {}, "row 1: label 0 among names"),
        ([("a", "pos"), ("b", "nge")], {"classes": ["neg", "pos"]}, "row 1: label 'nge' .*nearest are 'neg'"),
        ([("a", 0), ("b", 2)], {"classes": ["neg", "pos"]}, "row 1: label 2, but there are 2 classes"),
        ([("a", "0")], {"classes": "0"}, "classes='0'"),
        ([("a", "x")], {"classes": ["x", "x"]}, "each once"),
        ([{"text": "a", "label": 0}, {"text": "b"}], {}, "list, row 1: no 'label'"),
        ([{"text": "a", "label": 0}], {"text": "txt"}, "no column 'txt'.*'text'"),
        ([{"text": "a", "label": 0}, ("b", 1)], {}, "list, row 0"),
        ([], {}, "no sentence"),
        ([("a", 0)], {"where": "label == 0"}, "expected a function of a row"),
        (7, {}, "int, expected a path"),
        ({"train": []}, {}, r"\['train'\]"),
        ("a.tsv", {"text": 0}, "two positions"),
    ],
)
def test_a_source_that_does_not_fit_is_refused_with_its_row(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        read_sentences(source, **options)


labels_of = st.lists(st.integers(0, 3), max_size=40)


def numbered(labels: list[int]) -> Sentences:
    return Sentences([f"s{i}" for i in range(len(labels))], np.array(labels, np.int64), list("abcd"))


@given(labels=labels_of, data=st.data(), seed=st.integers(0, 5))
def test_the_parts_of_a_split_share_out_rows_and_classes(labels: list[int], data: st.DataObject, seed: int) -> None:
    sentences = numbered(labels)
    count = data.draw(st.integers(0, len(labels)))
    first, rest = sentences.split(count, seed)
    assert len(first) == count
    assert sorted(first.texts + rest.texts) == sorted(sentences.texts)
    for part in (first, rest):
        places = [sentences.texts.index(text) for text in part.texts]
        assert places == sorted(places)
        assert part.labels.tolist() == [labels[place] for place in places]
    have = Counter(first.labels.tolist())
    for label, n in Counter(labels).items():
        assert abs(have[label] - n * count / len(labels)) < 2  # Webster's seats may leave the quota, rarely by one


def test_a_rare_class_keeps_its_share_of_every_part() -> None:
    sentences = numbered([0] * 90 + [1] * 10)
    for count in (10, 20, 50, 90):
        first, _ = sentences.split(count, seed=3)
        assert Counter(first.labels.tolist()) == {0: count * 9 // 10, 1: count // 10}


@given(labels=labels_of.filter(bool), data=st.data(), seed=st.integers(0, 5))
def test_a_smaller_first_part_lies_within_a_larger_one(labels: list[int], data: st.DataObject, seed: int) -> None:
    small = data.draw(st.integers(0, len(labels)))
    large = data.draw(st.integers(small, len(labels)))
    sentences = numbered(labels)
    assert set(sentences.split(small, seed)[0].texts) <= set(sentences.split(large, seed)[0].texts)


def test_splits_follow_the_seed_and_take_shares() -> None:
    sentences = numbered([0, 1] * 50)
    first, rest = sentences.split(0.8, seed=1)
    assert (len(first), len(rest), Counter(first.labels.tolist())) == (80, 20, {0: 40, 1: 40})
    assert first.texts == sentences.split(80, seed=1)[0].texts != sentences.split(80, seed=2)[0].texts
    assert first.classes == ("a", "b", "c", "d")


@given(labels=labels_of.filter(bool), data=st.data())
def test_taken_rows_come_in_the_order_asked_for(labels: list[int], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(-len(labels), len(labels) - 1)))
    taken = numbered(labels).take(rows)
    assert taken.texts == tuple(f"s{row % len(labels)}" for row in rows)
    assert taken.labels.tolist() == [labels[row] for row in rows]
    mask = np.array(labels) == labels[0]
    assert set(numbered(labels).take(mask).labels.tolist()) == {labels[0]}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.split(5, 0), "part=5.*0 to 4"),
        (lambda s: s.split(1.0, 0), "part=1.0"),
        (lambda s: s.split(True, 0), "part=True"),
        (lambda s: s.split(2, -1), "seed=-1"),
        (lambda s: s.take([4]), "rows of 0 to 3"),
        (lambda s: s.take([0.5]), "rows of 0 to 3"),
        (lambda s: s.take([True]), "rows of 0 to 3"),
        (lambda s: Sentences(s.texts, [0], s.classes), "4 texts and 1 labels"),
        (lambda s: Sentences(["a", "\t"], [0, 0], ["x"]), "row 1: a sentence with no tokens"),
        (lambda s: Sentences(["a"], [1], ["x"]), "row 0: label 1, but there are 1 classes"),
        (lambda s: Sentences(["a"], [0], [1]), "expected names"),
        (lambda s: Sentences("ab", [0, 0], ["x"]), "texts is str, expected a list"),
        (lambda s: Sentences(["a"], None, ["x"]), "labels is NoneType, expected a list"),
    ],
)
def test_rows_and_parts_out_of_range_are_refused(call: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        call(numbered([0, 1, 2, 3]))


def test_sentences_cannot_be_changed_and_print_their_size() -> None:
    sentences = numbered([0, 1])
    with pytest.raises(ValueError, match="read-only"):
        sentences.labels[0] = 1
    assert repr(sentences) == "<Sentences: 2 of 4 classes>"
