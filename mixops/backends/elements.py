"""Single elements: how a number is stored, and what fills and noise paint."""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import overload

from ..noise import M0, M1, SCALE, TABLE_BITS, W0, W1
from .vector import blend, half_bits, take_over


def store(value, like): ...


@overload(store)
def store_impl(value, like):
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
def philox_block(block, channel, key):
    """The four 32-bit words of a block: noise.philox, one block at a time."""
    x0, x1, x2, x3 = np.uint64(block), np.uint64(channel), np.uint64(0), np.uint64(0)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    k0, k1 = np.uint64(key) & low, np.uint64(key) >> half
    for _ in range(10):
        p0, p1 = x0 * np.uint64(M0), x2 * np.uint64(M1)
        x0, x1, x2, x3 = (p1 >> half) ^ x1 ^ k0, p1 & low, (p0 >> half) ^ x3 ^ k1, p0 & low
        k0, k1 = (k0 + np.uint64(W0)) & low, (k1 + np.uint64(W1)) & low
    return x0, x1, x2, x3


@njit(nogil=True)
def _normal(word, table):
    low = np.uint64((1 << TABLE_BITS) - 1)
    pieces = np.int64(word & low), np.int64((word >> np.uint64(TABLE_BITS)) & low)
    return (table[pieces[0]] + table[pieces[1]]) * SCALE


@njit(nogil=True)
def _normals(out, place, step, count, channel, key, table):
    """Normal numbers for ``count`` positions from ``place`` on; they start at the index that comes back."""
    if step == 1:
        first, last = place >> 2, (place + count + 3) >> 2
        for block in range(first, last):
            a, b, c, d = philox_block(block, channel, key)
            at = (block - first) * 4
            out[at], out[at + 1] = _normal(a, table), _normal(b, table)
            out[at + 2], out[at + 3] = _normal(c, table), _normal(d, table)
        return place & 3
    for i in range(count):
        position = place + i * step
        a, b, c, d = philox_block(position >> 2, channel, key)
        lane = position & 3
        out[i] = _normal(a if lane == 0 else b if lane == 1 else c if lane == 2 else d, table)
    return 0


@njit(nogil=True)
def fill_line(target, first, stop, fill, take, channel, place, step, inner, post, values, noise, work):
    """Paint elements first..stop of one line, ``target`` being where element ``first`` lies.

    ``channel`` is the line's, or -1 where channels lie inside the line: element e then has ``(e % inner) // post``.
    ``place`` is the noise position of the line's start and ``step`` what one place along its axis adds.
    """
    channels, start = values.shape[1], first // inner
    count = (stop - 1) // inner + 1 - start
    numbers = np.zeros(count + 8, np.float32)
    fresh = np.empty(stop - first, work.dtype)
    for i in range(inner):
        c = channel if channel >= 0 else i // post
        value, skip, spread = values[fill, c % channels], 0, np.float32(0)
        if noise is not None:
            codes, std, keys, table = noise
            if codes[fill] == 1:
                word = philox_block(0, c, keys[fill])[0]
                value += std[fill] * _normal(word, table)
            elif codes[fill] == 2:
                skip, spread = _normals(numbers, place + start * step, step, count, c, keys[fill], table), std[fill]
        for j in range(count):
            e = (start + j) * inner + i
            if first <= e < stop:
                fresh[e - first] = store(value + spread * numbers[skip + j], work)
    if take == 1:
        take_over(target, fresh.ctypes.data, stop - first, False, work, work)
    else:
        blend(target, target, fresh.ctypes.data, stop - first, take, False, work, work)
    keep(fresh)


@njit(nogil=True)
def keep(array):
    """Hold an array that is only known by its address until here."""
    return len(array)
