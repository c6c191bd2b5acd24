"""A plan as 32-bit words, the way it travels to an accelerator.

A row takes ``base, row`` and then for each patch ``partner, opacity, box..., shift...``: the bits of a float32 opacity;
start and stop of each box axis, two of 16 bits in one word where the extents fit, else a word each; with ``shift``, how
far the donor lies from the box along each axis. The fills follow: their values, and with ``noise`` its kind, standard
deviation and two words of key each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .constant import ascending

if TYPE_CHECKING:
    from .fills import Fills
    from .plan import Plan

#: Extents up to this fit the 16 bits of a box edge.
NARROW = 0xFFFF


@dataclass(frozen=True)
class Packing:
    """How plans of one form are packed.

    Args:
        n: rows.
        k: patches a row.
        rank: axes of a box.
        wide: boxes take a word an edge.
        shift: donors may lie elsewhere than their boxes.
        fills: fills in the table, 0 if no patch paints.
        values: numbers of a fill, 1 or one for each channel.
        noise: fills may be noise.
    """

    n: int
    k: int
    rank: int
    wide: bool
    shift: bool
    fills: int
    values: int
    noise: bool

    @classmethod
    def of(cls, plan: Plan) -> Packing:
        """The form of a plan, from what its operator and spec decide and no draw does: one kernel serves a training."""
        fills = plan.fills
        paints = plan.has_fills
        return cls(
            plan.n,
            plan.k,
            plan.rank,
            bool(plan.shape) and max(plan.shape) > NARROW,
            plan.rank > 0 and plan.donor is not plan.box,
            len(fills) if paints else 0,
            fills.value.shape[1],
            paints and fills.noisy,
        )

    @property
    def patch(self) -> int:
        """Words of a patch."""
        return 2 + self.rank * (1 + self.wide + self.shift)

    @property
    def record(self) -> int:
        """Words of a row."""
        return 2 + self.k * self.patch

    @property
    def fill(self) -> int:
        """Words of a fill."""
        return self.values + 4 * self.noise

    @property
    def words(self) -> int:
        """Words of a whole plan."""
        return self.n * self.record + self.fills * self.fill


def pack(plan: Plan, form: Packing, words: np.ndarray, rows: np.ndarray | None = None) -> None:
    """Write a plan of this form into words.

    Args:
        plan: the plan.
        form: ``Packing.of`` it, or one with room for more fills and what goes with them, and for donors elsewhere.
        words: (form.words or more,) int32.
        rows: (n,) which row each becomes, -1 for none; None: the first the first, and so on.
    """
    n, k, rank = form.n, form.k, form.rank
    records = words[: n * form.record].reshape(n, form.record)
    records[:, 0] = plan.base
    records[:, 1] = ascending(n) if rows is None else rows
    patches = records[:, 2:].reshape(n, k, form.patch)
    patches[..., 0] = plan.partner
    patches[..., 1] = plan.opacity.view(np.int32)
    if rank:
        at = 2 + rank * (1 + form.wide)
        if form.wide:
            patches[..., 2:at] = plan.box
        else:
            patches[..., 2:at] = plan.box[..., 0::2] | plan.box[..., 1::2] << 16
        if form.shift:
            patches[..., at:] = plan.donor[..., 0::2] - plan.box[..., 0::2]
    if form.fills and plan.has_fills:
        pack_fills(plan.fills, form, words[n * form.record : form.words])


def pack_fills(fills: Fills, form: Packing, words: np.ndarray) -> None:
    """Write a table of fills into the (form.fills * form.fill,) words that follow the rows; the rest stays as it is."""
    table = words.reshape(form.fills, form.fill)[: len(fills)]
    table[:, : form.values] = fills.value.view(np.int32)
    if form.noise:
        table[:, form.values] = fills.noise
        table[:, form.values + 1] = fills.std.view(np.int32)
        table[:, form.values + 2 :] = fills.key.view(np.int32).reshape(-1, 2)
