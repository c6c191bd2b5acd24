"""The page: what the demonstration found, as one HTML file beside its tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import mixops as mx

from ..look import INK, document, draw_curves, inline_svg
from ..plots import sample_shares, shares_figure
from .photos import SIZE as TILE
from .photos import Strip
from .speed import ROWS, SIZE, Pace
from .train import METHODS, TRAIN_IMAGES, Curves
from .verdict import Verdict


def page_html(
    strips: Sequence[Strip], curves: Curves, found: Sequence[Verdict], paces: Sequence[Pace], about: str
) -> str:
    """The whole page as HTML.

    Args:
        strips: photographs, the last one mixed by the chain.
        curves: of the training runs.
        found: what they say.
        paces: images per second.
        about: versions and machine, one line.
    """
    parts = [
        f'<p class="soft">{escape(about)}</p>',
        "<h2>Photographs, before and after</h2>",
        "<p>Under each tile: whose photograph it starts from, the shares of its label, and the same shares as a bar. "
        "“cut” means that a fill was painted, which never changes a label.</p>",
        *strips_html(strips),
        *_training(curves, found),
        *_speed(paces),
        *_chain(strips[-1]),
    ]
    return document("mixops at work", parts, {"text.html": "Sentences", "frameworks.html": "Frameworks"})


def strips_html(strips: Sequence[Strip]) -> Iterable[str]:
    """A heading, a sentence and the tiles of each strip, with the shares of the labels under them."""
    for strip in strips:
        yield f'<h3>{escape(strip.title)}</h3><p class="soft">{escape(strip.text)}</p><div class="tiles">'
        for file, caption in zip(strip.files, strip.captions, strict=True):
            bar = "".join(
                f'<i style="width:{100 * share:.1f}%;background:{colour}"></i>'
                for (_, share), colour in zip(caption.shares, caption.colours, strict=True)
            )
            text = escape(str(caption))
            yield (
                f'<figure><img src="{escape(file)}" alt="{text}" width="{TILE}" height="{TILE}">'
                f'<div class="bar">{bar}</div><figcaption><b>{escape(caption.owner)}</b>{text}</figcaption></figure>'
            )
        yield "</div>"


def _training(curves: Curves, found: Sequence[Verdict]) -> Iterable[str]:
    seeds = found[0].seeds
    yield "<h2>A small network on few digits</h2>"
    yield (
        f"<p>A convolutional network learns scikit-learn's handwritten digits (8 x 8 pixels) from {TRAIN_IMAGES} "
        f"images, for {int(curves.epochs[-1])} epochs, and is tested on the other {1797 - TRAIN_IMAGES}. {seeds} seeds "
        "for each method; on one seed all methods share split, first weights and order of samples. Batches come "
        "through DataLoader with two workers, KeyedBatchSampler and MixCollator. Nothing was tuned.</p>"
    )
    methods = ", ".join(f"<code>{escape(repr(METHODS[v.method]))}</code>" for v in found[1:] if v.method in METHODS)
    yield f'<p class="soft">The methods: {methods}; none is plain training through the same chain.</p>'
    yield f'<div class="card">{inline_svg(_curves_figure(curves))}</div>'
    yield '<p class="soft">Test accuracy, mean over seeds; the bands are one standard deviation either way.</p>'
    yield "<div class='card'><table><tr><th>method</th><th>accuracy</th><th>sd over seeds</th>"
    yield "<th>gain on none, paired</th><th>95 % interval</th><th>better on</th></tr>"
    for v in found:
        own = f"<tr><td>{escape(v.method)}</td><td>{100 * v.mean:.2f} %</td><td>{100 * v.sd:.2f}</td>"
        if v is found[0]:
            yield own + "<td></td><td></td><td></td></tr>"
        else:
            yield (
                f"{own}<td>{100 * v.gain:+.2f}</td><td>{100 * v.low:+.2f} to {100 * v.high:+.2f}</td>"
                f"<td>{v.wins} of {v.seeds}</td></tr>"
            )
    yield "</table></div>"
    yield "<ul>" + "".join(f"<li>{escape(v.sentence)}</li>" for v in found[1:]) + "</ul>"
    yield (
        '<p class="soft">Gains are points of accuracy after the last epoch, on the same seed; the interval is that of '
        "the t-test on paired differences, with no correction for comparing three methods. So small a task cannot say "
        "which method suits yours; it shows that the chain trains.</p>"
    )


def _speed(paces: Sequence[Pace]) -> Iterable[str]:
    yield "<h2>Images per second</h2>"
    yield (
        f"<p>{ROWS} photographs, uint8, {SIZE} x {SIZE} x 3, become one mixed, normalised float32 batch in NCHW and "
        "its soft labels. One thread each; the contenders take turns and the median counts. all three "
        f"give the same batch, to {max((p.difference for p in paces), default=0):.0e}.</p>"
    )
    yield '<p class="soft">mx.mix: a list of samples in, drawn, mixed, normalised and laid out in one pass. MixLoader: '
    yield "batches that are stacked already, through the same pass. Plain torch: stack, permute, float, normalise, "
    yield "λ·x + (1 - λ)·x[partner] or a box assignment, then the holes; its draw is not timed.</p>"
    yield '<div class="card"><table><tr><th>chain</th><th></th><th style="text-align:left">images per second</th>'
    yield "<th>to plain</th></tr>"
    most = max((max(p.mixed, p.loader, p.plain) for p in paces), default=1.0)
    for p in paces:
        rows = (("mx.mix", p.mixed, "ours"), ("MixLoader", p.loader, "ours"), ("plain torch", p.plain, ""))
        for i, (who, rate, kind) in enumerate(rows):
            yield (
                f"<tr><td>{escape(p.chain) if not i else ''}</td><td>{who}</td><td class='rate'>"
                f"<span class='{kind}' style='width:{60 * rate / most:.1f}%'></span>{rate:,.0f}</td>"
                f"<td>{rate / p.plain:.1f} x</td></tr>"
            )
    yield "</table></div>"


def _chain(strip: Strip) -> Iterable[str]:
    op = mx.parse_op(strip.title)
    yield "<h2>What the chain drew</h2>"
    yield "<p>The plan of the last photographs above, as <code>print(plan)</code> shows it; it is saved beside this "
    yield f"page as <code>plan.npz</code>.</p><pre>{escape(repr(strip.plan))}</pre>"
    yield "<p>And how much this chain mixes, over 4,000 rows:</p>"
    figure = shares_figure(sample_shares(op, 4000, batch=8), "", ink=INK)
    yield f'<div class="card">{inline_svg(figure)}</div>'


def _curves_figure(curves: Curves) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    axis = figure.subplots()
    percent = {method: 100 * runs for method, runs in curves.accuracy.items()}
    draw_curves(axis, curves.epochs, percent, "test accuracy, %")
    best = max(float(runs.max()) for runs in percent.values())
    late = min(float(runs[:, len(curves.epochs) // 3 :].min()) for runs in percent.values())
    axis.set_ylim(late - 2, min(best + 1, 100))
    return figure
