"""The CPU kernels: serial loops over a range of work units, free of the interpreter's lock.

A sample is seen as *lines*: the last axis that boxes are measured on, with everything inside it, is contiguous; the
axes before it number the lines. A *unit* is a few lines (or a piece of a long one) that fit the first-level cache. For
one unit the kernels visit all rows along the partner map, so that a row that was just read as a donor is read again as
itself while it is still in cache; threads share out units, never rows, so that in-place mixing stays safe.

Element types are told apart by the dtype of an empty array ``like``: uint16 stands for bfloat16 bits, int16 for float16
bits, uint32 and uint64 for values that are only ever pasted.
"""

from __future__ import annotations

import numpy as np
from numba import carray, njit, types
from numba.extending import overload

from .vector import blend, fence, fetch, half_bits, load_one, paint, pointer, send, take_over


def _store(value, like): ...


@overload(_store)
def _store_impl(value, like):
    """A float as an element of the type of ``like``."""
    kind = like.dtype
    if kind in (types.uint16, types.int16):
        return lambda value, like: half_bits(np.float32(value), like)
    if kind == types.uint8:
        return lambda value, like: np.uint8(min(max(np.rint(value), np.float32(0)), np.float32(255)))
    if kind == types.float64:
        return lambda value, like: np.float64(value)
    if kind == types.float32:
        return lambda value, like: np.float32(value)
    # Ids: fills are whole numbers that float32 holds exactly.
    if kind == types.uint32:
        return lambda value, like: np.uint32(np.int32(value))
    return lambda value, like: np.uint64(np.int64(value))


@njit(nogil=True)
def philox_word(position, channel, key):
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
def _noise(position, channel, key, table):
    word = philox_word(position, channel, key)
    return (table[word & np.uint64(4095)] + table[(word >> np.uint64(12)) & np.uint64(4095)]) * np.float32(0.5**0.5)


