"""What is trained: a network on words, or a checkpoint with its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixops import MixTypeError, MixValueError

from .models import TextCNN, TextLSTM, TextTransformer
from .recipes import Learner, Recipe
from .sentences import Sentences
from .settings import check_setting, setting_of, word_embedding
from .vectors import WordVectors
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import nn

#: Networks on words, by name.
NETWORKS: dict[str, Callable[[Any, int], Any]] = {"cnn": TextCNN, "lstm": TextLSTM, "transformer": TextTransformer}


class Network:
    """A network on words: its vocabulary is that of the training sentences.

    With pretrained vectors, words of the test sentences that have one are known too, as they would be to whoever keeps
    all the vectors; they are never trained on.

    Args:
        model: one of ``NETWORKS``, or a function of (embedding, classes).
        train: sentences whose words become the vocabulary.
        test: sentences whose words join it where they have a pretrained vector.
        setting: of the word vectors.
        vectors: that pretrained settings begin with.
        dim: numbers of a vector, or None.
        seed: of random vectors.

    Raises:
        MixError: if the name is unknown, or setting, vectors and dim do not fit.
    """

    recipe = Recipe()
    pad = 0

    def __init__(
        self,
        model: str | Callable[[Any, int], Any],
        train: Sentences,
        test: Sentences,
        *,
        setting: str,
        vectors: WordVectors | None,
        dim: int | None,
        seed: int,
    ) -> None:
        pretrained = setting_of(setting).pretrained
        self.make = NETWORKS[model] if isinstance(model, str) else model
        self.setting = setting
        words, met = Vocabulary.of(train.texts), []
        if pretrained and isinstance(vectors, WordVectors):  # anything else is refused below
            have = set(vectors.words)
            met = [word for word in Vocabulary.of(test.texts).words[2:] if word in have and word not in words]
        self.vocabulary = Vocabulary([*words.words[2:], *met], [*words.counts[2:], *[0] * len(met)])
        self.embedding, coverage = word_embedding(self.vocabulary, setting, vectors=vectors, dim=dim, seed=seed)
        if coverage is not None:  # of the training sentences
            coverage = replace(coverage, known_types=coverage.known_types - len(met), types=len(words) - 2)
        self.coverage, self.test_coverage = coverage, self.vocabulary.coverage(test.texts)
        self.config = {
            "model": model if isinstance(model, str) else getattr(model, "__qualname__", repr(model)),
            "setting": setting,
            "dim": self.embedding.embedding_dim,
            "vocabulary": len(self.vocabulary),
        }

    def encode(self, text: str) -> np.ndarray:
        """(T,) int64 ids of a sentence."""
        return self.vocabulary.encode(text)

    def build(self, classes: int) -> nn.Module:
        """The network, its first weights drawn from torch's generator."""
        from torch import nn

        net: Any = self.make(self.embedding, classes)
        if not isinstance(net, nn.Module):
            raise MixTypeError(f"model made {type(net).__name__} of (embedding, classes), expected a network")
        return net

    def check(self, net: nn.Module, optimizer: Any) -> None:
        """Refuse word vectors that train, or stay, against the setting, and a network that is called otherwise."""
        check_setting(net, self.setting, optimizer)
        try:
            signature(net.forward).bind(input_ids=None, attention_mask=None)
        except TypeError as error:
            raise MixTypeError(
                f"{type(net).__name__}.forward: {error}; expected to call it with input_ids= and attention_mask="
            ) from None


def learner_of(
    model: Any, train: Sentences, test: Sentences, *, setting: str, vectors: Any, dim: Any, seed: int
) -> Learner:
    """The learner that ``train_text(model=...)`` means.

    Raises:
        MixError: if it means none.
    """
    from .checkpoint import Checkpoint, checkpoint_folder

    if not isinstance(model, (str, Path)):
        if hasattr(model, "state_dict") and not isinstance(model, type):
            raise MixTypeError(
                f"model is a network already, {type(model).__name__}, expected a function that makes one: "
                "first weights are those of the seed"
            )
        if not callable(model):
            raise MixTypeError(
                f"model is {type(model).__name__}, expected one of {', '.join(NETWORKS)}, the folder of a "
                "checkpoint, or a function of (embedding, classes)"
            )
        return Network(model, train, test, setting=setting, vectors=vectors, dim=dim, seed=seed)
    if model in NETWORKS:
        return Network(str(model), train, test, setting=setting, vectors=vectors, dim=dim, seed=seed)
    folder = checkpoint_folder(model)
    if vectors is not None or dim is not None:
        raise MixValueError(f"vectors or dim with the checkpoint {model}, which has word vectors of its own")
    if setting != "RandomTune":
        raise MixValueError(
            f"setting={setting!r} with the checkpoint {model}, whose word vectors are its own and train: "
            "leave setting out"
        )
    return Checkpoint(folder, name=str(model))
