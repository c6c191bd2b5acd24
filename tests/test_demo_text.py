"""The page of the sentences: what it shows was drawn, what it says is what was measured."""

from __future__ import annotations

import re
from html import unescape

import numpy as np
import pytest
from mixops.pipelines.demo import text
from mixops.pipelines.demo.text_page import text_page_html
from mixops.pipelines.text.bundled import questions
from mixops.pipelines.text.vocabulary import tokenize

import mixops as mx


def curves(**finals: dict[str, list[float]]) -> text.TextCurves:
    """Runs of one epoch; the measures that are not given are the same for every method."""
    methods = next(iter(finals.values()))
    same = {name: [0.5] * len(values) for name, values in methods.items()}
    runs = {m.key: finals.get(m.key, same) for m in text.MEASURES}
    arrays = {key: {name: np.array(v)[:, None] for name, v in table.items()} for key, table in runs.items()}
    return text.TextCurves(np.array([1]), arrays)


def said(key: str, none: list[float], other: list[float]) -> str:
    """The sentence on a measure."""
    found = text.text_findings(curves(**{key: {"none": none, "WordMixup": other}}))
    return next(f for f in found if f.measure.key == key).sentences[0]


def moved(values: list[float], by: float) -> list[float]:
    return [v + by + d for v, d in zip(values, (0.001, -0.001, 0.002, -0.002), strict=True)]


NONE = [0.60, 0.62, 0.64, 0.61]


def test_of_accuracy_more_is_better() -> None:
    assert said("accuracy", NONE, moved(NONE, 0.05)).startswith(
        "WordMixup is better in accuracy, which is higher: +5.00"
    )
    assert said("accuracy", NONE, moved(NONE, -0.05)).startswith(
        "WordMixup is worse in accuracy, which is lower: -5.00"
    )


@pytest.mark.parametrize(("key", "name"), [("nll", "negative log-likelihood"), ("ece", "calibration error")])
def test_of_what_counts_errors_less_is_better(key: str, name: str) -> None:
    down, up = said(key, NONE, moved(NONE, -0.05)), said(key, NONE, moved(NONE, 0.05))
    assert down.startswith(f"WordMixup is better in {name}, which is lower: -")
    assert down.endswith("better on 4 of 4 seeds.")
    assert up.startswith(f"WordMixup is worse in {name}, which is higher: +")
    assert up.endswith("better on 0 of 4 seeds.")


@pytest.mark.parametrize("key", ["accuracy", "nll", "ece"])
def test_an_interval_that_holds_zero_is_no_difference(key: str) -> None:
    sentence = said(key, NONE, [NONE[0] + 0.02, NONE[1] - 0.03, NONE[2] + 0.01, NONE[3]])
    assert sentence.startswith("WordMixup shows no difference in ")
    assert "holds zero" in sentence
    assert sentence.endswith(f"better on {2 if key == 'accuracy' else 1} of 4 seeds.")


def test_the_interval_is_that_of_the_paired_t_test_whichever_way_is_better() -> None:
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    none, other = rng.normal(1.1, 0.1, 6), rng.normal(1.0, 0.1, 6)
    for key in ("accuracy", "nll"):
        found = text.text_findings(curves(**{key: {"none": none.tolist(), "WordMixup": other.tolist()}}))
        verdict = next(f for f in found if f.measure.key == key).verdicts[1]
        interval = ttest_rel(other, none).confidence_interval(0.95)
        assert (verdict.low, verdict.high) == pytest.approx((interval.low, interval.high))
        assert verdict.mean == pytest.approx(other.mean())
        assert verdict.gain == pytest.approx((other - none).mean())
        assert verdict.wins == int(((other > none) if key == "accuracy" else (other < none)).sum())


# -- what was drawn ----------------------------------------------------------------------------------------------------


def test_the_pairs_that_are_shown_are_those_of_the_plan() -> None:
    data = questions()
    label = dict(zip(data.texts, data.labels.tolist(), strict=True))
    for draw in text.text_draws(208):
        assert repr(mx.parse_op(draw.title)).split("(")[0] in text.METHODS
        assert draw.plan.layer == draw.layer
        own = [pair.own.text for pair in draw.pairs]
        assert len(set(own)) == len(own) == 4
        for row, pair in enumerate(draw.pairs):
            assert pair.own.text != pair.other.text
            assert pair.own.share == pytest.approx(float(draw.plan.lam[row]))
            assert pair.other.share == pytest.approx(float(draw.plan.opacity[row, 0]))
            target = np.zeros(len(data.classes))
            for question in (pair.own, pair.other):
                assert data.classes[label[question.text]] == question.kind
                target[label[question.text]] += question.share
            assert dict(pair.target) == pytest.approx({data.classes[c]: target[c] for c in np.flatnonzero(target)})


