"""Tagged corpora: every form they are read from, every scheme of tags, and what is said of those that do not fit."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines.corpus import (
    MixedSentence,
    TaggedCorpus,
    TaggedSentence,
    find_scheme,
    from_bio2,
    people_and_places,
    read_tagged,
    to_bio2,
)

import mixops as mx

ADA = (("Ada", "Lovelace", "left", "Rome"), ("B-PER", "I-PER", "O", "B-LOC"))
TEXT = "Ada\tB-PER\nLovelace\tI-PER\nleft\tO\nRome\tB-LOC\n\nBob\tB-PER\n"

# Tags of entities one after another, as (type, length), type "" outside.
entities = st.lists(st.tuples(st.sampled_from(["", "PER", "creative-work"]), st.integers(1, 3)), min_size=1, max_size=6)
token = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1).filter(
    lambda t: not t.startswith("-DOCSTART-") and not t.startswith("\ufeff")
)


def bio2(parts: list[tuple[str, int]]) -> tuple[str, ...]:
    tags: list[str] = []
    for kind, length in parts:
        tags += [f"{'I' if i else 'B'}-{kind}" if kind else "O" for i in range(length)]
    return tuple(tags)


def written(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def pairs(corpus: TaggedCorpus) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(s.tokens, s.tags) for s in corpus]


@given(
    rows=st.lists(entities, min_size=1, max_size=4),
    data=st.data(),
    suffix=st.sampled_from([".conll", ".txt.gz"]),
    end=st.sampled_from(["\n", "\r\n"]),
    blank=st.sampled_from(["\t", " ", "\tNN\tx\t", "  _ "]),
    bom=st.booleans(),
)
def test_conll_gives_its_tokens_and_tags_as_they_are(
    tmp_path_factory: Any, rows: list[Any], data: Any, suffix: str, end: str, blank: str, bom: bool
) -> None:
    held = [(tuple(data.draw(token) for _ in bio2(row)), bio2(row)) for row in rows]
    lines = ["-DOCSTART- -X- O O", ""]
    for tokens, tags in held:
        lines += [*(f"{a}{blank}{b}" for a, b in zip(tokens, tags, strict=True)), "", ""]
    path = written(tmp_path_factory.mktemp("c") / f"a{suffix}", ("\ufeff" if bom else "") + end.join(lines))
    assert pairs(read_tagged(path, scheme="BIO2")) == held


def test_all_forms_give_the_same_corpus(tmp_path: Path) -> None:
    given_ = [ADA, (("Bob",), ("B-PER",))]
    lines = "".join(json.dumps({"tokens": a, "tags": b, "more": 1}) + "\n" for a, b in given_)
    names = ["O", "B-PER", "I-PER", "B-LOC"]
    features = Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=names))})
    held = Dataset.from_dict(
        {"tokens": [list(a) for a, _ in given_], "ner_tags": [[names.index(t) for t in b] for _, b in given_]}, features
    )
    held.to_parquet(tmp_path / "a.parquet")
    sources = [
        written(tmp_path / "a.conll", TEXT),
        written(tmp_path / "a.jsonl", lines),
        str(written(tmp_path / "a.jsonl.gz", lines)),
        given_,
        [{"tokens": a, "tags": b} for a, b in given_],
        [TaggedSentence(*row) for row in given_],
        [MixedSentence(*row, window=(0, 1), parents=(0, 1), lam=0.5) for row in given_],
        TaggedCorpus(given_),
        held,
        tmp_path / "a.parquet",
    ]
    for source in sources:
        corpus = read_tagged(source)
        assert pairs(corpus) == given_
        expected = tuple(names) if source in (held, tmp_path / "a.parquet") else ("O", "B-LOC", "B-PER", "I-PER")
        assert corpus.tag_names == expected
        assert [corpus.tag_names[i] for i in corpus.tag_ids(0)] == list(ADA[1])


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    path = written(tmp_path / "a.conll", "1 Ada NN B-PER x\n2 ran VB O x\n")
    assert pairs(read_tagged(path, token=1, tag=-2)) == [(("Ada", "ran"), ("B-PER", "O"))]
    assert read_tagged(path, token=1, tag=2).tag_names == ("NN", "VB")
    with pytest.raises(mx.MixError, match="position of a column"):
        read_tagged(path, tag="tags")
    assert read_tagged([{"w": ["a"], "t": ["O"]}], token="w", tag="t")[0].tokens == ("a",)


@given(parts=entities, scheme=st.sampled_from(["IOB1", "BIO2", "BIOES"]))
def test_every_scheme_gives_the_same_bio2(parts: list[tuple[str, int]], scheme: str) -> None:
    tags = bio2(parts)
    assert to_bio2(from_bio2(tags, scheme), scheme) == tags


@given(parts=entities)
def test_io_keeps_the_tokens_of_entities(parts: list[tuple[str, int]]) -> None:
    tags = from_bio2(bio2(parts), "IO")
    assert [tag[1:] for tag in tags] == [tag[1:] for tag in bio2(parts)]
    assert from_bio2(to_bio2(tags, "IO"), "IO") == tags


@given(rows=st.lists(entities, min_size=1, max_size=5), scheme=st.sampled_from(["IO", "IOB1", "BIO2", "BIOES"]))
def test_the_scheme_that_is_found_reads_the_tags_right(rows: list[Any], scheme: str) -> None:
    made = [from_bio2(bio2(row), scheme) for row in rows]
    found = find_scheme(made)
    expected = [bio2(row) for row in rows] if scheme != "IO" else [to_bio2(tags, "IO") for tags in made]
    assert [to_bio2(tags, found) for tags in made] == expected


def test_bilou_is_bioes_and_plain_tags_stay() -> None:
    assert to_bio2(("B-X", "L-X", "U-Y", "O"), find_scheme([("B-X", "L-X", "U-Y", "O")])) == ("B-X", "I-X", "B-Y", "O")
    assert find_scheme([("NOUN", "-LRB-", "O")]) == "plain"
    assert find_scheme([("O",)]) == "BIO2"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "a.conll: no sentence"),
        ("\n\n-DOCSTART- O\n\n", "a.conll: no sentence"),
        ("Ada\tB-PER\nran\n", r"a.conll, line 2: 'ran' has 1 column,"),
        ("Ada\tB-PER\nran\t\n", r"a.conll, line 2: 'ran\\t' has no tag in column -1"),
        ("Ada\tB-PER\n\tO\n", r"a.conll, line 2: '\\tO' has no token in column 0"),
        ("Ada NN B-PER\nran O\n", "a.conll, line 2: 2 columns, expected 3 as in line 1"),
        ("a B-X\n\nb X-PER\n", "a.conll, line 3: the tag 'X-PER' has the prefix 'X'"),
        ("a B-X\nb PER\n", "a.conll, line 2: the tag 'PER' has no prefix"),
        (
            "a B-X\n\nb O\nc I-X\n",
            "a.conll, line 4: I-X after O begins an entity as in IOB1.*a.conll, line 1 begins one",
        ),
        ("a B-X\n\nc I-X\n", "a.conll, line 3: I-X after the beginning"),
        ("a B-X\nb I-Y\n", "a.conll, line 2: I-Y after B-X begins"),
        ("a S-X\nb E-X\n", "a.conll, line 2: E-X after S-X, expected an entity to begin"),
        ("a E-X\n", "a.conll, line 1: E-X at the beginning"),
        ("a B-X\nb S-X\n", "a.conll, line 2: S-X after B-X, expected I-X or E-X"),
        ("a S-X\n\nb B-X\n", "a.conll, line 3: B-X at the end, expected E-X or S-X"),
        (b"Ada\tO\n\xff\tO\n", "a.conll, line 2: not UTF-8"),
    ],
)
def test_a_broken_conll_is_named_with_its_line(content: str | bytes, said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.conll", content)
    with pytest.raises(mx.MixError, match=said):
        read_tagged(path)


def test_a_mixture_of_schemes_is_read_when_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "a.conll", "a B-X\n\nb O\nc I-X\n")
    assert [tags for _, tags in pairs(read_tagged(path, scheme="IOB1"))] == [("B-X",), ("O", "B-X")]
    with pytest.raises(mx.MixError, match="line 4: I-X after O, expected B-X"):
        read_tagged(path, scheme="BIO2")
    with pytest.raises(mx.MixError, match="expected one of plain, IO, IOB1, BIO2, BIOES"):
        read_tagged(path, scheme="BIO")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "a.jsonl, line 2: no JSON"),
        ("[]", "a.jsonl, line 2: list"),
        ('{"words": ["a"], "tags": ["O"]}', "a.jsonl, line 2: no 'tokens' among"),
        ('{"tokens": ["a"]}', "a.jsonl, line 2: no 'tags' or 'ner_tags'"),
        ('{"tokens": ["a", "b"], "tags": ["O"]}', "a.jsonl, line 2: 2 tokens and 1 tags"),
        ('{"tokens": [], "tags": []}', "a.jsonl, line 2: a sentence with no tokens"),
        ('{"tokens": "ab", "tags": ["O", "O"]}', "a.jsonl, line 2: tokens is 'ab', expected a list"),
        ('{"tokens": [1], "tags": ["O"]}', "a.jsonl, line 2: token 0 is 1"),
        ('{"tokens": ["a"], "tags": [null]}', "a.jsonl, line 2: token 0 is 'a' with the tag None"),
        ('{"tokens": ["a"], "tags": [1]}', "a.jsonl, line 2: tags that are numbers"),
        ('{"tokens": [" "], "tags": ["O"]}', "a.jsonl, line 2: token 0 is ' '"),
    ],
)
def test_a_broken_jsonl_is_named_with_its_line(line: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"tokens": ["a"], "tags": ["O"]}\n' + line + "\n")
    with pytest.raises(mx.MixError, match=said):
        read_tagged(path)


def test_a_tag_that_training_did_not_know_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(mx.MixError, match=r"a\.conll, line 4: the tag 'B-LOC' is none of the 3 names"):
        read_tagged(written(tmp_path / "a.conll", TEXT), tag_names=("O", "B-PER", "I-PER"))
    with pytest.raises(mx.MixError, match="tag 7, expected a number from 0 to 1"):
        read_tagged([(["a"], [7])], tag_names=["O", "B-X"])
    assert read_tagged([(["a"], np.array([1]))], tag_names=["O", "B-X"])[0].tags == ("B-X",)


def test_sources_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_tagged(tmp_path / "none.conll")
    (tmp_path / "a.xml").write_text("")
    (tmp_path / "a.parquet").write_text("no parquet")
    (tmp_path / "b.conll.gz").write_bytes(b"no gzip")
    for source, said in (
        (tmp_path / "a.xml", "a.xml: a file of another kind"),
        (tmp_path / "a.parquet", "no Parquet file"),
        (tmp_path / "b.conll.gz", "no whole gzip file"),
        ({"train": []}, "choose a split"),
        (7, "expected a path"),
        ([("a",)], r"list, row 0: .* expected a pair"),
        ([], "list: no sentence"),
    ):
        with pytest.raises(mx.MixError, match=said):
            read_tagged(source)


def test_a_corpus_numbers_its_tags_and_takes_rows() -> None:
    corpus = TaggedCorpus([ADA, (("Bob",), ("B-PER",))])
    part = corpus.take([-1])
    assert (len(part), part.tag_names, part[0].tokens) == (1, corpus.tag_names, ("Bob",))
    assert len(corpus.take([])) == 0
    assert not corpus.tag_ids(1).flags.writeable
    for bad, said in (
        (lambda: corpus.take([2]), "rows of 0 to 1"),
        (lambda: TaggedCorpus([ADA], ["O"]), "row 0 has the tag 'B-PER'"),
        (lambda: TaggedCorpus([ADA], ["O", "O"]), "each once"),
        (lambda: TaggedCorpus("abc"), "expected a list"),
        (lambda: TaggedCorpus([7]), "row 0 is int"),
        (lambda: TaggedSentence(("a", "b"), ("O",)), "2 tokens and 1 tags"),
        (lambda: TaggedSentence("ab", ("O", "O")), "tokens is str"),
        (lambda: TaggedSentence(("a",), ("B X",)), "no name without blanks"),
    ):
        with pytest.raises(mx.MixError, match=said):
            bad()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"window": (1, 3)}, "expected it within them"),
        ({"lam": float("nan")}, "expected a share"),
        ({"soft": np.eye(3)}, r"expected \(2, C\)"),
        ({"soft": np.ones((2, 2))}, "shares that sum to 1"),
    ],
)
def test_a_mixed_sentence_holds_together(change: dict[str, Any], said: str) -> None:
    fields = {"tokens": ("a", "b"), "tags": ("O", "O"), "window": (0, 2), "parents": (0, 1), "lam": 0.5, **change}
    with pytest.raises(mx.MixError, match=said):
        MixedSentence(**fields)


def test_the_corpus_that_comes_along_is_of_three_types_of_entities() -> None:
    corpus = people_and_places()
    assert set(corpus.tag_names) == {"O", *(f"{p}-{kind}" for p in "BI" for kind in ("PER", "LOC", "ORG"))}
    assert len(set(corpus.sentences)) == len(corpus) == 40
