"""How a mix of one kind is launched: the form of its kernel, its grid and its arguments, all but addresses and plan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ...layout import BOX_AXES
from ...packing import Packing
from ..lines import positions
from .form import FLOATS, TYPES, Form

if TYPE_CHECKING:
    from ...output import Output

#: Sizes in words of a plan that travels as an argument: each is a kernel of its own, and what is sent with a launch.
#: All arguments together may take 32,764 bytes.
WORDS = (256, 1024, 4096, 7936)
#: Elements of a row, so that they can be numbered in 31 bits.
MOST = (1 << 31) - 1
BLOCK = 256
#: Elements of a thread: more of them take so many registers that few threads run at a time.
_WIDEST = 48
_SIZES = {
    name: 8 if name.endswith("64") else 4 if name.endswith("32") else 2 if name.endswith("16") else 1 for name in TYPES
}
_DIVISOR = np.dtype([("mul", "u4"), ("shift", "u4")])
_AXIS = np.dtype(
    [
        ("out_step", "i8"),
        ("extent", _DIVISOR),
        ("size", "u4"),
        ("in_step", "u4"),
        ("place", "u4"),
        ("unused", "u4"),
    ]
)


@dataclass(frozen=True)
class Task:
    """A kind of mix: everything but addresses and the numbers of the plan.

    Args:
        names: axes of a row from the outermost to the innermost in the source's memory.
        shape: their extents.
        out_strides: bytes that one step along each takes in the result.
        source, target: dtype names.
        rows: bytes from row to row in the source and in the result.
        aligned: what the addresses of source and result are multiples of, up to 16.
        packing: of the plan.
        valid: is it a mask of what is valid?
        to: the tail where it normalises, else None.
        in_place: does the result replace the source?
        in_memory: does the plan lie in the device's memory however small it is?
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    out_strides: tuple[int, ...]
    source: str
    target: str
    rows: tuple[int, int]
    aligned: tuple[int, int]
    packing: Packing
    valid: bool
    to: Output | None
    in_place: bool
    in_memory: bool


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a task comes to.

    Args:
        form: of the kernel.
        grid: blocks; a row each along the first axis.
        block: threads of a block.
        arguments: (1,) structured array, complete but for addresses and words.
        factors: scales and shifts that go to the device's memory, or None.
    """

    form: Form
    grid: tuple[int, int]
    block: int
    arguments: np.ndarray
    factors: np.ndarray | None

    def fresh(self) -> np.ndarray:
        """A copy of the arguments; of a structure numpy would copy field by field."""
        return self.arguments.view(np.uint8).copy().view(self.arguments.dtype)


def divisor(d: int) -> tuple[int, int]:
    """Multiplier and shift with n // d == (high32(n * mul) + n) >> shift for every n below 2**31."""
    shift = (d - 1).bit_length()
    return ((1 << 32) * ((1 << shift) - d) // d + 1, shift)


@lru_cache(maxsize=512)
def recipe_for(task: Task) -> Recipe:
    """Choose the kernel for a task and fill in its arguments."""
    packing, axes = task.packing, BOX_AXES[task.packing.rank]
    names, shape = task.names, task.shape
    store, channels, vec, items = _way(task)
    scale, offset = (np.ones(1), np.zeros(1)) if task.to is None else task.to.affine(task.source)
    count = len(scale)
    factors = 0 if task.to is None else 1 if count == 1 else 2 if count <= 4 else 3
    last = names[-1] if names else ""
    inside = count if factors == 2 and last == "c" and vec > 1 else 0
    line = max((i for i, n in enumerate(names) if n in axes), default=-1)
    fill = 0 if not packing.fills else 2 if packing.noise else 1
    size = next((w for w in WORDS if packing.words <= w), 0)
    form = Form(
        source=task.source,
        target=task.target,
        vec=vec,
        store=store,
        channels=channels,
        inside=inside,
        rank=packing.rank,
        line=axes.index(names[line]) if axes else 0,
        patches=1 if packing.k == 1 else 0,
        fill=fill,
        shift=int(packing.shift),
        valid=int(task.valid),
        factors=factors,
        pairs=int(task.in_place),
        words=0 if task.in_memory else size,
        axes=max(len(names), 1) if store == "ANY" or fill == 2 else 0,
        wide=int(packing.wide),
    )
    made = np.zeros(1, layout_of(form))
    a = made[0]
    a["x_step"], a["out_step"] = task.rows
    a["record"], a["patches"], a["fills"] = packing.record, packing.k, packing.n * packing.record
    a["fill"], a["fill_values"], a["items"] = packing.fill, packing.values, items
    a["channel_size"] = _after(names, shape, "c")
    a["channels"] = shape[names.index("c")] if "c" in names else 1
    a["channel"], a["all_channels"] = divisor(int(a["channel_size"])), divisor(int(a["channels"]))
    if store == "PLANES":
        a["plane"] = task.out_strides[-1]
    if axes:
        a["inner"] = _after(names, shape, names[line])
        a["length"] = shape[line] * a["inner"]
        a["line"] = divisor(int(a["length"]))
        for r, name in enumerate(axes):
            at = names.index(name)
            a["shift_step"][r] = _after(names, shape, name)
            a["cross_step"][r] = divisor(prod(shape[at + 1 : line]))
            a["cross_extent"][r], a["cross_size"][r] = divisor(shape[at]), shape[at]
    if form.axes:
        _axes(task, store, a["axis"])
    if 1 <= factors <= 2:
        a["scale"][:count], a["offset"][:count] = scale, offset
    block = min(BLOCK, -(-items // 32) * 32)
    stretches = -(-items // (block * (2 if store == "SAME" and items >= 4 * BLOCK else 1)))
    slots = packing.n // 2 if task.in_place else packing.n
    return Recipe(
        form,
        (slots, min(stretches, 65535)),
        block,
        made,
        np.concatenate([scale, offset]).astype(form.real) if factors == 3 else None,
    )


@lru_cache(maxsize=64)
def layout_of(form: Form) -> np.dtype[np.void]:
    """The arguments of a form, as struct Mix of mix.cu."""
    fields: list[tuple[str, object] | tuple[str, object, tuple[int, ...]]] = [
        *((name, "u8") for name in ("x", "out", "plan", "factors")),
        *((name, "i8") for name in ("x_step", "out_step", "plane")),
        *((name, "u4") for name in ("record", "patches", "fills", "fill", "fill_values", "leave_fills", "items")),
        *((name, "u4") for name in ("length", "inner", "channels")),
        *((name, _DIVISOR) for name in ("line", "channel", "all_channels")),
        ("channel_size", "u4"),
        ("shift_step", "u4", (3,)),
        ("cross_step", _DIVISOR, (3,)),
        ("cross_extent", _DIVISOR, (3,)),
        ("cross_size", "u4", (3,)),
        ("unused", "u4"),
        ("scale", form.real, (4,)),
        ("offset", form.real, (4,)),
    ]
    if form.axes:
        fields.append(("axis", _AXIS, (form.axes,)))
    if form.words:
        fields.append(("words", "i4", (form.words,)))
    made: np.dtype[np.void] = np.dtype(fields)
    return made


def _after(names: tuple[str, ...], shape: tuple[int, ...], name: str) -> int:
    """Elements that one step along an axis takes; of a row that has no such axis, all of them."""
    return prod(shape[names.index(name) + 1 :]) if name in names else prod(shape)


def _axes(task: Task, store: str, into: np.ndarray) -> None:
    """What ``struct Axis`` says, in the order in which the kernel counts."""
    names, shape = task.names, task.shape
    places = positions(names, dict(zip(names, shape, strict=True)), BOX_AXES[task.packing.rank])
    order = list(range(len(names)))
    if store == "ANY":
        order.sort(key=lambda i: (shape[i] > 1, -abs(task.out_strides[i])))
    for one in into:
        one["extent"], one["size"] = divisor(1), 1
    for row, i in enumerate(order):
        one = into[row]
        one["out_step"], one["extent"], one["size"] = task.out_strides[i], divisor(shape[i]), shape[i]
        one["in_step"] = prod(shape[i + 1 :])
        one["place"] = 0 if names[i] == "c" else places[names[i]]


def _way(task: Task) -> tuple[str, int, int, int]:
    """(store, channels, vec, items): how elements leave, and how many a thread takes at once."""
    from_size, to_size = _SIZES[task.source], _SIZES[task.target]
    elements = prod(task.shape)
    real = [i for i, extent in enumerate(task.shape) if extent > 1]  # where an axis of extent 1 stands says nothing
    dense = {i: prod(task.shape[i + 1 :]) for i in real}
    strides = {i: task.out_strides[i] for i in real}
    aligned_in, aligned_out = (_power(a, abs(step)) for a, step in zip(task.aligned, task.rows, strict=True))

    def fits(count: int, read: int, written: int, in_step: int = 16, out_step: int = 16) -> bool:
        return _piece(read * from_size) <= _power(aligned_in, in_step) and _piece(written * to_size) <= _power(
            aligned_out, out_step
        )

    most = 4 if "float64" in (task.source, task.target) else 16 // min(from_size, to_size)
    powers = [p for p in (16, 8, 4, 2, 1) if p <= most]
    if strides == {i: step * to_size for i, step in dense.items()}:
        vec = next(v for v in powers if elements % v == 0 and fits(v, v, v))
        return "SAME", 0, vec, elements // vec
    *outer, last = real
    channels = task.shape[last]
    if channels <= 4 and all(strides[i] == dense[i] // channels * to_size for i in outer):
        pixels, plane = elements // channels, strides[last]
        for p in powers:
            if p * channels > _WIDEST:
                continue
            if pixels % p == 0 and fits(p, p * channels, p, out_step=plane):
                return "PLANES", channels, p * channels, pixels // p
    first, *rest = real
    channels = task.shape[first]
    if channels <= 4 and strides[first] == to_size and all(strides[i] == dense[i] * channels * to_size for i in rest):
        pixels = elements // channels
        for p in powers:
            if pixels % p == 0 and fits(p, p, p * channels, in_step=pixels * from_size):
                return "PIXELS", channels, p, pixels // p
    return "ANY", 0, 1, elements


def _power(*numbers: int) -> int:
    """The largest power of two up to 16 that divides them all."""
    return min((16 if n % 16 == 0 else n & -n for n in numbers), default=16)


def _piece(size: int) -> int:
    """Bytes of one access to a run of so many: mix.cu's Run."""
    return min(16, size & -size)


__all__ = ["FLOATS", "MOST", "WORDS", "Recipe", "Task", "divisor", "recipe_for"]
