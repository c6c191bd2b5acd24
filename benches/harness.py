"""Time contenders side by side.

The machine is never quite quiet, so nothing is compared across time: in every round each contender takes its turn, at
the same draws, and what counts is the median over rounds of the ratio within a round. A plain copy takes its turn too;
a round whose copy is off shows a disturbed machine and is left out, whoever won it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

import mixops as mx

#: A round counts if its copy took no more and no less than the median copy by this factor.
BAND = 1.15
#: Inputs of a row take this much memory together, so that none is still in a cache when its turn comes.
ROTATED = 128 << 20
METHOD = {
    "round": "every contender in turn, at every draw; the order shifts by one from round to round, and every other "
    "round runs backwards, so that nobody always follows the same neighbour",
    "time": "mean over the draws of a round; freeing a fresh result counts, a loop pays it too",
    "statistics": "median and quartiles over the clean rounds; least over all rounds, as nothing makes work faster",
    "clean": f"rounds whose copy is within a factor {BAND} of the median copy",
    "ratio": "median of the ratios within a round, with their quartiles",
    "copy": "numpy.copyto of as many bytes as the result has, into kept memory; like the floor it runs between NumPy "
    "arrays, which get huge pages where the system grants them on request and torch's tensors do not: a tenth at most",
    "floor": "mixops' copy (past the cache from 16 MiB on) of as many bytes as the operation must read and write; "
    "an operation in place touches one stretch of memory where a copy touches two, and may be below it",
    "difference": "largest difference from what a plain backend (torch or NumPy) makes of the same plan, "
    "checked before the timing",
}


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a row.

    Args:
        name: how the table calls it.
        step: called with an input and the number of a draw; its result is dropped.
        ours: True for mixops.
        check: largest difference of its result from what it should be; None where there is nothing to compare.
        moved: bytes that it reads and writes, where they are others than the row's.
    """

    name: str
    step: Callable[[Any, int], Any]
    ours: bool = False
    check: Callable[[], float] | None = None
    moved: float | None = None


