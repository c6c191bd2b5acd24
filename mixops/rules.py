"""The rules every plan keeps. They are checked in as few passes as they take; only a fault is looked for slowly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import MixValueError

if TYPE_CHECKING:
    from .plan import Plan


def check_plan(plan: Plan, rows: int) -> None:
    """Raise MixError, naming the first row that breaks a rule, unless the plan fits a source of ``rows`` rows."""
    n, k, r = plan.n, plan.k, plan.rank
    shapes = {"base": (n,), "box": (n, k, 2 * r), "donor": (n, k, 2 * r)}
    shapes |= dict.fromkeys(("partner", "opacity", "weight"), (n, k))
    for name, shape in shapes.items():
        if getattr(plan, name).shape != shape:
            raise MixValueError(
                f"plan {name} has shape {getattr(plan, name).shape}, expected {shape} "
                f"(N={n} rows, K={k} patches, R={r} axes)"
            )
    if n and not _holds(plan, rows):
        _find_fault(plan, rows)


def _holds(plan: Plan, rows: int) -> bool:
    """All rules at once; NaN fails every comparison."""
    if plan.base.min() < 0 or plan.facts.top >= rows:
        return False
    if not plan.k:
        return True
    ok = plan.partner.min() >= -len(plan.fills) and plan.opacity.min() >= 0 and plan.opacity.max() <= 1
    ok = ok and plan.weight.min() >= 0 and plan.weight.sum(1).max() <= 1 + 1e-6
    ok = ok and not (plan.has_fills and ((plan.partner < 0) & (plan.weight != 0)).any())
    return bool(ok and _fits(plan.box, plan.shape) and (plan.donor is plan.box or _fits(plan.donor, plan.shape)))


def _fits(box: np.ndarray, shape: tuple[int, ...]) -> bool:
    start, stop = box[..., 0::2], box[..., 1::2]
    return not box.size or bool(start.min() >= 0 and (stop >= start).all() and (stop <= np.array(shape)).all())


def _find_fault(plan: Plan, rows: int) -> None:
    """Say which rule is broken and where."""
    _refuse(plan.base < 0, "base is negative, expected a row of the source")
    beyond = f"out of range for {rows} source rows: this plan of {plan.n} rows reads the source up to row "
    beyond += f"{plan.facts.top}; draw it for the batch that it mixes, with Spec.like(x, layout)"
    _refuse(plan.base >= rows, f"base {beyond}")
    _refuse(plan.partner >= rows, f"partner {beyond}")
    _refuse(plan.partner < -len(plan.fills), f"partner names a fill that is not among the {len(plan.fills)}")
    # Written so that NaN fails too.
    _refuse(~((plan.opacity >= 0) & (plan.opacity <= 1)), "opacity outside [0, 1]")
    _refuse(~(plan.weight >= 0), "weight is negative or NaN")
    _refuse(~(plan.weight.sum(1) <= 1 + 1e-6), "weights sum to more than 1")
    _refuse((plan.partner < 0) & (plan.weight != 0), "a fill has a weight: fills never change targets")
    for name in ("box", "donor"):
        start, stop = getattr(plan, name)[..., 0::2], getattr(plan, name)[..., 1::2]
        _refuse(
            (start < 0) | (stop < start) | (stop > np.array(plan.shape)),
            f"{name} outside shape {plan.shape} or its stop before its start",
        )


def _refuse(bad: np.ndarray, what: str) -> None:
    if bad.any():
        raise MixValueError(f"plan row {int(np.argwhere(bad)[0][0])}: {what}")
