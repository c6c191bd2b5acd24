"""Data sets and loaders that the loading tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mixops.pipelines import (
    KeyedBatchSampler,
    MixCollator,
    MixLoader,
    arrays,
    keyed,
)
from torch.utils.data import DataLoader

import mixops as mx

more_workers = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # than CPUs, on purpose

# torchdata 0.11 calls what torch 2.13 has deprecated.
stateful = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")

N, CLASSES = 19, 4
OP = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0, per="sample")]) | mx.Cutout(size=3)
VECTOR = mx.Field("b d")
FIELDS = {"image": mx.Field("b c h w"), "label": mx.Labels(CLASSES)}


def table(n: int = N) -> Any:
    rng = np.random.Generator(np.random.PCG64(1))
    return arrays(image=rng.integers(0, 256, (n, 3, 8, 8), np.uint8), label=np.arange(n) % CLASSES, id=np.arange(n))


def pairs(n: int = N) -> list[tuple[Any, int]]:
    data = table(n)
    return [(data[i]["image"], int(data[i]["label"])) for i in range(n)]


def worked(
    workers: int = 0, *, data: Any = None, size: int = 4, rank: int = 0, world: int = 1, seed: int = 7, **options: Any
) -> DataLoader[Any]:
    """Mixing in the workers."""
    data = table() if data is None else data
    sampler = KeyedBatchSampler(data, size, seed=3, shuffle=True, rank=rank, world_size=world)
    collate = MixCollator(OP, FIELDS, seed, plan_key="plan")
    return DataLoader(keyed(data), batch_sampler=sampler, collate_fn=collate, num_workers=workers, **options)


def plain(workers: int = 0, *, data: Any = None, size: int = 4) -> DataLoader[Any]:
    """Keyed, not mixed."""
    data = table() if data is None else data
    sampler = KeyedBatchSampler(data, size, seed=3, shuffle=True)
    return DataLoader(data, batch_sampler=sampler, num_workers=workers)


def mixing(loader: Any, **options: Any) -> MixLoader:
    """Mixing in the main process."""
    return MixLoader(loader, OP, FIELDS, 7, plan_key="plan", **options)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (torch.Tensor, np.ndarray)):
        return a.dtype == b.dtype and np.array_equal(np.asarray(a), np.asarray(b))
    return bool(a == b)


def epochs(loader: Any, count: int = 2) -> list[list[Any]]:
    return [list(loader) for _ in range(count)]
