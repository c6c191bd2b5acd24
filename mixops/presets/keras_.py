"""keras.layers: MixUp, CutMix and RandomErasing of Keras 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import MixValueError
from ..ops.base import Operator, check_number, check_range, kept, units
from ..ops.boxes import interleaved
from ..ops.mixup import Mixup
from ..ops.pairing import partners
from ..ops.random_erasing import RandomErasing
from ..ops.shares import own_shares
from ..plan import Plan
from ..spec import Spec
from .shared import given_numbers, image_shape, pasted


def _bounds(owner: str, name: str, value: Any) -> tuple[float, float]:
    """Keras takes one number as (0, number)."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return 0.0, check_number(owner, name, value, 0, 1)
    return check_range(owner, name, value, 0, 1)


def _laid(ratio: np.ndarray, uniform: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of real-valued corners, in float32: (n, 4) pixels whose index lies in [start, stop), and (n, 2) sides."""
    extent = np.array(shape, np.float32)
    cut = ratio * extent
    start = uniform * (extent - cut)
    stop = start + cut
    corners = np.clip(np.ceil(np.stack([start, stop])), 0, extent).astype(np.int64)
    return interleaved(*corners), stop - start


@dataclass(frozen=True, repr=False)
class KerasCutMix(Operator):
    """Keras's CutMix: boxes with real-valued corners inside the image; ``keras_cutmix`` makes it.

    Args:
        low: least concentration of the Beta; one is drawn evenly for each batch.
        high: largest concentration.
        p: probability that it acts, on the batch.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of one box a row. Keywords ``partner=`` (n,), ``lam=`` (the λ that sets the sides) and
        ``uniform=`` ((n, 2): numbers of [0, 1] for h and w that place the boxes) replace the draw.

    Raises:
        MixError: if a number is out of range or the spec has not two axes.

    Example:
        >>> op = KerasCutMix()
        >>> plan = op.draw(np.random.default_rng(0), Spec(1, (8, 8)), lam=[0.9], uniform=[[0.0, 0.5]])
        >>> plan.box[0, 0].tolist(), round(float(plan.lam[0]), 3)  # 9 of 64 pixels are 0.141
        ([0, 3, 3, 6], 0.9)
    """

    low: float = 0.0
    high: float = 1.0

    gives: ClassVar[tuple[str, ...]] = ("partner", "lam", "uniform")

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = check_range("KerasCutMix", "low, high", (self.low, self.high), 0, 1)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def _draw(
        self,
        rng: np.random.Generator,
        spec: Spec,
        *,
        partner: Any = None,
        lam: Any = None,
        uniform: Any = None,
        **given: Any,
    ) -> Plan:
        shape, n = image_shape(self, spec), spec.n
        alpha = rng.uniform(self.low, self.high) + 1e-6
        own = own_shares(rng, alpha, n, np.arange(n), lam).astype(np.float32)
        place = rng.random((n, 2), np.float32) if uniform is None else _numbers("uniform", uniform, n)
        boxes, sides = _laid(np.sqrt(1 - own)[:, None], place, shape)
        share = sides.prod(-1) / np.float32(np.prod(shape))
        donors = partners("random", rng, n, given=partner)
        on = kept(rng, self.p, units("batch", n, None))
        return pasted(donors[:, None], boxes[:, None], on[:, None], share[:, None], shape)


@dataclass(frozen=True, repr=False)
class KerasErasing(RandomErasing):
    """Keras's RandomErasing: each side is drawn for itself, extent·√U; ``keras_erasing`` makes it.

    Args:
        area: (low, high) that U is drawn from, for each side.
        fill: value that is painted, or the mean of the noise.
        noise: "none", "channel" or "pixel".
        std: standard deviation of the noise.
        p: probability that a row is painted.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of one fill patch a row. Keywords ``area=`` ((n, 2): U for h and w), ``uniform=``
        ((n, 2): numbers of [0, 1] for h and w that place it) and ``box=`` replace the draw.

    Raises:
        MixError: if a number is out of range or the spec has not two axes.

    Example:
        >>> op = KerasErasing()
        >>> op.draw(np.random.default_rng(0), Spec(1, (8, 8)), area=[[0.25, 1]], uniform=[[0.5, 0]]).box[0, 0].tolist()
        [2, 6, 0, 8]
    """

    gives: ClassVar[tuple[str, ...]] = ("box", "area", "uniform")

    def _boxes(
        self, rng: np.random.Generator, spec: Spec, *, area: Any = None, uniform: Any = None, **given: Any
    ) -> np.ndarray:
        n, shape = spec.n, image_shape(self, spec)
        share = rng.uniform(*self.area, (n, 2)).astype(np.float32) if area is None else _numbers("area", area, n)
        place = rng.random((n, 2), np.float32) if uniform is None else _numbers("uniform", uniform, n)
        return _laid(np.sqrt(share), place, shape)[0][:, None]


def _numbers(name: str, value: Any, n: int) -> np.ndarray:
    return given_numbers(name, value, (n, 2), 0, 1).astype(np.float32)


def keras_mixup(alpha: float = 0.2) -> Mixup:
    """Mixup as ``keras.layers.MixUp`` draws it (3.15.1 is tested): a λ for every row, partners shuffled.

    Args:
        alpha: concentration of the Beta, 0 or more.

    Returns:
        ``Mixup(alpha, per="sample")``.

    Raises:
        MixError: if alpha is negative, NaN or infinite.

    Example:
        >>> keras_mixup()
        Mixup(alpha=0.2, per='sample')

    Differs from ours:
        One λ a row, not one a batch.

    Kept right:
        Masks and boxes: Keras 3.15.1 picks the partner's mask without an axis and joins box labels along the batch.
        Here each field follows the plan by its kind.
    """
    return Mixup(alpha, per="sample")


def keras_cutmix(factor: float | tuple[float, float] = 1.0) -> KerasCutMix:
    """CutMix as ``keras.layers.CutMix`` draws it (3.15.1 is tested): per row, inside the image, corners real-valued.

    Args:
        factor: (low, high) that the Beta's concentration is drawn from for each batch; a number f is (0, f).

    Returns:
        An operator; see KerasCutMix for the keywords of its ``draw``.

    Raises:
        MixError: if factor is outside [0, 1].

    Example:
        >>> keras_cutmix(0.5)
        KerasCutMix(high=0.5)

    Differs from ours:
        The label is the area of the REAL-VALUED box, not of the pixels that were pasted: a few percent off on small
        images. Kept here as it is; ``CutMix(alpha, per="sample", edge="inside")`` is the same idea with true labels.
        Boxes lie inside the image (50 % pasted on average; clipped boxes 32 %).
    """
    return KerasCutMix(*_bounds("keras_cutmix", "factor", factor))


def keras_erasing(
    factor: float | tuple[float, float] = 1.0,
    scale: float | tuple[float, float] = (0.02, 0.33),
    fill_value: float | tuple[float, ...] | None = None,
    value_range: tuple[float, float] = (0, 255),
) -> KerasErasing:
    """RandomErasing as ``keras.layers.RandomErasing`` draws it (3.15.1 is tested): sides extent·√U, each its own U.

    Args:
        factor: (low, high) that the probability is drawn from for each row; a number f is (0, f). Rows are
            independent, so this is one probability, (low + high) / 2: 0.5 for Keras's default of 1.0.
        scale: (low, high) of U; a number s is (0, s). Keras calls it an aspect ratio; it is not.
        fill_value: what is painted, clipped to value_range; None is normal noise of deviation value_range[1].
        value_range: (low, high) of the images' values.

    Returns:
        An operator of one fill patch a row; see KerasErasing for the keywords of its ``draw``.

    Raises:
        MixError: if a number is out of range.

    Example:
        >>> keras_erasing(fill_value=0).p
        0.5

    Differs from ours:
        The aspect is not controlled, and an erased area is the product of two draws, with a mean of 0.14 by default.

    Kept right:
        Noise is part of the plan and replays. Keras clips its noise to value_range; a plan's noise is clipped only by
        the dtype: the same for uint8 images and (0, 255), wider tails for float images.
    """
    low, high = _bounds("keras_erasing", "factor", factor)
    try:
        least, most = (float(v) for v in value_range)
    except (TypeError, ValueError):
        raise MixValueError(f"keras_erasing(value_range={value_range!r}): expected two numbers (low, high)") from None
    if not least <= most:
        raise MixValueError(f"keras_erasing(value_range={value_range!r}): expected low <= high")
    fill: float | tuple[float, ...] = 0.0
    if fill_value is not None:
        fill = tuple(float(v) for v in np.clip(np.atleast_1d(np.asarray(fill_value, np.float64)), least, most))
    return KerasErasing(
        area=_bounds("keras_erasing", "scale", scale),
        tries=1,
        fill=fill,
        noise="pixel" if fill_value is None else "none",
        std=abs(most) if fill_value is None else 1.0,
        p=(low + high) / 2,
    )
