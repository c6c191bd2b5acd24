"""Batches that know their key: (epoch, step, rank) travels with the indices to the workers and on to collate_fn.

PyTorch hands the object that a batch sampler yields, unchanged, to ``dataset.__getitems__``, and what that returns to
``collate_fn``. A list with a ``.key`` on it therefore reaches any worker, however many there are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from mixops import MixError, MixTypeError, MixValueError, streams

from .shares import Shares
from .state import VERSION, check_state, count, described


class BatchKey(NamedTuple):
    """Address of a batch: epoch, step within it and rank of the process, all counted from 0."""

    epoch: int
    step: int
    rank: int


class Keyed(list[Any]):
    """A list, of indices or of samples, with the key of its batch.

    Args:
        items: what the list holds.
        key: (epoch, step, rank).

    Example:
        >>> Keyed([4, 2], (0, 3, 0)).key
        BatchKey(epoch=0, step=3, rank=0)
    """

    key: BatchKey

    def __init__(self, items: Iterable[Any], key: tuple[int, int, int]) -> None:
        super().__init__(items)
        self.key = BatchKey(*key)


def process_place() -> tuple[int, int]:
    """(rank, world size): those of torch.distributed where it is loaded and initialised, else (0, 1)."""
    dist = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_available() and dist.is_initialized():
        return int(dist.get_rank()), int(dist.get_world_size())
    return 0, 1


@dataclass
class _Place:
    """Where a running pass stands: the next batch it hands out is number ``step`` of ``epoch``."""

    epoch: int
    step: int


class _Origin(NamedTuple):
    """Where the order of an epoch is dealt from: after ``samples`` of it, by batch ``step`` on.

    An epoch begins at (0, 0). One that was resumed on another number of ranks begins where it was saved, and its order
    remains that of the run that began it, which may depend on how many samples its ranks took together.
    """

    epoch: int
    step: int
    samples: int
    together: int


class KeyedBatchSampler:
    """Yield batches of indices that carry their key, in an order that depends on (seed, epoch) and nothing else.

    Every pass is the next epoch, from 0; it begins when its first batch is asked for. A sampler of torch that draws
    from a generator (RandomSampler, WeightedRandomSampler, SubsetRandomSampler) is given one keyed by (seed, epoch),
    whatever generator it holds: its order is then the same on every rank and after a restart. A sampler with
    ``set_epoch`` is told the epoch.

    With several ranks the order is the same on all and rank r takes every world_size-th index from the r-th on. If the
    length is no multiple of world_size, the order goes on from its start until it is (some samples come twice in the
    epoch); with drop_last its tail is left out instead. So all ranks make equally many batches of equal sizes. With
    ``pad=False`` no sample comes twice: all ranks still make equally many batches, and the last two may be smaller, on
    some ranks by one sample more. A sampler that shards by itself (it has ``rank`` and ``num_replicas``, as
    DistributedSampler) is left to it.

    A state resumes on another number of ranks too, and then with another batch_size if you like: what is left of the
    epoch is dealt to the ranks that there are, so that none of its samples is lost, and none comes twice but as
    padding.

    Args:
        sampler: a data set (anything with a length and indexing; its indices are 0 to len - 1), ``range(n)``, or a
            sampler: an iterable of indices.
        batch_size: indices a batch, 1 or more; the last batch of an epoch may be smaller.
        drop_last: leave that smaller batch out.
        seed: of the order, 0 ≤ seed < 2**64; give MixCollator or MixLoader a seed of their own or the same one.
        shuffle: visit a data set in random order; a sampler has its own order.
        rank: of this process, 0 ≤ rank < world_size; None reads torch.distributed, if it is initialised, at each pass.
        world_size: number of processes; None as for rank.
        pad: let the ranks' last batches be equally large, by samples that come twice.

    Raises:
        MixError: if an argument is out of range, a list of whole numbers could mean indices or a data set,
            shuffle is asked of a sampler, or the rank is not that of a sampler that shards.

    Example:
        >>> batches = KeyedBatchSampler(range(5), 2, seed=7)
        >>> [(batch, batch.key.step) for batch in batches]
        [([0, 1], 0), ([2, 3], 1), ([4], 2)]
        >>> next(iter(batches)).key
        BatchKey(epoch=1, step=0, rank=0)
    """

    def __init__(
        self,
        sampler: Any,
        batch_size: int,
        drop_last: bool = False,
        seed: int = 0,
        shuffle: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        *,
        pad: bool = True,
    ) -> None:
        owner = type(self).__name__
        self.batch_size = count(owner, "batch_size", batch_size)
        if not self.batch_size:
            raise MixValueError(f"{owner}: batch_size=0, expected 1 or more")
        self._indexed = _is_data_set(owner, sampler)
        if shuffle and not self._indexed:
            raise MixValueError(
                f"{owner}: shuffle=True with {type(sampler).__name__}, which has an order of its own: pass the data "
                "set, or leave shuffle out"
            )
        self.sampler = sampler
        self.drop_last, self.shuffle, self.pad = bool(drop_last), bool(shuffle), bool(pad)
        streams.order_stream(seed, 0)  # refuses a seed that is none
        self.seed = int(seed)
        self._shards_itself = hasattr(sampler, "num_replicas") and hasattr(sampler, "rank")
        self._given = check_rank(owner, rank, world_size)
        if self._shards_itself and self._given not in (None, (sampler.rank, sampler.num_replicas)):
            raise MixValueError(
                f"{owner}: rank, world_size = {self._given}, but the sampler shards as "
                f"{(sampler.rank, sampler.num_replicas)}: leave rank and world_size out"
            )
        self._next = (0, 0)
        self._place: _Place | None = None
        self._resumed: _Origin | None = None

    @property
    def rank(self) -> int:
        """Rank whose batches these are."""
        return self._rank_of()[0]

    @property
    def world_size(self) -> int:
        """Number of ranks that share the samples."""
        return self._rank_of()[1]

    @property
    def epoch(self) -> int:
        """Epoch of the pass that runs, or of the one to come if none has begun."""
        return self._here()[0]

    def __repr__(self) -> str:
        words = [described(self.sampler), str(self.batch_size)]
        words += [f"{name}=True" for name in ("drop_last", "shuffle") if getattr(self, name)]
        place = "" if self._given is None else f", rank={self._given[0]}, world_size={self._given[1]}"
        place += "" if self.pad else ", pad=False"
        return f"{type(self).__name__}({', '.join(words)}, seed={self.seed}{place})"

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank.

        Raises:
            TypeError: if the sampler has no length.
        """
        return self._shares(len(self.sampler)).batches

    def __iter__(self) -> Iterator[Keyed]:
        # A generator: nothing below runs before the first batch is asked for. A DataLoader with workers calls iter()
        # twice at the start of its first epoch, and only one of the two is ever read.
        epoch, step = self._next
        rank = self.rank
        batches = self._dealt(epoch, step)
        self._next = (epoch + 1, 0)
        place = self._place = _Place(epoch, step)
        for batch in batches:
            key = BatchKey(epoch, place.step, rank)
            place.step += 1
            yield Keyed(batch, key)

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be this epoch, from its start; a place loaded within this very epoch is kept.

        Raises:
            MixError: if epoch is no whole number of 0 or more.
        """
        if self._place is not None or self._next[0] != epoch:
            self.seek(epoch)

    def seek(self, epoch: int, step: int = 0) -> None:
        """Let the next pass begin at this batch of this epoch; the ones before are not read.

        Raises:
            MixError: if either is no whole number of 0 or more, the epoch has fewer batches, or it was resumed on
                another number of ranks and the batch is one of those before.
        """
        owner = type(self).__name__
        place = count(owner, "epoch", epoch), count(owner, "step", step)
        origin = self._origin(epoch) if step else None
        batches = self._batches(epoch) if step else None
        if batches is not None and step > batches:
            raise MixValueError(f"{owner}: step={step}, but an epoch has {batches} batches")
        if origin is not None and step < origin.step:
            raise MixValueError(
                f"{owner}: step={step}, but epoch {epoch} was resumed at step {origin.step} on another number of "
                "ranks: only its beginning, step 0, or what came since can be found again"
            )
        self._next, self._place = place, None
        if not step and self._origin(epoch).step:
            self._resumed = None  # the epoch begins anew

    def state_dict(self, delivered: int | None = None, *, epoch: int | None = None) -> dict[str, Any]:
        """The place of the next batch, and what it depends on, as plain JSON values. The same on every rank.

        Args:
            delivered: batches of the epoch that were really trained on, counted from its start. Workers fetch ahead, so
                this object has handed out more than have arrived: a training loop that counts passes its count. None:
                all that were handed out.
            epoch: the epoch that ``delivered`` counts in; None: the one that runs.

        Returns:
            A dict for load_state_dict. A state saved after the last batch resumes to the (empty) rest of that epoch.

        Raises:
            MixError: if more were delivered than were handed out.
        """
        owner = type(self).__name__
        now, handed = self._here()
        step = handed if delivered is None else count(owner, "delivered", delivered)
        limit: int | None = handed
        if epoch is not None and count(owner, "epoch", epoch) != now:
            now, limit = epoch, self._batches(epoch)
        if limit is not None and step > limit:
            raise MixValueError(f"{owner}: delivered={step}, but epoch {now} has handed out {limit} batches")
        origin = self._origin(now)._asdict()
        del origin["epoch"]
        return {"version": VERSION, "epoch": now, "step": step, "origin": origin, **self._identity()}

    def load_state_dict(self, state: Any) -> None:
        """Go on where state_dict was taken: the next pass yields the remaining batches of that epoch.

        On as many ranks as were saved these are the very batches. On another number, with whatever batch_size, the
        samples that are left are dealt anew; steps are counted on, so no plan is drawn twice.

        Raises:
            MixError: if the state is broken, of another version, or of another seed, length, shuffle, drop_last or pad;
                of another batch size for as many ranks; or of another number of ranks where a sampler of its own
                length or shares lies underneath. The sampler then stays as it was.
        """
        owner, expected = type(self).__name__, self._identity()
        dealt = self._dealt_anew(state, expected)
        if dealt:
            del expected["world_size"], expected["batch_size"]
        epoch, step = check_state(owner, state, expected, ("origin", "world_size", "batch_size"))
        origin = _checked_origin(owner, state["origin"], epoch, step)
        if not dealt:
            kept, self._resumed = self._resumed, origin if origin.samples else None
            try:
                self.seek(epoch, step)
            except MixError:
                self._resumed = kept
                raise
            return
        size, ranks = (count(owner, f"state {name}", state[name]) for name in ("batch_size", "world_size"))
        if not size or not ranks:
            raise MixValueError(f"{owner}: state has batch_size={size}, world_size={ranks}: expected 1 or more")
        before = Shares(len(self.sampler) - origin.samples, size, ranks, self.drop_last, self.pad)
        done = step - origin.step
        if done > before.batches or before.samples < 0:
            raise MixValueError(
                f"{owner}: state has step={step}, but its epoch has {origin.step + before.batches} batches"
            )
        here = _Origin(epoch, step, origin.samples + before.start(done), origin.together)
        self._next, self._place, self._resumed = (epoch, step), None, here if step else None

    # -- order and shares ----------------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "length": _length(self.sampler),
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
            "shuffle": self.shuffle,
            "pad": self.pad,
            "world_size": self.world_size,
        }

    def _here(self) -> tuple[int, int]:
        return self._next if self._place is None else (self._place.epoch, self._place.step)

    def _batches(self, epoch: int) -> int | None:
        """Batches of an epoch, those before it was resumed too; None where that is unknown."""
        if not hasattr(self.sampler, "__len__"):
            return None
        origin = self._origin(epoch)
        return origin.step + self._shares(len(self.sampler) - origin.samples).batches

    def _rank_of(self) -> tuple[int, int]:
        if self._shards_itself:
            return int(self.sampler.rank), int(self.sampler.num_replicas)
        return self._given or process_place()

    def _origin(self, epoch: int) -> _Origin:
        """Where the epoch is dealt from."""
        if self._resumed is not None and self._resumed.epoch == epoch:
            return self._resumed
        return _Origin(epoch, 0, 0, self.batch_size * self.world_size)

    def _shares(self, samples: int) -> Shares:
        ranks = 1 if self._shards_itself else self.world_size
        return Shares(samples, self.batch_size, ranks, self.drop_last, self.pad)

    def _dealt_anew(self, state: Any, expected: Mapping[str, Any]) -> bool:
        """Was this state saved on another number of ranks than there are, and can they share the rest out?"""
        sized = hasattr(self.sampler, "__len__") and not self._shards_itself
        return sized and isinstance(state, Mapping) and state.get("world_size") != expected["world_size"]

    def _dealt(self, epoch: int, step: int) -> Iterator[list[Any]]:
        """This rank's batches of an epoch, from this one on."""
        origin, whole = self._origin(epoch), self._whole_order(epoch)
        if self._shards_itself or self.world_size == 1:
            # The order may be as long as it likes: it is read as it is needed.
            indices = islice(whole, origin.samples + (step - origin.step) * self.batch_size, None)
            while batch := list(islice(indices, self.batch_size)):
                if self.drop_last and len(batch) < self.batch_size:
                    return
                yield batch
            return
        if not hasattr(self.sampler, "__len__"):
            raise MixTypeError(
                f"{type(self).__name__}: {type(self.sampler).__name__} has no length, so {self.world_size} ranks "
                "cannot be given equally many batches: give it __len__, or a sampler that shards"
            )
        order, rank = list(whole), self.rank
        shares = self._shares(len(order) - origin.samples)
        for number in range(step - origin.step, shares.batches):
            yield [order[(origin.samples + place) % len(order)] for place in shares.places(number, rank)]

    def _whole_order(self, epoch: int) -> Any:
        if self._indexed:
            length = len(self.sampler)
            if self.shuffle:
                return iter(streams.order_stream(self.seed, epoch).permutation(length).tolist())
            return range(length)
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)
        return _drawn_order(self.sampler, self.seed, epoch)


