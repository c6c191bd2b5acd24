"""The JAX backend: pure jnp, compiled once for a kind of array and plan; gradients flow to all rows that take part."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import MixTypeError
from ..jax import form_of, leaves
from ..layout import BOX_AXES, parse_layout
from .philox import normals

if TYPE_CHECKING:
    from ..execute import Job

_HALVES = ("float16", "bfloat16")


def dtype_name(x: Any) -> str:
    """Name of the dtype of an array or of the samples of a list."""
    return str((x[0] if isinstance(x, (list, tuple)) else x).dtype)


def check_out(x: Any, out: Any) -> None:
    """Refuse: arrays of JAX cannot be written."""
    raise MixTypeError(
        "out= with a JAX array: such arrays never change; leave out= away, and let a compiled function reuse the "
        "memory of x: jax.jit(..., donate_argnums=0)"
    )


def run(job: Job) -> Any:
    """Gather and blend in one compiled function; inside of another one it becomes a part of that."""
    names, plan, to = job.names, job.plan, job.to
    if to is not None and to.dtype == "float64" and jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
        raise MixTypeError(
            'Output(dtype="float64") on a JAX array: JAX has float64 only after jax.config.update("jax_enable_x64", '
            'True); ask for "float32"'
        )
    x = job.x
    if isinstance(x, (list, tuple)):
        x = jnp.stack([jnp.asarray(sample) for sample in x], names.index("b"))
    form = form_of(plan)
    noisy = form.noisy and job.kind == "continuous"
    # The numbers of the tail are arguments too: other statistics compile nothing anew.
    wide = "float64" if to is not None and to.dtype == "float64" else "float32"
    affine = [] if to is None or to.dtype == "uint8" else [a.astype(wide) for a in to.affine(str(x.dtype))]
    tail = None if to is None else (parse_layout(to.layout), to.dtype)
    return _mixed(x, leaves(plan), affine, names, job.kind, tail, form.shape, noisy, form.moved)


@partial(jax.jit, static_argnums=(3, 4, 5, 6, 7, 8), inline=True)
def _mixed(
    source: Any,
    plan: list[Any],
    affine: list[Any],
    names: tuple[str, ...],
    kind: str,
    tail: tuple[tuple[str, ...], str] | None,
    shape: tuple[int, ...],
    noisy: bool,
    moved: bool,
) -> Any:
    batch = names.index("b")
    x = jnp.moveaxis(source, batch, 0)
    rest = tuple(n for n in names if n != "b")
    result = jnp.moveaxis(_painted(x, plan, rest, kind, bool(affine), shape, noisy, moved), 0, batch)
    if tail is None:
        return result.astype(source.dtype)
    if affine:
        scale, shift = (a.reshape([len(a) if n == "c" else 1 for n in names]) for a in affine)
        result = result.astype(scale.dtype) * scale + shift
    return result.transpose([names.index(n) for n in tail[0]]).astype(jnp.dtype(tail[1]))


def _painted(
    x: Any,
    plan: list[Any],
    rest: tuple[str, ...],
    kind: str,
    tail: bool,
    shape: tuple[int, ...],
    noisy: bool,
    moved: bool,
) -> Any:
    """The rows of the plan, patch upon patch, the batch axis first."""
    base, partner, box, opacity, _, *fills = plan
    # A second gather beside that of the donors can cost as much as all the rest: compilers then use no vectors.
    row = _take(x, base) if moved or len(x) != len(base) else x
    if kind == "continuous" and (str(x.dtype) in _HALVES or (tail and not jnp.issubdtype(x.dtype, jnp.floating))):
        row = row.astype(jnp.float32)
    for k in range(partner.shape[1]):
        giver, share = partner[:, k], _column(opacity[:, k], row)
        value = _take(x, jnp.maximum(giver, 0)).astype(row.dtype)
        if len(fills) > 4 and shape:
            value = _shifted(value, fills[4][:, k] - box[:, k], rest, len(shape))
        if len(fills[0]):
            painted = _fills(row, rest, jnp.where(giver < 0, -1 - giver, 0), fills[:4], len(shape), noisy)
            value = jnp.where(_column(giver, row) < 0, painted, value)
        region = share > 0
        if kind == "valid":
            mixed = row | value if row.dtype == bool else jnp.maximum(row, value)
        elif kind == "discrete" or not (jnp.issubdtype(row.dtype, jnp.floating) or row.dtype == jnp.uint8):
            # No average of ids: of a plan whose numbers are known a blend was refused, of a traced one it does nothing.
            mixed, region = value, share == 1
        else:
            mixed = _blended(row, value, share)
        for r, axis in enumerate(BOX_AXES[len(shape)]):
            place = 1 + rest.index(axis)
            at = jnp.arange(row.shape[place])
            line = (at >= box[:, k, 2 * r, None]) & (at < box[:, k, 2 * r + 1, None])
            region = region & line.reshape([row.shape[i] if i in (0, place) else 1 for i in range(row.ndim)])
        row = jnp.where(region, mixed, row)
    return row


def _blended(row: Any, value: Any, share: Any) -> Any:
    """(1 - share)·row + share·value, where the share is more than 0; bytes in whole numbers."""
    if row.dtype == jnp.uint8:
        q = jnp.round(share * 65536).astype(jnp.uint32)
        return (((65536 - q) * row + q * value + 32768) >> 16).astype(jnp.uint8)
    # Arithmetic would let a NaN of a row that takes no part through: into the values, and into the gradient of share.
    none, whole = share == 0, share == 1
    share = share.astype(row.dtype)
    mixed = (1 - share) * jnp.where(whole, 0, row) + share * jnp.where(none, 0, value)
    return jnp.where(whole, value, mixed)


def _shifted(value: Any, moves: Any, rest: tuple[str, ...], rank: int) -> Any:
    """Each row moved so that its donor region lies where its box is."""
    for r, axis in enumerate(BOX_AXES[rank]):
        place = 1 + rest.index(axis)
        extent = value.shape[place]
        index = jnp.clip(jnp.arange(extent) + moves[:, 2 * r, None], 0, extent - 1)
        index = index.reshape([value.shape[i] if i in (0, place) else 1 for i in range(value.ndim)])
        value = jnp.take_along_axis(value, index, place, mode="promise_in_bounds")
    return value


def _fills(row: Any, rest: tuple[str, ...], which: Any, fills: list[Any], rank: int, noisy: bool) -> Any:
    """What fill ``which[n]`` paints on row n, in the dtype of the rows."""
    value, noise, std, key = (_take(part, which) for part in fills)
    spread = [value.shape[1] if n == "c" else 1 for n in rest]
    painted = value.reshape(len(which), *spread)
    if noisy:
        drawn = normals(key, _column(noise, row) == 1, row.shape[1:], rest, BOX_AXES[rank])
        steps = drawn * _column(std, row)
        # The two roundings of the definition: without the comparison a compiler may make one of them.
        loud = painted + jnp.where(jnp.abs(drawn) < 100, steps, 0)
        painted = jnp.where(_column(noise, row) > 0, loud, painted)
    if jnp.issubdtype(row.dtype, jnp.floating):
        return painted.astype(row.dtype)
    if row.dtype == bool:
        return painted != 0
    limits = np.iinfo(row.dtype)
    return jnp.clip(jnp.round(painted), limits.min, limits.max).astype(row.dtype)


def _take(x: Any, rows: Any) -> Any:
    """Some rows of x. Rows beyond it, which only a traced plan can name, are NaN or the largest number."""
    return x.at[rows].get(mode="fill", wrap_negative_indices=False)


def _column(values: Any, like: Any) -> Any:
    """(N,) numbers that broadcast over the rows of ``like``."""
    return values.reshape(len(values), *[1] * (like.ndim - 1))
