"""Batches of sentences of similar length, in a random order: less padding, and as random as before."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mixops import MixTypeError, MixValueError, streams

from ..keys import KeyedBatchSampler
from ..state import count


class BucketBatchSampler(KeyedBatchSampler):
    """Yield batches of samples of similar length that carry their key; everything else is as in KeyedBatchSampler.

    An epoch is shuffled, cut into pools of ``pool`` batches, sorted by length within each pool, cut into batches, and
    the batches are shuffled. Samples that fill no whole batch are set aside at random, before anything is sorted, and
    come last: with drop_last it is these that are left out, whatever their length. The order depends on (seed, epoch),
    the lengths, the batch size and the number of ranks. With several ranks, the batches of one step are dealt from one
    stretch of similar lengths, so no rank waits for the long sentences of another.

    Without shuffle the samples come sorted, longest first, in every epoch.

    Args:
        lengths: (n,) tokens in each sample of the data set, 0 or more.
        batch_size: indices a batch, 1 or more.
        seed: of the order, 0 ≤ seed < 2**64.
        pool: batches (of all ranks together) that are sorted together, 1 or more: more save more padding, fewer mix
            lengths better.
        shuffle: False for evaluation.
        rank: of this process, 0 ≤ rank < world_size; None reads torch.distributed, if it is initialised, at each pass.
        world_size: number of processes; None as for rank.
        drop_last: leave a smaller last batch out.

    Raises:
        MixError: if an argument is out of range.

    Example:
        >>> batches = BucketBatchSampler([3, 9, 3, 9, 3, 9], 2, seed=1)
        >>> [sorted(batch) for batch in BucketBatchSampler([3, 9, 3, 9], 2, shuffle=False)]
        [[1, 3], [0, 2]]
        >>> next(iter(batches)).key
        BatchKey(epoch=0, step=0, rank=0)
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int,
        *,
        seed: int = 0,
        pool: int = 100,
        shuffle: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
    ) -> None:
        self.lengths = _checked(lengths)
        if not count("BucketBatchSampler", "pool", pool):
            raise MixValueError("BucketBatchSampler: pool=0, expected 1 or more")
        self.pool = int(pool)
        samples = range(len(self.lengths))
        super().__init__(samples, batch_size, drop_last, seed, shuffle, rank, world_size)

    def __repr__(self) -> str:
        # That of KeyedBatchSampler, which is made of a range here, with what ours is made of.
        rest = super().__repr__().partition(f"{self.sampler!r}, ")[2]
        return f"BucketBatchSampler(<lengths of {len(self.lengths)}>, {rest[:-1]}, pool={self.pool})"

    def _identity(self) -> dict[str, Any]:
        # Other lengths or pools make another order, in which the place of a batch would mean other samples.
        digest = zlib.crc32(self.lengths.tobytes())
        return {**super()._identity(), "kind": f"buckets, pool={self.pool}, lengths {digest:08x}"}

    def _whole_order(self, epoch: int) -> list[int]:
        lengths = self.lengths
        if not self.shuffle:
            order: list[int] = np.argsort(-lengths, kind="stable").tolist()
            return order
        rng = streams.order_stream(self.seed, epoch)
        shuffled = rng.permutation(len(lengths))
        step = self._origin(epoch).together  # samples that the ranks take together, or took when the epoch began
        whole = len(lengths) // step * step
        # Equal lengths stay in the order of the shuffle; pools are told apart by their number, the first key.
        pools = np.arange(whole) // (step * self.pool)
        by_length = shuffled[:whole][np.lexsort((lengths[shuffled[:whole]], pools))]
        batches = by_length.reshape(-1, step)[rng.permutation(whole // step)]
        last = shuffled[whole:]
        return [*batches.ravel().tolist(), *last.tolist()]


def padding_share(lengths: Sequence[int] | np.ndarray, batches: Iterable[Sequence[int]]) -> float:
    """Share of padding among the positions of these batches, each as wide as its longest sample.

    Args:
        lengths: (n,) tokens in each sample.
        batches: of indices, those of a batch sampler say.

    Returns:
        1 - Σ length / Σ (batch size · longest), from 0 to 1; 0 for no positions.

    Example:
        >>> padding_share([2, 4], [[0, 1]])
        0.25
    """
    held = _checked(lengths)
    rows = [held[list(batch)] for batch in batches]
    positions = sum(row.size * int(row.max()) for row in rows if row.size)
    return 1 - sum(int(row.sum()) for row in rows) / positions if positions else 0.0


def _checked(lengths: Any) -> np.ndarray:
    array = np.asarray(lengths)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise MixTypeError(
            f"BucketBatchSampler: lengths of {array.dtype} and shape {array.shape}, expected (n,) whole numbers: one "
            "for each sample, TokenizedSentences(...).lengths"
        )
    if array.size and array.min() < 0:
        row = int(array.argmin())
        raise MixValueError(f"BucketBatchSampler: lengths[{row}]={int(array[row])}, expected 0 or more")
    return array.astype(np.int64)
