"""Streams as sources: WebDataset's tar files, Hugging Face's iterable data sets, or any list of iterables.

StreamLoader reads their shards in batches that are the same for any number of workers, and goes on where a state of it
was taken, reading little again. Put it into MixLoader, or let MixCollator mix in its workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import sha1
from typing import Any, Self

from mixops import MixTypeError, MixValueError, streams

from .collate import collate_for_mixing
from .keyed_data import KeyedDataset
from .keys import check_rank, process_place
from .state import VERSION, check_state, count
from .stream_lanes import Delivery, LanePlace, Pass, Turns
from .stream_shards import Shard, as_shards, huggingface_shards, need, tar_shards

__all__ = ["Shard", "StreamLoader", "huggingface_shards", "tar_shards"]

_LANES = 4

#: What a DataLoader may be told: nothing that would change the order, and nothing that is said otherwise here.
_OPTIONS = (
    "prefetch_factor",
    "multiprocessing_context",
    "worker_init_fn",
    "timeout",
    "pin_memory",
    "pin_memory_device",
    "persistent_workers",
    "generator",
)


class StreamLoader:
    """Batches of a sharded stream: nothing lost, nothing twice, the same for any number of workers and after a restart.

    Rank r reads every world_size-th shard, dealt to its ``lanes``; batches come from the lanes in turn, whoever reads
    them. The order depends on (seed, epoch, rank) and on shards, lanes, batch_size, shuffle and world_size. Each lane's
    last batch may be smaller, and ranks may have unequal numbers of batches: in distributed training end every
    epoch at one number, ``zip(range(steps), loader)``, which leaves the rest out, or use torch's Join.

    Every pass is the next epoch, from 0. A state counts the batches that were delivered, whatever the workers have read
    ahead. It is of one rank: each rank saves and loads its own.

    Args:
        shards: of tar_shards or huggingface_shards, or a list of iterables that each start anew when iterated.
        batch_size: samples a batch, 1 or more.
        seed: of the order, 0 ≤ seed < 2**64.
        shuffle: 0 keeps the order of shards and samples. n: shards come in an order of (seed, epoch), and every n
            samples that follow each other in a lane are shuffled among themselves; they wait undecoded.
        lanes: of each rank, at most its shards; None: 4, or as many as there are shards.
        num_workers: processes that read and collate, at most ``lanes``; 0 reads in this one.
        stage: PerSample, or a list of them, with random numbers keyed by (seed, epoch, shard and place in it).
        collate: samples to batch: MixCollator mixes in the workers, keyed by (epoch, number of the lane's turn, rank).
            None collates as a DataLoader does, or as numpy_collate where torch is not loaded.
        drop_last: leave a lane's last batch out if it is smaller.
        on_bad: of a sample that cannot be read, decoded or augmented: "raise" an error that names it, after which the
            pass can go on with the next sample; "warn" and leave it out.
        rank: of this process, 0 ≤ rank < world_size; None reads torch.distributed, if it is initialised.
        world_size: number of processes; None as for rank.
        options: of the DataLoader where there are workers: ``prefetch_factor``, ``multiprocessing_context``,
            ``worker_init_fn``, ``timeout``, ``pin_memory``, ...

    Raises:
        MixError: if an argument is out of range, there are fewer shards than ranks or lanes, fewer lanes than workers,
            a shard can be iterated only once, or torch is not installed and workers are asked for; while iterating, if
            a sample cannot be read, decoded or augmented, or samples do not fit together. The pass can go on then.

    Example:
        >>> loader = StreamLoader([[0, 1, 2], [3, 4, 5]], 2, seed=7)
        >>> [list(map(int, batch)) for batch in loader]
        [[0, 1], [3, 4], [2], [5]]
    """

    def __init__(
        self,
        shards: Sequence[Any],
        batch_size: int,
        *,
        seed: int,
        shuffle: int = 0,
        lanes: int | None = None,
        num_workers: int = 0,
        stage: Any = None,
        collate: Callable[[Any], Any] | None = None,
        drop_last: bool = False,
        on_bad: str = "raise",
        rank: int | None = None,
        world_size: int | None = None,
        **options: Any,
    ) -> None:
        owner = type(self).__name__
        self.shards = as_shards(owner, shards)
        self.batch_size = count(owner, "batch_size", batch_size)
        if not self.batch_size:
            raise MixValueError(f"{owner}: batch_size=0, expected 1 or more")
        streams.order_stream(seed, 0)  # refuses a seed that is none
        self.seed = int(seed)
        if shuffle is True:
            raise MixValueError(
                f"{owner}: shuffle=True, expected how many samples are shuffled among themselves: shuffle=1000, say, "
                "as many as memory holds undecoded in each lane"
            )
        self.shuffle = 0 if shuffle is False else count(owner, "shuffle", shuffle)
        self.num_workers = count(owner, "num_workers", num_workers)
        if lanes is not None and not count(owner, "lanes", lanes):
            raise MixValueError(f"{owner}: lanes=0, expected 1 or more")
        if on_bad not in ("raise", "warn"):
            raise MixValueError(f"{owner}: on_bad={on_bad!r}, expected 'raise' or 'warn'")
        if collate is not None and not callable(collate):
            raise MixTypeError(f"{owner}: collate is {type(collate).__name__}, expected a callable")
        unknown = [name for name in options if name not in _OPTIONS]
        if unknown:
            raise MixTypeError(
                f"{owner}: got {unknown[0]}=, expected arguments of its own, or of a DataLoader {', '.join(_OPTIONS)}"
            )
        self.collate = collate or partial(collate_for_mixing, fields={})
        self.drop_last, self.on_bad, self.options = bool(drop_last), on_bad, options
        self.stages = KeyedDataset(self.shards, stage).stages
        self._given_lanes, self._given = lanes, check_rank(owner, rank, world_size)
        if self.num_workers:
            need(f"{owner}(num_workers={num_workers})", "torch")
        self._epoch, self._step, self._turn = 0, 0, 0
        self._places: list[LanePlace] = []
        self._running: object | None = None
        self._source = sha1("\n".join(shard.name for shard in self.shards).encode()).hexdigest()
        self._lanes()

    def __repr__(self) -> str:
        words = [f"<{len(self.shards)} shards>", str(self.batch_size), f"seed={self.seed}"]
        words += [f"{name}={getattr(self, name)}" for name in ("shuffle", "num_workers") if getattr(self, name)]
        return f"{type(self).__name__}({', '.join(words)}, lanes={self._lanes()})"

    @property
    def epoch(self) -> int:
        """Epoch of the next batch."""
        return self._epoch

    @property
    def step(self) -> int:
        """Batches of that epoch that have been delivered."""
        return self._step

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be this epoch, from its start; a place loaded within this very epoch is kept.

        Raises:
            MixError: if epoch is no whole number of 0 or more.
        """
        epoch = count(type(self).__name__, "epoch", epoch)
        if self._running is not None or self._epoch != epoch:
            self._put(epoch)

    def __iter__(self) -> Iterator[Any]:
        return _Running(self)

    def state_dict(self) -> dict[str, Any]:
        """The place of the next batch that was not delivered yet, on this rank; plain JSON values."""
        places = self._places or [LanePlace()] * self._lanes()
        state = {"version": VERSION, "epoch": self._epoch, "step": self._step, "turn": self._turn}
        return state | self._identity() | {"places": [place.plain() for place in places]}

    def load_state_dict(self, state: Any) -> None:
        """Go on where state_dict was taken, with any number of workers: the next pass yields the rest of that epoch.

        Raises:
            MixError: if the state is broken, or of another version, rank, number of ranks, seed, shards, lanes, batch
                size, shuffle or drop_last; this loader then stays as it was.
        """
        owner = type(self).__name__
        epoch, step = check_state(owner, state, self._identity(), ("turn", "places"))
        turn, lanes = count(owner, "state turn", state["turn"]), self._lanes()
        if not isinstance(state["places"], list) or len(state["places"]) != lanes or turn >= lanes:
            raise MixValueError(f"{owner}: state has turn={turn} and places that are not those of {lanes} lanes")
        job = self._job(epoch)
        checked = [LanePlace.checked(owner, place, len(job.dealt(lane))) for lane, place in enumerate(state["places"])]
        if sum(place.batches for place in checked) < step:
            raise MixValueError(f"{owner}: state has step={step}, but its lanes less batches: it has been edited")
        self._put(epoch)
        self._step, self._turn, self._places = step, turn, checked

    # -- places --------------------------------------------------------------------------------------------------

    def _put(self, epoch: int) -> None:
        self._epoch, self._step, self._turn, self._places, self._running = epoch, 0, 0, [], None

    def _place(self) -> tuple[int, int]:
        return self._given or process_place()

    def _lanes(self) -> int:
        owner, ranks = type(self).__name__, self._place()[1]
        most = len(self.shards) // ranks
        if not most:
            raise MixValueError(
                f"{owner}: {len(self.shards)} shards for {ranks} ranks, expected one or more for each: write more, "
                "smaller shards, or take fewer ranks"
            )
        lanes = min(_LANES, most) if self._given_lanes is None else self._given_lanes
        if lanes > most:
            raise MixValueError(
                f"{owner}: lanes={lanes}, but a rank has {most} shards: take lanes={most} or fewer, or write more, "
                "smaller shards"
            )
        if self.num_workers > lanes:
            fix = f"up to {most} with lanes={most}, which is another order" if lanes < most else "write more shards"
            raise MixValueError(
                f"{owner}: num_workers={self.num_workers}, but {lanes} lanes can be read side by side: take fewer "
                f"workers, or {fix}"
            )
        return lanes

    def _identity(self) -> dict[str, Any]:
        rank, ranks = self._place()
        return {
            "seed": self.seed,
            "source": self._source,
            "ranks": ranks,
            "rank": rank,
            "lanes": self._lanes(),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def _job(self, epoch: int) -> Pass:
        rank, ranks = self._place()
        return Pass(
            self.shards,
            self._lanes(),
            self.batch_size,
            self.seed,
            epoch,
            rank,
            ranks,
            self.shuffle,
            self.drop_last,
            self.stages,
            self.collate,
            self.on_bad,
            list(self._places),
            self._turn,
        )

    def _begin(self, token: object) -> Iterator[Delivery]:
        if self._running is not None:  # a pass that was left in the middle makes this the next epoch
            self._put(self._epoch + 1)
        job = self._job(self._epoch)
        self._places = self._places or [LanePlace()] * job.lanes
        self._running = token
        if not self.num_workers:
            return Turns(job)
        from .stream_workers import by_workers

        return by_workers(job, self.num_workers, self.options)

    def _delivered(self, token: object, delivery: Delivery) -> None:
        if self._running is not token:
            return
        self._turn = (delivery.lane + 1) % len(self._places)
        assert delivery.place is not None
        self._places[delivery.lane] = delivery.place
        self._step += delivery.error is None

    def _end(self, token: object) -> None:
        if self._running is token:
            self._put(self._epoch + 1)


class _Running:
    """One pass over a StreamLoader. A class, not a generator: an error does not end it."""

    def __init__(self, owner: StreamLoader) -> None:
        self._owner, self._token = owner, object()
        self._deliveries: Iterator[Delivery] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        owner = self._owner
        if self._deliveries is None:
            self._deliveries = owner._begin(self._token)
        for delivery in self._deliveries:
            if delivery.lane < 0:
                continue
            owner._delivered(self._token, delivery)
            if delivery.error is not None:
                raise MixValueError(delivery.error)
            return delivery.batch
        owner._end(self._token)
        raise StopIteration
