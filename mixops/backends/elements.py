"""What happens to single elements: fills and noise on the way in, normalising, casting and laying out on the way out."""

from __future__ import annotations

import numpy as np
from numba import carray, njit, types
from numba.extending import overload

from .vector import blend, half_bits, load_one, pointer, take_over


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
def fill_line(target, first, stop, fill, take, channel, place, step, inner, post, values, noise, work):
    """Paint elements first..stop of one line, ``target`` being where element ``first`` lies.

    ``channel`` is the line's, or -1 where channels lie inside the line: element e then has ``(e % inner) // post``.
    ``place`` is the noise position of the line's start and ``step`` what one place along its axis adds.
    """
    channels = values.shape[1]
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
        cell[0] = store(value, work)
        if take == 1:
            out[e - first] = cell[0]
        else:
            at = target + (e - first) * work.itemsize
            blend(at, at, cell.ctypes.data, 1, take, False, work, work)


@njit(nogil=True)
def finish_line(
    start, painted_at, count, inner, channel, post, scale, shift, strides, buffer, past_cache, work, like_out
):
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
                    piece[j] = store(painted[j * inner + i] * a + b, like_out)
            else:
                for j in range(count):
                    piece[j * hop] = store(painted[j * inner + i] * a + b, like_out)
        if past_cache and packed:
            take_over(at, buffer, count, True, like_out, like_out)


def _recast(value, like): ...


@overload(_recast)
def _recast_impl(value, like):
    if value == like.dtype:
        return lambda value, like: value
    return lambda value, like: store(load_one(value), like)