@njit(nogil=True)
def _fill(target, first, stop, fill, take, channel, place, step, inner, post, values, noise, work):
    """Paint elements first..stop of one line, ``target`` being where element ``first`` lies.

    ``channel`` is the line's, or -1 where channels lie inside the line: element e then has ``(e % inner) // post``.
    ``place`` is the noise position of the line's start and ``step`` what one place along its axis adds.
    """
    channels = values.shape[1]
    if noise is None and take == 1 and (channels == 1 or channel >= 0):
        paint(target, _store(values[fill, channel if channels > 1 else 0], work), stop - first, work)
        return
    out = carray(pointer(target), stop - first, work.dtype)
    cell = np.empty(1, work.dtype)
    for e in range(first, stop):
        c = channel if channel >= 0 else (e % inner) // post
        value = values[fill, c % channels]
        if noise is not None:
            codes, std, keys, table = noise
            if codes[fill] == 1:
                value += std[fill] * _noise(0, c, keys[fill], table)
            elif codes[fill] == 2:
                value += std[fill] * _noise(place + (e // inner) * step, c, keys[fill], table)
        cell[0] = _store(value, work)
        if take == 1:
            out[e - first] = cell[0]
        else:
            at = target + (e - first) * work.itemsize
            blend(at, at, cell.ctypes.data, 1, take, False, work, work)


@njit(nogil=True)
def _finish(start, painted_at, count, inner, channel, post, scale, shift, strides, buffer, past_cache, work, like_out):
    """Normalise, cast and lay out ``count`` places of one painted line; ``start`` is where the first of them goes."""
    painted = carray(pointer(painted_at), count * inner, work.dtype)
    along, within = strides
    size = like_out.itemsize
    packed = along == size
    hop = 1 if packed else along // size
    for i in range(inner):
        at = start + i * within
        piece = carray(pointer(buffer if past_cache and packed else at), (count - 1) * hop + 1, like_out.dtype)
        if scale is None:
            for j in range(count):
                piece[j * hop] = _recast(painted[j * inner + i], like_out)
        else:
            c = (channel if channel >= 0 else i // post) % len(scale)
            a, b = scale[c], shift[c]
            if packed:
                for j in range(count):
                    piece[j] = _store(painted[j * inner + i] * a + b, like_out)
            else:
                for j in range(count):
                    piece[j * hop] = _store(painted[j * inner + i] * a + b, like_out)
        if past_cache and packed:
            take_over(at, buffer, count, True, like_out, like_out)


def _recast(value, like): ...


@overload(_recast)
def _recast_impl(value, like):
    if value == like.dtype:
        return lambda value, like: value
    return lambda value, like: _store(load_one(value), like)


@njit(nogil=True)
def _keep(array):
    """Hold an array that is only known by its address until here."""
    return len(array)


@njit(nogil=True)
def _next_inside(box, n, k, coords, steps, line, last):
    """The next line from ``line`` on that lies inside a box; ``last`` if there is none."""
    r = 0
    while r < len(steps):
        if line >= last:
            return last
        lines = steps[r, 0]  # lines that one place along axis r takes; 0 for the axis of the run
        if lines > 0:
            here, start, stop = coords[line, r], box[n, k, 2 * r], box[n, k, 2 * r + 1]
            if not start <= here < stop:
                if start >= stop:
                    return last
                ahead = start - here if here < start else steps[r, 1] - here + start
                line += ahead * lines - line % lines
                r = 0
                continue
        r += 1
    return line


@njit(nogil=True)
def _span(box, n, k, axis, inner, e0, e1):
    """The elements of a line's piece e0..e1 that lie inside a box."""
    if axis < 0:
        return e0, e1
    return max(e0, box[n, k, 2 * axis] * inner), min(e1, box[n, k, 2 * axis + 1] * inner)


@njit(nogil=True)
def _covers(box, n, k, steps, axis, inner, e0, e1):
    """Does a box cover every line, from e0 to e1?"""
    for r in range(len(steps)):
        if steps[r, 0] > 0 and (box[n, k, 2 * r] > 0 or box[n, k, 2 * r + 1] < steps[r, 1]):
            return False
    return _span(box, n, k, axis, inner, e0, e1) == (e0, e1)


@njit(nogil=True)
def _fetch_boxes(
    own_at, first_at, n, donor, box, opacity, coords, steps, axis, inner, first, last, e0, e1, offset, line_size, size
):
    """Ask for all that boxes of this unit will touch: they lie too far apart for the chip to see them coming."""
    for k in range(opacity.shape[1]):
        if opacity[n, k] == 0 or donor[n, k] == 0:
            continue  # stores wait for nothing
        a, b = _span(box, n, k, axis, inner, e0, e1)
        line = first
        while a < b:
            line = _next_inside(box, n, k, coords, steps, line, last)
            if line >= last:
                break
            ahead = ((line - first) * line_size + a - e0) * size
            for byte in range(ahead, ahead + (b - a) * size, 64):
                fetch(own_at + byte, 1)
            there = donor[n, k] + offset * size
            for byte in range(ahead, ahead + (b - a) * size, 64):
                fetch(there + byte, 0)
            line += 1


@njit(nogil=True, cache=True)
def mix_units(
    like, work, like_out, own, target, donor, box, opacity, fill, values, noise, order, saves, reads,
    coords, steps, run, places, scale, shift, strides, units, past_cache,
):  # fmt: skip
    """Mix visits lo..hi of every row. An argument that is None takes the code that would use it out of the kernel.

    Args:
        like: element type of the input; ``work``: of the painted unit; ``like_out``: of the result, None for ``work``.
        own, target: (N,) addresses of each row's source and result.
        donor: (N, K) addresses, moved so that the donor of an element lies at the element's own offset; 0 for fills.
        box: (N, K, 2R), None where every patch covers its whole row.
        opacity, fill: (N, K); index of the fill.
        values: (F, C) fill values, None where nothing is painted. noise: None or (codes, std, keys, table).
        order: (N,) rows in the order of the walk.
        saves, reads: None unless in place; (N,) the row that reads this row's saved original, or -1; (N,) bool, this
            row's donor is the saved original.
        coords: (lines, R + 1) coordinate of each line on each box axis (0 for the axis of the run), and its channel or -1.
        steps: (R, 2) lines that one place along each box axis takes (0: the axis of the run), and its extent.
        run: box axis along a line (-1: none), its extent, elements inside one place, elements inside one channel, noise
            position step.
        places: (lines, 2) noise position of each line, and its byte offset in the result.
        scale, shift: None, or (1,) or (C,): out = v·scale + shift.
        strides: bytes in the result from place to place along the run, and within a place.
        units: lo, hi, lines a unit, elements a unit of a long line (0: whole lines), units a visit to a row. lo and hi
            count visits.
        past_cache: stream results to memory.
    """
    axis, extent, inner, post, step = run
    lo, hi, lines_a_unit, piece, visit = units
    line_size, size, patches = extent * inner, like.itemsize, opacity.shape[1]
    pieces = 1 if piece == 0 else (line_size + piece - 1) // piece
    room = lines_a_unit * line_size if piece == 0 else piece
    # One patch on whole rows goes straight to memory; anything else is painted in cache and then sent.
    direct = past_cache and patches == 1
    if box is not None:
        direct = False
    staged = past_cache and not direct
    if like_out is not None:
        staged = True
    scratch = np.empty(room * work.itemsize + 64 if staged else 0, np.uint8)
    stage = (scratch.ctypes.data + 63) & ~63  # whole cache lines: an access across two costs double
    buffer = np.empty(room * 8 if like_out is not None else 0, np.uint8)
    saved = np.empty(room * size if saves is not None else 0, np.uint8)
    first_at = 0
    total = -(-len(coords) // lines_a_unit) * pieces
    # Saved originals are kept for one unit: in place a visit is one unit.
    for turn in range(lo, hi):
        for n in order:
            for unit in range(turn * visit, min((turn + 1) * visit, total)):
                first = (unit // pieces) * lines_a_unit
                last = min(first + lines_a_unit, len(coords))
                e0 = (unit % pieces) * piece
                e1 = line_size if piece == 0 else min(e0 + piece, line_size)
                offset = first * line_size + e0
                count = (last - first - 1) * line_size + e1 - e0
                own_at = own[n] + offset * size
                at = stage if staged else target[n] + offset * work.itemsize
                begun = False
                if saves is not None:
                    begun = True
                    if box is not None:
                        _fetch_boxes(
                            own_at,
                            first_at,
                            n,
                            donor,
                            box,
                            opacity,
                            coords,
                            steps,
                            axis,
                            inner,
                            first,
                            last,
                            e0,
                            e1,
                            offset,
                            line_size,
                            size,
                        )
                    if saves[n] >= 0:
                        first_at = own[n]
                        _save(
                            saved.ctypes.data,
                            own_at,
                            first_at,
                            saves[n],
                            donor,
                            box,
                            opacity,
                            coords,
                            steps,
                            axis,
                            inner,
                            first,
                            last,
                            e0,
                            e1,
                            count,
                            line_size,
                            like,
                        )
                for k in range(patches):
                    take = opacity[n, k]
                    if take == 0:
                        continue
                    base = donor[n, k] + offset * size
                    if saves is not None:
                        if reads[n]:
                            base = saved.ctypes.data + donor[n, k] - first_at
                    whole = donor[n, k] != 0
                    if box is not None:
                        whole = whole and _covers(box, n, k, steps, axis, inner, e0, e1)
                    if whole:
                        if take == 1:
                            take_over(at, base, count, direct, like, work)
                        elif begun:
                            _onto(at, base, count, take, like, work)
                        else:
                            blend(at, own_at, base, count, take, direct, like, work)
                        begun = True
                        continue
                    if not begun:
                        take_over(at, own_at, count, False, like, work)
                        begun = True
                    a, b, line = e0, e1, first
                    if box is not None:
                        a, b = _span(box, n, k, axis, inner, e0, e1)
                    while a < b:
                        if box is not None:
                            line = _next_inside(box, n, k, coords, steps, line, last)
                        if line >= last:
                            break
                        ahead = (line - first) * line_size + a - e0
                        here, there = at + ahead * work.itemsize, base + ahead * size
                        painted = False
                        if values is not None:
                            if donor[n, k] == 0:
                                _fill(
                                    here,
                                    a,
                                    b,
                                    fill[n, k],
                                    take,
                                    coords[line, -1],
                                    places[line, 0],
                                    step,
                                    inner,
                                    post,
                                    values,
                                    noise,
                                    work,
                                )
                                painted = True
                        if not painted:
                            if take == 1:
                                take_over(here, there, b - a, False, like, work)
                            else:
                                _onto(here, there, b - a, take, like, work)
                        line += 1
                if saves is not None:
                    continue
                if not begun:
                    if like_out is None:
                        take_over(target[n] + offset * size, own_at, count, past_cache, like, work)
                        continue
                    take_over(at, own_at, count, False, like, work)
                if like_out is not None:
                    for line in range(first, last):
                        start = target[n] + places[line, 1] + (e0 // inner) * strides[0]
                        painted_at = at + (line - first) * line_size * work.itemsize
                        _finish(
                            start,
                            painted_at,
                            (e1 - e0) // inner,
                            inner,
                            coords[line, -1],
                            post,
                            scale,
                            shift,
                            strides,
                            buffer.ctypes.data,
                            past_cache,
                            work,
                            like_out,
                        )
                elif staged:
                    send(target[n] + offset * size, at, count, own_at + count * size, work)
    if past_cache:
        fence()
    _keep(scratch)


@njit(nogil=True)
def _save(
    saved,
    own_at,
    first_at,
    user,
    donor,
    box,
    opacity,
    coords,
    steps,
    axis,
    inner,
    first,
    last,
    e0,
    e1,
    count,
    line_size,
    like,
):
    """Keep what row ``user`` will read of this unit: only its boxes, for the rest need not come from memory at all."""
    size = like.itemsize
    for k in range(opacity.shape[1]):
        if opacity[user, k] == 0 or donor[user, k] == 0:
            continue
        if box is not None:
            if donor[user, k] == first_at:
                a, b = _span(box, user, k, axis, inner, e0, e1)
                line = first
                while a < b:
                    line = _next_inside(box, user, k, coords, steps, line, last)
                    if line >= last:
                        break
                    ahead = ((line - first) * line_size + a - e0) * size
                    take_over(saved + ahead, own_at + ahead, b - a, False, like, like)
                    line += 1
                continue
        take_over(saved, own_at, count, False, like, like)


def _onto(target, donor, count, take, like, work): ...


@overload(_onto)
def _onto_impl(target, donor, count, take, like, work):
    """Blend a donor of the input's type onto what has been painted."""
    if like.dtype == work.dtype:
        return lambda target, donor, count, take, like, work: blend(
            target, target, donor, count, take, False, like, work
        )

    def widened(target, donor, count, take, like, work):
        # The painted unit is wider than the input: donors are widened a little at a time.
        room = np.empty(256, work.dtype)
        for start in range(0, count, 256):
            some = min(256, count - start)
            take_over(room.ctypes.data, donor + start * like.itemsize, some, False, like, work)
            at = target + start * work.itemsize
            blend(at, at, room.ctypes.data, some, take, False, work, work)

    return widened
