"""Mixup and FastCollateMixup: what ``timm.data`` calls so, with the same arguments and the same results.

timm itself is not needed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import mixops as mx
from mixops import MixTypeError, MixValueError, presets

from ..bases import with_bases
from ..collate import collate_for_mixing
from ..shared import share_results
from .draws import Draws

#: By number of axes; frames have a name of their own, as boxes are for h and w alone.
_LAYOUTS = {1: "b", 2: "b d", 3: "b c l", 4: "b c h w", 5: "b c f h w"}


class Mixup:
    """``timm.data.Mixup``: ``x, soft = mixup_fn(x, target)``, where x is written, as timm does.

    For the same drawn numbers the images and targets are timm's; the numbers themselves come from a stream of their
    own. Odd batches are taken: the row in the middle meets itself. Any dtype that blends will do, uint8 too, and
    without CutMix an array of up to five axes. The arguments stay attributes that a training may change, and
    ``mixup_enabled = False`` turns mixing off: targets are then smoothed and nothing else.

    Args:
        mixup_alpha: concentration of Mixup's Beta, 0 or more; 0 leaves Mixup out.
        cutmix_alpha: concentration of CutMix's Beta, 0 or more; 0 leaves CutMix out.
        cutmix_minmax: (low, high) shares of the extents: each side of the box is drawn for itself.
        prob: probability that a batch, pair or row is mixed, in [0, 1].
        switch_prob: probability of CutMix where both are in, in [0, 1].
        mode: "batch", "pair" or "elem".
        correct_lam: the label follows the pasted area; False keeps the λ that was drawn.
        label_smoothing: s in [0, 1).
        num_classes: C.
        multi_label: targets are rows (N, C), each number of which is smoothed towards ½.
        seed: of the draws, 0 ≤ seed < 2**64; None takes a word of torch's generator for each call, see ``Draws``.
        inplace: False leaves x as it is and returns another tensor; so it must be where x carries gradients.
        version: timm version whose geometry is meant, see ``presets.timm``.

    Raises:
        MixError: if a number is out of range or a word is unknown; on a call, if x and target do not fit. x is then
            as it was.

    Example:
        >>> import torch
        >>> mixup_fn = Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=10)
        >>> x, soft = mixup_fn(torch.rand(5, 3, 8, 8), torch.arange(5))
        >>> tuple(x.shape), tuple(soft.shape)
        ((5, 3, 8, 8), (5, 10))
    """

    def __init__(
        self,
        mixup_alpha: float = 1.0,
        cutmix_alpha: float = 0.0,
        cutmix_minmax: tuple[float, float] | None = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        correct_lam: bool = True,
        label_smoothing: float = 0.1,
        num_classes: int = 1000,
        multi_label: bool = False,
        *,
        seed: int | None = None,
        inplace: bool = True,
        version: str = "1.0.31",
    ) -> None:
        self.mixup_alpha, self.cutmix_alpha, self.cutmix_minmax = mixup_alpha, cutmix_alpha, cutmix_minmax
        if cutmix_minmax is not None:
            self.cutmix_alpha = 1.0
        self.mix_prob, self.switch_prob, self.mode, self.correct_lam = prob, switch_prob, mode, correct_lam
        self.label_smoothing, self.num_classes, self.multi_label = label_smoothing, num_classes, multi_label
        self.inplace, self.version, self.mixup_enabled = inplace, version, True
        self.draws = Draws(type(self).__name__, seed)
        #: What was drawn for the last batch: print it, save it, mix other arrays by it.
        self.plan: mx.Plan | mx.PlanSequence | None = None
        self._made: tuple[dict[str, Any], mx.Operator] | None = None
        mx.Labels(num_classes, label_smoothing)  # refused here, not in the first batch
        _ = self.op

    @property
    def op(self) -> mx.Operator:
        """The operator that the attributes say now."""
        minmax: Any = self.cutmix_minmax
        given: dict[str, Any] = {
            "mixup_alpha": self.mixup_alpha,
            "cutmix_alpha": self.cutmix_alpha,
            # A list may stand for the pair, as in a file of settings.
            "cutmix_minmax": tuple(minmax) if isinstance(minmax, list) else minmax,
            "prob": self.mix_prob,
            "switch_prob": self.switch_prob,
            "mode": self.mode,
            "correct_lam": self.correct_lam,
            "version": self.version,
        }
        if self._made is None or self._made[0] != given:
            self._made = given, presets.timm(**given)
        return self._made[1]

    def __call__(self, x: Any, target: Any, **given: Any) -> tuple[Any, Any]:
        """Mix a batch.

        Args:
            x: (N, C, H, W), on any device.
            target: (N,) class ids, or rows (N, C).
            **given: numbers to take in place of drawn ones, see ``TimmMixup``: lam, cutmix, at, size, box, partner.

        Returns:
            (x, soft): the mixed batch and its targets, (N, C) float32.
        """
        layout = _LAYOUTS.get(getattr(x, "ndim", 0))
        if layout is None:
            raise MixTypeError(f"{type(self).__name__}: got {type(x).__name__}, expected images (N, C, H, W)")
        plan = self._drawn(x, layout, None, given)
        soft = self._targets(target, plan, len(x))
        if not plan.is_identity:
            x = mx.mix(x, plan, layout, out=x if self.inplace else None)
        return x, soft

    def _drawn(self, x: Any, layout: str, samples: Any, given: dict[str, Any]) -> Any:
        rng = self.draws.stream(samples)
        spec = mx.Spec.like(x, layout, epoch=self.draws.epoch, training=bool(self.mixup_enabled))
        self.plan = self.op.draw(rng, spec, **given)
        return self.plan

    def _targets(self, target: Any, plan: Any, rows: int) -> Any:
        if not np.ndim(target):
            raise MixTypeError(
                f"{type(self).__name__}: target is {type(target).__name__}, expected ids (N,) or rows (N, "
                f"{self.num_classes})"
            )
        if len(target) != rows:
            raise MixValueError(
                f"{type(self).__name__}: {rows} images and {len(target)} targets, expected as many of both"
            )
        if not self.multi_label:
            return mx.soft_targets(target, plan, self.num_classes, self.label_smoothing)
        if target.ndim != 2:
            raise MixValueError(
                f"{type(self).__name__}: multi_label=True with targets of shape {tuple(target.shape)}, expected rows "
                f"(N, {self.num_classes})"
            )
        soft = mx.soft_targets(target, plan, self.num_classes)
        return soft * (1 - self.label_smoothing) + self.label_smoothing / 2


class FastCollateMixup(Mixup):
    """``timm.data.FastCollateMixup``: a ``collate_fn`` that mixes samples (image, target) while it collates them.

    Images are (C, H, W) arrays or tensors, uint8 as a rule, and stay so. A blend of uint8 is rounded from 16-bit
    weights: now and then a value differs by 1 from timm's, which rounds a float32. With ``seed`` the samples must carry
    a key (``keyed``, ``KeyedBatchSampler``) if workers collate. Where timm is loaded when one is made, it is an
    instance of timm's class too: ``loader.mixup_enabled = False`` of timm's loaders acts on those alone.

    Args:
        mixup_alpha: see Mixup, as for all others; mode "half" is not there.

    Raises:
        MixError: see Mixup.

    Example:
        >>> import numpy as np
        >>> collate = FastCollateMixup(cutmix_alpha=1.0, num_classes=4, seed=7)
        >>> images, soft = collate([(np.full((3, 8, 8), i, np.uint8), i) for i in range(4)])
        >>> tuple(images.shape), bool((soft.sum(1) - 1).max() < 1e-6)
        ((4, 3, 8, 8), True)
    """

    _written: type[FastCollateMixup]

    def __new__(cls, *args: Any, **kwargs: Any) -> FastCollateMixup:
        """An instance that timm's loaders take for their own, if timm is loaded."""
        timm = sys.modules.get("timm.data.mixup")
        made: FastCollateMixup = object.__new__(cls if timm is None else with_bases(cls, (timm.FastCollateMixup,)))
        made._written = cls
        return made

    def __reduce__(self) -> Any:
        # The class of an instance may have no name to be found by in another process.
        return self._written.__new__, (self._written,), vars(self)

    # timm's is a Mixup too, and is called otherwise.
    def __call__(  # type: ignore[override]
        self, batch: Sequence[Any], _: Any = None, **given: Any
    ) -> tuple[Any, Any]:
        """Collate and mix a list of samples.

        Args:
            batch: samples (image, target).
            _: what timm's takes and leaves aside.
            **given: see Mixup.

        Returns:
            (images, soft): (N, C, H, W) of the dtype of the samples, and (N, C) float32.
        """
        import torch  # samples become tensors where it is loaded

        if not batch or any(not isinstance(sample, (tuple, list)) or len(sample) < 2 for sample in batch):
            got = ", ".join(sorted({type(sample).__name__ for sample in batch})) or "no sample"
            raise MixTypeError(f"{type(self).__name__}: got {got}, expected samples (image, target)")
        share_results()
        layout = "b c h w"
        rows, target, *_rest = collate_for_mixing(batch, {0: mx.Field(layout)})
        plan = self._drawn(rows, layout, batch, given)
        soft = self._targets(torch.as_tensor(target), plan, len(batch))
        return mx.mix(rows, plan, layout), soft
