"""The row on first calls: what the kernels cost before they are compiled, and when their cache is on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from batches import Setup, shape_of
from harness import Contender, Row, summary

SCRIPT = Path(__file__).parent / "first_call.py"


def _elsewhere(x: Any, k: int) -> None:
    raise RuntimeError("a first call is timed in a process of its own")


def first_call(setup: Setup) -> Iterator[dict[str, Any]]:
    """The first calls of the kernels in a fresh process: with an empty cache, then with the cache that left."""
    seconds: dict[str, list[float]] = {}
    words = ["--one"] if setup.tiny else []
    for _ in range(min(setup.rounds, 3)):
        with tempfile.TemporaryDirectory() as cache:
            for state in ("empty cache", "cached"):
                done = subprocess.run(
                    [sys.executable, SCRIPT, *words],
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


ROWS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {"first-call": first_call}
#: Compiling takes a minute, and is no throughput.
HEADLINE: tuple[str, ...] = ()
