"""Snapshots of a place in an epoch: plain JSON values, checked whole before anything moves."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import Any

from mixops import MixTypeError, MixValueError

VERSION = 1

#: What to do when a value of the snapshot is not that of the object it is loaded into.
_FIXES = {
    "length": "resume with the data set of the run that was saved, or start the epoch again with set_epoch",
    "batches": "resume with the data and batch size of the run that was saved, or start again with set_epoch",
    "batch_size": "resume with the batch size that was saved: the places of the batches depend on it",
    "world_size": "resume on as many processes as were saved, or give KeyedBatchSampler the data set itself: a sampler "
    "that shards, or has no length, cannot share the rest out anew",
    "pad": "resume with the pad that was saved",
    "seed": "resume with the seed that was saved: order and draws depend on it",
    "shuffle": "resume with the shuffle that was saved",
    "drop_last": "resume with the drop_last that was saved",
    "kind": "resume with the kind of loader that was saved",
    "source": "resume with the shards that were saved, in the same order, or start the epoch again with set_epoch",
    "lanes": "resume with lanes=, or the number of shards, that was saved; num_workers may be another",
    "rank": "each rank saves and loads a state of its own",
    "ranks": "resume a stream on as many ranks as were saved, or start the epoch again with set_epoch",
}


def count(owner: str, name: str, value: Any) -> int:
    """A whole number of 0 or more, or a MixError that names it."""
    try:
        whole = -1 if isinstance(value, bool) else index(value)
    except TypeError:
        whole = -1
    if whole < 0:
        raise MixValueError(f"{owner}: {name}={value!r}, expected a whole number of 0 or more")
    return whole


def described(source: Any) -> str:
    """Type and length of a data set, sampler or loader, for a repr: theirs may print all they hold."""
    if isinstance(source, range):
        return repr(source)
    try:
        return f"<{type(source).__name__} of {len(source)}>"
    except TypeError:  # it has no length, or, as a DataLoader over a stream, only seems to
        return f"<{type(source).__name__}>"


def check_state(owner: str, state: Any, expected: Mapping[str, Any], parts: tuple[str, ...] = ()) -> tuple[int, int]:
    """Hold a snapshot against the object it is to be loaded into.

    Args:
        owner: name of the class, for the messages.
        state: what came.
        expected: entries that must be there and equal.
        parts: entries that must be there: what is underneath checks them for itself.

    Returns:
        (epoch, step) of the next batch.

    Raises:
        MixError: if state is no mapping, lacks an entry, is of another version, or an entry differs.
    """
    if not isinstance(state, Mapping):
        raise MixTypeError(f"{owner}: state is {type(state).__name__}, expected the dict that state_dict() returned")
    missing = [name for name in ("version", "epoch", "step", *expected, *parts) if name not in state]
    if missing:
        raise MixValueError(f"{owner}: state lacks {', '.join(missing)}; expected the dict that state_dict() returned")
    if state["version"] != VERSION:
        raise MixValueError(
            f"{owner}: state of version {state['version']!r}, expected {VERSION}: resume with the version of mixops "
            "that saved it"
        )
    for name, value in expected.items():
        if state[name] != value or isinstance(state[name], bool) != isinstance(value, bool):
            raise MixValueError(f"{owner}: state has {name}={state[name]!r}, this one has {value!r}: {_FIXES[name]}")
    return count(owner, "state epoch", state["epoch"]), count(owner, "state step", state["step"])
