"""Data sets that hand the key of a batch of indices on to its samples, and know of stages for single samples."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import Any

from mixops import MixTypeError, MixValueError

from .keys import Keyed
from .state import described


class KeyedDataset:
    """A map-style data set that hands the key of a batch of indices on to the batch of samples. See keyed()."""

    def __init__(self, dataset: Any, stage: Any = None) -> None:
        if not hasattr(dataset, "__getitem__"):
            raise MixTypeError(
                f"keyed: {type(dataset).__name__} has no indexing, expected a map-style data set; for a stream use "
                "MixLoader"
            )
        stages = () if stage is None else tuple(stage) if isinstance(stage, Sequence) else (stage,)
        for one in stages:
            _check_stage(one)
        self.dataset, self.stages = dataset, stages

    def __repr__(self) -> str:
        stages = f", stage={list(self.stages)!r}" if self.stages else ""
        return f"keyed({described(self.dataset)}{stages})"

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        """A single sample: without stages; with them it needs an epoch, see sample()."""
        if self.stages:
            raise MixValueError(
                f"keyed: index {index!r} came without its epoch, which the stages need: use "
                "batch_sampler=KeyedBatchSampler(...) in the DataLoader, or sample(index, epoch) to look at one"
            )
        return self.dataset[index]

    def __getitems__(self, batch: Sequence[Any]) -> list[Any]:
        """The samples of a batch of indices, after the stages, with the key of that batch if it has one."""
        key = getattr(batch, "key", None)
        if key is None and self.stages:
            return [self[index] for index in batch]  # refused there
        fetch = getattr(self.dataset, "__getitems__", None)
        samples = list(fetch(list(batch))) if callable(fetch) else [self.dataset[index] for index in batch]
        if key is None:
            return samples
        return Keyed((self._staged(s, i, key.epoch) for s, i in zip(samples, batch, strict=True)), key)

    def sample(self, index: Any, epoch: int = 0) -> Any:
        """One sample as a batch of this epoch would hold it."""
        return self._staged(self.dataset[index], index, epoch)

    def _staged(self, sample: Any, index: Any, epoch: int) -> Any:
        for place, stage in enumerate(self.stages):
            sample = stage(sample, epoch, index, place)
        return sample


def _check_stage(stage: Any) -> None:
    """Refuse what is no ``stage(sample, epoch, index, place)``, a transform of a sample above all."""
    fix = "expected PerSample(fn, seed), or a list of them: it calls fn(sample) with keyed random numbers"
    if not callable(stage):
        raise MixTypeError(f"keyed: stage {stage!r} is no callable, {fix}")
    # Modules are transforms: their call hides what forward takes, which may be any number of samples.
    torch = sys.modules.get("torch")
    transform = torch is not None and isinstance(stage, torch.nn.Module)
    transform = transform or hasattr(stage, "set_random_state") or hasattr(stage, "set_random_seed")  # albumentations
    try:
        inspect.signature(stage).bind(None, 0, 0, 0)
    except TypeError:
        transform = True
    except ValueError:  # some callables written in C tell no signature
        pass
    if transform:
        name = getattr(stage, "__name__", type(stage).__name__)
        raise MixTypeError(f"keyed: stage {name} does not take (sample, epoch, index, place): {fix}")


def keyed(dataset: Any, stage: Any = None) -> KeyedDataset:
    """Wrap a map-style data set: collate_fn then learns the key of its batch, and stages see (epoch, index).

    Args:
        dataset: with ``__getitem__``, and ``__getitems__`` if it can fetch a batch at once. Wrap it last: a Subset
            around this would lose the key.
        stage: PerSample, or a list of them, applied in order; any callable ``stage(sample, epoch, index, place)``.

    Returns:
        A KeyedDataset: for a DataLoader with ``batch_sampler=KeyedBatchSampler(...)``.

    Raises:
        MixError: if the data set cannot be indexed, or a stage cannot be called with these four.

    Example:
        >>> from mixops.pipelines import KeyedBatchSampler
        >>> batch = next(iter(KeyedBatchSampler(range(3), 2)))
        >>> samples = keyed(["a", "b", "c"]).__getitems__(batch)
        >>> samples, samples.key.step
        (['a', 'b'], 0)
    """
    return KeyedDataset(dataset, stage)
