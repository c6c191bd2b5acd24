"""What the tests of the benchmark share: its folder on the path, a small report, naps, processes and threads."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHES = Path(__file__).parent.parent / "benches"
# Last: what the tests call theirs comes first.
sys.path.append(str(BENCHES))

import harness  # noqa: E402
from machine import environment  # noqa: E402
from report import SCHEMA_VERSION  # noqa: E402


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the grid of the studies has it: threads on networks so small wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sleeper(seconds: float) -> Any:
    return lambda x, k: time.sleep(seconds)


def gone(process: int, seconds: float = 10) -> bool:
    """Whether a process ends within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        # A child of a killed parent may stay as a zombie where nobody collects it.
        if Path(f"/proc/{process}/stat").exists() and " Z " in Path(f"/proc/{process}/stat").read_text():
            return True
        time.sleep(0.1)
    return False


def row_of(*contenders: Any, **options: Any) -> Any:
    return harness.Row("naps", "how long a nap takes", [None], 2, contenders, **options)


def measured(name: str = "naps", allocator: str = "as it comes", **changes: Any) -> dict[str, Any]:
    """A row as a report holds it: one of ours, a peer that takes twice as long, and a copy; one aim, met or not."""
    entries = [("mixops", True, 2.0), ("peer", False, 4.0), ("copy", False, 1.0)]
    contenders = [
        {
            "name": who,
            "ours": ours,
            "ms": {"median": ms, "q1": ms, "q3": ms, "min": ms},
            "over_copy": ms,
            "over_floor": None,
            "gb_per_s": None,
            "difference": None,
        }
        for who, ours, ms in entries
    ]
    row = {
        "name": name,
        "title": f"what {name} takes",
        "entry": name,
        "chapter": "Naps",
        "headline": True,
        "allocator": allocator,
        "threads": 1,
        "draws": 1,
        "rounds": 3,
        "clean_rounds": 3,
        "bytes_moved": 0,
        "result_bytes": 0,
        "contenders": contenders,
        "lines": [ratio("peer ÷ mixops", 2.0, at_least=1.6)],
        "curves": [],
        "notes": [],
    }
    return row | changes


def ratio(what: str, value: float, **aim: float) -> dict[str, Any]:
    return harness.line(what, {"median": value, "q1": value, "q3": value}, "x", **aim)


def report_of(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A whole report of some rows."""
    whole = {
        "schema": SCHEMA_VERSION,
        "benchmark": "headline",
        "command": "python benches/run.py",
        "method": harness.METHOD,
        "environment": environment([1]),
        "allocators": {"as it comes": {}, "tuned": {"MALLOC_TOP_PAD_": "1"}},
        "load": {"start": 0.0, "end": None},
        "seconds": 1.5,
        "took": {"as it comes": {row["entry"]: 0.5 for row in rows}},
        "failures": [],
        "rows": list(rows),
    }
    return whole | changes
