"""What the runs say, in numbers and in one plain sentence each."""

from __future__ import annotations

from dataclasses import dataclass

import mixops as mx

from ..metrics import paired_interval
from .train import Curves


@dataclass(frozen=True)
class Verdict:
    """One method beside training without mixing, on the same seeds.

    Args:
        method: its name.
        mean: accuracy after the last epoch, mean over seeds.
        sd: standard deviation over seeds.
        gain: mean of the paired differences to "none".
        low: lower end of the 95 % t-interval of that mean.
        high: upper end.
        wins: seeds on which it was better.
        seeds: how many there are.
    """

    method: str
    mean: float
    sd: float
    gain: float
    low: float
    high: float
    wins: int
    seeds: int

    @property
    def sentence(self) -> str:
        """Gain, loss or neither."""
        points = f"{100 * self.gain:+.2f} points [{100 * self.low:+.2f}, {100 * self.high:+.2f}]"
        better = f"better on {self.wins} of {self.seeds} seeds"
        if self.low > 0:
            return f"{self.method} gains: {points}, {better}."
        if self.high < 0:
            return f"{self.method} loses: {points}, {better}."
        return f"{self.method} shows no gain: {points} holds zero, {better}."


def verdicts(curves: Curves, baseline: str = "none") -> list[Verdict]:
    """A verdict for each method, the baseline first (with a gain of 0).

    Args:
        curves: of at least two seeds.
        baseline: the method that the others are compared with.

    Raises:
        MixError: if there are fewer than two seeds: one run has no spread.

    Example:
        >>> import numpy as np
        >>> runs = {"none": np.array([[0.5], [0.6]]), "Mixup": np.array([[0.6], [0.7]])}
        >>> verdicts(Curves(np.array([1]), runs))[1].sentence
        'Mixup gains: +10.00 points [+10.00, +10.00], better on 2 of 2 seeds.'
    """
    base = curves.final(baseline)
    seeds = len(base)
    if seeds < 2:
        raise mx.MixValueError(f"verdicts: {seeds} seed, expected at least 2: one run has no spread")
    found = []
    for method in (baseline, *(m for m in curves.accuracy if m != baseline)):
        final = curves.final(method)
        difference = final - base
        gain, low, high = paired_interval(difference)
        wins = int((difference > 0).sum())
        spread = float(final.std(ddof=1))
        found.append(Verdict(method, float(final.mean()), spread, gain, low, high, wins, seeds))
    return found
