"""MixLoader: mix what any loader yields, in the main process, with a place that can be saved and resumed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from traceback import format_exception
from typing import TYPE_CHECKING, Any

import mixops as mx
from mixops import MixError, MixTypeError, MixValueError

from .any_loader import forget_place, has_state, iter_once, shuffles, sized, tell_epoch
from .collate import check_mixing, draw_plan, mix_with_plan
from .keys import BatchKey, KeyedBatchSampler, process_place
from .passes import Passes
from .state import VERSION, check_state, described

if TYPE_CHECKING:
    from .transfer import Lane, Parcel, Sender


class MixLoader(Passes):
    """Iterate over a loader and mix every batch; the plan depends on (seed, epoch, step, rank) alone.

    Every pass is the next epoch, from 0; it begins when its first batch is asked for. The loader's own ``set_epoch``,
    or that of its sampler, or of its data set, is told the epoch. In distributed training the rank is that of the
    KeyedBatchSampler underneath, else torch.distributed's.

    Resuming goes, in this order: through a KeyedBatchSampler underneath (only the remaining samples are read); through
    the loader's own state_dict (StatefulDataLoader; for torchdata.nodes, ``mixops.pipelines.nodes`` draws inside the
    graph and is exact at the end of an epoch too); else by reading and dropping the batches that were delivered, which
    is right for loaders that repeat their order. A DataLoader that shuffles by itself does not and is refused.

    A state counts the batches that were delivered: the one that fails is the next one of a resumed loader. A loader's
    own state is behind a batch that came and could not be mixed, so there it counts too.

    With ``device`` the batches come on that device, mixed there: each is copied on a stream of its own while the one
    before is worked on, and no call waits for the device. For that one batch is read ahead of the one that is asked
    for, in the same thread: reading ahead of time is what the loader's own workers are for, and all that is left here
    is to put a batch into pinned memory (a DataLoader with ``pin_memory=True`` has done that too) and to begin its
    copy. A batch that was read ahead is not delivered: a state leaves it to the resumed loader, and its errors are
    raised in its turn.

    Args:
        loader: any iterable of dict or tuple batches that can be iterated once an epoch.
        op: the operator.
        fields: {name: Field | Labels}; for tuple batches {position: ...}. Entries it does not name pass through.
        seed: of the draws, 0 ≤ seed < 2**64.
        training: False draws the identity; also train() and eval().
        plan_key: name under which a dict batch is given its Plan; None leaves it out.
        to: {name: Output} of fields that are normalised, cast or laid out in the pass that mixes.
        device: "cuda" (the current one when a pass begins), "cuda:1" or a torch.device: all arrays and tensors of a
            batch become tensors there, its plan stays here; images travel as they came, uint8 best of all. "cpu":
            tensors here, and nothing is read ahead. A ``mixops.pipelines.transfer.Lane`` leads to other kinds of
            device. None: wherever the batches are.

    Raises:
        MixError: if loader cannot be iterated, op is no operator, fields are no Field or Labels, the seed is out of
            range, or torch finds no such device; while iterating, if batch, fields and operator do not fit. The pass
            can go on with the next batch then.

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
        device: Any = None,
    ) -> None:
        if not hasattr(loader, "__iter__"):
            raise MixTypeError(f"MixLoader: loader is {type(loader).__name__}, expected an iterable of batches")
        if iter_once(loader):
            raise MixTypeError(
                f"MixLoader: {type(loader).__name__} can be iterated only once, and each epoch needs a pass: pass a "
                "loader, a list, or an object whose __iter__ starts anew"
            )
        check_mixing("MixLoader", op, fields, seed, to)
        super().__init__(training)
        self.loader, self.op, self.fields, self.seed = loader, op, dict(fields), seed
        self.plan_key, self.to, self.device = plan_key, dict(to or {}), device
        # Of a loader with a state of its own: what to tell in its place; was it given one that no pass has taken up;
        # is the next pass to begin at the start, wherever it stands?
        self._held: Any = None
        self._given, self._anew = False, False
        self._open: Callable[[], Lane] | None = None
        if device is not None:
            self._open = _lane_to(device)

    def __repr__(self) -> str:
        words = [described(self.loader), repr(self.op), repr(self.fields), f"seed={self.seed}"]
        words += [] if self.training else ["training=False"]
        words += [f"{name}={given!r}" for name, given in self._options() if given]
        return f"MixLoader({', '.join(words)})"

    def _options(self) -> tuple[tuple[str, Any], ...]:
        device = None if self.device is None else str(getattr(self.device, "device", self.device))
        return ("plan_key", self.plan_key), ("to", self.to), ("device", device)

    def __len__(self) -> int:
        """Batches of a whole epoch.

        Raises:
            TypeError: if the loader has no length.
        """
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return _Pass(self) if self._open is None else _PassAhead(self, self._open)

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
        elif has_state(self.loader):
            held = self._loader_state() if self._held is None else copy.deepcopy(self._held)
            state["loader"] = None if self._anew else held
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
        anew = kind == "stateful" and not step and state.get("loader", part) is None
        if part is not None and not anew and not isinstance(state.get(part), Mapping):
            raise MixValueError(
                f"MixLoader: state of kind {kind!r} lacks {part!r}; expected what state_dict() returned"
            )
        if state["batches"] is not None and step > state["batches"]:
            raise MixValueError(f"MixLoader: state has step={step}, but an epoch has {state['batches']} batches")
        if sampler is not None:
            if (state["sampler"].get("epoch"), state["sampler"].get("step")) != (epoch, step):
                raise MixValueError("MixLoader: the state and its sampler name different places: it has been edited")
            sampler.load_state_dict(state["sampler"])
        elif part is not None and not anew:
            self.loader.load_state_dict(copy.deepcopy(state["loader"]))
            self._given = True
        self._put(epoch, step)
        self._anew = anew
        # Until the next pass begins the loader itself may tell of the last one.
        self._held = copy.deepcopy(state["loader"]) if kind == "stateful" else None

    # -- the loader underneath -----------------------------------------------------------------------------------

    def _sampler(self) -> KeyedBatchSampler | None:
        sampler = getattr(self.loader, "batch_sampler", None)
        return sampler if isinstance(sampler, KeyedBatchSampler) else None

    def _identity(self) -> dict[str, Any]:
        kind = "keyed" if self._sampler() is not None else "stateful" if has_state(self.loader) else "plain"
        # A KeyedBatchSampler holds its own state against its batches, whose number changes with that of the ranks.
        counted = kind != "keyed" and hasattr(type(self.loader), "__len__") and sized(self.loader)
        batches = len(self.loader) if counted else None
        data = getattr(self.loader, "dataset", None)
        length = len(data) if data is not None and hasattr(data, "__len__") else None
        return {"seed": self.seed, "kind": kind, "length": length, "batches": batches}

    def _refuse_shuffled(self, step: int) -> None:
        if not step or self._sampler() is not None or has_state(self.loader) or not shuffles(self.loader):
            return
        raise MixValueError(
            f"MixLoader: this DataLoader shuffles by itself, so the {step} batches of epoch {self._epoch} that were "
            "delivered cannot be found again: use DataLoader(dataset, batch_sampler=KeyedBatchSampler(dataset, "
            "batch_size, seed=..., shuffle=True)), or torchdata's StatefulDataLoader"
        )

    def _put(self, epoch: int, step: int) -> None:
        super()._put(epoch, step)
        self._held = None

    def _leave(self, epoch: int) -> None:
        super()._leave(epoch)
        self._anew = True

    def _stateful(self) -> bool:
        """Is the loader resumed through its own state?"""
        return self._sampler() is None and has_state(self.loader)

    def _loader_state(self) -> Any:
        """The loader's own state as it is now, if it is resumed through that."""
        return copy.deepcopy(self.loader.state_dict()) if self._stateful() else None

    def _hold(self, token: object, state: Any) -> None:
        """The loader is ahead of the pass of this token, whose place in it is this."""
        if self._running is token:
            self._held = state

    def _failed(self, token: object, step: int) -> None:
        """The pass goes on with batch ``step``. A loader with a state of its own is there already."""
        if self._stateful():
            self._hold(token, None)
            self._delivered(token, step)

    def _source(self) -> Iterator[Any]:
        """The loader's iterator for the pass that begins, behind the batches that were delivered before."""
        sampler, skip = self._sampler(), 0
        if sampler is not None:
            sampler.seek(self._epoch, self._step)
        elif self._anew or not self._given:
            if self._given:
                forget_place(self.loader, self._epoch)
            tell_epoch(self.loader, self._epoch)
            skip = self._step
        else:
            tell_epoch(self.loader, self._epoch, given=True)
        source = iter(self.loader)
        for _ in range(skip):
            with suppress(Exception):  # it was raised when that batch had its turn
                next(source, None)
        self._given, self._anew, self._held = False, False, None
        return source

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
        try:
            key, batch = self._read()
        except StopIteration:
            owner._end_pass(self._token)
            raise
        try:
            mixed = self._mix(key, batch)
        except BaseException:
            owner._failed(self._token, self._step)
            raise
        owner._delivered(self._token, key.step + 1)
        return mixed

    def _mix(self, key: BatchKey, batch: Any) -> Any:
        owner = self._owner
        if owner.device is not None:
            from .transfer import on_the_cpu

            batch = on_the_cpu(batch)
        plan = draw_plan(batch, owner.op, owner.fields, owner.seed, key, training=owner.training)
        return mix_with_plan(batch, plan, owner.fields, owner.plan_key, to=owner.to)

    def _read(self) -> tuple[BatchKey, Any]:
        """The next batch of the loader, and its key."""
        if self._source is None:
            self._start()
        assert self._source is not None
        key, self._step = BatchKey(self._epoch, self._step, self._rank), self._step + 1
        try:
            return key, next(self._source)
        except BaseException as error:
            # The number belongs to the place in the epoch: a batch that cannot be read takes its number with it. But
            # the state of a loader's own may be before that batch or behind it: there the batches that came count.
            if isinstance(error, StopIteration) or self._counts_what_came():
                self._step -= 1
            raise

    def _counts_what_came(self) -> bool:
        return self._owner._stateful()

    def _start(self) -> None:
        owner = self._owner
        self._rank = owner._rank()
        self._epoch, self._step = owner._next_place()
        source = owner._source()
        owner._begin_pass(self._token)
        self._source = source  # last: what interrupts this lets the pass begin once more


