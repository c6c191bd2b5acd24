"""Facts: what executors ask of a plan again and again, each found once, and only if it is asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .constant import ascending, filled

if TYPE_CHECKING:
    from .plan import Plan


class Facts:
    """Derived from a plan's arrays.

    It holds the arrays, not the plan: the plan holds it, and a cycle would outlive both.

    Args:
        plan: the plan.
    """

    def __init__(self, plan: Plan) -> None:
        self._base, self._partner, self._opacity = plan.base, plan.partner, plan.opacity
        self._box, self._donor_box = plan.box, plan.donor
        self._has_fills = plan.has_fills

    @cached_property
    def top(self) -> int:
        """The highest source row that is named, -1 if none is."""
        base, partner = self._base, self._partner
        n = base.size
        own = n - 1 if base is ascending(n) else int(base.max(initial=-1))
        return max(own, int(np.maximum.reduce(partner, None))) if partner.size else own

    @cached_property
    def used(self) -> np.ndarray:
        """(N, K) bool, patches that do something."""
        return self._opacity > 0

    @cached_property
    def painted(self) -> np.ndarray:
        """(N, K) bool, used patches that paint a fill."""
        if not self._has_fills:
            return filled(self._partner.shape, False, np.bool_)
        return self.used & (self._partner < 0)

    @cached_property
    def paints(self) -> bool:
        """Is there one?"""
        return self._has_fills and bool(self.painted.any())

    @cached_property
    def blends(self) -> bool:
        """Does a used patch leave a share of what was there?"""
        return bool((self.used & (self._opacity < 1)).any())

    @cached_property
    def moves(self) -> np.ndarray:
        """(N, K, 2R) int32, how far each edge of a donor lies from that of its box."""
        moves: np.ndarray = self._donor_box - self._box
        return moves

    @cached_property
    def shifted(self) -> np.ndarray | None:
        """(N, K) bool, used donors that lie elsewhere than their box; None if there is none."""
        if self._donor_box is self._box or not self._box.shape[-1]:
            return None
        moved = self.moves.any(-1) & self.used
        moved = moved & (self._partner >= 0) if self._has_fills else moved
        return moved if moved.any() else None

    @cached_property
    def resized(self) -> np.ndarray | None:
        """(N, K) bool, used donors of another size than their box; None if there is none."""
        if self.shifted is None:
            return None
        unequal = self.moves[..., 0::2] != self.moves[..., 1::2]
        if not unequal.any():
            return None
        resized = unequal.any(-1) & self.shifted
        return resized if resized.any() else None

    @cached_property
    def donor(self) -> np.ndarray:
        """(N,) int64: the one source row that each row reads besides its own; its own where it reads none."""
        if self._partner.shape[1:] == (1,):
            reads, first = self.used[:, 0], self._partner[:, 0]
            reads = reads & (first >= 0) if self._has_fills else reads
            return np.where(reads, first, self._base).astype(np.int64)
        reads = self.used & (self._partner >= 0) if self._has_fills else self.used
        donor = np.where(reads, self._partner, -1).max(1, initial=-1)
        return np.where(donor < 0, self._base, donor).astype(np.int64)
