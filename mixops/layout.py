"""Layout strings such as "b c h w": axes are found by name, never by guessing from sizes."""

from __future__ import annotations

from functools import lru_cache
from operator import index
from typing import Any

from .errors import MixTypeError, MixValueError

#: The axes that the boxes of a rank-R plan speak of, by rank.
BOX_AXES: dict[int, tuple[str, ...]] = {0: (), 1: ("t",), 2: ("h", "w"), 3: ("t", "h", "w")}


def parse_layout(layout: str) -> tuple[str, ...]:
    """Split "b c h w" into axis names.

    Raises:
        MixError: if it is no string, a name repeats or is no identifier, or the batch axis "b" is missing.
    """
    if not isinstance(layout, str):
        raise MixTypeError(f'layout {layout!r}: expected a string of axis names such as "b c h w"')
    return _parsed(layout)


@lru_cache(maxsize=256)
def _parsed(layout: str) -> tuple[str, ...]:
    names = tuple(layout.split())
    if "b" not in names or len(set(names)) != len(names) or not all(n.isidentifier() for n in names):
        meant = _meant(layout)
        raise MixValueError(
            f'layout {layout!r}: expected different axis names with the batch axis "b" among them, '
            + (f'did you mean "{meant}"?' if meant else 'such as "b c h w", "b h w c", "b t d" or "b d"')
        )
    return names


def _meant(layout: str) -> str:
    """The layout that "NCHW", "bhwc" or "n c h w" mean here; empty where that cannot be told."""
    letters = ["b" if a == "n" and "b" not in layout.lower() else a for a in layout.lower() if a.isalpha()]
    known = "b" in letters and len(set(letters)) == len(letters) and set(letters) <= set("bcdhltw")
    return " ".join(letters) if known else ""


def check_rank(names: tuple[str, ...], ndim: int) -> None:
    """Raise unless the layout names as many axes as the array has."""
    if len(names) != ndim:
        raise MixValueError(
            f'layout "{" ".join(names)}" names {len(names)} axes, the array has {ndim}: name every axis of the array'
        )


def check_box_axes(plan_shape: tuple[int, ...], names: tuple[str, ...], shape: tuple[int, ...]) -> None:
    """Raise unless an array of these axes and extents has those that boxes on ``plan_shape`` are measured on."""
    for axis, extent in zip(BOX_AXES[len(plan_shape)], plan_shape, strict=True):
        if axis not in names:
            raise MixValueError(
                f'layout "{" ".join(names)}" has no axis {axis!r}: the plan has boxes on '
                f"{BOX_AXES[len(plan_shape)]} = {plan_shape}"
            )
        if shape[names.index(axis)] != extent:
            raise MixValueError(
                f"axis {axis!r} has extent {shape[names.index(axis)]}, the plan was drawn for {extent}: draw it with "
                "Spec.like(x, layout), or use plan.rescaled(...)"
            )


def check_extents(owner: str, shape: Any) -> tuple[int, ...]:
    """At most three extents as ints, each 1 or more and within int32, or a MixError that names the owner."""
    try:
        extents = tuple(index(s) for s in shape)
    except TypeError:
        raise MixTypeError(f"{owner} {shape!r}: expected whole extents such as (224, 224)") from None
    if len(extents) > 3 or not all(1 <= s < 1 << 31 for s in extents):
        raise MixValueError(f"{owner} {shape!r}: expected at most three extents of 1 or more, below 2**31")
    return extents


def box_axes_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """The axes of this layout that boxes can be drawn on: ("h", "w"), ("t",), ("t", "h", "w") or ()."""
    for rank in (3, 2, 1):
        if all(a in names for a in BOX_AXES[rank]):
            return BOX_AXES[rank]
    return ()