@dataclass
class _Order:
    """A batch that was read.

    Args:
        key: its key; None: there is no batch.
        batch: as the loader made it: what was sent is made of it again if it has to be mixed after all, or not.
        error: the loader's; with no key and no error the pass is at its end.
        training: was it to be mixed when it was sent?
        plan: what was drawn.
        parcel: the batch on its way; None: it could not be sent, and will say so in its turn.
    """

    key: BatchKey | None = None
    batch: Any = None
    error: Exception | None = None
    training: bool = True
    plan: mx.Plan | mx.PlanSequence | None = None
    parcel: Parcel | None = None


class _PassAhead(_Pass):
    """One pass over a MixLoader that hands out batches on a device, and sends the next one before it does."""

    def __init__(self, owner: MixLoader, lane: Callable[[], Lane]) -> None:
        super().__init__(owner)
        self._open = lane
        self._sender: Sender | None = None
        self._ahead: _Order | None = None
        self._made: tuple[int, Any] | None = None

    def __next__(self) -> Any:
        owner = self._owner
        # Each step leaves all that is known in place: a wait for the loader that is interrupted loses nothing.
        if self._made is None:
            if self._ahead is None:
                self._ahead = self._ordered()
            try:
                made = self._mixed(self._ahead)
            except Exception as error:
                self._ahead = None
                if not isinstance(error, StopIteration):
                    owner._failed(self._token, self._step)
                raise
            self._made, self._ahead = made, None
        state = owner._loader_state()
        self._ahead = self._ordered()
        (step, batch), self._made = self._made, None
        owner._delivered(self._token, step)
        owner._hold(self._token, state)
        return batch

    def _ordered(self) -> _Order:
        """Read the next batch and send it; what goes wrong waits until the batch is asked for."""
        if self._sender is None:
            from .transfer import Sender

            self._sender = Sender(self._open())
        self._sender.settle()
        try:
            key, batch = self._read()
        except StopIteration:
            return _Order()
        except Exception as error:
            return _Order(error=_alone(error))
        order = _Order(key, batch)
        try:
            self._send(order)
        except Exception:
            order.parcel = None
        return order

    def _send(self, order: _Order) -> None:
        """Draw the plan, make the targets, and let it all begin its way."""
        owner, batch = self._owner, order.batch
        assert self._sender is not None
        assert order.key is not None
        order.training = owner.training
        order.plan = draw_plan(batch, owner.op, owner.fields, owner.seed, order.key, training=order.training)
        _check_rows(batch, order.plan, owner.fields)
        labels, arrays = _parted(owner.fields)
        if labels:  # small, and checked on the device they would make the host wait for it
            batch = mix_with_plan(batch, order.plan, labels, None if arrays else owner.plan_key)
        order.parcel = self._sender.send(batch, arrays)

    def _mixed(self, order: _Order) -> tuple[int, Any]:
        """How many batches have been handed out with this one, and the batch; mixed where it arrives."""
        owner = self._owner
        if order.error is not None:
            error, order.error = order.error, None
            try:
                raise error
            finally:
                del error  # it knows this frame
        if order.key is None:
            owner._end_pass(self._token)
            raise StopIteration
        if order.parcel is None or order.training != owner.training:
            self._send(order)
        assert order.parcel is not None
        assert order.plan is not None
        batch, arrays = order.parcel.opened(), _parted(owner.fields)[1]
        if arrays:
            batch = mix_with_plan(batch, order.plan, arrays, owner.plan_key, to=owner.to)
        return order.key.step + 1, batch


