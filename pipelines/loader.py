"""MixLoader: mix what any loader yields, in the main process, with a place that can be saved and resumed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import mixops as mx
from mixops import MixTypeError, MixValueError

from .collate import check_mixing, draw_plan, mix_with_plan
from .keys import BatchKey, KeyedBatchSampler, process_place
from .passes import Passes
from .state import VERSION, check_state, described


class MixLoader(Passes):
    """Iterate over a loader and mix every batch; the plan depends on (seed, epoch, step, rank) alone.

    Every pass is the next epoch, from 0; it begins when its first batch is asked for. The loader's own ``set_epoch``,
    or that of its sampler, is told the epoch. In distributed training the rank is that of the KeyedBatchSampler
    underneath, else torch.distributed's.

    Resuming goes, in this order: through a KeyedBatchSampler underneath (only the remaining samples are read); through
    the loader's own state_dict (StatefulDataLoader; for torchdata.nodes, ``mixops.pipelines.nodes`` draws inside the
    graph and is exact at the end of an epoch too); else by reading and dropping the batches that were delivered, which
    is right for loaders that repeat their order. A DataLoader that shuffles by itself does not and is refused.

    Args:
        loader: any iterable of dict or tuple batches that can be iterated once an epoch.
        op: the operator.
        fields: {name: Field | Labels}; for tuple batches {position: ...}. Entries it does not name pass through.
        seed: of the draws, 0 ≤ seed < 2**64.
        training: False draws the identity; also train() and eval().
        plan_key: name under which a dict batch is given its Plan; None leaves it out.
        to: {name: Output} of fields that are normalised, cast or laid out in the pass that mixes.

    Raises:
        MixError: if loader cannot be iterated, op is no operator, fields are no Field or Labels, or the seed is out of
            range; while iterating, if batch, fields and operator do not fit. The pass can go on with the next batch
            then.

    Example:
        >>> import numpy as np
        >>> import mixops as mx
        >>> from mixops.pipelines import MixLoader
        >>> batches = [{"x": np.eye(2, dtype=np.float32), "y": np.arange(2)}] * 3
        >>> loader = MixLoader(batches, mx.Mixup(0.8), {"x": mx.Field("b d"), "y": mx.Labels(2)}, seed=7)
        >>> [bool(np.allclose(batch["x"], batch["y"])) for batch in loader], loader.epoch
        ([True, True, True], 1)
    """

    def __init__(
        self,
        loader: Any,
        op: mx.Operator,
        fields: Mapping[Any, Any],
        seed: int,
        *,
        training: bool = True,
        plan_key: str | None = None,
        to: Mapping[Any, mx.Output] | None = None,
    ) -> None:
        if not hasattr(loader, "__iter__"):
            raise MixTypeError(f"MixLoader: loader is {type(loader).__name__}, expected an iterable of batches")
        if _iter_once(loader):
            raise MixTypeError(
                f"MixLoader: {type(loader).__name__} can be iterated only once, and each epoch needs a pass: pass a "
                "loader, a list, or an object whose __iter__ starts anew"
            )
        check_mixing("MixLoader", op, fields, seed, to)
        super().__init__(training)
        self.loader, self.op, self.fields, self.seed = loader, op, dict(fields), seed
        self.plan_key, self.to = plan_key, dict(to or {})
        self._restored = False

    def __repr__(self) -> str:
        words = [described(self.loader), repr(self.op), repr(self.fields), f"seed={self.seed}"]
        words += [] if self.training else ["training=False"]
        words += [f"{name}={given!r}" for name, given in (("plan_key", self.plan_key), ("to", self.to)) if given]
        return f"MixLoader({', '.join(words)})"

    def __len__(self) -> int:
        """Batches of a whole epoch.

        Raises:
            TypeError: if the loader has no length.
        """
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return _Pass(self)

    def state_dict(self) -> dict[str, Any]:
        """The place of the next batch that was not delivered yet; plain JSON values (plus the loader's own state, if
        it is resumed through that).

        Raises:
            MixError: within an epoch of a DataLoader that shuffles by itself: such a place cannot be found again.
        """
        self._refuse_shuffled(self._step)
        state = {"version": VERSION, "epoch": self._epoch, "step": self._step, **self._identity()}
        sampler = self._sampler()
        if sampler is not None:
            state["sampler"] = sampler.state_dict(self._step, epoch=self._epoch)
        elif _has_state(self.loader):
            state["loader"] = self.loader.state_dict()
        return state

    def load_state_dict(self, state: Any) -> None:
        """Go on where state_dict was taken: the next pass yields the remaining batches of that epoch.

        Raises:
            MixError: if the state is broken, of another version, seed, kind of loader or length of data, or the loader
                is a DataLoader that shuffles by itself; this loader then stays as it was.
        """
        epoch, step = check_state("MixLoader", state, self._identity())
        self._refuse_shuffled(step)
        sampler, kind = self._sampler(), state["kind"]
        part = {"keyed": "sampler", "stateful": "loader"}.get(kind)
        if part is not None and not isinstance(state.get(part), Mapping):
            raise MixValueError(
                f"MixLoader: state of kind {kind!r} lacks {part!r}; expected what state_dict() returned"
            )
        if state["batches"] is not None and step > state["batches"]:
            raise MixValueError(f"MixLoader: state has step={step}, but an epoch has {state['batches']} batches")
        if sampler is not None:
            if (state["sampler"].get("epoch"), state["sampler"].get("step")) != (epoch, step):
                raise MixValueError("MixLoader: the state and its sampler name different places: it has been edited")
            sampler.load_state_dict(state["sampler"])
        elif part is not None:
            self.loader.load_state_dict(state["loader"])
        self._put(epoch, step)
        self._restored = kind == "stateful"

    # -- the loader underneath -----------------------------------------------------------------------------------

    def _sampler(self) -> KeyedBatchSampler | None:
        sampler = getattr(self.loader, "batch_sampler", None)
        return sampler if isinstance(sampler, KeyedBatchSampler) else None

    def _identity(self) -> dict[str, Any]:
        kind = "keyed" if self._sampler() is not None else "stateful" if _has_state(self.loader) else "plain"
        batches = len(self.loader) if hasattr(type(self.loader), "__len__") and _sized(self.loader) else None
        data = getattr(self.loader, "dataset", None)
        length = len(data) if data is not None and hasattr(data, "__len__") else None
        return {"seed": self.seed, "kind": kind, "length": length, "batches": batches}

    def _refuse_shuffled(self, step: int) -> None:
        if not step or self._sampler() is not None or _has_state(self.loader) or not _shuffles(self.loader):
            return
        raise MixValueError(
            f"MixLoader: this DataLoader shuffles by itself, so the {step} batches of epoch {self._epoch} that were "
            "delivered cannot be found again: use DataLoader(dataset, batch_sampler=KeyedBatchSampler(dataset, "
            "batch_size, seed=..., shuffle=True)), or torchdata's StatefulDataLoader"
        )

    def _put(self, epoch: int, step: int) -> None:
        super()._put(epoch, step)
        self._restored = False

    def _source(self) -> tuple[Iterator[Any], int]:
        """The loader's iterator for the pass that begins, and how many batches, delivered before, it brings again."""
        sampler, skip = self._sampler(), 0
        if sampler is not None:
            sampler.seek(self._epoch, self._step)
        elif not self._restored:
            _tell_epoch(self.loader, self._epoch)
            skip = self._step
        source = iter(self.loader)
        self._restored = False
        return source, skip

    def _rank(self) -> int:
        sampler = self._sampler()
        return process_place()[0] if sampler is None else sampler.rank


