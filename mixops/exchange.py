"""Which rows can be overwritten while others read them: those that exchange two by two."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .constant import ascending, is_ascending
from .errors import MixValueError

if TYPE_CHECKING:
    from .plan import Plan


def exchanges(plan: Plan) -> np.ndarray | None:
    """Rows in slots of two that no other slot reads from or writes to, for a plan that keeps every row in its place.

    Rows that need nobody share a slot too: two slots of n rows are always one of two rows each.

    Returns:
        (2 * ceil(n / 2),) int32, slot s being elements 2s and 2s + 1; -1 where n is odd and a slot has one row. None if
        there is no such order: a row that changes is read by two, or from another place than its own.
    """
    if plan.k == 1 and plan.donor is plan.box:
        mutual = _mutual(plan.partner[:, 0])
        if mutual is not None:
            return mutual
    facts, n = plan.facts, plan.n
    if facts.shifted is not None:
        return None
    rows = np.arange(n)
    changes = np.logical_or.reduce(facts.used, 1)
    reads = np.flatnonzero((facts.donor != rows) & changes[facts.donor])
    mate = np.full(n, -1)
    mate[reads] = facts.donor[reads]
    read = facts.donor[reads]
    if (mate[read] == -1).any():
        mate[read[mate[read] == -1]] = reads[mate[read] == -1]
    if (mate[mate[reads]] != reads).any() or (mate[facts.donor[reads]] != reads).any():
        return None
    first = np.flatnonzero(mate > rows)
    return _slots(np.stack([first, mate[first]], 1).ravel(), np.flatnonzero(mate == -1))


def _mutual(partner: np.ndarray) -> np.ndarray | None:
    """The slots of rows whose partners name one another; None if one does not, or is a fill."""
    n, rows = len(partner), ascending(len(partner))
    if (partner == rows[::-1]).all():
        return _flipped(n)
    if partner.min(initial=0) < 0 or partner.max(initial=-1) >= n or (partner[partner] != rows).any():
        return None
    first = np.flatnonzero(partner > rows)
    return _slots(np.stack([first, partner[first]], 1).ravel(), np.flatnonzero(partner == rows))


@lru_cache(maxsize=32)
def _flipped(n: int) -> np.ndarray:
    """The slots of a batch whose first row exchanges with its last, and so on; the same array every time."""
    rows = ascending(n)
    slots = _slots(np.stack([rows, rows[::-1]], 1)[: n // 2].ravel(), rows[n // 2 : n // 2 + n % 2])
    slots.setflags(write=False)
    return slots


def _slots(pairs: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """Pairs, then single rows, then nothing where the last slot has one row."""
    rest = [-1] if (len(pairs) + len(alone)) % 2 else []
    return np.concatenate([pairs, alone, rest]).astype(np.int32)


def check_exchanges(plan: Plan) -> np.ndarray:
    """The order of ``exchanges``, or a MixError where there is none."""
    order = exchanges(plan)
    if order is None:
        raise MixValueError(
            "out=x on a GPU: rows must exchange two by two there (pairing='flip'), and this plan moves rows in longer "
            "ways or from another place: give out= an array of its own"
        )
    return order


def check_stays(plan: Plan, rows: int) -> None:
    """Raise unless every row of a source stays in its place and has one donor at most: it can be mixed in place."""
    if plan.n != rows or not is_ascending(plan.base):
        raise MixValueError(
            "out=x: this plan moves rows, and in place every row must stay: give out= an array of its own"
        )
    if plan.k == 1:
        return
    facts = plan.facts
    several = (facts.used & (plan.partner >= 0) & (plan.partner != facts.donor[:, None])).any(1)
    if several.any():
        row = int(np.argmax(several))
        raise MixValueError(
            f"out=x: row {row} has several donors, and in place it may have one: give out= an array of its own"
        )
