"""Plots as inline SVG: the times of a row as bars, and curves over a size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

#: Bars longer than this many times the shortest are cut; their number says how long they are.
CUT = 25
COLOURS = ("#1b6ca8", "#c8553d", "#588157", "#8d6a9f", "#b08900", "#444444")
LABEL, WIDE, BAR = 330, 560, 15


def bars(rows: Sequence[dict[str, Any]]) -> str:
    """Milliseconds of each contender, one bar for each allocator, with copy and floor as lines across.

    Args:
        rows: one row of the benchmark as it was measured on each allocator, the first as it comes.
    """
    times = [{c["name"]: c["ms"] for c in row["contenders"]} for row in rows]
    ours = {c["name"] for c in rows[0]["contenders"] if c["ours"]}
    names = sorted(set(times[0]) - {"copy", "floor"}, key=lambda n: -times[0][n]["median"])
    lines = {name: times[0][name]["median"] for name in ("floor", "copy") if name in times[0]}
    shown = [t[n]["median"] for t in times for n in names if n in t]
    top = min(max(shown), CUT * min(shown))
    top = max(top, *lines.values()) if lines else top
    step = BAR * len(rows) + 8
    height = step * len(names) + 42
    out = [_svg(LABEL + WIDE + 90, height)]
    for i, name in enumerate(names):
        y = 22 + i * step
        out.append(_text(LABEL - 8, y + BAR * len(rows) / 2 + 4, name, "end", "bold" if name in ours else "normal"))
        for j, t in enumerate(times):
            if name not in t:
                continue
            ms = t[name]["median"]
            width = min(ms, top) / top * WIDE
            colour = COLOURS[0] if name in ours else "#8a8a8a"
            out.append(
                f'<rect x="{LABEL}" y="{y + j * BAR}" width="{width:.1f}" height="{BAR - 3}" fill="{colour}" '
                f'fill-opacity="{1 if j == 0 else 0.5}"/>'
            )
            cut = " (bar cut)" if ms > top else ""
            out.append(_text(LABEL + width + 4, y + j * BAR + 10, f"{ms:.3g}{cut}", "start"))
    for place, (name, ms) in enumerate(sorted(lines.items(), key=lambda one: one[1])):
        x = LABEL + ms / top * WIDE
        dash = ' stroke-dasharray="5 3"' if name == "copy" else ""
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="16" y2="{height - 20}" stroke="{COLOURS[1]}"{dash}/>')
        anchor = "end" if place == 0 else "start"
        out.append(_text(x + (3 if place else -3), 12, f"{name} {ms:.3g}", anchor))
    legend = (
        "ms" if len(rows) == 1 else f"ms; upper bar: allocator {rows[0]['allocator']}; lower: {rows[1]['allocator']}"
    )
    out.append(_text(LABEL, height - 6, legend, "start"))
    return "".join([*out, "</svg>"])


def curves(row: dict[str, Any]) -> str:
    """The curves of a row: points with quartiles, and the fitted lines, on logarithmic axes."""
    wide, high, left, low = 620, 330, 60, 40
    points = [p for curve in row["curves"] for p in curve["points"]]
    xs, ms = [p["x"] for p in points], [v for p in points for v in (p["ms"]["q1"], p["ms"]["q3"])]
    x_of, y_of = _axis(min(xs), max(xs), left, wide), _axis(min(ms), max(ms), high, 15)
    out = [_svg(wide + 260, high + low)]
    for x in sorted(set(xs)):
        out.append(_text(x_of(x), high + 16, str(x), "middle"))
        out.append(f'<line x1="{x_of(x):.1f}" x2="{x_of(x):.1f}" y1="15" y2="{high}" stroke="#e4e4e4"/>')
    for power in range(math.floor(math.log10(min(ms))), math.ceil(math.log10(max(ms))) + 1):
        if min(ms) <= 10.0**power <= max(ms):
            y = y_of(10.0**power)
            out.append(_text(left - 6, y + 4, f"{10.0**power:g}", "end"))
            out.append(f'<line x1="{left}" x2="{wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>')
    for i, curve in enumerate(row["curves"]):
        colour = COLOURS[i % len(COLOURS)]
        fit = [
            (
                x_of(p["x"]),
                y_of(min(max(curve["overhead_ms"] + p["bytes"] / curve["gb_per_s"] / 1e6, min(ms)), max(ms))),
            )
            for p in curve["points"]
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in fit)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-dasharray="4 3"/>')
        for p in curve["points"]:
            x, y, q1, q3 = x_of(p["x"]), *(y_of(p["ms"][q]) for q in ("median", "q1", "q3"))
            out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{q1:.1f}" y2="{q3:.1f}" stroke="{colour}"/>')
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        out.append(_text(wide + 12, 24 + 18 * i, curve["name"], "start", colour=colour))
    out.append(_text(left, high + 34, f"ms over {row['curves'][0]['axis']}; dashed: overhead + bytes ÷ rate", "start"))
    return "".join([*out, "</svg>"])


def _axis(low: float, high: float, start: float, end: float) -> Any:
    span = math.log(high / low) or 1.0
    return lambda value: start + math.log(value / low) / span * (end - start)


def _svg(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">'
    )


def _text(x: float, y: float, words: str, anchor: str, weight: str = "normal", colour: str = "#222") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'
