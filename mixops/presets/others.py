"""clovaai's CutMix, mmpretrain, fastai and the original Cutout: configurations of what is there already."""

from __future__ import annotations

from ..errors import MixValueError
from ..ops.base import check_count
from ..ops.cutout import Cutout
from ..ops.mixup import Mixup
from .shared import PeerCutMix


def clovaai_cutmix(beta: float = 1.0, prob: float = 1.0) -> PeerCutMix:
    """CutMix as its authors' code draws it (github.com/clovaai/CutMix-PyTorch, train.py since August 2019).

    Side ⌊extent·√(1-λ)⌋, λ ~ Beta(beta, beta), around a centre at any pixel, clipped; the label is the pasted area.

    Args:
        beta: concentration of the Beta, 0 or more; 0 is plain training.
        prob: probability that a batch is mixed, in [0, 1] (``--cutmix_prob``; 0.5 for CIFAR, 1 for ImageNet).

    Returns:
        An operator; see PeerCutMix for the keywords of its ``draw``.

    Raises:
        MixError: if beta or prob is out of range.

    Example:
        >>> clovaai_cutmix(1.0, 0.5)
        PeerCutMix(p=0.5)

    Differs from ours:
        ⌊side / 2⌋ to both sides of the centre: an odd side loses a pixel.
    """
    return PeerCutMix(beta, p=prob)


def mmpretrain_mixup(alpha: float = 1.0) -> Mixup:
    """Mixup as ``mmpretrain.models.utils.batch_augments.Mixup`` draws it (1.2.0): one λ a batch, a permutation.

    Args:
        alpha: concentration of the Beta, 0 or more.

    Returns:
        ``Mixup(alpha)``: ours is the same.

    Raises:
        MixError: if alpha is negative, NaN or infinite.

    Example:
        >>> mmpretrain_mixup(0.2)
        Mixup(alpha=0.2)

    Differs from ours:
        In nothing. ``RandomBatchAugment(augments, probs)`` is ``OneOf(ops, p=probs)``.
    """
    return Mixup(alpha)


def mmpretrain_cutmix(
    alpha: float = 1.0, cutmix_minmax: tuple[float, float] | None = None, correct_lam: bool = True
) -> PeerCutMix:
    """CutMix as ``mmpretrain.models.utils.batch_augments.CutMix`` draws it (1.2.0): timm's before 1.0.29, permuted.

    Args:
        alpha: concentration of the Beta, 0 or more.
        cutmix_minmax: (low, high) shares of the extents within [0, 1]: each side is a whole number from
            ⌊extent·low⌋ up to and without ⌊extent·high⌋, and the box never touches the last row and column.
        correct_lam: the label follows the pasted area; False keeps the λ that was drawn. With cutmix_minmax it is
            always the area.

    Returns:
        An operator; see PeerCutMix for the keywords of its ``draw``.

    Raises:
        MixError: if a number is out of range.

    Example:
        >>> mmpretrain_cutmix(1.0, (0.2, 0.8))
        PeerCutMix(minmax=(0.2, 0.8))

    Differs from ours:
        ⌊side / 2⌋ to both sides of the centre: an odd side loses a pixel.

    Kept right:
        The input is not written. mmpretrain pastes into the batch it was given.
    """
    return PeerCutMix(alpha, cutmix_minmax, label="area" if correct_lam else "nominal")


def fastai_mixup(alpha: float = 0.4) -> Mixup:
    """Mixup as ``fastai.callback.mixup.MixUp`` draws it (2.8.12): a λ a row, folded to max(λ, 1 - λ), a permutation.

    Args:
        alpha: concentration of the Beta, 0 or more.

    Returns:
        ``Mixup(alpha, per="sample", fold=True)``; ``lam=`` is the λ before the fold.

    Raises:
        MixError: if alpha is negative, NaN or infinite.

    Example:
        >>> fastai_mixup()
        Mixup(alpha=0.4, per='sample', fold=True)

    Differs from ours:
        One λ a row, and a row always keeps the larger share of itself.

    Kept right:
        A batch of one row: fastai fails on it.
    """
    return Mixup(alpha, per="sample", fold=True)


def fastai_cutmix(alpha: float = 1.0) -> PeerCutMix:
    """CutMix as ``fastai.callback.mixup.CutMix`` draws it (2.8.12): sides ROUNDED, in float32, then halved down.

    Args:
        alpha: concentration of the Beta, 0 or more.

    Returns:
        An operator; see PeerCutMix for the keywords of its ``draw``.

    Raises:
        MixError: if alpha is negative, NaN or infinite.

    Example:
        >>> fastai_cutmix()
        PeerCutMix(sides='round')

    Differs from ours:
        round(extent·√(1-λ)) rather than its floor, then ⌊side / 2⌋ to both sides of the centre.

    Kept right:
        The input is not written. fastai pastes into the batch it was given.
    """
    return PeerCutMix(alpha, sides="round")


def cutout(n_holes: int = 1, length: int = 16) -> Cutout:
    """Cutout as its authors' code draws it (github.com/uoguelph-mlrg/Cutout, util/cutout.py): black holes, clipped.

    Args:
        n_holes: holes an image, 1 or more.
        length: side of a hole in pixels, 2 or more; an odd one paints length - 1.

    Returns:
        ``Cutout(size, count=n_holes)`` with the even size; ``at=`` are the centres.

    Raises:
        MixError: if n_holes is below 1, or length below 2 (the original then paints nothing).

    Example:
        >>> cutout(1, 9)
        Cutout(size=8)

    Differs from ours:
        ⌊length / 2⌋ to both sides of the centre: an odd side loses a pixel. The first commit of that repository
        painted ``length`` to both sides; the released code does not.

    Kept right:
        Pixels are painted, not multiplied by 0: a NaN inside a hole is gone, and 0 has no sign.
    """
    if check_count("cutout", "length", length, 1) < 2:
        raise MixValueError("cutout(length=1): the original then paints nothing; expected 2 or more")
    return Cutout(length // 2 * 2, count=check_count("cutout", "n_holes", n_holes, 1))
