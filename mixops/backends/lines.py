"""How the CPU kernels see an array: lines, the run along them, and where things lie in the result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import prod

import numpy as np

from ..layout import BOX_AXES


@dataclass(frozen=True)
class Geometry:
    """A sample as lines of one run each; see kernels.mix_units for the fields.

    Args:
        coords: (lines, R + 1) int64, coordinate on each box axis and the channel or -1.
        steps: (R, 2) int64, lines that one place along each box axis takes (0: the axis of the run), and its extent.
        places: (lines, 2) int64, noise position and byte offset in the result.
        axis: box axis of the run, or -1.
        extent: places along the run.
        inner: elements inside one place.
        post: elements inside one channel, where channels lie inside the run.
        step: noise positions one place along the run counts for.
        strides: byte strides in the result along the run and within a place.
        noise_fits: False where noise positions inside a place are not one number: the reference must paint it.
    """

    coords: np.ndarray
    steps: np.ndarray
    places: np.ndarray
    axis: int
    extent: int
    inner: int
    post: int
    step: int
    strides: tuple[int, int]
    noise_fits: bool


@lru_cache(maxsize=256)
def geometry(
    names: tuple[str, ...], shape: tuple[int, ...], rank: int, by_channel: bool, strides: tuple[int, ...]
) -> Geometry | None:
    """Lines of a dense sample.

    Args:
        names: its axes from the outermost to the innermost in memory, without "b".
        shape: their extents.
        rank: axes that boxes are measured on.
        by_channel: do channels matter (values or noise for each)?
        strides: byte stride of each axis in the result; empty if it lies as the input does.

    Returns:
        The geometry; None if the axes inside a place are not evenly spaced in the result.
    """
    axes = BOX_AXES[rank]
    extent = dict(zip(names, shape, strict=True))
    out_strides = dict(zip(names, strides, strict=False))
    run = max((i for i, n in enumerate(names) if n in axes), default=-1)
    if run < 0:
        run = max((i for i, n in enumerate(names) if n != "c" or not (by_channel or out_strides)), default=-1)
    lead, inside = names[: max(run, 0)], names[run + 1 :]
    along = (names[run],) if run >= 0 else ()
    if rank == 0 and not out_strides:
        # Whole rows: axes before the run join it, back to the channel where that matters.
        while lead and not (by_channel and lead[-1] == "c"):
            along, lead = (lead[-1], *along), lead[:-1]
        if not by_channel:
            along, inside = (*along, *inside), ()
    if not _even(inside, extent, out_strides):
        return None
    position = positions(names, extent, axes)
    grid = np.indices([extent[n] for n in lead]).reshape(len(lead), -1) if lead else np.zeros((0, 1), np.int64)
    lines = grid.shape[1]
    coords = np.zeros((lines, rank + 1), np.int64)
    coords[:, rank] = -1 if "c" in inside else 0
    places = np.zeros((lines, 2), np.int64)
    steps = np.array([(0, extent[a]) for a in axes], np.int64).reshape(rank, 2)
    for row, name in enumerate(lead):
        if name in axes:
            coords[:, axes.index(name)] = grid[row]
            steps[axes.index(name), 0] = prod(extent[n] for n in lead[row + 1 :])
        if name == "c":
            coords[:, rank] = grid[row]
        places[:, 0] += grid[row] * position.get(name, 0)
        places[:, 1] += grid[row] * out_strides.get(name, 0)
    last = along[-1] if along else ""
    return Geometry(
        coords,
        steps,
        places,
        axes.index(last) if last in axes else -1,
        prod(extent[n] for n in along),
        prod(extent[n] for n in inside),
        prod(extent[n] for n in inside[inside.index("c") + 1 :]) if "c" in inside else 1,
        position.get(last, 0),
        (out_strides.get(last, 0), out_strides.get(inside[-1], 0) if inside else 0),
        set(inside) <= {"c"} and len(along) <= 1,
    )


def _even(inside: tuple[str, ...], extent: dict[str, int], out_strides: dict[str, int]) -> bool:
    if not out_strides:
        return True
    return all(out_strides[outer] == out_strides[inner] * extent[inner] for outer, inner in pairwise(inside))


def positions(names: tuple[str, ...], extent: dict[str, int], axes: tuple[str, ...]) -> dict[str, int]:
    """What one place along each axis adds to a noise position: carried axes count before box axes."""
    order = (*sorted(n for n in names if n != "c" and n not in axes), *axes)
    step, positions = 1, {}
    for name in reversed(order):
        positions[name] = step
        step *= extent[name]
    return positions
