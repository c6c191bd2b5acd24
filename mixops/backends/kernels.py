"""The CPU kernels: serial loops over a range of work units, free of the interpreter's lock.

A sample is seen as *lines*: the last axis that boxes are measured on, with everything inside it, is contiguous; the
axes before it number the lines. A *unit* is a few lines (or a piece of a long one) that fit the first-level cache. For
one unit the kernels visit all rows along the partner map, so that a row that was just read as a donor is read again as
itself while it is still in cache; threads share out units, never rows, so that in-place mixing stays safe.

Element types are told apart by the dtype of an empty array ``like``: uint16 stands for bfloat16 bits, int16 for float16
bits, uint32 and uint64 for values that are only ever pasted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.extending import overload

from .vector import bits_of_float, copy_bytes, fence, float_of_bits, float_of_half, half_of_float, pointer, stream

#: Flags of a row on the walk: its original must be saved; its donor is the saved one.
SAVE, SAVED = 1, 2


def _load(value): ...
def _store(value, like): ...
def _mixed(own, donor, keep, take, q, work): ...
def _taken(value, work): ...


@overload(_load)
def _load_impl(value):
    if value == types.uint16:
        return lambda value: float_of_bits(np.uint32(np.uint32(value) << np.uint32(16)))
    if value == types.int16:
        return lambda value: float_of_half(value)
    if value == types.float64:
        return lambda value: value
    return lambda value: np.float32(value)


@overload(_store)
def _store_impl(value, like):
    kind = like.dtype
    if kind == types.uint16:

        def bfloat16(value, like):
            bits = bits_of_float(np.float32(value))
            even = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
            return np.uint16(quiet if (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000) else even)

        return bfloat16
    if kind == types.int16:
        return lambda value, like: half_of_float(np.float32(value))
    if kind == types.float64:
        return lambda value, like: np.float64(value)
    if kind == types.float32:
        return lambda value, like: np.float32(value)
    if kind == types.uint8:
        return lambda value, like: np.uint8(min(max(np.rint(value), np.float32(0)), np.float32(255)))
    # Ids: fills are whole numbers, kept exact in float32 up to 2**24 (checked before).
    return lambda value, like: kind_cast(value, like)


def kind_cast(value, like): ...


@overload(kind_cast)
def _kind_cast_impl(value, like):
    if like.dtype == types.uint32:
        return lambda value, like: np.uint32(np.int32(value))
    return lambda value, like: np.uint64(np.int64(value))


@overload(_taken)
def _taken_impl(value, work):
    if value == work.dtype:
        return lambda value, work: value
    return lambda value, work: _store(_load(value), work)


@overload(_mixed)
def _mixed_impl(own, donor, keep, take, q, work):
    if work.dtype == types.uint8:

        def integers(own, donor, keep, take, q, work):
            # own + q·(donor - own)/2¹⁶ with the same rounding as ((2¹⁶ - q)·own + q·donor + 2¹⁵) >> 16: one product.
            gap = np.int32(donor) - np.int32(own)
            return np.uint8(np.int32(own) + ((q * gap + np.int32(32768)) >> np.int32(16)))

        return integers
    if work.dtype == types.float64:

        def doubles(own, donor, keep, take, q, work):
            return (1.0 - np.float64(take)) * np.float64(_load(own)) + np.float64(take) * np.float64(_load(donor))

        return doubles
    if work.dtype in (types.float32, types.uint16, types.int16):
        return lambda own, donor, keep, take, q, work: _store(keep * _load(own) + take * _load(donor), work)
    return lambda own, donor, keep, take, q, work: donor


@njit(nogil=True, cache=True)
def walk(donor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order in which rows can be overwritten, and what each must save.

    Rows whose original nobody needs any more come first; what is left is cycles, each walked from row to donor with
    the first row's original saved for the last.

    Args:
        donor: (N,) the one row that each row reads besides itself.

    Returns:
        order (N,), flags (N,) with SAVE and SAVED.
    """
    n = len(donor)
    needed = np.zeros(n, np.int64)
    for i in range(n):
        if donor[i] != i:
            needed[donor[i]] += 1
    order, flags, done, at = np.empty(n, np.int64), np.zeros(n, np.uint8), np.zeros(n, np.bool_), 0
    for start in range(n):
        i = start
        while not done[i] and needed[i] == 0:
            done[i] = True
            order[at] = i
            at += 1
            j = donor[i]
            if j != i:
                needed[j] -= 1
                i = j
    for start in range(n):
        if done[start]:
            continue
        flags[start] |= SAVE
        i = start
        while True:
            done[i] = True
            order[at] = i
            at += 1
            if donor[i] == start:
                flags[i] |= SAVED
                break
            i = donor[i]
    return order, flags


