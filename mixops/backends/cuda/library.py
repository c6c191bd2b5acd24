"""torch.ops.mixops: mixing by a plan that lies in the device's memory, as operations that torch.compile knows.

``form`` says all that is no tensor, in one line: ``layout|kind|section|tail|plan``, the tail being empty or the
``text`` of an Output, the plan that of a DevicePlan. Code that torch.compile traces puts it together; it is read once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import MixTypeError, MixValueError
from ...layout import check_box_axes, check_rank, parse_layout
from ...output import Output
from ...packing import Packing
from .. import repeats, same_memory, share_memory, traced, was_written
from ..torch_ import dtype_name
from .again import remember_held, repeated_held
from .engine import check_device, check_out, laid_out, launch, new, takes, with_dense_rows
from .gradient import differentiated, tail_of_gradient

if TYPE_CHECKING:
    from ...device_plan import DevicePlan
    from .recipe import Recipe


@dataclass(frozen=True)
class Held:
    """What a form says.

    Args:
        names: axes of the source.
        kind: see mix.
        section: which of the plans that were sent: 0 itself, 1 its adjoint, 2 itself with fills of 0.
        to: the tail, or None.
        packing: of the plan.
        rows: that the source has at least.
        in_place: the source is overwritten.
        gradients: were sections 1 and 2 sent?
        shape: extents of the axes that boxes are measured on.
        plan: the last part of the form.
    """

    names: tuple[str, ...]
    kind: str
    section: int
    to: Output | None
    packing: Packing
    rows: int
    in_place: bool
    gradients: bool
    shape: tuple[int, ...]
    plan: str

    @property
    def words(self) -> int:
        """Of all sections."""
        return self.packing.words * (3 if self.gradients else 1)


def mixed(x: Tensor, plan: DevicePlan, layout: str, kind: str, to: Output | None, out: Tensor | None) -> Tensor:
    """Mix by a DevicePlan: at once, or while torch.compile traces as an operation of ``torch.ops.mixops``."""
    if traced():
        plan.admit(kind, str(x.dtype).removeprefix("torch."))
        return _traced(x, plan, _spelled(layout, kind, 0, to, plan.text), out)
    done = repeated_held(x, plan, layout, kind, to, out)
    if done is not None:
        return done
    form = _spelled(layout, kind, 0, to, plan.text)
    held = read(form)
    check_device(x)
    _check(x, plan.words, held, out)
    if out is not None:
        _check_out(x, held, out)
    plan.admit(kind, dtype_name(x))
    if differentiated(x):
        made: Tensor = torch.ops.mixops.mix(x, plan.words, form)
        return made
    result, recipe = _run(x, plan.words, held, out)
    if recipe is not None and with_dense_rows(x, held.names.index("b")) is x:
        remember_held(recipe, x, plan, layout, kind, to, result, out is not None)
    return result


def _traced(x: Tensor, plan: DevicePlan, form: str, out: Tensor | None) -> Tensor:
    if out is None:
        made: Tensor = torch.ops.mixops.mix(x, plan.words, form)
        return made
    if out is x:
        torch.ops.mixops.mix_(x, plan.words, form)
    else:
        torch.ops.mixops.mix_out(x, plan.words, form, out)
    return out


def _spelled(layout: str, kind: str, section: int, to: Output | None, plan: str) -> str:
    return f"{layout}|{kind}|{section}|{'' if to is None else to.text}|{plan}"


@lru_cache(maxsize=256)
def read(form: str) -> Held:
    """What a form says.

    Raises:
        MixError: if it is none.
    """
    try:
        layout, kind, section, tail, plan = form.split("|")
        n, k, wide, shift, fills, values, noise, rows, in_place, gradients, *shape = (int(w) for w in plan.split(" "))
        to = None
        if tail:
            axes, dtype, *moments = tail.split(";")
            mean, std = (tuple(float(v) for v in m.split(" ")) if m else None for m in moments)
            to = Output(axes, dtype, mean=mean, std=std)
        packing = Packing(n, k, len(shape), bool(wide), bool(shift), fills, values, bool(noise))
        return Held(
            parse_layout(layout),
            kind,
            int(section),
            to,
            packing,
            rows,
            bool(in_place),
            bool(gradients),
            tuple(shape),
            plan,
        )
    except (TypeError, ValueError) as error:
        raise MixValueError(f"torch.ops.mixops: form {form!r} ({error}): expected what mix writes; call mix") from None


def _check(x: Tensor, words: Tensor, held: Held, out: Tensor | None) -> None:
    """Every check that needs no value: of the plan or of x."""
    names, shape, dtype = held.names, tuple(x.shape), dtype_name(x)
    check_rank(names, len(shape))
    at = names.index("b")
    if x.device != words.device:
        raise MixTypeError(f"x is on {x.device}, the DevicePlan on {words.device}: expected both on one device")
    if words.dtype != torch.int32 or words.ndim != 1 or not words.is_contiguous() or words.numel() < held.words:
        raise MixTypeError(
            f"words: {dtype_name(words)} of shape {tuple(words.shape)}, expected those of a DevicePlan, {held.words}"
        )
    if not takes(x, at):
        raise MixTypeError(f"{dtype} tensor: the kernel has no form for it; mix by a Plan, by torch's operations")
    if shape[at] < held.rows or (held.in_place and shape[at] != held.rows):
        raise MixValueError(
            f"x has {shape[at]} rows, the DevicePlan speaks of {held.rows}: make one for this source (rows=)"
        )
    check_box_axes(held.shape, names, shape)
    channels = held.packing.values
    if held.kind == "continuous" and channels > 1 and ("c" not in names or shape[names.index("c")] != channels):
        raise MixValueError(
            f'{channels} fill values for layout "{" ".join(names)}": expected one number, or one for each channel of '
            "an axis c"
        )
    if held.to is not None:
        held.to.check(names, shape, held.kind, dtype)
    if held.in_place and (out is None or held.to is not None):
        raise MixValueError("a DevicePlan of in_place=True: expected out=x, and no to=; make another without it")
    if differentiated(x) and not held.gradients:
        raise MixValueError(
            "a DevicePlan on a tensor that requires gradients: make it with gradients=True, or detach the tensor"
        )


def _check_out(x: Tensor, held: Held, out: Tensor) -> None:
    check_out(x, out)
    names, at = held.names, held.names.index("b")
    shape = (*x.shape[:at], x.shape[at] if held.in_place else held.packing.n, *x.shape[at + 1 :])
    dtype = dtype_name(x) if held.to is None else held.to.dtype
    if held.to is not None:
        shape = held.to.shape(names, shape)
    if tuple(out.shape) != shape or dtype_name(out) != dtype:
        raise MixValueError(
            f"out is {dtype_name(out)} of shape {tuple(out.shape)}, expected {dtype} of shape {tuple(shape)}"
        )
    if repeats(out):
        raise MixValueError("out holds several elements in one place (a broadcast view): give an array of its own")
    if held.in_place:
        if not same_memory(x, out) and out.numel():
            raise MixValueError("a DevicePlan of in_place=True: expected out=x; make another without it")
        if with_dense_rows(x, at) is not x:
            raise MixValueError("out=x: the elements of a row do not lie together; x.contiguous() has them so")
    elif share_memory(x, out):
        raise MixValueError(
            "out overlaps x: give an array of its own, or mix in place (out=x) by DevicePlan(..., in_place=True)"
        )


def _run(x: Tensor, words: Tensor, held: Held, out: Tensor | None) -> tuple[Tensor, Recipe | None]:
    """Launch; everything has been checked. The recipe is None where there was nothing to launch."""
    names, packing = held.names, held.packing
    x, given = with_dense_rows(x, names.index("b")), out
    if out is None:
        out = new(x, names, packing.n, held.to)
    made = laid_out(x, names, packing, held.kind, held.to, out, in_place=held.in_place, in_memory=True)
    if made is not None:
        arguments = made.fresh()
        arguments["leave_fills"] = held.kind != "continuous"
        part = words[held.section * packing.words :] if held.section else words
        launch(made, arguments, x.detach(), out, part)
    if given is not None:
        was_written(given)
    return out, made


# -- The operations ----------------------------------------------------------------------------------------------------

#: Kept as long as the module: what it defines goes with it.
_LIBRARY: Any = torch.library.Library("mixops", "DEF")  # type: ignore[no-untyped-call]  # torch leaves it bare
_TAGS = (torch.Tag.pt2_compliant_tag,)


def _mix(x: Tensor, words: Tensor, form: str) -> Tensor:
    held = read(form)
    check_device(x)
    _check(x, words, held, None)
    return _run(x, words, held, None)[0]


def _mix_out(x: Tensor, words: Tensor, form: str, out: Tensor) -> None:
    held = read(form)
    check_device(x)
    _check(x, words, held, out)
    _check_out(x, held, out)
    _run(x, words, held, out)


def _mix_in_place(x: Tensor, words: Tensor, form: str) -> None:
    _mix_out(x, words, form, x)


def _like_mix(x: Tensor, words: Tensor, form: str) -> Tensor:
    held = read(form)
    _check(x, words, held, None)
    return new(with_dense_rows(x, held.names.index("b")), held.names, held.packing.n, held.to)


def _like_mix_out(x: Tensor, words: Tensor, form: str, out: Tensor) -> None:
    _check(x, words, read(form), out)


def _like_mix_in_place(x: Tensor, words: Tensor, form: str) -> None:
    _like_mix_out(x, words, form, x)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
    x, words, form = inputs
    held = read(form)
    if not held.gradients:
        raise MixValueError(
            "a DevicePlan on a tensor that requires gradients: make it with gradients=True, or detach the tensor"
        )
    ctx.save_for_backward(words)
    ctx.held, ctx.dtype = held, dtype_name(x)


def _gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    (words,), held = ctx.saved_tensors, ctx.held
    to = tail_of_gradient(held.names, held.to, ctx.dtype)
    layout = " ".join(held.names) if held.to is None else held.to.layout
    form = _spelled(layout, held.kind, 2 if held.section == 1 else 1, to, held.plan)
    return torch.ops.mixops.mix(gradient, words, form), None, None


for _name, _schema, _run_it, _like in (
    ("mix", "(Tensor x, Tensor words, str form) -> Tensor", _mix, _like_mix),
    ("mix_out", "(Tensor x, Tensor words, str form, Tensor(a!) out) -> ()", _mix_out, _like_mix_out),
    ("mix_", "(Tensor(a!) x, Tensor words, str form) -> ()", _mix_in_place, _like_mix_in_place),
):
    _LIBRARY.define(_name + _schema, tags=_TAGS)
    _LIBRARY.impl(_name, _run_it, "CompositeExplicitAutograd")
    torch.library.register_fake(f"mixops::{_name}", _like, lib=_LIBRARY)
torch.library.register_autograd("mixops::mix", _gradient, setup_context=_remember, lib=_LIBRARY)
