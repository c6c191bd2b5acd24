"""Counter-based noise that every backend computes to the same bits: Philox4x32-10 and a table of quantiles.

One 32-bit word makes one normal number: two 12-bit pieces of it look up standard normal quantiles, and their sum over
√2 is normal to about 1e-3 in distribution. Integers, one float32 addition and one multiplication: nothing that
compilers or chips round differently, as they do logarithms and cosines.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

TABLE_BITS = 12
SCALE = np.float32(0.5**0.5)
M0, M1, W0, W1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)


def _quantiles() -> np.ndarray:
    size = 1 << TABLE_BITS
    half = np.array([NormalDist().inv_cdf((i + 0.5) / size) for i in range(size // 2, size)])
    half /= np.sqrt((half**2).mean())  # unit variance, which cutting the tails had taken a little off
    return np.concatenate([-half[::-1], half]).astype(np.float32)


_table: np.ndarray | None = None


def table() -> np.ndarray:
    """The 4,096 standard normal quantiles, float32, made on first use."""
    global _table
    if _table is None:
        _table = _quantiles()
        _table.setflags(write=False)
    return _table


def philox(c0: np.ndarray, c1: np.ndarray, key: int) -> np.ndarray:
    """Philox4x32-10 (Salmon et al. 2011) of counters (c0, c1, 0, 0) under a 64-bit key: (..., 4) uint32."""
    x0, x1 = np.broadcast_arrays(np.asarray(c0, np.uint64), np.asarray(c1, np.uint64))
    x2 = x3 = np.zeros_like(x0)
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    shift = np.uint64(32)
    for _ in range(10):
        p0, p1 = x0 * np.uint64(M0), x2 * np.uint64(M1)
        x0, x1, x2, x3 = (
            (p1 >> shift) ^ x1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> shift) ^ x3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + W0) & 0xFFFFFFFF, (k1 + W1) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3], -1).astype(np.uint32)


def normal(key: int, channel: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Standard normal numbers addressed by channel and position.

    Position p of channel c takes word ``p & 3`` of the block ``philox(p >> 2, c)``.

    Args:
        key: 64-bit key of the fill.
        channel: integers from 0, broadcast against position.
        position: integers from 0.

    Returns:
        float32 array of the broadcast shape.

    Example:
        >>> normal(7, np.arange(3)[:, None], np.arange(5)).shape
        (3, 5)
    """
    channel, position = np.broadcast_arrays(np.asarray(channel, np.int64), np.asarray(position, np.int64))
    blocks = philox(position >> 2, channel, key)
    words = np.take_along_axis(blocks, (position & 3)[..., None], -1)[..., 0]
    t, low = table(), np.uint32((1 << TABLE_BITS) - 1)
    return (t[words & low] + t[(words >> np.uint32(TABLE_BITS)) & low]) * SCALE
