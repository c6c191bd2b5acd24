"""Leaves: which rows of the source the target of each output row is made of, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .plan import Plan


def target_shares(plans: Sequence[Plan]) -> tuple[np.ndarray, np.ndarray]:
    """(rows, shares), int64 and float32 of shape (N, M): source rows and their shares of each target, own row first.

    A donor that weighs nothing gives way to the own row: its label takes no part and is not looked at. M is the
    product of 1 + K over the steps; a row may be named several times.
    """
    first, *later = plans
    rows, shares = _of_step(first)
    for step in later:
        source, share = _of_step(step)
        width = source.shape[1] * rows.shape[1]
        rows = rows[source].reshape(step.n, width)
        shares = (share[..., None] * shares[source]).reshape(step.n, width)
    return rows, shares


def _of_step(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    rows, shares = np.empty((plan.n, 1 + plan.k), np.int64), np.empty((plan.n, 1 + plan.k), np.float32)
    rows[...] = plan.base[:, None]
    np.copyto(rows[:, 1:], plan.partner, where=plan.weight > 0)
    shares[:, 0], shares[:, 1:] = plan.lam, plan.weight
    return rows, shares