def test_both_operators_are_drawn_for_the_same_questions() -> None:
    words, sentence = text.text_draws(3)
    assert (words.layer, sentence.layer) == ("words", "sentence")
    assert [pair.own.text for pair in words.pairs] == [pair.own.text for pair in sentence.pairs]


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> str:
    rng = np.random.default_rng(1)
    runs = {m.key: {name: rng.uniform(0.4, 0.6, (3, 4)) for name in text.METHODS} for m in text.MEASURES}
    made = text.TextCurves(np.arange(1, 5), runs)
    return text_page_html(text.text_draws(208), made, text.text_findings(made), "about <this> machine")


def plain(html: str) -> str:
    """What a reader sees."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def test_the_page_shows_every_pair_with_its_words_shares_and_target(page: str) -> None:
    words, sentence = text.text_draws(208)
    seen = plain(page)
    for draw in (words, sentence):
        assert draw.title in seen
        assert draw.text in seen
        for pair in draw.pairs:
            assert f"target: {pair.label}" in seen
            for question in (pair.own, pair.other):
                assert f"width:{100 * question.share:.1f}%" in page
    for pair in sentence.pairs:
        for question in (pair.own, pair.other):
            assert f"{question.share:.2f} {question.text}" in seen
    blocks = re.findall(r'<div class="words">(.*?)</div>', page)
    assert len(blocks) == len(words.pairs)
    for pair, block in zip(words.pairs, blocks, strict=True):
        cells = [unescape(word) for word in re.findall(r"<i [^>]*>([^<]*)</i>", block)]
        for place, question in enumerate((pair.own, pair.other)):
            shown = cells[place::2]
            expected = tokenize(question.text)
            assert shown == expected + ["·"] * (len(shown) - len(expected))
            assert len(shown) == max(len(tokenize(pair.own.text)), len(tokenize(pair.other.text)))


def test_the_page_says_what_was_measured(page: str) -> None:
    rng = np.random.default_rng(1)
    runs = {m.key: {name: rng.uniform(0.4, 0.6, (3, 4)) for name in text.METHODS} for m in text.MEASURES}
    found = text.text_findings(text.TextCurves(np.arange(1, 5), runs))
    seen = plain(page)
    for finding in found:
        for verdict in finding.verdicts:
            final = runs[finding.measure.key][verdict.method][:, -1]
            assert verdict.mean == pytest.approx(final.mean())
            assert f"{verdict.method} {finding.measure.show(float(final.mean()))}" in seen
        assert len(finding.sentences) == 2
        for sentence in finding.sentences:
            assert sentence in seen


def test_text_from_outside_is_escaped_and_the_pages_know_each_other(page: str) -> None:
    assert "about &lt;this&gt; machine" in page
    assert re.findall(r'<a href="([^"]+)">', page) == ["index.html"]


# -- training ----------------------------------------------------------------------------------------------------------


def test_training_ends_with_the_curves_of_all_runs_and_is_the_same_again() -> None:
    *steps, (_, first) = text.train_questions(2, 1)
    *_, (_, again) = text.train_questions(2, 1)
    assert len(steps) == text.run_count(2) == 2 * len(text.METHODS)
    assert len({what for what, _ in steps}) == len(steps)
    assert first is not None
    assert again is not None
    assert first.seeds == 2
    for measure in text.MEASURES:
        assert set(first.runs[measure.key]) == set(text.METHODS)
        for method, values in first.runs[measure.key].items():
            assert values.shape == (2, 1)
            assert np.isfinite(values).all()
            assert np.array_equal(values, again.runs[measure.key][method])


@pytest.mark.parametrize(("seeds", "epochs"), [(1, 2), (2, 0)])
def test_too_few_seeds_or_epochs_are_refused_before_any_training(seeds: int, epochs: int) -> None:
    with pytest.raises(mx.MixError, match="at least 2 seeds"):
        next(text.train_questions(seeds, epochs))
