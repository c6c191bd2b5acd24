"""Rows on how the time grows with the batch and with the image: a constant overhead and a cost for each byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import peers
import torch
from batches import LAYOUT, Setup, kept_tensor, off, plans_of, stream
from fit import curves
from harness import Contender, Row, measure

import mixops as mx

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = 100


@dataclass(frozen=True)
class Point:
    """One size on a curve.

    Args:
        x: the number on the axis.
        rows: of the batch.
        extent: pixels of a side.
    """

    x: int
    rows: int
    extent: int

    @property
    def elements(self) -> int:
        return self.rows * 3 * self.extent * self.extent


def batch_sizes(setup: Setup) -> list[Point]:
    most = 4 if setup.tiny else 256
    return [Point(n, n, setup.large[1]) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n <= most]


def image_sizes(setup: Setup) -> list[Point]:
    most = 32 if setup.tiny else 512
    return [Point(e, setup.large[0], e) for e in (16, 32, 64, 96, 128, 224, 320, 384, 512) if e <= most]


class Window:
    """Batches of any size out of one stretch of memory, each a little further on, so that none is in cache for long."""

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = memory

    def at(self, turn: int, elements: int, shape: Sequence[int]) -> torch.Tensor:
        places = max(1, self.memory.numel() // elements)
        start = (turn % places) * elements // 64 * 64
        return self.memory[start : start + elements].view(*shape)


def mixup(setup: Setup, name: str, axis: str, points: Sequence[Point]) -> Iterator[dict[str, Any]]:
    """float32 Mixup in place with its draw and its targets, beside timm."""
    most = max(p.elements for p in points)
    window = Window(torch.rand(most + (16 << 20), generator=torch.Generator().manual_seed(0)))
    op = mx.Mixup(pairing="flip")
    labels = torch.arange(max(p.rows for p in points)) % CLASSES
    contenders = []
    for p in points:
        spec = mx.Spec(p.rows, (p.extent, p.extent))
        plans = plans_of(op, spec, 1)
        timm = peers.timm(plans, CLASSES)

        def images(turn: int, p: Point = p) -> torch.Tensor:
            return window.at(turn, p.elements, (p.rows, 3, p.extent, p.extent))

        def ours(turn: int, k: int, p: Point = p, spec: mx.Spec = spec, images: Any = images) -> Any:
            x, plan = images(turn), op.draw(stream(k), spec)
            return mx.mix(x, plan, LAYOUT, out=x, threads=1), mx.soft_targets(labels[: p.rows], plan, CLASSES)

        def theirs(turn: int, k: int, p: Point = p, timm: Any = timm, images: Any = images) -> Any:
            return timm((images(turn), labels[: p.rows]), k)

        def check(step: Any, p: Point = p, plans: Any = plans, images: Any = images) -> float:
            expected = mx.mix(images(0), plans[0], LAYOUT, backend="torch")
            x, y = step(0, 0)
            return max(off(x, expected), off(y, mx.soft_targets(labels[: p.rows], plans[0], CLASSES)))

        moved = 8.0 * p.elements
        contenders.append(Contender(f"mixops, {p.x}", ours, True, lambda s=ours, c=check: c(s), moved))  # type: ignore[misc]
        if p.rows % 2 == 0:  # timm takes even batches only
            contenders.append(Contender(f"timm, {p.x}", theirs, False, lambda s=theirs, c=check: c(s), moved))  # type: ignore[misc]
    title = f"float32 Mixup in place, draw and soft targets included, over {axis}"
    yield _measured(setup, name, title, axis, points, contenders)


def chain(setup: Setup, name: str, axis: str, points: Sequence[Point]) -> Iterator[dict[str, Any]]:
    """uint8 NHWC to a CutMixed, erased, normalised float32 NCHW batch, with its draw and its targets."""
    most = max(p.elements for p in points)
    made = torch.Generator().manual_seed(0)
    window = Window(torch.randint(256, (most + (64 << 20),), generator=made, dtype=torch.uint8))
    kept = kept_tensor((most,), "float32")
    op = mx.CutMix(pairing="flip") | mx.RandomErasing()
    tail = mx.Output(LAYOUT, "float32", mean=MEAN, std=STD)
    labels = torch.arange(max(p.rows for p in points)) % CLASSES
    contenders = []
    for p in points:
        spec = mx.Spec(p.rows, (p.extent, p.extent))
        out = kept[: p.elements].view(p.rows, 3, p.extent, p.extent)
        shape = (p.rows, p.extent, p.extent, 3)

        def step(turn: int, k: int, p: Point = p, spec: mx.Spec = spec, out: Any = out, shape: Any = shape) -> Any:
            plan = op.draw(stream(k), spec)
            x = window.at(turn, p.elements, shape)
            mixed = mx.mix(x, plan, "b h w c", fill="mean", to=tail, out=out, threads=1)
            return mixed, mx.soft_targets(labels[: p.rows], plan, CLASSES)

        def check(p: Point = p, spec: mx.Spec = spec, shape: Any = shape, step: Any = step) -> float:
            plan = op.draw(stream(0), spec)
            x = window.at(0, p.elements, shape)
            return off(step(0, 0)[0], mx.mix(x, plan, "b h w c", fill="mean", to=tail, backend="torch"))

        contenders.append(Contender(f"mixops, {p.x}", step, True, check, 5.0 * p.elements))
    title = f"uint8 NHWC to CutMix, erasing, normalised float32 NCHW, draw and soft targets included, over {axis}"
    yield _measured(setup, name, title, axis, points, contenders)


def _measured(
    setup: Setup, name: str, title: str, axis: str, points: Sequence[Point], contenders: Sequence[Contender]
) -> dict[str, Any]:
    row = Row(
        name,
        title,
        range(64),
        1,
        contenders,
        tolerance=1e-5,
        notes=(
            "the line is fitted to relative deviations; batches that fit into a cache are cheaper by the byte, and "
            "from 16 MiB on results go past it: both bend the curve",
        ),
    )
    measured = measure(row, setup.rounds)
    moved = {c.name: float(c.moved or 0) for c in contenders}
    measured["curves"] = curves(measured["contenders"], moved, axis)
    return measured


ROWS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {
    "scale-batch-mixup": lambda s: mixup(s, "scale-batch-mixup", "rows of a batch", batch_sizes(s)),
    "scale-batch-chain": lambda s: chain(s, "scale-batch-chain", "rows of a batch", batch_sizes(s)),
    "scale-image-mixup": lambda s: mixup(s, "scale-image-mixup", "pixels of a side", image_sizes(s)),
    "scale-image-chain": lambda s: chain(s, "scale-image-chain", "pixels of a side", image_sizes(s)),
}
HEADLINE = tuple(ROWS)
