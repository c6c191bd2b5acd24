"""TMix: Manifold Mixup at the upper layers of a transformer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .manifold_mixup import ManifoldMixup


@dataclass(frozen=True, repr=False)
class TMix(ManifoldMixup):
    """Blend the hidden states of two texts after a drawn layer of an encoder: h̃ₖ = λ·hₖ + (1 - λ)·hₖ[partner].

    Args:
        layers: numbers of hidden states, each as likely: k is what block k puts out, counted from 1, and 0 what the
            first block takes; 7, 9 and 12 are the authors' for a BERT of 12 layers. Paths of modules will do too.
        alpha: concentration of the Beta, 0 or more; 0 is plain training.
        per: "batch" (one λ), "pair" (rows that exchange share one) or "sample" (one a row).
        pairing: "random", "derange", "roll", "flip", "same_class", "other_class".
        fold: use max(λ, 1 - λ), so that the row itself always has the larger share.
        lam: a fixed own share in [0, 1] in place of a draw; None draws it.
        start_step: first step of the training at which it acts, see ``Spec(step=...)``; None: from the start.
        p: probability that it acts, on each unit of ``per``.
        until: first epoch at which it is off.

    Returns:
        See ManifoldMixup.

    Raises:
        MixError: see ManifoldMixup.

    Example:
        >>> import numpy as np
        >>> from mixops import Spec
        >>> TMix({7, 9, 12}).draw(np.random.default_rng(0), Spec(8)).layer in ("hidden:7", "hidden:9", "hidden:12")
        True

    Source:
        Chen, Yang, Yang, "MixText: Linguistically-Informed Interpolation of Hidden Space for Semi-Supervised Text
        Classification", ACL 2020, section 3 (TMix); alpha and layers as in the README of its code.

    Differs from it:
        The partner is a row of the same batch, not a second stream through the lower layers: the same numbers, fewer
        calls. Later layers attend to what is real in either row (``mix_hidden(mask="union")``), where the authors'
        code attends to padding too (``mask="ones"``). λ is not folded; ``fold=True`` is what MixText does.
    """

    layers: Iterable[str | int] = (7, 9, 12)
    alpha: float = 16.0
