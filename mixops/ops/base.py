"""What every operator shares: p, the off switches, and the check of what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from ..constant import ascending, filled
from ..errors import MixTypeError, MixValueError
from ..plan import Plan
from ..sequence import PlanSequence
from ..spec import Spec

if TYPE_CHECKING:
    from .combine import Chain

PER = ("batch", "pair", "sample")


class Op(Protocol):
    """What an operator is: hyperparameters, and a draw from an explicit generator."""

    @property
    def needs(self) -> tuple[str, ...]: ...

    def draw(self, rng: np.random.Generator, spec: Spec, **evidence: Any) -> Plan | PlanSequence: ...


def _shown(value: Any) -> str:
    """The repr; of an integer that fills lines (or that Python refuses to spell out) only its size."""
    huge = isinstance(value, int) and value.bit_length() > 64
    return f"<integer of {value.bit_length()} bits>" if huge else repr(value)


def check_number(
    owner: str, name: str, value: Any, low: float, high: float = np.inf, *, open_high: bool = False
) -> float:
    """A finite number within [low, high], or a MixError that names it."""
    interval = f"a number from {low:g}" + ("" if high == np.inf else f" to {high:g}")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise MixTypeError(f"{owner}({name}={value!r}): expected {interval}")
    try:
        number = float(value)
    except OverflowError:
        raise MixValueError(f"{owner}({name}={_shown(value)}): expected {interval}") from None
    if not (np.isfinite(number) and low <= number <= high) or (open_high and number == high):
        raise MixValueError(f"{owner}({name}={value!r}): expected {interval}")
    return number


def check_count(owner: str, name: str, value: Any, low: int) -> int:
    """A whole number of at least ``low`` that fits int32, as extents and indices do, or a MixError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise MixValueError(f"{owner}({name}={_shown(value)}): expected a whole number of {low} or more")
    if value >= 1 << 31:
        raise MixValueError(f"{owner}({name}={_shown(value)}): expected a whole number from {low} to 2**31 - 1")
    return int(value)


