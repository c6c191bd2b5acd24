"""Boxes: how large a patch is, where it lies, and how its edges fall on whole pixels.

Libraries round the sides of a CutMix box differently; each rule is a name here.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..errors import MixTypeError, MixValueError
from ..spec import plain_array
from .base import spread

EDGES = ("clip", "inside")


def interleaved(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """(..., R) starts and stops → (..., 2R) boxes: start, stop, start, stop."""
    box = np.empty((*start.shape[:-1], 2 * start.shape[-1]), np.result_type(start, stop))
    box[..., 0::2], box[..., 1::2] = start, stop
    return box


def area(box: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(..., 2R) → (...): the share of ``shape`` that each box covers."""
    return (box[..., 1::2] - box[..., 0::2]).prod(-1) / float(prod(shape))


def placed(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    size: np.ndarray,
    edge: str,
    at: Any = None,
    unit: np.ndarray | None = None,
) -> np.ndarray:
    """Lay boxes of a size at a random place.

    Args:
        rng: drawn from unless ``at`` is given: one whole number for each box and axis.
        shape: R extents.
        size: (..., R) whole numbers, the sides.
        edge: "clip": the centre is any pixel and what hangs over is cut off. "inside": every box lies within, each
            place as likely as any other.
        at: (..., R) the centre ("clip") or the first corner ("inside") in place of a draw; each box its own.
        unit: (n,) the unit of each row: rows of one unit share the place that is drawn. None: each row its own.

    Returns:
        (..., 2R) boxes. A side of 2m + 1 reaches m before its centre and m + 1 from it on: it keeps its length.
    """
    extent = np.array(shape)
    if at is None:
        place = drawn_places(rng, shape, extent - size if edge == "inside" else None, size.shape)
        place = place if unit is None else spread(place, unit)
    else:
        place = given_place(at, size.shape)
    if edge == "inside":
        start = np.minimum(np.maximum(place, 0), extent - size)
        return interleaved(start, start + size)
    start = place - size // 2
    box = interleaved(start, start + size)
    np.maximum(box, 0, out=box)
    return np.minimum(box, extent.repeat(2), out=box)


def drawn_places(
    rng: np.random.Generator, shape: tuple[int, ...], room: np.ndarray | None, size: tuple[int, ...]
) -> np.ndarray:
    """Whole numbers (..., R) from 0 up to ``room``, both included; without it any pixel of ``shape``."""
    if room is not None:
        return rng.integers(0, room + 1, size)
    # A bound for all axes draws the same numbers as one for each, in a fraction of the time.
    return rng.integers(0, shape[0] if len(set(shape)) == 1 else np.array(shape), size)


def one_place(
    rng: np.random.Generator, shape: tuple[int, ...], sides: tuple[int, ...], edge: str, n: int
) -> tuple[int, ...]:
    """The box that ``placed`` lays for a unit of all n rows: the same numbers drawn, the first of them used."""
    room = None if edge == "clip" else np.array(shape) - sides
    place = drawn_places(rng, shape, room, (n, len(shape)))[0].tolist()
    box: list[int] = []
    for start, side, extent in zip(place, sides, shape, strict=True):
        first = start - side // 2 if edge == "clip" else start
        box += min(max(first, 0), extent), min(max(first + side, 0), extent)
    return tuple(box)


def given_place(at: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Centres or corners that a user gave, spread over the boxes."""
    place = plain_array("at", at)
    if place.dtype.kind not in "iu":
        raise MixTypeError(f"at: got {place.dtype}, expected whole pixel positions")
    try:
        return np.broadcast_to(place, shape)
    except ValueError:
        raise MixValueError(f"at has shape {place.shape}: expected {shape} or one that spreads to it") from None


def given_boxes(box: Any, n: int, shape: tuple[int, ...]) -> np.ndarray:
    """(n, 2R) boxes that a user gave: one for all rows or one each, checked."""
    array = plain_array("box", box)
    if array.dtype.kind not in "iu" or array.shape not in ((2 * len(shape),), (n, 2 * len(shape))):
        raise MixValueError(
            f"box: got {array.dtype} of shape {array.shape}, expected integers (start, stop of each axis) of shape "
            f"({2 * len(shape)},) or ({n}, {2 * len(shape)})"
        )
    array = np.broadcast_to(array, (n, 2 * len(shape)))
    start, stop = array[:, 0::2], array[:, 1::2]
    if not ((start >= 0) & (start <= stop) & (stop <= np.array(shape))).all():
        raise MixValueError(f"box outside {shape}, or its stop before its start: expected 0 <= start <= stop <= extent")
    return array
