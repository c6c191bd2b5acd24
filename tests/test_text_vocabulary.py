"""Words and their numbers: how text is split, what is counted, and what comes back from a file."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines.text import Coverage, Sentences, TokenizedSentences, Vocabulary, tokenize

import mixops as mx

words_of = st.lists(st.text("abcdé", min_size=1, max_size=3), min_size=1, max_size=12)
texts_of = st.lists(words_of.map(" ".join), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("It's good, isn't it?", "it 's good , is n't it ?"),
        ("Don’t “shout”!", 'do n\'t " shout " !'),  # noqa: RUF001
        ("They'd've gone.", "they 'd 've gone ."),
        ("the actors' (best) work...", "the actors ' ( best ) work ..."),
        ("'quoted', he said", "' quoted ' , he said"),
        ("get 'em, cowboy", "get 'em , cowboy"),
        ("(the U.S.) and Mr. Bean", "( the u.s. ) and mr. bean"),
        ("back in the '70s", "back in the '70s"),
        ("pays $1,000.50; that is 5%", "pays $ 1,000.50 ; that is 5 %"),
        ("well-made and/or re-imagined", "well-made and/or re-imagined"),
        ("what?! ... no!!", "what ? ! ... no !!"),
        ("crème brûlée", "crème brûlée"),
    ],
)
def test_text_is_split_as_in_the_vocabularies_of_glove(text: str, tokens: str) -> None:
    assert tokenize(text) == tokens.split()


@pytest.mark.parametrize(
    "text",
    [
        "they presume their audience wo n't sit still , however entertainingly presented , so they trot out",
        "` how many more voyages can this limping but dearly-loved franchise survive ? '",
        "director 's cut -- the players ' best , says j. r. smith of u.s. fame . ''",
        "-lrb- a ... film -rrb- : rock 'n' roll , 3,000 years ; 1.5 etc. \" 'tis \"",
    ],
)
def test_text_that_is_split_already_comes_out_as_it_is(text: str) -> None:
    assert tokenize(text) == text.split()
    assert tokenize(text.upper()) == text.split()


@given(st.text())
def test_no_character_is_lost_and_no_token_is_empty_whatever_the_text(text: str) -> None:
    tokens = tokenize(text)
    straight = text.translate(str.maketrans("‘’“”", "''\"\""))  # noqa: RUF001
    assert "".join(tokens) == "".join(straight.lower().split())
    assert all(tokens)
    assert tokenize(" ".join(tokens)) == [t for token in tokens for t in tokenize(token)]


@given(texts=texts_of, least=st.integers(0, 3), most=st.none() | st.integers(0, 5))
def test_words_are_kept_by_their_count_frequent_ones_first(texts: list[str], least: int, most: int | None) -> None:
    counted = Counter(word for text in texts for word in text.split())
    vocabulary = Vocabulary.of(texts, least, most)
    kept = sorted((w for w, n in counted.items() if n >= least), key=lambda w: (-counted[w], w))[:most]
    assert vocabulary.words == ("<pad>", "<unk>", *kept)
    assert vocabulary.counts == (0, 0, *(counted[word] for word in kept))
    assert all((word in vocabulary) == (word in kept) for word in counted)
    assert len(vocabulary) == len(kept) + 2


@given(texts=texts_of, least=st.integers(1, 3))
def test_known_words_come_back_from_their_numbers_and_the_rest_are_unknown(texts: list[str], least: int) -> None:
    vocabulary = Vocabulary.of(texts, least)
    for text in texts:
        ids = vocabulary.encode(text)
        assert ids.dtype == "int64"
        assert vocabulary.decode(ids) == [w if w in vocabulary else "<unk>" for w in text.split()]
        assert vocabulary.decode([*ids, 0, 0]) == vocabulary.decode(ids)


@given(texts=texts_of, others=texts_of, least=st.integers(1, 3))
def test_coverage_counts_tokens_and_types(texts: list[str], others: list[str], least: int) -> None:
    vocabulary = Vocabulary.of(texts, least)
    coverage = vocabulary.coverage(others)
    tokens = [word for text in others for word in text.split()]
    unknown = [word for word in tokens if vocabulary.encode(word)[0] == 1]
    assert (coverage.tokens, coverage.unknown_tokens) == (len(tokens), len(unknown))
    assert (coverage.types, coverage.unknown_types) == (len(set(tokens)), len(set(unknown)))
    assert f"{coverage.known_tokens} of {len(tokens)} tokens" in str(coverage)


def test_coverage_of_nothing_prints() -> None:
    assert str(Coverage(0, 0, 0, 0)) == "0 of 0 words known (0.0 %), 0 of 0 tokens (0.0 %)"


@given(texts=texts_of)
def test_a_saved_vocabulary_loads_with_words_counts_and_numbers(tmp_path_factory: Any, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("words") / "words.json"
    vocabulary = Vocabulary.of(texts)
    vocabulary.save(path)
    loaded = Vocabulary.load(path)
    assert (loaded.words, loaded.counts) == (vocabulary.words, vocabulary.counts)
    assert loaded.encode(texts[0]).tolist() == vocabulary.encode(texts[0]).tolist()


def test_a_callable_of_the_users_splits_the_text_and_has_to_come_again_after_a_load(tmp_path: Path) -> None:
    vocabulary = Vocabulary.of(["It's", "It's so"], tokenize=str.split)
    assert vocabulary.words[2:] == ("It's", "so")
    assert vocabulary.encode("so It's it's").tolist() == [3, 2, 1]
    vocabulary.save(tmp_path / "words.json")
    with pytest.raises(mx.MixError, match=r"tokenize=\.\.\."):
        Vocabulary.load(tmp_path / "words.json")
    loaded = Vocabulary.load(tmp_path / "words.json", tokenize=str.split)
    assert loaded.encode("It's").tolist() == [2]


def test_a_vocabulary_reaches_spawned_workers() -> None:
    vocabulary = Vocabulary.of(["so good"])
    assert pickle.loads(pickle.dumps(vocabulary)).encode("good").tolist() == vocabulary.encode("good").tolist()


def saved(**change: Any) -> str:
    content = {"format": "mixops.vocabulary", "version": 1, "own_tokenize": False, "words": ["a"], "counts": [1]}
    return json.dumps({**content, **change})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no vocabulary"),
        ("[]", "no vocabulary"),
        ('{"words": []}', "no vocabulary"),
        (saved(version=2), "version 2"),
        (saved(words="a"), "lists"),
        (saved(words=["a", "a"], counts=[1, 1]), "'a' is there twice"),
        (saved(words=[3]), r"words\[0\]=3"),
        (saved(counts=[1, 2]), "1 words and 2 counts"),
        (saved(counts=[-1]), "counts=-1"),
        ("\udcff", "no vocabulary"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "words.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(mx.MixError, match=message):
        Vocabulary.load(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vocabulary(["a", "a"]), "twice"),
        (lambda: Vocabulary(["a", ""]), r"words\[1\]=''"),
        (lambda: Vocabulary(["<pad>"]), "<pad>"),
        (lambda: Vocabulary(["a"], [1, 2]), "1 words and 2 counts"),
        (lambda: Vocabulary(["a"], tokenize=3), "tokenize is int"),  # type: ignore[arg-type]
        (lambda: Vocabulary.of("one text"), "got one text"),
        (lambda: Vocabulary.of(DATA), "got Sentences, expected several: a list, or Sentences.texts"),
        (lambda: Vocabulary.of(["a", None]), "text 1 is NoneType"),  # type: ignore[list-item]
        (lambda: Vocabulary.of(None), "got NoneType, expected several"),  # type: ignore[arg-type]
        (lambda: Vocabulary.of(["a"], tokenize=3), "tokenize is int"),  # type: ignore[arg-type]
        (lambda: Vocabulary(["a"]).encode(["a"]), "got list, expected a text"),  # type: ignore[arg-type]
        (lambda: TokenizedSentences(["a"], Vocabulary(["a"])), "got list, expected Sentences"),  # type: ignore[arg-type]
        (lambda: Vocabulary.of(["a"], min_count=-1), "min_count=-1"),
        (lambda: Vocabulary.of(["a"], most=1.5), "most=1.5"),  # type: ignore[arg-type]
        (lambda: Vocabulary(["a"]).encode(" \n"), "no tokens"),
        (lambda: Vocabulary(["a"]).decode([3]), "id 3, expected 0 to 2"),
        (lambda: Vocabulary(["a"]).decode([-1]), "id=-1"),
        (lambda: Vocabulary(["a"]).coverage("a"), "got one text"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        make()


DATA = Sentences(["so good", "dull", "so so dull"], [1, 0, 0], ["neg", "pos"])


def test_tokenized_sentences_hold_ids_labels_and_lengths() -> None:
    rows = TokenizedSentences(DATA, Vocabulary(["so", "dull"]))
    assert len(rows) == 3
    assert [(rows[i]["input_ids"].tolist(), rows[i]["label"]) for i in range(3)] == [
        ([2, 1], 1),
        ([3], 0),
        ([2, 2, 3], 0),
    ]
    assert rows.lengths.tolist() == [2, 1, 3]
    assert rows.classes == ("neg", "pos")


def test_any_callable_of_a_text_may_give_the_ids() -> None:
    rows = TokenizedSentences(DATA, lambda text: [len(word) for word in text.split()])
    assert rows[2]["input_ids"].tolist() == [2, 2, 4]


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (lambda text: [] if text == "dull" else [1], "row 1: a sentence with no tokens, 'dull'"),
        (Vocabulary([], tokenize=lambda text: text.split("dull")[:-1]), "row 0: .*no tokens"),
        (lambda text: [0.5], "row 0: ids of float64"),
        (lambda text: [3, -1], "row 0: the id -1, expected 0 or more"),
        (lambda text: [[1]], r"row 0: ids of int64 and shape \(1, 1\)"),
        (7, "int cannot encode"),
    ],
)
def test_a_sentence_without_ids_is_named(vocabulary: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        TokenizedSentences(DATA, vocabulary)
