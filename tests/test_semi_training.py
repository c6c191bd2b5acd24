"""Training by MixText: what a run is made of, that it is a pair with a plain one, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from mixops.pipelines.semi import MixText
from mixops.pipelines.text import DrawnViews, Sentences, Views, train_mixtext, train_text
from mixops.pipelines.text.models import TextCNN
from torch import Tensor, nn

import mixops as mx

CLASSES = ("person", "place", "time")
_FIRST = (("who", "whose"), ("where", "whither"), ("when", "since when"))
_REST = ("did they go", "is it", "was that of yesterday", "will it be that we meet again", "now")


def questions(count: int, start: int = 0) -> Sentences:
    """Questions whose class is what they begin with."""
    rows = range(start, start + count)
    texts = [f"{_FIRST[i % 3][i // 3 % 2]} {_REST[i * 7 % 5]} {'so ' * (i % 4)}?" for i in rows]
    return Sentences(texts, [i % 3 for i in rows], CLASSES)


KNOWN, UNKNOWN, TEST = questions(12), questions(40, 12), questions(21, 60)
RECIPE = MixText(("words", "sentence"), unlabelled_weight=0.5)


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


def swapped(text: str, rng: np.random.Generator) -> str:
    return " ".join(rng.permutation(text.split()))


def run(**given: Any) -> Any:
    options = {"model": Small, "dim": 5, "epochs": 2, "batch_size": 5, "lr": 0.01, "seed": 3, "recipe": RECIPE, **given}
    data = [options.pop(name, default) for name, default in (("known", KNOWN), ("unknown", UNKNOWN), ("test", TEST))]
    return train_mixtext(*data, **options)


def test_a_run_says_what_it_was_and_what_came_of_it() -> None:
    made = run(views=[swapped, str.upper])
    for values in (made.loss, made.supervised, made.unsupervised, made.hinge, made.confidence, made.guess_accuracy):
        assert values.shape == made.accuracy.shape == made.nll.shape == made.ece.shape == made.seconds.shape == (2,)
        assert np.isfinite(values).all()
    np.testing.assert_allclose(made.loss, made.supervised + 0.5 * made.unsupervised, rtol=1e-5)
    assert (made.hinge == 0).all()
    assert ((made.confidence > 1 / 3) & (made.confidence <= 1)).all()
    assert made.accuracy[-1] == (made.probs.argmax(1) == TEST.labels).mean()
    config = json.loads(json.dumps(made.config))
    assert config == made.config
    assert config["mixtext"] == repr(RECIPE)
    assert (config["labelled"], config["unlabelled"], config["unlabelled_batch"]) == (12, 40, 10)
    assert config["steps_per_epoch"] == 3
    steps, rows = 6, 5 + 3 * 10
    assert made.mixing.rows == steps * rows - 2 * 3  # the last batch of a pass has 2 labelled rows
    assert set(made.mixing.layers) == {"words", "sentence"}


def test_it_learns_from_unlabelled_questions_what_labelled_ones_begin_with() -> None:
    made = run(views=swapped, epochs=15, steps_per_epoch=4, lr=0.02, model="cnn", dim=16)
    assert made.guess_accuracy[-1] > 0.9
    assert made.guess_accuracy[-1] > made.guess_accuracy[0]
    assert made.accuracy[-1] > 0.9
    assert made.supervised[-1] < made.supervised[0]


def test_first_weights_and_labelled_batches_are_those_of_plain_training() -> None:
    everything = Sentences([*KNOWN.texts, *UNKNOWN.texts], [*KNOWN.labels, *UNKNOWN.labels], CLASSES)
    options = {"model": Small, "dim": 5, "epochs": 2, "batch_size": 5, "lr": 0.01, "seed": 3}
    alone = run(unknown=list(KNOWN.texts))  # so the vocabulary is that of the labelled sentences
    plain = train_text(KNOWN, TEST, **options)
    assert all(torch.equal(plain.model.first[name], alone.model.first[name]) for name in plain.model.first)
    shown = alone.model.shown[1::2]  # every second forward guesses
    assert len(shown) == len(plain.model.shown) == 6
    for batch, mixed in zip(plain.model.shown, shown, strict=True):
        assert torch.equal(batch, mixed[: len(batch), : batch.shape[1]])
        assert not mixed[: len(batch), batch.shape[1] :].any()
    assert len(everything) == 52


def test_labels_of_the_unlabelled_are_not_trained_on() -> None:
    turned = Sentences(UNKNOWN.texts, (UNKNOWN.labels + 1) % 3, CLASSES)
    runs = [run(unknown=unknown) for unknown in (UNKNOWN, turned, list(UNKNOWN.texts))]
    assert all(np.array_equal(runs[0].probs, other.probs) for other in runs[1:])
    assert not np.array_equal(runs[0].guess_accuracy, runs[1].guess_accuracy)
    assert runs[2].guess_accuracy is None
    assert run(unknown=Sentences(UNKNOWN.texts, UNKNOWN.labels, ["x", "y", "z"])).guess_accuracy is None


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    one, again, other = run(views=swapped), run(views=swapped), run(views=swapped, seed=4)
    assert np.array_equal(one.probs, again.probs)
    assert one.mixing == again.mixing
    assert not np.array_equal(one.probs, other.probs)


def test_views_come_from_files_lists_and_augmenters() -> None:
    fixed = [(text, [text.upper()]) for text in reversed(UNKNOWN.texts)]
    runs = [run(views=views) for views in (fixed, Views([t for t, _ in fixed], [v for _, v in fixed]), str.upper)]
    runs.append(run(views=DrawnViews(UNKNOWN.texts, str.upper, seed=99)))
    assert all(np.array_equal(runs[0].probs, other.probs) for other in runs[1:])
    assert not np.array_equal(runs[0].probs, run().probs)


def test_views_are_drawn_anew_in_every_pass_over_the_unlabelled() -> None:
    asked: list[tuple[int, int]] = []

    class Asked(DrawnViews):
        def at(self, row: int, epoch: int) -> tuple[str, ...]:
            asked.append((row, epoch))
            return super().at(row, epoch)

    run(views=Asked(UNKNOWN.texts, swapped, seed=1), unlabelled_batch=15, steps_per_epoch=4, epochs=1)
    passes = [epoch for _, epoch in asked]
    assert passes == [0] * 30 + [1] * 30  # 40 rows have two whole batches
    assert len({row for row, epoch in asked if epoch == 0}) == 30


def test_the_weight_of_the_unlabelled_rows_rises_over_the_steps_of_the_training() -> None:
    made = run(recipe=MixText(("words",), rampup=12), views=swapped)
    weights = [np.mean([step / 12 for step in steps]) for steps in ((0, 1, 2), (3, 4, 5))]
    assert made.loss[0] < made.supervised[0] + made.unsupervised[0]
    assert made.loss[1] - made.supervised[1] == pytest.approx(weights[1] * made.unsupervised[1], rel=0.2)


def test_pairs_name_guessed_classes_as_guesses() -> None:
    made = run(views=swapped)
    known, unknown = dict(zip(KNOWN.texts, KNOWN.labels, strict=True)), set(UNKNOWN.texts)
    sides = [(text, name) for p in made.mixing.pairs for text, name in zip((p.own, p.other), p.labels, strict=True)]
    assert len(made.mixing.pairs) == 8
    assert any(name.endswith("(guessed)") for _, name in sides)
    for text, name in sides:
        if name.endswith("(guessed)"):
            assert name.removesuffix(" (guessed)") in CLASSES
            assert any(sorted(text.split()) == sorted(one.split()) for one in unknown)
        else:
            assert name == CLASSES[known[text]]


def test_a_transformer_and_a_hinge_train_too() -> None:
    recipe = MixText((1, 2), hinge_weight=0.1, hinge_margin=0.1)
    made = run(model="transformer", recipe=recipe, views=swapped, dim=16, epochs=1)
    assert made.hinge[0] > 0
    assert made.mixing.rows == 2 * (5 + 20) + 2 + 20  # rows of the hinge are not mixed, and not counted


def test_the_state_of_torch_is_as_it_was_after_a_run_and_after_a_failure() -> None:
    torch.manual_seed(11)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    run(views=swapped, threads=threads + 1)
    with pytest.raises(mx.MixError):
        run(recipe=MixText((99,)), threads=threads + 1)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_progress_is_told_after_each_step() -> None:
    told: list[tuple[int, int, str]] = []
    run(progress=lambda *said: told.append(said))
    assert [(done, steps) for done, steps, _ in told] == [(k, 6) for k in range(1, 7)]
    assert told[-1][2].startswith("epoch 2 of 2, loss ")


class Lost:
    """Views that are said to be two of each, and are one."""

    count = 2

    def at(self, row: int, epoch: int) -> tuple[str, ...]:
        return ("one",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"known": questions(12).take([])}, "labelled has no sentence"),
        ({"known": ["a"]}, "labelled is list"),
        ({"unknown": []}, "unlabelled has no sentence.*op=TMix"),
        ({"unknown": questions(3).take([])}, "unlabelled has no sentence"),
        ({"unknown": "who"}, "unlabelled is str"),
        ({"unknown": ["who", " "]}, "unlabelled row 1 is ' '"),
        ({"unknown": ["who", 3]}, "unlabelled row 1 is 3"),
        ({"test": Sentences(["a"], [0], ["x", "y"])}, "expected the same"),
        ({"recipe": mx.TMix((1,))}, "recipe is TMix"),
        ({"recipe": MixText(("words",), view_weights=(1, 1))}, "2 weights, but there are 0 views"),
        ({"views": [("who", ["whose"])]}, "40 of 40 texts have no views"),
        ({"views": DrawnViews(["who"], str.upper, seed=0)}, "those of other texts"),
        ({"views": Lost()}, "has 1 views, expected 2"),
        ({"views": lambda text: ""}, "no tokens"),
        ({"views": 3}, "expected a path"),
        ({"unlabelled_batch": 0}, "unlabelled_batch=0 of 40"),
        ({"unlabelled_batch": 41}, "unlabelled_batch=41 of 40"),
        ({"steps_per_epoch": 0}, "steps_per_epoch=0"),
        ({"epochs": 0}, "epochs=0"),
        ({"lr": 1e30}, "NaN or infinite|not finite|loss is"),
        ({"recipe": MixText((7,))}, "hidden:7|numbered|7"),
        ({"progress": 3}, "progress=3"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_what_is_no_training_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(mx.MixError, match=said):
        run(**given)
