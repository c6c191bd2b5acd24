"""RandomErasing: paint rectangles of random area and aspect, with a value or with noise; targets stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..constant import filled
from ..errors import MixValueError
from ..fills import NOISES, Fills, check_fill_value
from ..plan import Plan
from ..spec import Spec
from .base import Operator, check_choice, check_count, check_number, check_range, kept, spread, units
from .boxes import given_boxes, interleaved


@dataclass(frozen=True, repr=False)
class RandomErasing(Operator):
    """Paint a rectangle of area A·h·w and aspect r: height √(A·h·w·r), width √(A·h·w/r), A uniform, r log-uniform.

    Args:
        area: (low, high) share of the image that is painted, within (0, 1]; divided by ``count``.
        aspect: (low, high) height over width, above 0.
        tries: draws until a rectangle fits strictly inside the image; if none does the row stays whole.
        count: rectangles a row, 1 or more.
        per: "sample" (every row its own) or "batch" (the same for all).
        fill: value that is painted, or the mean of the noise, in units of the input: a number or one for each channel.
        noise: "none", "channel" (one normal number for each channel) or "pixel" (one for each element). The keys are
            part of the plan, so that a saved plan paints the same noise.
        std: standard deviation of the noise.
        p: probability that it acts, on each unit of ``per``.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of ``count`` fill patches a row. Keyword ``box=`` (one rectangle) replaces the draw.

    Raises:
        MixError: if a number is out of range, a word unknown, or the spec has not one axis or two.

    Example:
        >>> plan = RandomErasing(noise="pixel").draw(np.random.default_rng(0), Spec(2, (32, 32)))
        >>> plan.lam.tolist()
        [1.0, 1.0]

    Source:
        Zhong, Zheng, Kang, Li, Yang, "Random Erasing Data Augmentation", AAAI 2020, algorithm 1.

    Differs from it:
        The aspect is log-uniform, so that tall and flat are equally likely (as in timm and torchvision; the authors
        draw it uniformly), the area reaches 1/3 rather than 0.4, and there are 10 tries rather than 100. On one axis
        only the area counts.
    """

    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 3.3)
    tries: int = 10
    count: int = 1
    per: str = "sample"
    fill: float | tuple[float, ...] = 0.0
    noise: str = "none"
    std: float = 1.0

    mixes: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]] = ("box",)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = "RandomErasing"
        object.__setattr__(self, "area", check_range(name, "area", self.area, 0, 1))
        object.__setattr__(self, "aspect", check_range(name, "aspect", self.aspect, 0, np.inf))
        if not self.area[1] or not self.aspect[0]:
            raise MixValueError(f"{self!r}: expected an area and an aspect above 0")
        object.__setattr__(self, "tries", check_count(name, "tries", self.tries, 1))
        object.__setattr__(self, "count", check_count(name, "count", self.count, 1))
        check_choice(name, "per", self.per, ("batch", "sample"))
        check_choice(name, "noise", self.noise, NOISES)
        object.__setattr__(self, "std", check_number(name, "std", self.std, 0))
        value = check_fill_value(self.fill)
        object.__setattr__(self, "fill", value[0] if len(value) == 1 else value)

    def _draw(self, rng: np.random.Generator, spec: Spec, *, labels: Any = None, box: Any = None, **given: Any) -> Plan:
        if len(spec.shape) not in (1, 2):
            raise MixValueError(f"RandomErasing paints rectangles: spec shape {spec.shape}, expected (h, w) or (t,)")
        n, k, unit = spec.n, self.count, units(self.per, spec.n, None)
        if box is not None:
            boxes = np.broadcast_to(given_boxes(box, n, spec.shape)[:, None], (n, k, 2 * len(spec.shape)))
        else:
            boxes = spread(self._boxes(rng, spec, **given), unit)
        on = np.logical_and.reduce(boxes[..., 1::2] > boxes[..., 0::2], -1)
        if self.p < 1:
            on &= kept(rng, self.p, unit)[:, None]
        boxes = boxes * on[..., None]
        partner, fills = self._fills(rng, n, unit)
        return Plan.boxed(partner, boxes, on, filled((n, k), 0, np.float32), spec.shape, fills)

    def _boxes(self, rng: np.random.Generator, spec: Spec, **given: Any) -> np.ndarray:
        """(n, count, 2R): the first try of each that fits, an empty box where none does.

        ``given`` holds what a subclass lists in ``gives``; this class lists nothing that gets here.
        """
        extent = np.array(spec.shape)
        side = np.zeros((spec.n * self.count, len(extent)), np.int64)
        unfit = np.arange(len(side))
        for _ in range(self.tries):
            drawn = self._sides(rng, extent, len(unfit))
            fits = (drawn < extent).all(-1)
            side[unfit[fits]] = drawn[fits]
            unfit = unfit[~fits]
            if not len(unfit):
                break
        sides = side.reshape(spec.n, self.count, len(extent))
        start = rng.integers(0, extent - sides + 1)
        return interleaved(start, start + sides)

    def _sides(self, rng: np.random.Generator, extent: np.ndarray, count: int) -> np.ndarray:
        """(count, R) sides of rectangles of a random area and aspect, which may be larger than the image."""
        area = rng.uniform(*self.area, count) * (extent.prod() / self.count)
        if len(extent) == 1:
            return np.rint(area)[:, None].astype(np.int64)
        low, high = np.log(self.aspect)
        ratio = np.exp(rng.uniform(low, high, count))
        sides = np.empty((count, 2))
        np.multiply(area, ratio, out=sides[:, 0])
        np.divide(area, ratio, out=sides[:, 1])
        np.sqrt(sides, out=sides)
        return np.rint(sides, out=sides).astype(np.int64)

    def _fills(self, rng: np.random.Generator, n: int, unit: np.ndarray) -> tuple[np.ndarray, Fills]:
        """Partners and the table: one constant for all, or noise with a key for each patch."""
        if self.noise == "none":
            return filled((n, self.count), -1, np.int32), Fills.of(self.fill)
        count = max(n * self.count, 1)
        value = np.broadcast_to(
            np.array(check_fill_value(self.fill), np.float32), (count, len(check_fill_value(self.fill)))
        )
        keys = rng.integers(1 << 64, size=count, dtype=np.uint64)
        fills = Fills(value, np.full(count, NOISES.index(self.noise)), np.full(count, self.std), keys)
        return spread(-1 - np.arange(n * self.count).reshape(n, self.count), unit), fills
