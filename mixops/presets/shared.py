"""What several peers share: how they round the sides of a box, where they lay it, and how they are told apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import MixTypeError, MixValueError
from ..ops.base import Operator, check_choice, check_number, check_range, kept, units
from ..ops.boxes import area, given_boxes, given_place, placed
from ..ops.cutmix import LABELS
from ..ops.pairing import partners
from ..ops.shares import own_shares
from ..plan import Plan
from ..spec import Spec

#: How the sides of a box follow from λ. "whole": ⌊extent·√(1-λ)⌋. "even": that, less one if odd; also what
#: ⌊½·√(1-λ)·extent⌋ to both sides of the centre comes to, as halving is exact. "round": rounded in float32, made even.
SIDES = ("whole", "even", "round")


def version_of(owner: str, version: Any) -> tuple[int, ...]:
    """ "1.0.29" as (1, 0, 29), for comparison; a suffix such as ".post1" is left out.

    Raises:
        MixError: if it is no version.
    """
    if not isinstance(version, str):
        raise MixTypeError(f"{owner}(version={version!r}): expected a string such as '1.0.29'")
    match = re.match(r"\d+(\.\d+)+", version)
    if match is None:
        raise MixValueError(f"{owner}(version={version!r}): expected numbers and dots such as '1.0.29'")
    return tuple(int(part) for part in match[0].split("."))


def image_shape(op: Operator, spec: Spec) -> tuple[int, ...]:
    """(h, w) of the spec: the peers cut images and nothing else.

    Raises:
        MixError: if the spec has not two axes.
    """
    if len(spec.shape) != 2:
        raise MixValueError(f"{op!r} cuts images as its peer does: spec shape {spec.shape}, expected (h, w)")
    return spec.shape


def given_numbers(name: str, value: Any, shape: tuple[int, ...], low: float = 0, high: float = np.inf) -> np.ndarray:
    """Numbers of [low, high] that replace a draw, spread to ``shape``: a value a row serves everything of the row.

    Raises:
        MixError: if they are no numbers, out of range or of another shape.
    """
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise MixTypeError(f"{name}={value!r}: expected numbers of shape {shape}, or fewer axes of it") from None
    if array.shape != shape[: array.ndim]:
        raise MixValueError(f"{name} has shape {array.shape}: expected {shape} or its first axes")
    if not ((array >= low) & (array <= high)).all():  # NaN fails too
        raise MixValueError(f"{name}={value!r}: expected numbers from {low:g} to {high:g}")
    return np.broadcast_to(array.reshape(array.shape + (1,) * (len(shape) - array.ndim)), shape)


def box_sides(rule: str, own: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(n, 2) sides of the boxes for the own shares λ, by one of the rules of ``SIDES``.

    The arithmetic is done in the precision of ``own``: peers that draw λ as float32 also take the root in float32.
    """
    extent = np.array(shape, own.dtype)
    ratio = np.sqrt(1 - own)[:, None]
    sides = np.rint(ratio * extent) if rule == "round" else np.floor(ratio * extent)
    whole: np.ndarray = sides.astype(np.int64)
    return whole if rule == "whole" else whole - whole % 2


def cut_boxes(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    own: np.ndarray,
    rule: str,
    minmax: tuple[float, float] | None,
    *,
    size: Any = None,
    at: Any = None,
) -> np.ndarray:
    """(n, 4) boxes: a centre at any pixel and clipped; with ``minmax`` free sides within the image.

    ``minmax`` as timm wrote it and others copied: each side is a whole number from ⌊extent·low⌋ up to and without
    ⌊extent·high⌋. All rules but "whole" also leave out the last place that the box would fit in.
    """
    extent, n = np.array(shape), len(own)
    if minmax is None:
        sides = box_sides(rule, own, shape) if size is None else _given_sides(size, n, extent)
        return placed(rng, shape, sides, "clip", at)
    low, high = (np.array([int(e * share) for e in shape]) for share in minmax)
    if (low >= high).any():
        raise MixValueError(
            f"minmax={minmax} leaves no side for extents {shape}: expected int(extent * low) < int(extent * high)"
        )
    sides = rng.integers(low, high, (n, 2)) if size is None else _given_sides(size, n, extent)
    if at is None:
        at = rng.integers(0, np.maximum(extent - sides + (rule == "whole"), 1))
    return placed(rng, shape, sides, "inside", at)


