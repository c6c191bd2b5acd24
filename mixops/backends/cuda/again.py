"""A mix like one before: what was checked and laid out then is not checked and laid out again.

On a GPU the kernel of a small batch takes less time than the checks of ``execute``. So a mix that has been done is
remembered by everything about it that is not a number of the plan: layout, kind, tail, and the shape, strides, dtype,
device and alignment of the source, and of ``out``. A mix like it needs only what can differ: that rows exist, what ids
and bytes ask of opacities and fills, and that ``out`` lies apart from the source. It then writes its plan, or where its
plan lies, among arguments that are ready, and goes.
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
from .. import was_written
from ..addresses import reach
from . import driver
from .recipe import Recipe

if TYPE_CHECKING:
    from ...device_plan import DevicePlan
    from ...execute import Job
    from ...fills import Fills
    from ...output import Output
    from ...plan import Plan

#: So many kinds of mixes are remembered; beyond it all are forgotten, as nobody has so many at a time.
MOST = 256
#: Dtypes that any opacity and any fill suits; bytes take fills from 0 to 255, ids no opacity between 0 and 1.
_FREE = ("float64", "float32", "float16", "bfloat16")


@dataclass(eq=False, kw_only=True)
class Ready:
    """A kind of mix, and its arguments in place: an int64 array that is the struct of the kernel.

    Args:
        made: its recipe.
        chip: the driver that it was made for.
        kernel: loaded.
        to: the tail, kept alive because it is known by its identity.
        shape: of the result; None: it lies as the source does.
        dtype: of the result.
        reaches: bytes from the first of the source to its last, and of the result.
        dtype_name: of the source.
    """

    made: Recipe
    chip: Any
    kernel: Any
    to: Output | None
    shape: tuple[int, ...] | None
    dtype: torch.dtype
    reaches: tuple[int, int]
    dtype_name: str
    lock: Any = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.arguments = self.made.fresh()
        self.addresses = self.arguments.view(np.uint64)

    def result(self, x: Tensor, out: Tensor | None) -> Tensor | None:
        """Where the result goes; None if ``out`` cannot be written while x is read."""
        if out is None:
            return torch.empty_like(x) if self.shape is None else x.new_empty(self.shape, dtype=self.dtype)
        if out is not x:
            distance = out.data_ptr() - x.data_ptr()
            if out.requires_grad or -self.reaches[1] < distance < self.reaches[0]:
                return None
        return out

    def go(self, x: Tensor, out: Tensor, words: Tensor | None = None) -> None:
        """Write the addresses and launch; the caller holds the lock."""
        self.addresses[0], self.addresses[1] = x.data_ptr(), out.data_ptr()
        if words is not None:
            self.addresses[2] = words.data_ptr()
        made = self.made
        self.chip.launch(self.kernel, made.grid, made.block, self.arguments, (x, words, None), out)


@dataclass(eq=False, kw_only=True)
class Known(Ready):
    """A kind of mix by a Plan, which travels among the arguments.

    Args:
        packing: of its plans.
        rows: of the source.
        blends: may opacities lie between 0 and 1?
        any_fill: may fills be any number?
        leave_fills: are patches that paint left out?
        fills: those that stand among the arguments, and that suit.
        slots: of rows that exchange, as they stand among the arguments; None: out of place.
    """

    packing: Packing
    rows: int
    blends: bool
    any_fill: bool
    leave_fills: bool
    fills: Fills
    slots: np.ndarray | None

    def __post_init__(self) -> None:
        super().__post_init__()
        form, packing = self.made.form, self.packing
        # The plan that was remembered had them switched off; those that follow come as they were drawn.
        self.arguments["leave_fills"] = self.leave_fills
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
        if self.blends or np.minimum.reduce(plan.opacity, None) >= 1:
            return True
        return not plan.facts.blends

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
        self.go(x, out)


_Key = tuple[Any, ...]
_known: dict[_Key, Known] = {}
_held: dict[_Key, Ready] = {}


def _places(x: Tensor, out: Tensor | None) -> _Key:
    """How source and result lie: everything about them but their addresses."""
    source = (x.shape, x.stride(), x.dtype, x.device, x.data_ptr() & 15)
    if out is None or out is x:
        return (*source, out is x)
    return (*source, out.shape, out.stride(), out.dtype, out.device, out.data_ptr() & 15)


def _key(x: Tensor, plan: Plan, layout: str, kind: str, to: Output | None, out: Tensor | None) -> _Key:
    fills = plan.fills
    return (
        layout,
        kind,
        id(to),
        *_places(x, out),
        plan.shape,
        plan.partner.shape,
        fills.value.shape,
        fills.noisy,
    )


def _held_key(x: Tensor, plan: DevicePlan, layout: str, kind: str, to: Output | None, out: Tensor | None) -> _Key:
    return (layout, kind, id(to), *_places(x, out), plan.text, plan.words.device)


def _plain(x: Tensor, out: Any) -> bool:
    """Have both an address?"""
    strided = torch.strided
    return x.layout is strided and (out is None or (isinstance(out, Tensor) and out.layout is strided))


def repeated(x: Tensor, plan: Plan, layout: str, kind: str, to: Output | None, out: Any) -> Tensor | None:
    """The mix, if one like it is known; None if not, or if something about this one must be looked at."""
    if not _plain(x, out):
        return None
    known = _known.get(_key(x, plan, layout, kind, to, out))
    if known is None or plan.donor is not plan.box or x.requires_grad or known.chip is not driver.current():
        return None
    if known.chip.capturing(x.device) or not known.lock.acquire(blocking=False):
        return None
    try:
        if not known.takes(plan):
            return None
        if known.slots is not None:
            slots = exchanges(plan)
            if slots is None:
                return None
            if slots is not known.slots:
                known.place(slots)
        result = known.result(x, out)
        if result is not None:
            known.launch(plan, x, result)
            if out is not None:
                was_written(out)
        return result
    finally:
        known.lock.release()


def repeated_held(x: Tensor, plan: DevicePlan, layout: str, kind: str, to: Output | None, out: Any) -> Tensor | None:
    """The same by a DevicePlan, whose words are where they are."""
    if not _plain(x, out):
        return None
    ready = _held.get(_held_key(x, plan, layout, kind, to, out))
    if ready is None or x.requires_grad or ready.chip is not driver.current():
        return None
    if not ready.lock.acquire(blocking=False):
        return None
    try:
        result = ready.result(x, out)
        if result is not None:
            plan.admit(kind, ready.dtype_name)
            ready.go(x, result, plan.words)
            if out is not None:
                was_written(out)
        return result
    finally:
        ready.lock.release()


def _common(made: Recipe, x: Tensor, to: Output | None, out: Tensor, given: bool) -> dict[str, Any] | None:
    """What Ready is made of; None for a mix whose result or factors are made in another way."""
    alike = out.shape == x.shape and to is None and out.stride() == torch.empty_like(x, device="meta").stride()
    if made.factors is not None or not (given or alike or out.is_contiguous()):
        return None
    chip = driver.current()
    steps = (tuple(s * t.element_size() for s in t.stride()) for t in (x, out))
    return {
        "made": made,
        "chip": chip,
        "kernel": chip.kernel(made.form, x.device),
        "to": to,
        "shape": None if alike else tuple(out.shape),
        "dtype": out.dtype,
        "reaches": tuple(reach(t.shape, s, t.element_size())[1] for t, s in zip((x, out), steps, strict=True)),
        "dtype_name": made.form.source,
    }


def _keep(known: dict[_Key, Any], key: _Key, ready: Ready) -> None:
    if len(known) >= MOST:
        known.clear()
    known[key] = ready


def remember(job: Job, made: Recipe, packing: Packing, x: Tensor, out: Tensor, slots: np.ndarray | None) -> None:
    """Keep a mix that has been done, if the next one like it can do without the checks."""
    plan = job.plan
    if not made.form.words or x is not job.x or (job.in_place and job.out is not x):
        return
    if packing.shift or packing.wide or not packing.k or plan.base is not ascending(plan.n):
        return
    common = _common(made, x, job.to, out, job.out is not None)
    if common is None:
        return
    dtype, free = made.form.source, made.form.source in _FREE
    known = Known(
        **common,
        packing=packing,
        rows=x.shape[job.names.index("b")],
        blends=job.kind != "discrete" and (free or dtype == "uint8"),
        any_fill=free or job.kind != "continuous",
        leave_fills=job.kind != "continuous",
        fills=plan.fills,
        slots=slots,
    )
    _keep(_known, _key(x, plan, " ".join(job.names), job.kind, job.to, job.out), known)


def remember_held(
    made: Recipe, x: Tensor, plan: DevicePlan, layout: str, kind: str, to: Output | None, out: Tensor, given: bool
) -> None:
    """The same for a mix by a DevicePlan.

    Args:
        made: its recipe.
        x, plan, layout, kind, to: what mix was given.
        out: the result.
        given: was that given too?
    """
    common = _common(made, x, to, out, given)
    if common is None:
        return
    ready = Ready(**common)
    ready.arguments["leave_fills"] = kind != "continuous"
    _keep(_held, _held_key(x, plan, layout, kind, to, out if given else None), ready)
