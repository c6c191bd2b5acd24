"""The noise of ``mixops.noise`` in jnp, to the same bits and without whole numbers of 64 bits."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..noise import M0, M1, SCALE, TABLE_BITS, W0, W1, table


def normals(key: Any, alike: Any, shape: tuple[int, ...], rest: tuple[str, ...], axes: tuple[str, ...]) -> Any:
    """Standard normal numbers for every element of rows.

    Args:
        key: (N, 2) uint32, low and high word of the key of each row.
        alike: (N, 1, ...) bool, rows with one number for each channel instead.
        shape: of a row.
        rest: its axis names.
        axes: those that boxes are measured on.

    Returns:
        float32, (N, *shape). Positions count the carried axes by name, then those of boxes, in any layout.
    """
    extent = dict(zip(rest, shape, strict=True))
    order = [*(n for n in ("c",) if n in rest), *sorted(n for n in rest if n != "c" and n not in axes), *axes]
    channels, count = extent.get("c", 1), int(np.prod([extent[n] for n in order if n != "c"], dtype=np.int64))
    blocks = _philox(jnp.arange(-(-count // 4), dtype=jnp.uint32), jnp.arange(channels, dtype=jnp.uint32)[:, None], key)
    quantiles, low = jnp.asarray(table()), jnp.uint32((1 << TABLE_BITS) - 1)
    pieces = [(quantiles[w & low] + quantiles[(w >> TABLE_BITS) & low]) * SCALE for w in blocks]
    drawn = jnp.stack(pieces, -1).reshape(len(key), channels, 4 * (-(-count // 4)))[..., :count]
    drawn = drawn.reshape(len(key), *(extent[n] for n in order)).transpose(0, *(1 + order.index(n) for n in rest))
    first = drawn[(slice(None), *(slice(None) if n == "c" else slice(0, 1) for n in rest))]
    return jnp.where(alike, first, drawn)


def _philox(c0: Any, c1: Any, key: Any) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10 of the counters (c0, c1, 0, 0) under each key: four words of shape (N, *broadcast)."""
    k0, k1 = key[:, 0, None, None], key[:, 1, None, None]
    x0, x1, _ = jnp.broadcast_arrays(c0, c1, k0)
    x2 = x3 = jnp.zeros_like(x0)
    for _ in range(10):
        high0, low0 = _product(M0, x0)
        high1, low1 = _product(M1, x2)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = k0 + jnp.uint32(W0), k1 + jnp.uint32(W1)
    return x0, x1, x2, x3


def _product(a: int, b: Any) -> tuple[Any, Any]:
    """High and low word of a·b, by halves."""
    half, low_a, high_a = jnp.uint32(0xFFFF), jnp.uint32(a & 0xFFFF), jnp.uint32(a >> 16)
    low_b, high_b = b & half, b >> 16
    cross, other = low_a * high_b, high_a * low_b
    middle = ((low_a * low_b) >> 16) + (cross & half) + (other & half)
    return high_a * high_b + (cross >> 16) + (other >> 16) + (middle >> 16), jnp.uint32(a) * b
