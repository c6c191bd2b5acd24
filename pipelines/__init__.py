"""Mixing inside real data loading: keyed batches, collate functions, loaders, per-sample stages and sources of data.

Modules that need a package of their own are imported by name: ``mixops.pipelines.nodes`` (torchdata), ``.trainer``
(transformers) and ``.lightning_``; so is ``mixops.pipelines.text``, the pipelines for sentences.
"""

from typing import TYPE_CHECKING, Any

from .adapters import ArrayDataset, arrays, from_huggingface, from_torchvision
from .array_loader import ArrayLoader
from .collate import MixCollator, numpy_collate
from .keys import BatchKey, Keyed, KeyedBatchSampler, KeyedDataset, keyed
from .loader import MixLoader
from .plan_collate import PlanCollator
from .sources import ImageFolder, digits, image_folder, photographs, read_image
from .stages import PerSample

if TYPE_CHECKING:
    from .hidden import mix_hidden as mix_hidden

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


def __getattr__(name: str) -> Any:
    # It needs torch, and loads when it is asked for; it stays out of __all__ so that a star import does without.
    if name != "mix_hidden":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .hidden import mix_hidden

    return mix_hidden


def __dir__() -> list[str]:
    return sorted({*globals(), "mix_hidden"})
