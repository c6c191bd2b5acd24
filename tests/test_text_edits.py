"""AEDA and EDA: what stays of a sentence, what comes to it, and that the key of a sample decides alone."""

from __future__ import annotations

import pickle
import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading import more_workers
from mixops.pipelines import KeyedBatchSampler, keyed
from mixops.pipelines.text import AEDA, EDA, NearestWords, Sentences, TokenizeStage, Vocabulary, WordVectors, text_stage
from torch.utils.data import DataLoader

import mixops as mx

MARKS = (".", ";", "?", ":", "!", ",")
SYNONYMS = {f"w{i}": [f"s{i}", f"t{i}"] for i in range(0, 40, 2)}
WORDS = st.lists(st.integers(0, 39).map("w{}".format), max_size=25)
SHARES = st.sampled_from([0, 0.1, 0.29, 0.3, 1])
SEEDS = st.integers(0, 2**32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(WORDS, SHARES, SEEDS)
def test_aeda_keeps_the_words_and_their_order_and_puts_single_marks_before_some(
    words: list[str], share: float, seed: int
) -> None:
    before = list(words)
    made = AEDA(share)(words, rng=rng(seed))
    assert words == before
    assert [w for w in made if w not in MARKS] == words
    inserted = len(made) - len(words)
    assert (1 <= inserted <= min(int(round(share * len(words), 6)) + 1, len(words))) if words else inserted == 0
    # A mark stands before a word: never last, never beside another.
    assert all(a not in MARKS or b not in MARKS for a, b in pairwise([*made, "."] if made else []))
    assert AEDA(share)(" ".join(words), rng=rng(seed)) == " ".join(made)


def test_aeda_draws_every_number_of_marks_every_place_and_every_mark_alike() -> None:
    words, made = [f"w{i}" for i in range(10)], rng()
    lines = [AEDA()(words, rng=made) for _ in range(6000)]
    counts = np.bincount([len(line) - 10 for line in lines], minlength=5)[1:] / 6000
    np.testing.assert_allclose(counts, 0.25, atol=0.03)
    places = [line[i + 1] for line in lines for i in range(len(line)) if line[i] in MARKS]
    np.testing.assert_allclose([places.count(w) / len(places) for w in words], 0.1, atol=0.02)
    marks = [word for line in lines for word in line if word in MARKS]
    np.testing.assert_allclose([marks.count(m) / len(marks) for m in MARKS], 1 / 6, atol=0.02)


@given(WORDS, SHARES, SEEDS)
def test_eda_deletes_words_in_order_and_leaves_one(words: list[str], share: float, seed: int) -> None:
    made = EDA(share=share, operations=["delete"])(words, rng=rng(seed))
    rest = iter(words)
    assert all(word in rest for word in made)
    assert bool(made) == bool(words)
    assert share != 0 or made == words
    assert share != 1 or len(made) == min(len(words), 1)


@given(WORDS, SHARES, SEEDS)
def test_eda_swaps_words(words: list[str], share: float, seed: int) -> None:
    made = EDA(share=share, operations=["swap"])(words, rng=rng(seed))
    many = max(int(round(share * len(words), 6)), 1)
    assert sorted(made) == sorted(words)
    assert sum(a != b for a, b in zip(made, words, strict=True)) <= 2 * many


@given(WORDS, SHARES, SEEDS, st.sets(st.integers(0, 39).map("w{}".format), max_size=10))
def test_eda_replaces_words_by_their_synonyms(words: list[str], share: float, seed: int, keep: set[str]) -> None:
    made = EDA(SYNONYMS, share=share, operations=["replace"], keep=keep)(words, rng=rng(seed))
    changed = [(a, b) for a, b in zip(words, made, strict=True) if a != b]
    assert all(b in SYNONYMS[a] and a not in keep for a, b in changed)
    able = sum(w in SYNONYMS and w not in keep for w in words)
    assert len(changed) == min(max(int(round(share * len(words), 6)), 1), able)


@given(WORDS, SHARES, SEEDS)
def test_eda_inserts_synonyms_of_words_that_are_there(words: list[str], share: float, seed: int) -> None:
    made = EDA(SYNONYMS.get, share=share, operations=["insert"])(words, rng=rng(seed))
    added = [w for w in made if not w.startswith("w")]
    assert [w for w in made if w.startswith("w")] == words
    assert all(any(w in SYNONYMS.get(old, ()) for old in words) for w in added)
    able = any(w in SYNONYMS for w in words)
    assert len(added) == (max(int(round(share * len(words), 6)), 1) if able else 0)


def test_every_operation_is_as_likely() -> None:
    eda, made, words = EDA(SYNONYMS, share=0.5), rng(), ["w0", "w2", "w4", "w6"]
    kinds = {"replace": 0, "insert": 0, "other": 0}
    for _ in range(4000):
        line = eda(words, rng=made)
        fresh = any(not w.startswith("w") for w in line)
        kinds["insert" if len(line) > 4 else "replace" if fresh else "other"] += 1
    np.testing.assert_allclose([kinds[k] / 4000 for k in kinds], [0.25, 0.25, 0.5], atol=0.03)
    assert EDA().operations == ("swap", "delete")


@pytest.mark.parametrize("edit", [AEDA(), EDA(), EDA(SYNONYMS)])
def test_sentences_without_words_and_of_one_stay_sentences(edit: Any) -> None:
    assert edit("", rng=rng()) == ""
    assert edit("  ", rng=rng()) == "  "
    assert edit([], rng=rng()) == []
    for seed in range(20):
        assert edit("w1", rng=rng(seed)).split()[-1] == "w1"  # it has no synonym


VECTORS = WordVectors(
    ["north", "nearly", "east", "zero", "south", "twice"], [[0, 1], [0.1, 1], [1, 0], [0, 0], [0, -1], [0, 2]]
)


def test_nearest_words_are_those_of_the_highest_cosine() -> None:
    assert NearestWords(VECTORS)("north") == ["twice", "nearly"]
    assert NearestWords(VECTORS, count=1)("nearly") == ["north"]  # twice is as near, and comes later
    assert NearestWords(VECTORS, least=-1)("north") == ["twice", "nearly", "east", "zero", "south"]
    assert NearestWords(VECTORS)("zero") == NearestWords(VECTORS)("west") == []
    made = rng().normal(size=(200, 8))
    words = [str(i) for i in range(200)]
    unit = made / np.linalg.norm(made, axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit[5]), kind="stable")
    assert NearestWords(WordVectors(words, made), 7, -1)("5") == [words[i] for i in order if i != 5][:7]
    assert NearestWords(WordVectors(["one"], [[1.0]]))("one") == []


