"""How a plan prints: a table a person can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .plan import Plan

_ROWS = 12


def plan_table(plan: Plan) -> str:
    """The plan as lines of text: a headline, then a row for each of the first twelve output rows."""
    where = f"boxes on {' x '.join(map(str, plan.shape))}" if plan.shape else "whole rows"
    layer = f", layer {plan.layer}" if plan.layer else ""
    lines = [f"Plan of {plan.n} rows, {plan.k} patch{'' if plan.k == 1 else 'es'} each, {where}{layer}"]
    own = [f"{n}" if b == n else f"{n} (from {b})" for n, b in enumerate(plan.base[:_ROWS].tolist())]
    wide = max(map(len, [*own, "row"]))
    if plan.n:
        lines.append(f"  {'row':>{wide}}  own share  patches")
    lam = plan.lam
    for n, name in enumerate(own):
        lines.append(f"  {name:>{wide}}  {lam[n]:9.4f}  {_patches(plan, n) or 'untouched'}")
    if plan.n > _ROWS:
        lines.append(f"  ... {plan.n - _ROWS} more rows")
    return "\n".join(lines)


def _patches(plan: Plan, n: int) -> str:
    parts = []
    for k in range(plan.k):
        opacity = plan.opacity[n, k]
        if not opacity:
            continue
        who = f"row {plan.partner[n, k]}" if plan.partner[n, k] >= 0 else _fill(plan, -1 - plan.partner[n, k])
        if plan.rank:
            who += " at " + _box(plan.box[n, k])
            if not np.array_equal(plan.box[n, k], plan.donor[n, k]) and plan.partner[n, k] >= 0:
                who += " from " + _box(plan.donor[n, k])
        parts.append(f"{opacity:.4g} of {who}" if opacity < 1 else who)
    return "; ".join(parts)


def _box(box: np.ndarray) -> str:
    return "[" + ", ".join(f"{a}:{b}" for a, b in box.reshape(-1, 2)) + "]"


def _fill(plan: Plan, i: int) -> str:
    fill = plan.fills[i]
    value = ", ".join(f"{v:g}" for v in fill.value) if isinstance(fill.value, tuple) else f"{fill.value:g}"
    return f"fill {value}" if fill.noise == "none" else f"{fill.noise} noise {value} ± {fill.std:g}"
