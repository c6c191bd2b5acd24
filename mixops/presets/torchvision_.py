"""torchvision.transforms.v2: MixUp, CutMix and RandomErasing."""

from __future__ import annotations

from ..ops.base import check_choice
from ..ops.mixup import Mixup
from .erasing import PeerErasing
from .shared import PeerCutMix


def torchvision_mixup(alpha: float = 1.0) -> Mixup:
    """Mixup as ``torchvision.transforms.v2.MixUp`` draws it (0.16 and later; 0.28 is tested): x̃ᵢ = λxᵢ + (1-λ)xᵢ₋₁.

    Args:
        alpha: concentration of the Beta, 0 or more.

    Returns:
        ``Mixup(alpha, pairing="roll")``: one λ a batch, partner the row before.

    Raises:
        MixError: if alpha is negative, NaN or infinite.

    Example:
        >>> torchvision_mixup(0.2)
        Mixup(alpha=0.2, pairing='roll')

    Differs from ours:
        Partners are the rows before, not a permutation: shuffle the data set.

    Kept right:
        alpha = 0 is plain training; torchvision refuses it. uint8 images blend; torchvision raises.
    """
    return Mixup(alpha, pairing="roll")


def torchvision_cutmix(alpha: float = 1.0) -> PeerCutMix:
    """CutMix as ``torchvision.transforms.v2.CutMix`` draws it (0.16 and later; 0.28 is tested).

    The box reaches ⌊½·√(1-λ)·extent⌋ to both sides of a centre at any pixel and is clipped; the label is the area.

    Args:
        alpha: concentration of the Beta, 0 or more.

    Returns:
        An operator; see PeerCutMix for the keywords of its ``draw``.

    Raises:
        MixError: if alpha is negative, NaN or infinite.

    Example:
        >>> import numpy as np
        >>> from mixops import Spec
        >>> plan = torchvision_cutmix().draw(np.random.default_rng(0), Spec(2, (9, 9)), lam=0.5, at=[4, 4])
        >>> plan.box[0, 0].tolist()
        [1, 7, 1, 7]

    Differs from ours:
        Sides are even, and partners are the rows before, not a permutation.

    Kept right:
        alpha = 0 is plain training; torchvision refuses it.
    """
    return PeerCutMix(alpha, pairing="roll")


def torchvision_erasing(
    p: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    value: float | tuple[float, ...] | str = 0.0,
    *,
    per: str = "batch",
) -> PeerErasing:
    """RandomErasing as ``torchvision.transforms.v2.RandomErasing`` draws it (0.16 and later; 0.28 is tested).

    Height √(A·h·w·r), width √(A·h·w/r), rounded half to even; 10 tries to be strictly inside, else untouched.

    Args:
        p: probability, in [0, 1].
        scale: (low, high) share of the image that is erased.
        ratio: (low, high) height over width, log-uniform.
        value: a number, one for each channel, or "random" (normal noise an element).
        per: "batch" (the transform called on a batch: one rectangle, and one noise, for all rows) or "sample" (the
            transform inside a data set: every row its own).

    Returns:
        An operator of one fill patch a row; see PeerErasing for the keywords of its ``draw``.

    Raises:
        MixError: if a number is out of range or a word is unknown.

    Example:
        >>> import numpy as np
        >>> from mixops import Spec
        >>> op = torchvision_erasing(1.0)
        >>> op.draw(np.random.default_rng(0), Spec(1, (10, 10)), area=0.1, aspect=1.0, at=[7, 2]).box[0, 0].tolist()
        [7, 10, 2, 5]

    Differs from ours:
        One rectangle for a batch by default, area up to 0.33 rather than 1/3, p 0.5.

    Kept right:
        Noise is part of the plan and replays.
    """
    noisy = isinstance(value, str)
    if noisy:
        check_choice("torchvision_erasing", "value", value, ("random",))
    return PeerErasing(
        area=scale,
        aspect=ratio,
        per=per,
        fill=0.0 if isinstance(value, str) else value,
        noise="pixel" if noisy else "none",
        p=p,
    )
