"""Where spans of tokens fit, and which of them a score ranks first or last: compiled loops over the rows of a batch.

This loads Numba: import it where it is used.
"""

from __future__ import annotations

import numpy as np

from .disk_cache import kept_kernel


@kept_kernel
def count_runs(
    lengths: np.ndarray, special: np.ndarray, segments: np.ndarray, run: np.ndarray, count: np.ndarray
) -> int:
    """Ordinary tokens of each row: real, not special. Those of a sentence pair are told apart by half.

    Args:
        lengths: (N,) int64, real tokens.
        special: (N, T) bool, or (0, 0): the first real token and the last real one of each half are.
        segments: (N, T) int64, the half of each token, or (0, 0) where rows have one part only.
        run: (N, H, T) int32, written: ordinary tokens of half h from place t on, up to the first that is none.
        count: (N, H) int64, written: ordinary tokens of each half.

    Returns:
        The first row with an ordinary token that is in neither half; -1 if there is none.
    """
    rows, halves, extent = run.shape
    for i in range(rows):
        length = lengths[i]
        for h in range(halves):
            count[i, h] = 0
            for t in range(length, extent):
                run[i, h, t] = 0
        for t in range(length - 1, -1, -1):
            if special.size:
                ordinary = not special[i, t]
            else:
                ordinary = 0 < t < length - 1
                if halves == 2 and ordinary:
                    ordinary = segments[i, t] == segments[i, t + 1]
            half = segments[i, t] if halves == 2 else 0
            if ordinary and not 0 <= half < halves:
                return i
            for h in range(halves):
                if ordinary and h == half:
                    run[i, h, t] = 1 + (run[i, h, t + 1] if t + 1 < extent else 0)
                    count[i, h] += 1
                else:
                    run[i, h, t] = 0
    return -1


@kept_kernel
def _best_start(line: np.ndarray, run: np.ndarray, size: int, sign: float, sums: np.ndarray) -> int:
    """The lowest start of the windows whose mean times ``sign`` is least; -1 where no window has room.

    Each window is summed from its first token to its last, so that windows of the same scores have the same mean.
    """
    first, last = 0, len(run) - 1
    while first <= last and run[first] < size:
        first += 1
    while last >= first and run[last] < size:
        last -= 1
    if last < first:
        return -1
    here = sums[: last + 1 - first]
    here[:] = 0
    for step in range(size):  # one token of all windows at a time: that the processor does several windows at once
        scores = line[first + step : last + 1 + step]
        for s in range(len(here)):
            here[s] += scores[s]
    for s in range(len(here)):
        here[s] = sign * (here[s] / size)
    best = 0  # it fits: ``first`` was chosen so
    for s in range(1, len(here)):
        if here[s] < here[best] and run[first + s] >= size:
            best = s
    return first + best


@kept_kernel
def rank_windows(
    scores: np.ndarray,
    run: np.ndarray,
    count: np.ndarray,
    partner: np.ndarray,
    acts: np.ndarray,
    span: float,
    box: np.ndarray,
    donor: np.ndarray,
    share: np.ndarray,
    weight: np.ndarray,
) -> int:
    """The span of lowest mean score of each row gives way to the one of highest mean score of its partner.

    Args:
        scores: (N, T) float32 or float64; only those of ordinary tokens are looked at.
        run, count: see ``count_runs``.
        partner: (N,) int64.
        acts: (N,) bool, rows to mix.
        span: share of the ordinary tokens of a half that its span takes.
        box, donor: (N, H, 2) int32, written: the span in the row and in its partner; empty where one has no room.
        share: (N, H) float32, written: 1 where a span is replaced.
        weight: (N, H) float32, written: tokens of the span over all ordinary tokens of the row.

    Returns:
        The first row with a score at an ordinary token that is not finite; -1 if there is none.
    """
    rows, halves, extent = run.shape
    for i in range(rows):
        for h in range(halves):
            for t in range(extent):
                if run[i, h, t] > 0 and not np.isfinite(scores[i, t]):
                    return i
    sums = np.empty(extent)
    for i in range(rows):
        whole = 0
        for h in range(halves):
            whole += count[i, h]
        for h in range(halves):
            size = max(int(span * count[i, h] + 1e-9), 1)  # as ops.tokens.sizes_of
            here, there = -1, -1
            if acts[i]:
                here = _best_start(scores[i], run[i, h], size, 1.0, sums)
            if here >= 0:
                there = _best_start(scores[partner[i]], run[partner[i], h], size, -1.0, sums)
            fits = there >= 0
            box[i, h, 0], box[i, h, 1] = (here, here + size) if fits else (0, 0)
            donor[i, h, 0], donor[i, h, 1] = (there, there + size) if fits else (0, 0)
            share[i, h] = 1 if fits else 0
            weight[i, h] = size / whole if fits else 0
    return -1
