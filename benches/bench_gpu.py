"""Throughput on a GPU, beside a copy and the peers: measure the rows, write them as JSON, and make the report.

    python -m benches.bench_gpu [--rows a,b*] [--rounds N] [--out FILE]

Exit status 2 where there is no GPU that the kernel can be used on; 1 if a row could not be measured, or if its
contenders do not do the same work. ``--tiny`` shows on any machine with g++ that all runs: tiny batches, the kernel
compiled for the CPU, the CPU's clock; its report says so, and cannot take the place of one from a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# Last: the tests have a module called peers, too.
sys.path[:0] = [str(HERE)]
sys.path.append(str(HERE.parent / "tests"))

import from_checkout  # noqa: E402, F401
import gpu_call_rows  # noqa: E402
import gpu_operator_rows  # noqa: E402
import gpu_rows  # noqa: E402
import peers  # noqa: E402
import torch  # noqa: E402
from gpu_facts import facts, state, versions  # noqa: E402
from gpu_lab import Lab  # noqa: E402
from gpu_timing import METHOD, EventClock, GpuRow, HostClock, measure  # noqa: E402
from machine import environment, load_average  # noqa: E402
from page import write_pages  # noqa: E402
from peers import lent  # noqa: E402
from report import SCHEMA_VERSION, write  # noqa: E402
from tables import row_text  # noqa: E402
from tqdm import tqdm  # type: ignore[import-untyped]  # noqa: E402  # has no stubs of its own

RESULT = HERE / "results" / "gpu.json"
CHAPTERS: dict[str, dict[str, Callable[[Lab], GpuRow]]] = {
    "Ceilings": gpu_rows.CEILINGS,
    "Whole batches of images": gpu_rows.IMAGES,
    "Every operator": gpu_operator_rows.ROWS,
    "What the host takes": gpu_call_rows.ROWS,
}
ALLOCATOR = "torch's"
NO_GPU = "no GPU: a run on the CPU that shows that all rows run"


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    given = _arguments(words)
    if given.list:
        for chapter, rows in CHAPTERS.items():
            for name in rows:
                print(f"{name:26} {chapter}")
        return 0
    if given.tiny:
        with _on_the_cpu() as lab:
            return run(lab, given, words)
    missing = _missing()
    if missing is not None:
        print(f"bench_gpu: {missing}. Nothing was measured.", file=sys.stderr)
        return 2
    device = torch.device("cuda", torch.cuda.current_device())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MIXOPS_CACHE_DIR"] = folder  # what compiling takes is told: nothing is there yet
        return run(Lab(device, EventClock(device)), given, words)


def _missing() -> str | None:
    """Why nothing can be measured here; None if it can."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA GPU here; it takes a machine with one, its driver, and a CUDA build of torch"
    from mixops.backends.cuda.available import reason

    return reason(torch.empty(1, device="cuda"))


@contextmanager
def _on_the_cpu() -> Iterator[Lab]:
    """A lab without a GPU: the kernel as g++ compiles it, on arrays of a few bytes; torch.compile does nothing."""
    from host_chip import on_the_host

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with on_the_host(), lent(peers, "compiled", lambda function: function):
            sizes: dict[str, Any] = {"large": (4, 16), "odd": (3, 5), "small": (4, 8), "hidden": (4, 24, 8)}
            yield Lab(torch.device("cpu"), HostClock(), **sizes, tokens=(6, 24), edits=(6, 24), draws=2, rotated=1)
    finally:
        torch.set_num_threads(before)


