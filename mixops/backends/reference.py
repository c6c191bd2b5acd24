"""The definition: what a plan means, in NumPy and float64, row by row. Every other backend is held to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MixTypeError, MixValueError
from ..layout import BOX_AXES, parse_layout

if TYPE_CHECKING:
    from ..execute import Job


def dtype_name(x: Any) -> str:
    """Name of the dtype of an array or of the samples of a list."""
    return (x if isinstance(x, np.ndarray) else x[0]).dtype.name


def check_out(x: Any, out: Any) -> None:
    """Raise unless out is a NumPy array that can be written."""
    if not isinstance(out, np.ndarray):
        raise MixTypeError(f"out is {type(out).__name__}, expected a NumPy array")
    if not out.flags.writeable:
        raise MixValueError("out is read-only: give an array that can be written")


def run(job: Job) -> np.ndarray:
    """Do the job out of place in float64, then round once."""
    names, plan = job.names, job.plan
    source = job.x if isinstance(job.x, np.ndarray) else np.stack(job.x, names.index("b"))
    x = np.moveaxis(source, names.index("b"), 0)
    rest = tuple(n for n in names if n != "b")
    tail = job.to is not None and job.to.dtype != "uint8"
    rows = [_row(job, x, rest, n, tail) for n in range(plan.n)]
    wide = np.stack(rows) if rows else np.empty((0, *x.shape[1:]), x.dtype)
    result = np.moveaxis(wide, 0, names.index("b"))
    dtype = source.dtype
    if job.to is not None:
        if tail:
            spread = [
                a if len(a) == 1 else a.reshape([-1 if n == "c" else 1 for n in names])
                for a in job.to.affine(dtype.name)
            ]
            result = result.astype(np.float64) * spread[0] + spread[1]
        result = result.transpose([names.index(n) for n in parse_layout(job.to.layout)])
        dtype = numpy_dtype(job.to.dtype)
    result = result.astype(dtype)
    if job.out is None:
        return np.ascontiguousarray(result)
    job.out[...] = result
    return job.out


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a name; bfloat16 is ml_dtypes' (it comes with JAX), which is asked for only here."""
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            raise MixTypeError(
                "bfloat16 in NumPy needs the package ml_dtypes: install it, or mix torch tensors"
            ) from None
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _row(job: Job, x: np.ndarray, rest: tuple[str, ...], n: int, tail: bool) -> np.ndarray:
    plan = job.plan
    row = np.array(x[plan.base[n]])  # an array even where a row is one number
    wide = job.kind == "continuous" and (tail or row.dtype.kind == "f" or row.dtype.name == "bfloat16")
    if wide:
        row = row.astype(np.float64)
    for k in range(plan.k):
        opacity = float(plan.opacity[n, k])
        if not opacity:
            continue
        here, there = _region(plan.box[n, k], rest, plan.rank), _region(plan.donor[n, k], rest, plan.rank)
        partner = int(plan.partner[n, k])
        own = row[here]
        donor = x[partner][there] if partner >= 0 else _fill(plan.fills, -1 - partner, row.shape, rest, plan.rank)[here]
        if job.kind == "valid":
            row[here] = np.maximum(own, donor)
        elif wide:
            row[here] = donor if opacity == 1 else (1 - opacity) * own + opacity * donor.astype(np.float64)
        elif opacity == 1:
            row[here] = _rounded(donor, row.dtype) if partner < 0 else donor
        else:
            row[here] = blend_uint8(own, _rounded(donor, np.dtype(np.uint8)), opacity)
    return row


def blend_uint8(own: np.ndarray, donor: np.ndarray, opacity: float) -> np.ndarray:
    """The integers that every backend gives: q = rint(o·2¹⁶), ((2¹⁶ - q)·own + q·donor + 2¹⁵) >> 16."""
    q = int(np.rint(opacity * 65536))
    return (((65536 - q) * own.astype(np.int64) + q * donor.astype(np.int64) + 32768) >> 16).astype(np.uint8)


def _rounded(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if values.dtype == dtype or dtype.kind not in "iu":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(dtype)


def _region(box: np.ndarray, rest: tuple[str, ...], rank: int) -> tuple[slice, ...]:
    axes = BOX_AXES[rank]
    return tuple(
        slice(int(box[2 * axes.index(n)]), int(box[2 * axes.index(n) + 1])) if n in axes else slice(None) for n in rest
    )


def _fill(fills: Any, i: int, shape: tuple[int, ...], rest: tuple[str, ...], rank: int) -> np.ndarray:
    """What fill i paints over a whole row. An element's position counts the carried axes first, then the box axes."""
    channel, position = fill_addresses(shape, rest, rank)
    return fills.painted(i, channel, position)


def fill_addresses(shape: tuple[int, ...], rest: tuple[str, ...], rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Channel and position of every element of a row: the same element has the same address in any layout."""
    grid = dict(zip(rest, np.indices(shape, sparse=True), strict=True))
    channel = np.broadcast_to(grid["c"] if "c" in grid else np.zeros((1,) * len(shape), int), shape)
    position = np.zeros((1,) * len(shape), np.int64)
    carried = sorted(n for n in rest if n != "c" and n not in BOX_AXES[rank])
    for name in (*carried, *BOX_AXES[rank]):
        position = position * shape[rest.index(name)] + grid[name]
    return channel, np.broadcast_to(position, shape)
