"""Single operations beside the peers, one row each: what was aimed at, what came out, and by how much it is short.

    python benches/bench_ops.py [--rounds N] [--rows a,b] [--out FILE]

The peers run as users write them, on the allocator as it comes; ours and one form of torch.compile write into kept
buffers. "mixops" is all that a peer's call does: draw, images, soft targets. "images only" leaves out the draw and the
targets, for the contenders that have neither.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import float_rows
import numpy as np
import sample_rows
import torch
from batches import Setup, shape_of
from harness import METHOD, Contender, Row, measure, summary
from report import SCHEMA_VERSION, environment, load_average, table, write
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

import mixops as mx

HERE = Path(__file__).parent
RESULT = HERE / "results" / "bench_ops.json"


def drawing(setup: Setup) -> Iterator[dict[str, Any]]:
    """Drawing a plan for 256 rows of 224 pixels."""
    spec = mx.Spec(256, (224, 224))
    ops: dict[str, mx.Operator] = {
        "Mixup": mx.Mixup(),
        "Mixup per sample": mx.Mixup(per="sample"),
        "CutMix": mx.CutMix(),
        "CutMix per sample": mx.CutMix(per="sample"),
        "Cutout": mx.Cutout(56),
        "RandomErasing": mx.RandomErasing(),
        "OneOf([Mixup, CutMix]) | Cutout": mx.OneOf([mx.Mixup(), mx.CutMix()]) | mx.Cutout(56),
        "OneOf(..., per sample) | Cutout": mx.OneOf([mx.Mixup(), mx.CutMix()], per="sample") | mx.Cutout(56),
    }
    row = Row(
        "draw",
        "drawing a plan for 256 rows of 224 pixels",
        [np.random.default_rng(0)],
        20,
        [Contender(name, partial(_draw, op, spec), True) for name, op in ops.items()],
        limit=0.3e-3,
    )
    yield measure(row, setup.rounds)


def _draw(op: mx.Operator, spec: mx.Spec, rng: np.random.Generator, k: int) -> Any:
    return op.draw(rng, spec)


def _elsewhere(x: Any, k: int) -> None:
    raise RuntimeError("a first call is timed in a process of its own")


def first_call(setup: Setup) -> Iterator[dict[str, Any]]:
    """The first calls of the kernels in a fresh process: with an empty cache, then with the cache that left."""
    seconds: dict[str, list[float]] = {}
    for _ in tqdm(range(min(setup.rounds, 3)), desc="first-call", unit="process pair", leave=False, disable=None):
        with tempfile.TemporaryDirectory() as cache:
            for state in ("empty cache", "cached"):
                done = subprocess.run(
                    [sys.executable, HERE / "first_call.py"],
                    env={**os.environ, "NUMBA_CACHE_DIR": cache},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                for what, took in json.loads(done.stdout).items():
                    seconds.setdefault(f"{what}, {state}", []).append(took)
    row = Row(
        "first-call",
        f"the first call of each kernel in a fresh process, {shape_of((64, 224))}",
        [],
        1,
        [Contender(name, _elsewhere, True) for name in seconds if not name.startswith("import")],
        limit=1.0,
        notes=("Numba's import is a line of its own: the first kernel's line has what comes on top of it",),
    )
    yield summary(row, {name: np.array(took) for name, took in seconds.items()}, {})


TARGETS = {"torchvision": 7, "torch.compile": 1.2}
ROWS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {
    "mixup-inplace": lambda s: float_rows.in_place(s, "Mixup", s.large, "mixup-inplace", 9),
    "mixup-out": lambda s: float_rows.out_of_place(
        s, "Mixup", s.large, "mixup-out", {"torchvision": 7, "torch.compile": 1.2}
    ),
    "cutmix-inplace": lambda s: float_rows.in_place(s, "CutMix", s.large, "cutmix-inplace", 10),
    "cutmix-out": lambda s: float_rows.out_of_place(s, "CutMix", s.large, "cutmix-out", {"torchvision": 5}),
    "mixup-uint8": sample_rows.uint8_collate,
    "erase": lambda s: float_rows.erasing(s, "none", 1.2),
    "erase-noise": lambda s: float_rows.erasing(s, "pixel", None),
    "per-sample": float_rows.per_sample,
    "draw": drawing,
    "first-call": first_call,
    "small-mixup-inplace": lambda s: float_rows.in_place(s, "Mixup", s.small, "small-mixup-inplace", None),
    "small-mixup-out": lambda s: float_rows.out_of_place(s, "Mixup", s.small, "small-mixup-out", {}),
    "small-cutmix-inplace": lambda s: float_rows.in_place(s, "CutMix", s.small, "small-cutmix-inplace", None),
    "small-cutmix-out": lambda s: float_rows.out_of_place(s, "CutMix", s.small, "small-cutmix-out", {}),
    "chain-1": lambda s: sample_rows.chain(s, 1),
    "chain-2": lambda s: sample_rows.chain(s, 2),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Single operations beside the peers.")
    parser.add_argument("--rounds", type=int, default=15, help="times each contender is timed (default %(default)s)")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--out", type=Path, default=RESULT, help="the JSON to write")
    parser.add_argument("--tiny", action="store_true", help="on tiny arrays: shows that all runs, not how fast it is")
    given = parser.parse_args(arguments)
    chosen = given.rows.split(",")
    if given.rounds < 1 or not set(chosen) <= set(ROWS):
        wrong = (
            f"--rounds {given.rounds}" if given.rounds < 1 else f"--rows {', '.join(sorted(set(chosen) - set(ROWS)))}"
        )
        parser.error(f"{wrong}: expected 1 round or more, and rows of {', '.join(ROWS)}")
    setup = Setup(given.rounds, (4, 32), (4, 16), 2, 2, 30) if given.tiny else Setup(given.rounds)
    started, rows = load_average(), []
    torch.set_num_threads(1)
    for name in tqdm(chosen, desc="bench_ops", unit="row", disable=None):
        for row in ROWS[name](setup):
            rows.append(row)
            tqdm.write("\n" + table(row))
    words = " ".join(arguments if arguments is not None else sys.argv[1:])
    report = {
        "schema": SCHEMA_VERSION,
        "benchmark": "bench_ops",
        "command": f"python benches/bench_ops.py {words}".rstrip(),
        "method": METHOD,
        "environment": environment([row["threads"] for row in rows]),
        "load": {"start": started, "end": load_average()},
        "rows": rows,
    }
    write(report, given.out)
    aimed = [entry for row in rows for entry in row["lines"] if entry["met"] is not None]
    tqdm.write(f"\n{sum(entry['met'] for entry in aimed)} of {len(aimed)} aims met; written to {given.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
