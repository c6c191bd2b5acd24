"""Where the time of a batch goes: the kernel and each step of Python around it, on caches that other work has swept.

    python benches/breakdown.py [--rounds N]

Before every batch a copy sweeps the caches, untimed, as the work of a training step would. Medians, in microseconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
from batches import kept_memory, stream
from harness import PlainCopy

import mixops as mx
from mixops import execute
from mixops.backends import kernels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STEPS = ("generator", "draw", "checks", "launch", "kernel", "targets")


@contextmanager
def timed_kernel(spent: list[float]) -> Any:
    """Add what the kernel takes to a list."""
    kernel = kernels.mix_units

    def timed(*arguments: Any) -> None:
        begin = time.perf_counter()
        kernel(*arguments)
        spent.append(time.perf_counter() - begin)

    kernels.mix_units = timed
    try:
        yield
    finally:
        kernels.mix_units = kernel


def measured(batch: Callable[[int], tuple[Any, ...]], op: mx.Operator, spec: mx.Spec, rounds: int) -> list[float]:
    """Median seconds of each step of a chain; batch(i) is (x, layout, tail, out, labels, classes)."""
    sweep = PlainCopy(48 << 20)
    spent: list[float] = []
    found: list[list[float]] = []
    with timed_kernel(spent):
        for i in range(rounds + 2):
            x, layout, tail, out, labels, classes = batch(i)
            sweep.step(i)
            spent.clear()
            clock = [time.perf_counter()]
            rng = stream(i)
            clock.append(time.perf_counter())
            plan = op.draw(rng, spec)
            clock.append(time.perf_counter())
            fill = None if tail is None else "mean"
            ready = execute.prepare(x, plan, layout, fill=fill, to=tail, out=out, threads=1)
            clock.append(time.perf_counter())
            ready.run()
            clock.append(time.perf_counter())
            mx.soft_targets(labels, plan, classes)
            clock.append(time.perf_counter())
            draw, checks, launch, targets = np.diff(clock)[1:]
            found.append([clock[1] - clock[0], draw, checks, launch - sum(spent), sum(spent), targets])
    return [float(v) for v in np.median(found[2:], 0)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the time of a batch goes.")
    parser.add_argument("--rounds", type=int, default=60, help="batches of each kind (default %(default)s)")
    rounds = parser.parse_args().rounds
    made = np.random.default_rng(0)
    switch = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)]) | mx.RandomErasing()
    print(f"{'':44}" + "".join(f"{step:>11}" for step in STEPS))
    for n, extent, classes in ((64, 224, 1000), (256, 32, 100)):
        images = [made.integers(0, 256, (n, extent, extent, 3), np.uint8) for _ in range(6)]
        floats = [made.random((n, 3, extent, extent), np.float32) for _ in range(4)]
        kept, labels = kept_memory((n, 3, extent, extent), np.float32), np.arange(n) % classes
        spec, tail = mx.Spec(n, (extent, extent)), mx.Output("b c h w", "float32", mean=MEAN, std=STD)

        def chain(i: int, images: Any = images, rest: Any = (tail, kept, labels, classes)) -> tuple[Any, ...]:
            return images[i % len(images)], "b h w c", *rest

        def inside(i: int, floats: Any = floats, rest: Any = (labels, classes)) -> tuple[Any, ...]:
            x = floats[i % len(floats)]
            return x, "b c h w", None, x, *rest

        for name, batch, op in (
            ("the chain to float32", chain, switch),
            ("float32 Mixup in place", inside, mx.Mixup(pairing="flip")),
            ("float32 CutMix in place", inside, mx.CutMix(pairing="flip")),
        ):
            times = measured(batch, op, spec, rounds)
            print(f"{f'{name}, ({n}, 3, {extent}, {extent})':44}" + "".join(f"{t * 1e6:11.0f}" for t in times))


if __name__ == "__main__":
    main()
