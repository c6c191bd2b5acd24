"""Mixes on the CUDA kernel by way of the host chip, and plans made by hand for arrays of a given shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import naive
import numpy as np
import torch
from conftest import from_torch, to_torch
from host_chip import Launch, on_the_host
from hypothesis import strategies as st

import mixops as mx
from mixops.backends.cuda import again

OPACITIES = (1.0, 1.0, 0.0, 0.5, 0.3, 1e-3, 1 / 3)


def launched(x: Any, plan: Any, layout: str, *args: Any, **options: Any) -> tuple[torch.Tensor, list[Launch]]:
    """What the kernel makes of tensors by the long way, and what was launched."""
    again._known.clear()
    with on_the_host() as chip:
        return mx.mix(x, plan, layout, *args, backend="cuda", **options), chip.launches


def mixed(x: np.ndarray, plan: Any, layout: str, *args: Any, **options: Any) -> tuple[np.ndarray, Launch]:
    """What the kernel makes of an array in one launch, and the launch."""
    result, (launch,) = launched(to_torch(x), plan, layout, *args, **options)
    return from_torch(result), launch


def check(x: np.ndarray, plan: Any, layout: str, *args: Any, **options: Any) -> Launch:
    """Hold a mix to the plan as loops."""
    result, launch = mixed(x, plan, layout, *args, **options)
    naive.mix(x, plan, layout, *args, **{k: v for k, v in options.items() if k in ("fill", "to")}).check(result)
    return launch


def made_plan(
    rng: np.random.Generator,
    rows: int,
    shape: tuple[int, ...],
    k: int = 1,
    fills: Sequence[mx.Fill] = (),
    opacities: tuple[float, ...] = OPACITIES,
    *,
    n: int | None = None,
    shifts: bool = True,
) -> mx.Plan:
    """A plan on that many rows whose boxes begin and end anywhere; every third is empty, full, or one place.

    Args:
        rng: draws it.
        rows: of the source.
        shape: extents of the axes that boxes are on.
        k: patches of a row.
        fills: that patches may paint.
        opacities: to choose from.
        n: rows of the result; None: as many as the source has.
        shifts: donors may lie elsewhere than their boxes.
    """
    n, rank = rows if n is None else n, len(shape)
    box = np.zeros((n, k, 2 * rank), int)
    for r, extent in enumerate(shape):
        edges = np.sort(rng.integers(0, extent + 1, (n, k, 2)), -1)
        kind = rng.integers(0, 9, (n, k))
        edges[kind == 0] = 0, extent
        edges[kind == 1] = 0, min(extent, 1)
        edges[kind == 2, 1] = edges[kind == 2, 0]
        box[..., 2 * r : 2 * r + 2] = edges
    donor = box.copy() if shifts else box
    if shifts:
        for r, extent in enumerate(shape):
            size = box[..., 2 * r + 1] - box[..., 2 * r]
            start = rng.integers(0, extent - size + 1)
            stay = rng.random((n, k)) < 0.4
            donor[..., 2 * r] = np.where(stay, box[..., 2 * r], start)
            donor[..., 2 * r + 1] = donor[..., 2 * r] + size
    partner = rng.integers(-len(fills), rows, (n, k))
    opacity = rng.choice(np.array(opacities), (n, k))
    made = (rng.integers(0, rows, n), partner, box, donor, opacity, np.zeros((n, k)), shape)
    return mx.Plan(*made, fills=list(fills)) if fills else mx.Plan(*made)


@st.composite
def plans_on(
    draw: st.DrawFn, rows: int, shape: tuple[int, ...], *, k: int | None = None, shifts: bool | None = None, **more: Any
) -> mx.Plan:
    """``made_plan`` for any seed; None draws k of 1 or 2, and whether donors lie elsewhere."""
    k = draw(st.integers(1, 2)) if k is None else k
    shifts = draw(st.booleans()) if shifts is None else shifts
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return made_plan(rng, rows, shape, k, shifts=shifts, **more)
