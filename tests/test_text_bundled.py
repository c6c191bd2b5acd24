"""The questions that come with the library: all there, all different, and neither trivial nor out of reach."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
from mixops.pipelines.text.bundled import questions
from mixops.pipelines.text.vocabulary import Vocabulary, tokenize

DATA = questions()


def test_there_are_eighty_questions_of_each_class() -> None:
    assert DATA.classes == ("number", "person", "place", "reason", "thing", "time")
    assert np.bincount(DATA.labels).tolist() == [80] * 6


def test_no_question_is_there_twice_even_in_other_spelling() -> None:
    spelled = {" ".join(word for word in tokenize(text) if word.isalnum()) for text in DATA.texts}
    assert len(spelled) == 480


def test_questions_have_3_to_25_words_and_are_of_every_kind_of_length() -> None:
    words = np.array([len(text.split()) for text in DATA.texts])
    assert (words.min(), words.max()) == (3, 25)
    assert np.percentile(words, 10) <= 6 < 12 <= np.percentile(words, 90)
    for label in range(6):
        assert words[label == DATA.labels].min() <= 5
        assert words[label == DATA.labels].max() >= 15


def test_questions_are_plain_sentences() -> None:
    for text in DATA.texts:
        assert text.isascii(), text
        assert text.isprintable(), text
        assert text == text.strip(), text
        assert text[0].isupper(), text
        assert text[-1] in ".?", text
        assert "  " not in text, text


def test_the_file_is_part_of_the_package() -> None:
    lines = (files("mixops.pipelines.text") / "questions.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "kind\tquestion"
    assert [line.split("\t")[1] for line in lines[1:]] == list(DATA.texts)


def majority(keys: list[str], seed: int) -> float:
    """Test accuracy of whoever looks only at these keys, and says what was most frequent with them in training."""
    chosen = {DATA[i]["text"]: key for i, key in enumerate(keys)}
    train, test = DATA.split(240, seed)
    seen: dict[str, np.ndarray] = {}
    for text, label in zip(train.texts, train.labels, strict=True):
        seen.setdefault(chosen[text], np.zeros(6))[label] += 1
    right = [seen.get(chosen[t], np.zeros(6)).argmax() == y for t, y in zip(test.texts, test.labels, strict=True)]
    return float(np.mean(right))


@pytest.mark.parametrize("seed", range(3))
def test_the_first_word_tells_more_than_chance_and_far_from_all(seed: int) -> None:
    first = [tokenize(text)[0] for text in DATA.texts]
    assert 0.3 < majority(first, seed) < 0.75


def test_half_of_the_questions_know_most_words_of_the_other_half() -> None:
    train, test = DATA.split(240, 0)
    vocabulary = Vocabulary.of(train.texts)
    known = np.concatenate([np.asarray(vocabulary.encode(text)) != 1 for text in test.texts])
    assert 0.6 < known.mean() < 0.9
