"""Combinators: OneOf, Sometimes and Chain. They are operators too, and draw one plan wherever one can say it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from ..constant import ascending
from ..errors import MixTypeError, MixValueError
from ..plan import Plan
from ..sequence import PlanSequence
from ..spec import Spec
from ..streams import child_stream, child_streams, child_word
from .base import Operator, check_choice, check_number
from .forms import Form, common_form, formed


def _operators(owner: str, ops: Any) -> tuple[Operator, ...]:
    if isinstance(ops, Operator) or not isinstance(ops, Sequence):
        raise MixTypeError(f"{owner}: got {type(ops).__name__}, expected a list of operators")
    if not ops or not all(isinstance(op, Operator) for op in ops):
        wrong = next((type(op).__name__ for op in ops if not isinstance(op, Operator)), "an empty list")
        raise MixTypeError(f"{owner}: got {wrong}, expected one or more operators")
    return tuple(ops)


def _drawn(op: Operator, rng: np.random.Generator, spec: Spec, evidence: dict[str, Any]) -> list[Plan]:
    plan = op.draw(rng, spec, **{name: evidence[name] for name in (*op.needs, *op.uses) if name in evidence})
    return list(plan.plans) if isinstance(plan, PlanSequence) else [plan]


def _as_one(plans: list[Plan]) -> Plan | PlanSequence:
    return plans[0] if len(plans) == 1 else PlanSequence(tuple(plans))


@dataclass(frozen=True, repr=False)
class _Combinator(Operator):
    """Operators that hold operators: they need what their children need."""

    ops: Sequence[Operator] = ()

    _takes_list: ClassVar[bool] = True

    def __new__(cls, *args: Any, **options: Any) -> Self:
        if cls._takes_list and len(args) > 1 and all(isinstance(arg, Operator) for arg in args):
            fix = f"{cls.__name__}([{', '.join(map(repr, args))}])"
            raise MixTypeError(
                f"{cls.__name__}: got {len(args)} operators, expected a list of them: pass a list, {fix}"
            )
        return super().__new__(cls)

    @cached_property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for op in self.ops for name in op.needs))

    @cached_property
    def uses(self) -> tuple[str, ...]:  # type: ignore[override]  # a class constant for plain operators
        return tuple(dict.fromkeys(name for op in self.ops for name in op.uses))

    @cached_property
    def mixes(self) -> bool:  # type: ignore[override]  # a class constant for plain operators, the children's here
        return any(op.mixes for op in self.ops)

    def _words(self) -> list[str]:
        return [repr(list(self.ops))]

    def __repr__(self) -> str:
        named = [f for f in fields(self) if f.name != "ops" and getattr(self, f.name) != f.default]
        words = self._words() + [f"{f.name}={getattr(self, f.name)!r}" for f in named]
        return f"{type(self).__name__}({', '.join(words)})"


@dataclass(frozen=True, repr=False)
class OneOf(_Combinator):
    """Draw one of several operators, for the batch or for each row; with a choice a row it is still ONE plan.

    Args:
        ops: the operators.
        p: probability of each, in sum at most 1; what is left over leaves rows untouched. None: all equally likely.
        per: "batch" (one choice) or "sample" (every row its own; chains that mix twice cannot be chosen by row).
        until: first epoch at which it is off.

    Raises:
        MixError: if ops is empty, p has another length, is negative, NaN or sums to more than 1.

    Example:
        >>> from mixops import CutMix, Mixup
        >>> op = OneOf([Mixup(0.8), CutMix(1.0)], p=[0.5, 0.5], per="sample")
        >>> op.draw(np.random.default_rng(0), Spec(4, (8, 8))).k
        1
    """

    p: Sequence[float] | None = field(default=None, kw_only=True)  # type: ignore[assignment]  # one for each child
    per: str = field(default="batch", kw_only=True)

    def __post_init__(self) -> None:
        self._check_until()
        object.__setattr__(self, "ops", _operators("OneOf", self.ops))
        if self.p is not None:
            given = list(self.p) if isinstance(self.p, Sequence) else [self.p]
            shares = tuple(check_number("OneOf", "p", v, 0, 1) for v in given)
            if len(shares) != len(self.ops) or sum(shares) > 1 + 1e-9:
                raise MixValueError(
                    f"OneOf(p={self.p!r}): expected {len(self.ops)} probabilities that sum to at most 1"
                )
            object.__setattr__(self, "p", shares)
        check_choice("OneOf", "per", self.per, ("batch", "sample"))
        if self.per == "sample" and self.steps > 1:
            raise MixValueError(
                'OneOf(per="sample"): a chain that mixes rows twice cannot be chosen row by row; use per="batch"'
            )

    @property
    def steps(self) -> int:
        return max(op.steps for op in self.ops)

    def _draw(self, rng: np.random.Generator, spec: Spec, **evidence: Any) -> Plan | PlanSequence:
        word = child_word(rng)

        def child(i: int) -> list[Plan]:
            return _drawn(self.ops[i], child_stream(word, i), spec, evidence)

        if self.per == "batch":
            return self._for_batch(bisect_right(self._bounds, rng.random()), spec, child)
        choice = np.searchsorted(self._bounds, rng.random(spec.n), side="right")
        return _as_one([_chosen([child(i)[0] for i in range(len(self.ops))], choice, spec.n)])

    def _for_batch(self, place: int, spec: Spec, child: Callable[[int], list[Plan]]) -> Plan | PlanSequence:
        """The draw of one child, in the form that any of them would have.

        The others are drawn only to learn that form, and to refuse what they refuse: once for a kind of batch.
        """
        kind = (spec.n, spec.shape, spec.epoch, spec.training, spec.step is None)
        forms = None if self.needs or spec.lengths is not None else self._forms.get(kind)
        if forms is None:
            drawn = [child(i) for i in range(len(self.ops))]
            forms = [common_form([d[i] for d in drawn if i < len(d)]) for i in range(self.steps)]
            self._forms.clear()
            self._forms[kind] = forms
            plans = drawn[place] if place < len(drawn) else []
        else:
            plans = child(place) if place < len(self.ops) else []
        plans = plans + [Plan.identity(spec.n)] * (len(forms) - len(plans))
        return _as_one([formed(p, form) for p, form in zip(plans, forms, strict=True)])

    @cached_property
    def _bounds(self) -> list[float]:
        """A coin of [0, 1) below bound i and no earlier one chooses child i."""
        shares = np.full(len(self.ops), 1 / len(self.ops)) if self.p is None else np.array(self.p)
        bounds: list[float] = np.cumsum(shares).tolist()
        if self.p is None or sum(self.p) > 1 - 1e-9:
            bounds[-1] = np.inf  # the sum of the shares may miss 1 by a rounding
        return bounds

    @cached_property
    def _forms(self) -> dict[tuple[Any, ...], list[Form]]:
        """The form of each step, for the kind of batch that was met last."""
        return {}


def _chosen(plans: list[Plan], choice: np.ndarray, n: int) -> Plan:
    """Row n of the plan that row n chose; an untouched row where it chose none of these."""
    form = common_form(plans)
    if len({p.layer for p in plans}) > 1:
        layers = ", ".join(str(p.layer) for p in plans)
        raise MixValueError(
            f'OneOf(per="sample"): its operators mix at different layers, {layers}, and a batch is mixed at one: use '
            'per="batch"'
        )
    if choice.max(initial=0) == len(plans):
        plans = [*plans, Plan.trusted(Plan.identity(n), layer=plans[0].layer)]
    if n and not form.fills and (choice == choice[0]).all():  # no rows to gather
        return formed(plans[choice[0]], form)
    gathered = Plan.concat(plans)[choice * n + ascending(n)]
    in_place = all(p.base is ascending(n) for p in plans)
    return Plan.trusted(gathered, base=ascending(n)) if in_place else gathered


@dataclass(frozen=True, repr=False)
class Chain(_Combinator):
    """Apply operators one after the other; also written ``a | b``.

    Operators that only paint fills join the plan before them; one that mixes rows which an earlier one changed starts
    a new step, and the draw is then a PlanSequence.

    Args:
        ops: the operators, first to last.
        p: probability that the whole chain acts, on the batch.
        until: first epoch at which it is off.

    Raises:
        MixError: if ops is empty or holds something else.

    Example:
        >>> from mixops import Cutout, Mixup
        >>> Chain([Mixup(0.8), Cutout(4)])
        Chain([Mixup(alpha=0.8), Cutout(size=4)])
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        # a | b | c is one chain of three: child streams are keyed by place, so nesting must not matter.
        flat: list[Operator] = []
        for op in _operators("Chain", self.ops):
            inner = type(op) is Chain and op.p == 1 and op.until is None
            flat.extend(op.ops if inner and isinstance(op, Chain) else [op])
        object.__setattr__(self, "ops", tuple(flat))

    @property
    def steps(self) -> int:
        first, *rest = self.ops
        return first.steps + sum(op.steps for op in rest if op.mixes)

    def _draw(self, rng: np.random.Generator, spec: Spec, **evidence: Any) -> Plan | PlanSequence:
        plans: list[Plan] = []
        for op, stream in zip(self.ops, child_streams(rng, len(self.ops)), strict=True):
            drawn = _drawn(op, stream, spec, evidence)
            if plans and not op.mixes:
                plans[-1] = plans[-1].then(drawn[0])
            else:
                plans.extend(drawn)
        whole = _as_one(plans)
        return whole if self.p == 1 else whole.where(np.full(spec.n, rng.random() < self.p))


