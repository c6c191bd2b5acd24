"""Facts: what executors ask of a plan again and again, found once for each plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .plan import Plan


@dataclass(frozen=True)
class Facts:
    """Derived from a plan's arrays.

    Args:
        top: the highest source row that is named, -1 if none is.
        used: (N, K) bool, patches that do something.
        painted: (N, K) bool, used patches that paint a fill.
        paints: is there one?
        blends: does a used patch leave a share of what was there?
        shifted: (N, K) bool, used donors that lie elsewhere than their box; None if there is none.
        donor: (N,) the one source row that each row reads besides its own; its own where it reads none.
    """

    top: int
    used: np.ndarray
    painted: np.ndarray
    paints: bool
    blends: bool
    shifted: np.ndarray | None
    donor: np.ndarray

    @classmethod
    def of(cls, plan: Plan) -> Facts:
        """Find them."""
        used = plan.opacity > 0
        fill = plan.partner < 0
        painted = used & fill if plan.has_fills else np.zeros_like(used)
        shifted = None
        if plan.donor is not plan.box and plan.rank:
            moved = (plan.box != plan.donor).any(-1) & used & ~fill
            shifted = moved if moved.any() else None
        top = max(int(plan.base.max(initial=-1)), int(plan.partner.max(initial=-1)))
        donor = np.where(used & ~fill if plan.has_fills else used, plan.partner, -1).max(1, initial=-1)
        donor = np.where(donor < 0, plan.base, donor).astype(np.int64)
        blends = bool((used & (plan.opacity < 1)).any())
        return cls(top, used, painted, bool(painted.any()), blends, shifted, donor)
