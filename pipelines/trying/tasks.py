"""What is asked of data that operators are tried on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import mixops as mx

#: Called after each step with (steps done, steps in all, what was done).
Progress = Callable[[int, int, str], None]


class Candidate(NamedTuple):
    """An operator that is tried.

    Args:
        name: as it was written.
        op: the operator; None trains without mixing.
    """

    name: str
    op: mx.Operator | None

    @property
    def key(self) -> str:
        """What says the same of it however it was written."""
        return "none" if self.op is None else repr(self.op)


def candidates(texts: tuple[str, ...]) -> list[Candidate]:
    """The operators that these texts spell, "none" first, whether it is among them or not.

    Raises:
        MixError: if one is no operator, or one comes twice.

    Example:
        >>> [candidate.key for candidate in candidates(("Mixup(0.2)", "none"))]
        ['none', 'Mixup(alpha=0.2)']
    """
    found = {"none": Candidate("none", None)}
    for text in texts:
        name = " ".join(text.split())
        if name.lower() == "none":
            continue
        one = Candidate(name, mx.parse_op(name))
        if one.key in found:
            raise mx.MixValueError(f"--op {name}: {one.key} is given twice, expected each operator once")
        found[one.key] = one
    if len(found) < 2:
        raise mx.MixValueError('--op: nothing to compare with none, expected an operator, --op "Mixup(0.2)"')
    return list(found.values())


@dataclass(frozen=True)
class Scores:
    """What came of one training.

    Args:
        accuracy: on the rows that were held out, from 0 to 1.
        nll: negative log-likelihood there, nats.
        ece: expected calibration error there, from 0 to 1.
    """

    accuracy: float
    nll: float
    ece: float


class Task(Protocol):
    """Data with a split and a model, ready to train."""

    #: Of the rows, in the plural, for messages: "images".
    kind: str
    #: All that decides a training beside operator, seed and epochs, as plain JSON values.
    facts: dict[str, Any]
    #: Rows that are held out.
    tested: int

    def work(self, epochs: int) -> float:
        """What a run of so many epochs costs, its measuring too, in training steps' worth."""

    def check(self, op: mx.Operator) -> None:
        """Refuse an operator that cannot mix such rows, with a MixError."""

    def train(self, op: mx.Operator | None, seed: int, epochs: int, progress: Progress) -> Scores:
        """Train once. First weights, batches and their order depend on the seed alone; None mixes nothing."""