@dataclass(frozen=True, repr=False, init=False)
class Sometimes(_Combinator):
    """Let an operator act with probability p, and otherwise leave the rows untouched. p is applied exactly once.

    Args:
        op: the operator.
        p: probability.
        per: "batch" (one coin) or "sample" (a coin a row).
        until: first epoch at which it is off.

    Raises:
        MixError: if op is no operator or p is outside [0, 1].

    Example:
        >>> from mixops import Mixup
        >>> Sometimes(Mixup(0.2), 0.25)
        Sometimes(Mixup(alpha=0.2), p=0.25)
    """

    p: float = field(default=0.5, kw_only=True)
    per: str = field(default="batch", kw_only=True)

    _takes_list: ClassVar[bool] = False

    def __init__(self, op: Operator, p: float = 0.5, *, per: str = "batch", until: int | None = None) -> None:
        for name, value in (("ops", _operators("Sometimes", [op])), ("p", p), ("per", per), ("until", until)):
            object.__setattr__(self, name, value)
        self.__post_init__()
        check_choice("Sometimes", "per", per, ("batch", "sample"))
        if self.per == "sample" and self.steps > 1:
            raise MixValueError(
                'Sometimes(per="sample"): a chain that mixes rows twice acts on whole batches; use per="batch"'
            )

    def _words(self) -> list[str]:
        return [repr(self.ops[0])]

    @property
    def steps(self) -> int:
        return self.ops[0].steps

    def _draw(self, rng: np.random.Generator, spec: Spec, **evidence: Any) -> Plan | PlanSequence:
        (stream,) = child_streams(rng, 1)
        keep = np.broadcast_to(rng.random(1 if self.per == "batch" else spec.n) < self.p, spec.n)
        return _as_one(_drawn(self.ops[0], stream, spec, evidence)).where(keep)
