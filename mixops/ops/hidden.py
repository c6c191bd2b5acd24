"""What the operators on hidden states share: Mixup of whole rows, a layer to mix at, and a step to begin at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..errors import MixTypeError, MixValueError
from ..plan import Plan
from ..spec import Spec
from .base import PER, Operator, check_choice, check_count, check_flag, check_number
from .mixup import whole_rows
from .pairing import BY_LABEL, PAIRINGS

#: A hidden state by number, as plans name it: "hidden:7" is what block 7 of a model puts out.
NUMBERED = "hidden:"


@dataclass(frozen=True, repr=False)
class HiddenOperator(Operator):
    """Base of the operators whose plan is applied inside a model, to the output of a layer.

    Args:
        per: "batch" (one λ), "pair" (rows that exchange share one) or "sample" (one a row).
        pairing: "random", "derange", "roll", "flip", "same_class", "other_class".
        fold: use max(λ, 1 - λ), so that the row itself always has the larger share.
        lam: a fixed own share in [0, 1] in place of a draw; None draws it.
        start_step: first step of the training, counted from 0 over all epochs, at which it acts; None: from the start.
            Before it the plan leaves all rows as they are. The spec has to say the step.
    """

    per: str = field(default="batch", kw_only=True)
    pairing: str = field(default="random", kw_only=True)
    fold: bool = field(default=False, kw_only=True)
    lam: float | None = field(default=None, kw_only=True)
    start_step: int | None = field(default=None, kw_only=True)

    gives: ClassVar[tuple[str, ...]] = ("partner", "lam", "layer")

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        check_choice(name, "per", self.per, PER)
        check_choice(name, "pairing", self.pairing, PAIRINGS)
        object.__setattr__(self, "fold", check_flag(name, "fold", self.fold))
        if self.lam is not None:
            object.__setattr__(self, "lam", check_number(name, "lam", self.lam, 0, 1))
        if self.start_step is not None:
            object.__setattr__(self, "start_step", check_count(name, "start_step", self.start_step, 0))

    def _check(self, name: str, value: Any) -> None:
        """Check a concentration and keep it as a float."""
        object.__setattr__(self, name, check_number(type(self).__name__, name, value, 0))

    @property
    def needs(self) -> tuple[str, ...]:
        return ("labels",) if self.pairing in BY_LABEL else ()

    def _on(self, spec: Spec) -> bool:
        if self.start_step is not None and spec.training:
            if spec.step is None:
                raise MixValueError(
                    f"{self!r} starts at a step of the training: say which one this is, Spec(..., step=...); a "
                    "PlanCollator knows it once it has steps_per_epoch="
                )
            if spec.step < self.start_step:
                return False
        return super()._on(spec)

    def _blended(
        self,
        alpha: float,
        layers: tuple[str, ...],
        rng: np.random.Generator,
        spec: Spec,
        *,
        labels: Any = None,
        partner: Any = None,
        lam: Any = None,
        layer: Any = None,
    ) -> Plan:
        """Mixup of whole rows at one of the layers, each as likely."""
        chosen = layers[int(rng.integers(len(layers)))] if len(layers) > 1 and layer is None else layers[0]
        if layer is not None:
            chosen = layer_name(type(self).__name__, layer)
        lam = self.lam if lam is None else lam
        return whole_rows(self, alpha, rng, spec.n, labels=labels, partner=partner, lam=lam, layer=chosen)


@dataclass(frozen=True, repr=False)
class OneLayer(HiddenOperator):
    """Base of the operators that always mix at the same layer.

    Args:
        alpha: concentration of the Beta, 0 or more; 0 is plain training.
        layer: where to mix.
    """

    alpha: float = 1.0
    layer: str | int = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("alpha", self.alpha)
        layer_name(type(self).__name__, self.layer)

    def _draw(self, rng: np.random.Generator, spec: Spec, **given: Any) -> Plan:
        return self._blended(self.alpha, (layer_name(type(self).__name__, self.layer),), rng, spec, **given)


def layer_name(owner: str, layer: Any) -> str:
    """A layer as plans name it: a word or module path as it is, a number k as "hidden:k"."""
    if isinstance(layer, str) and layer:
        return layer
    if isinstance(layer, (int, np.integer)) and not isinstance(layer, bool):
        return f"{NUMBERED}{check_count(owner, 'layer', layer, 0)}"
    raise MixTypeError(
        f"{owner}: layer {layer!r}: expected the path of a module, the number of a hidden state (0 or more), or one of "
        "'input', 'words', 'sentence'"
    )


def layer_list(owner: str, layers: Any) -> tuple[str | int, ...]:
    """The layers of an operator as given, a set in ascending order; a MixError if there is none or one comes twice."""
    if isinstance(layers, (str, int, np.integer)):
        layers = (layers,)
    if not isinstance(layers, Iterable):
        raise MixTypeError(f"{owner}(layers={layers!r}): expected a list of module paths or numbers of hidden states")
    given = list(layers)
    if isinstance(layers, (set, frozenset)):  # its order may differ from one process to the next
        given.sort(key=lambda one: (isinstance(one, str), one))
    names = [layer_name(owner, one) for one in given]
    if not names or len(set(names)) < len(names):
        raise MixValueError(f"{owner}(layers={layers!r}): expected one or more layers, each once")
    return tuple(one if isinstance(one, str) else int(one) for one in given)
