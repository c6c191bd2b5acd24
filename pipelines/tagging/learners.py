"""What tags words: a network on word vectors, or a checkpoint of Hugging Face's form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mixops import MixTypeError, MixValueError

from ..text.checkpoint import PACKAGE, Checkpoint
from ..text.recipes import Recipe
from ..text.settings import word_embedding
from ..text.vectors import WordVectors
from ..text.vocabulary import PADDING, UNKNOWN, Vocabulary
from .forms import forms_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class Encoded:
    """A sentence as a network takes it.

    Args:
        inputs: name of an argument -> (T,) or (T, W) whole numbers; a mask of the T positions is made of their length.
        places: (n,) for each word the position whose logits are the word's; -1 for words that were cut off.
    """

    inputs: dict[str, np.ndarray]
    places: np.ndarray


class TagLearner(Protocol):
    """What ``train_tagger`` asks of that which it trains."""

    recipe: Recipe
    config: dict[str, Any]
    #: Name of an input -> what fills it behind a sentence.
    fills: dict[str, int]

    def encode(self, tokens: Sequence[str]) -> Encoded:
        """A sentence of one token or more."""

    def build(self, classes: int) -> nn.Module:
        """The network, its first weights drawn from torch's generator."""


def one_word(text: str) -> list[str]:
    """A text as the one word that it is: words of a tagged sentence are split already."""
    return [text]


class WordTagger:
    """``TaggerLSTM`` on word vectors.

    With pretrained vectors these stay as they are, and the network knows every word that has one: as written, else in
    lower case. Without, vectors begin at random, are trained, and it knows the words of the training sentences, in
    lower case.

    Args:
        sentences: tokens of the training sentences.
        vectors: pretrained ones, or None.
        seed: of random vectors.
    """

    recipe = Recipe(epochs=20, batch_size=16, lr=3e-3, clip=5.0)
    fills: dict[str, int] = {"input_ids": 0, "shapes": 0, "chars": 0}  # noqa: RUF012

    def __init__(self, sentences: Iterable[Sequence[str]], vectors: WordVectors | None, seed: int) -> None:
        if vectors is None:
            words = (token.lower() for tokens in sentences for token in tokens)
            self.vocabulary = Vocabulary.of(words, tokenize=one_word)
        elif isinstance(vectors, WordVectors):
            # Some files hold rows of these names; the vocabulary has its own.
            known = [word for word in vectors.words if word and word not in (PADDING, UNKNOWN)]
            self.vocabulary = Vocabulary(known, tokenize=one_word)
        else:
            raise MixTypeError(f"train_tagger: vectors is {type(vectors).__name__}, expected word_vectors(...)")
        self.setting = "RandomTune" if vectors is None else "PretrainFix"
        self.embedding, _ = word_embedding(self.vocabulary, self.setting, vectors=vectors, seed=seed)
        self.config: dict[str, Any] = {
            "model": "lstm",
            "setting": self.setting,
            "dim": self.embedding.embedding_dim,
            "vocabulary": len(self.vocabulary),
        }

    def encode(self, tokens: Sequence[str]) -> Encoded:
        """Ids, shapes and characters of the words."""
        shapes, chars = forms_of(tokens)
        known = [word if word in self.vocabulary else word.lower() for word in tokens]
        ids = np.concatenate([self.vocabulary.encode(word) for word in known])
        return Encoded({"input_ids": ids, "shapes": shapes, "chars": chars}, np.arange(len(ids)))

    def build(self, classes: int) -> nn.Module:
        """The network."""
        from .models import TaggerLSTM

        return TaggerLSTM(self.embedding, classes)


class CheckpointTagger(Checkpoint):
    """A token classifier from a folder of Hugging Face's form; the first piece of a word speaks for the word."""

    recipe = Recipe(epochs=10, batch_size=32, lr=5e-5, warmup=0.1, clip=1.0)
    kind, auto = "token classifier", "AutoModelForTokenClassification"

    def __init__(self, folder: str | Path, *, longest: int = 256, name: str | None = None) -> None:
        super().__init__(folder, longest=longest, name=name)
        if not self.tokenizer.is_fast:
            raise MixValueError(
                f"{self.folder}: its tokenizer does not tell which word a piece is of, expected a fast one: "
                "tokenizer.json in the folder"
            )
        self.fills = {"input_ids": self.pad, "token_type_ids": 0}

    def encode(self, text: Any) -> Any:
        """Ids of the pieces of a sentence's words, and the place of each word's first piece."""
        encoding = self.tokenizer(list(text), is_split_into_words=True, truncation=True, max_length=self.longest)
        words = np.array([-1 if word is None else word for word in encoding.word_ids()])
        places = np.full(len(text), -1)
        found, first = np.unique(words, return_index=True)
        places[found[found >= 0]] = first[found >= 0]
        kept = {name: np.array(encoding[name], np.int64) for name in self.fills if name in encoding}
        return Encoded(kept, places)


def tag_learner(model: Any, sentences: Iterable[Sequence[str]], vectors: Any, seed: int) -> TagLearner:
    """The learner that ``train_tagger(model=...)`` means.

    Raises:
        MixError: if it means none.
    """
    if not isinstance(model, (str, Path)):
        raise MixTypeError(
            f'train_tagger: model is {type(model).__name__}, expected "lstm", the folder of a checkpoint, or '
            '"package:NAME"'
        )
    if model == "lstm":
        return WordTagger(sentences, vectors, seed)
    if not str(model).startswith(PACKAGE) and not (Path(model) / "config.json").is_file():
        raise MixValueError(
            f'train_tagger: model={str(model)!r}, expected "lstm", a folder with config.json, weights and a tokenizer, '
            'or "package:NAME"'
        )
    if vectors is not None:
        raise MixValueError(f"train_tagger: vectors with the checkpoint {model}, which has word vectors of its own")
    return CheckpointTagger(model, name=str(model))