class _Pass:
    """One pass over a MixLoader. A class, not a generator: an error in one batch does not end it."""

    def __init__(self, owner: MixLoader) -> None:
        self._owner = owner
        self._source: Iterator[Any] | None = None
        self._epoch, self._step, self._rank = 0, 0, 0
        self._token = object()

    def __iter__(self) -> _Pass:
        return self

    def __next__(self) -> Any:
        owner = self._owner
        if self._source is None:
            self._start()
        assert self._source is not None
        # The number belongs to the place in the epoch: a batch that fails takes its number with it.
        key, self._step = BatchKey(self._epoch, self._step, self._rank), self._step + 1
        try:
            batch = next(self._source)
        except StopIteration:
            self._step -= 1
            owner._end_pass(self._token)
            raise
        plan = draw_plan(batch, owner.op, owner.fields, owner.seed, key, training=owner.training)
        mixed = mix_with_plan(batch, plan, owner.fields, owner.plan_key, to=owner.to)
        owner._delivered(self._token, self._step)
        return mixed

    def _start(self) -> None:
        owner = self._owner
        self._rank = owner._rank()
        self._epoch, self._step = owner._next_place()
        self._source, skip = owner._source()
        owner._begin_pass(self._token)
        for _ in range(skip):
            next(self._source, None)


def _iter_once(loader: Any) -> bool:
    """True for generators and other iterators that have no second pass."""
    return isinstance(loader, Iterator) and iter(loader) is loader and not _has_state(loader)


def _has_state(loader: Any) -> bool:
    return callable(getattr(loader, "state_dict", None)) and callable(getattr(loader, "load_state_dict", None))


def _sized(loader: Any) -> bool:
    try:
        len(loader)
    except TypeError:  # a DataLoader over a stream has __len__, which then raises
        return False
    return True


def _shuffles(loader: Any) -> bool:
    """True for a torch DataLoader whose sampler draws from a generator that nobody keys."""
    data = sys.modules.get("torch.utils.data")
    if data is None or not isinstance(loader, data.DataLoader):
        return False
    inner = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    return any(hasattr(sampler, "generator") for sampler in (inner, getattr(loader, "sampler", None)))


def _tell_epoch(loader: Any, epoch: int) -> None:
    """Call set_epoch of the loader, else of its sampler, if there is one."""
    batches = getattr(loader, "batch_sampler", None)
    for one in (loader, batches, getattr(batches, "sampler", None), getattr(loader, "sampler", None)):
        told = getattr(one, "set_epoch", None)
        if callable(told):
            told(epoch)
            return
