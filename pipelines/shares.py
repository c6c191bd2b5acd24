"""Shares: which samples of an epoch each rank gets, batch by batch. Numbers only; no process knows of another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shares:
    """How the rest of an epoch's order is dealt to ranks: a batch of all ranks after the other, each a stretch of it.

    Place i of a stretch goes to rank i modulo the number of ranks. So whatever number of batches has been handed out,
    the samples that came are the beginning of the order, and any other number of ranks can go on from there.

    Args:
        samples: places left in the order, 0 or more.
        size: samples a batch on one rank, 1 or more.
        ranks: 1 or more.
        drop_last: give out whole batches only.
        pad: let the ranks' last batches be equally large: places beyond the last sample stand for its beginning. Else
            a sample comes once: last batches differ by one sample, and the two last stretches share what is left where
            the last alone has too little for every rank. Only where not even that is enough (fewer samples than ranks
            are left, or ``size`` is 1) some come twice.

    Example:
        >>> shares = Shares(10, size=2, ranks=4)
        >>> [list(shares.places(1, rank)) for rank in range(4)]
        [[8], [9], [10], [11]]
        >>> even = Shares(10, size=2, ranks=4, pad=False)
        >>> [[list(even.places(batch, rank)) for batch in range(2)] for rank in range(4)]
        [[[0, 4], [6]], [[1, 5], [7]], [[2], [8]], [[3], [9]]]
    """

    samples: int
    size: int
    ranks: int
    drop_last: bool = False
    pad: bool = True

    @property
    def together(self) -> int:
        """Samples of a full batch of all ranks."""
        return self.size * self.ranks

    @property
    def batches(self) -> int:
        """Batches of each rank: equally many."""
        return self.samples // self.together if self.drop_last else -(-self.samples // self.together)

    def start(self, batch: int) -> int:
        """Samples given out before this batch, or before the end: all that are left, or were left out."""
        if batch >= self.batches:
            return self.samples
        lent = self._lent if batch == self.batches - 1 else 0
        return batch * self.together - lent

    def places(self, batch: int, rank: int) -> range:
        """The places of a rank's batch, counted from where these shares begin; some beyond the samples are padding."""
        first = self.start(batch)
        stop = first + self.together if self.drop_last else self.start(batch + 1)
        if self.pad or stop - first < self.ranks:
            stop = first - (first - stop) // self.ranks * self.ranks
        return range(first + rank, stop, self.ranks)

    @property
    def _lent(self) -> int:
        """Samples that the last stretch takes over from the one before, so that each rank has one."""
        rest = self.samples % self.together
        short = self.ranks - rest
        if self.pad or self.drop_last or not rest or short <= 0 or self.size == 1 or self.batches < 2:
            return 0
        return short
