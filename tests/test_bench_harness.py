"""The harness of the benchmark: it times contenders evenly, refuses other work, and fits lines to curves."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import pytest
from benching import row_of, sleeper

# After benching, which puts the benchmark's folder on the path.
import fit  # isort: skip
import guard  # isort: skip
import harness  # isort: skip
import text_rows  # isort: skip


class Clock:
    """A clock that only stands still or is turned: what is measured with it is exact on any machine."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def passes(self, *seconds: float) -> Any:
        """A step that takes these times in turn."""
        times = cycle(seconds)

        def step(x: Any, k: int) -> None:
            self.now += next(times)

        return step


def test_the_ratio_of_two_times_is_measured_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(harness, "time", clock)
    short = harness.Contender("short", clock.passes(0.002), True)
    long = harness.Contender("long", clock.passes(0.008))
    measured = harness.measure(row_of(short, long, ratios=[harness.Ratio("long", "short", at_least=2)]), rounds=5)
    (line,) = measured["lines"]
    assert [line["median"], line["q1"], line["q3"]] == pytest.approx([4, 4, 4])
    assert line["met"]
    assert line["margin"] == pytest.approx(1)
    assert {c["name"]: c["ours"] for c in measured["contenders"]} == {"short": True, "long": False, "copy": False}
    times = {c["name"]: c["ms"] for c in measured["contenders"]}
    assert times["short"] == pytest.approx(dict.fromkeys(("median", "q1", "q3", "min"), 2))
    assert times["long"]["median"] == pytest.approx(8)


def test_a_time_is_the_mean_over_the_draws_and_the_median_over_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(harness, "time", clock)
    # Two calls to warm up, then two draws a round.
    varied = harness.Contender("varied", clock.passes(9, 9, 1, 3, 2, 4, 6, 8))
    (entry, _) = harness.measure(row_of(varied), rounds=3)["contenders"]
    assert entry["ms"] == pytest.approx({"median": 3000, "q1": 2500, "q3": 5000, "min": 2000})


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


def test_nobody_always_follows_the_same_neighbour() -> None:
    called: list[str] = []
    noting = [harness.Contender(name, lambda x, k, name=name: called.append(name)) for name in "abcd"]
    harness.measure(row_of(*noting), rounds=8)
    timed = called[2 * len(noting) :]
    for name in "abcd":
        before = {timed[i - 1] for i, who in enumerate(timed) if who == name and i}
        assert len(before) > 1


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
    nap, half = harness.Contender("nap", sleeper(0.02)), harness.Contender("half", sleeper(0.02), moved=size)
    measured = harness.measure(row_of(nap, half, moved=2.0 * size, result=size), rounds=3)
    entries = {c["name"]: c for c in measured["contenders"]}
    assert set(entries) == {"nap", "half", "copy", "floor"}
    assert entries["copy"]["over_copy"] == entries["floor"]["over_floor"] == 1
    assert entries["nap"]["over_copy"] > 1
    assert entries["nap"]["gb_per_s"] == pytest.approx(2 * size / entries["nap"]["ms"]["median"] / 1e6)
    assert entries["half"]["gb_per_s"] == pytest.approx(size / entries["half"]["ms"]["median"] / 1e6)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_copies_copy(threads: int) -> None:
    for copier in (harness.PlainCopy(6400, threads), harness.FloorCopy(6400, threads)):
        for i, source in enumerate(copier.sources):
            source[:] = i % 251
        copier.step(3)
        assert (copier.target == 3).all()


def entries(series: str, times: dict[int, float]) -> list[dict[str, Any]]:
    return [{"name": f"{series}, {x}", "ms": {"median": t, "q1": t, "q3": t}} for x, t in times.items()]


def test_a_straight_line_is_found_as_overhead_and_rate() -> None:
    sizes = [1, 4, 16, 64]
    found = fit.curves(entries("ours", {x: 0.25 + 0.5 * x for x in sizes}), {f"ours, {x}": x * 1e6 for x in sizes}, "x")
    (curve,) = found
    assert curve["overhead_ms"] == pytest.approx(0.25)
    assert curve["gb_per_s"] == pytest.approx(2)
    assert curve["deviation"] == pytest.approx(0, abs=1e-9)
    assert [p["x"] for p in curve["points"]] == sizes


def test_a_bent_curve_says_how_far_it_is_from_the_line() -> None:
    sizes = [1, 2, 4, 8]
    bent = entries("ours", {x: float(x**2) for x in sizes}) + entries("theirs", {x: float(x) for x in sizes})
    moved = {f"{who}, {x}": x * 1e6 for x in sizes for who in ("ours", "theirs")}
    ours, theirs = fit.curves(bent, moved, "x")
    assert ours["deviation"] > 0.2
    assert ours["overhead_ms"] >= 0
    assert ours["gb_per_s"] > 0
    assert theirs["deviation"] == pytest.approx(0, abs=1e-9)


def test_the_guard_names_what_is_over_its_bound_every_time() -> None:
    seen = {"slow": [3.0, 2.5, 2.75], "disturbed": [3.0, 1.5], "good": [1.0]}
    (line,) = guard.broken({"slow": 2.0, "disturbed": 2.0, "good": 2.0}, lambda name: seen[name].pop(0))
    assert line.startswith("slow: takes 2.50 times the floor, at most 2 is allowed")
    assert seen == {"slow": [], "disturbed": [], "good": []}


def test_the_guard_has_a_bound_for_every_kernel_it_measures() -> None:
    bounds = guard.bounds()
    assert set(bounds) == set(guard.ROWS)
    assert all(1 < bound < 40 for bound in bounds.values())


def test_the_guard_measures_a_kernel_beside_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "ROUNDS", 3)
    monkeypatch.setattr(guard, "SETUP", guard.Setup(3, large=(4, 64)))
    for name in ("Mixup, float32, out of place", "chain to bfloat16"):
        assert guard.times_floor(guard.ROWS[name]()) > 0.2


@pytest.mark.parametrize(
    ("action", "new", "possible"),
    [
        ("swap", "badc", True),
        ("swap", "dbca", True),
        ("swap", "bcad", True),
        ("swap", "bcdea", False),
        ("swap", "abcc", False),
        ("swap", "abc", False),
        ("delete", "bd", True),
        ("delete", "abd", True),
        ("delete", "db", False),
        ("delete", "a", False),
        ("delete", "abcd", False),
    ],
)
def test_two_swaps_or_deletions_are_told_from_other_edits(action: str, new: str, possible: bool) -> None:
    old = "abcde" if len(new) == 5 else "abcd"
    assert text_rows._possible(new, old, action) is possible
