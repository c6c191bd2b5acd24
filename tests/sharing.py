"""What the tests of shared batches run in the workers, and how they look at this process."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mixops.pipelines.shared import share_results
from torch.utils.data import DataLoader

import mixops as mx

MIB = 1 << 20


class Numbered:
    """A collate function whose batches are full of their number; they tell what the worker's pool has done."""

    def __init__(self, *, sizes: tuple[int, ...] = (MIB,), file_limit: int | None = None, parts: int = 1) -> None:
        self.sizes, self.file_limit, self.parts = sizes, file_limit, parts

    def __call__(self, samples: list[int]) -> dict[str, Any]:
        share_results()
        (number,) = samples
        array = self.empty(self.sizes[number % len(self.sizes)] // 4)
        array[:] = number
        stats = mx.pool.stats()
        told = {"fresh": stats.fresh, "refused": stats.refused, "worker": os.getpid()}
        batch = {"x": torch.from_numpy(array), "view": array[1::3], "number": number, "name": f"{number}", **told}
        return batch | {"parts": batch["x"].chunk(self.parts)} if self.parts > 1 else batch

    def empty(self, count: int) -> np.ndarray:
        if self.file_limit is None:
            return mx.pool.empty(count, np.float32)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_limit, hard))
        try:
            return mx.pool.empty(count, np.float32)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def three_mib(worker: int) -> None:
    """For worker_init_fn: three blocks of a MiB and no more."""
    mx.pool.limit = 3 * MIB


def switched_off(worker: int) -> None:
    """For worker_init_fn."""
    mx.pool.limit = 0


def without_memfd(worker: int) -> None:
    """For worker_init_fn: a system that has none."""
    del os.memfd_create


def numbered(count: int, workers: int = 2, *, collate: Numbered | None = None, **options: Any) -> DataLoader[Any]:
    options.setdefault("multiprocessing_context", "fork")
    return DataLoader(range(count), 1, num_workers=workers, collate_fn=collate or Numbered(), **options)  # type: ignore[arg-type]


def whole(batch: dict[str, Any]) -> bool:
    """Is this the batch that was sent?"""
    number = batch["number"]
    kinds = type(batch["x"]) is torch.Tensor and type(batch["view"]) is np.ndarray
    length = len(batch["view"]) == -(-(len(batch["x"]) - 1) // 3)
    # By NumPy: torch's threads do not survive a fork, and a forked child may ask.
    right = bool((batch["x"].numpy() == number).all()) and bool((batch["view"] == number).all())
    return kinds and length and right and batch["name"] == f"{number}"


def mappings() -> int:
    """Blocks that this process has mapped."""
    return Path("/proc/self/maps").read_text().count("memfd:mixops")


def descriptors() -> int:
    """Files that this process has open of blocks."""
    names = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            names.append(str(entry.readlink()))
        except FileNotFoundError:  # the one that the folder was read by
            continue
    return sum("memfd:mixops" in name for name in names)
