"""What a loader that somebody else wrote can do, and how it is told of an epoch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any


def iter_once(loader: Any) -> bool:
    """True for generators and other iterators that have no second pass."""
    return isinstance(loader, Iterator) and iter(loader) is loader and not has_state(loader)


def has_state(loader: Any) -> bool:
    """True for loaders that keep their place themselves."""
    return callable(getattr(loader, "state_dict", None)) and callable(getattr(loader, "load_state_dict", None))


def sized(loader: Any) -> bool:
    """True for loaders that know how many batches they have."""
    try:
        len(loader)
    except TypeError:  # a DataLoader over a stream has __len__, which then raises
        return False
    return True


def shuffles(loader: Any) -> bool:
    """True for a torch DataLoader whose sampler draws from a generator that nobody keys."""
    data = sys.modules.get("torch.utils.data")
    if data is None or not isinstance(loader, data.DataLoader):
        return False
    inner = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    return any(hasattr(sampler, "generator") for sampler in (inner, getattr(loader, "sampler", None)))


def forget_place(loader: Any, epoch: int) -> None:
    """Let the next pass over a loader that was given a state begin at its start, this epoch's or any other's."""
    tell_epoch(loader, epoch + 1)  # a place within the very epoch that it is told would be kept
    iter(loader)  # StatefulDataLoader begins one pass, and no other, where its state says


def tell_epoch(loader: Any, epoch: int, given: bool = False) -> None:
    """Call set_epoch of the loader, else of its sampler, else of its data set, if there is one.

    Args:
        loader: whose pass begins.
        epoch: of it.
        given: the loader was given its place, and knows its epoch by that. What is underneath may not: a
            DistributedSampler in a StatefulDataLoader has no state, and a data set of Hugging Face takes up only the
            state of the epoch that it is in (and would do so again at its next pass, were it not told of another one).
    """
    batches = getattr(loader, "batch_sampler", None)
    samplers = batches, getattr(batches, "sampler", None), getattr(loader, "sampler", None)
    for one in (loader, *samplers, getattr(loader, "dataset", None)):
        told = getattr(one, "set_epoch", None)
        if callable(told):
            if one is not loader or not given:
                told(epoch)
            return