def test_vectors_serve_as_synonyms() -> None:
    made = {EDA(VECTORS, operations=["replace"])("north", rng=rng(seed)) for seed in range(20)}
    assert made == {"twice", "nearly"}


TEXT = "w0 w1 w2 w3 w4 w5 w6 w7 w8"
DATA = Sentences([TEXT] * 12, np.arange(12) % 2, ["neg", "pos"])


def texts_of(samples: Any) -> list[str]:
    return [sample["text"] for sample in samples]


@more_workers
@pytest.mark.parametrize("edit", [AEDA(), EDA(SYNONYMS, share=0.4)])
def test_the_key_of_a_sample_decides_in_any_number_of_workers(edit: Any) -> None:
    epochs = {}
    for workers in (0, 2):
        loader = DataLoader(
            keyed(DATA, stage=text_stage(edit, seed=7)),
            batch_sampler=KeyedBatchSampler(range(12), 3),
            collate_fn=texts_of,
            num_workers=workers,
        )
        epochs[workers] = [[text for batch in loader for text in batch] for _ in range(2)]
    assert epochs[0] == epochs[2]
    first, second = epochs[0]
    assert first != second
    assert len(set(first)) > 6


def test_a_stage_of_ours_reads_no_global_generator_and_leaves_them_alone() -> None:
    stage = text_stage(AEDA(), seed=7)
    before = random.getstate(), str(np.random.get_state())  # noqa: NPY002
    first = stage({"text": TEXT}, 0, 3)
    assert (random.getstate(), str(np.random.get_state())) == before  # noqa: NPY002
    random.seed(1)
    assert stage({"text": TEXT}, 0, 3) == first
    assert pickle.loads(pickle.dumps(stage))({"text": TEXT}, 0, 3) == first
    assert repr(stage) == "PerSample(AEDA, seed=7, field='text')"


def test_edited_sentences_become_ids() -> None:
    vocabulary = Vocabulary.of([TEXT, " ".join(MARKS)])
    data = keyed(DATA, stage=[text_stage(AEDA(), seed=7), TokenizeStage(vocabulary)])
    (sample,) = data.__getitems__(next(iter(KeyedBatchSampler(range(12), 1))))
    assert len(sample["input_ids"]) > 9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AEDA(1.5), "number from 0 to 1"),
        (lambda: AEDA("0.3"), "number from 0 to 1"),  # type: ignore[arg-type]
        (lambda: AEDA(marks=[]), "one mark or more"),
        (lambda: AEDA(marks=["a b"]), "with a blank"),
        (lambda: AEDA(marks=".,"), "a list of marks"),
        (lambda: AEDA()(3, rng=rng()), "expected a sentence or a list"),  # type: ignore[call-overload]
        (lambda: AEDA()(["a", 3], rng=rng()), "expected a sentence or a list"),
        (lambda: AEDA()("a", rng=7), "expected a numpy.random.Generator"),
        (lambda: EDA(share=-0.1), "number from 0 to 1"),
        (lambda: EDA(operations=["replace"]), "need synonyms"),
        (lambda: EDA(operations=[]), "expected some of"),
        (lambda: EDA(operations="swap"), "expected some of"),
        (lambda: EDA(operations=["shuffle"]), "expected some of"),
        (lambda: EDA(3), "int, expected a mapping"),
        (lambda: EDA({}, keep="the"), "list or set of words"),
        (lambda: EDA({"a": "b"}, operations=["insert"])("a", rng=rng()), "synonyms of 'a' are 'b'"),
        (lambda: EDA(lambda w: 3, operations=["insert"])("a", rng=rng()), "synonyms of 'a' are 3"),
        (lambda: NearestWords({"a": 1}), "expected WordVectors"),
        (lambda: NearestWords(VECTORS, 0), "1 or more"),
        (lambda: NearestWords(VECTORS, least=2), "from -1 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        make()
