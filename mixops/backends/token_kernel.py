"""The compiled loop of ``tokens``. It loads Numba: import it where it is used."""

from __future__ import annotations

import numpy as np

from ..disk_cache import kept_kernel


@kept_kernel
def paste(
    x: np.ndarray,
    base: np.ndarray,
    partner: np.ndarray,
    box: np.ndarray,
    donor: np.ndarray,
    opacity: np.ndarray,
    out: np.ndarray,
) -> bool:
    """out[n] = x[base[n]], then each span of a donor row in its place.

    Args:
        x: (M, T).
        base, partner, box, donor, opacity: of the plan, whose boxes lie within T.
        out: (N, T), written.

    Returns:
        False where the plan does anything else: it blends, paints fills, resizes, or names rows that x does not have.
    """
    rows, length = out.shape
    for n in range(rows):
        own = base[n]
        if own >= len(x):
            return False
        for t in range(length):
            out[n, t] = x[own, t]
        for k in range(partner.shape[1]):
            other, share = partner[n, k], opacity[n, k]
            if other >= len(x):
                return False
            if share == 0:
                continue
            start, size, source = box[n, k, 0], box[n, k, 1] - box[n, k, 0], donor[n, k, 0]
            if share != 1 or other < 0 or donor[n, k, 1] - source != size:
                return False
            for t in range(size):
                out[n, start + t] = x[other, source + t]
    return True
