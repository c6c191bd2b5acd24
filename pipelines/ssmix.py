"""The training step of SSMix: the loss of the batch as it is and of the batch mixed, with saliency from the same pass.

Imported by name: ``from mixops.pipelines.ssmix import ssmix_loss``. It needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import mixops as mx
from mixops import MixTypeError, MixValueError

from .hidden import mix_hidden
from .mixed_rows import steps_of
from .plan_collate import check_padding, drawn_for_rows, layout_inside
from .saliency import Words, labels_of, logits_of, mean_loss, model_inputs

__all__ = ["SSMixLoss", "ssmix_backward", "ssmix_loss"]

#: The paper's loss is the mean of the losses of both sentences of a pair and of their two mixtures.
_HALF = 0.5


@dataclass(frozen=True, eq=False)
class SSMixLoss:
    """What a step came to.

    Args:
        total: clean_weight·clean + (1 - clean_weight)·mixed, a scalar; of ``ssmix_loss`` ready for ``backward()``.
        clean: mean loss of the batch as it is, detached.
        mixed: mean loss of the mixed batch on the labels of both parents, detached.
        logits: (B, C) of the batch as it is, detached.
        plan: what was drawn.
        saliency: (B, T) scores that the draw was made with; None where the operator needs none. Of ``ssmix_backward``
            they are right up to one factor for the whole batch.
    """

    total: Tensor
    clean: Tensor
    mixed: Tensor
    logits: Tensor = field(repr=False)
    plan: mx.Plan | mx.PlanSequence = field(repr=False)
    saliency: Tensor | None = field(repr=False)


def ssmix_loss(
    model: nn.Module,
    batch: Mapping[str, Any],
    op: mx.Operator,
    rng: np.random.Generator,
    *,
    loss: Callable[..., Tensor] | None = None,
    clean_weight: float = _HALF,
    embedding: str | nn.Module | None = None,
    special_ids: Collection[int] | None = None,
    fill: int | None = None,
    rows: str = "input_ids",
    epoch: int | None = None,
    step: int | None = None,
) -> SSMixLoss:
    """Loss of a training step: w·L(x, y) + (1 - w)·[lam·L(x̃, y) + (1 - lam)·L(x̃, y of the partner)], means over rows.

    The forward of the batch as it is gives the loss and, by one backward to the word embedding alone, the saliency; the
    operator draws, the ids are mixed, and a second forward gives the mixed loss. With the ``backward()`` that follows
    this is 2 forwards and 3 backwards, the first of which computes no gradient of a weight (``ssmix_backward`` saves
    it, too); with an operator that needs no saliency 2 and 2. No ``grad`` of a parameter is touched before
    ``backward()``.

    Args:
        model: a sequence classifier that is called with the entries of the batch by name and gives logits.
        batch: tensors on the model's device: ids (B, T) padded behind, ``attention_mask`` (B, T), ``labels`` (B, ...)
            and what else the model takes. Where they are there, ``special_tokens_mask`` (B, T) names special tokens,
            ``token_type_ids`` or ``segments`` (B, T) the halves of pairs of sentences, and ``saliency`` (B, T) is
            taken in place of gradients. What is for the operator alone does not reach the model.
        op: ``SSMix()``, ``SpanMix()``, or another that mixes ids or hidden states.
        rng: of the draw, ``streams.plan_stream(seed, epoch, step, rank)``: then a training that goes on from a
            checkpoint draws what an unbroken one draws.
        loss: fn(logits, labels), used as ``mixed_loss`` uses it; None: cross entropy of class ids.
        clean_weight: w, between 0 and 1 and neither; the paper's is 1/2.
        embedding: where saliency is taken, see ``embedding_saliency``.
        special_ids: ids of special tokens, ``tokenizer.all_special_ids``, where the batch has no
            ``special_tokens_mask``; () for none. None: the operator takes the first and last real token for special.
        fill: id that is written where the plan paints fills (a mask or unknown token); None: the plan may
            paint none.
        rows: entry of the batch that holds the ids.
        epoch: for operators with ``until``.
        step: of the whole training, for operators with ``start_step``.

    Returns:
        An SSMixLoss. Where the operator is off the batch goes through the model twice as it is.

    Raises:
        MixError: if an argument is out of range, the batch lacks labels or what the operator needs, is padded in front,
            the model gives no logits, labels and logits do not fit, or the operator refuses to draw or blends ids.

    Example:
        >>> import mixops as mx
        >>> from mixops.pipelines.text.models import TextCNN
        >>> model = TextCNN(nn.Embedding(9, 4, padding_idx=0), classes=2)
        >>> ids = torch.tensor([[1, 5, 6, 7, 2, 0], [1, 7, 8, 5, 6, 2]])
        >>> batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([0, 1])}
        >>> step = ssmix_loss(model, batch, mx.SSMix(span=0.4), mx.streams.plan_stream(7, epoch=0, step=0))
        >>> step.total.backward()
        >>> step.plan.n, tuple(step.saliency.shape)
        (2, (2, 6))

    Source: SSMix (Yoon et al. 2021), equation 5 and section 4. Their code computes each saliency map twice, each by a
    forward and a full backward of its own with other dropout: 4 forwards and 4 backwards of the batch in all. Here the
    map is that of the forward that is trained on. With a permutation of the batch as partners the mean over a pair's
    two sentences and two mixtures is (clean + mixed) / 2.
    """
    work = _Step("ssmix_loss", model, batch, op, loss, clean_weight, special_ids, fill, rows)
    words = work.words(embedding)
    with words or nullcontext():
        logits, clean = work.clean()
    saliency = None if words is None else words.saliency(clean, batch, keep=True)
    plan = work.drawn(rng, saliency, epoch, step)
    mixed = work.mixed(plan)
    total = clean_weight * clean + (1 - clean_weight) * mixed
    return SSMixLoss(total, clean.detach(), mixed.detach(), logits.detach(), plan, work.scores(saliency))


def ssmix_backward(
    model: nn.Module,
    batch: Mapping[str, Any],
    op: mx.Operator,
    rng: np.random.Generator,
    *,
    backward: Callable[[Tensor], Any] | None = None,
    loss: Callable[..., Tensor] | None = None,
    clean_weight: float = _HALF,
    embedding: str | nn.Module | None = None,
    special_ids: Collection[int] | None = None,
    fill: int | None = None,
    rows: str = "input_ids",
    epoch: int | None = None,
    step: int | None = None,
) -> SSMixLoss:
    """``ssmix_loss`` and its ``backward()`` in one: 2 forwards and 2 backwards, in the memory of a plain step.

    The backward of the clean loss passes the word embedding on its way, so the saliency is read off it there, and its
    activations are free before the mixed forward begins. Gradients are added to those of the parameters.

    Args:
        model: see ``ssmix_loss``.
        batch: see ``ssmix_loss``.
        op: see ``ssmix_loss``.
        rng: see ``ssmix_loss``.
        backward: does the backward of a scalar, twice a step: ``accelerator.backward``, or
            ``lambda loss: scaler.scale(loss).backward()``; None: ``loss.backward()``.
        loss: see ``ssmix_loss``.
        clean_weight: see ``ssmix_loss``.
        embedding: see ``ssmix_loss``.
        special_ids: see ``ssmix_loss``.
        fill: see ``ssmix_loss``.
        rows: see ``ssmix_loss``.
        epoch: see ``ssmix_loss``.
        step: see ``ssmix_loss``.

    Returns:
        An SSMixLoss whose total is detached: its backward is done.

    Raises:
        MixError: as ``ssmix_loss`` does, and if ``backward`` sends no gradient to the word embedding. An error of the
            draw or later leaves the gradients of the clean half behind: call ``zero_grad()`` before going on.

    Example:
        >>> import mixops as mx
        >>> from mixops.pipelines.text.models import TextCNN
        >>> model = TextCNN(nn.Embedding(9, 4, padding_idx=0), classes=2)
        >>> ids = torch.tensor([[1, 5, 6, 7, 2, 0], [1, 7, 8, 5, 6, 2]])
        >>> batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([0, 1])}
        >>> step = ssmix_backward(model, batch, mx.SSMix(span=0.4), mx.streams.plan_stream(7, epoch=0, step=0))
        >>> step.total.requires_grad, model.head.weight.grad is not None
        (False, True)

    Source: see ``ssmix_loss``.
    """
    work = _Step("ssmix_backward", model, batch, op, loss, clean_weight, special_ids, fill, rows)
    if backward is not None and not callable(backward):
        raise MixTypeError(f"ssmix_backward: backward={backward!r}, expected a function of the loss, or None")
    words = work.words(embedding)
    with words or nullcontext():
        logits, clean = work.clean()
    logits = logits.detach()
    if words is not None:
        words.watch(clean)
    _go_back(clean_weight * clean, backward)
    clean = clean.detach()
    saliency = None if words is None else words.seen(batch)
    plan = work.drawn(rng, saliency, epoch, step)
    mixed = work.mixed(plan)
    _go_back((1 - clean_weight) * mixed, backward)
    mixed = mixed.detach()
    total = clean_weight * clean + (1 - clean_weight) * mixed
    return SSMixLoss(total, clean, mixed, logits, plan, work.scores(saliency))


def _go_back(loss: Tensor, backward: Callable[[Tensor], Any] | None) -> None:
    if backward is None:
        loss.backward()  # type: ignore[no-untyped-call]
    else:
        backward(loss)


class _Step:
    """One step: what both forms of it share."""

    def __init__(
        self,
        owner: str,
        model: nn.Module,
        batch: Mapping[str, Any],
        op: mx.Operator,
        loss: Callable[..., Tensor] | None,
        clean_weight: float,
        special_ids: Collection[int] | None,
        fill: int | None,
        rows: str,
    ) -> None:
        if not isinstance(op, mx.Operator):
            raise MixTypeError(f"{owner}: op is {type(op).__name__}, expected an operator such as SSMix()")
        if isinstance(clean_weight, bool) or not isinstance(clean_weight, (int, float)) or not 0 < clean_weight < 1:
            raise MixValueError(f"{owner}: clean_weight={clean_weight!r}, expected a number between 0 and 1")
        if special_ids is not None and not (
            isinstance(special_ids, Collection) and all(isinstance(one, (int, np.integer)) for one in special_ids)
        ):
            raise MixTypeError(f"{owner}: special_ids={special_ids!r}, expected ids, tokenizer.all_special_ids")
        if not torch.is_grad_enabled():
            raise MixValueError(f"{owner}: gradients are off, under no_grad: call it where the model trains")
        self.labels = labels_of(batch, owner)
        if batch.get(rows) is None:
            raise MixValueError(
                f"{owner}: {rows!r} is not in the batch, which has {', '.join(map(repr, batch))}: ids are mixed, so "
                "name their entry, rows=..."
            )
        self.owner, self.model, self.batch, self.op = owner, model, batch, op
        self.loss, self.special_ids, self.fill, self.rows = loss, special_ids, fill, rows
        self.inputs = model_inputs(batch)
        self.given = batch.get("saliency")
        if "lengths" in op.needs and batch.get("attention_mask") is not None:
            check_padding(owner, batch["attention_mask"])
        if "segments" in op.needs and all(batch.get(name) is None for name in ("segments", "token_type_ids")):
            raise MixValueError(
                f"{owner}: {op!r} mixes pairs of sentences half by half, and the batch has no 'token_type_ids': "
                "expected them, or where the tokenizer makes none (RoBERTa) an entry 'segments' (B, T) of 0 in the "
                "first sentence and 1 in the second, which encoding.sequence_ids() of a fast tokenizer tells"
            )
        if "segments" in op.needs:
            self._check_halves()

    def _check_halves(self) -> None:
        name = "token_type_ids" if self.batch.get("segments") is None else "segments"
        if not bool((self.batch[name] != 0).any()):
            raise MixValueError(
                f"{self.owner}: {self.op!r} mixes pairs of sentences half by half, and {name!r} is 0 everywhere, as of "
                "tokenizers that do not tell sentences apart (RoBERTa), or of single sentences: expected an entry "
                "'segments' (B, T) of 0 in the first sentence and 1 in the second, which encoding.sequence_ids() of a "
                "fast tokenizer tells; for single sentences leave pairs out"
            )

    def words(self, embedding: str | nn.Module | None) -> Words | None:
        """Where saliency is taken; None where the operator needs none, or the batch brings it."""
        if "saliency" not in self.op.needs or self.given is not None:
            return None
        return Words(self.model, embedding, self.owner)

    def scores(self, saliency: Tensor | None) -> Any:
        """Those that the draw was made with."""
        return saliency if saliency is not None or "saliency" not in self.op.needs else self.given

    def clean(self) -> tuple[Tensor, Tensor]:
        """(logits, mean loss) of the batch as it is."""
        logits = logits_of(self.model(**self.inputs), self.owner)
        return logits, mean_loss(self.loss, logits, self.labels, self.owner)

    def drawn(
        self, rng: np.random.Generator, saliency: Tensor | None, epoch: int | None, step: int | None
    ) -> mx.Plan | mx.PlanSequence:
        """The plan of the batch."""
        evidence = dict(self.batch)
        if saliency is not None:
            evidence["saliency"] = saliency
        if self.special_ids is not None and all(
            evidence.get(name) is None for name in ("special", "special_tokens_mask")
        ):
            ids = self.batch[self.rows]
            evidence["special"] = torch.isin(
                ids, torch.tensor(sorted(self.special_ids), dtype=ids.dtype).to(ids.device)
            )
        return drawn_for_rows(evidence, self.op, rng, owner=self.owner, rows=self.rows, epoch=epoch, step=step)

    def mixed(self, plan: mx.Plan | mx.PlanSequence) -> Tensor:
        """Mean loss of the mixed batch on the labels of both parents."""
        inputs, inside = self.inputs, nullcontext()
        ya, yb, lam = self._parents(plan)
        if plan.layer is not None:
            inside = mix_hidden(self.model, plan.layer, plan, layout_inside(plan, self.owner))  # type: ignore[assignment]
        elif not plan.is_identity:
            if self.fill is None and any(one.facts.paints for one in steps_of(plan)):
                raise MixValueError(
                    f"{self.owner}: {self.op!r} paints fills, and no id was given for them: fill=, the id of the mask "
                    "or the unknown token"
                )
            ids = mx.mix(inputs[self.rows], plan, "b t", "discrete", fill=self.fill)
            inputs = {**inputs, self.rows: ids}
        with inside:
            logits = logits_of(self.model(**inputs), self.owner)
        return mean_loss(self.loss, logits, ya, self.owner, other=yb, lam=lam)

    def _parents(self, plan: mx.Plan | mx.PlanSequence) -> tuple[Any, Any, Any]:
        try:
            return mx.pair_targets(self.labels, plan)
        except MixValueError as error:
            if isinstance(plan, mx.Plan):
                raise
            raise MixValueError(
                f"{self.owner}: {self.op!r} gave a row the labels of more than two ({error}): expected one operator "
                "that mixes rows; OneOf([...]) takes turns between several"
            ) from None
