"""Cutoff: take away tokens, a span of them, or features of all tokens; targets stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..constant import ascending, filled
from ..errors import MixTypeError, MixValueError
from ..fills import Fills, check_fill_value
from ..plan import Plan
from ..spec import Spec, plain_array
from .base import Operator, check_choice, kept
from .tokens import (
    check_share,
    drawn_places,
    given_places,
    lengths_of,
    one_place,
    one_token_boxes,
    ordinary_tokens,
    portion,
    sizes_of,
)

KINDS = ("token", "span", "feature")


@dataclass(frozen=True, repr=False)
class Cutoff(Operator):
    """Cut ⌊share · n⌋ of a row's n ordinary tokens, or of its D features: x̃ = fill where it is cut, x elsewhere; ỹ = y.

    The plan says where. Applied to embeddings "b t d" it paints zeros; to ids "b t" (``kind="discrete"``) the ``fill=``
    that ``mix`` or the Field is given, the id of an unknown or mask token; to an attention mask 0, so that the model
    does not see the cut tokens at all: ``Field("b t", "discrete", fill=0)``.

    Args:
        share: of the tokens (or features) that go, in (0, 1].
        kind: "token" (single tokens, drawn without repetition), "span" (one run of them) or "feature" (whole columns of
            the embedding, the same for all tokens of a row).
        fill: what is painted into continuous arrays, in units of the input.
        p: probability that it acts, on each row.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of fill patches of opacity 1 and weight 0: for "token" ⌊share · T⌋ a row (at least one)
        of one token each, for "span" one, both on the shape (T,); for "feature" ⌊share · D⌋ a row (at least one) on the
        shape (T, D), which is applied as "b h w". It needs "lengths" but for "feature" (or takes them off the spec) and
        uses "special", (N, T), True at tokens that stay; without it every real token is ordinary. Keyword ``at=``
        replaces the draw: for "span" the first token of each row's span, (N,); else the tokens or columns, (N, m), -1
        for none.

    Raises:
        MixError: if share is outside (0, 1], kind is unknown or fill no number; on a draw, if the spec has other axes
            than the kind asks for, or the evidence another shape.

    Example:
        >>> plan = Cutoff(0.4, "span").draw(np.random.default_rng(0), Spec(1, (7,), [5]), at=[1])
        >>> plan.box[0, 0].tolist(), plan.lam.tolist()
        ([1, 3], [1.0])

    Source:
        Shen, Zheng, Shen, Qu, Chen, "A Simple but Tough-to-Beat Data Augmentation Approach for Natural Language
        Understanding and Generation", 2020, section 3.

    Differs from it:
        Tokens and columns are drawn without repetition, so that the share is what is cut; the authors' code draws with
        it and cuts fewer. Special tokens can be kept. A span lies between special tokens; where no run is long enough,
        the row is left whole. Rows too short for one token at this share are left whole there too.
    """

    share: float = 0.15
    kind: str = "token"
    fill: float = 0.0

    mixes: ClassVar[bool] = False
    uses: ClassVar[tuple[str, ...]] = ("special",)
    gives: ClassVar[tuple[str, ...]] = ("at",)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "share", check_share("Cutoff", self.share))
        check_choice("Cutoff", "kind", self.kind, KINDS)
        object.__setattr__(self, "fill", check_one_fill("Cutoff", self.fill))

    @property
    def needs(self) -> tuple[str, ...]:
        return () if self.kind == "feature" else ("lengths",)

    def _draw(
        self,
        rng: np.random.Generator,
        spec: Spec,
        *,
        labels: Any = None,
        special: Any = None,
        at: Any = None,
    ) -> Plan:
        if self.kind == "feature":
            box = self._columns(rng, spec, at)
        elif self.kind == "span":
            box = self._span(rng, spec, ordinary_tokens("Cutoff", spec, special), at)
        else:
            box = self._tokens(rng, spec, ordinary_tokens("Cutoff", spec, special), at)
        if self.p < 1:
            box = box * kept(rng, self.p, ascending(spec.n, np.intp))[:, None, None]
        return painted(box, spec.shape, self.fill)

    def _tokens(self, rng: np.random.Generator, spec: Spec, ordinary: np.ndarray, at: Any) -> np.ndarray:
        most = int(sizes_of(self.share, spec.shape[0]))
        if at is not None:
            return one_token_boxes(*given_places(at, lengths_of(spec), most))
        many = portion(self.share, ordinary.sum(1))
        return one_token_boxes(*drawn_places(rng, ordinary, many, most))

    def _columns(self, rng: np.random.Generator, spec: Spec, at: Any) -> np.ndarray:
        if len(spec.shape) != 2:
            raise MixValueError(
                f'Cutoff(kind="feature") draws on tokens and features: spec shape {spec.shape}, expected (T, D): '
                'Spec.like(embeddings, "b h w")'
            )
        n, (length, width) = spec.n, spec.shape
        many = int(portion(self.share, width))
        if at is not None:
            places, used = given_places(at, np.full(n, width), max(many, 1))
        else:
            places, used = drawn_places(rng, np.ones((n, width), bool), np.full(n, many), max(many, 1))
        box = np.zeros((*places.shape, 4), np.int64)
        box[..., 1] = used * length
        box[..., 2:] = one_token_boxes(places, used)
        return box

    def _span(self, rng: np.random.Generator, spec: Spec, ordinary: np.ndarray, at: Any) -> np.ndarray:
        many = portion(self.share, ordinary.sum(1))
        if at is not None:
            start = given_starts(at, spec)
            stop = np.minimum(start + many, lengths_of(spec))
            fits = stop > start
        else:
            # A window fits where the run of ordinary tokens from its first one on is long enough.
            allowed = (runs(ordinary) >= many[:, None]) & (many > 0)[:, None]
            start = one_place(rng, allowed)
            stop, fits = start + many, allowed.any(1)
        return np.where(fits[:, None], np.stack([start, stop], 1), 0)[:, None]


def runs(ordinary: np.ndarray) -> np.ndarray:
    """(n, T): ordinary tokens from each place on, up to the next one that is not; 0 where it is not itself."""
    length = ordinary.shape[1]
    ends = np.where(ordinary, length, np.arange(length))
    ends = np.minimum.accumulate(ends[:, ::-1], 1)[:, ::-1]
    return ends - np.arange(length)


def painted(box: np.ndarray, shape: tuple[int, ...], fill: float) -> Plan:
    """The plan that paints one fill into boxes (n, K, 2R); those that are empty have opacity 0."""
    on = np.logical_and.reduce(box[..., 1::2] > box[..., 0::2], -1)
    return Plan.boxed(filled(on.shape, -1, np.int32), box, on, filled(on.shape, 0, np.float32), shape, Fills.of(fill))


def given_starts(at: Any, spec: Spec) -> np.ndarray:
    """(n,) first tokens of spans that a user gave, checked."""
    start = plain_array("at", at)
    if (start.dtype.kind not in "iu" and start.size) or start.shape != (spec.n,):
        raise MixTypeError(f"at: got {start.dtype} of shape {start.shape}, expected whole numbers of shape ({spec.n},)")
    if spec.n and not 0 <= start.min() <= start.max() < spec.shape[0]:
        raise MixValueError(f"at reaches from {start.min()} to {start.max()}: expected 0 to {spec.shape[0] - 1}")
    return start.astype(np.int64)


def check_one_fill(owner: str, fill: Any) -> float:
    """One finite number, or a MixError."""
    value = check_fill_value(fill)
    if len(value) != 1:
        raise MixValueError(f"{owner}(fill={fill!r}): expected one number")
    return value[0]
