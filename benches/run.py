"""Throughput beside the peers: measure the rows, write them as JSON, and make the report.

    python benches/run.py [--full] [--rows a,b*] [--rounds N] [--allocator both] [--out FILE]

Without ``--full``: the headline. Every row is measured twice, in two processes: on the allocator as it comes, and on
one that keeps its memory. Exit status 1 if a row could not be measured, or if its contenders do not do the same work.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from catalogue import chosen, entries
from harness import METHOD
from machine import ALLOCATORS, environment, load_average
from page import write_pages
from report import SCHEMA_VERSION, write
from tables import row_text
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def measured(names: Sequence[str], rounds: int, small: bool, allocator: str) -> Iterator[dict[str, Any]]:
    """The events of a process that measures rows on one allocator; another goes on where a process died."""
    waiting = list(names)
    while waiting:
        reading, writing = os.pipe()
        command = [sys.executable, str(HERE / "one_pass.py"), "--rows", ",".join(waiting), "--rounds", str(rounds)]
        # torch.compile takes ten seconds a kernel: a tiny run is about the rest.
        tame = {"TORCH_COMPILE_DISABLE": "1"} if small else {}
        process = subprocess.Popen(
            [*command, "--to", str(writing), *(["--tiny"] if small else [])],
            env={**os.environ, "TQDM_DISABLE": "1", **tame, **ALLOCATORS[allocator]},
            pass_fds=(writing,),
            stdout=sys.stderr,
        )
        os.close(writing)
        try:
            with os.fdopen(reading, encoding="utf-8") as lines:
                for line in lines:
                    event = json.loads(line)
                    if event["event"] == "end":
                        waiting.remove(event["name"])
                    yield event
        finally:
            if process.poll() is None and waiting:
                process.terminate()
            status = process.wait()
        if waiting:
            name = waiting.pop(0)
            yield {"event": "failed", "name": name, "error": f"the process ended with status {status}"}
            yield {"event": "end", "name": name}


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    given = _arguments(words)
    if given.list:
        for entry in entries().values():
            print(f"{entry.name:32} {'headline' if entry.headline else 'full':8} {entry.chapter}")
        return 0
    try:
        wanted = chosen(entries(), given.rows.split(",") if given.rows else None, given.full)
    except ValueError as error:
        print(f"run.py: --rows {error}", file=sys.stderr)
        return 2
    allocators = list(ALLOCATORS) if given.allocator == "both" else [given.allocator]
    names, started, clock = [entry.name for entry in wanted], load_average(), time.monotonic()
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    took: dict[str, dict[str, float]] = {name: {} for name in allocators}
    with tqdm(total=len(names) * len(allocators), unit="row", disable=None) as bar:
        for allocator in allocators:
            since = time.monotonic()
            for event in measured(names, given.rounds, given.tiny, allocator):
                if event["event"] == "start":
                    since = time.monotonic()
                    bar.set_description(f"{event['name']}, allocator {allocator}")
                elif event["event"] == "row":
                    rows.append({**event["row"], "allocator": allocator})
                    tqdm.write("\n" + row_text(rows[-1]))
                elif event["event"] == "failed":
                    failures.append({"name": event["name"], "allocator": allocator, "error": event["error"]})
                    tqdm.write(f"\n{event['name']}, allocator {allocator}: FAILED: {event['error']}")
                else:
                    took[allocator][event["name"]] = time.monotonic() - since
                    bar.update()
    report = {
        "schema": SCHEMA_VERSION,
        "benchmark": "full" if given.full else "headline",
        "command": _command(words),
        "method": METHOD,
        "environment": environment([row["threads"] for row in rows]),
        "allocators": {name: ALLOCATORS[name] for name in allocators},
        "load": {"start": started, "end": load_average()},
        "seconds": time.monotonic() - clock,
        "took": took,
        "failures": failures,
        "rows": rows,
    }
    write(report, given.out)
    pages = write_pages(json.loads(given.out.read_text(encoding="utf-8")), given.out)  # as rounded as the file
    aims = [line for row in rows for line in row["lines"] if line["met"] is not None]
    print(f"\n{sum(line['met'] for line in aims)} of {len(aims)} aims met, {len(failures)} rows failed")
    print(f"{report['seconds']:.0f} s; written to {given.out}, {', '.join(map(str, pages))}")
    return 1 if failures else 0


def _command(words: Sequence[str]) -> str:
    """What to type for the same rows; where the file lay is nobody's business."""
    parts = [word for i, word in enumerate(words) if word != "--out" and words[i - 1 : i] != ["--out"]]
    return shlex.join(["python", "benches/run.py", *(p for p in parts if not p.startswith("--out="))])


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Throughput beside the peers.")
    parser.add_argument("--full", action="store_true", help="the whole matrix, not the headline only")
    parser.add_argument("--list", action="store_true", help="say which rows there are, and measure none")
    parser.add_argument("--rows", help="names of rows, with commas; a name that ends in * takes all that start so")
    parser.add_argument("--rounds", type=int, default=9, help="times each contender is timed (default %(default)s)")
    parser.add_argument("--allocator", choices=["both", *ALLOCATORS], default="both")
    parser.add_argument("--out", type=Path, help="the JSON; the report goes beside it")
    parser.add_argument("--tiny", action="store_true", help="on tiny arrays: shows that all runs, not how fast it is")
    given = parser.parse_args(words)
    if given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: expected 1 or more")
    if given.out is None:
        if given.tiny or given.rows:
            parser.error("--tiny and --rows need --out: a part is no result to be committed")
        given.out = RESULTS / ("full.json" if given.full else "headline.json")
    return given


if __name__ == "__main__":
    raise SystemExit(main())
