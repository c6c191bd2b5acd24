"""timm: Mixup and CutMix behind one switch, and RandomErasing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import MixValueError
from ..ops.base import PER, Operator, check_choice, check_number, check_range, kept, units
from ..ops.boxes import area, given_boxes
from ..ops.cutmix import LABELS
from ..ops.pairing import partners
from ..ops.shares import own_shares
from ..plan import Plan
from ..spec import Spec
from .erasing import PeerErasing
from .shared import cut_boxes, image_shape, pasted, version_of

_MODES = {"batch": "batch", "pair": "pair", "elem": "sample"}
_NOISES = {"const": "none", "rand": "channel", "pixel": "pixel"}


@dataclass(frozen=True, repr=False)
class TimmMixup(Operator):
    """timm's Mixup: Mixup or CutMix with the mirrored row, chosen anew for every unit; ``presets.timm`` makes it.

    Args:
        mixup_alpha: concentration of Mixup's Beta; 0 leaves Mixup out.
        cutmix_alpha: concentration of CutMix's Beta; 0 leaves CutMix out.
        cutmix_minmax: (low, high) shares of the extents: free sides; cutmix_alpha is then 1.
        switch_prob: probability of CutMix where both are in.
        per: "batch", "pair" or "sample".
        sides: "whole" (timm 1.0.29 and later) or "even" (before).
        label: "area" or "nominal".
        p: probability that it acts, on each unit of ``per``.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of one patch a row: whole rows if CutMix is left out, boxes on (h, w) otherwise.
        Keywords ``partner=`` (n,), ``lam=``, ``cutmix=`` (which rows are CutMix, one bool or (n,)), ``size=``,
        ``at=`` (centre; first corner with cutmix_minmax) and ``box=`` replace the draw.

    Raises:
        MixError: if a number is out of range, a word is unknown, or CutMix is in and the spec has not two axes.

    Example:
        >>> plan = TimmMixup(cutmix_alpha=1.0).draw(np.random.default_rng(0), Spec(4, (8, 8)), lam=0.5, cutmix=False)
        >>> plan.partner[:, 0].tolist(), plan.lam.tolist()
        ([3, 2, 1, 0], [0.5, 0.5, 0.5, 0.5])
    """

    mixup_alpha: float = 1.0
    cutmix_alpha: float = 0.0
    cutmix_minmax: tuple[float, float] | None = None
    switch_prob: float = 0.5
    per: str = "batch"
    sides: str = "whole"
    label: str = "area"

    gives: ClassVar[tuple[str, ...]] = ("partner", "lam", "cutmix", "size", "at", "box")

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if self.cutmix_minmax is not None:
            object.__setattr__(self, "cutmix_minmax", check_range(name, "cutmix_minmax", self.cutmix_minmax, 0, 1))
            object.__setattr__(self, "cutmix_alpha", 1.0)
        for field in ("mixup_alpha", "cutmix_alpha"):
            object.__setattr__(self, field, check_number(name, field, getattr(self, field), 0))
        object.__setattr__(self, "switch_prob", check_number(name, "switch_prob", self.switch_prob, 0, 1))
        check_choice(name, "per", self.per, PER)
        check_choice(name, "sides", self.sides, ("whole", "even"))
        check_choice(name, "label", self.label, LABELS)

    def _draw(
        self,
        rng: np.random.Generator,
        spec: Spec,
        *,
        partner: Any = None,
        lam: Any = None,
        cutmix: Any = None,
        size: Any = None,
        at: Any = None,
        box: Any = None,
        **given: Any,
    ) -> Plan:
        n = spec.n
        donors = partners("flip", rng, n, given=partner)
        unit = units(self.per, n, donors)
        cut = self._switched(rng, unit, cutmix)
        own = np.where(
            cut, own_shares(rng, self.cutmix_alpha, n, unit, lam), own_shares(rng, self.mixup_alpha, n, unit, lam)
        )
        if self.per != "batch":
            own = own.astype(np.float32)  # timm keeps the λ of a batch in double, but those of pairs and rows in single
        active = kept(rng, self.p, unit) & (own != 1)
        if not self.cutmix_alpha:
            return Plan.whole(donors, np.where(active, 1 - own, 0))
        shape = image_shape(self, spec)
        if box is not None:
            boxes = given_boxes(box, n, shape)
        else:
            boxes = cut_boxes(rng, shape, own, self.sides, self.cutmix_minmax, size=size, at=at)[unit]
        share = area(boxes, shape) if self.label == "area" or self.cutmix_minmax is not None else 1 - own
        boxes = np.where(cut[:, None], boxes, [0, shape[0], 0, shape[1]])
        weight, opacity = np.where(cut, share, 1 - own), np.where(cut, 1, 1 - own)
        donors, boxes, active, weight, opacity = (a[:, None] for a in (donors, boxes, active, weight, opacity))
        return pasted(donors, boxes, active, weight, shape, opacity)

    def _switched(self, rng: np.random.Generator, unit: np.ndarray, given: Any) -> np.ndarray:
        """(n,) bool: which rows are CutMix; a coin a unit where both are in."""
        if given is not None:
            cut: np.ndarray = np.asarray(given)
            if cut.dtype != np.bool_ or cut.shape not in ((), unit.shape) or (cut.any() and not self.cutmix_alpha):
                raise MixValueError(
                    f"cutmix: got {cut.dtype} of shape {cut.shape}, expected one bool or {len(unit)}, and False where "
                    "cutmix_alpha is 0"
                )
            return np.broadcast_to(cut, unit.shape)
        if self.mixup_alpha and self.cutmix_alpha:
            return kept(rng, self.switch_prob, unit)
        return np.full(len(unit), self.cutmix_alpha > 0)


def timm(
    mixup_alpha: float = 1.0,
    cutmix_alpha: float = 0.0,
    cutmix_minmax: tuple[float, float] | None = None,
    prob: float = 1.0,
    switch_prob: float = 0.5,
    mode: str = "batch",
    correct_lam: bool = True,
    *,
    version: str = "1.0.31",
) -> TimmMixup:
    """Mixup and CutMix as ``timm.data.Mixup`` draws them, with the geometry of a timm version.

    Side of the box ⌊extent·√(1-λ)⌋ around a centre at any pixel, clipped; the partner of row i is row n-1-i.

    Args:
        mixup_alpha: concentration of Mixup's Beta, 0 or more; 0 leaves Mixup out.
        cutmix_alpha: concentration of CutMix's Beta, 0 or more; 0 leaves CutMix out.
        cutmix_minmax: (low, high) shares of the extents within [0, 1]: each side of the box is drawn for itself.
        prob: probability that a unit is mixed, in [0, 1].
        switch_prob: probability of CutMix where both are in, in [0, 1].
        mode: "batch" (one draw), "pair" (one for two rows that exchange) or "elem" (one a row).
        correct_lam: the label follows the pasted area; False keeps the λ that was drawn. With cutmix_minmax it is
            always the area.
        version: timm version. From 1.0.29 on an odd side keeps its length and minmax boxes reach the last row and
            column; before (0.4.12 to 1.0.28 were read) an odd side loses a pixel and they do not.

    Returns:
        An operator; see TimmMixup for the keywords of its ``draw``.

    Raises:
        MixError: if a number is out of range, mode is unknown or version is none.

    Example:
        >>> op = timm(0.8, 1.0, mode="elem", version="1.0.28")
        >>> plan = op.draw(np.random.default_rng(0), Spec(4, (8, 8)), lam=0.8, at=[4, 4], cutmix=True)
        >>> plan.box[0, 0].tolist()  # a side of 3: 1.0.28 pastes 2 pixels, 1.0.29 pastes 3
        [3, 5, 3, 5]

    Differs from ours:
        Our CutMix and Mixup draw a permutation for partners; timm mirrors the batch. Smoothing is a matter of
        ``soft_targets(smoothing=...)``.

    Kept right:
        Odd batches are taken (the middle row meets itself); timm asserts. With both alphas 0 it is plain training;
        timm asserts at the first call. FastCollateMixup's "half" mode is not here.
    """
    check_choice("timm", "mode", mode, tuple(_MODES))
    return TimmMixup(
        mixup_alpha,
        cutmix_alpha,
        cutmix_minmax,
        switch_prob,
        per=_MODES[mode],
        sides="whole" if version_of("timm", version) >= (1, 0, 29) else "even",
        label="area" if correct_lam else "nominal",
        p=prob,
    )


def timm_erasing(
    probability: float = 0.5,
    min_area: float = 0.02,
    max_area: float = 1 / 3,
    min_aspect: float = 0.3,
    max_aspect: float | None = None,
    mode: str = "const",
    min_count: int = 1,
    max_count: int | None = None,
    num_splits: int = 0,
) -> PeerErasing:
    """RandomErasing as ``timm.data.random_erasing.RandomErasing`` draws it (0.4.12 to 1.0.31: the same).

    Height √(A·h·w·r / count) and width √(A·h·w / (r·count)), rounded half to even; a try counts if both are strictly
    below the extents.

    Args:
        probability: that a row is erased, in [0, 1].
        min_area: smallest share of the image for all boxes together.
        max_area: largest share.
        min_aspect: smallest height over width, above 0.
        max_aspect: largest; None for 1 / min_aspect.
        mode: "const" (0), "rand" (one normal number a channel and box) or "pixel" (one an element).
        min_count: fewest boxes a row.
        max_count: most; None for min_count. The number is drawn evenly for every row.
        num_splits: above 1, the first n // num_splits rows stay clean.

    Returns:
        An operator of max_count fill patches; see PeerErasing for the keywords of its ``draw``.

    Raises:
        MixError: if a number is out of range or mode is unknown.

    Example:
        >>> op = timm_erasing(1.0)
        >>> op.draw(np.random.default_rng(0), Spec(1, (10, 10)), area=0.1, aspect=1.0, at=[7, 2]).box[0, 0].tolist()
        [7, 10, 2, 5]

    Differs from ours:
        The number of boxes varies from row to row, and p is 0.5 by default.

    Kept right:
        Noise is part of the plan and replays; timm's is drawn while painting.
    """
    check_choice("timm_erasing", "mode", mode, tuple(_NOISES))
    return PeerErasing(
        area=(min_area, max_area),
        aspect=(min_aspect, max_aspect or 1 / min_aspect),
        count=max_count or min_count,
        min_count=min_count,
        splits=num_splits,
        noise=_NOISES[mode],
        p=probability,
    )
