"""Augmented sentences: nlpaug's and anybody's, the same in every worker, before they become ids."""

from __future__ import annotations

import pickle
import random
from typing import Any

import nlpaug.augmenter.char as nac
import nlpaug.augmenter.word as naw
import nlpaug.flow as naf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loading import more_workers
from mixops.pipelines import KeyedBatchSampler, keyed
from mixops.pipelines.text import Sentences, TokenizeStage, Vocabulary, pad_batch, text_stage
from torch.utils.data import DataLoader

import mixops as mx

TEXT = "the plot is thin and dull but the lead actress gives a brilliant performance"
DATA = Sentences([f"{TEXT} in scene {i}" for i in range(12)], np.arange(12) % 2, ["neg", "pos"])

AUGMENTERS = {
    "swap": lambda: naw.RandomWordAug(action="swap"),
    "delete": lambda: naw.RandomWordAug(action="delete"),
    "keyboard": lambda: nac.KeyboardAug(),
    "characters": lambda: nac.RandomCharAug(action="insert"),
    "several": lambda: naf.Sequential([naw.RandomWordAug(action="swap"), nac.RandomCharAug(action="delete")]),
}


def global_state() -> tuple[Any, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002


def texts_of(samples: Any) -> list[str]:
    return [sample["text"] for sample in samples]


@more_workers
@pytest.mark.parametrize("name", AUGMENTERS)
def test_nlpaug_follows_the_key_in_any_number_of_workers_and_leaves_no_trace(name: str) -> None:
    epochs: dict[int, list[list[str]]] = {}
    before = global_state()
    for workers in (0, 1, 3):
        loader = DataLoader(
            keyed(DATA, stage=text_stage(AUGMENTERS[name](), seed=7)),
            batch_sampler=KeyedBatchSampler(range(12), 2),
            collate_fn=texts_of,
            num_workers=workers,
            # The loader draws one number for its workers from this, else from torch's global generator.
            generator=torch.Generator(),
        )
        epochs[workers] = [[text for batch in loader for text in batch] for _ in range(2)]
    assert global_state() == before
    assert epochs[0] == epochs[1] == epochs[3]
    first, second = epochs[0]
    assert first != second
    # No two samples get the same numbers, wherever they are drawn: their common words are changed in different ways.
    assert len({text.replace(f"scene {i}", "") for i, text in enumerate(first)}) > 8


@given(epoch=st.integers(0, 2**40), index=st.integers(0, 2**40), seed=st.integers(0, 2**64 - 1))
def test_one_key_makes_one_sentence(epoch: int, index: int, seed: int) -> None:
    stage = text_stage(AUGMENTERS["swap"](), seed)
    random.seed()
    first = stage({"text": TEXT}, epoch, index)
    random.seed()
    assert stage({"text": TEXT}, epoch, index) == first
    assert sorted(first["text"].lower().split()) == sorted(TEXT.split())


def test_the_text_is_changed_before_it_becomes_ids() -> None:
    vocabulary = Vocabulary.of(DATA.texts)
    augment = text_stage(AUGMENTERS["swap"](), seed=7)
    loader = DataLoader(
        keyed(DATA, stage=[augment, TokenizeStage(vocabulary)]),
        batch_sampler=KeyedBatchSampler(range(12), 4),
        collate_fn=pad_batch,
    )
    ids = torch.cat([batch["input_ids"] for batch in loader])
    expected = [vocabulary.encode(augment(DATA[i], 0, i)["text"]).tolist() for i in range(12)]
    assert ids.tolist() == expected
    assert expected != [vocabulary.encode(text).tolist() for text in DATA.texts]


def test_text_that_is_split_already_stays_so_with_the_tokenizer_that_is_advised() -> None:
    text = "it 's so dull , you wo n't laugh"
    plain = text_stage(naw.RandomWordAug(action="swap"), seed=1)
    advised = text_stage(naw.RandomWordAug(action="swap", tokenizer=str.split, reverse_tokenizer=" ".join), seed=1)
    assert all("n't" not in plain({"text": text}, 0, i)["text"].split() for i in range(5))
    assert all(sorted(advised({"text": text}, 0, i)["text"].lower().split()) == sorted(text.split()) for i in range(5))


def shuffled(text: str, rng: np.random.Generator) -> str:
    return " ".join(rng.permutation(text.split()))


def test_a_callable_with_rng_gets_the_stream_of_the_sample() -> None:
    stage = text_stage(shuffled, seed=5)
    rng = mx.streams.sample_stream(5, 2, 9)
    assert stage({"text": TEXT}, 2, 9)["text"] == shuffled(TEXT, rng)


@pytest.mark.parametrize("augmenter", [str.upper, lambda text: [text.upper()], lambda text: (text.upper(),)])
def test_any_callable_of_a_text_is_an_augmenter(augmenter: Any) -> None:
    sample = {"text": "so good", "label": 1}
    assert text_stage(augmenter, seed=1)(sample, 0, 0) == {"text": "SO GOOD", "label": 1}
    assert sample["text"] == "so good"
    assert text_stage(augmenter, seed=1, field="s")({"s": "a"}, 0, 0) == {"s": "A"}


def test_stages_reach_spawned_workers() -> None:
    for augmenter in (AUGMENTERS["swap"](), shuffled):
        stage = text_stage(augmenter, seed=3)
        assert pickle.loads(pickle.dumps(stage))({"text": TEXT}, 1, 2) == stage({"text": TEXT}, 1, 2)


@pytest.mark.parametrize(
    ("augmenter", "message"),
    [
        (lambda text: [], "'so good' became .*expected one sentence"),
        (lambda text: ["a", "b"], "expected one sentence"),
        (lambda text: None, "became None"),
        (lambda text: [3], "expected one sentence"),
        (lambda text: "", "'so good' became a sentence with no tokens"),
        (lambda text: [" "], "no tokens"),
    ],
)
def test_an_augmenter_that_leaves_no_sentence_is_refused(augmenter: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        text_stage(augmenter, seed=1)({"text": "so good"}, 0, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: text_stage(3, 1), "int, expected an augmenter"),
        (lambda: text_stage(str.upper, -1), "seed=-1"),
        (lambda: text_stage(str.upper, 1)({"sentence": "a"}, 0, 0), "no 'text'.*'sentence'"),
        (lambda: text_stage(str.upper, 1)({"text": 3}, 0, 0), "upper: got int, expected text"),
        (lambda: text_stage(lambda text, rng: text, 1)({"text": None}, 0, 0), "got NoneType, expected text"),
        (lambda: TokenizeStage(3), "int cannot encode"),
        (lambda: TokenizeStage(Vocabulary([]))({"sentence": "a"}, 0, 0), "no 'text'.*'sentence'"),
        (lambda: TokenizeStage(Vocabulary([]))("a", 0, 0), "no 'text', it is str"),
        (lambda: TokenizeStage(Vocabulary([]))({"text": " "}, 0, 4), "sample 4: .*no tokens"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(mx.MixError, match=message):
        make()


def test_stages_print_what_they_hold() -> None:
    assert repr(text_stage(AUGMENTERS["swap"](), 1)) == "PerSample(RandomWordAug, seed=1, field='text')"
    assert repr(TokenizeStage(Vocabulary(["a"]))) == "TokenizeStage(<Vocabulary of 3>, field='text')"
