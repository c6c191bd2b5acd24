"""Sentence mixup (senMixup): blend the vectors that a model makes of two whole sentences."""

from __future__ import annotations

from dataclasses import dataclass

from .hidden import OneLayer


@dataclass(frozen=True, repr=False)
class SentenceMixup(OneLayer):
    """Blend sentence vectors before the last linear layer: h̃ = λ·h + (1 - λ)·h_partner, ỹ likewise, λ ~ Beta(α, α).

    Args:
        alpha: concentration of the Beta, 0 or more; 0 is plain training.
        layer: where the sentence vector is; "sentence" is what the last linear layer of a model takes.
        per: "batch" (one λ), "pair" (rows that exchange share one) or "sample" (one a row).
        pairing: "random", "derange", "roll", "flip", "same_class", "other_class".
        fold: use max(λ, 1 - λ), so that the row itself always has the larger share.
        lam: a fixed own share in [0, 1] in place of a draw; None draws it.
        start_step: first step of the training at which it acts, see ``Spec(step=...)``; None: from the start.
        p: probability that it acts, on each unit of ``per``.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of whole rows whose ``layer`` says where it belongs. Keywords ``partner=``, ``lam=`` and
        ``layer=`` replace what would be drawn.

    Raises:
        MixError: if a number is out of range, a word is unknown, or layer is no name; on a draw, if there is a
            start_step and the spec does not say the step.

    Example:
        >>> import numpy as np
        >>> from mixops import Spec
        >>> plan = SentenceMixup(1.0).draw(np.random.default_rng(0), Spec(4), lam=0.75)
        >>> plan.layer, plan.lam.tolist()
        ('sentence', [0.75, 0.75, 0.75, 0.75])

    Source:
        Guo, Mao, Zhang, "Augmenting Data with Mixup for Sentence Classification: An Empirical Study", 2019, section 3
        (senMixup); Sun et al., "Mixup-Transformer", COLING 2020: ``presets.mixup_transformer``.

    Differs from it:
        Where a model drops some of the vector out before its last linear layer, that comes before the mixing here.
    """

    layer: str | int = "sentence"
