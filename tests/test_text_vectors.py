"""Word vectors: every place they come from, lines that are broken, and the matrix of an embedding."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines.text import Vocabulary, WordVectors, word_vectors
from pyarrow import parquet
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

import mixops as mx

number = st.floats(-9, 9, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6)
word_of = st.text(st.characters(exclude_categories=("Cs",), exclude_characters=" \r\n"), min_size=1, max_size=5)


@st.composite
def vectors_of(draw: st.DrawFn) -> tuple[list[str], np.ndarray]:
    words = draw(st.lists(word_of, min_size=1, max_size=8, unique=True))
    size = draw(st.integers(2, 5))
    rows = st.lists(number, min_size=size, max_size=size)
    return words, np.array(draw(st.lists(rows, min_size=len(words), max_size=len(words))), np.float32)


def lines_of(words: list[str], array: np.ndarray) -> list[str]:
    return [" ".join([word, *(repr(float(v)) for v in row)]) for word, row in zip(words, array, strict=True)]


def written(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@given(
    held=vectors_of(),
    suffix=st.sampled_from([".txt", ".txt.gz", ".vec", ".vec.gz"]),
    header=st.booleans(),
    end=st.sampled_from(["\n", " \n", "\r\n"]),
)
def test_a_text_file_gives_its_words_and_numbers(
    tmp_path_factory: Any, held: tuple[list[str], np.ndarray], suffix: str, header: bool, end: str
) -> None:
    words, array = held
    lines = [f"{len(words)} {array.shape[1]}"] * header + lines_of(words, array)
    path = written(tmp_path_factory.mktemp("v") / f"a{suffix}", "".join(line + end for line in lines))
    vectors = word_vectors(path)
    assert list(vectors.words) == words
    assert vectors.array.dtype == np.float32
    assert np.array_equal(vectors.array, array)
    assert vectors.skipped == 0
    some = word_vectors(path, only=words[::2])
    assert list(some.words) == words[::2]
    assert np.array_equal(some.array, array[::2])


def test_words_may_hold_blanks_and_what_unicode_calls_spaces(tmp_path: Path) -> None:
    words = [", ", "...", ". . .", "at name@domain.com", "a\xa0b", "a\x85b", "a\u2028b", "3", "the"]
    words[0] = ","
    array = np.arange(27, dtype=np.float32).reshape(9, 3) / 4
    path = written(tmp_path / "a.txt", "\n".join(lines_of(words, array)) + "\n\n")
    assert list(word_vectors(path).words) == words
    assert np.array_equal(word_vectors(path).array, array)


def test_of_a_word_that_is_there_twice_the_first_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "a 1 2\nb 3 4\na 5 6\n")
    pair = ["a", "b", "a"], np.array([[1, 2], [3, 4], [5, 6]], float)
    for vectors in (word_vectors(path), word_vectors(pair)):
        assert (vectors.words, vectors.array.tolist()) == (("a", "b"), [[1, 2], [3, 4]])


BROKEN = "a 1 2 3\nb 1 2\nc 1 2 x\nd 1 2 3\nf 1 2 nan\n 1 2 3\ng 1.5 2 3 4\nh 1 2 3\n"


def test_broken_lines_are_named_and_counted_or_left_out_and_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", BROKEN)
    with pytest.raises(mx.MixError, match=r"a\.txt, line 2: 3 fields, expected a word and 3 numbers; 5 of 8 lines"):
        word_vectors(path)
    vectors = word_vectors(path, broken="skip")
    assert (vectors.words, vectors.skipped) == (("a", "d", "h"), 5)
    assert vectors.array.tolist() == [[1, 2, 3]] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a 1 2\nb 1 2\nc 1 x\n", r"line 3: the vector of 'c' is not 2 finite numbers; 1 of 3"),
        ("a 1 2\nb 1 inf\n", "line 2: the vector of 'b'"),
        ("a 1 2\nb 1\t2\nc 1 2\n", "line 2: 2 fields"),
        ("a 1 2\nb 1  2\nc 1 2\nd 1 2\n", "line 2: the vector of 'b 1'"),
        ("a 1 2\nb 0.5 1 2\nc 1 2\n", "line 2: more than 2 numbers"),
        (b"a 1 2\n\xff 1 2\n", "line 2: its word is not UTF-8"),
        ("3 2\na 1 2\nb 1 2\n", "says 3 words, but 2 follow"),
        ("", "an empty file"),
        ("words\nother\n", "expected a word and its numbers"),
    ],
)
def test_a_text_file_that_does_not_fit_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        word_vectors(written(tmp_path / "a.txt", content))


def test_a_broken_line_is_found_behind_thousands_of_good_ones(tmp_path: Path) -> None:
    lines = [f"w{i} {i} 1 2\n" for i in range(9000)]
    lines[8500] = "w8500 1 2 x\n"
    path = written(tmp_path / "a.txt", "".join(lines))
    with pytest.raises(mx.MixError, match=r"line 8501: the vector of 'w8500'.*1 of 9000"):
        word_vectors(path)
    vectors = word_vectors(path, broken="skip")
    assert len(vectors) == 8999
    assert [vectors.array[i, 0] for i in (0, 4095, 4096, 8499, 8500)] == [0, 4095, 4096, 8499, 8501]


def test_numbers_of_words_that_are_not_wanted_are_not_read_but_lines_are_checked(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "a 1 2\nb 1 x\nc 3 4\n")
    assert word_vectors(path, only=Vocabulary(["c", "other"])).array.tolist() == [[3, 4]]
    with pytest.raises(mx.MixError, match="line 2: 2 fields"):
        word_vectors(written(tmp_path / "b.txt", "a 1 2\nb 1\nc 3 4\n"), only=["c"])


@given(held=vectors_of())
def test_an_npz_and_a_pair_give_the_same_vectors(tmp_path_factory: Any, held: tuple[list[str], np.ndarray]) -> None:
    words, array = held[0], held[1].astype(np.float16)
    path = tmp_path_factory.mktemp("v") / "a.npz"
    rows = np.arange(len(words))[::2]
    # NumPy's texts drop null characters at their end: such words are no words of a file of this kind.
    words = [word.replace("\0", "") or f"w{i}" for i, word in enumerate(words)]
    words = [f"{word}{i}" for i, word in enumerate(words)]
    np.savez(path, words=np.array(words), vectors=array, v=array[rows], rows=rows, b=np.char.encode(words, "utf-8"))
    expected = array.astype(np.float32)
    for vectors in (word_vectors(path), word_vectors((words, array)), word_vectors(path, keys=("b", "vectors"))):
        assert list(vectors.words) == words
        assert vectors.array.dtype == np.float32
        assert np.array_equal(vectors.array, expected)
    some = word_vectors(path, keys=("words", "v", "rows"))
    assert list(some.words) == words[::2]
    assert np.array_equal(some.array, expected[::2])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("words", "other"), r"no 'other', it has \['words'"),
        (("words",), "expected the names of words and vectors"),
        (("numbers", "vectors"), "'numbers' is int64"),
        (("words", "numbers"), "vectors of int64"),
        (("words", "short"), "2 words and 1 vectors"),
        (("words", "vectors", "far"), "'far' are no rows of the 2 words"),
        (("objects", "vectors"), "cannot be read"),
    ],
)
def test_an_npz_that_does_not_fit_is_refused(tmp_path: Path, keys: tuple[str, ...], message: str) -> None:
    path = tmp_path / "a.npz"
    arrays = {"words": np.array(["a", "b"]), "vectors": np.eye(2), "numbers": np.eye(2, dtype=int)}
    np.savez(path, **arrays, short=np.eye(1, 2), far=np.array([0, 2]), objects=np.array(["a", None], object))
    with pytest.raises(mx.MixError, match=message):
        word_vectors(path, keys=keys)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", words=np.array(["a"] * 99), vectors=np.eye(99))
    whole = (tmp_path / "whole.npz").read_bytes()
    for name, content in (("a.npz", whole[:-200]), ("b.npz", b"words"), ("c.npz", b"")):
        with pytest.raises(mx.MixError, match="cannot be read"):
            word_vectors(written(tmp_path / name, content))
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"a 1 2\n" * 99)[:-9])
    with pytest.raises(mx.MixError, match="no whole gzip file"):
        word_vectors(tmp_path / "d.txt.gz")
    with pytest.raises(mx.MixError, match="another kind"):
        word_vectors(tmp_path / "e.bin")
    with pytest.raises(FileNotFoundError):
        word_vectors(tmp_path / "none.txt")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package that can be found, empty but for what all packages hold."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / f"glove_{tmp_path.name.replace('-', '_')}"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('a package with vectors is not to be run')\n")
    (folder / "LICENSE.txt").write_text("Do what you like with it.\n")
    return folder


WORDS, ARRAY = ["the", "of", "n't"], np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "npz", "npy and txt", "npy and json", "npy and parquet"])
def test_a_package_gives_the_vectors_it_carries_and_is_not_run(package: Path, kind: str) -> None:
    data = package / "data"
    if kind.startswith("txt"):
        written(data / f"glove.{kind}", "\n".join(lines_of(WORDS, ARRAY)))
    elif kind == "npz":
        np.savez(data / "glove.npz", words=np.array(WORDS), vectors=ARRAY)
    else:
        np.save(data / "glove.npy", ARRAY)
        (data / "README.txt").write_text("What this is.\n")
        if kind.endswith("txt"):
            (data / "words.txt").write_text("\n".join(WORDS) + "\n")
        elif kind.endswith("json"):
            (data / "words.json").write_text(json.dumps(WORDS))
        else:
            parquet.write_table(pyarrow.table({"index": WORDS}), data / "words.parquet")
    for name in (package.name, package.name.replace("_", "-")):
        vectors = word_vectors(f"package:{name}", only=["n't", "the"])
        assert vectors.words == ("the", "n't")
        assert np.array_equal(vectors.array, ARRAY[[0, 2]])


def test_a_package_with_no_vectors_or_several_is_refused_and_tells_what_is_there(package: Path) -> None:
    with pytest.raises(mx.MixError, match=r"0 files of vectors.*there are LICENSE\.txt, __init__\.py"):
        word_vectors(f"package:{package.name}")
    for size in (2, 3):
        written(package / "data" / f"v{size}.txt", "\n".join(lines_of(WORDS, np.ones((3, size)))))
    with pytest.raises(mx.MixError, match=r"2 files of vectors.*there are data/v2\.txt, data/v3\.txt"):
        word_vectors(f"package:{package.name}")
    assert word_vectors(f"package:{package.name}/data/v3.txt").array.shape == (3, 3)
    with pytest.raises(mx.MixError, match="0 files of vectors"):
        word_vectors(f"package:{package.name}/data/v4.txt")


def test_an_array_in_a_package_needs_one_list_of_words(package: Path) -> None:
    np.save(package / "data" / "glove.npy", ARRAY)
    with pytest.raises(mx.MixError, match="0 lists of 3 words"):
        word_vectors(f"package:{package.name}")
    for name in ("a.txt", "b.txt"):
        (package / "data" / name).write_text("\n".join(WORDS))
    with pytest.raises(mx.MixError, match=r"2 lists of 3 words.*there are a\.txt, b\.txt"):
        word_vectors(f"package:{package.name}")


def tokenizer() -> Any:
    return Tokenizer(WordPiece({"[PAD]": 0, "[UNK]": 1, "the": 2, "##s": 3}, unk_token="[UNK]"))


class Model(torch.nn.Module):
    """As models of Hugging Face are: the matrix is larger than the vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(8, 3, dtype=torch.bfloat16)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.words


