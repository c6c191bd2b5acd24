"""A guard against kernels that became slow: each beside the floor of the same run, held to a generous bound.

    python benches/guard.py [--record]

Not a timed test: no kernel is held to seconds, only to how often the floor fits into its time, and only to bounds far
above what was seen. What is over its bound is measured again, and again, before it counts. Exit status 1 if a
bound is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from batches import LAYOUT, Setup, Tensors, kept_tensor, off, pasted, stream
from harness import Contender, Row, measure
from report import write_text
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

import mixops as mx

BOUNDS = Path(__file__).parent / "bounds.json"
#: A bound is what was seen times this: other machines, other caches and a busy neighbour must not break it.
ROOM = 1.6
ROUNDS = 15
TRIES = 3
SETUP = Setup(ROUNDS, large=(32, 224))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def operation(
    op: mx.Operator, dtype: str = "float32", in_place: bool = False, small: bool = False, threads: int = 1
) -> Row:
    """One operator on a batch of tensors, with its draw and its targets."""
    data = Tensors.of(SETUP, SETUP.small if small else SETUP.large, op, 2, dtype, threads=threads)
    inside = pasted(data.plans, 3, data.kept.itemsize) if in_place and data.plans[0].rank else data.bytes
    step = data.whole(in_place=in_place)
    contender = data.contender("mixops", step, ours=True)
    return Row("guard", "", data.batches, 2, [contender], (), 2.0 * inside, data.bytes, threads=threads, tolerance=1)


def chain(dtype: str, threads: int) -> Row:
    """uint8 NHWC to a mixed, erased, normalised NCHW batch, with its draw."""
    n, extent = SETUP.large
    op, spec = mx.CutMix(pairing="flip") | mx.RandomErasing(), SETUP.spec(SETUP.large)
    made = torch.Generator().manual_seed(0)
    batches = [torch.randint(256, (n, extent, extent, 3), generator=made, dtype=torch.uint8) for _ in range(8)]
    kept = kept_tensor((n, 3, extent, extent), dtype)
    tail = mx.Output(LAYOUT, dtype, mean=MEAN, std=STD)

    def step(images: torch.Tensor, k: int) -> Any:
        plan = op.draw(stream(k), spec)
        return mx.mix(images, plan, "b h w c", fill="mean", to=tail, out=kept, threads=threads)

    def check() -> float:
        plan = op.draw(stream(0), spec)
        return off(step(batches[0], 0), mx.mix(batches[0], plan, "b h w c", fill="mean", to=tail, backend="torch"))

    contender = Contender("mixops", step, True, check)
    moved = float(batches[0].nbytes + kept.nbytes)
    return Row("guard", "", batches, 2, [contender], (), moved, kept.nbytes, threads=threads, tolerance=0.02)


ROWS: dict[str, Callable[[], Row]] = {
    "Mixup, float32, out of place": partial(operation, mx.Mixup()),
    "Mixup, float32, out of place, 2 threads": partial(operation, mx.Mixup(), threads=2),
    "Mixup, float32, in place, any permutation": partial(operation, mx.Mixup(), in_place=True),
    "Mixup, float32, in place, flip pairs": partial(operation, mx.Mixup(pairing="flip"), in_place=True),
    "Mixup, bfloat16, out of place": partial(operation, mx.Mixup(), "bfloat16"),
    "Mixup, uint8, out of place": partial(operation, mx.Mixup(), "uint8"),
    "Mixup, small images, in place": partial(operation, mx.Mixup(pairing="flip"), in_place=True, small=True),
    "CutMix, float32, out of place": partial(operation, mx.CutMix()),
    "CutMix, float32, in place, flip pairs": partial(operation, mx.CutMix(pairing="flip"), in_place=True),
    "chain to float32": partial(chain, "float32", 1),
    "chain to float32, 2 threads": partial(chain, "float32", 2),
    "chain to bfloat16": partial(chain, "bfloat16", 1),
}


def bounds() -> dict[str, float]:
    """The committed bounds."""
    return dict(json.loads(BOUNDS.read_text(encoding="utf-8")))


def times_floor(row: Row) -> float:
    """How often the floor fits into the time of ours; both in their best round, which a busy neighbour missed."""
    torch.set_num_threads(row.threads)
    best = {c["name"]: float(c["ms"]["min"]) for c in measure(row, ROUNDS)["contenders"]}
    return best["mixops"] / best["floor"]


def broken(allowed: dict[str, float], measured: Callable[[str], float]) -> list[str]:
    """What is over its bound in every try, a sentence each."""
    lines = []
    for name, bound in allowed.items():
        seen = measured(name)
        for _ in range(TRIES - 1):
            if seen > bound:
                seen = min(seen, measured(name))
        if seen > bound:
            lines.append(
                f"{name}: takes {seen:.2f} times the floor, at most {bound:g} is allowed. Find what made it "
                "slow; if it must be so, record new bounds with `python benches/guard.py --record`"
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Hold the kernels to bounds beside the floor.")
    parser.add_argument("--record", action="store_true", help=f"write new bounds: {ROOM} times what is seen now")
    given = parser.parse_args()
    with tqdm(total=len(ROWS), unit="kernel", disable=None) as bar:

        def measured(name: str) -> float:
            bar.set_description(name)
            seen = times_floor(ROWS[name]())
            tqdm.write(f"{seen:7.2f} times the floor: {name}", file=sys.stdout)
            bar.update()
            return seen

        if given.record:
            seen = {name: round(ROOM * min(measured(name), measured(name)), 2) for name in ROWS}
            write_text(json.dumps(seen, indent=1) + "\n", BOUNDS)
            return 0
        lines = broken(bounds(), measured)
    print("\n".join(lines) or "every kernel is within its bound")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())
