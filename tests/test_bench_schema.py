"""The benchmark: its committed report has the form it claims; its harness measures, refuses and writes as it says."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCHES = Path(__file__).parent.parent / "benches"
COMMITTED = BENCHES / "results" / "bench_ops.json"


def load(name: str) -> ModuleType:
    # By path, under a name of its own: the tests have a module called peers too.
    spec = importlib.util.spec_from_file_location(f"benches_{name}", BENCHES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


harness, report = load("harness"), load("report")


def committed() -> dict[str, Any]:
    return json.loads(COMMITTED.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def sleeper(seconds: float) -> Any:
    return lambda x, k: time.sleep(seconds)


def row_of(*contenders: Any, **options: Any) -> Any:
    return harness.Row("naps", "how long a nap takes", [None], 2, contenders, **options)


def test_the_committed_report_obeys_the_schema() -> None:
    report.check(committed())


def test_the_committed_report_answers_every_line_that_was_aimed_at() -> None:
    aims = {(row["name"], line["what"]): line for row in committed()["rows"] for line in row["lines"] if line["target"]}
    asked = {
        ("mixup-inplace", "timm Mixup, mode=batch ÷ mixops"): 9,
        ("mixup-out", "torchvision v2 Mixup ÷ mixops"): 7,
        ("mixup-out", "torch.compile, kept output ÷ mixops, images only"): 1.2,
        ("cutmix-inplace", "timm CutMix, mode=batch ÷ mixops"): 10,
        ("cutmix-out", "torchvision v2 CutMix ÷ mixops"): 5,
        ("mixup-uint8", "timm FastCollateMixup, mode=batch ÷ mixops, list of samples"): 7,
        ("erase", "timm RandomErasing, mode=const ÷ mixops"): 1.2,
    }
    assert {key: aims[key]["target"] for key in asked} == asked
    assert sum(name == "draw" for name, _ in aims) >= 5
    assert sum(name == "first-call" for name, _ in aims) >= 2


@pytest.mark.parametrize(
    ("spoil", "place"),
    [
        (lambda r: r.pop("load"), "report: got keys"),
        (lambda r: r["rows"][0].update(threads="1"), r"rows\[0\]\.threads"),
        (lambda r: r["rows"][0].update(draws=True), r"rows\[0\]\.draws"),
        (lambda r: r["rows"][0]["contenders"][0].update(gb_per_s=float("nan")), "finite"),
        (lambda r: r["rows"][0].update(clean_rounds=0), "clean rounds"),
        (lambda r: r["rows"][0]["contenders"][0]["ms"].update(q1=1e9), "quartiles out of order"),
        (lambda r: r["rows"][0]["lines"][0].update(met=not r["rows"][0]["lines"][0]["met"]), "its numbers say"),
        (lambda r: r.update(schema=0), "report.schema"),
    ],
)
def test_a_report_that_breaks_the_schema_is_refused(spoil: Any, place: str, tmp_path: Path) -> None:
    spoiled = copy.deepcopy(committed())
    spoil(spoiled)
    with pytest.raises(ValueError, match=place):
        report.write(spoiled, tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


def test_writing_replaces_the_report_whole(tmp_path: Path) -> None:
    path = tmp_path / "results" / "report.json"
    report.write(committed(), path)
    report.write(committed(), path)
    assert json.loads(path.read_text(encoding="utf-8")) == committed()
    assert list(path.parent.iterdir()) == [path]


def test_the_ratio_of_two_naps_is_the_ratio_of_their_lengths() -> None:
    short, long = harness.Contender("short", sleeper(0.002), True), harness.Contender("long", sleeper(0.008))
    measured = harness.measure(row_of(short, long, ratios=[harness.Ratio("long", "short", at_least=2)]), rounds=5)
    (line,) = measured["lines"]
    assert 2 < line["median"] <= 4.1
    assert line["met"]
    assert line["margin"] == pytest.approx(line["median"] / 2 - 1)
    assert {c["name"]: c["ours"] for c in measured["contenders"]} == {"short": True, "long": False, "copy": False}
    assert min(c["ms"]["min"] for c in measured["contenders"] if c["name"] == "short") >= 2


def test_a_line_that_is_missed_says_by_how_much() -> None:
    nap = harness.Contender("nap", sleeper(0.003), True)
    (line,) = harness.measure(row_of(nap, limit=0.001), rounds=3)["lines"]
    assert not line["met"]
    assert line["bound"] == "at most"
    assert line["target"] == pytest.approx(1)
    assert line["margin"] == pytest.approx(1 - line["median"])
    assert line["margin"] <= -2


def test_every_contender_is_called_equally_often_at_every_draw() -> None:
    calls: dict[str, list[int]] = {"one": [], "other": []}
    noting = [harness.Contender(name, lambda x, k, name=name: calls[name].append(k)) for name in calls]
    harness.measure(row_of(*noting), rounds=3)
    assert calls["one"] == calls["other"] == [0, 0] + [0, 1] * 3


def test_rounds_whose_copy_is_off_are_left_out() -> None:
    row = row_of(harness.Contender("mine", sleeper(0)))
    seconds = {"mine": np.array([1.0, 1.1, 9.0, 1.2]), "copy": np.array([2.0, 2.1, 4.0, 2.0])}
    measured = harness.summary(row, seconds, {})
    assert (measured["clean_rounds"], measured["rounds"]) == (3, 4)
    assert measured["contenders"][0]["ms"]["median"] == pytest.approx(1100)


def test_a_contender_that_does_other_work_is_refused() -> None:
    wrong = harness.Contender("wrong", sleeper(0), check=lambda: 0.5)
    with pytest.raises(ValueError, match=r"wrong is off by 0\.5"):
        harness.measure(row_of(wrong, tolerance=0.25), rounds=1)
    unknown = harness.Contender("unknown", sleeper(0), check=lambda: float("nan"))
    with pytest.raises(ValueError, match="unknown is off by nan"):
        harness.measure(row_of(unknown, tolerance=0.25), rounds=1)


def test_bytes_become_a_rate_and_a_multiple_of_copy_and_floor() -> None:
    size = 4 << 20
    nap = harness.Contender("nap", sleeper(0.02))
    measured = harness.measure(row_of(nap, moved=2.0 * size, result=size), rounds=3)
    entries = {c["name"]: c for c in measured["contenders"]}
    assert set(entries) == {"nap", "copy", "floor"}
    assert entries["copy"]["over_copy"] == entries["floor"]["over_floor"] == 1
    assert entries["nap"]["over_copy"] > 1
    assert entries["nap"]["gb_per_s"] == pytest.approx(2 * size / entries["nap"]["ms"]["median"] / 1e6)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_copies_copy(threads: int) -> None:
    for copier in (harness.PlainCopy(6400, threads), harness.FloorCopy(6400, threads)):
        for i, source in enumerate(copier.sources):
            source[:] = i % 251
        copier.step(3)
        assert (copier.target == 3).all()


def test_the_script_runs_on_tiny_arrays_and_writes_a_good_report(tmp_path: Path) -> None:
    out = tmp_path / "tiny.json"
    command = [sys.executable, BENCHES / "bench_ops.py", "--tiny", "--rounds", "2", "--rows", "per-sample,draw"]
    done = subprocess.run([*command, "--out", out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text(encoding="utf-8"))
    report.check(written)
    assert [row["name"] for row in written["rows"]][-1] == "draw"
    assert len(written["rows"]) == 5
    assert "aims met" in done.stdout


def test_an_unknown_row_is_named_before_anything_runs(tmp_path: Path) -> None:
    command = [sys.executable, BENCHES / "bench_ops.py", "--rows", "draw,swim", "--out", tmp_path / "none.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "swim" in done.stderr
    assert list(tmp_path.iterdir()) == []