@dataclass(frozen=True)
class Ratio:
    """The time of one contender over that of another, and what it should be.

    Args:
        over: the contender whose time is divided; "copy" and "floor" are contenders too.
        by: the one it is divided by.
        at_least: least ratio aimed at, None for none.
        at_most: largest ratio aimed at, None for none.
    """

    over: str
    by: str
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the benchmark: contenders that do the same work.

    Args:
        name: one word, for ``--rows``.
        title: what is done, on what.
        inputs: what the contenders are given, in turn.
        draws: draws a round, 1 or more.
        contenders: who takes part.
        ratios: which of them are compared.
        moved: bytes that must be read and written, mean over the draws; 0 where memory is not the point.
        result: bytes of the result; 0 likewise.
        limit: most seconds that every contender may take, None for none.
        threads: how many everyone may use.
        tolerance: largest difference that still counts as the same result.
        notes: what a reader must know to judge the row.
        slow: the work takes so long that a copy says nothing of the machine that it met: every round counts.
    """

    name: str
    title: str
    inputs: Sequence[Any]
    draws: int
    contenders: Sequence[Contender]
    ratios: Sequence[Ratio] = ()
    moved: float = 0
    result: int = 0
    limit: float | None = None
    threads: int = 1
    tolerance: float = 0
    notes: Sequence[str] = field(default_factory=tuple)
    slow: bool = False


class PlainCopy:
    """numpy.copyto from memory that rotates into memory that is kept."""

    def __init__(self, size: int, threads: int = 1) -> None:
        self.sources, self.target = _rotated(size)
        self.cuts = [size * i // threads for i in range(threads + 1)]
        self.pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def step(self, turn: int) -> None:
        source = self.sources[turn % len(self.sources)]
        parts = list(zip(self.cuts, self.cuts[1:], strict=False))
        waiting = [self.pool.submit(self._part, source, part) for part in parts[1:]] if self.pool else []
        self._part(source, parts[0])
        for one in waiting:
            one.result()

    def _part(self, source: np.ndarray, part: tuple[int, int]) -> None:
        np.copyto(self.target[slice(*part)], source[slice(*part)])


class FloorCopy:
    """mixops' own copy, which goes past the cache where the result is large: the identity plan into kept memory."""

    def __init__(self, size: int, threads: int = 1) -> None:
        sources, target = _rotated(max(1, size // 64) * 64)
        self.sources, self.target = [s.reshape(64, -1) for s in sources], target.reshape(64, -1)
        self.plan, self.threads = mx.Plan.identity(64), threads

    def step(self, turn: int) -> None:
        source = self.sources[turn % len(self.sources)]
        mx.mix(source, self.plan, "b d", "discrete", out=self.target, threads=self.threads)


def _rotated(size: int) -> tuple[list[np.ndarray], np.ndarray]:
    # Ones, not zeros: the system would back fresh zeros by one page until they are written.
    return [np.ones(size, np.uint8) for _ in range(rotation(size))], np.ones(size, np.uint8)


def rotation(size: int) -> int:
    """How many inputs of this many bytes make a rotation that no cache holds; at least 2, at most 64."""
    return min(max(2, -(-ROTATED // size)), 64)


def measure(row: Row, rounds: int) -> dict[str, Any]:
    """Check that the contenders of a row do the same work, warm them up, and time them for some rounds.

    Args:
        row: what to time.
        rounds: times each contender is timed, 1 or more.

    Returns:
        The row as the report holds it; see report.SCHEMA.

    Raises:
        ValueError: if a contender's result is further from what it should be than the row tolerates.
    """
    differences = {c.name: c.check() if c.check else None for c in row.contenders}
    for name, off in differences.items():
        if off is not None and not off <= row.tolerance:
            raise ValueError(
                f"{row.name}: {name} is off by {off:g}, expected at most {row.tolerance:g}: not the same work"
            )
    turn = 0
    steps: dict[str, Callable[[int, int], Any]] = {
        c.name: lambda t, k, c=c: c.step(row.inputs[t % len(row.inputs)], k)  # type: ignore[misc]
        for c in row.contenders
    }
    copy = PlainCopy(row.result or 16 << 20, row.threads)
    steps["copy"] = lambda t, k: copy.step(t)
    if row.moved:
        floor = FloorCopy(int(row.moved) // 2, row.threads)
        steps["floor"] = lambda t, k: floor.step(t)
    names = list(steps)
    seconds = {name: np.zeros(rounds) for name in names}
    for _ in range(2):
        for name in names:
            steps[name](turn := turn + 1, 0)
    gc.collect()
    gc.disable()
    try:
        for r in tqdm(range(rounds), desc=row.name, unit="round", leave=False, disable=None):
            order = (names[r % len(names) :] + names[: r % len(names)])[:: 1 if r % 2 else -1]
            for k in range(row.draws):
                for name in order:
                    turn += 1
                    step = steps[name]
                    start = time.perf_counter()
                    step(turn, k)
                    seconds[name][r] += (time.perf_counter() - start) / row.draws
    finally:
        gc.enable()
    return summary(row, seconds, differences)


def summary(row: Row, seconds: dict[str, np.ndarray], differences: dict[str, float | None]) -> dict[str, Any]:
    """What the rounds say: one entry for each contender and each line that was aimed at."""
    clean = np.ones(len(next(iter(seconds.values()))), bool)
    if "copy" in seconds and not row.slow:
        middle = np.percentile(seconds["copy"], 50, method="lower")  # a time that was measured: its round is clean
        clean = (seconds["copy"] <= BAND * middle) & (seconds["copy"] >= middle / BAND)
    kept = {name: times[clean] for name, times in seconds.items()}
    ours = {c.name: c.ours for c in row.contenders}
    moved = {c.name: c.moved for c in row.contenders if c.moved is not None} | {"copy": 2 * row.result}
    entries = []
    for name, times in kept.items():
        entry = {
            "name": name,
            "ours": ours.get(name, False),
            "ms": {k: v * 1e3 for k, v in (*quartiles(times).items(), ("min", float(seconds[name].min())))},
            "over_copy": float(np.median(times / kept["copy"])) if row.result else None,
            "over_floor": float(np.median(times / kept["floor"])) if row.moved else None,
            "gb_per_s": None,
            "difference": differences.get(name),
        }
        bytes_moved = moved.get(name, row.moved)
        if bytes_moved:
            entry["gb_per_s"] = bytes_moved / float(np.median(times)) / 1e9
        entries.append(entry)
    lines = [
        line(f"{r.over} ÷ {r.by}", quartiles(kept[r.over] / kept[r.by]), "x", r.at_least, r.at_most) for r in row.ratios
    ]
    if row.limit is not None:
        lines += [
            line(c.name, {k: v * 1e3 for k, v in quartiles(kept[c.name]).items()}, "ms", at_most=row.limit * 1e3)
            for c in row.contenders
        ]
    return {
        "name": row.name,
        "title": row.title,
        "threads": row.threads,
        "draws": row.draws,
        "rounds": len(clean),
        "clean_rounds": int(clean.sum()),
        "bytes_moved": float(row.moved),
        "result_bytes": row.result,
        "contenders": entries,
        "lines": lines,
        "curves": [],
        "notes": list(row.notes),
    }


def quartiles(values: np.ndarray) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {"median": float(middle), "q1": float(low), "q3": float(high)}


def line(
    what: str, value: dict[str, float], unit: str, at_least: float | None = None, at_most: float | None = None
) -> dict[str, Any]:
    """One line that was aimed at: what came out, and by how much it is better (or, below 0, short)."""
    target = at_least if at_least is not None else at_most
    margin = None
    if target is not None:
        margin = value["median"] / target - 1 if at_least is not None else 1 - value["median"] / target
    return {
        "what": what,
        "unit": unit,
        **value,
        "bound": None if target is None else "at least" if at_least is not None else "at most",
        "target": target,
        "margin": margin,
        "met": None if margin is None else margin >= 0,
    }
