"""A small network that tags words: what a word means, how it is spelt, and an LSTM in both directions over them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixops import MixTypeError, MixValueError

from ..text.models import LSTMBlock
from .forms import CHARACTERS, SHAPES


class TaggerLSTM(nn.Module):
    """Word vector, shape and characters of each word, an LSTM in both directions, then a Linear for every word.

    What a sentence gives depends on the sentence, never on how far its batch is padded.

    Args:
        embedding: word ids to vectors; the row of the padding id is zero.
        tags: logits for each word, 2 or more.
        hidden: numbers of a state, for each direction.
        shape_dim: numbers that say how a word is written: capitals, digits, signs.
        char_dim: numbers of a character.
        filters: of the convolution over three characters, whose maxima over the word are taken.
        dropout: on what the LSTM takes and on what it gives, in [0, 1).

    Raises:
        MixError: if embedding is no nn.Embedding with a zero padding row, or a number is out of range.

    Example:
        >>> from mixops.pipelines.tagging import forms_of
        >>> model = TaggerLSTM(nn.Embedding(9, 4, padding_idx=0), tags=3)
        >>> shapes, chars = forms_of(["Ann", "sings"])
        >>> model(torch.tensor([[5, 2]]), torch.tensor(shapes)[None], torch.tensor(chars)[None]).shape
        torch.Size([1, 2, 3])

    Source: after Ma and Hovy 2016, "End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF", without its CRF:
    each word has probabilities of its own, which soft tags and queries of active learning ask for.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        tags: int,
        *,
        hidden: int = 100,
        shape_dim: int = 8,
        char_dim: int = 16,
        filters: int = 32,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        _check(embedding, dropout, tags=tags, hidden=hidden, shape_dim=shape_dim, char_dim=char_dim, filters=filters)
        self.embedding = embedding
        self.shapes = nn.Embedding(SHAPES, shape_dim, padding_idx=0)
        self.characters = nn.Embedding(CHARACTERS, char_dim, padding_idx=0)
        self.convolution = nn.Conv1d(char_dim, filters, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.reader = LSTMBlock(embedding.embedding_dim + shape_dim + filters, hidden, bidirectional=True)
        self.head = nn.Linear(2 * hidden, tags)

    def forward(self, input_ids: Tensor, shapes: Tensor, chars: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T, C) logits of (B, T) word ids, (B, T) shapes and (B, T, W) characters; the mask is 1 at real words."""
        b, t, width = chars.shape
        spelt = self.characters(chars.reshape(b * t, width)).transpose(1, 2)
        spelling = F.relu(self.convolution(spelt).amax(2)).view(b, t, -1)
        words = torch.cat([self.embedding(input_ids), self.shapes(shapes), spelling], 2)
        return self.head(self.dropout(self.reader(self.dropout(words), attention_mask)))


def _check(embedding: Any, dropout: float, **counts: int) -> None:
    if not isinstance(embedding, nn.Embedding):
        raise MixTypeError(f"TaggerLSTM: embedding is {type(embedding).__name__}, expected torch.nn.Embedding")
    padding = embedding.padding_idx
    if padding is None or bool(embedding.weight[padding].any()):
        raise MixValueError(
            f"TaggerLSTM: padding_idx={padding}, expected the row of the padding id to be zero: word_embedding() makes "
            "such an embedding, as does nn.Embedding(..., padding_idx=0)"
        )
    for name, value in counts.items():
        least = 2 if name == "tags" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise MixValueError(f"TaggerLSTM: {name}={value!r}, expected a whole number of {least} or more")
    if not 0 <= dropout < 1:
        raise MixValueError(f"TaggerLSTM: dropout={dropout!r}, expected 0 <= dropout < 1")
