"""The CPU backend: it lays a job out for the kernels, on NumPy arrays and CPU tensors, and shares the work among threads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MixTypeError, MixValueError
from ..layout import BOX_AXES, parse_layout
from ..noise import table
from ..spec import shape_of
from . import is_tensor, reference
from .geometry import Geometry, geometry
from .threads import share_out, thread_count
from .walk import walk

if TYPE_CHECKING:
    from ..execute import Job
    from ..plan import Plan

#: Bytes of a row that are read in one visit: long enough for the chip to read ahead, few enough that they are still in
#: the second-level cache when the row is met again as a donor.
VISIT = 32768
#: Bytes of a unit that is painted before it goes to memory: they must stay in the first-level cache.
STAGE = 8192
#: Results of more bytes than this are streamed past the cache, which they would only sweep clean.
STREAM_FROM = 8 << 20
#: Below this many bytes a second thread costs more than it saves.
THREADS_FROM = 1 << 20

# What the kernels tell element types by: bfloat16 and float16 come as bits, ids as integers of their size.
_LIKE = {"float64": np.float64, "float32": np.float32, "bfloat16": np.uint16, "float16": np.int16, "uint8": np.uint8}
_IDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def dtype_name(x: Any) -> str:
    """Name of the dtype of an array, a tensor or the samples of a list."""
    one = x[0] if isinstance(x, Sequence) else x
    return str(one.dtype).removeprefix("torch.")


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
    out = job.out
    if out is None:
        shape = list(shape_of(x, job.names))
        shape[job.names.index("b")] = job.plan.n
        if job.to is not None:
            out = torch.empty(job.to.shape(job.names, tuple(shape)), dtype=getattr(torch, job.to.dtype))
        elif isinstance(x, list) or tuple(shape) != tuple(job.x.shape):
            out = torch.empty(shape, dtype=getattr(torch, dtype))
        else:
            out = torch.empty_like(job.x)
    done = _mixed(replace(job, x=x, out=_array_of(out)), dtype, job.in_place)
    return None if done is None else out


def _array_of(tensor: Any) -> np.ndarray:
    """The memory of a CPU tensor as an array; bfloat16, which NumPy lacks, as uint16 bits."""
    torch = sys.modules["torch"]
    tensor = tensor.detach()
    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()


class _Source:
    """Rows with an address each; dense, their axes ordered from the outermost in memory to the innermost."""

    def __init__(self, x: Any, names: tuple[str, ...]) -> None:
        at = names.index("b")
        rest = tuple(n for n in names if n != "b")
        rows = _alike([np.asarray(r) for r in x]) if isinstance(x, Sequence) else np.moveaxis(x, at, 0)
        sample = rows[0] if len(rows) else np.empty(rows.shape[1:], rows.dtype)
        # Where an axis of extent 1 stands says nothing: those go first.
        order = sorted(range(len(rest)), key=lambda i: (sample.shape[i] > 1, -sample.strides[i]))
        if not _packed(sample.transpose(order)):
            rows = [np.ascontiguousarray(r) for r in rows] if isinstance(rows, list) else np.ascontiguousarray(rows)
            order, sample = list(range(len(rest))), np.empty(sample.shape, sample.dtype)
        self.keep = rows  # the addresses below are good only as long as these live
        if isinstance(rows, list):
            self.address = np.array([r.__array_interface__["data"][0] for r in rows], np.int64)
        else:
            self.address = rows.__array_interface__["data"][0] + np.arange(len(rows), dtype=np.int64) * rows.strides[0]
        self.in_x = not isinstance(x, Sequence) and np.shares_memory(rows, x, max_work=1)
        self.dtype, self.itemsize = sample.dtype, sample.itemsize
        self.names = tuple(rest[i] for i in order)
        self.shape = tuple(sample.shape[i] for i in order)
        self.extent = dict(zip(self.names, self.shape, strict=True))
        steps = np.cumprod([self.itemsize, *self.shape[:0:-1]])[::-1].tolist() if self.shape else []
        self.strides = dict(zip(self.names, steps, strict=True))


def _alike(rows: list[np.ndarray]) -> list[np.ndarray]:
    first = rows[0]
    for i, row in enumerate(rows):
        if row.shape != first.shape or row.dtype != first.dtype:
            raise MixValueError(
                f"sample 0 is {first.dtype} {first.shape}, sample {i} is {row.dtype} {row.shape}: expected equally sized samples"
            )
    return rows if all(r.strides == first.strides for r in rows) else [np.ascontiguousarray(r) for r in rows]


def _packed(sample: np.ndarray) -> bool:
    step = sample.itemsize
    for extent, stride in zip(sample.shape[::-1], sample.strides[::-1], strict=True):
        if extent > 1 and stride != step:
            return False
        step *= extent
    return True


def _new(job: Job, source: _Source) -> np.ndarray:
    if job.to is not None:
        extent = source.extent | {"b": job.plan.n}
        return np.empty([extent[n] for n in parse_layout(job.to.layout)], reference.numpy_dtype(job.to.dtype))
    whole = np.empty((job.plan.n, *source.shape), source.dtype)
    rest = [1 + source.names.index(n) for n in job.names if n != "b"]
    return np.moveaxis(whole.transpose(0, *rest), 0, job.names.index("b"))


def _mixed(job: Job, dtype: str, in_place: bool = False) -> np.ndarray | None:
    """The result, or None where the kernels have no form for the job."""
    plan, fills = job.plan, job.plan.fills
    source = _Source(job.x, job.names)
    used = plan.opacity > 0
    painted = used & (plan.partner < 0)
    if (
        job.kind == "valid"
        or not (dtype in _LIKE or source.itemsize in _IDS)
        or (painted.any() and not _paints(dtype, source))
    ):
        return None
    noisy = bool(painted.any() and fills.noise[-1 - plan.partner[painted]].any())
    out = job.out if job.out is not None else _new(job, source)
    in_place = (in_place or job.in_place) and source.in_x
    out_dtype = dtype if job.to is None else job.to.dtype
    names = job.names if job.to is None else parse_layout(job.to.layout)
    out_strides = dict(zip(names, out.strides, strict=True))
    # Halves that blend twice are rounded once at the end: they are painted in float32, as for a tail.
    halves = dtype in ("bfloat16", "float16") and bool(((used & (plan.opacity < 1)).sum(1) > 1).any())
    scale, shift = job.to.affine(dtype) if job.to is not None else (np.ones(1), np.zeros(1))
    scaled = bool((scale != 1).any() or (shift != 0).any())
    moved = any(out_strides[n] != source.strides[n] for n in source.names if source.extent[n] > 1)
    tail = scaled or moved or halves or out_dtype != dtype
    by_channel = fills.value.shape[1] > 1 or noisy or len(scale) > 1
    geo = geometry(source.names, source.shape, plan.rank, by_channel, tuple(out_strides[n] for n in source.names) if tail else ())
    if geo is None or (noisy and not geo.noise_fits):
        return None
    if plan.n and geo.extent and geo.inner and len(geo.coords):
        like = _like(dtype, source.itemsize)
        wide = np.float64 if "float64" in (dtype, out_dtype) else np.float32
        work = np.empty(0, wide) if scaled or halves or out_dtype != dtype else like
        ending = (scale.astype(wide), shift.astype(wide)) if scaled else (None, None)
        noise = (fills.noise, fills.std, fills.key, table()) if noisy else None
        _launch(
            job,
            source,
            out,
            in_place and not tail,
            geo,
            like,
            work,
            _like(out_dtype, source.itemsize) if tail else None,
            noise,
            ending,
            out_strides["b"],
        )
    return out


def _like(dtype: str, itemsize: int) -> np.ndarray:
    return np.empty(0, _LIKE.get(dtype) or _IDS[itemsize])


def _paints(dtype: str, source: _Source) -> bool:
    return dtype in _LIKE or (source.itemsize >= 4 and dtype.startswith("int"))


def _launch(
    job: Job, source: _Source, out: np.ndarray, in_place: bool, geo: Geometry, like: np.ndarray, work: np.ndarray, like_out: Any,
    noise: Any, ending: tuple[Any, Any], row_stride: int,
) -> None:  # fmt: skip
    from . import kernels

    plan = job.plan
    used = plan.opacity > 0
    shifted = (plan.box != plan.donor).any(-1) & used & (plan.partner >= 0)
    whole = plan.rank == 0 or bool((plan.box == _full(plan.shape))[used].all())
    streamed = not in_place and out.nbytes >= STREAM_FROM
    order, saves, reads = np.arange(plan.n), None, None
    if in_place or streamed:  # what stays in cache anyway needs no order
        one = _one_donor(plan, used)
        order, saves, reads = walk(one if in_place else _in_batch(plan.base, one))
        if in_place and shifted.any():
            itself = (one == np.arange(plan.n)) & shifted.any(1)
            saves[itself], reads[itself] = one[itself], True
    staged = like_out is not None or (streamed and not (whole and plan.k == 1))
    lines, piece, visit, visits = _units(geo, like.itemsize, work.itemsize, staged, in_place and bool(shifted.any()))
    own = source.address[plan.base]
    target = out.__array_interface__["data"][0] + np.arange(plan.n, dtype=np.int64) * row_stride
    fill = np.where(plan.partner < 0, -1 - plan.partner, 0)
    values = plan.fills.value if (used & (plan.partner < 0)).any() else None
    arguments = (
        like, work, like_out, own, target,
        _donors(plan, source, shifted), None if whole else plan.box, plan.opacity, fill, values, noise,
        order, saves if in_place else None, reads if in_place else None,
        geo.coords, geo.steps, (geo.axis, geo.extent, geo.inner, geo.post, geo.step), geo.places,
        *ending, geo.strides,
    )  # fmt: skip
    threads = thread_count(job.threads) if out.nbytes >= THREADS_FROM else 1
    share_out(lambda lo, hi: kernels.mix_units(*arguments, (lo, hi, lines, piece, visit), streamed), visits, threads)


def _full(shape: tuple[int, ...]) -> np.ndarray:
    return np.array([v for s in shape for v in (0, s)], np.int32)


def _donors(plan: Plan, source: _Source, shifted: np.ndarray) -> np.ndarray:
    """(N, K) addresses, moved so that a donor element lies at the offset of the element it replaces; 0 for fills."""
    donors = source.address[np.maximum(plan.partner, 0)]
    if shifted.any():
        steps = np.array([source.strides[a] for a in BOX_AXES[plan.rank]], np.int64)
        donors = donors + ((plan.donor - plan.box)[..., 0::2].astype(np.int64) * steps).sum(-1)
    return np.where(plan.partner >= 0, donors, 0)


def _one_donor(plan: Plan, used: np.ndarray) -> np.ndarray:
    """(N,) the source row each row reads besides its own; its own where it reads none."""
    donor = np.where(used & (plan.partner >= 0), plan.partner, -1).max(1, initial=-1)
    return np.where(donor < 0, plan.base, donor).astype(np.int64)


def _in_batch(base: np.ndarray, donor: np.ndarray) -> np.ndarray:
    """The batch row that starts from each donor's source row; the row itself where there is none. For the order only."""
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
