"""Text classification: sentences, words, word vectors and batches; models and training load when they are asked for."""

from __future__ import annotations

from typing import Any

from .buckets import BucketBatchSampler, padding_share
from .edits import AEDA, EDA, NearestWords
from .padding import pad_batch
from .sentences import Sentences, read_sentences
from .stages import TokenizeStage, text_stage
from .tokenized import TokenizedSentences
from .vectors import WordVectors, word_vectors
from .views import DrawnViews, Views, read_views
from .vocabulary import Coverage, Vocabulary, tokenize

__all__ = [
    "AEDA",
    "EDA",
    "BucketBatchSampler",
    "Coverage",
    "DrawnViews",
    "NearestWords",
    "Sentences",
    "TokenizeStage",
    "TokenizedSentences",
    "Views",
    "Vocabulary",
    "WordVectors",
    "pad_batch",
    "padding_share",
    "read_sentences",
    "read_views",
    "text_stage",
    "tokenize",
    "word_vectors",
]

# These need torch: they load when asked for, and stay out of __all__ so that a star import does without it.
_LAZY = {
    "SETTINGS": "settings",
    "SemiRun": "semi_training",
    "TextCNN": "models",
    "TextLSTM": "models",
    "TextRun": "training",
    "TextTransformer": "models",
    "train_mixtext": "semi_training",
    "train_text": "training",
    "word_embedding": "settings",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
