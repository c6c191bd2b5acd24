"""How much an operator mixes: the distribution of λ and of the label weights, drawn from the operator itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import mixops as mx

from .preview import fills_painted, steps_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 40


@dataclass(frozen=True, eq=False)
class Shares:
    """What a sample of rows looks like.

    Args:
        lam: (n,) own share of each row, through all steps.
        label: (n, m) label shares of each row from large to small, where every row is a class of its own.
        painted: (n,) whether a fill is painted on the row.
    """

    lam: np.ndarray
    label: np.ndarray
    painted: np.ndarray

    def summary(self) -> dict[str, float]:
        """Numbers for a report, each from 0 to 1."""
        return {
            "mean lam": float(self.lam.mean()),
            "sd lam": float(self.lam.std()),
            "rows with lam = 1": float((self.lam == 1).mean()),
            "rows with lam < 0.5": float((self.lam < 0.5).mean()),
            "mean of the largest label share": float(self.label[:, 0].mean()),
            "rows with a fill": float(self.painted.mean()),
        }


def sample_shares(
    op: mx.Operator,
    n: int = 20_000,
    *,
    batch: int = 16,
    shape: tuple[int, ...] = (224, 224),
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Shares:
    """Draw plans until there are n rows, and collect their shares.

    Args:
        op: the operator.
        n: rows, 1 or more.
        batch: rows of each plan; rows of one plan share their λ where the operator draws one a batch.
        shape: extents that boxes are drawn on.
        seed: plan i is drawn from the stream of step i.
        progress: wraps the loop, ``tqdm`` say.

    Returns:
        Shares of n rows.

    Raises:
        MixError: if n or batch is below 1, or the operator refuses the shape.

    Example:
        >>> sample_shares(mx.Mixup(0.0), 100).summary()["rows with lam = 1"]
        1.0
    """
    if n < 1 or batch < 1:
        raise mx.MixValueError(f"n={n}, batch={batch}: expected 1 or more of each")
    labels = np.arange(batch)
    evidence = {"labels": labels} if "labels" in op.needs else {}
    spec = mx.Spec(batch, shape)
    parts = []
    for step in progress(range(-(-n // batch))):
        plan = op.draw(mx.streams.plan_stream(seed, step=step), spec, **evidence)
        soft = np.asarray(mx.soft_targets(labels, plan, batch))
        parts.append((_own_shares(plan, batch), -np.sort(-soft, axis=1)[:, :8], _painted(plan, batch)))
    lam, label, painted = (np.concatenate(p)[:n] for p in zip(*parts, strict=True))
    return Shares(lam, label, painted)


def _own_shares(plan: mx.Plan | mx.PlanSequence, rows: int) -> np.ndarray:
    """λ of each row: its own share of each step, multiplied."""
    own = np.ones(rows, np.float32)
    for step in steps_of(plan):
        own = step.lam * own[step.base]
    return own


def _painted(plan: mx.Plan | mx.PlanSequence, rows: int) -> np.ndarray:
    """Whether a fill shows on each row."""
    seen = np.zeros(rows, bool)
    for step in steps_of(plan):
        seen = seen[step.base] | (fills_painted(step) > 0)
    return seen


def shares_figure(shares: Shares, title: str, ink: str = "#1c1c1c") -> Figure:
    """Two histograms side by side: λ, and the label shares of a row from the largest to the smallest.

    Args:
        shares: see ``sample_shares``.
        title: of the figure, the operator say.
        ink: colour of text and axes.

    Returns:
        A matplotlib figure that belongs to no window: ``figure.savefig(path)``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title if len(title) < 100 else title[:99] + "…", fontsize=11, fontweight="bold", color=ink)
    left, right = figure.subplots(1, 2)
    _lam_panel(left, shares.lam)
    _label_panel(right, shares.label)
    for axis in (left, right):
        axis.set_xlim(0, 1)
        axis.set_ylim(0, axis.get_ylim()[1] * 1.15)
        dress(axis, ink)
    return figure


def dress(axis: Any, ink: str) -> None:
    """Give a matplotlib axis two thin lines, a faint grid, and one colour for everything that is said."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(ink)
    axis.tick_params(colors=ink)
    axis.grid(axis="y", alpha=0.25, linewidth=0.6)
    axis.set_axisbelow(True)
    legend = axis.get_legend()
    said = [axis.title, axis.xaxis.label, axis.yaxis.label, *(legend.get_texts() if legend else ())]
    for text in said:
        text.set_color(ink)


def _density(values: np.ndarray, of: int) -> tuple[np.ndarray, np.ndarray]:
    """Histogram heights such that all bars of ``of`` rows would have area 1."""
    count, edges = np.histogram(values, _BINS, (0, 1))
    return count * _BINS / of, edges


def _lam_panel(axis: Any, lam: np.ndarray) -> None:
    """Rows of λ = 1 are said in words: as a bar they would hide all others."""
    mixed = lam[lam < 1]
    if len(mixed):
        height, edges = _density(mixed, len(lam))
        axis.stairs(height, edges, fill=True, color="#4477aa", alpha=0.85)
        mean = float(lam.mean())
        axis.axvline(mean, color="#cc3344", linewidth=1.2)
        axis.annotate(
            f"mean {mean:.2f}",
            (mean, 1.0),
            (4, -2),
            ("data", "axes fraction"),
            "offset points",
            va="top",
            color="#cc3344",
        )
    else:
        axis.text(0.5, 0.5, "every row keeps λ = 1:\ntargets never change", ha="center", va="center", color="#6b6b6b")
    untouched = 1 - len(mixed) / len(lam)
    axis.set_title(
        "λ, a row's own share" + (f"  ({untouched:.1%} of rows have λ = 1, not drawn)" if untouched else ""), fontsize=9
    )
    axis.set_xlabel("λ")
    axis.set_ylabel("density over all rows")


def _label_panel(axis: Any, label: np.ndarray) -> None:
    names = ("largest", "second", "third", "fourth")
    for i, colour in zip(range(min(label.shape[1], 4)), ("#4477aa", "#ee6677", "#228833", "#ccbb44"), strict=False):
        values = label[:, i]
        inner = values[(values > 1e-6) & (values < 1 - 1e-6)]
        if len(inner):
            height, edges = _density(inner, len(label))
            axis.stairs(
                height, edges, fill=True, color=colour, alpha=0.75, label=f"{names[i]}: mean {values.mean():.2f}"
            )
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8)
    else:
        axis.text(0.5, 0.5, "every row has one label", ha="center", va="center", color="#6b6b6b")
    one = float((label[:, 0] >= 1 - 1e-6).mean())
    axis.set_title(
        "label weights of a row" + (f"  ({one:.1%} of rows have one label, not drawn)" if one else ""), fontsize=9
    )
    axis.set_xlabel("share of the target")
