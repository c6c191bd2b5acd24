"""The page of the sentences: which were mixed, and what a small network made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import zip_longest
from typing import Any

import numpy as np

from ..look import document, draw_curves, inline_svg
from ..preview import COLOURS
from ..text.bundled import questions
from ..text.vocabulary import tokenize
from .text import BATCH, METHODS, TRAIN_QUESTIONS, Draw, Finding, Pair, Question, TextCurves

#: A word whose share is next to nothing can still be read.
_FAINTEST = 0.35


def text_page_html(draws: Sequence[Draw], curves: TextCurves, found: Sequence[Finding], about: str) -> str:
    """The whole page as HTML.

    Args:
        draws: to show, one for each operator.
        curves: of the training runs.
        found: what they say, one for each measure.
        about: versions and machine, one line.
    """
    parts = [f'<p class="soft">{escape(about)}</p>', *_mixed(draws), *_training(curves, found)]
    return document("mixops at work on sentences", parts, {"index.html": "Photographs and speed"})


def _mixed(draws: Sequence[Draw]) -> Iterable[str]:
    classes = questions().classes
    colour = {kind: COLOURS[i] for i, kind in enumerate(classes)}
    key = "".join(f'<li><i style="background:{colour[kind]}"></i>{escape(kind)}</li>' for kind in classes)
    yield "<h2>Questions, mixed</h2>"
    yield (
        "<p>The questions are written for this demonstration; the class of each is what it asks for. Each box is one "
        "row of a mixed batch: the question that it starts from, the partner that was drawn for it, and the share of "
        "either, which is its share of the vectors and of the target. Token ids are never averaged.</p>"
    )
    yield f'<ul class="key">{key}</ul>'
    for draw in draws:
        yield f'<h3>{escape(draw.title)}</h3><p class="soft">{escape(draw.text)}</p><div class="pairs">'
        for pair in draw.pairs:
            inside = _word_by_word(pair, colour) if draw.layer == "words" else _side_by_side(pair, colour)
            bar = "".join(
                f'<i style="width:{100 * q.share:.1f}%;background:{colour[q.kind]}"></i>' for q in _both(pair)
            )
            yield f'<figure class="card"><div class="bar">{bar}</div>{inside}'
            yield f"<figcaption>target: <b>{escape(pair.label)}</b></figcaption></figure>"
        yield "</div>"


def _both(pair: Pair) -> tuple[Question, Question]:
    return pair.own, pair.other


def _word_by_word(pair: Pair, colour: dict[str, str]) -> str:
    """Own words above, the partner's below, place by place; the fainter, the smaller the share."""
    cells = []
    for words in zip_longest(*(tokenize(question.text) for question in _both(pair)), fillvalue=None):
        lines = (
            f'<i style="border-color:{colour[q.kind]};opacity:{_FAINTEST + (1 - _FAINTEST) * q.share:.2f}">'
            f"{'·' if word is None else escape(word)}</i>"
            for word, q in zip(words, _both(pair), strict=True)
        )
        cells.append(f"<span>{''.join(lines)}</span>")
    shares = f"{pair.own.share:.2f} of the upper, {pair.other.share:.2f} of the lower word at every place"
    return f'<div class="words">{"".join(cells)}</div><p class="soft">{shares}</p>'


def _side_by_side(pair: Pair, colour: dict[str, str]) -> str:
    """Both questions as they are, each with its share."""
    lines = (
        f'<li style="border-color:{colour[q.kind]}"><b>{q.share:.2f}</b> {escape(q.text)}</li>' for q in _both(pair)
    )
    return f'<ul class="whole">{"".join(lines)}</ul>'


def _training(curves: TextCurves, found: Sequence[Finding]) -> Iterable[str]:
    data = questions()
    yield "<h2>A small network on few questions</h2>"
    yield (
        f"<p>A convolutional network with word vectors that start at random learns which of {len(data.classes)} kinds "
        f"of answer a question wants, from {TRAIN_QUESTIONS} questions in batches of {BATCH}, for "
        f"{int(curves.epochs[-1])} epochs, and is tested on the other {len(data) - TRAIN_QUESTIONS}. {curves.seeds} "
        "seeds for each method; on one seed all methods share split, first weights and order of batches. The loader "
        "draws a plan for each batch, and the training step mixes inside the network. Learning rate and "
        "epochs were set for plain training to settle in seconds; the mixing was not tuned. Who guesses is right in "
        f"{100 / len(data.classes):.0f} of 100.</p>"
    )
    methods = ", ".join(f"<code>{escape(repr(op))}</code>" for op in METHODS.values() if op is not None)
    yield f'<p class="soft">The methods: {methods}, each with one λ ~ Beta(1, 1) for a batch; none is plain training '
    yield "by the same loop.</p>"
    yield '<div class="pairs">'
    percent = {method: 100 * values for method, values in curves.runs["accuracy"].items()}
    for runs, label in ((percent, "test accuracy, %"), (curves.runs["nll"], "test negative log-likelihood")):
        yield f'<div class="card">{inline_svg(_curves_figure(curves, runs, label))}</div>'
    yield "</div>"
    yield '<p class="soft">On the test questions, mean over seeds; the bands are one standard deviation either way.</p>'
    yield from _table(found)
    sentences = (sentence for finding in found for sentence in finding.sentences)
    yield "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"
    yield (
        '<p class="soft">All after the last epoch. Differences are paired, method less none on the same seed; the '
        "interval is that of the t-test on them, with no correction for making six comparisons. Of accuracy more is "
        "better, of the negative log-likelihood (nats) and of the calibration error (15 bins) less is. So small a "
        "task cannot say which method suits yours; it shows that the chain trains.</p>"
    )


def _table(found: Sequence[Finding]) -> Iterable[str]:
    yield "<div class='card'><table><tr><th>on the test questions</th><th>mean</th><th>sd over seeds</th>"
    yield "<th>less none, paired</th><th>95 % interval</th><th>better on</th></tr>"
    for finding in found:
        measure = finding.measure
        better = "less" if measure.falls else "more"
        yield f'<tr class="group"><th colspan="6">{escape(measure.name)}, {better} is better</th></tr>'
        for v in finding.verdicts:
            own = f"<tr><td>{escape(v.method)}</td><td>{measure.show(v.mean)}</td><td>{measure.spread(v.sd)}</td>"
            if v is finding.verdicts[0]:
                yield own + "<td></td><td></td><td></td></tr>"
            else:
                yield (
                    f"{own}<td>{measure.change(v.gain)}</td><td>{measure.change(v.low)} to {measure.change(v.high)}"
                    f"</td><td>{v.wins} of {v.seeds}</td></tr>"
                )
    yield "</table></div>"


def _curves_figure(curves: TextCurves, runs: Mapping[str, np.ndarray], label: str) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.0), layout="constrained")
    draw_curves(figure.subplots(), curves.epochs, runs, label)
    return figure
