"""The CPU backend: lays a job out for the kernels, on NumPy arrays and CPU tensors, and shares it among threads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..constant import ascending, full_box, is_ascending
from ..errors import MixTypeError, MixValueError
from ..layout import BOX_AXES, parse_layout
from ..memory import pool
from ..noise import table
from . import is_tensor, reference
from .addresses import start, starts
from .lines import Geometry, geometry
from .order import walk
from .rows import Rows
from .threads import share_out, thread_count

if TYPE_CHECKING:
    from ..execute import Job
    from ..output import Output
    from ..plan import Plan

#: Bytes of a row that are read in one visit: long enough for the chip to read ahead, few enough that they are still in
#: the second-level cache when the row is met again as a donor.
VISIT = 32768
#: Bytes of a unit that is painted before it goes to memory: they must stay in the first-level cache.
STAGE = 8192
#: Results of more bytes than this are streamed past the cache, which they would only sweep clean.
STREAM_FROM = 16 << 20
#: Below this many bytes a second thread costs more than it saves.
THREADS_FROM = 1 << 20

# What the kernels tell element types by: bfloat16 and float16 come as bits, ids as integers of their size.
_LIKE = {"float64": np.float64, "float32": np.float32, "bfloat16": np.uint16, "float16": np.int16, "uint8": np.uint8}
_IDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def dtype_name(x: Any) -> str:
    """Name of the dtype of an array, a tensor or the samples of a list."""
    return _name((x[0] if isinstance(x, Sequence) else x).dtype)


@cache
def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def check_out(x: Any, out: Any) -> None:
    """Raise unless out is a writable array of the same kind as x."""
    one = x[0] if isinstance(x, Sequence) else x
    if is_tensor(one):
        if not is_tensor(out) or out.device.type != "cpu":
            raise MixTypeError(f"out is {type(out).__name__}, expected a CPU tensor")
        if out.requires_grad:
            raise MixValueError("out requires gradients: it cannot be written; give a plain tensor")
    else:
        reference.check_out(x, out)


def run(job: Job) -> Any:
    """Do the job with the kernels; what they have no form for goes to the plain backend of the same arrays."""
    one = job.x[0] if isinstance(job.x, Sequence) else job.x
    if is_tensor(one):
        result = _run_tensor(job)
        if result is None:
            from . import torch_

            return torch_.run(job)
        return result
    result = _mixed(job, dtype_name(job.x))
    return reference.run(job) if result is None else result


def _run_tensor(job: Job) -> Any:
    """Tensors as arrays of the same memory, and the result as a tensor again."""
    import torch

    x = [_array_of(t) for t in job.x] if isinstance(job.x, Sequence) else _array_of(job.x)
    dtype = dtype_name(job.x)
    out = None if job.out is None else _array_of(job.out)
    done = _mixed(job._replace(x=x, out=out), dtype, np.dtype(np.uint16))
    if done is None or job.out is not None:
        return None if done is None else job.out
    if (dtype if job.to is None else job.to.dtype) == "bfloat16":
        return torch.from_numpy(done.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(done)


def _array_of(tensor: Any) -> np.ndarray:
    """The memory of a CPU tensor as an array; bfloat16, which NumPy lacks, as uint16 bits."""
    torch = sys.modules["torch"]
    tensor = tensor.detach()
    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _new(job: Job, source: Rows, bfloat16: np.dtype[Any] | None) -> np.ndarray:
    """Recycled memory for a result; what comes back to the pool when its last view dies."""
    if job.to is not None:
        extent = dict(zip(source.names, source.shape, strict=True)) | {"b": job.plan.n}
        named = bfloat16 if job.to.dtype == "bfloat16" and bfloat16 else reference.numpy_dtype(job.to.dtype)
        return pool.empty([extent[n] for n in parse_layout(job.to.layout)], named)
    whole = pool.empty((job.plan.n, *source.shape), source.dtype)
    if job.names == ("b", *source.names):
        return whole
    rest = [1 + source.names.index(n) for n in job.names if n != "b"]
    return np.moveaxis(whole.transpose(0, *rest), 0, job.names.index("b"))


@dataclass(frozen=True)
class _Finish:
    """How painted units become the result.

    Args:
        address: of the finisher, see tail.
        numbers: what it is called with; whether it goes past the cache is left open.
        factors: scale and shift, which the numbers point to.
    """

    address: int
    numbers: tuple[int, ...]
    factors: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class _Form:
    """Which kernel: the element types, and what happens on the way out.

    Args:
        like, work: empty arrays of the input's and the painted unit's type.
        noise: what the kernels need for noise, or None.
        finish: how painted units go out; None: as they are.
    """

    like: np.ndarray
    work: np.ndarray
    noise: tuple[np.ndarray, ...] | None
    finish: _Finish | None


def _mixed(job: Job, dtype: str, bfloat16: np.dtype[Any] | None = None) -> np.ndarray | None:
    """The result, or None where the kernels have no form for the job.

    Args:
        job: on arrays.
        dtype: of its values.
        bfloat16: what stands for bfloat16 in a new result; None for NumPy's own.
    """
    plan, fills = job.plan, job.plan.fills
    source = Rows(job.x, job.names)
    known = (dtype in _LIKE or source.itemsize in _IDS) and not source.dtype.hasobject
    if job.kind == "valid" or not known or (plan.facts.paints and not _paints(dtype, source.itemsize)):
        return None
    noisy = plan.facts.paints and bool(fills.noise[-1 - plan.partner[plan.facts.painted]].any())
    halves = dtype in ("bfloat16", "float16") and _rounds_twice(plan)
    in_place = job.in_place and source.in_x
    apart = in_place and halves  # their rows are read again after others have been written
    out = _new(job, source, bfloat16) if apart or job.out is None else job.out
    out_dtype = dtype if job.to is None else job.to.dtype
    out_names = job.names if job.to is None else parse_layout(job.to.layout)
    out_strides = dict(zip(out_names, out.strides, strict=True))
    factors, scaled = (1, False) if job.to is None else _affine(job.to, dtype)
    moved = any(
        out_strides[n] != source.strides[n] for n, extent in zip(source.names, source.shape, strict=True) if extent > 1
    )
    recast = scaled or halves or out_dtype != dtype
    by_channel = fills.value.shape[1] > 1 or noisy or factors > 1
    places = tuple(out_strides[n] for n in source.names) if recast or moved else ()
    geo = geometry(source.names, source.shape, plan.rank, by_channel, places)
    if geo is None or (noisy and not geo.noise_fits):
        return None
    if plan.n and geo.extent and geo.inner and len(geo.coords):
        like = _like(dtype, source.itemsize)
        wide = "float64" if "float64" in (dtype, out_dtype) else "float32"
        work, finish = _like(wide, 0) if recast else like, None
        if recast or moved:
            finish = _finish(geo, like, work, _like(out_dtype, source.itemsize), job.to if scaled else None, dtype)
        noise = (fills.noise, fills.std, fills.key, table()) if noisy else None
        form = _Form(like, work, noise, finish)
        _launch(plan, source, out, out_strides["b"], geo, form, in_place and not apart, job.threads)
    if apart:
        job.out[...] = out
    return job.out if apart else out


def _rounds_twice(plan: Plan) -> bool:
    """Would rows of halves be rounded more than once? They are then painted in float32, as for a tail."""
    if not plan.facts.blends or (plan.k == 1 and not plan.facts.paints):
        return False
    blends = plan.facts.used & (plan.opacity < 1)
    return bool((blends.sum(1) > 1).any() or (blends & plan.facts.painted).any())


@lru_cache(maxsize=64)
def _affine(to: Output, dtype: str) -> tuple[int, bool]:
    """How many factors a tail has, one or one for each channel, and whether they change anything."""
    return len(to.affine(dtype)[0]), to.scales(dtype)


@lru_cache(maxsize=64)
def _factors(to: Output, dtype: str, count: int, wide: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of a tail, over and over up to a count."""
    scale, shift = (np.resize(values, count).astype(wide) for values in to.affine(dtype))
    return scale, shift


