"""TMix as its authors' encoder computes it, and a BERT encoder to run it on: formulas on tensors, nothing else.

Two streams, the rows and their partners, go through the lower layers side by side; the states are blended after one
layer, and a single stream goes on. It shares no code with ``mix_hidden`` or with the forward passes of transformers.

Source: Chen, Yang, Yang, "MixText: Linguistically-Informed Interpolation of Hidden Space for Semi-Supervised Text
Classification", ACL 2020, section 3, and the encoder of its code, which counts layers from 0 and calls the embeddings
-1. There all masks are open; here they are arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

#: Maps states (B, T, D) and a mask of what may be attended to, in whatever form it takes, to states (B, T, D).
Layer = Callable[[Tensor, Any], Tensor]


def two_streams(
    layers: Sequence[Layer],
    own: Tensor,
    other: Tensor,
    lam: Tensor,
    mix_layer: int,
    own_mask: Any,
    other_mask: Any,
    mixed_mask: Any,
) -> Tensor:
    """The last states of a stack of layers in which two streams become one after ``mix_layer``.

    Args:
        layers: the L layers.
        own: (B, T, D) embeddings of the rows.
        other: (B, T, D) embeddings of the partners.
        lam: the own share, of a shape that broadcasts against the states: () or (B, 1, 1).
        mix_layer: from -1 (the embeddings are blended) to L - 1 (the last states are).
        own_mask: what the layers up to ``mix_layer`` take beside the rows.
        other_mask: what they take beside the partners.
        mixed_mask: what the later layers take.

    Returns:
        (B, T, D) states, after L + mix_layer + 1 calls of a layer.
    """
    for layer in layers[: mix_layer + 1]:
        own, other = layer(own, own_mask), layer(other, other_mask)
    mixed = lam * own + (1 - lam) * other
    for layer in layers[mix_layer + 1 :]:
        mixed = layer(mixed, mixed_mask)
    return mixed


def bert_layers(weights: Mapping[str, Tensor], layers: int, heads: int, eps: float) -> list[Layer]:
    """The layers of a BERT; each takes states and (B, T) bool, True where a position may be attended to.

    Args:
        weights: by the names that ``BertModel.named_parameters()`` gives them.
        layers: how many there are.
        heads: of the attention.
        eps: of the normalisation.
    """
    every = [
        {name.removeprefix(f"encoder.layer.{k}."): w for name, w in weights.items() if f"layer.{k}." in name}
        for k in range(layers)
    ]
    return [partial(_layer, w, heads, eps) for w in every]


def bert_embeddings(weights: Mapping[str, Tensor], ids: Tensor, eps: float) -> Tensor:
    """(B, T, D): word, place and first segment, added and normalised. The word of id 0, padding, is not trained.

    Args: see ``bert_layers``; ids (B, T) int64.
    """
    word, place, segment = (weights[f"embeddings.{of}_embeddings.weight"] for of in ("word", "position", "token_type"))
    words = torch.where((ids == 0)[..., None], word.detach()[ids], word[ids])
    return _normalised(weights, "embeddings.LayerNorm", words + place[: ids.shape[1]] + segment[0], eps)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the rows of -Σ_c targets[n, c]·log softmax(logits[n])_c."""
    return -(targets * (logits - _log_sum(logits))).sum(1).mean()


def _layer(weights: Mapping[str, Tensor], heads: int, eps: float, states: Tensor, visible: Tensor) -> Tensor:
    attended = _affine(weights, "attention.output.dense", _attention(weights, heads, states, visible))
    states = _normalised(weights, "attention.output.LayerNorm", attended + states, eps)
    inner = _affine(weights, "intermediate.dense", states)
    inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
    return _normalised(weights, "output.LayerNorm", _affine(weights, "output.dense", inner) + states, eps)


def _attention(weights: Mapping[str, Tensor], heads: int, states: Tensor, visible: Tensor) -> Tensor:
    q, k, v = (_affine(weights, f"attention.self.{name}", states) for name in ("query", "key", "value"))
    size = states.shape[2] // heads
    parts = []
    for at in range(0, heads * size, size):
        scores = torch.einsum("bqd,bkd->bqk", q[..., at : at + size], k[..., at : at + size]) / math.sqrt(size)
        scores = scores.masked_fill(~visible[:, None, :], -math.inf)
        parts.append(torch.einsum("bqk,bkd->bqd", (scores - _log_sum(scores)).exp(), v[..., at : at + size]))
    return torch.cat(parts, 2)


def _affine(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return torch.einsum("btd,ed->bte", x, weights[f"{name}.weight"]) + weights[f"{name}.bias"]


def _normalised(weights: Mapping[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _log_sum(x: Tensor) -> Tensor:
    top = x.amax(-1, keepdim=True)
    return top + (x - top).exp().sum(-1, keepdim=True).log()
