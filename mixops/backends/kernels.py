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
from numba import njit
from numba.extending import overload

from ..disk_cache import kept_kernel
from .elements import fill_line, keep, store
from .raw import call_at, unowned
from .vector import blend, blend_both, fence, fetch, paint, send, swap, take_over

# A ``grid`` is (coords, steps, axis, inner), see mix_units; a ``cut`` is what one unit holds: (first line, one past the
# last, first element of each line, one past the last, elements a line).


@njit(nogil=True)
def _stretch(box, n, k, grid, line, last):
    """The next lines from ``line`` on that lie inside a box: the first and one past the last; (last, last) if none do."""
    coords, steps, _, _ = grid
    r = 0
    while r < len(steps):
        if line >= last:
            return last, last
        lines = steps[r, 0]  # lines that one place along axis r takes; 0 for the axis of the run
        if lines > 0:
            here, start, stop = coords[line, r], box[n, k, 2 * r], box[n, k, 2 * r + 1]
            if not start <= here < stop:
                if start >= stop:
                    return last, last
                ahead = start - here if here < start else steps[r, 1] - here + start
                line += ahead * lines - line % lines
                r = 0
                continue
        r += 1
    until, finest = last, 0
    for r in range(len(steps)):
        lines = steps[r, 0]
        if lines > 0 and (finest == 0 or lines < finest):
            finest = lines
            until = line + (box[n, k, 2 * r + 1] - coords[line, r]) * lines - line % lines
    return line, min(until, last)


@njit(nogil=True)
def _span(box, n, k, grid, cut):
    """The elements of each line of a unit that lie inside a box."""
    _, _, axis, inner = grid
    _, _, e0, e1, _ = cut
    if axis < 0:
        return e0, e1
    return max(e0, box[n, k, 2 * axis] * inner), min(e1, box[n, k, 2 * axis + 1] * inner)


@njit(nogil=True)
def _covers(box, n, k, grid, cut):
    """Does a box cover a whole unit, and every line of the sample?"""
    _, steps, _, _ = grid
    for r in range(len(steps)):
        if steps[r, 0] > 0 and (box[n, k, 2 * r] > 0 or box[n, k, 2 * r + 1] < steps[r, 1]):
            return False
    return _span(box, n, k, grid, cut) == (cut[2], cut[3])


@njit(nogil=True)
def _ahead(line, element, cut):
    """Elements from the start of a unit to an element of one of its lines."""
    first, _, e0, _, line_size = cut
    return (line - first) * line_size + element - e0


@njit(nogil=True)
def _fetch_boxes(own_at, there, n, k, box, grid, cut, size):
    """Ask for all that a pasted box will touch: its lines lie too far apart for the chip to see them coming."""
    a, b = _span(box, n, k, grid, cut)
    line, until = _stretch(box, n, k, grid, cut[0], cut[1])
    while a < b and line < until:
        for one in range(line, until):
            start = _ahead(one, a, cut) * size
            for byte in range(start, start + (b - a) * size, 64):
                fetch(own_at + byte, 1)
                fetch(there + byte, 0)
        line, until = _stretch(box, n, k, grid, until, cut[1])


@njit(nogil=True)
def _exchange(own_at, there, n, m, box, opacity, grid, cut, count, like):
    """Mix two rows that are each other's donor, in the same box, in one go."""
    take, other = opacity[n, 0], opacity[m, 0]
    if box is None:
        _exchange_run(own_at, there, count, take, other, like)
        return
    a, b = _span(box, n, 0, grid, cut)
    line, until = _stretch(box, n, 0, grid, cut[0], cut[1])
    while a < b and line < until:
        for one in range(line, until):
            start = _ahead(one, a, cut) * like.itemsize
            _exchange_run(own_at + start, there + start, b - a, take, other, like)
        line, until = _stretch(box, n, 0, grid, until, cut[1])


@njit(nogil=True)
def _exchange_run(one_at, other_at, count, take, other, like):
    if take == 1 and other == 1:
        swap(one_at, other_at, count, like)
    else:
        blend_both(one_at, other_at, count, take, other, like)


@njit(nogil=True)
def _save(saved, own_at, first_at, user, donor, box, opacity, grid, cut, count, like):
    """Keep what row ``user`` will read of this unit: only its boxes, for the rest need not come from memory at all."""
    for k in range(opacity.shape[1]):
        if opacity[user, k] == 0 or donor[user, k] == 0:
            continue
        if box is not None:
            if donor[user, k] == first_at:
                a, b = _span(box, user, k, grid, cut)
                line, until = _stretch(box, user, k, grid, cut[0], cut[1])
                while a < b and line < until:
                    for one in range(line, until):
                        start = _ahead(one, a, cut) * like.itemsize
                        take_over(saved + start, own_at + start, b - a, False, like, like)
                    line, until = _stretch(box, user, k, grid, until, cut[1])
                continue
        take_over(saved, own_at, count, False, like, like)


