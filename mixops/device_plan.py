"""DevicePlan: a plan in a device's memory, for launches that are recorded once and replayed with other plans."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .adjoint import adjoint_of
from .errors import MixError, MixTypeError, MixValueError
from .exchange import check_exchanges, check_stays
from .fills import Fills
from .packing import Packing, pack
from .plan import Plan
from .sequence import PlanSequence

if TYPE_CHECKING:
    import torch


class DevicePlan:
    """A plan that lies in a device's memory: ``mix`` takes it in place of a Plan and reads it when the kernel runs.

    A CUDA graph or a compiled function repeats the launch as it was recorded, so the numbers of a Plan would be frozen
    in it. Those of a DevicePlan are replaced by ``write``: in the same memory, on the current stream, without waiting.
    Keep it alive as long as anything that was recorded with it.

    Args:
        plan: the first plan. Its form is that of all later ones: rows, patches at most, axes of the boxes, whether
            donors lie elsewhere than boxes, channels of fills and whether they may be noise.
        device: where it lies, and the arrays that it mixes.
        rows: rows that every source has at least; None: those that the first plan names, or its own n if larger.
        in_place: it mixes in place (``out=x``) and nowhere else; every plan is one of rows that exchange two by two.
        gradients: gradients flow through what it mixes: the adjoint of every plan is sent with it.

    Attributes:
        plan: the plan that was written last; targets are made of this one.
        words: (packing.words,) int32 on the device, more with gradients.
        packing: the form.

    Raises:
        MixError: if plan is none (a PlanSequence is several: take a DevicePlan for each step), there is no such device,
            a CUDA graph is being captured, or in_place, gradients or rows do not suit the plan.

    Example:
        On a machine with a GPU, ``static`` being a batch there that is refilled before each replay::

            held = mx.DevicePlan(op.draw(rng, spec))
            mx.mix(static, held, "b c h w")             # compiles the kernel, which a capture cannot
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                mixed = mx.mix(static, held, "b c h w")
            for step in range(steps):
                held.write(op.draw(rng, spec))
                graph.replay()
                targets = mx.soft_targets(labels, held.plan, 1000)
    """

    def __init__(
        self,
        plan: Plan,
        device: Any = "cuda",
        *,
        rows: int | None = None,
        in_place: bool = False,
        gradients: bool = False,
    ) -> None:
        _check_plan("DevicePlan", plan)
        if rows is not None and (isinstance(rows, bool) or not isinstance(rows, (int, np.integer)) or rows < 0):
            raise MixValueError(f"DevicePlan(rows={rows!r}): expected the number of rows of the source, or None")
        if in_place and gradients:
            raise MixValueError(
                "DevicePlan(in_place=True, gradients=True): autograd needs the values that would be overwritten; leave "
                "one of the two away"
            )
        self.rows = max(plan.n, plan.facts.top + 1) if rows is None else int(rows)
        self.in_place, self.gradients = bool(in_place), bool(gradients)
        self.n, self.shape = plan.n, plan.shape
        self.packing = self._room(plan)
        #: What has been mixed by it and asks something of later plans: arrays whose values cannot be averaged, ids that
        #: take no fills, and bytes, which take fills from 0 to 255.
        self.pastes: str | None = None
        self.ids = self.bytes = False
        self.text = self._text()
        fitted = self._fitted(plan)
        self.words = _memory(self.sections * self.packing.words, device)
        self._send(plan, fitted)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.words.device

    @property
    def sections(self) -> int:
        """Plans that are sent: the plan itself, and for gradients its adjoint and the plan painting 0, theirs."""
        return 1 + self.gradients * 2

    def write(self, plan: Plan) -> None:
        """Put another plan in the place of this one: launches that follow on the stream read it.

        The copy is put on torch's current stream of the device; nothing waits. Whoever mixes on another stream lets
        that one wait for this one, as with any tensor.

        Args:
            plan: a plan of the form of the first; fewer patches, no fills or whole rows for boxes suit too.

        Raises:
            MixError: if the plan has another form, names a row beyond ``rows``, would average values that are only
                pasted where this DevicePlan was used, or the stream is being captured. What was written before stays.
        """
        self._send(plan, self._fitted(plan))

    def admit(self, kind: str, dtype: str) -> None:
        """Raise unless the plan suits the values of such an array; later plans will have to suit them as well."""
        plain = dtype.startswith(("float", "bfloat")) or dtype == "uint8"
        if kind == "discrete" or (kind == "continuous" and not plain):
            if self.blends:
                raise MixTypeError(f"{kind} {dtype} array with a plan that blends: {_PASTE}")
            self.pastes = f"{kind} {dtype}"
        if kind == "continuous" and not plain:
            if self.paints:
                raise MixTypeError(f"continuous {dtype} array with {_PAINTS}")
            self.ids = True
        if kind == "continuous" and dtype == "uint8":
            if self.beyond:
                raise MixValueError(f"uint8 array with {_BEYOND}")
            self.bytes = True

    def __repr__(self) -> str:
        patches = f"{self.packing.k} patch{'' if self.packing.k == 1 else 'es'} a row"
        size = f"boxes on {self.shape}" if self.shape else "whole rows"
        uses = "".join(f", {name}=True" for name in ("in_place", "gradients") if getattr(self, name))
        return f"DevicePlan({self.n} rows of {self.rows}, {patches}, {size}, on {self.device}{uses})"

    def _room(self, plan: Plan) -> Packing:
        """The form of the first plan with room for what its operator draws another time: a fill, noise a patch."""
        form = Packing.of(plan)
        fills = max(form.fills, plan.n * plan.k if form.noise else 1) if plan.k else 0
        values = form.values if form.fills else 1
        return replace(form, n=plan.n + plan.n % 2 if self.in_place else plan.n, fills=fills, values=values)

    def _text(self) -> str:
        """What a kernel is launched by, but for the array: part of the form of ``torch.ops.mixops.mix``."""
        p = self.packing
        numbers = (p.n, p.k, p.wide, p.shift, p.fills, p.values, p.noise, self.rows, self.in_place, self.gradients)
        return " ".join(str(int(number)) for number in (*numbers, *self.shape))

    def _fitted(self, plan: Plan) -> list[tuple[Plan, np.ndarray | None]]:
        """The plans that are sent and the order of their rows; every check of ``write``."""
        _check_plan("write", plan)
        plan.check_rows(self.rows)
        if self.shape and not plan.shape:
            plan = plan.promoted(self.shape)
        form, held = Packing.of(plan), self.packing
        for name, came, expected, suits in (
            ("rows", plan.n, self.n, plan.n == self.n),
            ("boxes on", plan.shape, self.shape, plan.shape == self.shape),
            ("patches", plan.k, f"{held.k} or fewer", plan.k <= held.k),
            ("fills", form.fills, f"{held.fills} or fewer", form.fills <= held.fills),
            ("fill values", form.values, held.values, not form.fills or form.values in (1, held.values)),
            ("noise", form.noise, held.noise, form.noise <= held.noise),
            ("donors elsewhere", True, False, held.shift or plan.facts.shifted is None),
        ):
            if not suits:
                raise MixValueError(
                    f"DevicePlan: a plan with {name} {came}, expected {expected} as in the plan it was made from: make "
                    "another DevicePlan for this one"
                )
        if plan.facts.resized is not None:
            raise MixValueError("DevicePlan: donor and box differ in size, and resampling is not there yet")
        if self.pastes is not None and _blends(plan):
            raise MixTypeError(f"DevicePlan that mixes a {self.pastes} array, with a plan that blends: {_PASTE}")
        if self.ids and plan.facts.paints:
            raise MixTypeError(f"DevicePlan that mixes a {self.pastes} array, with {_PAINTS}")
        if self.bytes and _beyond(plan):
            raise MixValueError(f"DevicePlan that mixes a uint8 array, with {_BEYOND}")
        plan = plan.padded(held.k)
        if self.in_place:
            check_stays(plan, self.rows)
            order = check_exchanges(plan)
            return [(plan[np.maximum(order, 0)], order)]
        if not self.gradients:
            return [(plan, None)]
        back = adjoint_of(plan) if self.rows == plan.n else None
        if back is None:
            raise MixValueError(
                "DevicePlan(gradients=True): the gradient of this plan is no mixing by a plan (rows give more than "
                "they take): draw with per='batch', or mix by the Plan itself, whose gradients torch operations carry"
            )
        return [(plan, None), (back, None), (Plan.trusted(plan, fills=_NOTHING, partner=_one_fill(plan)), None)]

    def _send(self, plan: Plan, fitted: list[tuple[Plan, np.ndarray | None]]) -> None:
        import torch

        if self.words.is_cuda:
            with torch.cuda.device(self.device):
                if torch.cuda.is_current_stream_capturing():
                    raise MixValueError(
                        "DevicePlan: a plan cannot be written while a CUDA graph is captured, as every replay would "
                        "write that one: write before the capture, and before each replay"
                    )
        # Pinned memory comes from torch's own pool, which takes it back only when the copy has been made.
        host = torch.empty(self.words.numel(), dtype=torch.int32, pin_memory=self.words.is_cuda)
        for part, (one, order) in zip(host.numpy().reshape(self.sections, -1), fitted, strict=True):
            pack(one, self.packing, part, order)
        self.words.copy_(host, non_blocking=True)
        self.plan = plan
        self.blends, self.beyond, self.paints = _blends(plan), _beyond(plan), plan.facts.paints


_PASTE = "ids and class masks cannot be averaged; paste (CutMix), and take a DevicePlan of its own for what blends"
_BEYOND = "a plan whose fills lie beyond 0 to 255: expected fills in units of the bytes"
_PAINTS = 'a plan that paints: ids take no fills, and kind="discrete" leaves them out'
_NOTHING = Fills.of(0.0)


def _check_plan(where: str, plan: Any) -> None:
    if isinstance(plan, PlanSequence):
        raise MixTypeError(
            f"{where}: got a PlanSequence of {len(plan.plans)} steps, expected one Plan: take a DevicePlan for each of "
            "its .plans and mix by one after the other"
        )
    if not isinstance(plan, Plan):
        raise MixTypeError(f"{where}: got {type(plan).__name__}, expected a Plan (an operator's draw)")


def _memory(words: int, device: Any) -> torch.Tensor:
    """Room for so many words on a device."""
    import torch

    try:
        where = torch.device(device)
    except (RuntimeError, TypeError):
        raise MixValueError(f'DevicePlan(device={device!r}): expected a device of torch such as "cuda"') from None
    if where.type == "cuda" and not torch.cuda.is_available():
        raise MixError(
            f"DevicePlan(device={str(where)!r}): torch finds no CUDA device. Mix by the Plan itself, which needs none"
        )
    with torch.inference_mode(False):  # memory of inference mode could not be written outside of it
        return torch.empty(words, dtype=torch.int32, device=where)


def _blends(plan: Plan) -> bool:
    """Does a donor leave a share of what was there?"""
    facts = plan.facts
    return facts.blends and bool((facts.used & (plan.partner >= 0) & (plan.opacity < 1)).any())


def _beyond(plan: Plan) -> bool:
    """Does it paint a value, not noise around one, that a byte does not hold?"""
    facts, fills = plan.facts, plan.fills
    if not facts.paints or (fills.value.min() >= 0 and fills.value.max() <= 255):
        return False
    which = np.unique(-1 - plan.partner[facts.painted])
    value = fills.value[which][fills.noise[which] == 0]
    return bool(((value < 0) | (value > 255)).any())


def _one_fill(plan: Plan) -> np.ndarray:
    """Partners with one fill for all."""
    return np.where(plan.partner < 0, -1, plan.partner) if plan.has_fills else plan.partner
