"""Rounds of paired trainings, a seed each, until a budget of time is used."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count

from .budget import LEAST_SEEDS, fitting, seconds_per_step
from .run_file import Run, RunFile
from .tasks import Candidate, Task

#: Called with (steps done, steps in all rounds that are planned, what is done).
Watch = Callable[[int, int, str], None]


def run_rounds(
    task: Task,
    tried: Sequence[Candidate],
    runs: RunFile,
    *,
    budget: float,
    seed: int,
    epochs: int | None,
    most: int | None = None,
    watch: Watch,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Train every operator on one seed after the other while there is time for one more.

    Whatever there are of runs already counts, and so does the time they took. Two rounds are always brought to their
    end: without them there is nothing to say.

    Args:
        task: what is trained.
        tried: the operators, "none" among them.
        runs: what is done; each run is added to it.
        budget: seconds for all runs; the few steps that are timed before the first come on top.
        seed: of the first round; the others follow.
        epochs: of each run; None: as the budget allows, or as the runs have that are there.
        most: seeds, 2 or more; None: as the budget allows.
        watch: told of every step.
        clock: seconds, from any moment on.

    Raises:
        MixError: if the budget is too small for two rounds of one epoch, or a training fails.
    """
    many, seeds = runs.epochs, LEAST_SEEDS
    if many is None:
        watch(0, 0, "timing")
        step = seconds_per_step(task, tried, seed, budget, clock)
        many, seeds = fitting(task, step, budget, epochs, most)
    done = {(run.op, run.seed) for run in runs.runs}
    for now in count(seed) if most is None else range(seed, seed + most):
        missing = [one for one in tried if (one.key, now) not in done]
        left = budget - runs.spent
        one_run = runs.spent / len(runs.runs) if runs.runs else 0.0
        if now - seed >= LEAST_SEEDS and len(missing) * one_run > left:
            return
        if one_run:
            seeds = max(int(budget / (one_run * len(tried))), now - seed + 1, LEAST_SEEDS)
            seeds = seeds if most is None else min(seeds, most)
        for one in missing:
            before, planned = len(runs.runs), seeds * len(tried)

            def told(at: int, of: int, said: str, who: str = f"{one.name}, seed {now}") -> None:
                watch(before * of + at, planned * of, f"{who}, {said}")  # noqa: B023  # called within this turn alone

            start = clock()
            scores = task.train(one.op, now, many, told)
            runs.add(Run(one.key, now, scores, clock() - start), many)