def _lane_to(device: Any) -> Callable[[], Lane] | None:
    try:
        from .transfer import lane_to
    except ImportError as error:
        raise MixValueError(
            f"MixLoader: device={device!r} needs torch ({error}): install mixops[torch], or leave device= away"
        ) from None
    return lane_to("MixLoader", device)


def _parted(fields: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """The labels, and the fields that are mixed value by value."""
    labels = {name: field for name, field in fields.items() if isinstance(field, mx.Labels)}
    return labels, {name: field for name, field in fields.items() if name not in labels}


def _check_rows(batch: Any, plan: mx.Plan | mx.PlanSequence, fields: Mapping[Any, Any]) -> None:
    """Fields that are mixed in different places must still have the same rows: else mix_batch says what is wrong."""
    try:
        even = len({field.rows(batch[name]) for name, field in fields.items()}) == 1
    except MixError:
        even = False
    if not even:
        mx.mix_batch(batch, plan, fields)


def _alone(error: Exception) -> Exception:
    """The error without its frames, which it tells of in a note.

    They know those that called them, and so the pass, which must not know itself: a circle keeps a loader's workers
    until garbage is collected, and then they find their queues closed and hang.
    """
    error.add_note("Read ahead by MixLoader; where it was raised:\n" + "".join(format_exception(error)).rstrip())
    one: BaseException | None = error
    while one is not None and one.__traceback__ is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return error
