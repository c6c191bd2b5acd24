"""kornia: RandomMixUpV2, RandomCutMixV2 and RandomErasing, of 0.8 and of 0.9."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import MixValueError
from ..ops.base import Operator, check_choice, check_count, check_number, check_range, kept, units
from ..ops.boxes import interleaved
from ..ops.pairing import partners
from ..ops.random_erasing import RandomErasing
from ..ops.shares import own_shares
from ..plan import Plan
from ..spec import Spec
from .shared import given_numbers, image_shape, pasted, version_of


def _is_old(owner: str, version: str) -> bool:
    release = version_of(owner, version)[:2]
    if release < (0, 8):
        raise MixValueError(f"{owner}(version={version!r}): expected '0.8' or '0.9'; older ones have not been read")
    return release == (0, 8)


@dataclass(frozen=True, repr=False)
class KorniaMixup(Operator):
    """kornia's RandomMixUpV2: x̃ = (1-l)·x + l·x[partner], l ~ Uniform(low, high); ``kornia_mixup`` makes it.

    Args:
        low: least share of the partner, in [0, 1].
        high: largest share of the partner, in [0, 1].
        per: "sample" (a share a row) or "batch" (one for all).
        old: throw the coin of p for the batch and again for each row, as kornia 0.8 does.
        p: probability that the batch is mixed.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of whole rows. Keywords ``partner=`` (n,) and ``lam=`` (the row's OWN share) replace
        the draw.

    Raises:
        MixError: if a number is out of range or a word is unknown.

    Example:
        >>> KorniaMixup(high=0.5).draw(np.random.default_rng(0), Spec(2), partner=[1, 0], lam=[0.75, 0.5]).lam.tolist()
        [0.75, 0.5]
    """

    low: float = 0.0
    high: float = 1.0
    per: str = "sample"
    old: bool = False

    gives: ClassVar[tuple[str, ...]] = ("partner", "lam")

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = check_range("KorniaMixup", "low, high", (self.low, self.high), 0, 1)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        check_choice("KorniaMixup", "per", self.per, ("sample", "batch"))

    def _draw(
        self, rng: np.random.Generator, spec: Spec, *, partner: Any = None, lam: Any = None, **given: Any
    ) -> Plan:
        n, unit = spec.n, units(self.per, spec.n, None)
        donors = partners("random", rng, n, given=partner)
        other = rng.uniform(self.low, self.high, n)[unit] if lam is None else 1 - given_numbers("lam", lam, (n,), 0, 1)
        on = kept(rng, self.p, units("batch", n, None))
        if self.old:
            on &= kept(rng, self.p, unit)
        return Plan.whole(donors, np.where(on, other, 0))


@dataclass(frozen=True, repr=False)
class KorniaCutMix(Operator):
    """kornia's RandomCutMixV2: ``count`` boxes a row, each from a permutation of its own; ``kornia_cutmix`` makes it.

    Args:
        alpha: concentration of the Beta that λ is drawn from; 0 is plain training.
        low: λ is raised to at least this, in [0, 1).
        high: and lowered to at most this, in [0, 1].
        count: boxes a row.
        per: "sample" (every row its own boxes) or "batch" (the same for all; partners always differ).
        old: the placement, the double coin and the labels of kornia 0.8.
        p: probability that the batch is mixed.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of ``count`` boxes a row. Keywords ``partner=`` ((n,) or (n, count)), ``lam=``
        (number, (n,) or (n, count)) and ``uniform=`` (numbers of [0, 1) for h and w that place the boxes: (n, count,
        2), or (2,) for all) replace the draw.

    Raises:
        MixError: if a number is out of range, a word is unknown, or the spec has not two axes.

    Example:
        >>> plan = KorniaCutMix().draw(np.random.default_rng(0), Spec(1, (8, 8)), lam=0.75, uniform=[0.5, 0.99])
        >>> plan.box[0, 0].tolist(), plan.lam.tolist()
        ([2, 6, 4, 8], [0.75])
    """

    alpha: float = 1.0
    low: float = 0.0
    high: float = 1.0
    count: int = 1
    per: str = "sample"
    old: bool = False

    gives: ClassVar[tuple[str, ...]] = ("partner", "lam", "uniform")

    def __post_init__(self) -> None:
        super().__post_init__()
        name = "KorniaCutMix"
        object.__setattr__(self, "alpha", check_number(name, "alpha", self.alpha, 0))
        low, high = check_range(name, "low, high", (self.low, self.high), 0, 1)
        object.__setattr__(self, "low", check_number(name, "low", low, 0, 1, open_high=True))
        object.__setattr__(self, "high", high)
        object.__setattr__(self, "count", check_count(name, "count", self.count, 1))
        check_choice(name, "per", self.per, ("sample", "batch"))

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
        shape, n, k = image_shape(self, spec), spec.n, self.count
        own = self._shares(rng, n) if lam is None else given_numbers("lam", lam, (n, k), 0, 1)
        own = np.clip(own.astype(np.float32), np.float32(self.low), np.float32(self.high))
        on = self._coins(rng, n)
        extent = np.array(shape, np.float32)
        side = np.floor(np.sqrt(1 - own)[..., None] * on[..., None].astype(np.float32) * extent)
        place = self._places(rng, n) if uniform is None else _given_uniform(uniform, (n, k, 2))
        if self.old:
            start = np.floor(place * (extent - side - 1))
        else:
            start = np.minimum(np.floor(place * (extent - side + 1)), extent - side)
        # In 0.8 a box of the full extent starts at -1: kornia pastes what is left of it and labels all of it.
        corners = np.clip(np.stack([start, start + side]), 0, extent).astype(np.int64)
        share = side.prod(-1) / float(np.prod(shape)) / k
        return pasted(self._donors(rng, n, partner), interleaved(*corners), on, share, shape)

    def _donors(self, rng: np.random.Generator, n: int, given: Any) -> np.ndarray:
        if given is not None:
            columns = np.asarray(given)
            columns = np.repeat(columns[:, None], self.count, 1) if columns.ndim == 1 else columns
            if columns.shape != (n, self.count):
                raise MixValueError(f"partner has shape {columns.shape}: expected ({n},) or ({n}, {self.count})")
            return np.stack([partners("random", rng, n, given=c) for c in columns.T], 1)
        if self.old and self.per == "batch":
            return np.repeat(partners("random", rng, n)[:, None], self.count, 1)
        return np.stack([partners("random", rng, n) for _ in range(self.count)], 1)

    def _shares(self, rng: np.random.Generator, n: int) -> np.ndarray:
        rows = 1 if self.per == "batch" else n
        mixes = 1 if self.old and self.per == "batch" else self.count
        drawn = own_shares(rng, self.alpha, rows * mixes, np.arange(rows * mixes))
        return np.broadcast_to(drawn.reshape(rows, mixes), (n, self.count))

    def _places(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """float32 like the peer's; kornia 0.8 draws one place for the whole batch."""
        rows = 1 if self.old or self.per == "batch" else n
        mixes = 1 if self.old else self.count
        return np.broadcast_to(rng.random((rows, mixes, 2), np.float32), (n, self.count, 2))

    def _coins(self, rng: np.random.Generator, n: int) -> np.ndarray:
        on: np.ndarray = np.repeat(kept(rng, self.p, units("batch", n, None))[:, None], self.count, 1)
        if self.old and self.per == "batch":
            on &= kept(rng, self.p, units("batch", n, None))[:, None]
        elif self.old:
            on &= kept(rng, self.p, np.arange(n * self.count)).reshape(n, self.count)
        return on


@dataclass(frozen=True, repr=False)
class KorniaErasing(RandomErasing):
    """kornia's RandomErasing: no tries, the rectangle is clamped to the image; ``kornia_erasing`` makes it.

    Args:
        area: (low, high) share of the image that is erased.
        aspect: (low, high) height over width; where it holds 1 a fair coin draws from (low, 1) or (1, high), evenly.
        per: "sample" or "batch".
        fill: value that is painted.
        p: probability that a row is painted.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of one fill patch a row. Keywords ``area=`` (share), ``aspect=`` (both (n,)),
        ``uniform=`` (numbers of [0, 1) for h and w that place it: (n, 2) or (2,)) and ``box=`` replace the draw.

    Raises:
        MixError: if a number is out of range, a word is unknown, or the spec has not two axes.

    Example:
        >>> spec, rng = Spec(1, (4, 9)), np.random.default_rng(0)
        >>> plan = KorniaErasing().draw(rng, spec, area=0.9, aspect=3, uniform=[0.5, 0.5])
        >>> plan.box[0, 0].tolist()
        [0, 4, 3, 6]
    """

    gives: ClassVar[tuple[str, ...]] = ("box", "area", "aspect", "uniform")

    def _boxes(
        self,
        rng: np.random.Generator,
        spec: Spec,
        *,
        area: Any = None,
        aspect: Any = None,
        uniform: Any = None,
        **given: Any,
    ) -> np.ndarray:
        n, extent = spec.n, np.array(image_shape(self, spec), np.float32)
        share = rng.uniform(*self.area, n) if area is None else given_numbers("area", area, (n,))
        ratio = self._aspects(rng, n) if aspect is None else given_numbers("aspect", aspect, (n,), 1e-30)
        place = rng.random((n, 2), np.float32) if uniform is None else _given_uniform(uniform, (n, 2))
        cells, ratio = share.astype(np.float32) * extent.prod(), ratio.astype(np.float32)
        side = np.clip(np.rint(np.sqrt(np.stack([cells * ratio, cells / ratio], -1))), 1, extent)
        start = np.minimum(np.floor(place * (extent - side + 1)), extent - side)
        return interleaved(start, start + side).astype(np.int64)[:, None]

    def _aspects(self, rng: np.random.Generator, n: int) -> np.ndarray:
        low, high = self.aspect
        if not low < 1 < high:
            return rng.uniform(low, high, n)
        return np.where(rng.random(n) < 0.5, rng.uniform(low, 1, n), rng.uniform(1, high, n))


def _given_uniform(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """float32 numbers of [0, 1) for h and w, spread over rows and boxes."""
    array = np.asarray(value)
    whole = np.broadcast_to(array, shape) if array.shape == (2,) else array
    numbers = given_numbers("uniform", whole, shape, 0, 1).astype(np.float32)
    if (numbers == 1).any():
        raise MixValueError("uniform: expected numbers below 1")
    return numbers


def kornia_mixup(
    lambda_val: tuple[float, float] = (0.0, 1.0), same_on_batch: bool = False, p: float = 1.0, *, version: str = "0.9"
) -> KorniaMixup:
    """Mixup as ``kornia.augmentation.RandomMixUpV2`` draws it: the partner's share is UNIFORM, not a Beta.

    Args:
        lambda_val: (low, high) share of the partner, within [0, 1].
        same_on_batch: one share for all rows.
        p: probability, in [0, 1].
        version: "0.9" (p throws one coin for the batch) or "0.8" (0.8.0 to 0.8.3: a coin for the batch and then one
            for each row, so that p acts twice).

    Returns:
        An operator; see KorniaMixup for the keywords of its ``draw``.

    Raises:
        MixError: if a number is out of range or the version is older than 0.8.

    Example:
        >>> kornia_mixup((0.0, 0.4))
        KorniaMixup(high=0.4)

    Differs from ours:
        kornia returns the label triple (own class, partner's class, PARTNER's share); ``plan.lam`` and ``lam=`` are
        the row's own share, 1 minus it. No Beta, so no alpha.
    """
    return KorniaMixup(
        *lambda_val, per="batch" if same_on_batch else "sample", old=_is_old("kornia_mixup", version), p=p
    )


def kornia_cutmix(
    num_mix: int = 1,
    cut_size: tuple[float, float] = (0.0, 1.0),
    beta: float = 1.0,
    same_on_batch: bool = False,
    p: float = 1.0,
    *,
    version: str = "0.9",
) -> KorniaCutMix:
    """CutMix as ``kornia.augmentation.RandomCutMixV2`` draws it: boxes that lie inside the image, one or more a row.

    Side ⌊extent·√(1-λ)⌋ with λ ~ Beta(beta, beta), one λ for each row and box.

    Args:
        num_mix: boxes a row, each from a permutation of its own, painted in order.
        cut_size: (low, high) that λ is clamped to (kornia's name; a larger one cuts less).
        beta: concentration of the Beta, 0 or more.
        same_on_batch: the same boxes for all rows.
        p: probability, in [0, 1].
        version: "0.9", or "0.8" (0.8.0 to 0.8.3): one place for the whole batch, starts in [0, extent - side - 1), so
            that the last two rows and columns are hardly ever cut; a box of the full extent starts at -1 and loses a
            row or column that its label still counts; and p acts twice.

    Returns:
        An operator; see KorniaCutMix for the keywords of its ``draw``.

    Raises:
        MixError: if a number is out of range or the version is older than 0.8.

    Example:
        >>> kornia_cutmix(version="0.8")
        KorniaCutMix(old=True)

    Differs from ours:
        Our boxes are clipped at the border (32 % pasted on average), these lie inside (50 %). kornia returns
        num_mix label triples whose λ is the area of the box, the PARTNER's share (with ``use_correct_lambda=True``
        1 minus it); our weights are the mean of the triples, each area / num_mix, so that they sum to at most 1. With
        num_mix above 1 that is not the share of the pixels, as a later box covers earlier ones.

    Kept right:
        beta = 0 is plain training; kornia refuses it. The root of 1 - λ is rounded correctly on every machine; kornia's
        is torch's, which with MKL is off by the last bit for one λ in five: where extent·√(1-λ) is whole to that bit, a
        side of kornia's may differ by a pixel from machine to machine.
    """
    return KorniaCutMix(
        beta,
        *cut_size,
        count=num_mix,
        per="batch" if same_on_batch else "sample",
        old=_is_old("kornia_cutmix", version),
        p=p,
    )


def kornia_erasing(
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    value: float = 0.0,
    same_on_batch: bool = False,
    p: float = 0.5,
    *,
    version: str = "0.9",
) -> KorniaErasing:
    """RandomErasing as ``kornia.augmentation.RandomErasing`` draws it; 0.8 and 0.9 are the same.

    Args:
        scale: (low, high) share of the image that is erased.
        ratio: (low, high) height over width; a fair coin chooses below or above 1, then evenly.
        value: what is painted, in [0, 1].
        same_on_batch: one rectangle, and one coin, for all rows.
        p: probability for each row, in [0, 1].
        version: "0.8" or "0.9".

    Returns:
        An operator of one fill patch a row; see KorniaErasing for the keywords of its ``draw``.

    Raises:
        MixError: if a number is out of range or the version is older than 0.8.

    Example:
        >>> kornia_erasing(p=1.0).per
        'sample'

    Differs from ours:
        No tries: a rectangle that does not fit is clamped to the image, and one below a pixel becomes one. The
        aspect is not log-uniform.
    """
    _is_old("kornia_erasing", version)
    check_number("kornia_erasing", "value", value, 0, 1)
    per = "batch" if same_on_batch else "sample"
    return KorniaErasing(area=scale, aspect=ratio, tries=1, per=per, fill=value, p=p)