@njit(nogil=True)
def _copy(target: int, source: int, count: int, like: np.ndarray, work: np.ndarray) -> None:
    out, one = carray(pointer(target), count, work.dtype), carray(pointer(source), count, like.dtype)
    for i in range(count):
        out[i] = _taken(one[i], work)


@njit(nogil=True)
def _blend(target: int, own: int, donor: int, count: int, take: float, like: np.ndarray, work: np.ndarray) -> None:
    out = carray(pointer(target), count, work.dtype)
    one, other = carray(pointer(own), count, like.dtype), carray(pointer(donor), count, like.dtype)
    keep, q = np.float32(1) - take, np.int32(np.rint(np.float64(take) * 65536))
    for i in range(count):
        out[i] = _mixed(one[i], other[i], keep, take, q, work)


@njit(nogil=True)
def _blend_onto(target: int, donor: int, count: int, take: float, like: np.ndarray, work: np.ndarray) -> None:
    # Its own function: with the target also passed as ``own`` the alias check would fall back to scalar code.
    out, other = carray(pointer(target), count, work.dtype), carray(pointer(donor), count, like.dtype)
    keep, q = np.float32(1) - take, np.int32(np.rint(np.float64(take) * 65536))
    for i in range(count):
        out[i] = _mixed(out[i], other[i], keep, take, q, work)


@njit(nogil=True)
def philox_word(position: int, channel: int, key: int) -> int:
    """The 32-bit word of (position, channel) under a 64-bit key: noise.philox, one number at a time."""
    x0, x1, x2, x3 = np.uint64(position >> 2), np.uint64(channel), np.uint64(0), np.uint64(0)
    k0, k1, low = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> np.uint64(32)), np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = x0 * np.uint64(0xD2511F53), x2 * np.uint64(0xCD9E8D57)
        x0, x1, x2, x3 = (p1 >> np.uint64(32)) ^ x1 ^ k0, p1 & low, (p0 >> np.uint64(32)) ^ x3 ^ k1, p0 & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    lane = position & 3
    return x0 if lane == 0 else x1 if lane == 1 else x2 if lane == 2 else x3


@njit(nogil=True)
def _noise(position: int, channel: int, key: int, table: np.ndarray) -> float:
    word = philox_word(position, channel, key)
    return (table[word & np.uint64(4095)] + table[(word >> np.uint64(12)) & np.uint64(4095)]) * np.float32(0.5**0.5)


