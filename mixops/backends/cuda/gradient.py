"""Gradients of a mix by the kernel: the gradient of the output, mixed by the adjoint of the plan, in one launch too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...adjoint import adjoint_of
from ...layout import parse_layout
from ...output import Output
from ..torch_ import dtype_name

if TYPE_CHECKING:
    from ...execute import Job


def differentiated(x: Any) -> bool:
    """Will autograd ask for the gradient of what is made of this tensor, or of a tensor of this list?"""
    return torch.is_grad_enabled() and any(t.requires_grad for t in ((x,) if isinstance(x, Tensor) else x))


def mixed(x: Tensor, job: Job, run: Callable[[Job], Tensor]) -> Tensor:
    """Run a job whose ``back`` is given so that gradients flow through it.

    Args:
        x: its source.
        job: what to do.
        run: does it for a source without gradients.
    """
    made: Tensor = _Mixed.apply(x, job, run)  # type: ignore[no-untyped-call]  # torch leaves it bare
    return made


def tail_of_gradient(names: tuple[str, ...], to: Output | None, dtype: str) -> Output | None:
    """The tail that takes the gradient of a result back to that of the source: to its layout and dtype, and by 1 / std.

    A tail multiplies each channel by one number, and mixing treats all channels alike: the two may change places.
    """
    return None if to is None else Output(" ".join(names), dtype, std=to.std)


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, job: Job, run: Callable[[Job], Tensor]) -> Tensor:
        ctx.job, ctx.run, ctx.dtype = job, run, dtype_name(x)
        return run(job._replace(x=x.detach(), back=None))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), job = gradients, ctx.job
        names = job.names if job.to is None else parse_layout(job.to.layout)
        to = tail_of_gradient(job.names, job.to, ctx.dtype)
        back = job._replace(x=gradient, plan=job.back, names=names, to=to, back=None)
        if differentiated(gradient):  # the gradient of the gradient
            return mixed(gradient, back._replace(back=adjoint_of(back.plan)), ctx.run), None, None
        return ctx.run(back), None, None
