"""Lays a checked job out for the kernel and launches it."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...errors import MixTypeError, MixValueError
from ...exchange import check_exchanges, exchanges
from ...layout import parse_layout
from ...output import Output
from ...packing import Packing, pack
from .. import torch_
from ..rows import dense_order
from ..torch_ import check_out, dtype_name
from . import driver
from .again import remember
from .available import reason
from .form import TYPES
from .gradient import differentiated, mixed
from .recipe import MOST, Recipe, Task, recipe_for

if TYPE_CHECKING:
    from ...execute import Job
    from ...plan import Plan

__all__ = [
    "check_device",
    "check_in_place",
    "check_out",
    "differentiated",
    "dtype_name",
    "laid_out",
    "launch",
    "new",
    "run",
    "takes",
    "with_dense_rows",
]


def check_device(x: Tensor) -> None:
    """Raise unless the tensor lies where kernels run, and everything is there that they need."""
    why = reason(x) if x.is_cuda else None
    if why is not None:
        raise MixTypeError(f'backend="cuda" on {x.device}: {why}')
    if not driver.current().serves(x):
        raise MixTypeError(
            f'backend="cuda" on a tensor on {x.device}: move it to the GPU (x.to("cuda")), or leave backend= away'
        )


def check_in_place(plan: Plan) -> None:
    """Raise unless every row of the plan can be overwritten while others read it."""
    check_exchanges(plan)


def run(job: Job) -> Tensor:
    """Launch the kernel; what it has no form for goes to plain torch operations."""
    at = job.names.index("b")
    x = job.x if isinstance(job.x, Tensor) else torch.stack(list(job.x), at)
    if job.back is not None:
        return mixed(x, job, run)
    if driver.current().capturing(x.device):
        raise MixValueError(
            "mix by a Plan while a CUDA graph is captured: its numbers would be frozen in the graph. Make a "
            "mixops.DevicePlan of it before the capture, mix by that, and write the next plan into it for each replay"
        )
    if not takes(x, at):
        return torch_.run(job)
    source, x = x, with_dense_rows(x, at)
    plan, in_place = job.plan, job.in_place and x is source  # of rows that were copied none is overwritten
    moved = exchanges(plan) if in_place else None
    if moved is not None:
        plan = plan[np.maximum(moved, 0)]
    packing = Packing.of(plan)
    out = new(x, job.names, job.plan.n, job.to) if job.out is None else job.out
    made = laid_out(x, job.names, packing, job.kind, job.to, out, in_place=in_place)
    if made is not None:
        _send(made, plan, packing, moved, x, out)
        remember(job, made, packing, x, out, moved)
    return out


def with_dense_rows(x: Tensor, at: int) -> Tensor:
    """The tensor itself if the elements of a row lie together, else a copy where they do."""
    return x if _order(x, at) is not None else x.movedim(at, 0).contiguous().movedim(0, at)


def takes(x: Tensor, at: int) -> bool:
    """Has the kernel a form for such elements, and so many of them in a row? ``at`` is the axis of the rows."""
    return dtype_name(x) in TYPES and prod(s for i, s in enumerate(x.shape) if i != at) <= MOST


def new(x: Tensor, names: tuple[str, ...], n: int, to: Output | None) -> Tensor:
    """Memory for a result of n rows: in the layout of the tail, or else as the dense rows of x lie."""
    extent = dict(zip(names, x.shape, strict=True)) | {"b": n}
    if to is not None:
        shape = [extent[a] for a in parse_layout(to.layout)]
        return torch.empty(shape, dtype=getattr(torch, to.dtype), device=x.device)
    at = names.index("b")
    rest, order = names[:at] + names[at + 1 :], _order(x, at)
    assert order is not None
    inside = ("b", *(rest[i] for i in order))
    if inside == names:
        return x.new_empty((n, *x.shape[1:]))
    return x.new_empty([extent[a] for a in inside]).permute([inside.index(a) for a in names])


def laid_out(
    x: Tensor,
    names: tuple[str, ...],
    packing: Packing,
    kind: str,
    to: Output | None,
    out: Tensor,
    *,
    in_place: bool = False,
    in_memory: bool = False,
) -> Recipe | None:
    """How a mix is launched; None where there is nothing to do.

    Args:
        x: the source, every row dense.
        names: its axes.
        packing: form of the plan.
        kind: see mix.
        to: the tail, or None.
        out: where the result goes.
        in_place: is that x itself, and the plan one of exchanges?
        in_memory: does the plan lie in the device's memory, whatever its size?
    """
    at = names.index("b")
    rest, order = names[:at] + names[at + 1 :], _order(x, at)
    assert order is not None
    extent = dict(zip(names, x.shape, strict=True))
    inside = tuple(rest[i] for i in order)
    shape = tuple(extent[a] for a in inside)
    if not (packing.n and prod(shape)):
        return None
    source, size = dtype_name(x), out.element_size()
    steps = dict(zip(names if to is None else parse_layout(to.layout), out.stride(), strict=True))
    task = Task(
        inside,
        shape,
        tuple(steps[a] * size for a in inside),
        source,
        dtype_name(out),
        (x.stride(at) * x.element_size(), steps["b"] * size),
        (_aligned(x), _aligned(out)),
        packing,
        kind == "valid",
        to if to is not None and to.scales(source) else None,
        in_place,
        in_memory,
    )
    return recipe_for(task)


def _send(made: Recipe, plan: Plan, packing: Packing, moved: np.ndarray | None, x: Tensor, out: Tensor) -> None:
    """Pack the plan, among the arguments where there is room, and launch."""
    arguments = made.fresh()
    kept = None if made.form.words else torch.empty(packing.words, dtype=torch.int32, pin_memory=x.is_cuda)
    words = arguments["words"][0] if kept is None else kept.numpy()
    pack(plan, packing, words, moved)
    launch(made, arguments, x, out, None if kept is None else kept.to(x.device, non_blocking=True))


def launch(made: Recipe, arguments: np.ndarray, x: Tensor, out: Tensor, words: Tensor | None) -> None:
    """Write the addresses into the arguments of a recipe, and go.

    Args:
        made: the recipe.
        arguments: a copy of its arguments, which is written to.
        x, out: the tensors that it was made for, or others just like them.
        words: the plan, where it does not lie among the arguments.
    """
    chip = driver.current()
    factors = None if made.factors is None else _factors(made.factors.tobytes(), made.form.real, x.device)
    row = arguments[0]
    row["x"], row["out"] = x.data_ptr(), out.data_ptr()
    if words is not None:
        row["plan"] = words.data_ptr()
    if factors is not None:
        row["factors"] = factors.data_ptr()
    chip.launch(chip.kernel(made.form, x.device), made.grid, made.block, arguments, (x, words, factors), out)


@cache
def _factors(numbers: bytes, dtype: str, device: torch.device) -> Tensor:
    """Scales and shifts on the device, sent once and kept: a CUDA graph reads them at every replay."""
    if driver.current().capturing(device):
        raise MixValueError(
            f"the stream of {device} is being captured into a CUDA graph, and the mean and std of these channels have "
            "not been sent there yet: mix once before capturing"
        )
    return torch.from_numpy(np.frombuffer(numbers, dtype).copy()).to(device)


def _order(x: Tensor, at: int) -> tuple[int, ...] | None:
    """The axes of a row from the outermost in memory to the innermost; None if its elements do not lie together."""
    shape, strides = tuple(map(int, x.shape)), tuple(map(int, x.stride()))  # torch.compile's numbers are symbols
    if not x.numel():  # there is nothing to lie together, and strides say nothing
        return tuple(range(len(shape) - 1))
    return dense_order(shape[:at] + shape[at + 1 :], strides[:at] + strides[at + 1 :], 1)


def _aligned(tensor: Tensor) -> int:
    address = tensor.data_ptr()
    return 16 if address % 16 == 0 else address & -address
