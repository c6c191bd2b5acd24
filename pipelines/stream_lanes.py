"""Lanes: a stream's shards are dealt to a fixed number of lanes, and batches come from the lanes in turn.

What a lane holds depends on (seed, epoch, rank) and not on who reads it. Of W workers each reads every W-th lane; where
the lanes are no multiple of W, or one is at its end, it hands out nothing in that turn. A DataLoader asks its workers
in turn too, so the batches come in the same order whatever W is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, Self

from mixops import MixError, MixValueError, streams

from .keys import Keyed
from .state import count
from .stream_shards import Reading, Shard

#: Number of the stream that shuffles a block: no stage of PerSample has one like it.
_BLOCK = 1 << 40


@dataclass(frozen=True)
class LanePlace:
    """Where a lane stands, in plain JSON values.

    Args:
        batches: that it has handed out.
        shard: which of its shards the block of its next sample begins in; their number at the end.
        read: samples of that shard before the block.
        at: the shard's own place there.
        skip: samples of the block that have come already.
        told: errors that whoever reads on from here meets first, and that have been raised already.
    """

    batches: int = 0
    shard: int = 0
    read: int = 0
    at: Any = None
    skip: int = 0
    told: int = 0

    @classmethod
    def checked(cls, owner: str, value: Any, shards: int) -> LanePlace:
        """The place that a state holds, of a lane of so many shards."""
        names = set(cls.__dataclass_fields__)
        if not isinstance(value, dict) or set(value) != names:
            raise MixValueError(
                f"{owner}: state has the place {value!r}, expected a dict of {', '.join(sorted(names))}"
            )
        whole = {name: count(owner, f"state {name}", value[name]) for name in names - {"at"}}
        if whole["shard"] > shards:
            raise MixValueError(f"{owner}: state has shard={whole['shard']}, but its lane has {shards} shards")
        return cls(at=value["at"], **whole)

    def plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Pass:
    """What a rank reads in an epoch.

    Args:
        shards: of the data set, all of them.
        lanes: that this rank's shards are dealt to.
        size: samples a batch.
        seed: of the order.
        epoch: counted from 0.
        rank: of this process.
        ranks: number of processes.
        block: samples that are shuffled with each other; 0: shards and samples keep their order.
        drop_last: leave a lane's last batch out if it is smaller.
        stages: ``stage(sample, epoch, index, place)``, applied in order.
        collate: samples, which carry the key of their batch, to the batch.
        on_bad: "raise" or "warn".
        places: of the lanes.
        turn: the lane that is asked first.
    """

    shards: list[Shard]
    lanes: int
    size: int
    seed: int
    epoch: int
    rank: int
    ranks: int
    block: int
    drop_last: bool
    stages: tuple[Callable[..., Any], ...]
    collate: Callable[[Any], Any]
    on_bad: str
    places: list[LanePlace] = field(default_factory=list)
    turn: int = 0

    def dealt(self, lane: int) -> list[tuple[int, Shard]]:
        """The shards of a lane, with their numbers, in the order of the epoch."""
        order = list(range(len(self.shards)))
        if self.block:
            order = streams.order_stream(self.seed, self.epoch).permutation(len(order)).tolist()
        return [(i, self.shards[i]) for i in order[self.rank :: self.ranks][lane :: self.lanes]]


class Delivery(NamedTuple):
    """What a lane hands out in its turn: a batch or what went wrong, and the place behind it; with neither, nothing."""

    lane: int
    batch: Any = None
    place: LanePlace | None = None
    error: str | None = None


class Turns:
    """The lanes of one worker, in turn. A class, not a generator: an error does not end it."""

    def __init__(self, job: Pass, worker: int = 0, workers: int = 1) -> None:
        slots = range(worker, -(-job.lanes // workers) * workers, workers)
        self._slots = [(job.turn + slot) % job.lanes if slot < job.lanes else None for slot in slots]
        self._lanes = {lane: _Lane(job, lane) for lane in self._slots if lane is not None}
        self._next = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delivery:
        if not self._lanes:
            raise StopIteration
        number, self._next = self._slots[self._next], (self._next + 1) % len(self._slots)
        if number is None or number not in self._lanes:
            return Delivery(-1)
        lane = self._lanes[number]
        try:
            batch = next(lane)
        except StopIteration:
            del self._lanes[number]
            return Delivery(-1)
        except MixError as err:
            return Delivery(number, place=lane.place, error=str(err))
        return Delivery(number, batch, lane.place)


class _Lane:
    """The batches of a lane.

    Args:
        job: what is read.
        number: of the lane.

    ``place`` is where whoever goes on behind the last batch, or behind the error after it, reads from.
    """

    def __init__(self, job: Pass, number: int) -> None:
        self.place = job.places[number] if job.places else LanePlace()
        self._job, self._number, self._muted = job, number, self.place.told
        self._samples = _Samples(job, job.dealt(number), self.place)
        self._pending: list[Any] = []

    def __next__(self) -> Any:
        job = self._job
        while len(self._pending) < job.size:
            try:
                self._pending.append(next(self._samples))
            except StopIteration:
                if job.drop_last or not self._pending:
                    raise
                break
            except MixError:
                if not self._muted:
                    self.place = replace(self.place, told=self.place.told + 1)
                    raise
                self._muted -= 1
        # The number belongs to the lane's turn: no other batch of the epoch has it, whatever the lanes' lengths.
        batches = self.place.batches
        samples = Keyed(self._pending, (job.epoch, batches * job.lanes + self._number, job.rank))
        self._pending, self._muted, self.place = [], 0, self._samples.place(batches + 1)
        try:
            return job.collate(samples)
        except MixError:
            raise
        except Exception as err:  # of anybody's function
            raise MixValueError(f"a batch of {len(samples)} samples cannot be collated: {_words(err)}") from err


class _Read(NamedTuple):
    shard: Shard
    number: int
    ordinal: int
    raw: Any

    @property
    def sample(self) -> int:
        """The number of the sample in the data set: the same in every epoch and for any number of lanes and ranks."""
        return self.number << 32 | self.ordinal


class _Samples:
    """The samples of a lane, shuffled in blocks, decoded and augmented."""

    def __init__(self, job: Pass, shards: list[tuple[int, Shard]], place: LanePlace) -> None:
        self._job = job
        self._reader = _Reader(shards, place)
        self._block: list[_Read] = []
        self._filling: list[_Read] | None = None
        self._used, self._skip, self._errors = 0, place.skip, 0
        self._start = place.shard, place.read, place.at

    def place(self, batches: int) -> LanePlace:
        """The place of the next sample, after so many batches."""
        if self._used < len(self._block):
            return LanePlace(batches, *self._start, skip=self._used, told=self._errors)
        return LanePlace(batches, *self._reader.place())

    def __next__(self) -> Any:
        while True:
            try:
                return self._one()
            except MixError as err:
                if self._job.on_bad == "raise":
                    raise
                warnings.warn(f"left out: {err}", UserWarning, stacklevel=2)

    def _one(self) -> Any:
        while self._used >= len(self._block):
            self._fill()
        read, self._used = self._block[self._used], self._used + 1
        try:
            sample = read.shard.decode(read.raw)
            for place, stage in enumerate(self._job.stages):
                sample = stage(sample, self._job.epoch, read.sample, place)
        except Exception as err:  # of a decoder, or of anybody's stage
            raise MixValueError(f"{read.shard.name}, sample {read.ordinal}: {_words(err)}") from err
        return sample

    def _fill(self) -> None:
        """Read the next block. One that an error interrupts is gone on with."""
        if self._filling is None:
            self._filling, self._start, self._errors = [], self._reader.place(), 0
        # Where nothing is shuffled a block spares the rest of the work of reading samples one by one.
        size = self._job.block if self._job.block > 1 else self._job.size
        while len(self._filling) < size:
            try:
                self._filling.append(next(self._reader))
            except StopIteration:
                break
            except MixError:
                self._errors += 1
                raise
        block, self._filling = self._filling, None
        if not block:
            raise StopIteration
        if self._job.block > 1:
            rng = streams.sample_stream(self._job.seed, self._job.epoch, block[0].sample, _BLOCK)
            block = [block[i] for i in rng.permutation(len(block))]
        self._block, self._used, self._skip = block, self._skip, 0


class _Reader:
    """What the shards of a lane hold, one after the other, as it was read."""

    def __init__(self, shards: list[tuple[int, Shard]], place: LanePlace) -> None:
        self._shards, self._turn, self._read, self._at = shards, place.shard, place.read, place.at
        self._reading: Reading | None = None

    def place(self) -> tuple[int, int, Any]:
        return self._turn, self._read, self._at if self._reading is None else self._reading.at()

    def __next__(self) -> _Read:
        while self._turn < len(self._shards):
            number, shard = self._shards[self._turn]
            try:
                if self._reading is None:
                    self._reading = shard.read(self._at)
                raw = next(self._reading)
            except StopIteration:
                self._go_on()
                continue
            except Exception as err:
                self._go_on()
                raise MixValueError(f"{shard.name}: {_words(err)}; the rest of this shard is left out") from err
            self._read += 1
            return _Read(shard, number, self._read - 1, raw)
        raise StopIteration

    def _go_on(self) -> None:
        self._turn, self._read, self._at, self._reading = self._turn + 1, 0, None, None


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, MixError) else f"{type(error).__name__}: {error}"
