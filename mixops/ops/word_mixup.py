"""wordMixup: blend the word vectors of two sentences, position by position."""

from __future__ import annotations

from dataclasses import dataclass

from .hidden import OneLayer


@dataclass(frozen=True, repr=False)
class WordMixup(OneLayer):
    """Blend word vectors position by position: ẽ[t] = λ·e[t] + (1 - λ)·e_partner[t], ỹ likewise, λ ~ Beta(α, α).

    Args:
        alpha: concentration of the Beta, 0 or more; 0 is plain training.
        layer: where the word vectors come from; "words" is the output of a model's word embedding.
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
        >>> plan = WordMixup(1.0).draw(np.random.default_rng(0), Spec(4), lam=0.75)
        >>> plan.layer, plan.lam.tolist()
        ('words', [0.75, 0.75, 0.75, 0.75])

    Source:
        Guo, Mao, Zhang, "Augmenting Data with Mixup for Sentence Classification: An Empirical Study", 2019, section 3
        (wordMixup).

    Differs from it:
        Sentences are as long as the longest of their batch, and what follows a sentence is hidden by the attention
        mask (its union in the two rows) or a zero vector; in the paper all are padded with zeros to one length.
    """

    layer: str | int = "words"
