"""Cutout: paint square holes into every row; targets stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..constant import filled
from ..errors import MixValueError
from ..fills import Fills, check_fill_value
from ..plan import Plan
from ..spec import Spec
from .base import Operator, check_choice, check_count, check_number, kept, units
from .boxes import EDGES, given_boxes, placed


@dataclass(frozen=True, repr=False)
class Cutout(Operator):
    """Paint ``count`` holes: x̃ = fill inside the holes, x outside; ỹ = y.

    Args:
        size: side of a hole in pixels, one number or one for each axis; give this or ``fraction``.
        fraction: side as a share of each extent, in (0, 1].
        count: holes a row, 1 or more.
        per: "sample" (every row its own holes) or "batch" (the same for all).
        edge: "clip" (any pixel is the centre, what hangs over is cut off) or "inside" (holes lie within).
        fill: what is painted, in units of the input: a number or one for each channel.
        p: probability that it acts, on each unit of ``per``.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of ``count`` fill patches a row. Keywords ``at=`` (centre or first corner of the holes,
        (R,) up to (n, count, R)) and ``box=`` (one hole) replace the draw.

    Raises:
        MixError: if neither or both of size and fraction are given, a number is out of range, or the spec has no axes.

    Example:
        >>> plan = Cutout(4).draw(np.random.default_rng(0), Spec(1, (8, 8)), at=[4, 4])
        >>> plan.box[0, 0].tolist()
        [2, 6, 2, 6]

    Source:
        DeVries, Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017, section 3.

    Differs from it:
        An odd size keeps its length (the authors' code paints size - 1; ``mx.presets.cutout()`` does as it does), and
        p is 1: the paper's fixed probability of 0.5 of leaving an image whole is its other variant.
    """

    size: int | tuple[int, ...] | None = None
    fraction: float | None = None
    count: int = 1
    per: str = "sample"
    edge: str = "clip"
    fill: float | tuple[float, ...] = 0.0

    mixes: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]] = ("at", "box")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.size is None) == (self.fraction is None):
            raise MixValueError(f"Cutout(size={self.size!r}, fraction={self.fraction!r}): give one of the two")
        if isinstance(self.size, (tuple, list)):
            object.__setattr__(self, "size", tuple(check_count("Cutout", "size", s, 1) for s in self.size))
        elif self.size is not None:
            object.__setattr__(self, "size", check_count("Cutout", "size", self.size, 1))
        elif not check_number("Cutout", "fraction", self.fraction, 0, 1):
            raise MixValueError("Cutout(fraction=0): expected a share above 0; to paint nothing, leave Cutout out")
        object.__setattr__(self, "count", check_count("Cutout", "count", self.count, 1))
        check_choice("Cutout", "per", self.per, ("batch", "sample"))
        check_choice("Cutout", "edge", self.edge, EDGES)
        value = check_fill_value(self.fill)
        object.__setattr__(self, "fill", value[0] if len(value) == 1 else value)

    def _draw(
        self, rng: np.random.Generator, spec: Spec, *, labels: Any = None, at: Any = None, box: Any = None
    ) -> Plan:
        size = self._sides(spec)
        n, k, unit = spec.n, self.count, units(self.per, spec.n, None)
        if box is not None:
            boxes = np.broadcast_to(given_boxes(box, n, spec.shape)[:, None], (n, k, 2 * len(size)))
        else:
            boxes = placed(rng, spec.shape, np.broadcast_to(size, (n, k, len(size))), self.edge, at, unit)
        on = filled((n, k), 1, np.float32)
        if self.p < 1:
            on = np.broadcast_to(kept(rng, self.p, unit)[:, None], (n, k))
            boxes = np.where(on[..., None], boxes, 0)
        fill, nothing = filled((n, k), -1, np.int32), filled((n, k), 0, np.float32)
        return Plan.boxed(fill, boxes, on, nothing, spec.shape, Fills.of(self.fill))

    def _sides(self, spec: Spec) -> np.ndarray:
        extent = np.array(spec.shape, np.int64)
        if not spec.shape:
            raise MixValueError(
                "Cutout paints boxes: the spec has no axes, expected Spec(n, shape=(h, w)), (t,) or (t, h, w)"
            )
        if self.fraction is not None:
            return np.maximum(np.floor(extent * self.fraction + 0.5).astype(np.int64), 1)
        size = np.array(self.size, np.int64)
        if size.ndim and size.shape != extent.shape:
            raise MixValueError(f"{self!r} on {len(spec.shape)} axes: expected one size or {len(spec.shape)}")
        return np.minimum(np.broadcast_to(size, extent.shape), extent if self.edge == "inside" else 2 * extent)
