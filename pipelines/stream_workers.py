"""The lanes of a stream, read by the workers of a DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .stream_lanes import Delivery, Pass, Turns


class LaneDataset(IterableDataset[Delivery]):
    """What a worker hands out: the batches of its lanes."""

    def __init__(self, job: Pass) -> None:
        self.job = job

    def __iter__(self) -> Turns:
        info = get_worker_info()
        return Turns(self.job) if info is None else Turns(self.job, info.id, info.num_workers)


def _as_it_is(delivery: Any) -> Any:
    return delivery


def by_workers(job: Pass, workers: int, options: dict[str, Any]) -> Iterator[Delivery]:
    """What the lanes hand out, in order, read by so many processes."""
    loader = DataLoader(LaneDataset(job), batch_size=None, num_workers=workers, collate_fn=_as_it_is, **options)
    return iter(loader)
