"""Small networks for sentences: a CNN, an LSTM and a transformer, made to be mixed at any of their layers.

Each is called ``model(input_ids=..., attention_mask=...)`` and gives logits. Its first module is ``embedding`` and its
last Linear ``head``, so a plan's layer can be "words" (what the embedding puts out) or "sentence" (what the head
takes). All that need the attention mask are members of ``blocks``, the pooling too: it reaches each of them as an
argument, so whoever mixes at "hidden:k" can give the later ones the mask of the mixed sentences.

What a sentence gives depends on the sentence, never on how far its batch is padded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixops import MixTypeError, MixValueError


class TextCNN(nn.Module):
    """A layer of convolutions over the words and the maximum over time: relu(max_t (w * x)[t] + b), then a Linear.

    A sentence lies between zero vectors, as padding is zero vectors, so the maximum is 0 or more: a window that holds
    no word gives 0. This is the sentence padded without end; no mask is needed.

    Args:
        embedding: ids to vectors; the row of the padding id is zero.
        classes: logits, 1 or more.
        widths: words that a filter spans, for each group of filters.
        filters: of each width.
        dropout: on what the head takes, in [0, 1).

    Raises:
        MixError: if embedding is no nn.Embedding with a zero padding row, or a number is out of range.

    Example:
        >>> model = TextCNN(nn.Embedding(9, 4, padding_idx=0), classes=3)
        >>> model(torch.tensor([[5, 2, 7, 0]])).shape
        torch.Size([1, 3])

    Source: Kim 2014, "Convolutional Neural Networks for Sentence Classification"; without its bound on the norm of the
    head's weights.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        classes: int,
        *,
        widths: Sequence[int] = (3, 4, 5),
        filters: int = 100,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        dim = _check(owner, embedding, dropout, classes=classes, filters=filters)
        widths = list(widths)
        if not widths or not all(isinstance(w, int) and w > 0 for w in widths):
            raise MixValueError(f"{owner}: widths={widths!r}, expected whole numbers of 1 or more")
        self.embedding = embedding
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, filters, w, padding=w - 1, bias=False) for w in widths)
        self.bias = nn.Parameter(torch.zeros(len(widths) * filters))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(len(widths) * filters, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, C) logits of (B, T) ids; the mask is taken for the sake of the others, and not needed."""
        words = self.embedding(input_ids).transpose(1, 2)
        highest = torch.cat([convolution(words).amax(2) for convolution in self.convolutions], 1)
        return self.head(self.dropout(F.relu(highest.clamp(min=0) + self.bias)))


class TextLSTM(nn.Module):
    """An LSTM over the words, in both directions or one, and the mean or the last of its states, then a Linear.

    Args:
        embedding: ids to vectors; the row of the padding id is zero.
        classes: logits, 1 or more.
        hidden: numbers of a state, for each direction.
        bidirectional: read from the end too.
        pool: "mean" over the real words, or "last": what each direction has read when it is through.
        dropout: on the words and on what the head takes, in [0, 1).

    Raises:
        MixError: if embedding is no nn.Embedding with a zero padding row, pool is unknown, or a number is out of range.

    Example:
        >>> model = TextLSTM(nn.Embedding(9, 4, padding_idx=0), classes=3)
        >>> model(torch.tensor([[5, 2, 0]]), torch.tensor([[1, 1, 0]])).shape
        torch.Size([1, 3])
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        classes: int,
        *,
        hidden: int = 100,
        bidirectional: bool = True,
        pool: str = "mean",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        dim = _check(owner, embedding, dropout, classes=classes, hidden=hidden)
        if pool not in ("mean", "last"):
            raise MixValueError(f"{owner}: pool={pool!r}, expected 'mean' or 'last'")
        self.embedding = embedding
        self.dropout = nn.Dropout(dropout)
        reader = LSTMBlock(dim, hidden, bidirectional)
        self.blocks = nn.ModuleList([reader, MeanPool() if pool == "mean" else LastPool(hidden)])
        self.head = nn.Linear(hidden * (1 + bidirectional), classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, C) logits of (B, T) ids; attention_mask (B, T) is 1 at real words, None where all are."""
        states = self.dropout(self.embedding(input_ids))
        for block in self.blocks:
            states = block(states, attention_mask)
        return self.head(self.dropout(states))


class TextTransformer(nn.Module):
    """A few transformer layers over the words and the mean over the real ones, then a Linear.

    Args:
        embedding: ids to vectors; the row of the padding id is zero.
        classes: logits, 1 or more.
        width: numbers of a hidden state, an even multiple of heads; a Linear without bias brings the words to it.
        layers: of attention and feed-forward, 1 or more.
        heads: of attention.
        dropout: on the words, each layer's additions and what the head takes, in [0, 1).

    Raises:
        MixError: if embedding is no nn.Embedding with a zero padding row, or a number is out of range.

    Example:
        >>> model = TextTransformer(nn.Embedding(9, 4, padding_idx=0), classes=3)
        >>> model(torch.tensor([[5, 2, 0]]), torch.tensor([[1, 1, 0]])).shape
        torch.Size([1, 3])
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        classes: int,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        dim = _check(owner, embedding, dropout, classes=classes, width=width, layers=layers, heads=heads)
        if width % (2 * heads):
            raise MixValueError(f"{owner}: width={width} for {heads} heads, expected a multiple of {2 * heads}")
        self.embedding = embedding
        self.project = nn.Linear(dim, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        blocks: list[nn.Module] = [TransformerBlock(width, heads, dropout) for _ in range(layers)]
        self.blocks = nn.ModuleList([*blocks, MeanPool()])
        self.head = nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, C) logits of (B, T) ids; attention_mask (B, T) is 1 at real words, None where all are."""
        states = self.project(self.embedding(input_ids))
        states = self.dropout(states + _positions(states))
        for block in self.blocks:
            states = block(states, attention_mask)
        return self.head(self.dropout(states))


# -- members of blocks: forward(states, attention_mask) ---------------------------------------------------------------


class LSTMBlock(nn.Module):
    """An LSTM in one direction or both; the one from the end begins at a sentence's last real word, not in padding."""

    def __init__(self, dim: int, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.forwards = nn.LSTM(dim, hidden, batch_first=True)
        self.backwards = nn.LSTM(dim, hidden, batch_first=True) if bidirectional else None

    def forward(self, states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T, hidden x directions) of (B, T, D)."""
        onward = self.forwards(states)[0]
        if self.backwards is None:
            return onward
        # Two one-way LSTMs on sentences turned within their length take three quarters of the time of a packed one.
        turned = _turned(states, attention_mask)
        backward = self.backwards(_picked(states, turned))[0]
        return torch.cat([onward, _picked(backward, turned)], 2)


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each added to what came in and normalised before."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before_attention, self.before_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_in, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T, width) of (B, T, width)."""
        b, t, width = states.shape
        parts = self.attention_in(self.before_attention(states)).view(b, t, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        met = F.scaled_dot_product_attention(query, key, value, seen).transpose(1, 2).reshape(b, t, width)
        states = states + F.dropout(self.attention_out(met), self.dropout, self.training)
        return states + F.dropout(self.feed_forward(self.before_forward(states)), self.dropout, self.training)


class MeanPool(nn.Module):
    """The mean of the states of the real words."""

    def forward(self, states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, D) of (B, T, D)."""
        if attention_mask is None:
            return states.mean(1)
        share = attention_mask.to(states.dtype)
        return torch.bmm((share / share.sum(1, keepdim=True)).unsqueeze(1), states).squeeze(1)


class LastPool(nn.Module):
    """The last state of each direction: at a sentence's last real word, and at its first for the one from the end."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, D) of (B, T, D)."""
        rows = torch.arange(len(states), device=states.device)
        last = states[rows, _lengths(states, attention_mask) - 1, : self.hidden]
        return torch.cat([last, states[:, 0, self.hidden :]], 1)


# -- their arithmetic -------------------------------------------------------------------------------------------------


def _lengths(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    """(B,) places up to the last real word."""
    count = states.shape[1]
    places = torch.arange(1, count + 1, device=states.device)
    return places[-1].expand(len(states)) if attention_mask is None else (attention_mask.bool() * places).amax(1)


def _turned(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    """(B, T) where each place of a sentence lies in the sentence turned round; padding stays where it is."""
    places = torch.arange(states.shape[1], device=states.device)
    opposite = _lengths(states, attention_mask)[:, None] - 1 - places
    return torch.where(opposite >= 0, opposite, places)


def _picked(states: Tensor, places: Tensor) -> Tensor:
    return states.gather(1, places[:, :, None].expand(-1, -1, states.shape[2]))


def _positions(states: Tensor) -> Tensor:
    """(T, D) sines and cosines of the place, of wavelengths from 2π to 2π·10,000."""
    count, width = states.shape[1:]
    rate = torch.exp(torch.arange(0, width, 2, device=states.device) * (-math.log(10_000.0) / width))
    angle = torch.arange(count, device=states.device)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], 1).to(states.dtype)


def _check(owner: str, embedding: Any, dropout: float, **counts: int) -> int:
    """Refuse what would fail later or train otherwise than said; the vectors' dimension."""
    if not isinstance(embedding, nn.Embedding):
        raise MixTypeError(f"{owner}: embedding is {type(embedding).__name__}, expected torch.nn.Embedding")
    padding = embedding.padding_idx
    if padding is None or bool(embedding.weight[padding].any()):
        raise MixValueError(
            f"{owner}: padding_idx={padding}, expected the row of the padding id to be zero: word_embedding() makes "
            "such an embedding, as does nn.Embedding(..., padding_idx=0)"
        )
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise MixValueError(f"{owner}: {name}={value!r}, expected a whole number of 1 or more")
    if not 0 <= dropout < 1:
        raise MixValueError(f"{owner}: dropout={dropout!r}, expected 0 <= dropout < 1")
    return embedding.embedding_dim
