"""What the runs of a study say: means, spreads, paired differences with intervals, a verdict on each claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mixops.pipelines.metrics import paired_interval

SHOWS, NOT_SHOWN, OPPOSITE = "shows", "does not show", "opposite"
Records = Sequence[Mapping[str, Any]]
Cases = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Measure:
    """A number that every run gives.

    Args:
        title: how tables call it.
        better: "higher" or "lower"; "" where neither is better as such.
        scale: what it is multiplied by where people read it, 100 for shares.
        unit: of a difference, with a space before it; "" for none.
        digits: after the point.
    """

    title: str
    better: str
    scale: float = 1
    unit: str = ""
    digits: int = 3

    def plain(self, value: float) -> str:
        """A value for readers."""
        return f"{self.scale * value:.{self.digits}f}"

    def signed(self, value: float) -> str:
        """A difference for readers."""
        return f"{self.scale * value:+.{self.digits}f}"


ACCURACY = Measure("accuracy, %", "higher", 100, " points", 2)
NLL = Measure("NLL", "lower", 1, "", 4)
ECE = Measure("ECE, %", "lower", 100, " points", 2)
#: What a study of classification measures.
COMMON = {"accuracy": ACCURACY, "nll": NLL, "ece": ECE}


@dataclass(frozen=True)
class Claim:
    """What a paper says, as something that runs can show or not.

    Args:
        text: the claim in words.
        source: who makes it.
        measure: name of the number it speaks of.
        method: whose runs.
        against: whose runs they are compared with.
        direction: "higher" or "lower": where ``method`` is to be; "equal": no further away than ``within``.
        where: settings that a case must have to count; none takes every case.
        slope_over: instead of the difference, its slope over the base-2 logarithm of this setting; a slope for each
            "group" of cases, then their mean.
        within: a margin, 0 or more. "equal" asks that the whole interval lies in ±within; with one, "lower" and
            "higher" ask that ``method`` is by less than that on the wrong side.
        paper: the number that the paper gives, with its setting: "CIFAR-10, PreAct ResNet-18: error 5.6 % -> 4.2 %".
    """

    text: str
    source: str
    measure: str
    method: str
    against: str = "none"
    direction: str = "higher"
    where: Mapping[str, Any] | None = None
    slope_over: str = ""
    within: float = 0
    paper: str = ""

    def applies(self, case: Mapping[str, Any]) -> bool:
        """Whether it speaks of this case."""
        return all(case.get(key) == value for key, value in (self.where or {}).items())


def interval(differences: Sequence[float] | np.ndarray, level: float = 0.95) -> dict[str, float]:
    """Mean of paired differences with the t interval of that mean: d ± t(n - 1)·s/√n.

    Args:
        differences: one for each seed, two or more.
        level: of the interval.

    Returns:
        mean, low, high; above and below: seeds on which the difference is above, or below, zero; seeds.
    """
    d = np.asarray(differences, float)
    mean, low, high = paired_interval(d, level)
    signs = {"above": int((d > 0).sum()), "below": int((d < 0).sum()), "seeds": len(d)}
    return {"mean": mean, "low": low, "high": high, **signs}


def values(records: Records, case: str, method: str, measure: str) -> np.ndarray:
    """(seeds,) one number of each run, in the order of the seeds."""
    rows = [(r["seed"], r["outcome"][measure]) for r in records if (r["case"], r["method"]) == (case, method)]
    return np.array([value for _, value in sorted(rows)], float)


def curves(records: Records, case: str, method: str, name: str) -> np.ndarray:
    """(seeds, points) a list of each run, in the order of the seeds."""
    rows = [(r["seed"], r["outcome"][name]) for r in records if (r["case"], r["method"]) == (case, method)]
    return np.array([value for _, value in sorted(rows, key=lambda one: one[0])], float)


def summary(
    records: Records, cases: Cases, methods: Sequence[str], measures: Mapping[str, Measure]
) -> list[dict[str, Any]]:
    """A row for each case, method and measure: mean, SD, and the paired difference to the first method."""
    rows = []
    for case in cases:
        for name in measures:
            base = values(records, case, methods[0], name)
            for method in methods:
                mine = values(records, case, method, name)
                difference = None if method == methods[0] else interval(mine - base)
                rows.append(
                    {
                        "case": case,
                        "method": method,
                        "measure": name,
                        "mean": float(mine.mean()),
                        "sd": float(mine.std(ddof=1)),
                        "difference": difference,
                    }
                )
    return rows


def verdicts(
    records: Records, cases: Cases, claims: Sequence[Claim], measures: Mapping[str, Measure]
) -> list[dict[str, Any]]:
    """A verdict for each claim that a case of the study speaks of: over all its cases, and for each of them."""
    found = []
    for claim in claims:
        names = [name for name, case in cases.items() if claim.applies(case)]
        if not names:
            continue
        differences = {
            name: values(records, name, claim.method, claim.measure)
            - values(records, name, claim.against, claim.measure)
            for name in names
        }
        each = {name: _judged(claim, d) for name, d in differences.items()}
        if claim.slope_over:
            whole = _judged(claim, _slopes(claim, cases, differences))
        else:
            # A seed's mean over the cases: seeds are independent, the cases of a seed need not be.
            whole = _judged(claim, np.mean(list(differences.values()), axis=0))
        found.append(
            {
                "claim": claim.text,
                "source": claim.source,
                "paper": claim.paper,
                "measure": claim.measure,
                "method": claim.method,
                "against": claim.against,
                "direction": claim.direction,
                "slope_over": claim.slope_over,
                "within": claim.within,
                **whole,
                "sentence": sentence(claim, whole, measures[claim.measure], len(names)),
                "cases": {} if claim.slope_over else each,
            }
        )
    return found


def _judged(claim: Claim, differences: np.ndarray) -> dict[str, Any]:
    by = interval(differences)
    if claim.direction == "equal":
        held = np.abs(differences) <= claim.within
        shows = max(-by["low"], by["high"]) <= claim.within
        opposite = max(by["low"], -by["high"]) > claim.within
    else:
        sign = 1 if claim.direction == "higher" else -1
        held = sign * differences > -claim.within
        low, high = sorted((sign * by["low"], sign * by["high"]))
        shows, opposite = low > -claim.within, high < -claim.within
    verdict = SHOWS if shows else OPPOSITE if opposite else NOT_SHOWN
    return {"verdict": verdict, "by": by, "as_claimed": int(held.sum())}


def _slopes(claim: Claim, cases: Cases, differences: Mapping[str, np.ndarray]) -> np.ndarray:
    """(seeds,) least-squares slope of the difference over log2 of the setting, mean over the groups of cases."""
    groups: dict[Any, list[str]] = {}
    for name in differences:
        groups.setdefault(cases[name].get("group"), []).append(name)
    found = []
    for names in groups.values():
        x = np.log2([cases[name][claim.slope_over] for name in names])
        if len(set(x)) < 2:
            raise ValueError(f"slope over {claim.slope_over}: cases {names} have one value of it, expected several")
        x = x - x.mean()
        found.append(x @ np.stack([differences[name] for name in names]) / (x @ x))
    return np.mean(found, axis=0)


def sentence(claim: Claim, whole: Mapping[str, Any], measure: Measure, cases: int) -> str:
    """The verdict and how far, in words."""
    by = whole["by"]
    said = f"{measure.signed(by['mean'])}{measure.unit} [{measure.signed(by['low'])}, {measure.signed(by['high'])}]"
    per = f" for every doubling of {claim.slope_over}" if claim.slope_over else ""
    over = f", mean of {cases} cases" if cases > 1 and not claim.slope_over else ""
    word = {SHOWS: "Shows", OPPOSITE: "The opposite shows", NOT_SHOWN: "Does not show"}[whole["verdict"]]
    margin = _margin(claim, measure)
    held = f"as claimed on {whole['as_claimed']} of {by['seeds']} seeds"
    return f"{word}: {measure.title.split(',')[0]} {said}{per}{over}{margin}; {held}."


def _margin(claim: Claim, measure: Measure) -> str:
    if claim.direction == "equal" and not claim.within:
        return ", where no difference at all counts as equal"
    if claim.direction == "equal":
        return f", where ±{measure.plain(claim.within)}{measure.unit} counts as equal"
    return f", where {measure.plain(claim.within)}{measure.unit} is allowed" if claim.within else ""


def expected_false(verdict_count: int, level: float = 0.95) -> float:
    """Intervals of so many that would miss zero though nothing is there."""
    return verdict_count * (1 - level)
