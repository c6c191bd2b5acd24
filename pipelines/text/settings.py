"""The four ways to begin and to train word vectors: random or pretrained, trained on (Tune) or frozen (Fix)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from mixops import MixTypeError, MixValueError, streams

from .vectors import WordVectors
from .vocabulary import Coverage, Vocabulary

if TYPE_CHECKING:
    from torch import nn

#: Random vectors are uniform from -this to this, as in Kim 2014.
SPREAD = 0.25
#: Numbers of a random vector where nothing says how many.
DIMENSION = 50
#: The stream of first vectors is that of a stage no data set reaches: it meets no draw of a stage or a plan.
_STAGE = 1 << 63


@dataclass(frozen=True)
class Setting:
    """One of the four.

    Args:
        pretrained: vectors begin as given ones, not as random numbers.
        tuned: training changes them.
    """

    pretrained: bool
    tuned: bool


#: By name, after Guo et al. 2019.
SETTINGS: dict[str, Setting] = {
    "RandomTune": Setting(pretrained=False, tuned=True),
    "RandomFix": Setting(pretrained=False, tuned=False),
    "PretrainTune": Setting(pretrained=True, tuned=True),
    "PretrainFix": Setting(pretrained=True, tuned=False),
}


def word_embedding(
    vocabulary: Vocabulary,
    setting: str,
    *,
    vectors: WordVectors | None = None,
    dim: int | None = None,
    seed: int = 0,
) -> tuple[nn.Embedding, Coverage | None]:
    """The layer that turns ids into vectors, begun and trained as the setting says.

    The row of the padding id 0 is zero and stays so: it gets no gradient, and an optimiser that starts from zero
    moments leaves a zero row where it is, weight decay or not.

    Args:
        vocabulary: the words, id 0 for padding.
        setting: "RandomTune", "RandomFix", "PretrainTune" or "PretrainFix".
        vectors: what pretrained settings begin with. Random ones take no more than its dimension from it, so that all
            four settings of a comparison have equally large models.
        dim: numbers of a vector; None: that of ``vectors``, or 50.
        seed: of the random vectors, those of words that ``vectors`` lacks among them; 0 ≤ seed < 2**64.

    Returns:
        (embedding, coverage): float32 of shape (V, D), and how many words had a pretrained vector; None in a random
        setting.

    Raises:
        MixError: if the setting is unknown, a pretrained one comes without vectors, dim is below 1 or not that of the
            vectors, vocabulary or vectors are of another kind, or the seed is out of range.

    Example:
        >>> from mixops.pipelines.text import Vocabulary, word_embedding
        >>> embedding, _ = word_embedding(Vocabulary.of(["who is it ?"]), "RandomFix", dim=8)
        >>> embedding.weight.shape, embedding.weight.requires_grad, embedding.weight[0].any().item()
        (torch.Size([6, 8]), False, False)

    Source: Guo, Mao and Zhang 2019, "Augmenting Data with Mixup for Sentence Classification: An Empirical Study". Their
    paper does not say how words without a vector begin; here they are drawn as ``WordVectors.matrix`` says.
    """
    import torch
    from torch import nn

    if not isinstance(vocabulary, Vocabulary):
        raise MixTypeError(
            f"word_embedding: got {type(vocabulary).__name__}, expected a Vocabulary: Vocabulary.of(texts)"
        )
    chosen = setting_of(setting)
    rng = streams.sample_stream(seed, 0, 0, _STAGE)
    size = _dimension(setting, chosen, vectors, dim)
    coverage = None
    if chosen.pretrained and vectors is not None:
        matrix, coverage = vectors.matrix(vocabulary, rng)
    else:
        matrix = rng.uniform(-SPREAD, SPREAD, (len(vocabulary), size)).astype(np.float32)
        matrix[0] = 0
    rows, size = matrix.shape
    embedding = nn.Embedding(rows, size, padding_idx=0, _weight=torch.from_numpy(matrix), _freeze=not chosen.tuned)
    return embedding, coverage


def setting_of(name: str) -> Setting:
    """The setting of this name, or a MixError that lists them."""
    if not isinstance(name, str):
        raise MixTypeError(f"setting={name!r}: expected one of {', '.join(SETTINGS)}")
    if name not in SETTINGS:
        close = get_close_matches(name.lower(), {s.lower(): s for s in SETTINGS}, 1, 0.5)
        meant = [s for s in SETTINGS if s.lower() in close]
        hint = f"did you mean {meant[0]}? " if meant else ""
        raise MixValueError(f"setting={name!r}: {hint}expected one of {', '.join(SETTINGS)}")
    return SETTINGS[name]


def check_setting(model: Any, setting: str, optimizer: Any = None) -> None:
    """Refuse a model whose word vectors would not be trained, or not stay, as the setting says.

    Args:
        model: with its word vectors as ``model.embedding``, or found by ``model.get_input_embeddings()``.
        setting: one of ``SETTINGS``.
        optimizer: that trains the model, of torch; None looks at the model alone.

    Raises:
        MixError: if the model has no such layer, a frozen setting's vectors require gradients or are a parameter of the
            optimiser, a tuned one's are frozen or no parameter of it, or the vectors of the padding id are not zero.

    Example:
        >>> from torch import nn
        >>> model = nn.Module()
        >>> model.embedding = nn.Embedding(4, 2, padding_idx=0)
        >>> check_setting(model, "RandomTune")
    """
    chosen = setting_of(setting)
    embedding = _embedding_of(model)
    weight = embedding.weight
    if weight.requires_grad and not chosen.tuned:
        raise MixValueError(
            f"{setting}: the word vectors still train: freeze them, model.embedding.weight.requires_grad_(False), or "
            f"choose {setting.replace('Fix', 'Tune')}"
        )
    if not weight.requires_grad and chosen.tuned:
        raise MixValueError(
            f"{setting}: the word vectors are frozen: model.embedding.weight.requires_grad_(True), or choose "
            f"{setting.replace('Tune', 'Fix')}"
        )
    if optimizer is not None:
        trained = any(p is weight for p in _parameters(optimizer))
        if trained and not chosen.tuned:
            raise MixValueError(
                f"{setting}: the word vectors are frozen, but the optimiser holds them and may decay them: give it "
                "only what trains, [p for p in model.parameters() if p.requires_grad]"
            )
        if not trained and chosen.tuned:
            raise MixValueError(
                f"{setting}: the optimiser does not hold the word vectors, so they would never train: make it from "
                "model.parameters(), after the embedding is in its place"
            )
    padding = embedding.padding_idx
    if padding is None or bool(weight[padding].any()):
        raise MixValueError(
            f"{setting}: padding_idx={padding}, expected a padding row of zeros: make the layer with word_embedding(), "
            "or nn.Embedding(..., padding_idx=0)"
        )


def _embedding_of(model: Any) -> Any:
    from torch import nn

    found = getattr(model, "embedding", None)
    if found is None and hasattr(model, "get_input_embeddings"):
        found = model.get_input_embeddings()
    if not isinstance(found, nn.Embedding):
        raise MixTypeError(
            f"check_setting: {type(model).__name__} has no nn.Embedding as .embedding and none from "
            "get_input_embeddings(): expected the model's word vectors in one of the two"
        )
    return found


def _parameters(optimizer: Any) -> Iterable[Any]:
    return (p for group in optimizer.param_groups for p in group["params"])


def _dimension(name: str, setting: Setting, vectors: Any, dim: Any) -> int:
    if vectors is not None and not isinstance(vectors, WordVectors):
        raise MixTypeError(f"{name}: vectors is {type(vectors).__name__}, expected word_vectors(...)")
    held = None if vectors is None else int(vectors.array.shape[1])
    if setting.pretrained and held is None:
        raise MixValueError(
            f"{name} without vectors: pass vectors=word_vectors(...) of a GloVe file, say, or choose "
            f"{name.replace('Pretrain', 'Random')}"
        )
    try:
        size = (held or DIMENSION) if dim is None else index(dim)
    except TypeError:
        raise MixTypeError(f"{name}: dim={dim!r}, expected a whole number of 1 or more") from None
    if size < 1:
        raise MixValueError(f"{name}: dim={dim!r}, expected a whole number of 1 or more")
    if setting.pretrained and size != held:
        raise MixValueError(f"{name}: dim={dim!r}, but the vectors have {held} numbers each: leave dim out")
    return size
