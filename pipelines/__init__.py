"""Mixing inside real data loading: keyed batches, collate functions, loaders, per-sample stages and sources of data.

Modules that need a package of their own are imported by name: ``mixops.pipelines.nodes`` (torchdata), ``.trainer``
(transformers), ``.lightning_``, ``.tf_``, ``.keras_``, ``.ray_``, ``.streaming`` (WebDataset, Hugging Face),
``.exchange`` (torch.distributed) and ``.drop_in``; so is ``mixops.pipelines.text``, the pipelines for sentences.
"""

from typing import TYPE_CHECKING, Any

from .adapters import ArrayDataset, arrays, from_huggingface, from_torchvision
from .array_loader import ArrayLoader
from .collate import MixCollator, numpy_collate
from .keyed_data import KeyedDataset, keyed
from .keys import BatchKey, Keyed, KeyedBatchSampler
from .loader import MixLoader
from .plan_collate import PlanCollator
from .sources import ImageFolder, digits, image_folder, photographs, read_image
from .stages import PerSample

if TYPE_CHECKING:
    from .corpus.generate import augment_corpus as augment_corpus
    from .hidden import mix_hidden as mix_hidden
    from .saliency import attention_saliency as attention_saliency
    from .saliency import embedding_saliency as embedding_saliency
    from .semi import MixText as MixText
    from .ssmix import ssmix_backward as ssmix_backward
    from .ssmix import ssmix_loss as ssmix_loss

__all__ = [
    "ArrayDataset",
    "ArrayLoader",
    "BatchKey",
    "ImageFolder",
    "Keyed",
    "KeyedBatchSampler",
    "KeyedDataset",
    "MixCollator",
    "MixLoader",
    "PerSample",
    "PlanCollator",
    "arrays",
    "digits",
    "from_huggingface",
    "from_torchvision",
    "image_folder",
    "keyed",
    "numpy_collate",
    "photographs",
    "read_image",
]


# These load when they are asked for, most of them with torch; they stay out of __all__ so that a star import does
# without it.
_LAZY = {
    "MixText": "semi",
    "attention_saliency": "saliency",
    "augment_corpus": "corpus.generate",
    "embedding_saliency": "saliency",
    "mix_hidden": "hidden",
    "ssmix_backward": "ssmix",
    "ssmix_loss": "ssmix",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
