"""Manifold Mixup: blend the hidden states of two rows at a layer that is drawn anew for every batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan import Plan
from ..spec import Spec
from .hidden import HiddenOperator, layer_list, layer_name


@dataclass(frozen=True, repr=False)
class ManifoldMixup(HiddenOperator):
    """Blend hidden states at a drawn layer k: h̃ₖ = λ·hₖ + (1 - λ)·hₖ[partner], ỹ likewise, λ ~ Beta(α, α).

    Args:
        layers: where it may act, each as likely: paths of modules ("layer1": its output), "input" (what the model is
            called with), or whole numbers k: the k-th hidden state of a stack of blocks, 0 being what the first takes.
        alpha: concentration of the Beta, 0 or more; 0 is plain training.
        per: "batch" (one λ), "pair" (rows that exchange share one) or "sample" (one a row).
        pairing: "random", "derange", "roll", "flip", "same_class", "other_class".
        fold: use max(λ, 1 - λ), so that the row itself always has the larger share.
        lam: a fixed own share in [0, 1] in place of a draw; None draws it.
        start_step: first step of the training at which it acts, see ``Spec(step=...)``; None: from the start.
        p: probability that it acts, on each unit of ``per``.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of whole rows; its ``layer`` is the one that was drawn ("hidden:k" for a number), is
        saved with it and is what ``mix_hidden`` takes. Keywords ``partner=``, ``lam=`` and ``layer=`` replace the draw.

    Raises:
        MixError: if layers is empty, names one twice or holds something else, a number is out of range or a word is
            unknown; on a draw, if there is a start_step and the spec does not say the step.

    Example:
        >>> op = ManifoldMixup(["input", "layer1", "layer2"], alpha=2.0)
        >>> {op.draw(np.random.default_rng(seed), Spec(8)).layer for seed in range(20)} == set(op.layers)
        True

    Source:
        Verma et al., "Manifold Mixup: Better Representations by Interpolating Hidden States", ICML 2019, section 2.

    Differs from it:
        In nothing for ``per="batch"``. The authors' code computes binary cross entropy on the softmax; any loss will
        do here.
    """

    layers: Iterable[str | int]
    alpha: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        object.__setattr__(self, "layers", layer_list(name, self.layers))
        self._check("alpha", self.alpha)

    def _draw(self, rng: np.random.Generator, spec: Spec, **given: Any) -> Plan:
        names = tuple(layer_name(type(self).__name__, one) for one in self.layers)
        return self._blended(self.alpha, names, rng, spec, **given)
