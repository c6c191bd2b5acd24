"""A plan written as plain Python loops, one element at a time: slow, and plain enough to be believed.

It is the truth that every backend is held to. Each element carries the error that a backend may make: nothing where
values are only copied or pasted, 2**-22 of the blended magnitudes for each blend, and one rounding to a half type.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from mixops.noise import normal

AXES = {0: (), 1: ("t",), 2: ("h", "w"), 3: ("t", "h", "w")}
#: Error of one blend, relative to (1 - o)·|own| + o·|donor|.
BLEND = {"float64": 2.0**-50, "float32": 2.0**-22, "float16": 2.0**-22, "bfloat16": 2.0**-22, "uint8": 2.0**-22}
#: Half a unit in the last place, relative, and half the smallest number, of the types that round once more.
ROUND = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 2.0**-134)}
SMALLEST = 2.0**-140
FLOATS = ("float64", "float32", "float16", "bfloat16")


@dataclass
class Expected:
    """What a mix must give: values, the error each may have, the dtype and the axis names."""

    values: np.ndarray
    error: np.ndarray
    dtype: str
    names: tuple[str, ...]

    def check(self, result: np.ndarray) -> None:
        """Assert that a result has this dtype and shape, is the same bits where exact, and near enough elsewhere."""
        assert result.dtype.name == self.dtype
        assert result.shape == self.values.shape
        wanted = self.values.astype(result.dtype)
        exact = self.error == 0
        _same_bits(result[exact], wanted[exact])
        if exact.all():
            return
        got, want, error = (a[~exact].astype(np.float64) for a in (result, self.values, self.error))
        unit, least = ROUND.get(self.dtype, (0.0, 0.0))
        limit = error + unit * (np.abs(want) + error) + least + SMALLEST
        bad = ~(np.abs(got - want) <= limit)
        assert not bad.any(), (
            f"{bad.sum()} of {bad.size} beyond the bound: {got[bad][:3]} for {want[bad][:3]}, allowed {limit[bad][:3]}"
        )


def _same_bits(got: np.ndarray, want: np.ndarray) -> None:
    if got.dtype.name in FLOATS:
        got, want = got.astype(np.float64), want.astype(np.float64)
        np.testing.assert_array_equal(np.signbit(got[got == 0]), np.signbit(want[got == 0]))
    np.testing.assert_array_equal(got, want)


def mix(
    x: np.ndarray, plan: Any, layout: str, kind: str = "continuous", *, fill: Any = None, to: Any = None
) -> Expected:
    """Apply a plan, or the plans of a sequence one after the other, element by element."""
    names = tuple(layout.split())
    now = Expected(x, np.zeros(x.shape), x.dtype.name, names)
    if hasattr(plan, "plans"):
        *first, plan = plan.plans
        for step in first:
            now = _stored(_step(now, step, kind, fill, None), x.dtype)
    return _step(now, plan, kind, fill, to)


def _stored(step: Expected, dtype: np.dtype[Any]) -> Expected:
    """A step's result as an array of the input's dtype holds it."""
    values, error = step.values.copy(), step.error.copy()
    unit, least = ROUND.get(dtype.name, (0.0, 0.0))
    for at in np.ndindex(values.shape):
        if error[at] == 0:
            values[at] = np.array(values[at]).astype(dtype).item()
        else:
            error[at] += unit * (abs(values[at]) + error[at]) + least
    return Expected(values, error, step.dtype, step.names)


def _step(x: Expected, plan: Any, kind: str, fill: Any, to: Any) -> Expected:
    names, dtype = x.names, x.dtype
    sizes = dict(zip(names, x.values.shape, strict=True))
    sizes["b"] = len(plan.base)
    tail = to is not None and to.dtype != "uint8"
    real = dtype in FLOATS or tail
    order = tuple(to.layout.split()) if to is not None else names
    values = np.zeros([sizes[a] for a in order], np.float64 if real else x.values.dtype)
    error = np.zeros(values.shape)
    cells = {
        at: (float(x.values[at]) if real else x.values[at].item(), float(x.error[at]))
        for at in np.ndindex(x.values.shape)
    }
    for place in _places(names, sizes):
        value, slack = _element(cells, place, names, sizes, plan, kind, dtype, real, fill)
        if tail:
            value, slack = _normalised(value, slack, to, dtype, place.get("c", 0))
        values[tuple(place[a] for a in order)] = value
        error[tuple(place[a] for a in order)] = slack
    return Expected(values, error, dtype if to is None else to.dtype, order)


def _places(names: tuple[str, ...], sizes: dict[str, int]) -> Iterator[dict[str, int]]:
    for at in product(*(range(sizes[a]) for a in names)):
        yield dict(zip(names, at, strict=True))


def _element(
    cells: dict[tuple[int, ...], Any],
    place: dict[str, int],
    names: tuple[str, ...],
    sizes: dict[str, int],
    plan: Any,
    kind: str,
    dtype: str,
    real: bool,
    fill: Any,
) -> tuple[Any, float]:
    n = place["b"]
    own, slack = cells[tuple((place | {"b": int(plan.base[n])})[a] for a in names)]
    axes = AXES[len(plan.shape)]
    for k in range(plan.partner.shape[1]):
        o, partner = float(plan.opacity[n, k]), int(plan.partner[n, k])
        box, donor = plan.box[n, k].tolist(), plan.donor[n, k].tolist()
        if o == 0 or not all(box[2 * r] <= place[a] < box[2 * r + 1] for r, a in enumerate(axes)):
            continue
        if partner >= 0:
            moved = {a: place[a] - box[2 * r] + donor[2 * r] for r, a in enumerate(axes)}
            other, off = cells[tuple((place | moved | {"b": partner})[a] for a in names)]
        elif kind == "continuous" or fill is not None:
            other, off = _painted(plan, -1 - partner, place, sizes, axes, fill), 0.0
            if not real:
                other = _whole(other, dtype)
        else:
            continue
        if kind == "valid":
            own, slack = max(own, other), max(slack, off)
        elif o == 1:
            own, slack = other, off
        elif real:
            slack = (1 - o) * slack + o * off + BLEND[dtype] * ((1 - o) * abs(own) + o * abs(other))
            own = (1 - o) * own + o * other
        else:
            q = round(o * 65536)
            own = ((65536 - q) * own + q * other + 32768) >> 16
    return own, slack


def _painted(
    plan: Any, i: int, place: dict[str, int], sizes: dict[str, int], axes: tuple[str, ...], fill: Any
) -> float:
    """What fill i puts at one place. Its noise counts places over carried axes by name, then over the axes of boxes."""
    channel = place.get("c", 0)
    if fill is not None:
        return float(np.float32(fill[channel] if isinstance(fill, tuple) else fill))
    entry = plan.fills[i]
    value = np.float32(entry.value[channel] if isinstance(entry.value, tuple) else entry.value)
    if entry.noise == "none":
        return float(value)
    position = 0
    if entry.noise == "pixel":
        for a in (*sorted(set(place) - {"b", "c"} - set(axes)), *axes):
            position = position * sizes[a] + place[a]
    return float(value + np.float32(entry.std) * normal(entry.key, np.array(channel), np.array(position))[()])


def _whole(value: float, dtype: str) -> Any:
    if dtype == "bool":
        return bool(value)
    limits = np.iinfo(dtype)
    return min(max(round(value), int(limits.min)), int(limits.max))


def _normalised(value: float, slack: float, to: Any, dtype: str, channel: int) -> tuple[float, float]:
    mean, std = (
        0.0 if v is None and name == "mean" else 1.0 if v is None else v[channel] if len(v) > 1 else v[0]
        for name, v in (("mean", to.mean), ("std", to.std))
    )
    unit = 255.0 if dtype == "uint8" else 1.0
    arithmetic = 2.0**-50 if to.dtype == "float64" and dtype == "float64" else 2.0**-22
    result = (value / unit - mean) / std
    if dtype != "uint8" and to.mean is None and to.std is None:
        return result, slack + (0.0 if FLOATS.index(to.dtype) <= FLOATS.index(dtype) else 2.0**-22 * abs(value))
    return result, slack / (unit * std) + arithmetic * (abs(value) / (unit * std) + abs(mean / std))
