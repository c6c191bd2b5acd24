"""Time contenders on a GPU, in turns, and say what the GPU took, what a loop took and what the host took.

The clock is one of CUDA events. Another, of the CPU, shows where there is no GPU that all runs: a report made with it
says so, and what it says of speed means nothing.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from harness import BAND, Row, line, quartiles, summary

METHOD = {
    "round": "every contender in turn; the order shifts by one from round to round, and every other round runs "
    "backwards, so that nobody always follows the same neighbour",
    "device time": "CUDA events before and after a burst of calls, over the number of calls; in front of the burst a "
    "kernel of 2 ms that only waits, so that the queue is full and the host is not what is timed, unless its calls "
    "take longer than that and their work together",
    "loop time": "the clock of the host over a burst of calls and the wait for the last of them, over the number of "
    "calls; rows on small batches and on loaders are timed so, as that is what a training loop meets",
    "host time": "the clock of the host over calls that nobody waits for, at a queue that was empty before and stays "
    "short",
    "inputs": "rotate through more memory than the second-level cache holds ten times over; results come from torch's "
    "caching allocator, the same block again for everybody, unless a contender says that it keeps its output",
    "statistics": "median and quartiles over the clean rounds; least over all rounds",
    "clean": f"rounds whose copy is within a factor {BAND} of the median copy",
    "ratio": "median of the ratios within a round, with their quartiles",
    "copy": "Tensor.copy_ of as many bytes as the result has, on the device, into kept memory",
    "floor": "the same of as many bytes as the operation must read and write: each input once, each result once",
    "GB/s": "bytes that must be read and written, whoever reads more; the donors that a mix reads besides are in the "
    "notes of a row",
    "difference": "largest difference from what the float64 reference makes of the same plan in three rows of the "
    "batch, checked before the timing, in memory that held NaN or 255 before",
    "first pass": "module load and compilation included, apart from everything else; kernels of mixops are "
    "compiled by NVRTC, as their cache on disk starts empty",
}
#: Seconds of the kernel in front of a burst.
AHEAD = 2e-3
#: Calls whose host time is taken together; they stay below what a queue holds before launches wait.
SHORT = 50


class Clock(Protocol):
    """Where time comes from.

    Args:
        gpu: is it a GPU's?
    """

    gpu: bool

    def wait(self) -> None:
        """Until the device has done all that it was asked."""

    def spin(self, seconds: float) -> None:
        """Keep the device busy for so long."""

    def mark(self) -> Any:
        """A moment of the device."""

    def between(self, first: Any, second: Any) -> float:
        """Seconds from one moment to the other; both have passed."""


class EventClock:
    """CUDA events on the current stream of a device."""

    gpu = True

    def __init__(self, device: torch.device) -> None:
        self.device = device
        torch.cuda.set_device(device)
        self._cycles = 1e9
        for cycles in (10**6, 10**8):  # the first brings the clocks up
            first = self.mark()
            torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]
            last = self.mark()
            self.wait()
            self._cycles = cycles / self.between(first, last)

    def wait(self) -> None:
        torch.cuda.synchronize(self.device)

    def spin(self, seconds: float) -> None:
        torch.cuda._sleep(int(seconds * self._cycles))  # type: ignore[no-untyped-call]

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between(self, first: torch.cuda.Event, second: torch.cuda.Event) -> float:
        return first.elapsed_time(second) / 1e3


class HostClock:
    """The clock of the CPU, for runs without a GPU."""

    gpu = False

    def wait(self) -> None:
        """Everything is done when a call returns."""

    def spin(self, seconds: float) -> None:
        """There is no queue to fill."""

    def mark(self) -> float:
        return time.perf_counter()

    def between(self, first: float, second: float) -> float:
        return second - first


@dataclass(frozen=True)
class GpuRow(Row):
    """A row, and how it is timed.

    Args:
        by: "device", "loop" or "host": which time is the row's.
        bursts: draws are gone through so often in a burst.
        host: also give the host time of a call, of each contender.
        most_host: {contender: most seconds of host time a call}.
    """

    by: str = "device"
    bursts: int = 2
    host: bool = False
    most_host: dict[str, float] = field(default_factory=dict)


class DeviceCopy:
    """Tensor.copy_ from memory that rotates into memory that is kept; it moves twice ``size`` bytes."""

    def __init__(self, size: int, device: torch.device, rotated: int) -> None:
        count = min(max(2, -(-rotated // size)), 64)
        # Random bytes: a memory may be faster with zeros.
        self.sources = [torch.randint(256, (size,), dtype=torch.uint8, device=device) for _ in range(count)]
        self.target = torch.empty_like(self.sources[0])

    def step(self, turn: int) -> None:
        self.target.copy_(self.sources[turn % len(self.sources)])


def measure(row: GpuRow, rounds: int, clock: Clock, device: torch.device, rotated: int) -> dict[str, Any]:
    """Call every contender of a row for the first time, hold it to the reference, warm it up, and time it.

    A peer that cannot be called here, as no compiler is there for it, say, is left out with a note.

    Args:
        row: what to time.
        rounds: times each contender is timed, 1 or more.
        clock: where time comes from.
        device: where copies are made beside the contenders.
        rotated: bytes that inputs rotate through.

    Returns:
        The row as the report holds it; see report.SCHEMA.

    Raises:
        ValueError: if a contender's result is further from what it should be than the row tolerates.
    """
    steps: dict[str, Callable[[int, int], Any]] = {}
    first: dict[str, float] = {}
    failed: dict[str, str] = {}
    for c in row.contenders:
        step = lambda t, k, c=c: c.step(row.inputs[t % len(row.inputs)], k)  # noqa: E731
        calls = [lambda step=step, k=k: step(0, k) for k in range(row.draws)]
        try:  # plans of one row may take several kernels, so every draw is gone through
            first[c.name] = _loop(clock, calls) * row.draws
        except Exception as error:
            if c.ours:
                raise
            failed[c.name] = f"{c.name} could not be run: {type(error).__name__}: {error}"
        else:
            steps[c.name] = step
    row = replace(
        row,
        contenders=[c for c in row.contenders if c.name in steps],
        ratios=[r for r in row.ratios if not {r.over, r.by} & set(failed)],
        notes=(*row.notes, *failed.values()),
    )
    differences = {c.name: c.check() if c.check else None for c in row.contenders}
    for name, off in differences.items():
        if off is not None and not off <= row.tolerance:
            raise ValueError(
                f"{row.name}: {name} is off by {off:g}, expected at most {row.tolerance:g}: not the same work"
            )
    if row.result:
        copy = DeviceCopy(row.result, device, rotated)
        steps["copy"] = lambda t, k: copy.step(t)
    if row.moved:
        floor = DeviceCopy(max(1, int(row.moved) // 2), device, rotated)
        steps["floor"] = lambda t, k: floor.step(t)
    seconds = {name: np.zeros(rounds) for name in steps}
    hosts = {c.name: np.zeros(rounds) for c in row.contenders if row.host or c.name in row.most_host}
    timed = {"device": _device, "loop": _loop, "host": _host}[row.by]
    names, turn = list(steps), 0
    gc.collect()
    gc.disable()
    try:
        for r in range(-1, rounds):  # the round before the first warms up
            for name in (names[r % len(names) :] + names[: r % len(names)])[:: 1 if r % 2 else -1]:
                calls = [
                    lambda step=steps[name], t=turn + i, k=i % row.draws: step(t, k)  # type: ignore[misc]
                    for i in range(row.draws * row.bursts)
                ]
                turn += len(calls)
                taken = timed(clock, calls)
                if name in hosts:
                    hosts[name][r] = taken if row.by == "host" else _host(clock, calls)
                seconds[name][r] = taken  # that of round -1 is overwritten by the last
    finally:
        gc.enable()
    made = summary(row, seconds, differences)
    for name, taken_by_host in hosts.items():
        value = {what: v * 1e6 for what, v in quartiles(taken_by_host).items()}
        most = row.most_host.get(name)
        made["lines"].append(line(f"host, {name}", value, "µs", at_most=None if most is None else most * 1e6))
    spent = ", ".join(f"{name} {taken * 1e3:.3g} ms" for name, taken in first.items())
    made["notes"] += [f"timed by {row.by} time", f"first pass over the draws: {spent}"]
    return made


def _device(clock: Clock, calls: Sequence[Callable[[], Any]]) -> float:
    """Seconds of the device a call, the queue being full."""
    clock.wait()
    clock.spin(AHEAD)
    first = clock.mark()
    for call in calls:
        call()
    last = clock.mark()
    clock.wait()
    return clock.between(first, last) / len(calls)


def _loop(clock: Clock, calls: Sequence[Callable[[], Any]]) -> float:
    """Seconds a call of a loop that waits at its end."""
    clock.wait()
    start = time.perf_counter()
    for call in calls:
        call()
    clock.wait()
    return (time.perf_counter() - start) / len(calls)


def _host(clock: Clock, calls: Sequence[Callable[[], Any]]) -> float:
    """Seconds of the host a call; nobody waits in between."""
    taken = 0.0
    for begin in range(0, len(calls), SHORT):
        clock.wait()
        start = time.perf_counter()
        for call in calls[begin : begin + SHORT]:
            call()
        taken += time.perf_counter() - start
    clock.wait()
    return taken / len(calls)
