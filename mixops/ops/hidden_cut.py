"""HiddenCut: take a span of a layer's output away, where attention falls; targets stay as they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..constant import ascending
from ..errors import MixValueError
from ..plan import Plan
from ..spec import Spec
from .base import Operator, check_choice, kept
from .cutoff import check_one_fill, given_starts, painted, runs
from .hidden import layer_list, layer_name
from .tokens import check_share, one_place, ordinary_tokens, sizes_of, token_evidence

STARTS = ("salient", "random")


@dataclass(frozen=True, repr=False)
class HiddenCut(Operator):
    """Cut one span of max(⌊share · n⌋, 1) of a row's n ordinary tokens out of a layer's output: h̃ = fill there; ỹ = y.

    The span begins at one of the max(⌊top · n⌋, 1) ordinary tokens of the highest saliency, each as likely.

    Args:
        layers: where it may act, each as likely: paths of modules or numbers of hidden states, see ManifoldMixup. The
            authors cut what the last linear layer of a feed-forward block puts out, before the residual is added
            ("bert.encoder.layer.3.output.dense"), in every block.
        share: of the ordinary tokens that go, in (0, 1].
        top: share of the ordinary tokens that a span may begin at, the most salient ones, in (0, 1].
        start: "salient", or "random" for any ordinary token: then no saliency is needed.
        fill: what is painted.
        p: probability that it acts, on each row.
        until: first epoch at which it is off.

    Returns:
        ``draw`` returns a Plan of one fill patch a row, opacity 1 and weight 0, on the shape (T,); its ``layer`` is the
        one that was drawn: ``mix_hidden(model, plan.layer, plan, "b t d")``. It needs "lengths" (or takes them off the
        spec) and, unless start is "random", "saliency", (N, T) numbers such as the attention that each token receives;
        it uses "special", (N, T), True at tokens that no span covers; without it every real token is ordinary. A span
        ends early at the end of its row and before a special token. Ties of saliency go to the earlier token. Keywords
        ``at=`` (first token of each span, (N,)) and ``layer=`` replace the draw.

    Raises:
        MixError: if a share is outside (0, 1], layers is empty or a word unknown; on a draw, if the spec is not (T,),
            saliency is missing, of another shape, or NaN or infinite at an ordinary token.

    Example:
        >>> op = HiddenCut("encoder.layer.1.output.dense", share=0.5, top=0.25)
        >>> plan = op.draw(np.random.default_rng(0), Spec(1, (6,), [4]), saliency=np.array([[0, 3, 1, 2, 9, 9.0]]))
        >>> plan.layer, plan.box[0, 0].tolist()
        ('encoder.layer.1.output.dense', [1, 3])

    Source:
        Chen, Shen, Chen, Yang, "HiddenCut: Simple Data Augmentation for Natural Language Understanding with Better
        Generalizability", ACL 2021, section 3; 0.1 and 0.4 as in its code.

    Differs from it:
        One layer a draw; for a cut in every block draw one plan for each (their code takes the attention of each block
        for its own cut). Special tokens can be kept. The dropout of a block stays on; their code leaves it out.
    """

    layers: Iterable[str | int]
    share: float = 0.1
    top: float = 0.4
    start: str = "salient"
    fill: float = 0.0

    uses: ClassVar[tuple[str, ...]] = ("special",)
    gives: ClassVar[tuple[str, ...]] = ("at", "layer")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layers", layer_list("HiddenCut", self.layers))
        object.__setattr__(self, "share", check_share("HiddenCut", self.share))
        object.__setattr__(self, "top", check_share("HiddenCut", self.top, "top"))
        check_choice("HiddenCut", "start", self.start, STARTS)
        object.__setattr__(self, "fill", check_one_fill("HiddenCut", self.fill))

    @property
    def needs(self) -> tuple[str, ...]:
        return ("lengths", "saliency") if self.start == "salient" else ("lengths",)

    def _draw(
        self,
        rng: np.random.Generator,
        spec: Spec,
        *,
        labels: Any = None,
        saliency: Any = None,
        special: Any = None,
        at: Any = None,
        layer: Any = None,
    ) -> Plan:
        names = [layer_name("HiddenCut", one) for one in self.layers]
        chosen = names[int(rng.integers(len(names)))] if len(names) > 1 and layer is None else names[0]
        ordinary = ordinary_tokens("HiddenCut", spec, special)
        if at is not None:
            start = given_starts(at, spec)
        else:
            allowed = ordinary if saliency is None else self._salient(saliency, ordinary)
            start = one_place(rng, allowed)
        room = np.take_along_axis(runs(ordinary), start[:, None], 1)[:, 0]
        many = np.minimum(sizes_of(self.share, ordinary.sum(1)), room)
        if self.p < 1:
            many = many * kept(rng, self.p, ascending(spec.n, np.intp))
        box = np.stack([start, start + many], 1) * (many > 0)[:, None]
        plan = painted(box[:, None], spec.shape, self.fill)
        return Plan.trusted(plan, layer=chosen if layer is None else layer_name("HiddenCut", layer))

    def _salient(self, saliency: Any, ordinary: np.ndarray) -> np.ndarray:
        """(n, T) bool: the ordinary tokens of the highest saliency."""
        scores = _scores(saliency, ordinary)
        order = np.argsort(np.where(ordinary, -scores, np.inf), 1, kind="stable")
        count = ordinary.sum(1)
        many = np.where(count > 0, sizes_of(self.top, count), 0)
        allowed = np.zeros(ordinary.shape, bool)
        np.put_along_axis(allowed, order, np.arange(ordinary.shape[1]) < many[:, None], 1)
        return allowed


def _scores(saliency: Any, ordinary: np.ndarray) -> np.ndarray:
    """(n, T) float64, checked at the ordinary tokens; elsewhere it may hold anything."""
    scores = token_evidence("saliency", saliency, ordinary.shape, "iuf", "numbers")
    wrong = ordinary & ~np.isfinite(scores)
    if wrong.any():
        row, token = np.argwhere(wrong)[0]
        raise MixValueError(
            f"saliency of row {row} is {scores[row, token]} at token {token}: expected finite numbers at all tokens "
            "that are real and not special"
        )
    return scores.astype(np.float64)
