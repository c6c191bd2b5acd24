"""The page: what the demonstration found, as one HTML file beside its tiles."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import mixops as mx

from ..plots import dress, sample_shares, shares_figure
from .photos import SIZE as TILE
from .photos import Strip
from .speed import ROWS, SIZE, Pace
from .train import METHODS, TRAIN_IMAGES, Curves
from .verdict import Verdict

#: Colours that read on white and on black.
_LINES = {"none": "#8c8c8c", "Mixup": "#3f8fd2", "Cutout": "#d9822b", "CutMix": "#2fa36b"}
_SPARE = "#b05cc6"
#: What matplotlib paints text and axes with; it becomes the page's own text colour.
_INK = "#010203"

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5c6670; --paper: #fbfbfa; --card: #ffffff; --line: #e2e5e8;
  --ours: #2a78c2; --plain: #9aa4ad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa4ad; --paper: #14171a; --card: #1c2024;
  --line: #31373d; --ours: #56a3e8; --plain: #6d7780; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; margin: 0 0 .25rem; } h2 { font-size: 1.3rem; margin: 2.8rem 0 .4rem; }
h3 { font-size: .98rem; margin: 1.6rem 0 0; font-family: ui-monospace, Consolas, monospace; overflow-wrap: anywhere; }
p { margin: .3rem 0 .8rem; max-width: 52rem; } .soft { color: var(--soft); font-size: .92rem; }
.tiles { display: grid; grid-template-columns: repeat(8, 1fr); gap: .8rem; }
@media (max-width: 1020px) { .tiles { grid-template-columns: repeat(4, 1fr); } }
@media (max-width: 480px) { .tiles { grid-template-columns: repeat(2, 1fr); } }
figure { margin: 0; } figure img { width: 100%; height: auto; display: block; border-radius: 6px 6px 0 0; }
figcaption { font-size: .76rem; line-height: 1.35; margin-top: .3rem; color: var(--soft); overflow-wrap: anywhere; }
figcaption b { color: var(--ink); display: block; }
.bar { display: flex; height: 6px; border-radius: 0 0 6px 6px; overflow: hidden; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem; overflow-x: auto; }
.card svg { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 600; }
td.rate { width: 45%; text-align: left; } .rate span { display: inline-block; height: .75rem; border-radius: 3px;
  background: var(--plain); vertical-align: middle; margin-right: .5rem; min-width: 2px; }
.rate span.ours { background: var(--ours); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .9rem; overflow-x: auto;
  font-size: .82rem; line-height: 1.45; }
ul { padding-left: 1.2rem; margin: .6rem 0; }
"""


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
        "<h1>mixops at work</h1>",
        f'<p class="soft">{escape(about)}</p>',
        *_photographs(strips),
        *_training(curves, found),
        *_speed(paces),
        *_chain(strips[-1]),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>mixops at work</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _photographs(strips: Sequence[Strip]) -> Iterable[str]:
    yield "<h2>Photographs, before and after</h2>"
    yield (
        "<p>Under each tile: whose photograph it starts from, the shares of its label, and the same shares as a bar. "
        "“cut” means that a fill was painted, which never changes a label.</p>"
    )
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
    yield f'<div class="card">{_inline(_curves_figure(curves))}</div>'
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
    figure = shares_figure(sample_shares(op, 4000, batch=8), "", ink=_INK)
    yield f'<div class="card">{_inline(figure)}</div>'


def _curves_figure(curves: Curves) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for method, runs in curves.accuracy.items():
        mean, sd = 100 * runs.mean(0), 100 * runs.std(0, ddof=1)
        colour = _LINES.get(method, _SPARE)
        axis.plot(curves.epochs, mean, color=colour, linewidth=1.8, label=method)
        axis.fill_between(curves.epochs, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)
    best = 100 * max(float(runs.max()) for runs in curves.accuracy.values())
    late = 100 * min(float(runs[:, len(curves.epochs) // 3 :].min()) for runs in curves.accuracy.values())
    axis.set_ylim(late - 2, min(best + 1, 100))
    axis.set_xlabel("epoch")
    axis.set_ylabel("test accuracy, %")
    axis.legend(frameon=False, loc="lower right")
    dress(axis, _INK)
    return figure


def _inline(figure: Any) -> str:
    """The figure as SVG that takes the page's text colour and font, on no background of its own."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mixops", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor").replace("font: ", "font-family: inherit; font: ")
