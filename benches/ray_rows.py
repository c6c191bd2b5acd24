"""Rows a second and core of a corpus mixed by Ray, and by the plain loop; Parquet in and Parquet out in both.

    python benches/ray_rows.py [--rounds N] [--rows N] [--out FILE] [--tiny]

Both write the same files, whose bytes are compared. Starting Ray is told apart: it is paid once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # has no stubs of its own
from machine import environment, load_average, ran
from mixops.pipelines.corpus.columns import as_column, as_lists
from mixops.pipelines.corpus.mixing import mix_corpus
from mixops.pipelines.ray_ import ray_session
from pyarrow import parquet
from report import write_text
from step_command import parsed, typed

import mixops as mx

OUT = Path(__file__).parent / "results" / "ray_rows.json"
COUNTS = ("rounds", "rows")
#: Of the plain loop's rows a second and core.
AIM = 0.5
# For each core: the same number on each, and some tens of thousands of sentences in one, as a large corpus would have.
SHARDS = 4
METHOD = {
    "plain": "rows a second of mix_corpus(engine='local'): one process, one thread",
    "plain, all": "rows a second and core of as many such processes side by side as there are cores, each on all rows: "
    "what the machine has for whoever uses all of it",
    "Ray, 1": "rows a second of mix_corpus(engine='ray') on a Ray that is running, with one worker",
    "Ray, all": "rows a second and core of the same with a worker for each core, which Ray's own work shares",
    "shards": f"{SHARDS} for each core; each costs Ray some time of its own, whatever is in it",
    "aim": f"Ray, 1 and Ray, all are at least {AIM} of the plain loop",
}


def corpora(rows: int) -> dict[str, tuple[pa.Table, mx.Operator, dict[str, Any], int]]:
    """A table, what mixes it, its fields and rows of a group, by name."""
    rng = np.random.default_rng(0)
    images = max(rows // 8, 64)
    image = as_column(rng.integers(0, 256, (images, 32, 32, 3), np.uint8))
    flat = rng.integers(5, 40, rows)
    words = pa.array([f"word{i}" for i in range(20_000)]).take(pa.array(rng.integers(0, 20_000, int(flat.sum()))))
    tokens, scores = as_lists(words, flat), as_lists(pa.array(rng.random(len(words))), flat)
    both = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)], per="sample")
    return {
        "images (32, 32, 3), Mixup or CutMix": (
            pa.table({"image": image, "label": np.arange(images) % 10}), both,
            {"image": mx.Field("b h w c"), "label": mx.Labels(10)}, 256,
        ),
        "sentences of 5 to 39 words, SSMix": (
            pa.table({"tokens": tokens, "saliency": scores, "label": np.arange(rows) % 4}), mx.SSMix(0.1),
            {"tokens": mx.Field("b t", "discrete"), "label": mx.Labels(form="pair")}, 1024,
        ),
    }  # fmt: skip


def timed(workers: int, source: Path, out: Path, op: Any, fields: Any, group: int, shard: int) -> tuple[float, str]:
    """Seconds, and what tells the files from others."""
    options: dict[str, Any] = {"engine": "ray", "workers": workers} if workers else {"engine": "local"}
    started = time.perf_counter()
    done = mix_corpus(source, op, fields, out, seed=7, group=group, shard=shard, **options)
    seconds = time.perf_counter() - started
    return seconds, hashlib.sha256("".join(shard.sha256 for shard in done.shards).encode()).hexdigest()


def timed_side_by_side(
    pool: ProcessPoolExecutor, count: int, source: Path, out: Path, *work: Any
) -> tuple[float, set[str]]:
    """Seconds until the last of ``count`` plain loops is done, and what tells their files from others."""
    started = time.perf_counter()
    running = [pool.submit(timed, 0, source, Path(f"{out}-{i}"), *work) for i in range(count)]
    digests = {one.result()[1] for one in running}
    return time.perf_counter() - started, digests


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="times each is timed (default %(default)s)")
    parser.add_argument("--rows", type=int, default=400_000, help="sentences; an eighth as many images (%(default)s)")
    given = parsed(parser, arguments, COUNTS, OUT)
    if given.tiny:
        given.rounds, given.rows = 1, 2000
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    started, clock, rows = load_average(), time.monotonic(), []
    logging.getLogger("ray").setLevel(logging.ERROR)
    spawned = multiprocessing.get_context("spawn")  # what Ray has started in this process does not survive a fork
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(cores, spawned) as pool,
        ray_session(workers=cores),
    ):
        starting = time.monotonic() - clock
        for name, (table, op, fields, group) in corpora(given.rows).items():
            source = Path(folder) / "in.parquet"
            shard = max(len(table) // (SHARDS * cores), group)
            parquet.write_table(table, source, row_group_size=shard)
            rates: dict[int, list[float]] = {workers: [] for workers in (0, 1, cores)}
            beside, digests = [], set()
            # The first warms up: kernels, workers, the files in memory. A tiny run says nothing of speed.
            for i in range(given.tiny, given.rounds + 1):
                for workers, held in rates.items():
                    out = Path(folder) / f"{len(rows)}-{i}-{workers}"
                    seconds, digest = timed(workers, source, out, op, fields, group, shard)
                    digests.add(digest)
                    if i:
                        held.append(len(table) / seconds / max(workers, 1))
                out = Path(folder) / f"{len(rows)}-{i}-beside"
                seconds, found = timed_side_by_side(pool, cores, source, out, op, fields, group, shard)
                digests |= found
                if i:
                    beside.append(len(table) / seconds)
            if len(digests) > 1:
                print(f"ray_rows.py: {name}: the engines wrote different files", file=sys.stderr)
                return 1
            plain, one, every = (float(np.median(rates[workers])) for workers in (0, 1, cores))
            rows.append({"name": name, "rows": len(table), "rates": {**rates, "beside": beside}, "plain": plain})
            rows[-1] |= {"beside": float(np.median(beside)), "one": one, "all": every}
            rows[-1] |= {"met": min(one, every) >= AIM * plain}
            print(f"{name}: plain {plain:,.0f} rows/s, Ray {one:,.0f} with 1, {every:,.0f} a core with {cores} workers")
    report = {
        "benchmark": "ray_rows",
        "command": typed("ray_rows.py", given, COUNTS),
        "method": METHOD,
        "environment": environment([1]),
        "load": {"start": started, "end": load_average()},
        "starting_ray_s": starting,
        "seconds": time.monotonic() - clock,
        "rows": rows,
    }
    write_text(json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n", given.out)
    write_text(markdown(report), given.out.with_suffix(".md"))
    print(f"{report['seconds']:.0f} s; written to {given.out}, {given.out.with_suffix('.md')}")
    return 0


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        "# Rows a second and core, by Ray and by the plain loop",
        "",
        f"{ran(report)}; {report['starting_ray_s']:.1f} s to start Ray, which no row counts.",
        "",
        *(f"- {name}: {what}" for name, what in report["method"].items()),
        "",
        f"| corpus | plain, rows / s | plain, all | Ray, 1 | of plain | Ray, all | of plain | of plain, all "
        f"| aim {AIM} |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in report["rows"]:
        told = "met" if row["met"] else "not met"
        rates = " | ".join(f"{row[name]:,.0f} | {row[name] / row['plain']:.2f}" for name in ("one", "all"))
        rates += f" | {row['all'] / row['beside']:.2f}"
        lines.append(f"| {row['name']} | {row['plain']:,.0f} | {row['beside']:,.0f} | {rates} | {told} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    raise SystemExit(main())
