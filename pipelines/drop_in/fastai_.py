"""BatchMixing: a callback of fastai that mixes every training batch, in the place of its MixUp and CutMix.

It needs fastai once it is made.
"""

from __future__ import annotations

from typing import Any

import mixops as mx
from mixops import MixValueError

from ..bases import with_bases
from ..collate import draw_plan
from ..keys import BatchKey, process_place
from ..plan_collate import check_drawing

_LAYOUT = "b c h w"


class BatchMixing:
    """A Callback of fastai: ``Learner(..., cbs=BatchMixing(mx.CutMix(1.0), seed=7))``.

    The first input of the batch is mixed before the model sees it. Where the targets are whole numbers the loss is
    lam·loss(own) + (1 - lam)·loss(partner), the mean over rows; where they are floats they blend. Metrics, validation
    and the loss function itself stay as they are. The plan depends on (seed, epoch, step, rank) alone.

    Args:
        op: the operator, one that gives a row at most one weighted donor.
        seed: of the draws, 0 ≤ seed < 2**64.
        layout: axes of the input.

    Raises:
        MixError: if op is no operator, the seed is out of range, or fastai is not installed; in a training step, if
            input, targets and operator do not fit.

    Example:
        >>> def fit(dls, model):
        ...     from fastai.learner import Learner
        ...
        ...     op = mx.OneOf([mx.Mixup(0.4), mx.CutMix(1.0)])
        ...     Learner(dls, model, cbs=BatchMixing(op, seed=7)).fit(3)
    """

    #: fastai calls it while it trains and not while it validates.
    run_valid = False
    # What the Callback beside this class provides.
    learn: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> BatchMixing:
        """An instance that is also a Callback of fastai."""
        try:
            from fastai.callback.core import Callback  # type: ignore[import-untyped]  # has no types of its own
        except ImportError:
            raise MixValueError("BatchMixing: fastai is not installed: pip install fastai") from None
        made: BatchMixing = object.__new__(with_bases(cls, (Callback,)))
        return made

    def __init__(self, op: mx.Operator, seed: int, *, layout: str = _LAYOUT) -> None:
        check_drawing("BatchMixing", op, seed)
        self.op, self.seed, self.layout = op, seed, layout
        self.fields = {0: mx.Field(layout), 1: mx.Labels(form="pair")}
        #: What was drawn for the last batch.
        self.plan: mx.Plan | mx.PlanSequence | None = None
        self._loss: Any = None

    def __reduce__(self) -> Any:
        # The class of an instance has no name to be found by in another process. The Learner goes along, as fastai's
        # own callbacks take it: one that was exported asks it whether it trains.
        return _again, (self.op, self.seed, self.layout), {**vars(self), "plan": None, "_loss": None}

    def before_fit(self) -> None:
        """Refuse a second one, whose loss would know nothing of the first."""
        if sum(isinstance(one, BatchMixing) for one in self.learn.cbs) > 1:
            raise MixValueError(
                "BatchMixing: the Learner has two of them, expected one: choose by mx.OneOf([...]), or chain with |"
            )

    def before_batch(self) -> None:
        """Mix the input, and targets that are floats."""
        if len(self.learn.yb) != 1:
            raise MixValueError(f"BatchMixing: a batch with {len(self.learn.yb)} targets, expected one")
        x, y = self.learn.xb[0], self.learn.yb[0]
        key = BatchKey(self.learn.epoch, self.learn.iter, process_place()[0])
        bare = x.as_subclass(_tensor())
        plan = draw_plan((bare, y.as_subclass(_tensor())), self.op, self.fields, self.seed, key, training=True)
        if y.is_floating_point():
            self.learn.yb = (mx.soft_targets(y.as_subclass(_tensor()), plan).as_subclass(type(y)),)
        self.learn.xb = (mx.mix(bare, plan, self.layout).as_subclass(type(x)), *self.learn.xb[1:])
        self.plan = plan

    def after_pred(self) -> None:
        """Put the loss of both parents in the place of the Learner's, for the call that comes now."""
        self._give_back()
        if not self.learn.yb[0].is_floating_point():
            self._loss, self.learn.loss_func = self.learn.loss_func, self._mixed_loss

    def _mixed_loss(self, logits: Any, y: Any) -> Any:
        loss = self._give_back()  # before anything can fail: the Learner is left with its own
        if not self.learn.training:
            return loss(logits, y)
        from fastai.layers import NoneReduce  # type: ignore[import-untyped]  # has no types of its own

        assert self.plan is not None
        pair = mx.pair_targets(y.as_subclass(_tensor()), self.plan)
        if not hasattr(loss, "reduction"):
            return mx.mixed_loss(loss, logits, *pair)
        with NoneReduce(loss) as each:
            return mx.mixed_loss(lambda scores, labels: each(scores, labels), logits, *pair)

    def _give_back(self) -> Any:
        """The Learner's loss, in its place again."""
        if self._loss is not None:
            self.learn.loss_func, self._loss = self._loss, None
        return self.learn.loss_func


def _tensor() -> Any:
    import torch

    return torch.Tensor


def _again(op: mx.Operator, seed: int, layout: str) -> BatchMixing:
    return BatchMixing(op, seed, layout=layout)