@njit(nogil=True)
def _tiles(values, run, room, work):
    """Each fill as a stretch of line where channels lie inside it; none if that would be long."""
    _, _, inner, post, _ = run
    fills, channels = values.shape
    length = room - room % inner if channels > 1 and fills * room <= 1 << 16 else 0
    tiles = np.empty((fills, length), work.dtype)
    for fill in range(fills):
        for e in range(length):
            tiles[fill, e] = store(values[fill, e % inner // post % channels], work)
    return tiles


@njit(nogil=True)
def _paint_lines(at, line, until, a, b, cut, fill, take, coords, places, run, values, tiles, noise, past, work):
    """Paint elements a..b of some lines of a unit."""
    _, _, inner, post, step = run
    channels, size = values.shape[1], work.itemsize
    for one in range(line, until):
        here = at + _ahead(one, a, cut) * size
        channel = coords[one, -1]
        if noise is None:
            if take == 1 and (channels == 1 or channel >= 0):
                paint(here, store(values[fill, channel if channels > 1 else 0], work), b - a, past, work)
                continue
            if take == 1 and tiles.shape[1] >= b - a:
                take_over(here, tiles.ctypes.data + fill * tiles.shape[1] * size, b - a, False, work, work)
                continue
        fill_line(here, a, b, fill, take, channel, places[one, 0], step, inner, post, values, noise, work)


@kept_kernel
def mix_units(
    like, work, own, target, donor, box, opacity, fill, values, noise, order, saves, reads, mates,
    coords, steps, run, places, finish, units, past_cache,
):  # fmt: skip
    """Mix visits lo..hi of every row. An argument that is None takes the code that would use it out of the kernel.

    Args:
        like, work: element types of the input and of the painted unit.
        own, target: (N,) addresses of each row's source and result.
        donor: (N, K) addresses, moved so that the donor of an element lies at the element's own offset; 0 for fills.
        box: (N, K, 2R), None where every patch covers its whole row.
        opacity, fill: (N, K); index of the fill.
        values: (F, C) fill values, None where nothing is painted. noise: None or (codes, std, keys, table).
        order: (N,) rows in the order of the walk.
        saves, reads: None unless in place; (N,) the row that reads this row's saved original, or -1; (N,) bool, this
            row's donor is the saved original.
        mates: None, or in place (N,) the row that this one exchanges with, -2 where that row does it, -1 for none.
        coords: (lines, R + 1) coordinate of each line on each box axis (0 for the axis of the run), and its channel or -1.
        steps: (R, 2) lines that one place along each box axis takes (0: the axis of the run), and its extent.
        run: box axis along a line (-1: none), its extent, elements inside one place, elements inside one channel, noise
            position step.
        places: (lines, 2) noise position of each line, and its byte offset in the result.
        finish: the address of a finisher (see tail), 0 where units go out as they are painted; bytes in the result from
            place to place; and the address of what the finisher is called with.
        units: lo, hi, lines a unit, elements a unit of a long line (0: whole lines), units a visit to a row. lo and hi
            count visits.
        past_cache: stream results to memory; in place, what is painted in one colour.
    """
    extent, inner = run[1], run[2]
    line_size, size = extent * inner, like.itemsize
    lines_a_unit, piece = units[2], units[3]
    room = lines_a_unit * line_size if piece == 0 else piece
    # One patch on whole rows goes straight to memory; anything else is painted in cache and then sent.
    streamed = past_cache
    if saves is not None:
        streamed = False
    direct = streamed and opacity.shape[1] == 1
    if box is not None:
        direct = False
    staged = streamed and not direct
    if finish[0] != 0:
        staged, direct = True, False
    # Whole cache lines, for an access across two costs double; and room for vectors that reach beyond the end.
    scratch = np.empty(room * work.itemsize + 2048 if staged else 0, np.uint8)
    stage = (scratch.ctypes.data + 63) & ~63
    saved = np.empty(room * size if saves is not None else 0, np.uint8)
    tiles = np.empty((0, 0), work.dtype) if values is None else _tiles(values, run, min(room, line_size), work)
    _walk(
        unowned(like), unowned(work), unowned(own), unowned(target), unowned(donor), unowned(box),
        unowned(opacity), unowned(fill), unowned(values), unowned(tiles), noise, unowned(order), unowned(saves),
        unowned(reads), unowned(mates), unowned(coords), unowned(steps), run, unowned(places), finish,
        units, streamed, stage if staged else 0, direct, saved.ctypes.data, past_cache and not streamed,
    )  # fmt: skip
    if past_cache:
        fence()
    keep(scratch)
    keep(saved)
    keep(tiles)


@njit(nogil=True)
def _walk(
    like, work, own, target, donor, box, opacity, fill, values, tiles, noise, order, saves, reads, mates,
    coords, steps, run, places, finish, units, past_cache, stage, direct, saved, fills_past,
):  # fmt: skip
    """The loop of mix_units, on arrays that it need not count owners of: that would cost more than the smaller units.

    Args:
        tiles: see _tiles, empty where nothing is painted.
        stage: address of memory to paint units in, 0 where they are painted in the result.
        direct: stream the one patch of each row.
        saved: address of memory for the saved original of a unit.
        fills_past: stream what is painted in one colour.
        (the others): those of mix_units.
    """
    axis, extent, inner, _, _ = run
    grid = (coords, steps, axis, inner)
    lo, hi, lines_a_unit, piece, visit = units
    line_size, size, patches = extent * inner, like.itemsize, opacity.shape[1]
    pieces = 1 if piece == 0 else (line_size + piece - 1) // piece
    staged = stage != 0
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
                cut = (first, last, e0, e1, line_size)
                own_at = own[n] + offset * size
                at = stage if staged else target[n] + offset * work.itemsize
                begun, coming = False, own_at
                if saves is not None:
                    begun = True
                    if mates is not None:
                        if mates[n] == -2:
                            continue
                    if box is not None:
                        for k in range(patches):
                            if opacity[n, k] > 0 and donor[n, k] != 0:  # the stores of a fill wait for nothing
                                _fetch_boxes(own_at, donor[n, k] + offset * size, n, k, box, grid, cut, size)
                    if mates is not None:
                        m = mates[n]
                        if m >= 0:
                            _exchange(own_at, own[m] + offset * size, n, m, box, opacity, grid, cut, count, like)
                            continue
                    if saves[n] >= 0:
                        first_at = own[n]
                        _save(saved, own_at, first_at, saves[n], donor, box, opacity, grid, cut, count, like)
                for k in range(patches):
                    take = opacity[n, k]
                    if take == 0:
                        continue
                    base = donor[n, k] + offset * size
                    if saves is not None:
                        if reads[n]:
                            base = saved + donor[n, k] - first_at
                    whole = donor[n, k] != 0
                    if box is not None:
                        whole = whole and _covers(box, n, k, grid, cut)
                    if whole:
                        coming = base  # the row itself was the donor of the one before: it is still in cache
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
                    a, b, line, until = e0, e1, first, last
                    if box is not None:
                        a, b = _span(box, n, k, grid, cut)
                        line, until = _stretch(box, n, k, grid, first, last)
                    while a < b and line < until:
                        if donor[n, k] != 0:
                            for one in range(line, until):
                                ahead = _ahead(one, a, cut)
                                here, there = at + ahead * work.itemsize, base + ahead * size
                                if take == 1:
                                    take_over(here, there, b - a, False, like, work)
                                else:
                                    _onto(here, there, b - a, take, like, work)
                        elif values is not None:
                            _paint_lines(
                                at, line, until, a, b, cut, fill[n, k], take, coords, places, run, values, tiles, noise,
                                fills_past, work,
                            )  # fmt: skip
                        line, until = until, last
                        if box is not None:
                            line, until = _stretch(box, n, k, grid, line, last)
                if saves is not None:
                    continue
                if not begun:
                    if finish[0] == 0:
                        take_over(target[n] + offset * size, own_at, count, past_cache, like, work)
                        continue
                    take_over(at, own_at, count, False, like, work)
                if finish[0] != 0:
                    # Nothing else is read while the results are on their way to memory.
                    for byte in range(count * size, 2 * count * size, 64):
                        fetch(coming + byte, 0)
                    line = first
                    while line < last:
                        # Lines of one channel that follow one another in the result too go out as one.
                        until = line + 1
                        while (
                            until < last
                            and coords[until, -1] == coords[line, -1]
                            and places[until, 1] - places[line, 1] == (until - line) * extent * finish[1]
                        ):
                            until += 1
                        start = target[n] + places[line, 1] + (e0 // inner) * finish[1]
                        painted = at + (line - first) * line_size * work.itemsize
                        count = (until - line - 1) * line_size + e1 - e0
                        call_at(finish[0], start, painted, count, coords[line, -1], finish[2])
                        line = until
                elif staged:
                    send(target[n] + offset * size, at, count, own_at + count * size, work)


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
