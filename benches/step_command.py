"""The command of a bench that times training steps: its arguments, its rows, its report and the pages beside it."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import environment, load_average
from page import write_pages
from report import SCHEMA_VERSION, write
from tables import row_text
from tqdm import tqdm  # type: ignore[import-untyped]  # has no stubs of its own


@dataclass(frozen=True)
class StepBench:
    """What is timed.

    Args:
        name: of the benchmark in the report.
        script: file that is run.
        about: what it answers, one line.
        method: how, by name.
        out: the JSON of a run that is committed.
        measured: of (tiny, rounds, threads): rows as the report holds them, each with the seconds it took.
    """

    name: str
    script: str
    about: str
    method: Mapping[str, str]
    out: Path
    measured: Callable[[bool, int, int], Iterator[tuple[dict[str, Any], float]]]


def run_steps(bench: StepBench, arguments: Sequence[str] | None = None) -> int:
    """Time the rows, write JSON and pages; 1 where contenders do not do the same work."""
    parser = argparse.ArgumentParser(description=bench.about)
    parser.add_argument("--rounds", type=int, default=11, help="times each step is timed (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default %(default)s)")
    given = parsed(parser, arguments, ("rounds", "threads"), bench.out)
    started, clock = load_average(), time.monotonic()
    rows: list[dict[str, Any]] = []
    took: dict[str, float] = {}
    try:
        for told, seconds in bench.measured(given.tiny, given.rounds, given.threads):
            rows.append(told)
            took[told["entry"]] = seconds
            tqdm.write("\n" + row_text(told))
    except ValueError as error:
        print(f"{bench.script}: {error}", file=sys.stderr)
        return 1
    report = {
        "schema": SCHEMA_VERSION,
        "benchmark": bench.name,
        "command": typed(bench.script, given, ("rounds", "threads")),
        "method": dict(bench.method),
        "environment": environment([given.threads]),
        "allocators": {"as it comes": {}},
        "load": {"start": started, "end": load_average()},
        "seconds": time.monotonic() - clock,
        "took": {"as it comes": took},
        "failures": [],
        "rows": rows,
    }
    write(report, given.out)
    pages = write_pages(json.loads(given.out.read_text(encoding="utf-8")), given.out)  # as rounded as the file
    print(f"{report['seconds']:.0f} s; written to {given.out}, {', '.join(map(str, pages))}")
    return 0


def parsed(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, counts: Sequence[str], out: Path
) -> argparse.Namespace:
    """The arguments, with --out and --tiny; those in ``counts`` are checked to be 1 or more."""
    parser.add_argument("--out", type=Path, help="the JSON; pages go beside it")
    parser.add_argument("--tiny", action="store_true", help="a tiny run: shows that all runs, not how fast it is")
    given = parser.parse_args(sys.argv[1:] if arguments is None else list(arguments))
    for name in counts:
        if getattr(given, name) < 1:
            parser.error(f"--{name} {getattr(given, name)}: expected 1 or more")
    if given.tiny and given.out is None:
        parser.error("--tiny needs --out: a tiny run is no result to be committed")
    given.out = given.out or out
    return given


def typed(script: str, given: argparse.Namespace, counts: Sequence[str]) -> str:
    """What to type for the same rows; where the file lay is nobody's business."""
    words = [word for name in counts for word in (f"--{name}", str(getattr(given, name)))]
    return shlex.join(["python", f"benches/{script}", *words, *(["--tiny"] if given.tiny else [])])
