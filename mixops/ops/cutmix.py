"""CutMix: paste a box of a partner into every row; the target follows the area that was pasted."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, sqrt
from typing import Any, ClassVar

import numpy as np

from ..constant import filled
from ..errors import MixValueError
from ..plan import Plan
from ..spec import Spec
from .base import PER, Operator, check_choice, check_number, check_range, kept, spread, units
from .boxes import EDGES, area, given_boxes, one_place, placed
from .pairing import BY_LABEL, PAIRINGS, partners
from .shares import one_share, own_shares

LABELS = ("area", "nominal")


@dataclass(frozen=True, repr=False)
class CutMix(Operator):
    """Paste a box of the partner: x̃ = x outside, x[partner] inside; side = extent·(1 - λ)^(1/d), λ ~ Beta(α, α).

    Args:
        alpha: concentration of the Beta, 0 or more; 0 is plain training.
        minmax: (low, high) shares of the extent within (0, 1]; each side is then drawn evenly for itself, not from λ.
        per: "batch" (one box), "pair" (rows that exchange share one) or "sample" (one a row).
        pairing: "random", "derange", "roll", "flip", "same_class", "other_class".
        edge: "clip" (any pixel is the centre, what hangs over is cut off; pastes 32 % on average at alpha 1) or
            "inside" (the box lies within; 50 %).
        label: "area" (the share that was truly pasted) or "nominal" (1 - λ; with minmax there is none).
        p: probability that it acts, on each unit of ``per``.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of one box a row over all d = 1, 2 or 3 axes of ``spec.shape``. Keywords ``partner=``
        (n,), ``lam=``, ``at=`` (centre or first corner) and ``box=`` (start, stop of each axis) replace the draw.

    Raises:
        MixError: if a number is out of range, a word unknown, or the spec has no axes to cut.

    Example:
        >>> plan = CutMix().draw(np.random.default_rng(0), Spec(2, (8, 8)), partner=[1, 0], box=[0, 4, 0, 4])
        >>> plan.lam.tolist()
        [0.75, 0.75]

    Source:
        Yun, Han, Oh, Chun, Choe, Yoo, "CutMix", ICCV 2019, section 3.1.

    Differs from it:
        An odd side keeps its length (the authors' code loses a pixel; ``mx.presets.clovaai_cutmix()`` does as it does),
        and the sides follow the d-th root, so that 1 - λ stays the share of the volume when d is not 2.
    """

    alpha: float = 1.0
    minmax: tuple[float, float] | None = None
    per: str = "batch"
    pairing: str = "random"
    edge: str = "clip"
    label: str = "area"

    gives: ClassVar[tuple[str, ...]] = ("partner", "lam", "at", "box")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "alpha", check_number("CutMix", "alpha", self.alpha, 0))
        check_choice("CutMix", "per", self.per, PER)
        check_choice("CutMix", "pairing", self.pairing, PAIRINGS)
        check_choice("CutMix", "edge", self.edge, EDGES)
        check_choice("CutMix", "label", self.label, LABELS)
        if self.minmax is not None:
            object.__setattr__(self, "minmax", check_range("CutMix", "minmax", self.minmax, 0, 1))
            if self.label == "nominal":
                raise MixValueError(
                    'CutMix(minmax=..., label="nominal"): sides drawn on their own have no nominal λ; use label="area"'
                )

    @property
    def needs(self) -> tuple[str, ...]:
        return ("labels",) if self.pairing in BY_LABEL else ()

    def _draw(
        self,
        rng: np.random.Generator,
        spec: Spec,
        *,
        labels: Any = None,
        partner: Any = None,
        lam: Any = None,
        at: Any = None,
        box: Any = None,
    ) -> Plan:
        if not spec.shape:
            raise MixValueError(
                "CutMix cuts boxes: the spec has no axes to cut, expected Spec(n, shape=(h, w)), (t,) or (t, h, w)"
            )
        donors = partners(self.pairing, rng, spec.n, per=self.per, labels=labels, given=partner)
        one_box = self.per == "batch" and len(spec.shape) == 2 and self.minmax is None and spec.n > 0
        if one_box and self.alpha > 0 and lam is None and at is None and box is None:
            return self._one_box(rng, spec, donors)
        unit = units(self.per, spec.n, donors)
        own = own_shares(rng, self.alpha, spec.n, unit, lam)
        if box is not None:
            boxes = given_boxes(box, spec.n, spec.shape)
        else:
            size = self._sides(spec, own) if self.minmax is None else spread(self._free_sides(rng, spec), unit)
            boxes = placed(rng, spec.shape, size, self.edge, at, unit)
        pasted = area(boxes, spec.shape)
        on = (
            kept(rng, self.p, unit)
            & ((self.alpha > 0) | (self.minmax is not None) | (lam is not None) | (box is not None))
            & (pasted > 0)
        )
        weight = np.where(on, pasted if self.label == "area" else 1 - own, 0).astype(np.float32)[:, None]
        boxes = np.where(on[:, None], boxes, 0)[:, None]
        return Plan.boxed(donors[:, None], boxes, on[:, None], weight, spec.shape)

    def _one_box(self, rng: np.random.Generator, spec: Spec, donors: np.ndarray) -> Plan:
        """The same draw where one box of two axes serves the batch: on numbers, which take a fraction of the time."""
        n, (height, width) = spec.n, spec.shape
        own = one_share(rng, self.alpha)
        ratio = sqrt(1 - own)
        box = one_place(rng, spec.shape, (floor(ratio * height), floor(ratio * width)), self.edge, n)
        pasted = (box[1] - box[0]) * (box[3] - box[2]) / float(height * width)
        on = (self.p == 1 or rng.random(n)[0] < self.p) and pasted > 0
        weight = (pasted if self.label == "area" else 1 - own) if on else 0
        boxes = np.empty((n, 1, 4), np.int32)
        boxes[...] = box if on else 0
        shares = np.full((n, 1), weight, np.float32)
        return Plan.boxed(donors.reshape(n, 1), boxes, filled((n, 1), int(on), np.float32), shares, spec.shape)

    def _sides(self, spec: Spec, own: np.ndarray) -> np.ndarray:
        ratio = np.sqrt(1 - own) if len(spec.shape) == 2 else (1 - own) ** (1 / len(spec.shape))
        return np.floor(ratio[:, None] * np.array(spec.shape)).astype(np.int64)

    def _free_sides(self, rng: np.random.Generator, spec: Spec) -> np.ndarray:
        assert self.minmax is not None
        low, high = ((np.array(spec.shape) * share).astype(np.int64) for share in self.minmax)
        return rng.integers(low, high + 1, (spec.n, len(spec.shape)))
