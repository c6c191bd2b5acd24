"""The four settings of word vectors: how they begin, what training changes, and that padding stays zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixops.pipelines.text.models import TextCNN
from mixops.pipelines.text.settings import SETTINGS, check_setting, word_embedding
from mixops.pipelines.text.vectors import WordVectors
from mixops.pipelines.text.vocabulary import Vocabulary
from torch import nn
from torch.nn import functional as F

import mixops as mx

WORDS = Vocabulary.of(["who wrote it ?", "where is it now ?"])
VECTORS = WordVectors(("who", "where", "it", "unused"), np.arange(12, dtype=np.float32).reshape(4, 3) + 1)
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD with momentum and decay": lambda p: torch.optim.SGD(p, 0.5, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam with decay": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1, fused=True),
    "AdamW with amsgrad": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1, amsgrad=True),
    "Adadelta": lambda p: torch.optim.Adadelta(p, 1.0, weight_decay=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
}


def trained(setting: str, make: Callable[[Any], torch.optim.Optimizer], mixed: bool = False) -> tuple[Any, Any]:
    """Word vectors before and after five real steps on padded batches."""
    embedding, _ = word_embedding(WORDS, setting, vectors=VECTORS, seed=3)
    before = embedding.weight.detach().clone()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TextCNN(embedding, 2, filters=4, dropout=0.0)
    optimizer = make([p for p in model.parameters() if p.requires_grad])
    check_setting(model, setting, optimizer)
    ids = torch.tensor([[2, 3, 4, 5], [6, 7, 0, 0], [2, 0, 0, 0]])
    for step in range(5):
        words = model.embedding(ids)
        if mixed:
            plan = mx.WordMixup(1.0).draw(np.random.default_rng(step), mx.Spec(3), lam=0.6, partner=[1, 2, 0])
            words = mx.mix(words, plan, "b t d")
        hidden = torch.cat([c(words.transpose(1, 2)).amax(2) for c in model.convolutions], 1)
        loss = F.cross_entropy(model.head(F.relu(hidden + model.bias)), torch.tensor([0, 1, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return before, embedding.weight.detach()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("mixed", [False, True])
def test_tuned_vectors_train_fixed_ones_stay_and_padding_is_always_zero(
    setting: str, optimizer: str, mixed: bool
) -> None:
    before, after = trained(setting, OPTIMIZERS[optimizer], mixed)
    assert not bool(after[0].any())
    if SETTINGS[setting].tuned:
        met = [2, 3, 4, 5, 6, 7]
        assert bool((before[met] != after[met]).any(1).all())
    else:
        assert torch.equal(before, after)


def test_pretrained_vectors_are_at_the_rows_of_their_words() -> None:
    embedding, coverage = word_embedding(WORDS, "PretrainFix", vectors=VECTORS, seed=3)
    rows = embedding.weight.numpy()
    for place, word in enumerate(WORDS.words):
        if word in VECTORS.words:
            assert np.array_equal(rows[place], VECTORS.array[VECTORS.words.index(word)])
        elif place:
            assert rows[place].any()
    assert coverage is not None
    assert (coverage.known_types, coverage.types) == (3, len(WORDS) - 2)


def test_random_vectors_are_as_long_as_the_given_ones_unless_told() -> None:
    for setting in SETTINGS:
        embedding, coverage = word_embedding(WORDS, setting, vectors=VECTORS)
        assert embedding.weight.shape == (len(WORDS), 3)
        assert embedding.weight.dtype == torch.float32
        assert (coverage is None) == setting.startswith("Random")
    assert word_embedding(WORDS, "RandomTune")[0].embedding_dim == 50
    assert word_embedding(WORDS, "RandomTune", vectors=VECTORS, dim=7)[0].embedding_dim == 7


@given(st.integers(0, (1 << 64) - 1))
@settings(max_examples=20)
def test_random_vectors_depend_on_the_seed_alone_and_leave_global_numbers_alone(seed: int) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # noqa: NPY002
    tune, _ = word_embedding(WORDS, "RandomTune", dim=4, seed=seed)
    fix, _ = word_embedding(WORDS, "RandomFix", dim=4, seed=seed)
    assert torch.equal(tune.weight, fix.weight)
    assert float(tune.weight.detach().abs().max()) <= 0.25
    other, _ = word_embedding(WORDS, "RandomTune", dim=4, seed=(seed + 1) % (1 << 64))
    assert not torch.equal(tune.weight, other.weight)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_a_setting_that_does_not_fit_is_refused() -> None:
    for setting, said in (("PretrainTuned", "did you mean PretrainTune"), ("frozen", "expected one of"), (3, "one of")):
        with pytest.raises(mx.MixError, match=said):
            word_embedding(WORDS, setting, vectors=VECTORS)  # type: ignore[arg-type]
    for setting in ("PretrainTune", "PretrainFix"):
        with pytest.raises(mx.MixValueError, match="without vectors"):
            word_embedding(WORDS, setting)
        with pytest.raises(mx.MixValueError, match="vectors have 3 numbers"):
            word_embedding(WORDS, setting, vectors=VECTORS, dim=50)
    for dim in (0, -1, 2.5, "3"):
        with pytest.raises(mx.MixError, match="dim="):
            word_embedding(WORDS, "RandomTune", dim=dim)  # type: ignore[arg-type]
    with pytest.raises(mx.MixValueError, match="seed"):
        word_embedding(WORDS, "RandomTune", seed=-1)
    with pytest.raises(mx.MixTypeError, match="got list, expected a Vocabulary"):
        word_embedding(["who"], "RandomTune")  # type: ignore[arg-type]
    for setting in ("RandomTune", "PretrainTune"):
        with pytest.raises(mx.MixTypeError, match=r"vectors is str, expected word_vectors"):
            word_embedding(WORDS, setting, vectors="glove.txt")  # type: ignore[arg-type]


def network(setting: str) -> nn.Module:
    return TextCNN(word_embedding(WORDS, setting, dim=4)[0], 2, filters=2)


def test_a_frozen_setting_that_still_trains_is_refused() -> None:
    model = network("RandomTune")
    with pytest.raises(mx.MixValueError, match=r"RandomFix: the word vectors still train.*RandomTune"):
        check_setting(model, "RandomFix")
    model.embedding.weight.requires_grad_(False)
    check_setting(model, "RandomFix")
    with pytest.raises(mx.MixValueError, match="the optimiser holds them"):
        check_setting(model, "RandomFix", torch.optim.AdamW(model.parameters()))


def test_a_tuned_setting_that_does_not_train_is_refused() -> None:
    model = network("RandomFix")
    with pytest.raises(mx.MixValueError, match=r"RandomTune: the word vectors are frozen.*RandomFix"):
        check_setting(model, "RandomTune")
    model.embedding.weight.requires_grad_(True)
    check_setting(model, "RandomTune", torch.optim.AdamW(model.parameters()))
    with pytest.raises(mx.MixValueError, match="does not hold the word vectors"):
        check_setting(model, "RandomTune", torch.optim.AdamW(model.head.parameters()))


def test_a_padding_row_that_is_not_zero_and_a_model_without_word_vectors_are_refused() -> None:
    model = network("RandomTune")
    with torch.no_grad():
        model.embedding.weight[0] = 1
    with pytest.raises(mx.MixValueError, match="padding row of zeros"):
        check_setting(model, "RandomTune")
    with pytest.raises(mx.MixTypeError, match=r"has no nn\.Embedding"):
        check_setting(nn.Linear(2, 2), "RandomTune")
