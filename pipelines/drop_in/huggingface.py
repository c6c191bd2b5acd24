"""ImageMixing: Mixup, CutMix and their kin for image classifiers in Hugging Face's Trainer, as a callback and a loss.

Models of transformers take soft labels for a multi-label problem and train them by binary cross entropy; the loss here
is cross entropy. For texts see ``mixops.pipelines.trainer``. It needs transformers once it is made.
"""

from __future__ import annotations

from typing import Any

import mixops as mx
from mixops import MixTypeError, MixValueError

from ..bases import with_bases
from ..collate import draw_plan
from ..keys import BatchKey
from ..plan_collate import check_drawing
from ..saliency import logits_of

_LAYOUT = "b c h w"
#: The id that says "no label" to the Trainer, which does not count it, and to cross entropy.
_IGNORED = -100


class ImageMixing:
    """A TrainerCallback that mixes what the model is called with in training, and the loss for it.

    ``mixing = ImageMixing(op, seed=7)``, then ``Trainer(..., callbacks=[mixing], compute_loss_func=mixing.loss)``.
    Images are mixed where the model is, right before its forward; evaluation and prediction are left alone, and their
    loss is plain cross entropy. The plan depends on (seed, epoch, step, rank), where the step counts batches over the
    whole training: a training resumed from a checkpoint draws on as an uninterrupted one does, and there is no state
    to save.

    Args:
        op: the operator, one that mixes images: Mixup, CutMix, Cutout, what is made of them.
        seed: of the draws, 0 ≤ seed < 2**64.
        smoothing: label smoothing of the training loss, in [0, 1).
        images: entry of the batch that is mixed, (N, C, H, W).

    Raises:
        MixError: if op is no operator or needs more than images, a number is out of range, or transformers is not
            installed; when a training begins, if it is to smooth labels itself or runs in DataParallel; in a step, if
            the batch has no such entry or labels, or the Trainer was not given the loss.

    Example:
        >>> def trainer(model, data, folder):
        ...     from transformers import Trainer, TrainingArguments
        ...
        ...     args = TrainingArguments(folder, num_train_epochs=3, report_to="none")
        ...     mixing = ImageMixing(mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)]), seed=7)
        ...     return Trainer(
        ...         model, args, train_dataset=data, callbacks=[mixing], compute_loss_func=mixing.loss
        ...     )
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> ImageMixing:
        """An instance that is also a TrainerCallback."""
        try:
            from transformers import TrainerCallback
        except ImportError:
            raise MixValueError("ImageMixing: transformers is not installed: pip install 'mixops[text]'") from None
        made: ImageMixing = object.__new__(with_bases(cls, (TrainerCallback,)))
        return made

    def __init__(self, op: mx.Operator, seed: int, *, smoothing: float = 0.0, images: str = "pixel_values") -> None:
        check_drawing("ImageMixing", op, seed)
        if op.needs:
            raise MixValueError(f"ImageMixing: {op!r} needs {', '.join(op.needs)}, and the model is given images alone")
        mx.Labels(1, smoothing)
        self.op, self.seed, self.smoothing, self.images = op, seed, smoothing, images
        #: What was drawn for the batch that is on its way through the model.
        self.plan: mx.Plan | mx.PlanSequence | None = None
        self._place: BatchKey | None = None
        self._hook: Any = None

    def __reduce__(self) -> Any:
        # The class of an instance has no name to be found by in another process.
        return _again, (self.op, self.seed, self.smoothing, self.images)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Begin to listen to the model."""
        if args.label_smoothing_factor:
            raise MixValueError(
                f"ImageMixing: label_smoothing_factor={args.label_smoothing_factor} in the TrainingArguments has no "
                "effect on a loss that is given: pass ImageMixing(smoothing=...) instead"
            )
        if args.n_gpu > 1:
            raise MixValueError(
                f"ImageMixing: {args.n_gpu} GPUs in one process (DataParallel) would share one plan out of order: "
                "expected one process for each, torchrun or accelerate launch"
            )
        self.remove()
        import torch

        # torch.compile would trace the drawing.
        before: Any = torch.compiler.disable(self._before)  # type: ignore[no-untyped-call]  # of torch
        self._hook = model.register_forward_pre_hook(before, with_kwargs=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Note where the training stands; the batches of an accumulated step are counted by the model's calls."""
        first = state.global_step * args.gradient_accumulation_steps
        self._place = BatchKey(int(state.epoch or 0), first, args.process_index)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Stop listening."""
        self.remove()

    def remove(self) -> None:
        """Stop listening to the model; only a training that an exception ended needs the call."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._place = self.plan = None

    def _before(self, model: Any, args: Any, given: dict[str, Any]) -> Any:
        """Mix the images that the model is called with."""
        self.plan = None  # that of a batch whose loss was never asked for
        if not model.training or self._place is None:
            return None
        if given.get("labels") is not None:
            raise MixValueError(
                "ImageMixing: the model was given its labels, which say nothing of the mixing: pass "
                "Trainer(..., compute_loss_func=mixing.loss) too"
            )
        if given.get(self.images) is None:
            raise MixValueError(
                f"ImageMixing: the model was called with {', '.join(map(repr, given)) or 'nothing by name'}, expected "
                f"{self.images!r}: name the entry that holds the images, images=..."
            )
        key, self._place = self._place, self._place._replace(step=self._place.step + 1)
        batch, fields = {self.images: given[self.images]}, {self.images: mx.Field(_LAYOUT)}
        plan = draw_plan(batch, self.op, fields, self.seed, key, training=True)
        if plan.layer not in (None, "input"):
            raise MixValueError(
                f"ImageMixing: {self.op!r} mixes inside the model, at {plan.layer!r}, expected an operator for images: "
                "use TrainerMixin of mixops.pipelines.trainer for that"
            )
        mixed = mx.mix_batch(batch, plan, fields)
        self.plan = plan
        return args, {**given, **mixed}

    def loss(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        """Cross entropy on the labels as the plan shares them; on the labels as they are where nothing was mixed.

        Args:
            outputs: of the model, with logits (N, C).
            labels: (N,) class ids, of which -100 says that there is none, or (N, C) rows.
            num_items_in_batch: numbers that the labels of the step consist of, as the Trainer counts them: its rows, or
                C times as many. The sum is divided by the rows; None: the mean.

        Returns:
            A scalar tensor.
        """
        from torch.nn import functional as F

        plan, self.plan = self.plan, None
        logits = logits_of(outputs, "ImageMixing")
        if labels is None:
            raise MixTypeError(
                "ImageMixing: the batch has no labels, expected an entry 'labels' of ids (N,); for a model whose "
                "forward does not name them TrainingArguments(label_names=['labels']) keeps them, in evaluation too"
            )
        ids = labels.ndim == 1
        each = 1 if ids else labels.shape[1]
        if plan is not None:
            ignored = _IGNORED if ids else None
            labels = mx.soft_targets(labels, plan, logits.shape[1], self.smoothing, ignore_index=ignored)
        elif not ids:
            labels = labels.float()
        if num_items_in_batch is None:
            return F.cross_entropy(logits.float(), labels)
        return F.cross_entropy(logits.float(), labels, reduction="sum") * each / num_items_in_batch


def _again(op: mx.Operator, seed: int, smoothing: float, images: str) -> ImageMixing:
    return ImageMixing(op, seed, smoothing=smoothing, images=images)
