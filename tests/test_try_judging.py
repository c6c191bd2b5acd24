"""Plans and judgements of a trial: budgets are kept, chances are those of the tests that they are named after."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixops.pipelines.trying.budget import fitting, ladder
from mixops.pipelines.trying.judging import verdicts
from mixops.pipelines.trying.rounds import run_rounds
from mixops.pipelines.trying.run_file import Run, RunFile
from mixops.pipelines.trying.tasks import Progress, Scores, candidates
from scipy.stats import ttest_rel

import mixops as mx


class Clockwork:
    """A task that learns nothing and takes an exact time: a second a step, told by its own clock."""

    kind, tested = "images", 100

    def __init__(self, steps: int = 4) -> None:
        self.facts: dict[str, Any] = {"steps": steps}
        self.steps, self.now = steps, 0.0

    def work(self, epochs: int) -> float:
        return float(epochs * self.steps)

    def check(self, op: mx.Operator) -> None:
        pass

    def train(self, op: mx.Operator | None, seed: int, epochs: int, progress: Progress) -> Scores:
        for done in range(epochs * self.steps):
            self.now += 1.0
            progress(done + 1, epochs * self.steps, "")
        return Scores(0.5 + 0.01 * (seed % 3) + 0.1 * (op is not None), 1.0, 0.0)

    def clock(self) -> float:
        return self.now


TRIED = candidates(("Mixup(0.2)",))


@settings(deadline=None)
@given(st.integers(100, 5000), st.integers(1, 6))
def test_rounds_use_the_budget_and_no_more(seconds: int, steps: int) -> None:
    task = Clockwork(steps)
    made: list[tuple[int, int]] = []
    runs = RunFile(Path("never-written") / "runs.jsonl", {})
    runs.add = lambda run, epochs: runs.runs.append(run)  # type: ignore[method-assign]  # rounds alone are looked at
    run_rounds(
        task, TRIED, runs, budget=seconds, seed=5, epochs=None, clock=task.clock, watch=lambda *a: made.append(a[:2])
    )
    timed = task.now - runs.spent
    rounds, one_round = len(runs.runs) // 2, 2 * runs.runs[0].seconds
    assert [(run.op, run.seed) for run in runs.runs] == [(o.key, 5 + i) for i in range(rounds) for o in TRIED]
    assert rounds >= 2
    assert timed <= 2 * 8 * steps
    assert runs.spent <= seconds < runs.spent + one_round
    assert made[-1][0] <= made[-1][1]


@settings(deadline=None)
@given(st.floats(1, 1e6), st.floats(1e-3, 10))
def test_the_largest_plan_that_fits_is_taken_or_what_is_needed_is_told(budget: float, step: float) -> None:
    task = Clockwork()
    costs = [seeds * step * task.work(epochs) for epochs, seeds in ladder()]
    assert costs == sorted(costs)
    if costs[0] > budget:
        with pytest.raises(mx.MixError, match="two paired runs of 1 epoch need about") as error:
            fitting(task, step, budget)
        need = re.search(r"about ([\d.]+) minutes", str(error.value))
        assert need
        assert fitting(task, step, 60 * float(need[1]))[1] >= 2
    else:
        epochs, seeds = fitting(task, step, budget)
        assert seeds * step * task.work(epochs) <= budget
        assert list(ladder())[sum(cost <= budget for cost in costs) - 1] == (epochs, seeds)


def runs_of(**accuracies: list[float]) -> list[Run]:
    ops = {"none": "none", "mixup": "Mixup(alpha=0.2)", "cutmix": "CutMix()"}
    return [
        Run(ops[name], seed, Scores(value, 1.0, 0.1), 30.0)
        for name, values in accuracies.items()
        for seed, value in enumerate(values)
    ]


BOTH = candidates(("Mixup(0.2)", "CutMix(1.0)"))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
def test_chances_are_those_of_the_paired_t_test_corrected_by_holm(seed: int, n: int) -> None:
    base, one, two = np.random.default_rng(seed).uniform(0.2, 0.9, (3, n))
    found = verdicts(runs_of(none=[*base], mixup=[*one], cutmix=[*two]), BOTH, 10**6)
    chances = [ttest_rel(a, base).pvalue for a in (one, two)]
    assert [v.p for v in found[1:]] == pytest.approx(chances)
    low, high = sorted(chances)
    held = sorted(v.p_holm for v in found[1:] if v.p_holm is not None)
    assert held == pytest.approx([min(2 * low, 1), max(min(2 * low, 1), high)])
    for verdict in found[1:]:
        assert (verdict.verdict != "cannot tell") == (verdict.p_holm is not None and verdict.p_holm < 0.05)


SENTENCES: list[tuple[Callable[[], list[Run]], str]] = [
    (lambda: runs_of(none=[0.5, 0.5, 0.5], mixup=[0.52, 0.528, 0.516]), r"cannot tell .* misses zero, but not after"),
    (lambda: runs_of(none=[0.5, 0.5, 0.5], mixup=[0.52, 0.521, 0.519]), r"helped: \+2\.0 points \[\+1\.8, \+2\.2\]"),
    (lambda: runs_of(none=[0.5, 0.5, 0.5], mixup=[0.48, 0.481, 0.479]), r"hurt: -2\.0 points \[-2\.2, -1\.8\]"),
    (lambda: runs_of(none=[0.5, 0.5, 0.5], mixup=[0.51, 0.48, 0.53]), r"holds zero, .*; about [\d.,]+ minutes would"),
    (lambda: runs_of(none=[0.5] * 4, mixup=[0.501, 0.499, 0.5, 0.5]), r"1 point would likely have shown"),
    (lambda: runs_of(none=[0.5], mixup=[0.6]), r"1 of the 2 paired runs"),
    (lambda: runs_of(none=[0.3, 0.7] * 2, mixup=[0.7, 0.3] * 2), r"about \d\d,000 minutes would be needed"),
    (lambda: runs_of(none=[0.0, 1.0] * 2, mixup=[1.0, 0.0] * 2), r"no time that one would wait would show"),
]


@pytest.mark.parametrize(("runs", "told"), SENTENCES, ids=range(len(SENTENCES)))
def test_a_sentence_says_what_is_known(runs: Callable[[], list[Run]], told: str) -> None:
    found = verdicts(runs(), BOTH, 10_000)
    assert [one.op for one in found] == ["none", "Mixup(alpha=0.2)"]
    assert re.search(told, found[1].sentence)


def test_the_time_that_is_said_to_be_needed_shows_one_point_four_times_of_five() -> None:
    rng = np.random.default_rng(3)
    some = verdicts(runs_of(none=[0.5] * 3, mixup=[0.52, 0.5, 0.51]), TRIED, 10_000)[1]
    n, sd = some.seeds_needed, 0.01
    assert n is not None
    assert some.minutes_needed == pytest.approx(n * 2 * 30 / 60)
    seen = [verdicts(runs_of(none=[0.5] * n, mixup=[*row]), TRIED, 10_000)[1] for row in rng.normal(0.51, sd, (120, n))]
    assert 0.7 < np.mean([one.verdict == "helped" for one in seen]) < 0.9


def test_few_rows_that_agree_by_chance_are_no_proof() -> None:
    found = verdicts(runs_of(none=[0.5, 0.5], mixup=[0.6, 0.6]), TRIED, 10)[1]
    assert found.verdict == "cannot tell"
    assert found.low is not None
    assert found.low < 0


def test_a_difference_that_rounds_to_nothing_has_no_minus() -> None:
    found = verdicts(runs_of(none=[0.5, 0.5], mixup=[0.49999, 0.49999]), TRIED, 10_000)[1]
    assert found.gain is not None
    assert found.gain < 0
    assert found.difference.startswith("+0.0 [-0.1, ")
