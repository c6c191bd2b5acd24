"""Mixup: blend every row with a partner, value by value, and its target by the same share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from ..plan import Plan
from ..spec import Spec
from .base import PER, Operator, check_choice, check_flag, check_number, kept, units
from .pairing import BY_LABEL, PAIRINGS, partners
from .shares import own_shares


@dataclass(frozen=True, repr=False)
class Mixup(Operator):
    """Blend each row with a partner: x̃ = λ·x + (1 - λ)·x[partner], ỹ = λ·y + (1 - λ)·y[partner], λ ~ Beta(α, α).

    Args:
        alpha: concentration of the Beta, 0 or more; 0 is plain training, every row untouched.
        per: "batch" (one λ), "pair" (rows that exchange share one) or "sample" (one a row).
        pairing: "random", "derange", "roll", "flip", "same_class", "other_class".
        fold: use max(λ, 1 - λ), so that the row itself always has the larger share.
        p: probability that it acts, on each unit of ``per``.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of whole rows. Keywords ``partner=`` (n,) and ``lam=`` replace the draw.

    Raises:
        MixError: if alpha is negative, NaN or infinite, p is outside [0, 1], or a word is unknown.

    Example:
        >>> plan = Mixup(0.8).draw(np.random.default_rng(0), Spec(4), lam=0.75, partner=[1, 0, 3, 2])
        >>> plan.lam.tolist()
        [0.75, 0.75, 0.75, 0.75]

    Source:
        Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018, section 2.

    Differs from it:
        As the paper and its code by default. The paper draws one λ a batch in its code and one a pair in its text;
        ``per`` says which.
    """

    alpha: float = 1.0
    per: str = "batch"
    pairing: str = "random"
    fold: bool = False

    gives: ClassVar[tuple[str, ...]] = ("partner", "lam")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "alpha", check_number("Mixup", "alpha", self.alpha, 0))
        check_choice("Mixup", "per", self.per, PER)
        check_choice("Mixup", "pairing", self.pairing, PAIRINGS)
        object.__setattr__(self, "fold", check_flag("Mixup", "fold", self.fold))

    @property
    def needs(self) -> tuple[str, ...]:
        return ("labels",) if self.pairing in BY_LABEL else ()

    def _draw(
        self, rng: np.random.Generator, spec: Spec, *, labels: Any = None, partner: Any = None, lam: Any = None
    ) -> Plan:
        return whole_rows(self, self.alpha, rng, spec.n, labels=labels, partner=partner, lam=lam)


class Blend(Protocol):
    """What ``whole_rows`` reads off an operator; see Mixup."""

    @property
    def per(self) -> str: ...
    @property
    def pairing(self) -> str: ...
    @property
    def fold(self) -> bool: ...
    @property
    def p(self) -> float: ...


def whole_rows(
    op: Blend,
    alpha: float,
    rng: np.random.Generator,
    n: int,
    *,
    labels: Any = None,
    partner: Any = None,
    lam: Any = None,
    layer: str | None = None,
) -> Plan:
    """A plan that blends n whole rows with their partners; see Mixup, whose words it reads off the operator."""
    donors = partners(op.pairing, rng, n, per=op.per, labels=labels, given=partner)
    unit = units(op.per, n, donors)
    own = own_shares(rng, alpha, n, unit, lam)
    if op.fold:
        own = np.maximum(own, 1 - own)
    share = 1 - own
    return Plan.whole(donors, share if op.p == 1 else np.where(kept(rng, op.p, unit), share, 0), layer=layer)
