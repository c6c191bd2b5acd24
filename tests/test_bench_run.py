"""The runner of the benchmark: every row runs, what fails is told and costs no other row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benching import BENCHES

# After benching, which puts the benchmark's folder on the path.
import report  # isort: skip

ROOT = BENCHES.parent
MODULE = """
import os
import harness

def nap(setup):
    contender = harness.Contender("mixops", lambda x, k: None, True)
    yield harness.measure(harness.Row("nap", "a nap", [None], 1, [contender]), 1)

def wrong(setup):
    contender = harness.Contender("peer", lambda x, k: None, False, lambda: 1.0)
    yield harness.measure(harness.Row("wrong", "other work", [None], 1, [contender]), 1)

def killed(setup):
    os.kill(os.getpid(), 9)
    yield {}

def settings(setup):
    words = ",".join(sorted(name for name in os.environ if name.startswith("MALLOC_")))
    step = lambda x, k: None
    yield harness.measure(harness.Row("settings", words, [None], 1, [harness.Contender("mixops", step, True)]), 1)

ROWS = {"wrong": wrong, "killed": killed, "nap": nap, "settings": settings}
HEADLINE = ("nap", "settings")
"""


def run(*words: object, cwd: Path = ROOT, script: Path = BENCHES / "run.py") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *map(str, words)], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """The benchmark with rows of its own: two that work, one whose contender does other work, one that is killed."""
    for path in BENCHES.glob("*.py"):
        if not path.stem.endswith("_rows"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "limit_rows.py").write_text(MODULE, encoding="utf-8")
    return tmp_path / "run.py"


def read(path: Path) -> dict[str, Any]:
    written = json.loads(path.read_text(encoding="utf-8"))
    report.check(written)
    return written  # type: ignore[no-any-return]


def listed() -> list[list[str]]:
    """The name of every row, whether it belongs to the headline, and its chapter."""
    return [line.split(None, 2) for line in run("--list").stdout.splitlines()]


def test_every_row_runs_on_tiny_arrays_and_does_the_same_work(tmp_path: Path) -> None:
    out = tmp_path / "tiny.json"
    done = run("--full", "--tiny", "--rounds", 1, "--allocator", "as it comes", "--out", out)
    assert done.returncode == 0, done.stderr[-4000:]
    written = read(out)
    assert written["failures"] == []
    assert {(row["entry"], row["chapter"]) for row in written["rows"]} == {
        (name, chapter) for name, _, chapter in listed()
    }
    assert {"mixops", "timm", "torchvision", "kornia", "numba"} <= set(written["environment"]["versions"])


def test_the_committed_run_has_every_row_of_the_headline() -> None:
    written = read(BENCHES / "results" / "headline.json")
    assert written["failures"] == []
    wanted = {name for name, kind, _ in listed() if kind == "headline"}
    for allocator in written["allocators"]:
        assert {row["entry"] for row in written["rows"] if row["allocator"] == allocator} == wanted


def test_a_row_that_fails_or_dies_is_told_and_costs_no_other(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "part.json"
    done = run("--rows", "wrong,killed,nap", "--rounds", 1, "--allocator", "tuned", "--out", out, script=suite)
    assert done.returncode == 1
    written = read(out)
    assert [row["name"] for row in written["rows"]] == ["nap"]
    assert [(f["name"], f["allocator"]) for f in written["failures"]] == [("wrong", "tuned"), ("killed", "tuned")]
    assert "not the same work" in written["failures"][0]["error"]
    assert "status -9" in written["failures"][1]["error"]
    assert "could not be measured" in out.with_suffix(".md").read_text(encoding="utf-8")


def test_every_headline_row_is_measured_once_on_each_allocator(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "both.json"
    done = run("--rounds", 1, "--out", out, script=suite)
    assert done.returncode == 0, done.stderr
    written = read(out)
    found = [(row["name"], row["allocator"], row["title"]) for row in written["rows"] if row["name"] == "settings"]
    given = ",".join(sorted(name for name in os.environ if name.startswith("MALLOC_")))
    tuned = ",".join(sorted({*given.split(","), *written["allocators"]["tuned"]} - {""}))
    assert found == [("settings", "as it comes", given), ("settings", "tuned", tuned)]
    assert [row["name"] for row in written["rows"]] == ["nap", "settings"] * 2
    assert written["command"] == "python benches/run.py --rounds 1"
    assert {*written["took"]} == {"as it comes", "tuned"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rows", "nap,swim", "--out", "none.json"], "swim"),
        (["--rounds", "0"], "--rounds 0"),
        (["--tiny"], "--out"),
        (["--rows", "nap"], "--out"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    words: list[str], said: str, suite: Path, tmp_path: Path
) -> None:
    before = {path for path in tmp_path.iterdir() if path.name != "__pycache__"}
    done = run(*words, cwd=tmp_path, script=suite)
    assert done.returncode == 2
    assert said in done.stderr
    assert {path for path in tmp_path.iterdir() if path.name != "__pycache__"} == before
