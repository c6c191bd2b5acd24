"""Which rows can be overwritten while others read them: those that exchange two by two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ...plan import Plan


def exchanges(plan: Plan) -> np.ndarray | None:
    """Rows in slots of two that no other slot reads from or writes to, for a plan that keeps every row in its place.

    Rows that need nobody share a slot too: two slots of n rows are always one of two rows each.

    Returns:
        (2 * ceil(n / 2),) int32, slot s being elements 2s and 2s + 1; -1 where n is odd and a slot has one row. None if
        there is no such order: a row that changes is read by two, or from another place than its own.
    """
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
    pairs = np.stack([first, mate[first]], 1).ravel()
    alone = np.flatnonzero(mate == -1)
    order = np.concatenate([pairs, alone])
    return np.append(order, -1).astype(np.int32) if n % 2 else order.astype(np.int32)
