"""The torch backend: plain differentiable ops on any device, for hidden states under autograd and for GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..constant import full_box, is_ascending
from ..devices import beside
from ..errors import MixTypeError, MixValueError
from ..layout import BOX_AXES, parse_layout

if TYPE_CHECKING:
    from ..execute import Job

_HALVES = (torch.float16, torch.bfloat16)


def dtype_name(x: Any) -> str:
    """Name of the dtype of a tensor or of the samples of a list."""
    return str((x if isinstance(x, Tensor) else x[0]).dtype).removeprefix("torch.")


def check_out(x: Any, out: Any) -> None:
    """Raise unless out is a tensor on the device of x that may be overwritten."""
    device = (x if isinstance(x, Tensor) else x[0]).device
    if not isinstance(out, Tensor) or out.device != device:
        where = f" on {out.device}" if isinstance(out, Tensor) else ""
        raise MixTypeError(f"out is {type(out).__name__}{where}, expected a tensor on {device}")
    if out.requires_grad or (isinstance(x, Tensor) and x.requires_grad):
        raise MixValueError("out= with gradients: autograd needs the values that would be overwritten; leave out= away")


def run(job: Job) -> Tensor:
    """Gather and blend with index_select and where; gradients flow to both rows."""
    names = job.names
    source = job.x if isinstance(job.x, Tensor) else torch.stack(list(job.x), names.index("b"))
    x = source.movedim(names.index("b"), 0)
    rest = tuple(n for n in names if n != "b")
    result = _painted(job, x, rest)
    result = result.movedim(0, names.index("b"))
    if job.to is not None:
        result = _tail(job, result, dtype_name(source))
    result = result.to(source.dtype if job.to is None else getattr(torch, job.to.dtype))
    if job.out is not None:
        return job.out.copy_(result)
    if job.to is None and not source.is_contiguous() and source.ndim in (4, 5):
        last = torch.channels_last if source.ndim == 4 else torch.channels_last_3d
        return result.contiguous(
            memory_format=last if source.is_contiguous(memory_format=last) else torch.contiguous_format
        )
    return result.contiguous()


def _painted(job: Job, x: Tensor, rest: tuple[str, ...]) -> Tensor:
    plan = job.plan
    row = _take(x, plan.base)
    fused = job.to is not None and job.to.dtype != "uint8"
    if job.kind == "continuous" and (x.dtype in _HALVES or (fused and not x.is_floating_point())):
        row = row.float()
    for k in range(plan.k):
        opacity = plan.opacity[:, k]
        if not opacity.any():
            continue
        value = _value(job, x, row, rest, k)
        if job.kind == "valid":
            mixed = row | value if row.dtype == torch.bool else torch.maximum(row, value)
        elif ((opacity == 0) | (opacity == 1)).all():
            mixed = value
        else:
            mixed = _blended(row, value, opacity)
        region = None if opacity.all() else _column(opacity > 0, row)
        if plan.rank and (plan.box[:, k] != full_box(plan.shape)).any():
            inside = _inside(plan.box[:, k], row, rest, plan.rank)
            region = inside if region is None else region & inside
        row = mixed if region is None else torch.where(region, mixed, row)
    return row.clone() if row is x else row


def _blended(row: Tensor, value: Tensor, opacity: np.ndarray) -> Tensor:
    """(1 - opacity)·row + opacity·value; bytes in whole numbers."""
    if row.dtype == torch.uint8:
        q = _column(np.rint(opacity.astype(np.float64) * 65536).astype(np.int32), row)
        return (((65536 - q) * row + q * value + 32768) >> 16).to(torch.uint8)
    if (opacity == opacity[0]).all():  # as on one line of a training loop: fewer passes, and fewer for the gradients
        share = float(opacity[0])
        return torch.add((1 - share) * row, value, alpha=share)
    o = _column(opacity, row)
    mixed = torch.addcmul((1 - o) * row, o, value)
    # A pasted value is taken as it is: arithmetic would let a NaN of the other row through.
    return torch.where(o == 1, value, mixed) if (opacity == 1).any() else mixed


def _value(job: Job, x: Tensor, row: Tensor, rest: tuple[str, ...], k: int) -> Tensor:
    """What patch k paints, laid over whole rows."""
    plan, partner = job.plan, job.plan.partner[:, k]
    used = plan.opacity[:, k] > 0
    donor = _take(x, np.where((partner >= 0) & used, partner, plan.base)).to(row.dtype)
    moved = used & (partner >= 0) & (plan.box[:, k] != plan.donor[:, k]).any(-1)
    if moved.any():
        donor = _shifted(
            donor, np.where(moved[:, None], plan.donor[:, k] - plan.box[:, k], 0)[:, 0::2], rest, plan.rank
        )
    painted = (partner < 0) & used
    if not painted.any():
        return donor
    return torch.where(_column(painted, row), _fills(job, row, rest, np.where(painted, -1 - partner, 0)), donor)


def _shifted(donor: Tensor, shift: np.ndarray, rest: tuple[str, ...], rank: int) -> Tensor:
    """Each row moved so that its donor region lies where its box is."""
    for r, axis in enumerate(BOX_AXES[rank]):
        place = 1 + rest.index(axis)
        extent = donor.shape[place]
        index = torch.arange(extent, device=donor.device) + _tensor(shift[:, r : r + 1].astype(np.int64), donor)
        shape = [donor.shape[0] if i == 0 else extent if i == place else 1 for i in range(donor.ndim)]
        donor = torch.gather(donor, place, index.clamp(0, extent - 1).reshape(shape).expand_as(donor))
    return donor


def _fills(job: Job, row: Tensor, rest: tuple[str, ...], which: np.ndarray) -> Tensor:
    fills = job.plan.fills
    if fills.noise[which].any():
        from .reference import fill_addresses

        channel, position = fill_addresses(tuple(row.shape[1:]), rest, job.plan.rank)
        values = np.stack([fills.painted(int(i), channel, position) for i in which])
    else:
        values = fills.value[which]
        shape = [
            len(which) if i == 0 else values.shape[1] if n == "c" and values.shape[1] > 1 else 1
            for i, n in enumerate(("b", *rest))
        ]
        values = values.reshape(shape)
    painted = _tensor(values, row)
    if row.is_floating_point():
        return painted.to(row.dtype)
    if row.dtype == torch.bool:
        return painted != 0
    limits = torch.iinfo(row.dtype)
    return painted.double().round().clamp(limits.min, limits.max).to(row.dtype)


def _inside(box: np.ndarray, row: Tensor, rest: tuple[str, ...], rank: int) -> Tensor:
    region: Tensor | None = None
    for r, axis in enumerate(BOX_AXES[rank]):
        place = 1 + rest.index(axis)
        index = torch.arange(row.shape[place], device=row.device)
        edges = _tensor(box[:, 2 * r : 2 * r + 2].astype(np.int64), row)
        line = (index >= edges[:, :1]) & (index < edges[:, 1:])
        line = line.reshape([row.shape[i] if i in (0, place) else 1 for i in range(row.ndim)])
        region = line if region is None else region & line
    assert region is not None
    return region


def _tail(job: Job, result: Tensor, dtype: str) -> Tensor:
    to = job.to
    assert to is not None
    if to.dtype != "uint8":
        wide = "float64" if to.dtype == "float64" else "float32"
        scale, shift = (
            _tensor(a.astype(wide), result).reshape([-1 if n == "c" and len(a) > 1 else 1 for n in job.names])
            for a in to.affine(dtype)
        )
        result = result.to(getattr(torch, wide)) * scale + shift
    return result.permute([job.names.index(n) for n in parse_layout(to.layout)])


def _take(x: Tensor, rows: np.ndarray) -> Tensor:
    """Some rows of x, or x itself where that is all of them in order."""
    if len(rows) == len(x) and is_ascending(rows):
        return x
    return x.index_select(0, _tensor(rows.astype(np.int64), x))


def _column(values: np.ndarray, like: Tensor) -> Tensor:
    """(N,) numbers as a tensor that broadcasts over the rows of ``like``; floats in the precision of the arithmetic."""
    column = _tensor(values, like).reshape([-1] + [1] * (like.ndim - 1))
    return column.to(like.dtype) if column.is_floating_point() and like.is_floating_point() else column


def _tensor(values: np.ndarray, like: Tensor) -> Tensor:
    return beside(np.array(values), like)
