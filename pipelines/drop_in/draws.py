"""Draws: which random stream a call of a drop-in draws from, where no batch brings a key."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from mixops import MixValueError, streams

from ..keys import BatchKey, process_place
from ..state import VERSION, check_state, count


class Draws:
    """Streams for calls that come one after the other.

    Without a seed each call takes one word of torch's generator, as the libraries do that the drop-ins stand in for:
    ``torch.manual_seed`` makes a training come out again, and the workers of a DataLoader differ. With a seed the
    calls are counted, and the stream depends on (seed, epoch, call, rank) alone; samples that carry a key (``keyed``)
    are drawn for by that.

    Args:
        owner: name of the class, for the messages.
        seed: 0 ≤ seed < 2**64, or None.

    Raises:
        MixError: if the seed is out of range.

    Example:
        >>> one, other = Draws("Mixup", 7), Draws("Mixup", 7)
        >>> bool(one.stream().random() == other.stream().random())
        True
    """

    def __init__(self, owner: str, seed: int | None) -> None:
        streams.plan_stream(0 if seed is None else seed)
        self.owner, self.seed = owner, seed
        self.epoch, self.step = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch: calls are counted from 0 again."""
        self.epoch, self.step = count(self.owner, "epoch", epoch), 0

    def stream(self, samples: Any = None) -> np.random.Generator:
        """The generator of the next call; ``samples``, where there are any, may bring the key of their batch."""
        if self.seed is None:
            import torch

            return streams.plan_stream(int(torch.randint(1 << 62, (), device="cpu")))
        key: BatchKey | None = getattr(samples, "key", None)
        if key is not None:
            return streams.plan_stream(self.seed, *key)
        data = sys.modules.get("torch.utils.data")
        if data is not None and data.get_worker_info() is not None:
            raise MixValueError(
                f"{self.owner}: seed={self.seed} in a worker of a DataLoader, each of which counts alone: expected "
                "samples with a key, DataLoader(keyed(dataset), batch_sampler=KeyedBatchSampler(...)); or leave seed= "
                "out, and torch's seeds are used"
            )
        rng = streams.plan_stream(self.seed, self.epoch, self.step, process_place()[0])
        self.step += 1
        return rng

    def state_dict(self) -> dict[str, Any]:
        """The place of the next call, as plain JSON values; without a seed it is torch's own state that counts."""
        return {"version": VERSION, "seed": self.seed, "epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: Any) -> None:
        """Go on where state_dict was taken.

        Raises:
            MixError: if the state is broken, of another version or another seed; this stays as it was then.
        """
        self.epoch, self.step = check_state(self.owner, state, {"seed": self.seed})