def check_flag(owner: str, name: str, value: Any) -> bool:
    """True or False, or a MixError that names it: the text "no" would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise MixTypeError(f"{owner}({name}={value!r}): expected True or False")
    return bool(value)


def check_choice(owner: str, name: str, value: Any, choices: Sequence[str]) -> str:
    """One of the words, or a MixError that lists them."""
    if value not in choices:
        raise MixValueError(f"{owner}({name}={value!r}): expected one of {', '.join(map(repr, choices))}")
    return str(value)


def check_range(owner: str, name: str, value: Any, low: float, high: float) -> tuple[float, float]:
    """(a, b) with low <= a <= b <= high, or a MixError that names it."""
    try:
        first, last = value
    except (TypeError, ValueError):
        raise MixValueError(f"{owner}({name}={value!r}): expected two numbers (low, high)") from None
    first, last = check_number(owner, name, first, low, high), check_number(owner, name, last, low, high)
    if first > last:
        raise MixValueError(f"{owner}({name}={value!r}): expected low <= high")
    return first, last


@dataclass(frozen=True, repr=False)
class Operator(ABC):
    """Base of the operators: frozen hyperparameters, checked when made.

    Args:
        p: probability that the operator acts, on the unit that ``per`` names: batch, pair or sample.
        until: first epoch at which it is off (and stays off), None for never. The last 5 of 100 epochs: ``until=95``.
    """

    p: float = field(default=1.0, kw_only=True)
    until: int | None = field(default=None, kw_only=True)

    #: False for operators that only paint fills: a Chain can then put them on top of another plan.
    mixes: ClassVar[bool] = True
    #: Keywords of ``draw`` that replace what would be drawn.
    gives: ClassVar[tuple[str, ...]] = ()
    #: Evidence that ``draw`` takes where there is some, and does without where there is none.
    uses: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        name = type(self).__name__
        object.__setattr__(self, "p", check_number(name, "p", self.p, 0, 1))
        self._check_until()

    def _check_until(self) -> None:
        if self.until is not None:
            object.__setattr__(self, "until", check_count(type(self).__name__, "until", self.until, 0))

    @property
    def needs(self) -> tuple[str, ...]:
        """Evidence that ``draw`` must be given beyond the spec."""
        return ()

    @property
    def steps(self) -> int:
        """Plans that a draw makes: 1, but for chains that mix what they have mixed."""
        return 1

    def draw(self, rng: np.random.Generator, spec: Spec, **evidence: Any) -> Plan | PlanSequence:
        """Draw a plan for the batch that ``spec`` describes.

        Args:
            rng: the only source of randomness.
            spec: rows, extents, epoch, training or not.
            **evidence: what ``needs`` names, what ``uses`` names where there is some, and, in place of a draw, what
                ``gives`` names. "lengths" may be in the spec instead; in neither, every row is full.

        Returns:
            A plan; its K, R and number of steps depend on the operator and the spec, never on chance.

        Raises:
            MixError: if evidence is missing, unknown or out of range, or the spec lacks what the operator needs.
        """
        if not isinstance(rng, np.random.Generator):
            raise MixTypeError(
                f"{type(self).__name__}.draw: rng is {type(rng).__name__}, expected a numpy.random.Generator: "
                f"np.random.default_rng({rng if type(rng) is int else 0})"
            )
        if not isinstance(spec, Spec):
            raise MixTypeError(
                f"{type(self).__name__}.draw: got {type(spec).__name__}, expected a Spec: Spec.like(x, layout), or "
                "Spec(n, shape)"
            )
        self._check_evidence(evidence)
        if evidence.get("lengths") is not None:  # operators read them off the spec, which checks them
            spec = replace(spec, lengths=evidence.pop("lengths"))
        plan = self._draw(rng, spec, **evidence)
        return plan if self._on(spec) else plan.where(np.zeros(spec.n, bool))

    def _on(self, spec: Spec) -> bool:
        if self.until is not None and spec.training and spec.epoch is None:
            raise MixValueError(f"{self!r} stops at an epoch: say which one it is, Spec(..., epoch=...)")
        return spec.training and (self.until is None or spec.epoch is None or spec.epoch < self.until)

    def _check_evidence(self, evidence: dict[str, Any]) -> None:
        if not evidence and not self.needs:
            return
        name = type(self).__name__
        missing = [e for e in self.needs if evidence.get(e) is None and e != "lengths"]
        if missing:
            raise MixValueError(f"{self!r} needs {', '.join(missing)}: pass {missing[0]}=... to draw")
        known = (*self.needs, *self.uses, *self.gives)
        unknown = [e for e in evidence if e not in (*known, "labels")]
        if unknown:
            raise MixTypeError(f"{name}.draw got {unknown[0]}=, expected {', '.join(known) or 'no keyword'}")

    @abstractmethod
    def _draw(self, *args: Any, **kwargs: Any) -> Plan | PlanSequence:
        """``_draw(rng, spec, **evidence)``: draw as if training; each operator names the keywords that it takes.

        ``draw`` has checked the keywords and blanks the plan when the operator is off.
        """

    def __or__(self, other: Operator) -> Chain:
        from .combine import Chain

        return Chain([self, other])

    def __repr__(self) -> str:
        given = [f for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in given)})"


def units(per: str, n: int, partner: np.ndarray | None) -> np.ndarray:
    """(n,) the unit that each row belongs to: rows of one unit share what is drawn for it."""
    if per == "batch":
        return filled((n,), 0, np.intp)
    rows = ascending(n, np.intp)
    if per == "sample":
        return rows
    assert partner is not None
    if not (partner[partner] == rows).all():
        raise MixValueError(
            'per="pair" needs partners that come in pairs: pairing="flip" or "random", or such a partner='
        )
    return np.minimum(rows, partner)


def spread(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """``values[unit]``: what was drawn for the unit of each row, without a gather where the units say it all."""
    n = len(unit)
    if unit is ascending(n, np.intp):
        return values
    return values[:1].repeat(n, 0) if n and unit is filled((n,), 0, np.intp) else values[unit]


def kept(rng: np.random.Generator, p: float, unit: np.ndarray) -> np.ndarray:
    """(n,) bool: which rows the operator acts on; one coin for each unit."""
    if p == 1:
        return np.ones(len(unit), bool)
    return spread(rng.random(len(unit)) < p, unit)
