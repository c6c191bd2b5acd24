"""How the pages of reports look: one style, figures in the colours of the page, curves with their spread."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import numpy as np

from .plots import dress

#: Colours that read on white and on black.
LINES = {
    "none": "#8c8c8c",
    "Mixup": "#3f8fd2",
    "Cutout": "#d9822b",
    "CutMix": "#2fa36b",
    "WordMixup": "#3f8fd2",
    "SentenceMixup": "#d9822b",
}
_SPARE = "#b05cc6"
#: What matplotlib paints text and axes with; it becomes the page's own text colour.
INK = "#010203"

STYLE = """
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
.pairs { display: grid; grid-template-columns: repeat(2, 1fr); gap: .8rem; }
@media (max-width: 820px) { .pairs { grid-template-columns: 1fr; } }
.pairs p { margin: .5rem 0 0; } .pairs .bar { border-radius: 6px; margin-bottom: .8rem; gap: 2px; }
.pairs figcaption { margin-top: .6rem; font-size: .85rem; } .pairs figcaption b { display: inline; }
.words { display: flex; flex-wrap: wrap; gap: .45rem .5rem; } .words span { display: flex; flex-direction: column; }
.words i { font-style: normal; line-height: 1.3; border-bottom: 2px solid; text-align: center; }
.whole { list-style: none; padding: 0; margin: 0; }
.whole li { border-left: 4px solid; padding-left: .6rem; margin: .4rem 0; }
.key { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; font-size: .92rem; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 3px; margin-right: .4rem; }
tr.group th { text-align: left; padding-top: .9rem; color: var(--ink); }
nav { display: flex; gap: 1.2rem; margin: .2rem 0 1rem; font-size: .95rem; } nav a { color: var(--ours); }
ul { padding-left: 1.2rem; margin: .6rem 0; }
"""


def document(title: str, parts: Iterable[str], links: Mapping[str, str] | None = None) -> str:
    """A whole HTML page in the style of all reports.

    Args:
        title: of the page, plain text.
        parts: HTML of the page, in order.
        links: file -> what it is called, of other pages of the report, for under the heading.
    """
    others = "".join(f'<a href="{file}">{escape(name)}</a>' for file, name in (links or {}).items())
    nav = f"<nav>{others}</nav>\n" if others else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{nav}" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def draw_curves(axis: Any, epochs: np.ndarray, runs: Mapping[str, np.ndarray], label: str) -> None:
    """Draw the mean of each method over its seeds, in a band of one standard deviation either way.

    Args:
        axis: of matplotlib.
        epochs: (e,) the horizontal axis.
        runs: method -> (seeds, e), two seeds or more.
        label: of the vertical axis.
    """
    for method, values in runs.items():
        mean, sd = values.mean(0), values.std(0, ddof=1)
        colour = LINES.get(method, _SPARE)
        axis.plot(epochs, mean, color=colour, linewidth=1.8, label=method)
        axis.fill_between(epochs, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_ylabel(label)
    axis.legend(frameon=False)
    dress(axis, INK)


def inline_svg(figure: Any) -> str:
    """The figure as SVG that takes the page's text colour and font, on no background of its own."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mixops", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor").replace("font: ", "font-family: inherit; font: ")
