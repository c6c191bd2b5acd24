"""A mix like one before: what was checked and laid out then is not checked and laid out again.

On a GPU the kernel of a small batch takes less time than the checks of ``execute``. So a mix that has been done is
remembered by everything about it that is not a number of the plan: layout, kind, tail, and the shape, strides, dtype,
device and alignment of the source. A mix like it needs only what can differ: that rows exist, and what ids and bytes
ask of opacities and fills. It then writes its plan among arguments that are ready, and goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...constant import ascending
from ...exchange import exchanges
from ...packing import Packing, pack_fills
from . import driver
from .recipe import Recipe

if TYPE_CHECKING:
    from ...execute import Job
    from ...fills import Fills
    from ...output import Output
    from ...plan import Plan

#: So many kinds of mixes are remembered; beyond it all are forgotten, as nobody has so many at a time.
MOST = 256
#: Dtypes that any opacity and any fill suits; bytes take fills from 0 to 255, ids no opacity between 0 and 1.
_FREE = ("float64", "float32", "float16", "bfloat16")


@dataclass(eq=False)
class Known:
    """A kind of mix, and its arguments in place: an int64 array that is the struct of the kernel.

    Args:
        made: its recipe.
        packing: of its plans.
        chip: the driver that it was made for.
        kernel: loaded.
        rows: of the source.
        to: the tail, kept alive because it is known by its identity.
        shape: of the result; None: that of the source.
        dtype: of the result.
        blends: may opacities lie between 0 and 1?
        any_fill: may fills be any number?
        leave_fills: are patches that paint left out?
        fills: those that stand among the arguments, and that suit.
        slots: of rows that exchange, as they stand among the arguments; None: out of place.
    """

    made: Recipe
    packing: Packing
    chip: Any
    kernel: Any
    rows: int
    to: Output | None
    shape: tuple[int, ...] | None
    dtype: torch.dtype
    blends: bool
    any_fill: bool
    leave_fills: bool
    fills: Fills
    slots: np.ndarray | None
    lock: Any = field(default_factory=Lock)

    def __post_init__(self) -> None:
        form, packing = self.made.form, self.packing
        self.arguments = self.made.arguments.copy()
        # The plan that was remembered had them switched off; those that follow come as they were drawn.
        self.arguments["leave_fills"] = self.leave_fills
        self.addresses = self.arguments.view(np.uint64)
        words = self.arguments["words"][0]
        n, k, rank = packing.n, packing.k, form.rank
        records = words[: n * packing.record].reshape(n, packing.record)
        self.base, self.row = records[:, 0], records[:, 1]
        self.base[:] = self.row[:] = ascending(n)
        if self.slots is not None:
            self.place(self.slots)
        patches = records[:, 2:].reshape(n, k, packing.patch)
        self.partner, self.opacity = patches[..., 0], patches[..., 1].view(np.float32)
        # Two edges to a word, the start in its lower half: as 16-bit numbers they lie in the order of a plan's boxes.
        self.box = patches[..., 2 : 2 + rank].view(np.uint16) if rank else None
        self.table = words[n * packing.record : packing.words]
        if packing.fills:
            pack_fills(self.fills, packing, self.table)

    def takes(self, plan: Plan) -> bool:
        """Do the numbers of a plan of this form suit?"""
        if plan.base is not ascending(plan.n):
            return False
        # Where no fill is known, one, below 0, is too large a number.
        partner = plan.partner if self.packing.fills else plan.partner.view(np.uint32)
        if np.maximum.reduce(partner, None) >= self.rows:
            return False
        if self.packing.fills and not self.any_fill and plan.fills is not self.fills:
            return False
        return self.blends or not plan.facts.blends

    def place(self, slots: np.ndarray) -> None:
        """Take the rows in the order of slots."""
        self.slots, self.order = slots, np.maximum(slots, 0)
        self.base[:], self.row[:] = self.order, slots

    def launch(self, plan: Plan, x: Tensor, out: Tensor) -> None:
        """Write addresses and plan, and go; the caller holds the lock."""
        partner, opacity, box = plan.partner, plan.opacity, plan.box
        if self.slots is not None:
            partner, opacity = partner.take(self.order, 0), opacity.take(self.order, 0)
            box = box if self.box is None else box.take(self.order, 0)
        self.partner[...] = partner
        self.opacity[...] = opacity
        if self.box is not None:
            self.box[...] = box
        if self.packing.fills and plan.fills is not self.fills:
            pack_fills(plan.fills, self.packing, self.table)
            self.fills = plan.fills
        self.addresses[0], self.addresses[1] = x.data_ptr(), out.data_ptr()
        made = self.made
        self.chip.launch(self.kernel, made.grid, made.block, self.arguments, (x, None, None), out)


_known: dict[tuple[Any, ...], Known] = {}


def _key(x: Tensor, plan: Plan, layout: str, kind: str, to: Output | None, in_place: bool) -> tuple[Any, ...]:
    fills = plan.fills
    return (
        layout,
        kind,
        id(to),
        in_place,
        x.shape,
        x.stride(),
        x.dtype,
        x.device,
        x.data_ptr() & 15,
        plan.shape,
        plan.partner.shape,
        fills.value.shape,
        fills.noisy,
    )


def repeated(x: Tensor, plan: Plan, layout: str, kind: str, to: Output | None, in_place: bool) -> Tensor | None:
    """The mix, if one like it is known; None if not, or if something about this one must be looked at."""
    known = _known.get(_key(x, plan, layout, kind, to, in_place))
    if known is None or plan.donor is not plan.box or x.requires_grad or known.chip is not driver.current():
        return None
    if known.chip.capturing(x.device) or not known.lock.acquire(blocking=False):
        return None
    try:
        if not known.takes(plan):
            return None
        if in_place:
            slots = exchanges(plan)
            if slots is None:
                return None
            if slots is not known.slots:
                known.place(slots)
            out = x
        else:
            out = torch.empty_like(x) if known.shape is None else x.new_empty(known.shape, dtype=known.dtype)
        known.launch(plan, x, out)
        return out
    finally:
        known.lock.release()


def remember(job: Job, made: Recipe, packing: Packing, x: Tensor, out: Tensor, slots: np.ndarray | None) -> None:
    """Keep a mix that has been done, if the next one like it can do without the checks."""
    plan = job.plan
    in_place = job.out is x and job.in_place
    if not (made.form.words and x is job.x and (job.out is None or in_place) and made.factors is None):
        return
    if packing.shift or packing.wide or not packing.k or plan.base is not ascending(plan.n):
        return
    plain = job.to is None
    if plain and not in_place and (out.shape != x.shape or out.stride() != torch.empty_like(x, device="meta").stride()):
        return
    dtype = made.form.source
    if len(_known) >= MOST:
        _known.clear()
    chip = driver.current()
    _known[_key(x, plan, " ".join(job.names), job.kind, job.to, job.in_place)] = Known(
        made,
        packing,
        chip,
        chip.kernel(made.form, x.device),
        x.shape[job.names.index("b")],
        job.to,
        None if plain else tuple(out.shape),
        out.dtype,
        job.kind != "discrete" and (dtype in _FREE or dtype == "uint8"),
        dtype in _FREE or job.kind != "continuous",
        job.kind != "continuous",
        plan.fills,
        slots,
    )