def _finish(
    geo: Geometry, like: np.ndarray, work: np.ndarray, out: np.ndarray, to: Output | None, dtype: str
) -> _Finish:
    """How units go out; ``to`` where it has factors."""
    from .tail import finisher, way_of

    count = 1 if to is None else _affine(to, dtype)[0]
    way = way_of(geo.inner, geo.post, geo.strides, out.itemsize, bool(geo.coords[0, -1] < 0), count)
    address = finisher(way, like.dtype, work.dtype, out.dtype, to is not None)
    # Where factors repeat along a line, a vector takes its own wherever it begins.
    long = count + 64 if way == "repeating" else count
    factors = () if to is None else _factors(to, dtype, long, work.dtype.name)
    places = [int(place) for place in starts(factors)] if factors else [0, 0]
    return _Finish(address, (geo.inner, geo.post, *geo.strides, 0, count, *places), factors)


@cache
def _like(dtype: str, itemsize: int) -> np.ndarray:
    return np.empty(0, _LIKE.get(dtype) or _IDS[itemsize])


def _paints(dtype: str, itemsize: int) -> bool:
    return dtype in _LIKE or (itemsize >= 4 and dtype.startswith("int"))


def _launch(
    plan: Plan,
    source: Rows,
    out: np.ndarray,
    row_step: int,
    geo: Geometry,
    form: _Form,
    in_place: bool,
    threads: int | None,
) -> None:
    """Call the kernel on as many threads as the job is worth."""
    from . import kernels

    facts = plan.facts
    # In place it is fills alone that need not be read, and then no donor's store may come to the same cache lines.
    only_fills = facts.paints and not (facts.used & ~facts.painted).any()
    streamed = bool((only_fills or not in_place) and out.nbytes >= STREAM_FROM)
    order, saves, reads, mates = np.arange(plan.n), None, None, None
    if in_place:
        order, saves, reads = walk(facts.donor)
        if facts.shifted is not None or plan.k > 1:
            # A row that is its own donor, from another place or under an earlier patch, reads what it overwrites.
            rows = ascending(plan.n)
            itself = (facts.used & (plan.partner == rows[:, None])).any(1)
            saves[itself], reads[itself] = rows[itself], True
        mates = _mates(plan)
    elif out.nbytes >= STREAM_FROM:  # what stays in cache anyway needs no order
        inside = facts.top < plan.n and is_ascending(plan.base)
        order = walk(facts.donor if inside else _in_batch(plan.base, facts.donor))[0]
    whole = plan.rank == 0 or (facts.shifted is None and bool((plan.box == full_box(plan.shape))[facts.used].all()))
    staged = form.finish is not None or (streamed and not in_place and not (whole and plan.k == 1))
    at_once = in_place and facts.shifted is not None
    lines, piece, visit, visits = _units(geo, form.like.itemsize, form.work.itemsize, staged, at_once)
    target = start(out) + ascending(plan.n, np.int64) * row_step
    fill, values = (
        (np.where(plan.partner < 0, -1 - plan.partner, 0), plan.fills.value) if facts.paints else (None, None)
    )
    finish, called = (0, 0, 0), None  # ``called`` must outlive the kernel, which knows it by address
    if form.finish is not None:
        called = np.array(form.finish.numbers, np.int64)
        called[4] = streamed
        finish = (form.finish.address, geo.strides[0], start(called))
    arguments = (
        form.like, form.work, source.at(plan.base), target,
        _donors(plan, source), None if whole else plan.box, plan.opacity, fill, values, form.noise,
        order, saves, reads, mates,
        geo.coords, geo.steps, (geo.axis, geo.extent, geo.inner, geo.post, geo.step), geo.places,
        finish,
    )  # fmt: skip
    workers = thread_count(threads) if out.nbytes >= THREADS_FROM else 1
    share_out(lambda lo, hi: kernels.mix_units(*arguments, (lo, hi, lines, piece, visit), streamed), visits, workers)


