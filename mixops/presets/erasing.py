"""RandomErasing with the draws that peers make: a number of boxes, tries, uniform positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import MixValueError
from ..ops.base import check_count
from ..ops.boxes import given_place, interleaved
from ..ops.random_erasing import RandomErasing
from ..spec import Spec
from .shared import given_numbers, image_shape


@dataclass(frozen=True, repr=False)
class PeerErasing(RandomErasing):
    """RandomErasing as timm and torchvision draw it: up to ``count`` boxes, each with tries of its own.

    Args:
        area: (low, high) share of the image for all boxes of a row.
        aspect: (low, high) height over width, log-uniform.
        tries: draws until a box fits strictly inside the image.
        count: most boxes a row.
        per: "sample" or "batch".
        fill: value that is painted, or the mean of the noise.
        noise: "none", "channel" or "pixel".
        std: standard deviation of the noise.
        min_count: fewest boxes a row, None for ``count``; the number is drawn evenly.
        splits: above 1, the first n // splits rows stay clean.
        p: probability that a row is painted.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of ``count`` fill patches a row. Keywords ``count=`` (boxes of each row), ``area=``
        (shares) and ``aspect=`` (both (n,), (n, count) or (n, count, tries)), ``at=`` (first corner, (2,) up to
        (n, count, 2)) and ``box=`` replace the draw.

    Raises:
        MixError: if a number is out of range, a word is unknown, or the spec has not two axes.

    Example:
        >>> op = PeerErasing(count=2, min_count=1)
        >>> plan = op.draw(np.random.default_rng(0), Spec(1, (10, 10)), count=1, area=0.25, aspect=1.0, at=[0, 0])
        >>> plan.box[0].tolist()
        [[0, 5, 0, 5], [0, 0, 0, 0]]
    """

    min_count: int | None = None
    splits: int = 0

    gives: ClassVar[tuple[str, ...]] = ("box", "count", "area", "aspect", "at")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "splits", check_count(type(self).__name__, "splits", self.splits, 0))
        if self.min_count is not None:
            object.__setattr__(self, "min_count", check_count(type(self).__name__, "min_count", self.min_count, 1))
            if self.min_count > self.count:
                raise MixValueError(f"{self!r}: expected min_count of at most count={self.count}")

    def _boxes(
        self,
        rng: np.random.Generator,
        spec: Spec,
        *,
        count: Any = None,
        area: Any = None,
        aspect: Any = None,
        at: Any = None,
        **given: Any,
    ) -> np.ndarray:
        """(n, count, 4): for each box the first try that fits; empty boxes beyond a row's number."""
        extent = np.array(image_shape(self, spec))
        drawn = (spec.n, self.count, self.tries)
        if count is None:
            number = rng.integers(self.min_count or self.count, self.count + 1, spec.n)
        else:
            number = given_numbers("count", count, (spec.n,), 1, self.count).astype(np.int64)
        share = rng.uniform(*self.area, drawn) if area is None else given_numbers("area", area, drawn)
        if aspect is None:
            ratio = np.exp(rng.uniform(np.log(self.aspect[0]), np.log(self.aspect[1]), drawn))
        else:
            ratio = given_numbers("aspect", aspect, drawn, np.finfo(float).tiny)
        cells = share * extent.prod() / number[:, None, None]
        side = np.rint(np.sqrt(np.stack([cells * ratio, cells / ratio], -1))).astype(np.int64)
        row_on = np.arange(spec.n) >= (spec.n // self.splits if self.splits > 1 else 0)
        wanted = row_on[:, None] & (np.arange(self.count) < number[:, None])
        fits = (side < extent).all(-1) & wanted[..., None]
        side = np.take_along_axis(side, fits.argmax(-1)[..., None, None], -2)[..., 0, :]
        side = np.where(fits.any(-1)[..., None], side, 0)
        start = rng.integers(0, extent - side + 1) if at is None else given_place(at, side.shape)
        start = np.clip(start, 0, extent - side)
        return interleaved(start, start + side)
