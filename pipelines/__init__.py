"""Mixing inside real data loading: keyed batches, collate functions, loaders, per-sample stages and sources of data.

``mixops.pipelines.nodes`` holds the nodes for torchdata.nodes; it is imported by name, since it needs torchdata.
"""

from .adapters import ArrayDataset, arrays, from_huggingface, from_torchvision
from .array_loader import ArrayLoader
from .collate import MixCollator, numpy_collate
from .keys import BatchKey, Keyed, KeyedBatchSampler, KeyedDataset, keyed
from .loader import MixLoader
from .sources import ImageFolder, digits, image_folder, photographs, read_image
from .stages import PerSample

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
