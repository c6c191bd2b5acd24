"""Rows of several batches as one batch, its logits, and labels as rows of shares: what a step of MixText works on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixops import MixTypeError, MixValueError

from .saliency import model_inputs

#: A batch of sentences as a model takes it: input_ids (B, T), attention_mask (B, T) and the like.
Batch = Mapping[str, Any]
#: How far soft labels may be from a sum of 1.
_SUM_ERROR = 1e-3


def rows_of(name: str, batch: Any) -> int:
    """How many rows a batch has, one or more."""
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        raise MixTypeError(
            f"MixText: {name} is {type(batch).__name__}, expected a batch with input_ids (B, T), a tensor"
        )
    if not ids.numel():
        raise MixValueError(f"MixText: {name} has input_ids of shape {tuple(ids.shape)}, expected one row or more")
    return len(ids)


def rows_of_views(views: Any) -> int:
    """How many sentences there are, in the originals and in each view of them."""
    if isinstance(views, (Mapping, Tensor)) or not isinstance(views, Sequence) or not views:
        raise MixTypeError(
            f"MixText: unlabelled is {type(views).__name__}, expected the list [originals, view 1, ...] of batches; "
            "[originals] alone where there are no views"
        )
    rows = [rows_of(f"view {k}" if k else "originals", view) for k, view in enumerate(views)]
    if len(set(rows)) > 1:
        raise MixValueError(
            f"MixText: originals and views have {rows} rows, expected equally many: row i of each is one sentence"
        )
    return rows[0]


def joined(batches: Sequence[Batch], pad: int) -> dict[str, Tensor]:
    """Rows of all batches, filled up to the longest: ids with ``pad``, masks and the rest with 0.

    Where that adds padding to batches without an attention mask, they get one.

    Raises:
        MixError: if the batches do not have the same entries, labels and what is for operators alone aside, or one is
            not (rows, its T); if pad is no whole number.
    """
    if isinstance(pad, bool) or not isinstance(pad, (int, np.integer)):
        raise MixTypeError(f"MixText: pad={pad!r}, expected the id of padding, tokenizer.pad_token_id")
    plain = [model_inputs(batch) for batch in batches]
    longest = max(batch["input_ids"].shape[1] for batch in plain)
    if any(batch["input_ids"].shape[1] < longest for batch in plain):
        plain = [{"attention_mask": torch.ones_like(batch["input_ids"]), **batch} for batch in plain]
    for batch in plain:
        if set(batch) != set(plain[0]):
            raise MixValueError(
                f"MixText: batches with the entries {sorted(batch)} and {sorted(plain[0])}, expected the same in all"
            )
    return {name: torch.cat([_filled(batch, name, longest, pad) for batch in plain]) for name in plain[0]}


def _filled(batch: Batch, name: str, longest: int, pad: int) -> Tensor:
    value, shape = batch[name], tuple(batch["input_ids"].shape)
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        raise MixTypeError(
            f"MixText: {name} is {type(value).__name__} of shape {tuple(getattr(value, 'shape', ()))}, expected a "
            f"tensor of the shape of input_ids, {shape}"
        )
    return nn.functional.pad(value, (0, longest - shape[1]), value=pad if name == "input_ids" else 0)


def logits_of(model: nn.Module, batch: dict[str, Tensor], rows: int) -> Tensor:
    """(rows, C) of a model that returns them, or an object or dict that has them."""
    output = model(**batch)
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != rows:
        raise MixTypeError(
            f"MixText: the model put out {type(output).__name__}, logits of shape "
            f"{tuple(getattr(logits, 'shape', ()))}, expected ({rows}, classes), or an object that has them as .logits"
        )
    return logits


def label_rows(labels: Any, rows: int, guessed: Tensor) -> Tensor:
    """(B, C) of class numbers or soft labels, like ``guessed``."""
    classes = guessed.shape[1]
    if not isinstance(labels, Tensor) or labels.ndim not in (1, 2) or len(labels) != rows:
        raise MixTypeError(
            f"MixText.loss: labels are {type(labels).__name__} of shape {tuple(getattr(labels, 'shape', ()))}, "
            f"expected a tensor ({rows},) of class numbers, or ({rows}, {classes}) of shares"
        )
    labels = labels.to(guessed.device)
    if labels.ndim == 1 and not labels.is_floating_point():
        if bool(((labels < 0) | (labels >= classes)).any()):
            raise MixValueError(
                f"MixText.loss: labels from {int(labels.min())} to {int(labels.max())}, but the model puts out "
                f"{classes} logits, for the classes 0 to {classes - 1}: make it with as many as there are classes"
            )
        return nn.functional.one_hot(labels.long(), classes).to(guessed.dtype)
    if labels.ndim != 2 or labels.shape[1] != classes or not labels.is_floating_point():
        raise MixValueError(
            f"MixText.loss: {labels.dtype} labels of shape {tuple(labels.shape)}, expected whole numbers ({rows},), or "
            f"floats ({rows}, {classes}): the model puts out {classes} logits"
        )
    if not bool((labels >= 0).all()) or not bool(((labels.sum(1) - 1).abs() < _SUM_ERROR).all()):
        raise MixValueError("MixText.loss: soft labels that are negative, NaN or do not sum to 1: expected shares")
    return labels.to(guessed.dtype)