def _drawn_order(sampler: Any, seed: int, epoch: int) -> Any:
    """The sampler's indices; if it draws from a torch generator, from one that is keyed by (seed, epoch)."""
    data = sys.modules.get("torch.utils.data")
    if data is None or not isinstance(sampler, data.Sampler) or not hasattr(sampler, "generator"):
        return sampler
    import torch

    held = sampler.generator
    sampler.generator = torch.Generator()
    sampler.generator.manual_seed(int(streams.order_stream(seed, epoch).integers(1 << 63)))
    try:
        return list(sampler)
    finally:
        sampler.generator = held


def _is_data_set(owner: str, sampler: Any) -> bool:
    """True for a data set, False for an iterable of indices; a MixError for what is neither or could be both."""
    data = sys.modules.get("torch.utils.data")
    if data is not None and isinstance(sampler, data.IterableDataset):
        raise MixTypeError(
            f"{owner}: {type(sampler).__name__} is an IterableDataset, which has no indices: use MixLoader"
        )
    if data is not None and isinstance(sampler, data.DataLoader):
        raise MixTypeError(
            f"{owner}: {type(sampler).__name__} yields batches of samples, expected what it reads: pass its data set "
            "or sampler, and this to a new DataLoader as batch_sampler="
        )
    if data is not None and isinstance(sampler, data.BatchSampler):
        raise MixTypeError(f"{owner}: BatchSampler yields batches, expected a sampler of single indices or a data set")
    if isinstance(sampler, range) and sampler != range(len(sampler)):
        raise MixValueError(
            f"{owner}: {sampler!r}, expected range(n); for part of a data set pass torch's Subset of it"
        )
    if isinstance(sampler, list) and sampler and all(type(i) is int for i in sampler):
        raise MixTypeError(
            f"{owner}: a list of whole numbers can mean indices or a data set: pass range(len(data)) for a data set, "
            "torch's Subset(data, indices) for a part, or a sampler"
        )
    if hasattr(sampler, "__len__") and hasattr(sampler, "__getitem__"):
        return True
    if hasattr(sampler, "__iter__"):
        return False
    raise MixTypeError(f"{owner}: {type(sampler).__name__} is neither a data set nor an iterable of indices")