def _given_sides(size: Any, n: int, extent: np.ndarray) -> np.ndarray:
    sides = np.asarray(size)
    if sides.dtype.kind not in "iu" or sides.shape not in ((2,), (n, 2)):
        raise MixValueError(
            f"size: got {sides.dtype} of shape {sides.shape}, expected integers of shape (2,) or ({n}, 2)"
        )
    if not ((sides >= 0) & (sides <= extent)).all():
        raise MixValueError(f"size={size!r}: expected sides from 0 to {tuple(extent.tolist())}")
    return given_place(sides, (n, 2))


def pasted(
    partner: np.ndarray,
    box: np.ndarray,
    on: np.ndarray,
    weight: np.ndarray,
    shape: tuple[int, ...],
    opacity: np.ndarray | float = 1.0,
) -> Plan:
    """The plan of K boxes a row, nothing where not ``on``: partner, on, weight, opacity (n, K); box (n, K, 4)."""
    box = np.where(on[..., None], box, 0)
    share, strength = np.where(on, np.minimum(weight, 1), 0), np.where(on, opacity, 0)
    return Plan.boxed(partner, box, strength, share, shape)


@dataclass(frozen=True, repr=False)
class PeerCutMix(Operator):
    """CutMix of one box a batch with the rounding of a peer; the presets make it.

    Args:
        alpha: concentration of the Beta; 0 is plain training.
        minmax: (low, high) shares of the extents: free sides in place of λ's.
        pairing: "random" or "roll".
        sides: "even", "round" or "whole": see ``SIDES``.
        label: "area" (the share that was pasted) or "nominal" (1 - λ, even where the box came out empty).
        p: probability that it acts, on the batch.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of one box a row. Keywords ``partner=`` (n,), ``lam=``, ``size=`` (h, w), ``at=``
        (centre; first corner with minmax) and ``box=`` replace the draw.

    Raises:
        MixError: if a number is out of range, a word is unknown, or the spec has not two axes.

    Example:
        >>> plan = PeerCutMix(sides="even").draw(np.random.default_rng(0), Spec(2, (8, 8)), lam=0.6, at=[4, 4])
        >>> plan.box[0, 0].tolist()
        [2, 6, 2, 6]
    """

    alpha: float = 1.0
    minmax: tuple[float, float] | None = None
    pairing: str = "random"
    sides: str = "even"
    label: str = "area"

    gives: ClassVar[tuple[str, ...]] = ("partner", "lam", "size", "at", "box")

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        object.__setattr__(self, "alpha", check_number(name, "alpha", self.alpha, 0))
        check_choice(name, "pairing", self.pairing, ("random", "roll"))
        check_choice(name, "sides", self.sides, SIDES)
        check_choice(name, "label", self.label, LABELS)
        if self.minmax is not None:
            object.__setattr__(self, "minmax", check_range(name, "minmax", self.minmax, 0, 1))

    def _draw(
        self,
        rng: np.random.Generator,
        spec: Spec,
        *,
        partner: Any = None,
        lam: Any = None,
        size: Any = None,
        at: Any = None,
        box: Any = None,
        **given: Any,
    ) -> Plan:
        shape, unit = image_shape(self, spec), units("batch", spec.n, None)
        donors = partners(self.pairing, rng, spec.n, given=partner)
        own = own_shares(rng, self.alpha, spec.n, unit, lam)
        if self.sides == "round":
            own = own.astype(np.float32)
        if box is not None:
            boxes = given_boxes(box, spec.n, shape)
        else:
            boxes = cut_boxes(rng, shape, own, self.sides, self.minmax, size=size, at=at)[unit]
        share = area(boxes, shape) if self.label == "area" or self.minmax is not None else 1 - own
        on = kept(rng, self.p, unit)
        return pasted(donors[:, None], boxes[:, None], on[:, None], share[:, None], shape)
