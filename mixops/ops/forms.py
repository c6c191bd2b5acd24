"""The form that the draws of several operators have in common, so that code compiled for one serves them all."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..errors import MixValueError
from ..fills import NOISES, Fills
from ..plan import Plan


class Form(NamedTuple):
    """What a draw is besides its numbers.

    Args:
        shape: extents that boxes are measured on.
        k: patches a row.
        fills: entries of the table of fills; 0 where no plan paints, and tables stay as they are.
        values: numbers that each has, 1 or one for each channel.
        noisy: is one of them noise?
        shifted: do donors have an array of their own, beside that of the boxes?
    """

    shape: tuple[int, ...]
    k: int
    fills: int
    values: int
    noisy: bool
    shifted: bool


def common_form(plans: list[Plan]) -> Form:
    """The smallest form that all these plans can be given.

    Raises:
        MixError: if they speak of different axes.
    """
    if len({p.shape for p in plans if p.rank}) > 1:
        raise MixValueError("OneOf: its operators draw on different axes")
    tables = [p.fills for p in plans if p.has_fills]
    noisy = any(table.noisy for table in tables)
    return Form(
        shape=max((p.shape for p in plans), key=len),
        k=max(p.k for p in plans),
        # A table without noise takes an entry of noise more.
        fills=max((len(table) + (noisy and not table.noisy) for table in tables), default=0),
        values=max((table.value.shape[1] for table in tables), default=1),
        noisy=noisy,
        shifted=any(p.donor is not p.box for p in plans),
    )


def formed(plan: Plan, form: Form) -> Plan:
    """The same plan in a form that is as large or larger."""
    plan = plan.promoted(form.shape).padded(form.k)
    if form.shifted and plan.donor is plan.box:
        plan = Plan.trusted(plan, donor=plan.box.copy())
    if not form.fills:
        return plan
    if not plan.has_fills:
        return Plan.trusted(plan, fills=_blank(form.fills, form.values, form.noisy))
    fills = plan.fills
    if (len(fills), fills.value.shape[1], fills.noisy) == (form.fills, form.values, form.noisy):
        return plan
    return Plan.trusted(plan, fills=fills.joined(_blank(form.fills - len(fills), form.values, form.noisy)))


@lru_cache(maxsize=32)
def _blank(count: int, values: int, noisy: bool) -> Fills:
    """Fills that nobody paints with."""
    noise = np.full(count, NOISES.index("pixel") if noisy else 0)
    return Fills(np.zeros((count, values)), noise, np.ones(count), np.zeros(count, np.uint64))
