"""Taggers: entity scores against hand counts and a count of our own, soft tags that reach the weights, padding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines.corpus import MixedSentence, TaggedCorpus, TaggedSentence
from mixops.pipelines.tagging import (
    TaggerLSTM,
    entity_scores,
    forms_of,
    likeliest,
    predict_tags,
    soft_cross_entropy,
    train_tagger,
)
from mixops.pipelines.tagging.batches import tag_batch, target_rows
from mixops.pipelines.tagging.forms import CHARACTERS, SHAPES, WIDTH
from mixops.pipelines.tagging.learners import WordTagger
from mixops.pipelines.text import WordVectors
from torch import nn
from torch.nn import functional as F

import mixops as mx

TAGS = ("O", "B-LOC", "B-PER", "I-PER")
ROWS = [
    (("Ann", "Lee", "sings", "in", "Rome"), ("B-PER", "I-PER", "O", "O", "B-LOC")),
    (("Bob", "was", "in", "Oslo", "."), ("B-PER", "O", "O", "B-LOC", "O")),
    (("nobody", "sings"), ("O", "O")),
    (("Eve",), ("B-PER",)),
]
DATA = TaggedCorpus([TaggedSentence(*row) for row in ROWS] * 4, TAGS)


def mixed(tokens: Any, soft: Any, tags: Any = None) -> MixedSentence:
    rows = np.asarray(soft, np.float32)
    names = [TAGS[i] for i in rows.argmax(1)] if tags is None else tags
    return MixedSentence(tokens, names, rows, window=(0, len(tokens)), parents=(0, 1), lam=0.5)


def weights(run: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


# -- entity scores -----------------------------------------------------------------------------------------------------


def test_scores_of_a_page_counted_by_hand() -> None:
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG", "O"]]
    found = [["B-PER", "I-PER", "O", "B-PER"], ["O", "B-ORG", "I-ORG"]]
    scores = entity_scores(true, found)
    assert (scores.precision, scores.recall, scores.f1, scores.support) == (1 / 3, 1 / 3, pytest.approx(1 / 3), 3)
    assert scores.types["PER"].precision == 0.5
    assert scores.types["PER"].recall == 1.0
    assert scores.types["LOC"].f1 == 0.0
    assert {name: one.support for name, one in scores.types.items()} == {"LOC": 1, "ORG": 1, "PER": 1}


def test_an_inside_tag_that_continues_nothing_is_an_entity_for_conll_and_none_if_strict() -> None:
    true, found = [["O", "B-PER"]], [["I-PER", "B-PER"]]
    assert entity_scores(true, found).precision == 0.5
    assert entity_scores(true, found, mode="strict").precision == 1.0


def spans(rows: list[list[str]]) -> set[tuple[int, int, int, str]]:
    """Entities of BIO2 tags, strictly: B- and the I- of its type behind it."""
    found = set()
    for place, row in enumerate(rows):
        for start, tag in enumerate(row):
            if tag.startswith("B-"):
                stop = start + 1
                while stop < len(row) and row[stop] == f"I-{tag[2:]}":
                    stop += 1
                found.add((place, start, stop, tag[2:]))
    return found


tags = st.sampled_from(["O", "B-A", "I-A", "B-C", "I-C"])


@given(st.lists(st.lists(st.tuples(tags, tags), min_size=1, max_size=7), min_size=1, max_size=4))
def test_strict_scores_are_those_of_sets_of_spans(pairs: list[list[tuple[str, str]]]) -> None:
    true, found = ([[pair[side] for pair in row] for row in pairs] for side in (0, 1))
    scores, a, b = entity_scores(true, found, mode="strict"), spans(true), spans(found)
    assert scores.support == len(a)
    assert scores.precision == pytest.approx(len(a & b) / len(b) if b else 0)
    assert scores.recall == pytest.approx(len(a & b) / len(a) if a else 0)
    whole = scores.precision + scores.recall
    assert scores.f1 == pytest.approx(2 * scores.precision * scores.recall / whole if whole else 0)


@pytest.mark.parametrize("mode", ["conll", "strict"])
@pytest.mark.parametrize(("true", "found"), [([["O"]], [["O"]]), ([["B-A"]], [["O"]]), ([["O"]], [["B-A"]])])
def test_without_an_entity_on_a_side_scores_are_zero_and_nothing_warns(mode: str, true: Any, found: Any) -> None:
    scores = entity_scores(true, found, mode=mode)
    assert (scores.precision, scores.recall, scores.f1) == (0, 0, 0)
    assert scores.support == (true == [["B-A"]])


@pytest.mark.parametrize(
    ("true", "found", "mode", "said"),
    [
        ([["O", "O"]], [["O"]], "conll", "row 0 has 2 true and 1 predicted"),
        ([["O"]], [], "conll", "1 true and 0 predicted rows"),
        ([["NN"]], [["NN"]], "conll", "tag 'NN'"),
        ([["O"]], [["B-"]], "conll", "predicted, row 0: tag 'B-'"),
        (["O"], [["O"]], "conll", "true is text"),
        ([["O"]], [["O"]], "loose", "mode='loose'"),
    ],
)
def test_tags_that_do_not_fit_are_refused(true: Any, found: Any, mode: str, said: str) -> None:
    with pytest.raises(mx.MixError, match=said):
        entity_scores(true, found, mode=mode)


# -- what is learnt ----------------------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 99))
def test_the_loss_of_one_hot_rows_is_that_of_ids(words: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(words, classes)))
    ids = torch.from_numpy(rng.integers(0, classes, words))
    torch.testing.assert_close(
        soft_cross_entropy(logits, torch.eye(classes).double()[ids]), F.cross_entropy(logits, ids)
    )


def test_the_loss_of_soft_rows_is_the_share_of_each_tag_and_its_gradient_is_that_of_a_softmax() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    targets = torch.tensor([[0.7, 0.3, 0, 0], [0, 0, 1, 0], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    loss = soft_cross_entropy(logits, targets)
    by_tag = sum(
        targets[:, c] * F.cross_entropy(logits, torch.full((3,), c), reduction="none") for c in range(4)
    ).mean()  # type: ignore[union-attr]
    torch.testing.assert_close(loss, by_tag)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logits.grad, (logits.detach().softmax(1) - targets) / 3)


def test_sentences_with_one_hot_soft_tags_train_as_those_with_tags() -> None:
    extra = [TaggedSentence(*row) for row in ROWS]
    soft = [mixed(one.tokens, target_rows(one, TAGS, "a row")) for one in extra]
    first, second = (train_tagger(DATA, DATA, augmented=rows, epochs=2, seed=3) for rows in (extra, soft))
    assert first.loss.tolist() == second.loss.tolist()
    assert all(torch.equal(a, b) for a, b in zip(weights(first).values(), weights(second).values(), strict=True))


def test_soft_tags_reach_every_weight_of_the_network_and_are_learnt() -> None:
    share = [[0, 0.25, 0.75, 0], [1, 0, 0, 0]]
    rows = [mixed(("Zoe", "sings"), share)] * 30
    few = DATA.take([2])
    before = train_tagger(few, augmented=rows, epochs=1, lr=1e-12, seed=0)
    after = train_tagger(few, augmented=rows, epochs=30, lr=1e-2, batch_size=8, seed=0)
    moved = {n: not torch.allclose(a, b, atol=1e-6) for (n, a), b in zip(
        weights(before).items(), weights(after).values(), strict=True)}  # fmt: skip
    assert all(moved.values()), moved
    assert np.abs(after.predict([("Zoe", "sings")])[0] - share).max() < 0.05


def test_a_tagger_learns_its_sentences_and_says_what_it_did() -> None:
    run = train_tagger(DATA, DATA, epochs=25, batch_size=4, every=10, seed=1)
    assert run.epochs.tolist() == [10, 20, 25]
    assert run.scores is not None
    assert run.f1[-1] == run.scores.f1 == 1.0
    assert run.accuracy[-1] == 1.0
    assert run.loss[-1] < run.loss[0] / 4
    assert [len(one) for one in run.probs] == [len(one.tokens) for one in DATA]
    assert likeliest(run.probs, TAGS) == run.tags(DATA) == [one.tags for one in DATA]
    assert run.config["train"] == len(DATA)
    assert run.config["epochs"] == 25
    assert not run.model.training
    run.model.train()
    run.model.embedding.eval()  # as one who keeps a part of it frozen
    run.predict(DATA)
    assert run.model.training
    assert not run.model.embedding.training
    run.model.eval()
    own = np.concatenate([p[np.arange(len(p)), DATA.tag_ids(i)] for i, p in enumerate(run.probs)])
    assert run.nll[-1] == pytest.approx(-np.log(own).mean())


def test_a_run_depends_on_its_seed_and_leaves_torch_as_it_was() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    runs = [train_tagger(DATA, DATA, epochs=2, seed=seed) for seed in (5, 5, 6)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert runs[0].loss.tolist() == runs[1].loss.tolist() != runs[2].loss.tolist()
    assert np.array_equal(np.concatenate(runs[0].probs), np.concatenate(runs[1].probs))


def test_without_test_sentences_nothing_is_measured_and_every_0_measures_once() -> None:
    run = train_tagger(DATA, epochs=2)
    assert (run.scores, run.probs, run.f1.shape, run.loss.shape) == (None, [], (0,), (2,))
    assert train_tagger(DATA, DATA, epochs=3, every=0).epochs.tolist() == [3]


def test_tags_that_are_no_entities_are_measured_token_by_token() -> None:
    plain = TaggedCorpus([(("it", "ran"), ("PRON", "VERB")), (("she", "sang"), ("PRON", "VERB"))] * 4)
    run = train_tagger(plain, plain, epochs=12, batch_size=2)
    assert run.scores is None
    assert math.isnan(run.f1[-1])
    assert run.accuracy[-1] == 1.0


def test_what_a_sentence_gives_does_not_depend_on_its_batch() -> None:
    run = train_tagger(DATA, epochs=1)
    long = ("so", "long", "a", "sentence", "that", "the", "others", "are", "padded", "a", "lot", ",", "Ann")
    together = predict_tags(run, [("Eve",), long, ("Bob", "was", "in", "Oslo", ".")])
    for one, tokens in zip(together, [("Eve",), long, ("Bob", "was", "in", "Oslo", ".")], strict=True):
        np.testing.assert_allclose(one, predict_tags(run, [tokens])[0], atol=1e-6)
        assert one.shape == (len(tokens), len(TAGS))
        np.testing.assert_allclose(one.sum(1), 1)
    assert predict_tags(run, []) == []


def test_pretrained_vectors_stay_and_words_are_known_as_written_or_in_lower_case() -> None:
    vectors = WordVectors(["ann", "Rome", "rome", "<unk>", "in"], np.eye(5, 6))
    learner = WordTagger([("Ann",)], vectors, 0)
    ids = learner.encode(("Ann", "Rome", "ROME", "Zoe")).inputs["input_ids"]
    assert [learner.vocabulary.words[i] for i in ids] == ["ann", "Rome", "rome", "<unk>"]
    run = train_tagger(DATA, DATA, vectors=vectors, epochs=2)
    assert not run.model.embedding.weight.requires_grad
    np.testing.assert_array_equal(run.model.embedding.weight[2].numpy(), np.eye(5, 6)[0])
    assert run.config["setting"] == "PretrainFix"


def test_masks_end_with_the_sentence_and_targets_follow_the_words() -> None:
    learner = WordTagger((one.tokens for one in DATA), None, 0)
    rows = [DATA[3], DATA[0]]
    batch = tag_batch(
        [learner.encode(one.tokens) for one in rows], learner.fills, [target_rows(one, TAGS, "a row") for one in rows]
    )
    assert batch.inputs["attention_mask"].tolist() == [[1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.rows.tolist() == [0, 1, 1, 1, 1, 1]
    assert batch.words.tolist() == batch.places.tolist() == [0, 0, 1, 2, 3, 4]
    assert batch.targets is not None
    assert [TAGS[i] for i in batch.targets.argmax(1)] == [*rows[0].tags, *rows[1].tags]
    assert batch.inputs["chars"].shape == (2, 5, WIDTH)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), min_size=1, max_size=4))
def test_forms_of_any_word_are_numbers_of_the_tables(tokens: list[str]) -> None:
    shapes, chars = forms_of(tokens)
    assert shapes.min() >= 1
    assert shapes.max() < SHAPES
    assert chars.shape == (len(tokens), WIDTH)
    assert chars.min() >= 0
    assert chars.max() < CHARACTERS
    assert [int((row > 0).sum()) for row in chars] == [min(len(word), WIDTH) for word in tokens]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": ROWS}, "train is list"),
        ({"train": TaggedCorpus([], TAGS)}, "train has no sentence"),
        ({"train": TaggedCorpus([(("a",), ("O",))])}, "two or more"),
        ({"test": TaggedCorpus([(("a",), ("B-ORG",))])}, r"test has the tags \['B-ORG'\]"),
        ({"augmented": [TaggedSentence(("a",), ("B-ORG",))]}, "augmented, sentence 0: tag 'B-ORG'"),
        ({"augmented": [mixed(("a",), [[0.5, 0.5]], ["O"])]}, r"augmented, sentence 0: soft tags of shape \(1, 2\)"),
        ({"augmented": ["a"]}, "augmented, sentence 0 is str"),
        ({"vectors": np.eye(3)}, "vectors is ndarray"),
        ({"model": nn.Linear(1, 1)}, "model is Linear"),
        ({"model": "bert"}, "model='bert', expected \"lstm\", a folder"),
        ({"epochs": 0}, "epochs=0"),
        ({"every": -1}, "every=-1"),
        ({"progress": 3}, "progress=3"),
        ({"threads": 0}, "threads=0"),
        ({"lr": 1e30, "epochs": 5}, "lower lr"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(mx.MixError, match=said):
        train_tagger(**{"train": DATA, "test": DATA, **change})


def test_a_prediction_of_text_or_of_no_token_is_refused() -> None:
    run = train_tagger(DATA, epochs=1)
    with pytest.raises(mx.MixTypeError, match="sentence 1 is str"):
        run.predict([("a",), "a text"])
    with pytest.raises(mx.MixValueError, match="sentence 0 has no token"):
        run.predict([()])


@pytest.mark.parametrize(
    ("change", "said"),
    [({"embedding": nn.Linear(3, 3)}, "Linear"), ({"embedding": nn.Embedding(3, 3)}, "padding_idx=None"),
     ({"tags": 1}, "tags=1"), ({"hidden": 0}, "hidden=0"), ({"dropout": 1.0}, "dropout=1.0")],
)  # fmt: skip
def test_a_network_of_wrong_parts_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(mx.MixError, match=said):
        TaggerLSTM(**{"embedding": nn.Embedding(3, 3, padding_idx=0), "tags": 2, **change})
