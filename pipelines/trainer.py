"""TrainerMixin: mixing inside the model in the training steps of Hugging Face's Trainer, with the loss that it takes.

It needs transformers, and is imported by name: ``from mixops.pipelines.trainer import TrainerMixin``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import mixops as mx
from mixops import MixTypeError, MixValueError

from .hidden import mix_hidden
from .plan_collate import check_drawing, layout_inside, leaves_all, plan_of_rows
from .saliency import logits_of


class TrainerMixin:
    """Adds mixing to a Trainer: ``class MixTrainer(TrainerMixin, Trainer): pass``, then ``MixTrainer(..., mix=op)``.

    In every training step a plan is drawn, applied inside the model (``mix_hidden``, around forward and backward, so
    that activation checkpointing stays exact), and the loss is lam·loss(ya) + (1 - lam)·loss(yb), the mean over the
    rows of the batch. Labels never reach the model: it computes no loss of its own and guesses no ``problem_type``.
    Evaluation and prediction are the Trainer's own.

    The plan depends on (mix_seed, epoch, step, rank) alone, where the step counts batches over the whole training:
    a training resumed from a checkpoint draws the plans that an uninterrupted one draws. A batch that brings its plan
    (``PlanCollator``) is mixed by that. To draw in the loader, let ``get_train_dataloader`` return
    ``DataLoader(keyed(data), batch_sampler=KeyedBatchSampler(...), collate_fn=PlanCollator(...))``; the Trainer's own
    loader gives its batches no key. ``remove_unused_columns`` looks at samples, before they are collated: the plan
    comes later and stays.

    With gradient accumulation the loss of each batch is divided by the number of batches, as the Trainer does for
    models that take no ``num_items_in_batch``: batches of one size weigh as one large batch would.

    Args:
        *args: of the Trainer.
        mix: the operator; None mixes only batches that bring a plan.
        mix_seed: of the draws, 0 ≤ mix_seed < 2**64; None: the seed of the TrainingArguments.
        mix_loss: fn(logits, labels, reduction="none"), used as ``mixed_loss`` uses it; None: cross entropy for class
            ids (with ``label_smoothing_factor``), mean squared error where the model has one output, binary cross
            entropy where ``config.problem_type`` is "multi_label_classification".
        mix_mask: what later layers attend to, see ``mix_hidden``.
        plan_key: entry of a batch that holds its plan.
        **kwargs: of the Trainer.

    Raises:
        MixError: if mix is no operator or needs saliency (``ssmix_loss``), mix_loss no function, or a
            ``compute_loss_func`` is given too; if a class has this one behind its Trainer; in a training step, if the
            batch has no labels, the model gives no logits, or labels and logits fit no loss and no mix_loss is given.

    Example:
        >>> import mixops as mx
        >>> def trainer(model, data, folder):
        ...     from transformers import Trainer, TrainingArguments
        ...
        ...     class MixTrainer(TrainerMixin, Trainer):
        ...         pass
        ...
        ...     args = TrainingArguments(folder, num_train_epochs=3, report_to="none")
        ...     return MixTrainer(model, args, train_dataset=data, mix=mx.TMix({7, 9, 12}), mix_seed=7)
    """

    # What the Trainer beside this class provides.
    args: Any
    state: Any
    model: Any
    label_names: list[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        before = cls.__mro__[: cls.__mro__.index(TrainerMixin)]
        if any(base.__module__ == "transformers.trainer" for base in before):
            raise MixTypeError(
                f"class {cls.__name__}: TrainerMixin stands behind the Trainer, whose steps would run in its place: "
                f"expected class {cls.__name__}(TrainerMixin, Trainer)"
            )

    def __init__(
        self,
        *args: Any,
        mix: mx.Operator | None = None,
        mix_seed: int | None = None,
        mix_loss: Callable[..., Any] | None = None,
        mix_mask: str = "union",
        plan_key: str = "plan",
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        if mix is not None:
            check_drawing(owner, mix, 0 if mix_seed is None else mix_seed)
            if "saliency" in mix.needs:
                raise MixValueError(
                    f"{owner}: mix={mix!r} needs saliency, which takes a clean forward of its own: expected an "
                    "operator that mixes inside the model; let compute_loss of a plain Trainer return "
                    "ssmix_loss(model, inputs, op, rng).total of mixops.pipelines.ssmix"
                )
        if mix_loss is not None and not callable(mix_loss):
            raise MixTypeError(f"{owner}: mix_loss is {mix_loss!r}, expected a function of (logits, labels), or None")
        if not hasattr(super(), "training_step"):
            raise MixTypeError(f"{owner}: there is no Trainer beside it: class MixTrainer(TrainerMixin, Trainer): pass")
        self.mix, self.mix_loss, self.mix_mask, self.plan_key = mix, mix_loss, mix_mask, plan_key
        self._mix_plan: mx.Plan | mx.PlanSequence | None = None
        self._mix_place = (0, 0)
        super().__init__(*args, **kwargs)
        self.mix_seed: int = self.args.seed if mix_seed is None else mix_seed
        if getattr(self, "compute_loss_func", None) is not None:
            raise MixValueError(
                f"{owner}: got compute_loss_func, which is given no plan: pass a loss fn(logits, labels) as mix_loss="
            )
        if mix_loss is not None and self.args.label_smoothing_factor:
            raise MixValueError(
                f"{owner}: label_smoothing_factor={self.args.label_smoothing_factor} is for the default loss: let "
                "mix_loss smooth, functools.partial(F.cross_entropy, label_smoothing=...)"
            )

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own."""
        self._mix_place = (0, 0)  # a training that broke off leaves its place behind
        return super().train(*args, **kwargs)  # type: ignore[misc]  # of the Trainer

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """One forward and backward of the Trainer, mixed."""
        plan, inputs = self._plan_of(inputs)
        if plan is None:
            return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        # A plan without a layer is for what the model is called with.
        layer, idle = plan.layer or "input", leaves_all(plan)
        layout = None if idle else layout_inside(plan, type(self).__name__)
        self._mix_plan = plan
        try:
            with nullcontext() if idle else mix_hidden(model, layer, plan, layout, mask=self.mix_mask):
                # Without the number of items the Trainer divides our mean by the number of accumulated batches.
                loss = super().training_step(model, inputs)  # type: ignore[misc]
        finally:
            self._mix_plan = None
        step, batch = self._mix_place
        self._mix_place = step, batch + 1
        return loss

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, *args: Any, **kwargs: Any) -> Any:
        """The mixed loss inside a mixed training step, the Trainer's own elsewhere."""
        plan = self._mix_plan
        if plan is None:
            return super().compute_loss(model, inputs, return_outputs, *args, **kwargs)  # type: ignore[misc]
        name = self._label_name(inputs)
        labels = inputs[name]
        outputs = model(**{key: value for key, value in inputs.items() if key != name})
        logits = logits_of(outputs, "TrainerMixin")
        if self.mix_loss is not None:
            loss = mx.mixed_loss(self.mix_loss, logits, *mx.pair_targets(labels, plan))
        else:
            kind = getattr(getattr(self.model, "config", None), "problem_type", None)
            fn, logits, labels = _default_loss(logits, labels, kind, self.args.label_smoothing_factor)
            try:
                loss = mx.mixed_loss(fn, logits, *mx.pair_targets(labels, plan))
            except IndexError:  # of cross entropy, on the CPU
                raise MixValueError(
                    f"{type(self).__name__}: {name} from {int(labels.min())} to {int(labels.max())} and logits "
                    f"{tuple(logits.shape)}, expected class ids of 0 to {logits.shape[1] - 1}: set num_labels of the "
                    "model, or number the classes from 0"
                ) from None
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own; a plan in the batch is left aside."""
        if self.plan_key in inputs:
            inputs = {name: value for name, value in inputs.items() if name != self.plan_key}
        return super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def _plan_of(self, inputs: Any) -> tuple[mx.Plan | mx.PlanSequence | None, Any]:
        """The plan of a training batch, and the batch without it."""
        if self.plan_key in inputs:
            rest = {name: value for name, value in inputs.items() if name != self.plan_key}
            return inputs[self.plan_key], rest
        if self.mix is None:
            return None, inputs
        # Batches are counted anew in each step of the optimizer: a checkpoint lies between two such steps, so all that
        # is needed to go on is in the Trainer's state.
        step = self.state.global_step
        batch = self._mix_place[1] if self._mix_place[0] == step else 0
        self._mix_place = step, batch
        epoch = int(self.state.epoch or 0)
        key = epoch, step * self.args.gradient_accumulation_steps + batch, self.args.process_index
        name, owner = self._label_name(inputs), type(self).__name__
        return plan_of_rows(inputs, self.mix, self.mix_seed, key, owner=owner, rows=name, step=step), inputs

    def _label_name(self, inputs: Any) -> str:
        owner = type(self).__name__
        if len(self.label_names) != 1:
            raise MixValueError(
                f"{owner}: the model has the labels {', '.join(self.label_names) or '(none)'}, expected one entry of "
                "them: name it in TrainingArguments(label_names=[...])"
            )
        (name,) = self.label_names
        if inputs.get(name) is None:
            raise MixValueError(
                f"{owner}: the batch has no {name!r}, only {', '.join(map(repr, inputs))}: mixing needs labels"
            )
        return name


def _default_loss(logits: Any, labels: Any, kind: str | None, smoothing: float) -> tuple[Callable[..., Any], Any, Any]:
    """(fn, logits, labels) as fn takes them, for what the shapes and the model's problem_type leave no doubt about."""
    from torch.nn import functional as F

    fn: Callable[..., Any]
    rows = labels.shape[:1]
    got = f"labels {labels.dtype} {tuple(labels.shape)} and logits {tuple(logits.shape)}"
    if kind == "regression" or (kind is None and logits.shape == (*rows, 1)):
        fn, labels = F.mse_loss, labels.to(logits.dtype)
        logits = logits.squeeze(-1) if labels.ndim == 1 else logits
        fits = labels.shape == logits.shape
    elif kind == "multi_label_classification":
        fn, labels = F.binary_cross_entropy_with_logits, labels.to(logits.dtype)
        fits = labels.shape == logits.shape
    else:
        fn = partial(F.cross_entropy, label_smoothing=smoothing)
        fits = labels.ndim == 1 and logits.ndim == 2 and not labels.is_floating_point()
    if not fits:
        raise MixTypeError(
            f"TrainerMixin: {got} fit no default loss: expected class ids (N,) with logits (N, C), or a "
            "config.problem_type that says regression or multi_label_classification; anything else takes a loss "
            "fn(logits, labels) as mix_loss="
        )
    if smoothing and not isinstance(fn, partial):
        raise MixValueError(
            f"TrainerMixin: label_smoothing_factor={smoothing} with {fn.__name__}: expected class ids to smooth; "
            "leave it out"
        )
    return fn, logits, labels
