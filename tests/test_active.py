"""Active learning: queries against sums written out, the loop's book-keeping, and going on from a saved state."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mixops.pipelines.active import (
    ActiveRun,
    active_learning,
    disagreement,
    highest,
    least_confidence,
    token_entropy,
)
from mixops.pipelines.corpus import MixedSentence, TaggedCorpus, TaggedSentence

import mixops as mx

TAGS = ("O", "B-PER")
POOL = TaggedCorpus([((f"w{i}", f"n{i % 5}", "."), ("O", "B-PER", "O")) for i in range(40)], TAGS)
TEST = TaggedCorpus([((f"w{i}", f"n{i}"), ("O", "B-PER")) for i in range(5)], TAGS)


def distributions(rng: np.random.Generator, rows: int, classes: int) -> np.ndarray:
    return rng.dirichlet(np.ones(classes), rows)


# -- queries -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(2, 4), st.integers(0, 99))
def test_queries_are_the_sums_of_their_formulas(lengths: list[int], classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    committee = [[distributions(rng, t, classes) for t in lengths] for _ in range(3)]
    probs = committee[0]
    for i, one in enumerate(probs):
        best = math.prod(max(row) for row in one)
        assert least_confidence(probs)[i] == pytest.approx(1 - best)
        assert least_confidence(probs, per_token=True)[i] == pytest.approx(1 - best ** (1 / len(one)))
        entropy = -sum(p * math.log(p) for row in one for p in row if p) / len(one)
        assert token_entropy(probs)[i] == pytest.approx(entropy)
        votes = [[int(member[i][t].argmax()) for member in committee] for t in range(len(one))]
        shares = [[row.count(c) / 3 for c in range(classes)] for row in votes]
        vote_entropy = -sum(v * math.log(v) for row in shares for v in row if v) / len(one)
        assert disagreement(committee)[i] == pytest.approx(vote_entropy)


def test_a_sure_model_scores_zero_and_a_flat_one_the_most() -> None:
    sure, flat = np.array([[1.0, 0.0]] * 3), np.full((3, 2), 0.5)
    assert least_confidence([sure, flat]).tolist() == [0, 1 - 0.5**3]
    assert token_entropy([sure, flat]).tolist() == [0, pytest.approx(math.log(2))]
    assert disagreement([[sure], [sure]]).tolist() == [0]


def test_single_precision_probabilities_are_taken() -> None:
    soft = np.random.default_rng(0).dirichlet(np.ones(9), 50).astype(np.float32)
    assert token_entropy([soft]).dtype == np.float64


def test_the_highest_come_first_and_equal_ones_in_order() -> None:
    assert highest(np.array([1.0, 3.0, 2.0, 3.0, 1.0]), 4).tolist() == [1, 3, 2, 0]
    assert highest(np.zeros(3), 9).tolist() == [0, 1, 2]
    with pytest.raises(mx.MixValueError, match="NaN"):
        highest(np.array([0.0, np.nan]), 1)


@pytest.mark.parametrize(
    ("probs", "said"),
    [
        ([np.ones((2, 2))], "sentence 0 has a row that is no distribution"),
        ([np.ones((1, 1)), np.array([[np.nan, 1.0]])], "sentence 1 has a row"),
        ([np.ones(3)], r"shape \(3,\)"),
        ([np.ones((0, 2))], r"shape \(0, 2\)"),
        ([np.eye(2, dtype=int)], "int64"),
    ],
)
def test_what_are_no_probabilities_is_refused(probs: Any, said: str) -> None:
    for query in (least_confidence, token_entropy, lambda one: disagreement([one, one])):
        with pytest.raises(mx.MixValueError, match=said):
            query(probs)


def test_a_committee_of_one_or_of_different_shapes_is_refused() -> None:
    with pytest.raises(mx.MixValueError, match="1 model"):
        disagreement([[np.eye(2)]])
    with pytest.raises(mx.MixValueError, match="differ"):
        disagreement([[np.eye(2)], [np.eye(3)]])


# -- the loop ----------------------------------------------------------------------------------------------------------


class Counted:
    """Trainings that remember what they were given; their models are surer of words that were tagged."""

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[str, ...], int, int]] = []

    def __call__(self, labelled: TaggedCorpus, augmented: Sequence[MixedSentence], seed: int) -> Any:
        self.seen.append((tuple(one.tokens[0] for one in labelled), len(augmented), seed))
        return Model({token for one in (*labelled, *augmented) for token in one.tokens}, seed)


class Model:
    """Says B-PER of n words, with a sureness that grows with what is known."""

    def __init__(self, known: set[str], seed: int) -> None:
        self.known, self.shift = known, seed % 7 / 100

    def predict(self, sentences: Sequence[Any]) -> list[np.ndarray]:
        found = []
        for tokens in sentences:
            sure = [0.95 if token in self.known else 0.6 + self.shift for token in tokens]
            rows = [[1 - p, p] if token[0] == "n" else [p, 1 - p] for token, p in zip(tokens, sure, strict=True)]
            found.append(np.array(rows))
        return found


def doubled(new: TaggedCorpus, seed: int) -> list[MixedSentence]:
    return [
        MixedSentence((f"{seed % 97}", *one.tokens), ("O", *one.tags), window=(0, 1), parents=(i, i), lam=1.0)
        for i, one in enumerate(new)
    ][: len(new) // 2]


def run(**change: Any) -> ActiveRun:
    settings: dict[str, Any] = {"rounds": 3, "first": 8, "query": 4, "train": Counted(), "augment": doubled, "seed": 5}
    return active_learning(POOL, TEST, **{**settings, **change})


@pytest.mark.parametrize("strategy", ["lc", "nte", "disagreement", "random", token_entropy])
def test_each_round_tags_what_was_asked_for_and_nothing_twice(strategy: Any) -> None:
    train = Counted()
    found = run(strategy=strategy, train=train)
    assert [one.labelled for one in found.rounds] == [8, 12, 16, 20]
    assert [one.augmented for one in found.rounds] == [4, 6, 8, 10]
    assert len(set(found.labelled)) == 20
    assert len(found.next) == 4
    assert not set(found.next) & set(found.labelled)
    assert [one.number for one in found.rounds] == [0, 1, 2, 3]
    per_round = 3 if strategy == "disagreement" else 1
    assert len(train.seen) == 4 * per_round
    assert len({seed for _, _, seed in train.seen}) == len(train.seen)
    for one, (words, new, _) in zip(found.rounds, train.seen[::per_round], strict=True):
        assert words == tuple(POOL[place].tokens[0] for place in found.labelled[: one.labelled])
        assert new == one.augmented
    assert found.rounds[-1].f1 == 1.0


def test_the_model_is_asked_about_the_rest_of_the_pool_and_the_least_sure_come_next() -> None:
    found = run(rounds=0, strategy="nte")
    known = {token for place in found.labelled for token in POOL[place].tokens}
    rest = [i for i in range(len(POOL)) if i not in found.labelled]
    strange = sorted(rest, key=lambda i: (-sum(token not in known for token in POOL[i].tokens), i))
    assert list(found.next) == strange[:4]


def test_scores_are_those_of_the_test_sentences() -> None:
    class Silent(Model):
        def predict(self, sentences: Sequence[Any]) -> list[np.ndarray]:
            return [np.tile([0.9, 0.1], (len(tokens), 1)) for tokens in sentences]

    found = run(train=lambda labelled, augmented, seed: Silent(set(), seed))
    assert [(one.precision, one.recall, one.f1) for one in found.rounds] == [(0, 0, 0)] * 4


def test_the_loop_depends_on_its_seed_alone() -> None:
    assert run() == run()
    assert run().rounds[0].added != run(seed=6).rounds[0].added
    assert run(strategy="random", seed=5) == run(strategy="random", seed=5)


def test_a_pool_that_is_used_up_has_nothing_next() -> None:
    assert run(first=32, query=8, rounds=1).next == ()


def test_real_taggers_learn_more_from_more() -> None:
    seen: list[int] = []
    found = active_learning(
        POOL, TEST, rounds=1, first=4, query=8, augment=doubled, progress=lambda one: seen.append(one.labelled)
    )
    assert seen == [4, 12]
    assert found.rounds[1].f1 == 1.0


# -- the state ---------------------------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


def test_a_loop_that_was_stopped_goes_on_where_it_was_without_training_again(tmp_path: Path) -> None:
    state, whole = tmp_path / "state.json", run()

    class Failing(Counted):
        def __call__(self, *given: Any) -> Any:
            if len(self.seen) == 2:
                raise Stopped
            return super().__call__(*given)

    with pytest.raises(Stopped):
        run(state=state, train=Failing())
    rest = Counted()
    assert run(state=state, train=rest) == whole
    assert len(rest.seen) == 2
    assert rest.seen[0][1] == whole.rounds[2].augmented
    none = Counted()
    assert run(state=state, train=none) == whole
    assert none.seen == []
    assert run(state=state, rounds=5) == run(rounds=5)
    assert run(state=state, rounds=1) == run(rounds=1)
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("change", [{"seed": 6}, {"query": 5}, {"first": 7}, {"strategy": "lc"}, {"augment": None}])
def test_the_state_of_another_loop_is_refused_and_kept(tmp_path: Path, change: dict[str, Any]) -> None:
    state = tmp_path / "state.json"
    run(state=state, rounds=1)
    before = state.read_bytes()
    with pytest.raises(mx.MixValueError, match="another loop"):
        run(state=state, **change)
    assert state.read_bytes() == before


def test_an_augment_that_makes_other_numbers_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    run(state=state, rounds=1)
    with pytest.raises(mx.MixValueError, match="augment made 1"):
        run(state=state, augment=lambda new, seed: doubled(new, seed)[:1])


def test_a_broken_state_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    run(state=state, rounds=1)
    good = json.loads(state.read_text(encoding="utf-8"))
    twice = {**good, "next": good["rounds"][0]["added"]}
    for content, said in (
        ("{", "state.json"),
        ("[]", "no state of version 1"),
        (json.dumps({**good, "version": 2}), "no state of version 1"),
        (json.dumps({**good, "rounds": [{"added": [1]}]}), "broken"),
        (json.dumps({**good, "next": [99]}), "not in the pool"),
        (json.dumps({**good, "next": [-1]}), "not in the pool"),
        (json.dumps({**good, "next": [1.0]}), "not in the pool"),
        (json.dumps({**good, "rounds": []}), "no round"),
        (json.dumps(twice), "twice"),
    ):
        state.write_text(content, encoding="utf-8")
        with pytest.raises(mx.MixValueError, match=said):
            run(state=state)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rounds": 9}, "need 44 sentences, the pool has 40"),
        ({"rounds": -1}, "rounds=-1"),
        ({"first": 0}, "first=0"),
        ({"query": 0}, "query=0"),
        ({"committee": 1}, "committee=1"),
        ({"strategy": "entropy"}, "expected one of lc, nte, disagreement, random"),
        ({"strategy": lambda probs: np.zeros(3)}, r"scores of \(3,\)"),
        ({"train": 3}, "train is int"),
        ({"augment": 3}, "augment is int"),
        ({"augment": lambda *given: None}, "augment gave NoneType"),
        ({"augment": lambda *given: "none"}, "augment gave str"),
        ({"augment": lambda *given: [1]}, "augment gave int among new sentences"),
        ({"train": lambda *given: None}, "NoneType, expected an object with predict"),
        ({"train": lambda *given: Short()}, "predict gave other shapes"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(mx.MixError, match=said):
        run(**change)


class Short:
    def predict(self, sentences: Sequence[Any]) -> list[np.ndarray]:
        return [np.full((1, 2), 0.5) for _ in sentences]


def test_what_can_be_known_before_a_training_is_said_before_it(tmp_path: Path) -> None:
    nouns = TaggedCorpus([TaggedSentence(("a", "b"), ("NOUN", "VERB"))] * 40)
    for pool, state, said in (
        (POOL, tmp_path / "none" / "state.json", "none: make it"),
        (POOL, tmp_path, "is a folder"),
        (nouns, None, "pool is measured by its entities: .*'NOUN'"),
    ):
        train = Counted()
        with pytest.raises(mx.MixValueError, match=said):
            active_learning(pool, TEST, rounds=1, first=8, query=4, train=train, state=state)
        assert train.seen == []


def test_a_pool_that_is_a_list_is_refused() -> None:
    with pytest.raises(mx.MixTypeError, match="pool is list"):
        active_learning([TaggedSentence(("a",), ("O",))], TEST)  # type: ignore[arg-type]
