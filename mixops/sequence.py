"""PlanSequence: plans to apply one after the other, with the verbs of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from . import archive
from .errors import MixTypeError
from .leaves import target_shares
from .plan import Plan
from .traced import register


@dataclass(frozen=True, eq=False, repr=False)
class PlanSequence:
    """Plans to apply one after the other: the second mixes rows that the first has changed.

    Args:
        plans: at least one; plan i + 1 speaks of the rows that plan i makes.

    Raises:
        MixError: if there is none, or one names rows that the one before does not make.
    """

    plans: tuple[Plan, ...]

    def __post_init__(self) -> None:
        register()
        object.__setattr__(self, "plans", tuple(self.plans))
        if not self.plans or not all(isinstance(p, Plan) for p in self.plans):
            raise MixTypeError("PlanSequence: expected one or more plans")
        self.validate()

    @property
    def form(self) -> Any:
        """See Plan: not None where JAX has the arrays of a step."""
        return next((p.form for p in self.plans if p.form is not None), None)

    @property
    def n(self) -> int:
        """Rows it makes."""
        return self.plans[-1].n

    @property
    def k(self) -> int:
        """Patches a row of the step that has most."""
        return max(p.k for p in self.plans)

    @property
    def lam(self) -> np.ndarray:
        """(N,) float32: the share of each target that is that of the row's OWN source row, on whatever way it came.

        That is row ``base`` of the first step, as found through ``base`` of all later ones. A share that went to a
        partner and came back counts, and so does a donor that is the row itself.
        """
        rows, shares = target_shares(self.plans)
        return np.where(rows == rows[:, :1], shares, 0).sum(1, dtype=np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents its boxes are measured on; () if all speak of whole rows."""
        return max((p.shape for p in self.plans), key=len)

    @property
    def layer(self) -> str | None:
        """Layer of the first plan."""
        return self.plans[0].layer

    @property
    def is_identity(self) -> bool:
        """True if every plan is."""
        return all(p.is_identity for p in self.plans)

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Plan]:
        return iter(self.plans)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlanSequence) and self.plans == other.plans

    __hash__ = None  # type: ignore[assignment]

    def validate(self, rows: int | None = None) -> None:
        """Check every plan against the rows that the one before it makes."""
        for plan in self.plans:
            plan.validate(rows)
            rows = plan.n

    def on(self, rows: Any) -> PlanSequence:
        """See Plan.on: only the first plan reads the source."""
        return PlanSequence((self.plans[0].on(rows), *self.plans[1:]))

    def rescaled(self, shape: Sequence[int], round: str = "nearest") -> PlanSequence:
        """See Plan.rescaled; plans on whole rows stay as they are."""
        return PlanSequence(tuple(p.rescaled(shape, round) if p.rank else p for p in self.plans))

    def where(self, keep: np.ndarray) -> PlanSequence:
        """See Plan.where."""
        return PlanSequence(tuple(p.where(keep) for p in self.plans))

    def __getitem__(self, rows: Any) -> PlanSequence:
        """The plan of some output rows; the rows before the last step are all still made."""
        return PlanSequence((*self.plans[:-1], self.plans[-1][rows]))

    def __repr__(self) -> str:
        return "\n".join(f"step {i + 1} of {len(self.plans)}\n{p!r}" for i, p in enumerate(self.plans))

    def to(self, *args: Any, **options: Any) -> PlanSequence:
        """See Plan.to."""
        return self

    def save(self, path: str | PathLike[str]) -> None:
        """See Plan.save."""
        archive.write(path, list(self.plans))
