"""Batches of inputs and targets as frameworks nest them, seen as one flat dict of named entries, and built up again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixops import MixValueError


def entries_of(batch: Any) -> dict[Any, Any]:
    """The entries of a batch by name: those of a dict by key, those of a tuple or list by position.

    A dict inside a tuple, as in ``({"ids": ids, "mask": mask}, labels)``, gives its entries by key. Anything else is
    the only entry, 0.

    Raises:
        MixError: if two entries have one name.

    Example:
        >>> entries_of(({"ids": 1, "mask": 2}, 3))
        {'ids': 1, 'mask': 2, 1: 3}
    """
    if isinstance(batch, Mapping):
        return dict(batch)
    if not isinstance(batch, (tuple, list)):
        return {0: batch}
    entries: dict[Any, Any] = {}
    for place, item in enumerate(batch):
        inner = dict(item) if isinstance(item, Mapping) else {place: item}
        twice = [name for name in inner if name in entries]
        if twice:
            raise MixValueError(f"two entries of the batch are named {twice[0]!r}: rename one of them")
        entries.update(inner)
    return entries


def rebuilt(batch: Any, entries: Mapping[Any, Any]) -> Any:
    """A batch nested as this one, of these entries.

    Example:
        >>> rebuilt(({"ids": 1, "mask": 2}, 3), {"ids": "a", "mask": "b", 1: "c"})
        ({'ids': 'a', 'mask': 'b'}, 'c')
    """
    if isinstance(batch, Mapping):
        return {name: entries[name] for name in batch}
    if not isinstance(batch, (tuple, list)):
        return entries[0]
    items = [
        {name: entries[name] for name in item} if isinstance(item, Mapping) else entries[place]
        for place, item in enumerate(batch)
    ]
    return type(batch)._make(items) if hasattr(batch, "_make") else type(batch)(items)
