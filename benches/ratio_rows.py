"""Rows that hold mixops to itself: ragged sizes, parameters of each row's own, and two threads beside one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from batches import Setup, Step, Tensors, pasted, shape_of
from harness import Contender, FloorCopy, Ratio, Row, measure
from op_rows import INSIDE, ROUNDING, mixer

import mixops as mx

# -- ragged sizes ------------------------------------------------------------------------------------------------------


def ragged(setup: Setup, kind: str, dtype: str) -> Iterator[dict[str, Any]]:
    """Images of 223, 225 and 37 pixels beside 224, in batches of as many pixels."""
    rows, extent = setup.large
    sizes = [extent, extent - 1, extent + 1, 37 if extent > 37 else 5]
    every = [
        Tensors.of(
            setup, (round(rows * extent**2 / size**2), size), mixer(kind, pairing="derange"), setup.shares, dtype
        )
        for size in sizes
    ]
    contenders = []
    for size, data in zip(sizes, every, strict=True):
        images = data.images(data.plans)
        batches = data.batches

        def step(turn: int, k: int, images: Step = images, batches: Sequence[Any] = batches) -> Any:
            return images(batches[turn % len(batches)], k)

        check = data.check(images, data.plans)
        contenders.append(Contender(f"mixops, images only, {size} px", step, True, check, 2.0 * data.bytes))
    even = contenders[0].name
    row = Row(
        f"ragged-{kind.lower()}-{dtype}",
        f"{dtype} {kind} out of place at {', '.join(map(str, sizes))} pixels, batches of as many pixels in all",
        range(64),
        setup.shares,
        contenders,
        [Ratio(c.name, even, at_most=1.5) for c in contenders[1:]],
        2.0 * every[0].bytes,
        every[0].bytes,
        tolerance=ROUNDING[dtype],
        notes=("the batches differ in pixels by 1 % at most, as rows are whole",),
    )
    yield measure(row, setup.rounds)


# -- per sample beside per batch ---------------------------------------------------------------------------------------


def per_sample(setup: Setup, kind: str, pairing: str, name: str) -> Iterator[dict[str, Any]]:
    """λ and boxes of each row's own beside one for the batch; every row meets every box once: the areas are equal."""
    data = Tensors.of(setup, setup.large, mixer(kind, pairing=pairing), setup.boxes)
    inside = pairing == "flip"
    where = "in place, flip pairs" if inside else "out of place, random permutation"
    row = Row(
        name,
        f"float32 {kind} {where}, per sample beside per batch, {shape_of(setup.large)}",
        data.batches,
        len(data.plans),
        [
            data.contender(name, data.images(plans, in_place=inside), ours=True, plans=plans)
            for name, plans in (("per batch", data.plans), ("per sample", _dealt_out(data.plans)))
        ],
        [Ratio("per sample", "per batch", at_most=1.05)],
        2 * (pasted(data.plans, 3, 4) if kind == "CutMix" and inside else data.bytes),
        data.bytes,
        tolerance=ROUNDING["float32"],
        notes=("images only",),
    )
    yield measure(row, setup.rounds)


def _dealt_out(plans: Sequence[mx.Plan]) -> list[mx.Plan]:
    """Row i of plan k takes λ and box from plan i + k."""

    def dealt(k: int, plan: mx.Plan) -> mx.Plan:
        from_plan = ((np.arange(plan.n) + k) % len(plans)).tolist()
        taken: dict[str, Any] = {
            name: np.stack([getattr(plans[other], name)[i] for i, other in enumerate(from_plan)])
            for name in ("box", "donor", "opacity", "weight")
        }
        return replace(plan, **taken)

    return [dealt(k, plan) for k, plan in enumerate(plans)]


# -- two threads beside one --------------------------------------------------------------------------------------------


def threads(setup: Setup, kind: str, dtype: str, inside: bool, name: str) -> Iterator[dict[str, Any]]:
    """Images on one thread and on two, and what the floor gains by the second."""
    pairing = "flip" if inside else "random"
    one = Tensors.of(setup, setup.large, mixer(kind, pairing=pairing), setup.shares, dtype)
    two = replace(one, threads=2)
    moved = 2 * (pasted(one.plans, 3, one.kept.itemsize) if kind == "CutMix" and inside else one.bytes)
    floors = {f"floor, {count} thread{'s' * (count > 1)}": FloorCopy(int(moved) // 2, count) for count in (1, 2)}
    turns = iter(range(1 << 40))

    def copied(floor: FloorCopy, batch: Any, k: int) -> None:
        floor.step(next(turns))

    row = Row(
        name,
        f"{dtype} {kind} {'in place, flip pairs' if inside else 'out of place'}, one and two threads, "
        f"{shape_of(setup.large)}",
        one.batches,
        len(one.plans),
        [
            one.contender("mixops, 1 thread", one.images(one.plans, in_place=inside), ours=True),
            two.contender("mixops, 2 threads", two.images(two.plans, in_place=inside), ours=True),
            *(Contender(label, partial(copied, floor)) for label, floor in floors.items()),
        ],
        [Ratio("mixops, 1 thread", "mixops, 2 threads", at_least=1.6), Ratio(*floors)],
        moved,
        one.bytes,
        threads=2,
        tolerance=ROUNDING[dtype],
        notes=("images only; the ratio of the floors is what the memory gives a second thread", *[INSIDE] * inside),
    )
    yield measure(row, setup.rounds)


def _per_sample(kind: str, pairing: str, name: str) -> Callable[[Setup], Iterator[dict[str, Any]]]:
    return lambda s: per_sample(s, kind, pairing, name)


ROWS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {
    "ragged-cutmix-float32": lambda s: ragged(s, "CutMix", "float32"),
    "ragged-mixup-float32": lambda s: ragged(s, "Mixup", "float32"),
    "ragged-mixup-uint8": lambda s: ragged(s, "Mixup", "uint8"),
    "per-sample-mixup-inplace": _per_sample("Mixup", "flip", "per-sample-mixup-inplace"),
    "per-sample-mixup-out": _per_sample("Mixup", "random", "per-sample-mixup-out"),
    "per-sample-cutmix-inplace": _per_sample("CutMix", "flip", "per-sample-cutmix-inplace"),
    "per-sample-cutmix-out": _per_sample("CutMix", "random", "per-sample-cutmix-out"),
    "threads-mixup-out": lambda s: threads(s, "Mixup", "float32", False, "threads-mixup-out"),
    "threads-mixup-inplace": lambda s: threads(s, "Mixup", "float32", True, "threads-mixup-inplace"),
    "threads-cutmix-out": lambda s: threads(s, "CutMix", "float32", False, "threads-cutmix-out"),
    "threads-mixup-bfloat16": lambda s: threads(s, "Mixup", "bfloat16", False, "threads-mixup-bfloat16"),
    "threads-mixup-uint8": lambda s: threads(s, "Mixup", "uint8", False, "threads-mixup-uint8"),
}
HEADLINE = (
    "ragged-cutmix-float32",
    "per-sample-mixup-out",
    "per-sample-cutmix-inplace",
    "threads-mixup-out",
    "threads-mixup-inplace",
)
