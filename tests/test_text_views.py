"""Views of unlabelled sentences: read from files, aligned with the texts, or drawn anew by the key of a sentence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines.text import DrawnViews, Views, read_views

import mixops as mx

TEXTS = ["so good", "so dull", 'a "quoted" one']
VIEWS = [("very good", "how good"), ("very dull", "how dull"), ('one "quoted"', "one, too")]
WORDS = st.text("abc ,\"'é", min_size=1).filter(lambda text: bool(text.split()))


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def everywhere(folder: Path) -> dict[str, Any]:
    """The same views in every form that is read."""
    rows = [{"text": text, "views": list(views)} for text, views in zip(TEXTS, VIEWS, strict=True)]
    made = {"jsonl": jsonl(folder / "a.jsonl", rows), "list": rows}
    made["pairs"] = [(row["text"], row["views"]) for row in rows]
    made["gz"] = folder / "a.jsonl.gz"
    made["gz"].write_bytes(gzip.compress(made["jsonl"].read_bytes()))
    made["tsv"] = folder / "a.tsv"
    lines = ["label\ttext\tview2\tview1", *(f"0\t{t}\t{b}\t{a}" for t, (a, b) in zip(TEXTS, VIEWS, strict=True))]
    made["tsv"].write_text("\n".join(lines), encoding="utf-8")
    made["csv"] = folder / "a.csv"
    quoted = [",".join('"' + x.replace('"', '""') + '"' for x in (t, *v)) for t, v in zip(TEXTS, VIEWS, strict=True)]
    made["csv"].write_text("\n".join(["text,view1,view2", *quoted]), encoding="utf-8")
    made["lines"] = [folder / "de.txt", str(folder / "ru.txt.gz")]
    made["lines"][0].write_text("\r\n".join(a for a, _ in VIEWS) + "\r\n", encoding="utf-8")
    Path(made["lines"][1]).write_bytes(gzip.compress("\n".join(b for _, b in VIEWS).encode()))
    return made


@pytest.mark.parametrize("form", ["jsonl", "gz", "list", "pairs", "tsv", "csv", "lines"])
def test_every_form_gives_the_same_views(form: str, tmp_path: Path) -> None:
    views = read_views(everywhere(tmp_path)[form], TEXTS)
    assert (views.count, len(views), views.texts) == (2, 3, tuple(TEXTS))
    assert [views.at(row, epoch=5) for row in range(3)] == VIEWS


@given(rows=st.lists(st.tuples(WORDS, st.tuples(WORDS, WORDS)), min_size=1, max_size=5), data=st.data())
def test_views_follow_the_texts_in_any_order_and_of_any_part(rows: list[Any], data: st.DataObject) -> None:
    views = read_views([(text, list(wordings)) for text, wordings in rows])
    wanted = data.draw(st.lists(st.sampled_from([text for text, _ in rows]), min_size=1, max_size=8))
    found = views.of(wanted)
    known: dict[str, list[Any]] = {}
    for text, wordings in rows:
        known.setdefault(text, []).append(wordings)
    taken: dict[str, int] = {}
    for row, text in enumerate(wanted):
        turn = taken[text] = taken.get(text, -1) + 1
        assert found.at(row, 0) == known[text][turn % len(known[text])]


def test_a_single_text_file_holds_one_view_of_each(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("x\ny\n", encoding="utf-8")
    assert [read_views(path, ["a", "b"]).at(row, 0) for row in (0, 1)] == [("x",), ("y",)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": "a", "views": ["b"]}\n\n{"text": "c"}', r"a\.jsonl, line 3: the entries .'text'."),
        ("a.jsonl", '{"text": "a", "views": []}', "line 1: 0 views, expected one or more"),
        ("a.jsonl", '{"text": "a", "views": ["b"]}\n{"text": "c", "views": ["d", "e"]}', "line 2: 2 views, expected 1"),
        ("a.jsonl", '{"text": "a", "views": [" "]}', "line 1: view 1 has no words.*repeat the text itself"),
        ("a.jsonl", '{"text": " ", "views": ["b"]}', "line 1: text has no words.*leave that row out"),
        ("a.jsonl", '{"text": "a", "views": "b"}', "line 1: views are str"),
        ("a.jsonl", '{"text": "a", "views": [3]}', "line 1: view 1 is int"),
        ("a.jsonl", '{"text": "a", "views"', "line 1: no JSON"),
        ("a.jsonl", '"a"', "line 1: 'a', expected"),
        ("a.jsonl", "", "no text"),
        ("a.tsv", "text\tview2\na\tb", r"expected text, view1, view2"),
        ("a.tsv", "text\tother\na\tb", r"the columns .'text', 'other'."),
        ("a.tsv", "view1\tview2\na\tb", "expected text, view1"),
        ("a.tsv", "text\tview1\nc\td\na\t ", r"a\.tsv, line 3: view 1 has no words"),
        ("a.tsv", "text\tview1\nc", "line 2: 1 fields"),
        ("a.txt", "a\nb", "of which texts"),
        ("a.bin", "a", r"another kind, expected a file \.jsonl.*\.tsv.*\.txt"),
        ("a.jsonl", '{"text": "a", "views": [' + "9" * 5000 + "]}", "line 1: no JSON"),
        ("a.jsonl", '{"text": "a", "views": ["b"]}\n' + "[" * 100_000, "line 2: no JSON"),
        ("a.tsv", "text\tview" + "9" * 5000 + "\na\tb", "expected text, view1"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_line(name: str, content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(mx.MixError, match=said):
        read_views(path)


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a", "views": ["b"]}\n\xff')
    with pytest.raises(mx.MixError, match="line 2: not UTF-8"):
        read_views(path)


def test_files_of_lines_must_fit_the_texts(tmp_path: Path) -> None:
    paths = [tmp_path / "de.txt", tmp_path / "ru.txt"]
    paths[0].write_text("x\ny\n", encoding="utf-8")
    paths[1].write_text("x\n \n", encoding="utf-8")
    with pytest.raises(mx.MixError, match=r"de\.txt: 2 lines for 3 texts"):
        read_views(paths, TEXTS)
    with pytest.raises(mx.MixError, match=r"ru\.txt, line 2: view has no words"):
        read_views(paths, TEXTS[:2])
    with pytest.raises(mx.MixError, match="line-aligned files"):
        read_views([paths[0], tmp_path / "a.jsonl"], TEXTS[:2])


@pytest.mark.parametrize("source", [[], {"text": "a"}, 3, None])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(mx.MixError, match="expected a path"):
        read_views(source, TEXTS)


def test_a_folder_and_a_single_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(mx.MixError, match="a folder, expected a file"):
        read_views(tmp_path / "a.jsonl", TEXTS)
    with pytest.raises(mx.MixError, match="texts is one text, 'so good', expected a list"):
        read_views([("so good", ["x"])], "so good")


def test_texts_without_views_are_named() -> None:
    with pytest.raises(mx.MixError, match=r"2 of 3 texts have no views.*row 1, 'so dull'.*letter by letter"):
        read_views([("so good", ["x"])], TEXTS)
    with pytest.raises(mx.MixError, match="3 texts and views of 1"):
        Views(TEXTS, [["x"]])


# -- drawn -------------------------------------------------------------------------------------------------------------


def marked(text: str, rng: np.random.Generator) -> str:
    return f"{text} {rng.integers(1 << 40)}"


def test_drawn_views_depend_on_seed_epoch_row_and_place_alone() -> None:
    views, again = (DrawnViews(TEXTS, [marked, marked], seed=3) for _ in range(2))
    one = [views.at(row, epoch) for epoch in (0, 1) for row in range(3)]
    assert [again.at(row, epoch) for epoch in (1, 0) for row in range(3)] == one[3:] + one[:3]
    drawn = [view.split()[-1] for pair in one for view in pair]
    assert len(set(drawn)) == len(drawn)
    assert DrawnViews(TEXTS, [marked, marked], seed=4).at(0, 0) != one[0]
    assert (views.count, len(views)) == (2, 3)


def test_augmenters_of_nlpaug_make_views() -> None:
    from nlpaug.augmenter.word import RandomWordAug

    text = "it was so good that we went there once more"
    aug = RandomWordAug(action="delete", aug_p=0.3, tokenizer=str.split, reverse_tokenizer=" ".join)
    views = DrawnViews([text], aug, seed=1)
    found = [views.at(0, epoch)[0] for epoch in range(4)]
    assert all(0 < len(one.split()) < 10 for one in found)
    assert len(set(found)) > 1
    assert found == [DrawnViews([text], aug, seed=1).at(0, epoch)[0] for epoch in range(4)]


def test_an_augmenter_that_leaves_no_word_is_told_so() -> None:
    with pytest.raises(mx.MixError, match="no tokens: let it change fewer words"):
        DrawnViews(TEXTS, lambda text: " ", seed=0).at(0, 0)
    with pytest.raises(mx.MixError, match="no augmenter"):
        DrawnViews(TEXTS, [], seed=0)
    with pytest.raises(mx.MixError, match="row 1: text has no words"):
        DrawnViews(["a", " "], marked, seed=0)
    with pytest.raises(mx.MixError, match="expected an augmenter"):
        DrawnViews(TEXTS, [marked, 3], seed=0)