@njit(nogil=True)
def _fill(
    target: int,
    first: int,
    stop: int,
    fill: int,
    take: float,
    channel: int,
    place: int,
    step: int,
    inner: int,
    post: int,
    values: np.ndarray,
    noise: Any,
    work: np.ndarray,
) -> None:
    """Paint elements first..stop of one line, ``target`` being where element ``first`` lies.

    ``channel`` is the line's, or -1 where channels lie inside the line: element e then has ``(e % inner) // post``.
    ``place`` is the noise position of the line's start and ``step`` what one place along its axis adds.
    """
    out = carray(pointer(target), stop - first, work.dtype)
    channels = values.shape[1]
    if noise is None and take == 1 and (channels == 1 or channel >= 0):
        one = _store(values[fill, channel if channels > 1 else 0], work)
        for e in range(stop - first):
            out[e] = one
        return
    keep, q = np.float32(1) - take, np.int32(np.rint(np.float64(take) * 65536))
    for e in range(first, stop):
        c = channel if channel >= 0 else (e % inner) // post
        value = values[fill, c % channels]
        if noise is not None:
            codes, std, keys, table = noise
            if codes[fill] == 1:
                value += std[fill] * _noise(0, c, keys[fill], table)
            elif codes[fill] == 2:
                value += std[fill] * _noise(place + (e // inner) * step, c, keys[fill], table)
        painted = _store(value, work)
        out[e - first] = painted if take == 1 else _mixed(out[e - first], painted, keep, take, q, work)


@njit(nogil=True)
def _finish(
    start: int,
    painted_at: int,
    count: int,
    inner: int,
    channel: int,
    post: int,
    scale: Any,
    shift: Any,
    strides: tuple[int, int],
    buffer: int,
    past_cache: bool,
    work: np.ndarray,
    like_out: np.ndarray,
) -> None:
    """Normalise, cast and lay out ``count`` places of one painted line; ``start`` is where the first of them goes."""
    painted = carray(pointer(painted_at), count * inner, work.dtype)
    along, within = strides
    size = like_out.itemsize
    for i in range(inner):
        at = start + i * within
        packed = along == size
        hop = 1 if packed else along // size
        piece = carray(pointer(buffer if past_cache and packed else at), (count - 1) * hop + 1, like_out.dtype)
        if scale is None:
            if packed:
                for j in range(count):
                    piece[j] = _taken(painted[j * inner + i], like_out)
            else:
                for j in range(count):
                    piece[j * hop] = _taken(painted[j * inner + i], like_out)
        else:
            c = (channel if channel >= 0 else i // post) % len(scale)
            a, b = scale[c], shift[c]
            if packed:
                for j in range(count):
                    piece[j] = _store(_load(painted[j * inner + i]) * a + b, like_out)
            else:
                for j in range(count):
                    piece[j * hop] = _store(_load(painted[j * inner + i]) * a + b, like_out)
        if past_cache and packed:
            stream(at, buffer, count * size)


@njit(nogil=True, cache=True)
def mix_units(
    like: np.ndarray,
    work: np.ndarray,
    like_out: Any,
    own: np.ndarray,
    target: np.ndarray,
    in_place: bool,
    donor: np.ndarray,
    box: np.ndarray,
    full: np.ndarray,
    opacity: np.ndarray,
    fill: np.ndarray,
    values: np.ndarray,
    noise: Any,
    order: np.ndarray,
    flags: np.ndarray,
    coords: np.ndarray,
    run: tuple[int, int, int, int, int],
    places: np.ndarray,
    scale: Any,
    shift: Any,
    strides: tuple[int, int],
    units: tuple[int, int, int, int],
    past_cache: bool,
) -> None:
    """Mix units lo..hi of every row.

    Args:
        like: element type of the input; ``work``: of the painted unit; ``like_out``: of the output, None for ``work``.
        own, target: (N,) addresses of each row's source and result.
        donor: (N, K) addresses, moved so that the donor of an element lies at the element's own offset; 0 for fills.
        box, full, opacity, fill: (N, K, 2R), does the box cover everything, (N, K), index of the fill.
        values, noise: (F, C) fill values; None or (codes, std, keys, table).
        order, flags: from ``walk``.
        coords: (lines, R + 1) coordinate of each line on each box axis (0 for the axis of the run), and its channel or -1.
        run: box axis along a line (-1: none), its extent, elements inside one place, elements inside one channel, noise
            position step.
        places: (lines, 2) noise position of each line, and its byte offset in the result.
        scale, shift: None, or (1,) or (C,): out = v·scale + shift.
        strides: bytes in the result from place to place along the run, and within a place.
        units: lo, hi, lines a unit, elements a unit of a long line (0: whole lines).
        past_cache: stream results to memory.
    """
    axis, extent, inner, post, step = run
    lo, hi, lines_a_unit, piece = units
    line_size = extent * inner
    lines, pieces = len(coords), 1 if piece == 0 else (line_size + piece - 1) // piece
    room = lines_a_unit * line_size if piece == 0 else piece
    staged = past_cache or like_out is not None
    scratch = np.empty(room * work.itemsize if staged else 0, np.uint8)
    saved = np.empty(room * like.itemsize if in_place else 0, np.uint8)
    buffer = np.empty(room * 8 if like_out is not None else 0, np.uint8)
    rank = box.shape[2] // 2
    patches = opacity.shape[1]
    first_at = 0
    for unit in range(lo, hi):
        first_line = (unit // pieces) * lines_a_unit
        last_line = min(first_line + lines_a_unit, lines)
        e0 = (unit % pieces) * piece
        e1 = line_size if piece == 0 else min(e0 + piece, line_size)
        offset = first_line * line_size + e0
        count = (last_line - first_line - 1) * line_size + e1 - e0
        for n in order:
            own_at = own[n] + offset * like.itemsize
            if flags[n] & SAVE:
                first_at = own[n]
                copy_bytes(saved.ctypes.data, own_at, count * like.itemsize)
            at = scratch.ctypes.data if staged else target[n] + offset * work.itemsize
            begun = in_place
            for k in range(patches):
                take = opacity[n, k]
                if take == 0:
                    continue
                base = donor[n, k] + offset * like.itemsize
                if flags[n] & SAVED:
                    base = saved.ctypes.data + donor[n, k] - first_at
                if full[n, k] and donor[n, k] != 0:
                    if take == 1:
                        _copy(at, base, count, like, work)
                    elif begun:
                        _blend_onto(at, base, count, take, like, work)
                    else:
                        _blend(at, own_at, base, count, take, like, work)
                    begun = True
                    continue
                if not begun:
                    _copy(at, own_at, count, like, work)
                    begun = True
                a, b = e0, e1
                if axis >= 0:
                    a, b = max(e0, box[n, k, 2 * axis] * inner), min(e1, box[n, k, 2 * axis + 1] * inner)
                if a >= b:
                    continue
                for line in range(first_line, last_line):
                    inside = True
                    for r in range(rank):
                        if r != axis and not box[n, k, 2 * r] <= coords[line, r] < box[n, k, 2 * r + 1]:
                            inside = False
                            break
                    if not inside:
                        continue
                    ahead = (line - first_line) * line_size + a - e0
                    here = at + ahead * work.itemsize
                    if donor[n, k] == 0:
                        _fill(
                            here,
                            a,
                            b,
                            fill[n, k],
                            take,
                            coords[line, rank],
                            places[line, 0],
                            step,
                            inner,
                            post,
                            values,
                            noise,
                            work,
                        )
                    elif take == 1:
                        _copy(here, base + ahead * like.itemsize, b - a, like, work)
                    else:
                        _blend_onto(here, base + ahead * like.itemsize, b - a, take, like, work)
            if not begun:
                if like_out is None and past_cache:
                    at = own_at
                else:
                    _copy(at, own_at, count, like, work)
            if like_out is not None:
                for line in range(first_line, last_line):
                    start = target[n] + places[line, 1] + (e0 // inner) * strides[0]
                    painted_at = at + (line - first_line) * line_size * work.itemsize
                    _finish(
                        start,
                        painted_at,
                        (e1 - e0) // inner,
                        inner,
                        coords[line, rank],
                        post,
                        scale,
                        shift,
                        strides,
                        buffer.ctypes.data,
                        past_cache,
                        work,
                        like_out,
                    )
            elif past_cache:
                stream(target[n] + offset * work.itemsize, at, count * work.itemsize)
    if past_cache:
        fence()
