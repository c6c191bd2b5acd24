"""Tagged sentences as batches: padded inputs, and a row of targets for every word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixops import MixTypeError, MixValueError

from .learners import Encoded

if TYPE_CHECKING:
    from torch import Tensor

#: A row of soft tags may miss the sum 1 by this much.
_SLACK = 1e-3


def target_rows(sentence: Any, tag_names: Sequence[str], place: str) -> np.ndarray:
    """(T, C) float32 shares of the tags of each token: the soft rows of a mixed sentence, else one-hot rows.

    Args:
        sentence: with ``tokens``, ``tags`` and, if it was mixed, ``soft``.
        tag_names: C names, in order.
        place: of the sentence, for messages.

    Raises:
        MixError: if it has no token or tag, a tag has no such name, or the soft rows are no distributions of (T, C).
    """
    tokens, tags = getattr(sentence, "tokens", None), getattr(sentence, "tags", None)
    if tokens is None or tags is None:
        raise MixTypeError(f"{place} is {type(sentence).__name__}, expected a TaggedSentence or a MixedSentence")
    if not tokens or len(tokens) != len(tags):
        raise MixValueError(f"{place}: {len(tokens)} tokens and {len(tags)} tags, expected as many, one or more")
    shape = len(tokens), len(tag_names)
    soft = getattr(sentence, "soft", None)
    if soft is not None:
        rows = np.asarray(soft, np.float32)
        if rows.shape != shape:
            raise MixValueError(f"{place}: soft tags of shape {rows.shape}, expected {shape}: tokens and tags")
        if not (np.isfinite(rows).all() and (rows >= 0).all() and (np.abs(rows.sum(1) - 1) <= _SLACK).all()):
            raise MixValueError(f"{place}: soft tags that are no shares, expected rows of 0 or more with the sum 1")
        return rows
    numbers = {name: i for i, name in enumerate(tag_names)}
    for tag in tags:
        if tag not in numbers:
            raise MixValueError(f"{place}: tag {tag!r} is none of {', '.join(tag_names)}")
    return np.eye(shape[1], dtype=np.float32)[[numbers[tag] for tag in tags]]


@dataclass(frozen=True, eq=False)
class TagBatch:
    """Sentences of one batch.

    Args:
        inputs: arguments of the network, (B, T) and (B, T, W) int64.
        rows: (M,) sentence of each word that has logits, in order.
        places: (M,) its position.
        words: (M,) its place in the sentence.
        targets: (M, C) float32; None where nothing is learnt.
    """

    inputs: dict[str, Tensor]
    rows: Tensor
    places: Tensor
    words: Tensor
    targets: Tensor | None

    def to(self, device: Any) -> TagBatch:
        """On another device."""
        moved = {name: value.to(device) for name, value in self.inputs.items()}
        targets = None if self.targets is None else self.targets.to(device)
        return TagBatch(moved, self.rows.to(device), self.places.to(device), self.words.to(device), targets)


def tag_batch(
    samples: Sequence[Encoded], fills: dict[str, int], targets: Sequence[np.ndarray] | None = None
) -> TagBatch:
    """Sentences padded behind to the longest, with their mask.

    Args:
        samples: encoded sentences.
        fills: what fills each input.
        targets: (n, C) of each, or None.
    """
    import torch

    names = list(samples[0].inputs)
    lengths = [len(sample.inputs[names[0]]) for sample in samples]
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    inputs = {"attention_mask": mask}
    for name in names:
        inputs[name] = np.full((*mask.shape, *samples[0].inputs[name].shape[1:]), fills[name], np.int64)
        for row, sample in zip(inputs[name], samples, strict=True):
            row[: len(sample.inputs[name])] = sample.inputs[name]
    kept = [np.flatnonzero(sample.places >= 0) for sample in samples]
    rows = np.repeat(np.arange(len(samples)), [len(k) for k in kept])
    places = np.concatenate([sample.places[k] for sample, k in zip(samples, kept, strict=True)])
    held = None
    if targets is not None:
        held = torch.from_numpy(np.concatenate([t[k] for t, k in zip(targets, kept, strict=True)]))
    return TagBatch(
        {name: torch.from_numpy(array) for name, array in inputs.items()},
        torch.from_numpy(rows),
        torch.from_numpy(places.astype(np.int64)),
        torch.from_numpy(np.concatenate(kept)),
        held,
    )


def token_logits(owner: str, output: Any, batch: TagBatch, classes: int) -> Tensor:
    """(M, C) logits of the words of a batch.

    Raises:
        MixError: if the network put out other things than (B, T, C) logits.
    """
    logits = getattr(output, "logits", output)
    expected = (*batch.inputs["attention_mask"].shape, classes)
    if tuple(getattr(logits, "shape", ())) != expected:
        raise MixTypeError(
            f"{owner}: the network put out {type(output).__name__}, expected logits of shape {tuple(expected)}, or an "
            "object that has them as .logits"
        )
    return logits[batch.rows, batch.places]


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean over words of -Σ_c target[c]·log softmax(logits)[c]; of one-hot rows, the usual cross-entropy.

    Args:
        logits: (M, C) floats.
        targets: (M, C) shares with the sum 1 in each row.

    Returns:
        A scalar that gradients flow through.

    Example:
        >>> import torch
        >>> soft_cross_entropy(torch.zeros(2, 4), torch.eye(4)[:2]).item()
        1.3862943649291992
    """
    return -(targets * logits.log_softmax(1)).sum(1).mean()
