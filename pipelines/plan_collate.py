"""PlanCollator: collate the samples of a batch and put its plan beside them. The model mixes later, where it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

import mixops as mx
from mixops import MixTypeError, MixValueError, streams

from .collate import check_mixing, collate_for_mixing
from .keys import BatchKey
from .state import count

_ONE_A_ROW = "b"
#: What text batches call the evidence of operators.
_OTHER_NAMES = {
    "labels": ("label",),
    "segments": ("token_type_ids",),
    "special": ("special_tokens_mask",),
    "tags": ("labels",),
}


class PlanCollator:
    """A ``collate_fn`` that draws: the batch is collated and not changed, its plan travels with it to the model.

    The plan depends on the key of the batch (epoch, step, rank) and the seed alone. ``mix_hidden`` applies it inside
    the model, ``mixed_loss`` weighs the labels by it.

    Args:
        op: the operator; those on hidden states say in their plan which layer they are for.
        seed: of the draws, 0 ≤ seed < 2**64.
        collate: samples to a dict batch: a data collator of Hugging Face, a function that pads; None: as torch's
            default_collate where torch is loaded, else as numpy_collate, for samples that are equally long.
        rows: entry of the batch that has one row for each sample.
        training: False draws the identity.
        plan_key: name under which the batch is given its Plan.
        steps_per_epoch: batches of an epoch, 1 or more, ``len(sampler)``: counts steps over the whole training for
            operators with ``start_step``, epoch · steps_per_epoch + step.

    Raises:
        MixError: if op is no operator, a number is out of range, or a name is no text; on a call, if the samples
            carry no key, the batch is no dict, has not one row for each sample, lacks what the operator needs, or has
            an entry of the plan's name.

    Example:
        >>> import mixops as mx
        >>> from mixops.pipelines import KeyedBatchSampler, arrays, keyed
        >>> data = keyed(arrays(input_ids=np.arange(12).reshape(4, 3), labels=np.arange(4)))
        >>> collate = PlanCollator(mx.TMix({7, 9, 12}), seed=7)
        >>> batch = collate(data.__getitems__(next(iter(KeyedBatchSampler(data, 4)))))
        >>> list(batch), batch["plan"].n
        (['input_ids', 'labels', 'plan'], 4)
    """

    def __init__(
        self,
        op: mx.Operator,
        seed: int,
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        rows: str = "input_ids",
        training: bool = True,
        plan_key: str = "plan",
        steps_per_epoch: int | None = None,
    ) -> None:
        owner = type(self).__name__
        check_drawing(owner, op, seed)
        if collate is not None and not callable(collate):
            raise MixTypeError(f"{owner}: collate is {collate!r}, expected a function of a list of samples, or None")
        for word, name in (("rows", rows), ("plan_key", plan_key)):
            if not isinstance(name, str):
                raise MixTypeError(f"{owner}: {word} is {name!r}, expected the name of an entry of the batch")
        if steps_per_epoch is not None and not count(owner, "steps_per_epoch", steps_per_epoch):
            raise MixValueError(f"{owner}: steps_per_epoch=0, expected 1 or more, len(sampler), or None")
        self.op, self.seed, self.collate = op, seed, collate
        self.rows, self.training, self.plan_key = rows, training, plan_key
        self.steps_per_epoch = None if steps_per_epoch is None else int(steps_per_epoch)

    def __repr__(self) -> str:
        words = [repr(self.op), f"seed={self.seed}"]
        words += [] if self.collate is None else [f"collate={self.collate!r}"]
        words += [] if self.rows == "input_ids" else [f"rows={self.rows!r}"]
        words += [] if self.training else ["training=False"]
        words += [] if self.plan_key == "plan" else [f"plan_key={self.plan_key!r}"]
        words += [] if self.steps_per_epoch is None else [f"steps_per_epoch={self.steps_per_epoch}"]
        return f"{type(self).__name__}({', '.join(words)})"

    def __call__(self, samples: Sequence[Any]) -> Any:
        """The collated batch of these samples, with its plan."""
        key: BatchKey | None = getattr(samples, "key", None)
        if key is None:
            raise MixValueError(
                "PlanCollator: the samples carry no key: use DataLoader(keyed(dataset), "
                "batch_sampler=KeyedBatchSampler(...), collate_fn=PlanCollator(...)), with keyed() outermost"
            )
        if self.collate is not None:
            batch = self.collate(list(samples))
        else:
            _check_samples(samples, self.rows)
            batch = collate_for_mixing(samples, {})
        if not isinstance(batch, Mapping):
            raise MixTypeError(
                f"PlanCollator: the collated batch is {type(batch).__name__}, expected a dict that the plan can join: "
                "let the samples, or collate=, give entries names"
            )
        if self.plan_key in batch:
            raise MixValueError(
                f"PlanCollator: plan_key={self.plan_key!r} is already an entry of the batch: choose another name"
            )
        step = None if self.steps_per_epoch is None else key.epoch * self.steps_per_epoch + key.step
        plan = plan_of_rows(
            batch, self.op, self.seed, key, owner=type(self).__name__, rows=self.rows, step=step, training=self.training
        )
        if plan.n != len(samples):
            raise MixValueError(
                f"PlanCollator: {len(samples)} samples were collated into {plan.n} rows of {self.rows!r}, expected one "
                "row for each: pass collate= one that pads and does not pack, or name another entry, rows=..."
            )
        if not isinstance(batch, MutableMapping):
            return {**batch, self.plan_key: plan}
        batch[self.plan_key] = plan
        return batch


def check_drawing(owner: str, op: Any, seed: Any) -> None:
    """Refuse an operator or a seed that is none, before a worker or a training step does."""
    check_mixing(owner, op, {0: mx.Field(_ONE_A_ROW)}, seed)


def leaves_all(plan: mx.Plan | mx.PlanSequence) -> bool:
    """Is there nothing to mix and no layer to mix at? So draw OneOf and the like where they leave all rows alone."""
    return plan.layer is None and plan.is_identity


def layout_inside(plan: mx.Plan | mx.PlanSequence, owner: str) -> str | None:
    """The axes of hidden states that a plan is for: "b t d" where it has boxes on tokens; None for whole rows.

    Raises:
        MixError: if such boxes are for no layer: ids are moved before the model is called.
    """
    steps = plan.plans if isinstance(plan, mx.PlanSequence) else (plan,)
    if not any(step.rank == 1 for step in steps):
        return None
    if plan.layer is None:
        raise MixValueError(
            f"{owner}: the plan moves or cuts tokens and names no layer, and here hidden states are mixed: expected an "
            "operator for a layer, such as TMix or HiddenCut; for ids let the step return ssmix_loss(model, batch, "
            "op, rng).total of mixops.pipelines.ssmix"
        )
    return "b t d"


def check_padding(owner: str, mask: Any) -> None:
    """Refuse an attention mask (B, T) with a real token behind one that is none: its sum would say nothing."""
    if len(np.shape(mask)) == 2 and bool((mask[:, 1:] > mask[:, :-1]).any()):
        raise MixValueError(
            f"{owner}: rows of the batch are padded in front, or attention_mask has gaps, and tokens are counted from "
            'the first one on: expected padding behind, tokenizer.padding_side = "right"'
        )


def plan_of_rows(
    batch: Mapping[str, Any],
    op: mx.Operator,
    seed: int,
    key: tuple[int, int, int],
    *,
    owner: str,
    rows: str = "input_ids",
    step: int | None = None,
    training: bool = True,
) -> mx.Plan | mx.PlanSequence:
    """Draw the plan of a batch that is a dict, from the stream of its key.

    Args:
        batch: with an entry of one row for each sample; and, where the operator needs it, ``labels`` (or ``label``),
            ``attention_mask`` for lengths, ``special_tokens_mask`` for special tokens, ``token_type_ids`` for
            segments, ``labels`` for tags: nothing else of it is read, and nothing else is copied from a device.
        op: the operator.
        seed: of the draws.
        key: (epoch, step, rank).
        owner: name of the class, for the messages.
        rows: name of that entry.
        step: of the whole training, for operators with ``start_step``.
        training: False draws the identity.

    Returns:
        The plan.

    Raises:
        MixError: if the batch lacks an entry, or the operator refuses to draw.
    """
    rng = streams.plan_stream(seed, *key)
    return drawn_for_rows(batch, op, rng, owner=owner, rows=rows, epoch=key[0], step=step, training=training)


def drawn_for_rows(
    batch: Mapping[str, Any],
    op: mx.Operator,
    rng: np.random.Generator,
    *,
    owner: str,
    rows: str = "input_ids",
    epoch: int | None = None,
    step: int | None = None,
    training: bool = True,
) -> mx.Plan | mx.PlanSequence:
    """``plan_of_rows`` from a generator that is at hand."""
    if rows not in batch:
        raise MixValueError(
            f"{owner}: {rows!r} is not in the batch, which has {', '.join(map(repr, batch))}: name an entry with one "
            "row for each sample, rows=..."
        )
    if not getattr(batch[rows], "shape", (1,)) or not hasattr(batch[rows], "__len__"):
        raise MixTypeError(f"{owner}: {rows!r} of the batch is {batch[rows]!r:.60}, expected an array of its rows")
    evidence = _evidence(owner, batch, op, rows)
    shape: tuple[int, ...] = ()
    if "lengths" in op.needs:  # labels have no axis of tokens: the mask has
        shape = tuple(np.shape(batch[rows])[1:2] or np.shape(batch.get("attention_mask", ()))[1:2])
    spec = mx.Spec(len(batch[rows]), shape, epoch=epoch, training=training, step=step)
    return op.draw(rng, spec, **evidence)


def _evidence(owner: str, batch: Mapping[str, Any], op: mx.Operator, rows: str) -> dict[str, np.ndarray]:
    """What the operator needs, under the names that text batches have for it."""
    found = dict(batch)
    for need in (*op.needs, *op.uses):
        names = (need, *_OTHER_NAMES.get(need, ()))
        there = next((batch[name] for name in names if batch.get(name) is not None), None)
        if there is not None:
            found[need] = there
        elif need in op.needs and need != "lengths":
            entry = " or ".join(map(repr, names))
            raise MixValueError(f"{owner}: {op!r} needs {need}, expected an entry {entry} in the batch")
    if "lengths" in op.needs and "lengths" not in found:
        mask = batch.get("attention_mask")
        if mask is None:
            raise MixValueError(
                f"{owner}: {op!r} needs the lengths of the rows, expected an entry 'attention_mask' in the batch"
            )
        check_padding(owner, mask)
        found["lengths"] = mask.sum(1)
    return mx.evidence_of(found, {rows: mx.Field(_ONE_A_ROW)}, op)


def _check_samples(samples: Sequence[Any], rows: str) -> None:
    """Refuse what stacking would fail on, or transpose, without saying what to do."""
    fix = "pass collate= one that pads, such as DataCollatorWithPadding(tokenizer)"
    if not all(isinstance(sample, Mapping) for sample in samples):
        return
    column = [sample[rows] for sample in samples if rows in sample]
    lists = [one for one in column if isinstance(one, (list, tuple))]
    if lists:
        raise MixTypeError(
            f"PlanCollator: {rows!r} of a sample is a {type(lists[0]).__name__}, expected an array or tensor: convert "
            f"it in the data set (a Hugging Face one: with_format('torch')), or {fix}"
        )
    sizes = sorted({np.shape(one) for one in column})
    if len(sizes) > 1:
        raise MixValueError(
            f"PlanCollator: {rows!r} has samples of shapes {sizes[0]} to {sizes[-1]}, expected one shape: {fix}"
        )
