"""Taggers: a small network or a checkpoint, trained on tagged and on mixed sentences, and scores of entities."""

from __future__ import annotations

from typing import Any

from .forms import forms_of
from .scores import EntityScores, TypeScores, entity_scores

__all__ = ["EntityScores", "TypeScores", "entity_scores", "forms_of"]

# These need torch: they load when asked for, and stay out of __all__ so that a star import does without it.
_LAZY = {
    "Tagger": "training",
    "TaggerLSTM": "models",
    "TaggerRun": "training",
    "likeliest": "training",
    "predict_tags": "training",
    "soft_cross_entropy": "batches",
    "train_tagger": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
