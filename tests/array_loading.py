"""An ArrayLoader, and the loader that it is held to."""

from __future__ import annotations

import threading
import time
from typing import Any

from loading import FIELDS, OP, table
from mixops.pipelines import ArrayLoader, KeyedBatchSampler, MixCollator, keyed
from torch.utils.data import DataLoader


def loaded(data: Any = None, op: Any = OP, fields: Any = FIELDS, size: int = 4, **options: Any) -> ArrayLoader:
    """The loader under test."""
    return ArrayLoader(table() if data is None else data, op, fields, size, seed=7, **options)


def collated(data: Any, op: Any = OP, fields: Any = FIELDS, size: int = 4, **options: Any) -> DataLoader[Any]:
    """The loader that it is held to: samples fetched one by one and mixed by a MixCollator."""
    given = {name: options.pop(name) for name in ("to", "training", "plan_key") if name in options}
    sampler = KeyedBatchSampler(data, size, seed=7, **({"shuffle": True} | options))
    return DataLoader(keyed(data), batch_sampler=sampler, collate_fn=MixCollator(op, fields, 7, **given))


def own_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("mixops-loader")]


def gone(wait: float = 20.0) -> bool:
    """Have all threads of loaders ended, soon?"""
    end = time.monotonic() + wait
    while own_threads() and time.monotonic() < end:
        time.sleep(0.01)
    return not own_threads()
