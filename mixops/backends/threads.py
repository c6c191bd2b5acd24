"""How many threads may work, and the small pool they come from. The pool survives a fork by not being inherited."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

_pool: tuple[int, int, ThreadPoolExecutor] | None = None


def thread_count(asked: int | None) -> int:
    """Threads for one job: 1 in a DataLoader worker; what was asked; torch's number if it is loaded; else our CPUs."""
    worker = sys.modules.get("torch.utils.data")
    if worker is not None and worker.get_worker_info() is not None:
        return 1
    if asked is not None:
        return asked
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_out(work: Callable[[int, int], None], units: int, threads: int) -> None:
    """Call ``work(lo, hi)`` on ``threads`` even ranges of 0..units; the calling thread does the first one."""
    threads = min(threads, units)
    if threads <= 1:
        work(0, units)
        return
    cuts = [units * i // threads for i in range(threads + 1)]
    pool = _executor(threads - 1)
    waiting = [pool.submit(work, lo, hi) for lo, hi in pairwise(cuts[1:])]
    work(cuts[0], cuts[1])
    for future in waiting:
        future.result()


def _executor(size: int) -> ThreadPoolExecutor:
    global _pool
    # After a fork the child has the object but none of its threads: it makes its own.
    if _pool is None or _pool[0] != os.getpid() or _pool[1] < size:
        _pool = (os.getpid(), size, ThreadPoolExecutor(size, "mixops"))
    return _pool[2]