def _mates(plan: Plan) -> np.ndarray | None:
    """(N,) for rows that exchange one patch in one box: the other row, or -2 for the second of the two; else -1."""
    facts, rows = plan.facts, ascending(plan.n, np.int64)
    if plan.k != 1 or facts.shifted is not None or facts.paints:
        return None
    mutual = (facts.donor != rows) & (facts.donor[facts.donor] == rows) & facts.used[:, 0]
    pastes = plan.opacity[:, 0] == 1
    mutual &= (plan.box[:, 0] == plan.box[facts.donor, 0]).all(1) & (pastes == pastes[facts.donor])
    mutual &= mutual[facts.donor]
    if not mutual.any():
        return None
    return np.where(mutual, np.where(rows < facts.donor, facts.donor, -2), -1)


def _donors(plan: Plan, source: Rows) -> np.ndarray:
    """(N, K) addresses, moved so that a donor element lies at the offset of the element it replaces; 0 for fills."""
    facts = plan.facts
    donors = source.at(np.maximum(plan.partner, 0) if plan.has_fills else plan.partner)
    if facts.shifted is not None:
        steps = np.array([source.strides[a] for a in BOX_AXES[plan.rank]], np.int64)
        donors = donors + facts.moves[..., 0::2] @ steps
    return np.where(plan.partner >= 0, donors, 0) if plan.has_fills else donors


def _in_batch(base: np.ndarray, donor: np.ndarray) -> np.ndarray:
    """The batch row that starts from each donor's source row, itself where there is none; for the order only."""
    order = np.argsort(base, kind="stable")
    place = np.minimum(np.searchsorted(base, donor, sorter=order), len(base) - 1)
    found = order[place]
    return np.where(base[found] == donor, found, np.arange(len(base)))


def _units(geo: Geometry, size: int, work_size: int, staged: bool, at_once: bool) -> tuple[int, int, int, int]:
    """How a sample is cut: lines a unit, elements a unit of a long line (0: whole lines), units a visit, and visits."""
    lines, line = len(geo.coords), geo.extent * geo.inner
    if at_once:
        return lines, 0, 1, 1
    room = STAGE // work_size if staged else VISIT // size
    if line > room:
        a_unit, piece = 1, max(1, room // geo.inner) * geo.inner
        unit, units = piece, lines * -(-line // piece)
    else:
        a_unit, piece = min(lines, room // line), 0
        unit, units = a_unit * line, -(-lines // a_unit)
    visit = max(1, VISIT // (unit * size)) if staged else 1
    return a_unit, piece, visit, -(-units // visit)
