"""Token ids of different lengths into one batch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError

from ..state import count


def pad_batch(samples: Sequence[Mapping[str, Any]], *, pad: int = 0) -> dict[str, Any]:
    """A batch of token ids, padded behind to the longest sample, with its mask and labels: a ``collate_fn``.

    Args:
        samples: at least one, of {"input_ids": (T,) whole numbers, T ≥ 1, "label": a whole number}; other entries are
            left out.
        pad: id that fills the rest.

    Returns:
        {"input_ids": (B, T) int64, "attention_mask": (B, T) int64, 1 where a token is, "labels": (B,) int64}: torch
        tensors if torch is loaded, else NumPy arrays.

    Raises:
        MixError: if there is no sample, one lacks an entry, has no token, its ids are no row of whole numbers or its
            label is no whole number, or pad is none.

    Example:
        >>> pad_batch([{"input_ids": [5, 6], "label": 1}, {"input_ids": [7], "label": 0}])["attention_mask"].tolist()
        [[1, 1], [1, 0]]
    """
    if not samples:
        raise MixValueError("pad_batch: got no sample, expected at least one")
    rows = [_ids(i, sample) for i, sample in enumerate(samples)]
    ids = np.full((len(rows), max(map(len, rows))), count("pad_batch", "pad", pad), np.int64)
    mask = np.zeros(ids.shape, np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    labels = np.array([_label(i, sample["label"]) for i, sample in enumerate(samples)], np.int64)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    torch = sys.modules.get("torch")
    return batch if torch is None else {name: torch.from_numpy(array) for name, array in batch.items()}


def _ids(place: int, sample: Any) -> np.ndarray:
    if not isinstance(sample, Mapping) or "input_ids" not in sample or "label" not in sample:
        have = list(sample) if isinstance(sample, Mapping) else type(sample).__name__
        fix = "encode the text first, TokenizeStage(vocabulary) or TokenizedSentences(sentences, vocabulary)"
        if isinstance(sample, Mapping) and "input_ids" in sample:
            fix = "give it a label under this name"
        raise MixTypeError(f"pad_batch: sample {place} is {have}, expected input_ids and label: {fix}")
    try:
        ids = np.asarray(sample["input_ids"])
    except ValueError:  # rows of different lengths
        raise MixValueError(f"pad_batch: sample {place} has several rows of ids, expected one, (T,)") from None
    if ids.ndim != 1 or not ids.size:
        raise MixValueError(f"pad_batch: sample {place} has ids of shape {ids.shape}, expected (T,), T of 1 or more")
    if ids.dtype.kind not in "iu":
        raise MixTypeError(f"pad_batch: sample {place} has ids of {ids.dtype}, expected whole numbers")
    return ids


def _label(place: int, label: Any) -> int:
    array = np.asarray(label)
    if array.shape or array.dtype.kind not in "iub":
        raise MixTypeError(
            f"pad_batch: sample {place} has the label {label!r:.60}, expected a whole number: for targets of another "
            "kind give PlanCollator a collate= of yours"
        )
    return int(array)