def test_a_model_gives_its_own_matrix_with_the_tokens_of_its_tokenizer() -> None:
    model = Model()
    expected = model.words.weight.detach().float().numpy()
    for source in (model, model.words):
        vectors = word_vectors(source, tokenizer=tokenizer())
        assert vectors.words == ("[PAD]", "[UNK]", "the", "##s")
        assert np.array_equal(vectors.array, expected[:4])
    vocabulary = Vocabulary(["a", "b"])
    assert word_vectors(model, tokenizer=vocabulary).words == ("<pad>", "<unk>", "a", "b")
    assert word_vectors(model, tokenizer=["x", "y"], only=["y"]).array.tolist() == expected[1:2].tolist()
    before = vectors.array.copy()
    torch.nn.init.zeros_(model.words.weight)
    assert np.array_equal(vectors.array, before)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (torch.nn.Embedding(2, 2), {}, "give its tokenizer"),
        (torch.nn.Conv1d(1, 1, 1), {"tokenizer": ["a"]}, "Conv1d, expected a path"),
        (torch.nn.Embedding(2, 2), {"tokenizer": 3}, "tokenizer is int, expected"),
        (7, {}, "int, expected a path"),
        ("package:no-such-package-here", {}, "no package 'no-such-package-here' is installed"),
        ("package:../etc", {}, "no package"),
        ((["a"], np.eye(2)), {}, "1 words and 2 vectors"),
        ((["a"], np.array([[np.nan, 1]])), {}, "vector of 'a' is not finite"),
        ((["a"], np.ones(2)), {}, "expected .n, D. floats"),
        (([3], np.ones((1, 2))), {}, "word 0 is int"),
        ((["a"], np.eye(1)), {"only": ["b"]}, "no word is left of those in only="),
        ((["a"], np.eye(1)), {"only": "a"}, "only='a'"),
        ((["a"], np.eye(1)), {"broken": "ignore"}, "broken='ignore'"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        word_vectors(source, **options)


@given(
    known=st.sets(st.integers(0, 9), min_size=1), seed=st.integers(0, 9), unknown=st.sampled_from(["normal", "uniform"])
)
def test_a_matrix_holds_the_known_vectors_zero_padding_and_a_draw_for_the_rest(
    known: set[int], seed: int, unknown: str
) -> None:
    words = [f"w{i}" for i in range(10)]
    counts = list(range(1, 11))
    held = sorted(known, reverse=True)
    vectors = WordVectors([words[i] for i in held], np.random.default_rng(1).normal(size=(len(held), 6)))
    matrix, coverage = vectors.matrix(Vocabulary(words, counts), np.random.default_rng(seed), unknown=unknown)
    assert matrix.shape == (12, 6)
    assert matrix.dtype == np.float32
    assert not matrix[0].any()
    for i in range(10):
        if i in known:
            assert np.array_equal(matrix[i + 2], vectors.array[held.index(i)])
    drawn = np.array([1, *(i + 2 for i in range(10) if i not in known)])
    rng = np.random.default_rng(seed)
    size = (len(drawn), 6)
    expected = rng.normal(0, vectors.array.std(), size) if unknown == "normal" else rng.uniform(-0.25, 0.25, size)
    assert np.allclose(matrix[drawn], expected, rtol=1e-5)
    assert (coverage.known_types, coverage.types) == (len(known), 10)
    assert (coverage.known_tokens, coverage.tokens) == (sum(i + 1 for i in known), 55)


def test_a_padding_token_of_the_file_is_no_padding_of_ours() -> None:
    vectors = WordVectors(["<pad>", "<unk>", "a"], np.ones((3, 2)) * 5)
    matrix, coverage = vectors.matrix(Vocabulary(["a"]), np.random.default_rng(0))
    assert matrix[0].tolist() == [0, 0]
    assert (matrix[1] != 5).all()
    assert coverage.types == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda v: v.matrix(Vocabulary(["The"]), np.random.default_rng(0)), "none of the 1 words.*'The'.*case"),
        (lambda v: v.matrix(Vocabulary(["a"]), np.random.default_rng(0), unknown="zero"), "unknown='zero'"),
        (lambda v: v.matrix(["a"], np.random.default_rng(0)), "got list, expected a Vocabulary"),
        (lambda v: v.matrix(Vocabulary(["a"]), 7), "rng is int, expected a generator"),
        (lambda v: WordVectors(["a", "a"], np.eye(2)), "1 of them different"),
        (lambda v: WordVectors(["a"], np.eye(2)), "1 words and 2 vectors"),
        (lambda v: WordVectors(["a"], [[float("inf")]]), "not finite"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(make: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        make(WordVectors(["a"], np.eye(1)))


def test_vectors_print_their_size() -> None:
    assert repr(WordVectors(["a", "b"], np.ones((2, 3)))) == "<WordVectors: 2 of 3 numbers>"
