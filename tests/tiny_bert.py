"""A tiny BERT, sentences for it to learn, and what the tests of trainings ask of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from real_peers import torchvision_schemas

torchvision_schemas()  # transformers imports torchvision where it is installed

from transformers import BertConfig, BertForSequenceClassification  # noqa: E402

CLASSES, ROWS, LENGTH, WORDS = 4, 22, 6, 40


def bert(dropout: float = 0.0, num_labels: int = CLASSES, kind: Any = BertForSequenceClassification) -> Any:
    """Three blocks with random weights, always the same."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=num_labels,
    )
    return kind(config)


def sentences(count: int = ROWS, label: Callable[[np.ndarray], Any] | None = None) -> list[dict[str, Any]]:
    """Padded rows whose class is the class of their first token."""
    rng = np.random.Generator(np.random.PCG64(3))
    rows = []
    for i in range(count):
        length = 2 + i % (LENGTH - 1)
        ids = np.zeros(LENGTH, np.int64)
        ids[:length] = rng.integers(1, WORDS, length)
        mask = torch.from_numpy((ids > 0).astype(np.int64))
        labels = int(ids[0]) % CLASSES if label is None else label(ids)
        rows.append({"input_ids": torch.from_numpy(ids), "attention_mask": mask, "labels": labels})
    return rows


def weights(model: Any) -> dict[str, torch.Tensor]:
    """Copies of all parameters."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Are they the same parameters, up to rounding?"""
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=1e-5, atol=1e-6) for k in a)


def hooks(model: Any) -> int:
    """How many hooks there are on all modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