def check_rank(owner: str, rank: int | None, world_size: int | None) -> tuple[int, int] | None:
    """The rank and number of processes that were given; None where neither was, so that torch.distributed is asked."""
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None:
        raise MixValueError(f"{owner}: rank={rank!r}, world_size={world_size!r}: expected both or neither")
    if count(owner, "rank", rank) >= count(owner, "world_size", world_size):
        raise MixValueError(f"{owner}: rank={rank}, world_size={world_size}: expected 0 <= rank < world_size")
    return int(rank), int(world_size)


def _checked_origin(owner: str, origin: Any, epoch: int, step: int) -> _Origin:
    """The origin that a state holds."""
    names = _Origin._fields[1:]
    if not isinstance(origin, Mapping) or set(origin) != set(names):
        raise MixValueError(f"{owner}: state has origin={origin!r}, expected a dict of {', '.join(names)}")
    checked = _Origin(epoch, *(count(owner, f"state origin {name}", origin[name]) for name in names))
    if checked.step > step:
        raise MixValueError(f"{owner}: state has step={step}, before that of its origin, {checked.step}: it was edited")
    return checked


def _length(sampler: Any) -> int | None:
    """Samples that the sampler chooses from; its own length does not show a data set that grew by less than a share."""
    for source in (getattr(sampler, "dataset", None), getattr(sampler, "data_source", None), sampler):
        if source is not None and hasattr(source, "__len__"):
            return len(source)
    return None
