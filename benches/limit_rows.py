"""Rows on what the memory allows: copies and triads in the manner of STREAM, with plain stores and past the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from batches import Setup, off
from harness import Contender, Ratio, Row, measure

import mixops as mx

#: Share of the first array in a triad: a·s + b·(1 - s).
SHARE = 0.25


def triad() -> Any:
    """out = s·a + (1 - s)·b in plain stores, as a compiler makes them of the loop."""
    import numba

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator]
    def loop(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        s, t = np.float32(SHARE), np.float32(1 - SHARE)
        for i in range(out.size):
            out[i] = s * a[i] + t * b[i]

    return loop


def limits(setup: Setup, threads: int) -> Iterator[dict[str, Any]]:
    """Copies and triads of a float32 batch."""
    n, extent = setup.large
    torch.set_num_threads(threads)
    width = 3 * extent * extent
    made = np.random.default_rng(0)
    source = made.random((2 * n, width), np.float32)  # the first half is a, the second b
    turned = np.roll(source, n, axis=0)
    out = np.ones((n, width), np.float32)
    flat, loop = out.reshape(-1), triad()
    pool = ThreadPoolExecutor(threads)
    cuts = [flat.size * i // threads for i in range(threads + 1)]
    rows = np.arange(n)
    blend = mx.Mixup().draw(made, mx.Spec(n), lam=SHARE, partner=rows)
    both = mx.Plan(rows, n + rows[:, None], blend.box, blend.donor, blend.opacity, blend.weight, ())
    alone = mx.Plan.identity(n)

    def plain(x: np.ndarray, k: int) -> None:
        a, b = x[:n].reshape(-1), x[n:].reshape(-1)
        parts = [slice(lo, hi) for lo, hi in pairwise(cuts)]
        list(pool.map(lambda part: loop(flat[part], a[part], b[part]), parts))

    def torch_copy(x: np.ndarray, k: int) -> None:
        torch.from_numpy(out).copy_(torch.from_numpy(x[:n]))

    def expression(x: np.ndarray, k: int) -> torch.Tensor:
        a, b = torch.from_numpy(x[:n]), torch.from_numpy(x[n:])
        return SHARE * a + (1 - SHARE) * b

    steps: dict[str, tuple[Callable[[np.ndarray, int], Any], float]] = {
        "torch copy_": (torch_copy, 2),
        "torch clone, fresh memory": (lambda x, k: torch.from_numpy(x[:n]).clone(), 2),
        "mixops copy, past the cache": (
            lambda x, k: mx.mix(x[:n], alone, "b d", "discrete", out=out, threads=threads),
            2,
        ),
        "triad, plain stores (Numba)": (plain, 3),
        "triad, past the cache (mixops)": (lambda x, k: mx.mix(x, both, "b d", out=out, threads=threads), 3),
        "triad, torch expression, fresh memory": (expression, 3),
    }

    def check(name: str) -> Callable[[], float]:
        def difference() -> float:
            result = steps[name][0](source, 0)
            a, b = source[:n], source[n:]
            return off(out if result is None else result, SHARE * a + (1 - SHARE) * b if "triad" in name else a)

        return difference

    row = Row(
        f"limits-{threads}",
        f"memory: copies and triads of {out.nbytes / 2**20:.0f} MiB",
        [source, turned],
        setup.shares,
        [
            Contender(name, step, name.startswith("mixops") or "mixops" in name, check(name), times * out.nbytes)
            for name, (step, times) in steps.items()
        ],
        [Ratio("copy", "floor"), Ratio("torch copy_", "floor"), Ratio("torch clone, fresh memory", "floor")],
        2.0 * out.nbytes,
        out.nbytes,
        threads=threads,
        tolerance=1e-6,
        notes=("GB/s count bytes read and bytes written; a plain store also reads what it overwrites, uncounted",),
    )
    try:
        yield measure(row, setup.rounds)
    finally:
        torch.set_num_threads(1)
        pool.shutdown()


ROWS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {
    "limits-1": lambda s: limits(s, 1),
    "limits-2": lambda s: limits(s, 2),
}
HEADLINE = tuple(ROWS)