def run(lab: Lab, given: argparse.Namespace, words: Sequence[str]) -> int:
    """Measure the rows asked for, write the report and its pages, and print how many aims were met."""
    started, clock = load_average(), time.monotonic()
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    took: dict[str, float] = {}
    before = state(lab.device)
    names = {name: (chapter, make) for chapter, some in CHAPTERS.items() for name, make in some.items()}
    for name in tqdm(given.rows, unit="row", disable=None):
        (chapter, make), since = names[name], time.monotonic()
        try:
            made = measure(make(lab), given.rounds, lab.clock, lab.device, lab.rotated)
        except Exception as error:  # the other rows are still worth measuring, and the report says which one is not
            failures.append({"name": name, "allocator": ALLOCATOR, "error": f"{type(error).__name__}: {error}"})
            tqdm.write(f"\n{name}: FAILED: {failures[-1]['error']}")
        else:
            if not lab.clock.gpu:
                made["notes"].insert(0, NO_GPU)
            shown = {"entry": name, "chapter": chapter, "headline": True, "allocator": ALLOCATOR}
            rows.append(made | shown)
            tqdm.write("\n" + row_text(rows[-1]))
        took[name] = time.monotonic() - since
        if lab.clock.gpu:
            torch.cuda.empty_cache()
    around = {f"{what}, {when}": v for when, found in (("before", before), ("after", state(lab.device)))
              for what, v in found.items()}  # fmt: skip
    machine = environment([torch.get_num_threads()])
    machine["versions"] |= versions()
    report = {
        "schema": SCHEMA_VERSION,
        "benchmark": "gpu" if lab.clock.gpu else NO_GPU,
        "command": _command(words),
        "method": METHOD,
        "environment": machine | {"gpu": facts(lab.device) | around},
        "allocators": {ALLOCATOR: {}},
        "load": {"start": started, "end": load_average()},
        "seconds": time.monotonic() - clock,
        "took": {ALLOCATOR: took},
        "failures": failures,
        "rows": rows,
    }
    write(report, given.out)
    pages = write_pages(json.loads(given.out.read_text(encoding="utf-8")), given.out)  # as rounded as the file
    aims = [line for row in rows for line in row["lines"] if line["met"] is not None]
    print(f"\n{sum(line['met'] for line in aims)} of {len(aims)} aims met, {len(failures)} rows failed")
    print(f"{report['seconds']:.0f} s; written to {given.out}, {', '.join(map(str, pages))}")
    if not lab.clock.gpu:
        print(NO_GPU)
    return 1 if failures else 0


def _command(words: Sequence[str]) -> str:
    """What to type for the same rows; where the file lay is nobody's business."""
    parts = [word for i, word in enumerate(words) if word != "--out" and words[i - 1 : i] != ["--out"]]
    return shlex.join(["python", "-m", "benches.bench_gpu", *(p for p in parts if not p.startswith("--out="))])


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_gpu", description="Throughput on a GPU.")
    parser.add_argument("--list", action="store_true", help="say which rows there are, and measure none")
    parser.add_argument("--rows", help="names of rows, with commas; a name that ends in * takes all that start so")
    parser.add_argument("--rounds", type=int, default=21, help="times each contender is timed (default %(default)s)")
    parser.add_argument("--out", type=Path, help=f"the JSON; pages go beside it (default {RESULT.name} in results/)")
    parser.add_argument("--tiny", action="store_true", help="tiny batches on the CPU: shows that all runs, needs g++")
    given = parser.parse_args(words)
    if given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: expected 1 or more")
    if given.out is None and (given.tiny or given.rows):
        parser.error("--tiny and --rows need --out: a part is no result to be committed")
    if given.tiny and given.out.resolve() == RESULT.resolve():
        parser.error(f"--tiny --out {given.out}: that is where results of a GPU lie, and a tiny run is none")
    given.out = given.out or RESULT
    every = [name for rows in CHAPTERS.values() for name in rows]
    asked = given.rows.split(",") if given.rows else every
    for one in asked:
        if not any(_means(one, name) for name in every):
            parser.error(f"--rows {one}: expected some of {', '.join(every)}, or the start of a name and *")
    given.rows = [name for name in every if any(_means(one, name) for one in asked)]
    return given


def _means(asked: str, name: str) -> bool:
    return asked == name or (asked.endswith("*") and name.startswith(asked[:-1]))


if __name__ == "__main__":
    raise SystemExit(main())
