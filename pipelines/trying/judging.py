"""What paired runs say of each operator: in numbers, and in one plain sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..metrics import paired_interval
from .budget import LEAST_SEEDS
from .run_file import Run
from .tasks import Candidate

#: Error of the first kind, for all comparisons of a report together.
_LEVEL = 0.05
#: Chance to see a difference that is there, for the time that is said to be needed to see one.
_POWER = 0.8
#: The difference of accuracy that this time is for.
_POINT = 0.01
#: Beyond as many seeds nobody waits.
_MOST_SEEDS = 100_000


@dataclass(frozen=True)
class Verdict:
    """One operator beside none, on the same seeds.

    Args:
        name: the operator as it was written.
        op: as the library spells it.
        accuracy: mean over its runs.
        sd: standard deviation of that over the runs; None of a single one.
        nll: mean negative log-likelihood.
        ece: mean calibration error.
        seconds: mean of a run.
        pairs: seeds on which both it and none ran; those of none are its runs.
        gain: mean of the paired differences of accuracy to none; None of fewer than two pairs, and of none itself.
        low: lower end of the 95 % t-interval of that mean.
        high: upper end.
        better: seeds on which it was better.
        p: of the paired t-test.
        p_holm: corrected by Holm's method for all operators that are compared.
        seeds_needed: to see a difference of one point with a chance of 80 %; None: too many to wait for.
        minutes_needed: for so many seeds of every operator.
        verdict: "helped", "hurt", "cannot tell", or "" of none and of fewer than two pairs.
    """

    name: str
    op: str
    accuracy: float
    sd: float | None
    nll: float
    ece: float
    seconds: float
    pairs: int
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    better: int | None = None
    p: float | None = None
    p_holm: float | None = None
    seeds_needed: int | None = None
    minutes_needed: float | None = None
    verdict: str = ""

    @property
    def difference(self) -> str:
        """Points of accuracy, with their interval."""
        if self.gain is None or self.low is None or self.high is None:
            return ""
        return f"{100 * self.gain:+z.1f} [{100 * self.low:+z.1f}, {100 * self.high:+z.1f}]"

    @property
    def sentence(self) -> str:
        """Helped, hurt, or why this cannot be told."""
        if self.gain is None or self.low is None or self.high is None or self.p_holm is None:
            return f"{self.name}: {self.pairs} of the {LEAST_SEEDS} paired runs that it takes to tell anything"
        gain, interval = self.difference.split(" ", 1)
        points = f"{gain} points {interval}"
        if self.verdict != "cannot tell":
            return f"{self.name} {self.verdict}: {points}"
        if self.low <= 0 <= self.high:
            why = f"the interval holds zero, {points}"
        else:
            why = f"{points} misses zero, but not after correction for all comparisons (p = {self.p_holm:.2g})"
        if self.seeds_needed is not None and self.seeds_needed <= self.pairs:
            more = "a difference of 1 point would likely have shown"
        elif self.minutes_needed is None:
            more = "no time that one would wait would show a difference of 1 point"
        else:
            more = f"about {_rounded(self.minutes_needed)} minutes would be needed to see a difference of 1 point"
        return f"{self.name}: cannot tell in this budget: {why}; {more}"


def verdicts(runs: Sequence[Run], tried: Sequence[Candidate], tested: int) -> list[Verdict]:
    """A verdict for each operator that has run, none first.

    The spread of differences is taken to be one row that was held out, at least: accuracies are not known better, and
    few of them may agree by chance.

    Args:
        runs: what is done.
        tried: the operators, none first.
        tested: rows that are held out.

    Example:
        >>> from mixops.pipelines.trying.tasks import Scores, candidates
        >>> def run(op, seed, accuracy):
        ...     return Run(op, seed, Scores(accuracy, 1.0, 0.0), 2.0)
        >>> runs = [run("none", 0, 0.50), run("none", 1, 0.60), run("Mixup()", 0, 0.70), run("Mixup()", 1, 0.81)]
        >>> verdicts(runs, candidates(("Mixup(1.0)",)), 1000)[1].sentence
        'Mixup(1.0) helped: +20.5 points [+14.1, +26.9]'
    """
    by_op = {one.key: {run.seed: run for run in runs if run.op == one.key} for one in tried}
    base = by_op["none"]
    pairs = {key: sorted(found.keys() & base.keys()) for key, found in by_op.items()}
    differences = {
        key: np.array([by_op[key][s].scores.accuracy - base[s].scores.accuracy for s in seeds])
        for key, seeds in pairs.items()
        if key != "none" and len(seeds) >= LEAST_SEEDS
    }
    compared = len(tried) - 1
    ends = {key: paired_interval(d, least=1 / tested) for key, d in differences.items()}
    chances = {key: _chance(ends[key], len(d)) for key, d in differences.items()}
    corrected = _holm(chances, compared)
    of_round = sum(float(np.mean([run.seconds for run in found.values()])) for found in by_op.values() if found)
    said = []
    for one in tried:
        found = list(by_op[one.key].values())
        if not found:
            continue
        right = np.array([run.scores.accuracy for run in found])
        verdict = Verdict(
            name=one.name,
            op=one.key,
            accuracy=float(right.mean()),
            sd=float(right.std(ddof=1)) if len(right) > 1 else None,
            nll=float(np.mean([run.scores.nll for run in found])),
            ece=float(np.mean([run.scores.ece for run in found])),
            seconds=float(np.mean([run.seconds for run in found])),
            pairs=len(pairs[one.key]),
        )
        if one.key in differences:
            d, (gain, low, high) = differences[one.key], ends[one.key]
            needed = _needed(max(float(d.std(ddof=1)), 1 / tested), compared)
            sure = corrected[one.key] < _LEVEL
            verdict = replace(
                verdict,
                gain=gain,
                low=low,
                high=high,
                better=int((d > 0).sum()),
                p=chances[one.key],
                p_holm=corrected[one.key],
                seeds_needed=needed,
                minutes_needed=None if needed is None else needed * of_round / 60,
                verdict=("helped" if gain > 0 else "hurt") if sure else "cannot tell",
            )
        said.append(verdict)
    return said


def _chance(ends: tuple[float, float, float], n: int) -> float:
    """p of the t-test whose 95 % interval has these (mean, low, high)."""
    from scipy.stats import t  # type: ignore[import-untyped]

    mean, low, high = ends
    error = (high - low) / 2 / t.ppf(0.975, n - 1)
    return float(2 * t.sf(abs(mean) / error, n - 1))


def _holm(chances: dict[str, float], compared: int) -> dict[str, float]:
    """Holm's correction: the k-th smallest p by compared - k, never below the one before."""
    found, before = {}, 0.0
    for k, (key, p) in enumerate(sorted(chances.items(), key=lambda item: item[1])):
        before = max(before, min((compared - k) * p, 1.0))
        found[key] = before
    return found


def _needed(sd: float, compared: int) -> int | None:
    """The fewest seeds with (t(1 - level/2m) + t(power)) · s/√n ≤ one point, t of n - 1 degrees of freedom."""
    from scipy.stats import t

    n = LEAST_SEEDS
    while n <= _MOST_SEEDS:
        reach = t.ppf(1 - _LEVEL / 2 / compared, n - 1) + t.ppf(_POWER, n - 1)
        if reach * sd <= _POINT * np.sqrt(n):
            return n
        n += max(n // 20, 1)
    return None


def _rounded(minutes: float) -> str:
    """To two digits."""
    return f"{float(f'{minutes:.2g}'):g}" if minutes < 1000 else f"{float(f'{minutes:.2g}'):,.0f}"
