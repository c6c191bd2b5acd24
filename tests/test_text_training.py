"""Training on sentences: what a run is made of, that runs of one seed are pairs, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mixops.pipelines.text import Sentences, Vocabulary, WordVectors, text_stage, train_text
from mixops.pipelines.text.models import TextCNN
from mixops.pipelines.text.recipes import Recipe
from torch import Tensor, nn
from torch.nn import functional as F

import mixops as mx

CLASSES = ("person", "place", "time")
_FIRST = (("who", "whose"), ("where", "whither"), ("when", "since when"))
_REST = ("did they go", "is it", "was that of yesterday", "will it be that we meet again", "now")


def questions(count: int, start: int = 0) -> Sentences:
    """Questions whose class is what they begin with."""
    rows = range(start, start + count)
    texts = [f"{_FIRST[i % 3][i // 3 % 2]} {_REST[i * 7 % 5]} {'so ' * (i % 4)}?" for i in rows]
    return Sentences(texts, [i % 3 for i in rows], CLASSES)


TRAIN, TEST = questions(48), questions(21, 48)
VECTORS = WordVectors(
    ("who", "where", "when", "it", "?"), np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
)


class Small(TextCNN):
    """A CNN that is quick, has no dropout, and remembers how it began and what it was shown in training."""

    def __init__(self, embedding: nn.Embedding, classes: int) -> None:
        super().__init__(embedding, classes, filters=6, dropout=0.0)
        self.first = {name: value.clone() for name, value in self.state_dict().items()}
        self.shown: list[Tensor] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        if self.training:
            self.shown.append(input_ids.clone())
        return super().forward(input_ids, attention_mask)


def run(op: mx.Operator | None = None, **given: Any) -> Any:
    options = {"model": Small, "dim": 5, "epochs": 2, "batch_size": 10, "lr": 0.01, "seed": 3, **given}
    return train_text(options.pop("train", TRAIN), options.pop("test", TEST), op=op, **options)


def test_a_run_says_what_it_was_and_what_came_of_it() -> None:
    made = run(mx.WordMixup(1.0), setting="PretrainTune", vectors=VECTORS, dim=None)
    for values in (made.loss, made.accuracy, made.nll, made.ece, made.seconds):
        assert values.shape == (2,)
        assert np.isfinite(values).all()
    assert made.probs.shape == (21, 3)
    assert np.allclose(made.probs.sum(1), 1)
    assert made.accuracy[-1] == (made.probs.argmax(1) == TEST.labels).mean()
    config = json.loads(json.dumps(made.config))
    assert config == made.config
    assert config["op"] == "WordMixup()"
    assert (config["setting"], config["dim"], config["seed"], config["epochs"]) == ("PretrainTune", 6, 3, 2)
    assert (config["train"], config["test"], config["classes"]) == (48, 21, list(CLASSES))
    assert made.coverage.known_types == 5
    assert made.coverage.types == len(Vocabulary.of(TRAIN.texts)) - 2
    assert made.test_coverage.tokens == Vocabulary.of(TRAIN.texts).coverage(TEST.texts).tokens
    assert not made.model.training
    assert "accuracy=" in repr(made)
    assert "Small(" not in repr(made)


@pytest.mark.parametrize("model", ["cnn", "lstm", "transformer"])
def test_every_network_learns_what_questions_begin_with(model: str) -> None:
    made = train_text(TRAIN, TEST, model=model, epochs=12, batch_size=8, lr=0.005, dim=16, seed=1)
    assert made.accuracy[-1] == 1
    assert made.loss[-1] < made.loss[0] / 2


def test_runs_of_a_seed_begin_at_the_same_weights_and_see_the_same_batches_whatever_the_operator() -> None:
    plain, word, sentence = run(None), run(mx.WordMixup(1.0)), run(mx.SentenceMixup(0.5, per="sample"))
    for other in (word, sentence):
        assert all(torch.equal(plain.model.first[name], other.model.first[name]) for name in plain.model.first)
        assert len(plain.model.shown) == len(other.model.shown) == 10
        assert all(torch.equal(a, b) for a, b in zip(plain.model.shown, other.model.shown, strict=True))
        assert not torch.equal(plain.model.head.weight, other.model.head.weight)
    another = run(None, seed=4)
    assert not torch.equal(plain.model.first["head.weight"], another.model.first["head.weight"])
    assert not torch.equal(plain.model.first["embedding.weight"], another.model.first["embedding.weight"])


@pytest.mark.parametrize("model", ["cnn", "lstm", "transformer"])
def test_an_operator_that_leaves_all_rows_is_plain_training_dropout_included(model: str) -> None:
    plain, idle = run(None, model=model), run(mx.WordMixup(0.0), model=model)
    assert np.array_equal(plain.probs, idle.probs)
    assert np.array_equal(plain.loss, idle.loss)
    assert (idle.mixing.rows, idle.mixing.mixed, idle.mixing.pairs) == (96, 0, [])


def test_the_same_seed_gives_the_same_run_with_any_number_of_workers() -> None:
    one, again, workers = run(mx.WordMixup(1.0)), run(mx.WordMixup(1.0)), run(mx.WordMixup(1.0), workers=2)
    for other in (again, workers):
        assert np.array_equal(one.probs, other.probs)
        assert one.mixing == other.mixing


def test_the_state_of_torch_is_as_it_was_after_a_run_and_after_a_failure() -> None:
    torch.manual_seed(11)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    run(mx.WordMixup(1.0), threads=threads + 1)
    with pytest.raises(mx.MixError):
        run(mx.TMix((99,)), threads=threads + 1)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("op", "mixed_at"),
    [(mx.WordMixup(1.0, lam=0.7), "words"), (mx.SentenceMixup(1.0, lam=0.7), "sentence")],
    ids=["words", "sentence"],
)
def test_the_loss_of_the_first_step_is_that_of_sentences_mixed_by_hand(op: mx.Operator, mixed_at: str) -> None:
    made = run(op, epochs=1, batch_size=48)
    pairs = {(pair.own, pair.other): pair for pair in made.mixing.pairs}
    assert pairs
    assert all(pair.lam == pytest.approx(0.7) and pair.layer == mixed_at for pair in pairs.values())

    net = Small(nn.Embedding(*made.model.embedding.weight.shape, padding_idx=0), 3)
    net.load_state_dict(made.model.first)
    (ids,) = made.model.shown
    vocabulary = Vocabulary.of(TRAIN.texts)
    place = {tuple(vocabulary.encode(text).tolist()): row for row, text in enumerate(TRAIN.texts)}
    labels = torch.tensor([TRAIN.labels[place[tuple(row[row > 0].tolist())]] for row in ids])
    spec = mx.Spec(48, step=0)
    plan = op.draw(mx.streams.plan_stream(3, 0, 0, 0), spec)
    partner = torch.from_numpy(plan.partner[:, 0].astype(np.int64))
    words = net.embedding(ids)
    if mixed_at == "words":
        words = 0.7 * words + 0.3 * words[partner]
    hidden = torch.cat([c(words.transpose(1, 2)).amax(2) for c in net.convolutions], 1).clamp(min=0)
    if mixed_at == "sentence":
        hidden = 0.7 * hidden + 0.3 * hidden[partner]  # the bias is still 0
    logits = net.head(hidden)
    expected = 0.7 * F.cross_entropy(logits, labels) + 0.3 * F.cross_entropy(logits, labels[partner])
    assert made.loss[0] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_pairs_are_sentences_of_the_training_set_with_their_classes() -> None:
    made = run(mx.WordMixup(1.0, per="sample", pairing="derange"))
    assert len(made.mixing.pairs) == 8
    label = dict(zip(TRAIN.texts, TRAIN.labels, strict=True))
    for pair in made.mixing.pairs:
        assert pair.labels == (CLASSES[label[pair.own]], CLASSES[label[pair.other]])
        assert 0 <= pair.lam < 1
    assert made.mixing.layers == {"words": 10}
    assert 0.3 < made.mixing.mean_lam < 0.7


def test_an_operator_that_starts_late_counts_steps_over_all_epochs() -> None:
    made = run(mx.presets.mixup_transformer(0.5, start_step=7), epochs=2)
    assert made.mixing.layers == {"sentence": 3}  # steps 7, 8 and 9 of 10
    assert {pair.epoch for pair in made.mixing.pairs} == {1}


def test_a_stage_changes_the_sentences_before_they_become_ids() -> None:
    made = run(stage=text_stage(lambda text: "gone " * len(text.split()), seed=5), epochs=1)
    assert all(set(ids.unique().tolist()) <= {0, 1} for ids in made.model.shown)
    plain = run(epochs=1)
    assert all(1 not in ids for ids in plain.model.shown)


def test_pretrained_words_that_only_the_test_has_are_known_and_random_ones_are_not() -> None:
    test = Sentences(["whence came it ?"], [1], CLASSES)
    vectors = WordVectors(("who", "whence"), np.eye(2, dtype=np.float32))
    known = run(setting="PretrainFix", vectors=vectors, dim=None, test=test)
    assert known.test_coverage.known_types == 3  # all but "came"
    assert known.coverage.known_types == 1
    assert run(test=test).test_coverage.known_types == 2


def test_progress_is_told_of_every_step() -> None:
    told: list[tuple[int, int, str]] = []
    run(progress=lambda *said: told.append(said))
    assert [done for done, _, _ in told] == list(range(1, 11))
    assert {total for _, total, _ in told} == {10}
    assert told[-1][2].startswith("epoch 2 of 2, loss ")


def test_the_rate_rises_over_the_warm_up_and_falls_to_zero() -> None:
    net = nn.Linear(2, 2)
    optimizer, schedule = replace(Recipe(), lr=1.0, warmup=0.2).optimizer(net, 10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    assert optimizer.param_groups[0]["lr"] == 0
    optimizer, schedule = Recipe(lr=0.3).optimizer(net, 10)
    assert schedule.get_last_lr() == [0.3, 0.3]


def test_only_matrices_decay() -> None:
    optimizer, _ = Recipe(weight_decay=0.2).optimizer(nn.Linear(2, 2), 10)
    assert [(group["weight_decay"], group["params"][0].ndim) for group in optimizer.param_groups] == [(0.2, 2), (0, 1)]


ONE = Sentences(["who ?", "who is it ?"], [0, 0], ["person"])


class Positional(Small):
    def forward(self, ids: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(ids)


class Paired(Small):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return super().forward(input_ids, attention_mask), input_ids


class Named(Small):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return {"logits": super().forward(input_ids, attention_mask)}


def test_logits_may_come_in_a_dict() -> None:
    named, plain = (run(mx.WordMixup(), model=model) for model in (Named, Small))
    assert np.array_equal(named.probs, plain.probs)


Wrong = tuple[Callable[[], Any], str]
WRONG: dict[str, Wrong] = {
    "classes": (lambda: run(test=Sentences(["who ?"], [0], ["person", "thing"])), "expected the same"),
    "no sentences": (lambda: run(train=["who ?"]), "train is list"),
    "empty": (lambda: run(test=Sentences([], [], CLASSES)), "test has no sentence"),
    "operator": (lambda: run("WordMixup(1.0)"), "op is str"),  # type: ignore[arg-type]
    "operator on the input": (lambda: run(mx.Mixup(1.0)), "layer"),
    "no vectors": (lambda: run(setting="PretrainTune"), "without vectors"),
    "setting": (lambda: run(setting="Pretrained"), "setting="),
    "epochs": (lambda: run(epochs=0), "epochs=0"),
    "batch size": (lambda: run(batch_size=2.5), r"batch_size=2\.5"),
    "rate": (lambda: run(lr=0), "lr=0"),
    "decay": (lambda: run(weight_decay=-1), "weight_decay=-1"),
    "seed": (lambda: run(seed=-1), "seed"),
    "threads": (lambda: run(threads=0), "threads=0"),
    "device": (lambda: run(device="abacus"), "device='abacus'"),
    "no such device": (lambda: run(device=f"cuda:{torch.cuda.device_count()}"), "device='cuda:"),
    "model": (lambda: run(model="rnn"), "model='rnn': expected cnn, lstm, transformer"),
    "no model": (lambda: run(model=3), "model is int"),
    "package": (lambda: run(model="package:no-such-thing", dim=None), "pip install no-such-thing"),
    "late operator": (lambda: run(mx.TMix((9,))), "block"),
    "operator on boxes": (
        lambda: run(mx.CutMix()),
        r"op=CutMix\(\) cannot be drawn for sentences, expected one on hid",
    ),
    "operators in a row": (lambda: run(mx.WordMixup() | mx.SentenceMixup()), "draws 2 plans, .* OneOf"),
    "one class": (lambda: run(train=ONE, test=ONE), r"classes \['person'\], expected two or more"),
    "path of vectors": (lambda: run(setting="PretrainFix", vectors="glove.txt", dim=None), "vectors is str"),
    "workers": (lambda: run(workers=-1), "workers=-1"),
    "no device": (lambda: run(device=None), "device=None"),
    "progress": (lambda: run(progress=3), "progress=3"),
    "network": (lambda: run(model=nn.Linear(2, 2)), "a network already, Linear"),
    "no network": (lambda: run(model=lambda embedding, classes: None), "model made NoneType"),
    "few logits": (lambda: run(model=lambda embedding, classes: Small(embedding, 2)), r"\(10, 2\), .* \(10, 3\)"),
    "other arguments": (lambda: run(model=Positional), r"Positional\.forward: .*'ids'"),
    "tuple": (lambda: run(model=Paired), "put out tuple, expected logits"),
    "divergence": (lambda: run(lr=1e30), r"(in step|after epoch) \d+ .*: lower lr=1e\+30"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_trained_is_refused(wrong: str) -> None:
    call, said = WRONG[wrong]
    with pytest.raises(mx.MixError, match=said):
        call()


def test_a_network_whose_word_vectors_would_not_train_is_refused() -> None:
    def frozen(embedding: nn.Embedding, classes: int) -> nn.Module:
        embedding.weight.requires_grad_(False)
        return Small(embedding, classes)

    with pytest.raises(mx.MixValueError, match="RandomTune: the word vectors are frozen"):
        run(model=frozen)
    with pytest.raises(mx.MixTypeError, match=r"has no nn\.Embedding"):
        run(model=lambda embedding, classes: nn.Linear(2, classes))
