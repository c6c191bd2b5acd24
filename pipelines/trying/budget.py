"""How many epochs and seeds fit into a budget of time, from a few timed steps of every operator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from mixops import MixValueError

from .tasks import Candidate, Task

#: Steps of an operator that are timed at least, after the first, which compiles and fills caches.
_STEPS = 3
#: Seconds that an operator is timed for, if that is no larger a share of the budget; _STEPS are timed all the same.
_SECONDS, _SHARE = 1.0, 0.02
#: Runs of an operator that a difference needs to have a spread.
LEAST_SEEDS = 2


class _Enough(BaseException):
    """Thrown through a training that has been timed long enough; nothing on its way takes it for an error."""


def seconds_per_step(
    task: Task, tried: Sequence[Candidate], seed: int, budget: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of one training step of every operator, all together.

    Args:
        task: what is trained.
        tried: the operators.
        seed: of the steps.
        budget: seconds that there are for everything.
        clock: seconds, from any moment on.
    """
    return sum(_step_of(task, one, seed, min(_SECONDS, _SHARE * budget), clock) for one in tried)


def _step_of(task: Task, one: Candidate, seed: int, most: float, clock: Callable[[], float]) -> float:
    begun, steps = 0.0, 0

    def watch(done: int, total: int, said: str) -> None:
        nonlocal begun, steps
        begun, steps = (clock(), 0) if done == 1 else (begun, done - 1)
        if steps >= _STEPS and clock() - begun >= most:
            raise _Enough

    with suppress(_Enough):
        task.train(one.op, seed, 1 + _STEPS, watch)  # an epoch may have a single step
    return (clock() - begun) / steps


def ladder() -> Iterator[tuple[int, int]]:
    """(epochs, seeds) of plans, each dearer than the one before: what a larger budget is spent on first.

    Two seeds have hardly a spread and one epoch shows hardly what mixing does, so both grow, to three epochs of five
    seeds; then epochs, to 30; then seeds, to 10; and so on.
    """
    yield from ((1, 2), (1, 3), (2, 3), (3, 3), (3, 4))
    yield from ((epochs, 5) for epochs in range(3, 31))
    yield from ((30, seeds) for seeds in range(6, 11))
    yield from ((epochs, 10) for epochs in range(31, 101))
    yield from ((100, seeds) for seeds in range(11, 31))


def fitting(
    task: Task, step: float, budget: float, epochs: int | None = None, most: int | None = None
) -> tuple[int, int]:
    """The largest plan that fits into a budget.

    Args:
        task: what is trained.
        step: seconds of one step of every operator, all together.
        budget: seconds.
        epochs: of each run, where they are given.
        most: seeds, where they are given; 2 or more.

    Returns:
        (epochs, seeds), 2 seeds or more.

    Raises:
        MixError: if not even two seeds of one epoch fit, or of so many as are given; it says what would.
    """
    plans = ladder() if epochs is None else ((epochs, seeds) for seeds in range(LEAST_SEEDS, 31))
    found = None
    for many, wanted in plans:
        seeds = wanted if most is None else min(wanted, most)
        if seeds * step * task.work(many) > budget:
            break
        found = many, seeds
    if found is None:
        fewest = epochs or 1
        need = LEAST_SEEDS * step * task.work(fewest) / 60
        raise MixValueError(
            f"--minutes {budget / 60:.3g} is too little: two paired runs of {fewest} "
            f"{'epoch' if fewest == 1 else 'epochs'} need about {_up(need)} minutes here; give more, or fewer "
            "operators or rows, or a smaller model"
        )
    return found


def _up(minutes: float) -> str:
    """Rounded up, so that what is told is enough."""
    return f"{minutes * 1.1 + 0.05:.1f}" if minutes < 10 else f"{minutes * 1.1 + 1:.0f}"
