"""What a mix costs in compiled JAX code, beside the same mix written out by hand in jnp.

    python benches/jax_step.py [--rounds N] [--threads N] [--out FILE]

A step draws its plan (by hand: its share, partners and box) and waits for the result. Everybody's code is compiled
once, before the timing, and held to the same result. Exit status 1 if the steps do not do the same work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from batches import stream
from harness import METHOD, Contender, Ratio, Row, measure, rotation
from step_command import StepBench, run_steps
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

import mixops as mx

OUT = Path(__file__).parent / "results" / "jax_step.json"
#: A compiled mix takes at most this many times what one by hand takes.
AIM = 1.3
#: Compilers may order the arithmetic of floats in their own way.
TOLERANCE = 1e-5
BY_HAND, COMPILED, EAGER = "jnp by hand, jit", "mix, jit", "mix, no jit around it"
METHODS = METHOD | {
    "step": "draw, then the compiled function on the batch, the plan (by hand: share, partners, box) its argument; the "
    "clock stops when the result is there",
    "threads": "the process is bound to as many cores, so that XLA makes no more threads",
}


@dataclass(frozen=True)
class Work:
    """A mix, and the same by hand.

    Args:
        name: of the row.
        op: the operator.
        dtype: of the batch.
        to: the tail, None for none.
        by_hand: of (x, partner, lam, box).
    """

    name: str
    op: mx.Operator
    dtype: str
    to: mx.Output | None
    by_hand: Callable[..., Any]


def mixup(x: Any, partner: Any, lam: Any, box: Any) -> Any:
    """Mixup as its paper writes it."""
    return lam * x + (1 - lam) * x[partner]


def normalised(x: Any, partner: Any, lam: Any, box: Any) -> Any:
    """Mixup of bytes, normalised."""
    return (mixup(x.astype(jnp.float32), partner, lam, box) / 255 - 0.45) / 0.225


def cutmix(x: Any, partner: Any, lam: Any, box: Any) -> Any:
    """CutMix by a mask, as shapes of compiled code cannot depend on a box."""
    h, w = jnp.arange(x.shape[2])[:, None], jnp.arange(x.shape[3])
    return jnp.where((h >= box[0]) & (h < box[1]) & (w >= box[2]) & (w < box[3]), x[partner], x)


WORKS = (
    Work("mixup", mx.Mixup(0.8), "float32", None, mixup),
    Work("mixup-bytes", mx.Mixup(0.8), "uint8", mx.Output("b c h w", mean=0.45, std=0.225), normalised),
    Work("cutmix", mx.CutMix(1.0), "float32", None, cutmix),
)
SHAPES = {"large": (64, 3, 224, 224), "small": (256, 3, 32, 32)}
TINY = {"tiny": (4, 3, 8, 8)}


def parts(plan: mx.Plan) -> tuple[np.ndarray, np.float32, np.ndarray]:
    """Partners, share and box of a plan that is one for the batch."""
    return plan.partner[:, 0], plan.lam[0], plan.box[0, 0]


def row_of(work: Work, size: str, shape: tuple[int, ...], threads: int) -> Row:
    """A row: the mix by hand, ours compiled, and ours as it is called without jit."""
    rng, spec = np.random.default_rng(0), mx.Spec(shape[0], shape[2:])
    made = rng.integers(0, 256, shape).astype(work.dtype)
    inputs = [jax.device_put(made + i % 2) for i in range(rotation(made.nbytes))]
    by_hand = jax.jit(work.by_hand)
    compiled = jax.jit(lambda x, plan: mx.mix(x, plan, "b c h w", to=work.to))

    def ours(how: Callable[[Any, Any], Any]) -> Callable[[Any, int], Any]:
        return lambda x, k: jax.block_until_ready(how(x, work.op.draw(stream(k), spec)))

    def hand(x: Any, k: int) -> Any:
        draws = stream(k)
        lam, partner = np.float32(draws.beta(0.8, 0.8)), draws.permutation(shape[0]).astype(np.int32)
        h, w = int(draws.integers(shape[2])), int(draws.integers(shape[3]))
        box = np.array([h // 2, h, w // 2, w], np.int32)
        return jax.block_until_ready(by_hand(x, partner, lam, box))

    def difference() -> float:
        plan = work.op.draw(stream(1), spec)
        found, wanted = (
            np.asarray(a, np.float64) for a in (compiled(inputs[0], plan), by_hand(inputs[0], *parts(plan)))
        )
        return float((np.abs(found - wanted) / np.maximum(np.abs(wanted), 1)).max())

    eager = ours(lambda x, plan: mx.mix(x, plan, "b c h w", to=work.to))
    result = int(np.prod(shape)) * 4
    return Row(
        f"jax-{work.name}-{size}",
        f"{work.op!r} of {work.dtype} {shape}{', normalised to float32' if work.to else ''}, in jnp on the CPU",
        inputs,
        4,
        [
            Contender(BY_HAND, hand),
            Contender(COMPILED, ours(compiled), True, difference),
            Contender(EAGER, eager, True),
        ],
        [Ratio(COMPILED, BY_HAND, at_most=AIM), Ratio(EAGER, BY_HAND)],
        moved=made.nbytes + result,
        result=result,
        threads=threads,
        tolerance=TOLERANCE,
    )


def measured(tiny: bool, rounds: int, threads: int) -> Iterator[tuple[dict[str, Any], float]]:
    """Every row as the report holds it, and the seconds it took."""
    cases = [(work, size, shape) for size, shape in (TINY if tiny else SHAPES).items() for work in WORKS]
    with _bound(threads):
        for work, size, shape in tqdm(cases, unit="row", disable=None):
            started = time.monotonic()
            made = measure(row_of(work, size, shape, threads), rounds)
            told = {**made, "entry": made["name"], "chapter": "Compiled JAX code", "headline": True}
            yield told | {"allocator": "as it comes"}, time.monotonic() - started


@contextmanager
def _bound(threads: int) -> Iterator[None]:
    """Bind the process to as many cores, where the system lets it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


BENCH = StepBench("jax", "jax_step.py", "What a mix costs in compiled JAX code.", METHODS, OUT, measured)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see ``run_steps``."""
    return run_steps(BENCH, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
