"""Plots of a study: paired differences with their intervals, curves with their spread. Drawn from its JSON alone."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from evidence import Measure, curves
from mixops.pipelines.plots import dress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: As many as any study has methods, and more: two of one colour could not be told apart.
COLOURS = ("#444444", "#1b6ca8", "#c8553d", "#588157", "#8d6a9f", "#b08900", "#5ec4cf", "#e08fb8")
INK = "#1c1c1c"


def new_figure(width: float, height: float) -> Figure:
    """A white figure that belongs to no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def svg(figure: Figure) -> str:
    """The figure as SVG; the same figure gives the same text."""
    import matplotlib

    out = io.StringIO()
    # Text stays text, and names of parts come from what they hold, not from chance.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mixops", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def colour_of(methods: Sequence[str], method: str) -> str:
    """The colour of a method, the same in all figures of a study; the first is grey."""
    return COLOURS[methods.index(method) % len(COLOURS)]


def legend(figure: Figure, axis: Any) -> None:
    """The legend of all panels, made from one, below them: in one row, or in as many as the width asks for."""
    handles, labels = axis.get_legend_handles_labels()
    for rows in range(1, len(labels) + 1):
        made = figure.legend(
            handles, labels, loc="outside lower center", ncols=math.ceil(len(labels) / rows), frameon=False
        )
        if made.get_window_extent().width <= figure.bbox.width:
            return
        if rows < len(labels):
            made.remove()


def differences(report: Mapping[str, Any], measures: Mapping[str, Measure]) -> Figure:
    """Paired difference of each method to the first, with its 95 % interval: a panel a measure, a line a case."""
    methods, cases = list(report["methods"]), list(report["cases"])
    found = {(row["case"], row["method"], row["measure"]): row["difference"] for row in report["summary"]}
    step = 0.22 * len(methods[1:]) + 0.16
    figure = new_figure(4.2 * len(measures) + 0.8, 1.6 + step * len(cases))
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for panel, (name, measure) in zip(panels, measures.items(), strict=True):
        for i, case in enumerate(cases):
            for j, method in enumerate(methods[1:]):
                by = found[case, method, name]
                y = -i - (j - (len(methods) - 2) / 2) * 0.8 / max(1, len(methods) - 1)
                colour = colour_of(methods, method)
                ends = [measure.scale * by["low"], measure.scale * by["high"]]
                panel.plot(ends, [y, y], color=colour, linewidth=2, solid_capstyle="butt")
                panel.plot(measure.scale * by["mean"], y, "o", color=colour, label="" if i else method, markersize=5)
        panel.axvline(0, color=INK, linewidth=0.8)
        panel.set_ylim(-len(cases) + 0.4, 0.6)
        panel.set_title(f"{measure.title.split(',')[0]}, difference to {methods[0]}", fontsize=10)
        panel.set_xlabel(f"{measure.unit.strip() or measure.title} ({measure.better} is better)")
        panel.set_yticks([-i for i in range(len(cases))], cases)
        dress(panel, INK)
        panel.locator_params(axis="x", nbins=6)
        panel.grid(axis="x", alpha=0.25, linewidth=0.6)
        panel.grid(axis="y", visible=False)
    legend(figure, panels[0])
    return figure


def learning_curves(
    report: Mapping[str, Any],
    panels: Mapping[str, Measure],
    x: str = "epoch",
    places: Sequence[float] | None = None,
) -> Figure:
    """Curves of all methods: a row of panels a case, a column a list that every run gives; mean, and SD as a band.

    Args:
        report: of the study.
        panels: name of the list -> how it is called.
        x: what its places are.
        places: the places themselves; None counts them from 1.
    """
    methods, cases = list(report["methods"]), list(report["cases"])
    figure = new_figure(5.2 * len(panels), 3.2 * len(cases) + 0.5)
    axes = figure.subplots(len(cases), len(panels), squeeze=False)
    for row, case in zip(axes, cases, strict=True):
        for axis, (name, measure) in zip(row, panels.items(), strict=True):
            for method in methods:
                found = measure.scale * curves(report["runs"], case, method, name)
                at = 1 + np.arange(found.shape[1]) if places is None else np.asarray(places)
                band(axis, at, found, colour_of(methods, method), method)
            axis.set_title(f"{case}: {measure.title}", fontsize=10)
            axis.set_xlabel(x)
            axis.locator_params(axis="x", integer=bool(np.all(at % 1 == 0)))
            dress(axis, INK)
    legend(figure, axes[0][0])
    return figure


def band(axis: Any, x: np.ndarray, found: np.ndarray, colour: str, label: str) -> None:
    """Mean over seeds as a line, mean ± SD as a band; ``found`` is (seeds, len(x))."""
    mean, sd = found.mean(0), found.std(0, ddof=1)
    axis.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)
    axis.plot(x, mean, color=colour, linewidth=1.8, label=label)
