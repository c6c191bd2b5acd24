"""Rows that start from uint8 samples: Mixup while collating."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import peers
from batches import LAYOUT, Setup, Step, off, plans_of, shape_of
from harness import Contender, Ratio, Row, measure, rotation

import mixops as mx


def uint8_collate(setup: Setup) -> Iterator[dict[str, Any]]:
    """uint8 Mixup while collating a list of samples, beside timm's FastCollateMixup."""

    n, extent = setup.large
    op = mx.Mixup(pairing="flip")
    spec = mx.Spec(n)
    plans = plans_of(op, spec, setup.shares)
    rng = np.random.default_rng(0)
    size = n * 3 * extent * extent
    data = rng.integers(0, 256, (n * rotation(size), 3, extent, extent), np.uint8)
    labels = rng.integers(0, setup.classes, len(data))
    batches = [(rows, [(data[i], int(labels[i])) for i in rows]) for rows in rng.permutation(len(data)).reshape(-1, n)]
    kept = np.ones((n, 3, extent, extent), np.uint8)

    def collated(batch: Any, k: int) -> Any:
        plan = op.draw(np.random.default_rng(k), spec)
        mixed = mx.mix([image for image, _ in batch[1]], plan, LAYOUT, out=kept)
        return mixed, mx.soft_targets(np.array([label for _, label in batch[1]]), plan, setup.classes)

    def gathered(batch: Any, k: int) -> Any:
        plan = op.draw(np.random.default_rng(k), spec).on(batch[0])
        return mx.mix(data, plan, LAYOUT, out=kept), mx.soft_targets(labels, plan, setup.classes)

    collate = peers.timm_collate(plans, setup.classes)
    steps = {
        "timm FastCollateMixup, mode=batch": lambda batch, k: collate(batch[1], k),
        "mixops, list of samples": collated,
        "mixops, rows of one array": gathered,
    }

    def check(step: Step) -> float:
        k, batch = len(plans) - 1, batches[0]
        images, targets = step(batch, k)
        expected = mx.mix(data[batch[0]], plans[k], LAYOUT, backend="reference")
        return max(off(images, expected), off(targets, mx.soft_targets(labels[batch[0]], plans[k], setup.classes)))

    row = Row(
        "mixup-uint8",
        f"uint8 Mixup while collating, flip pairs, {shape_of(setup.large)}",
        batches,
        len(plans),
        [Contender(name, step, name.startswith("mixops"), partial(check, step)) for name, step in steps.items()],
        [
            Ratio("timm FastCollateMixup, mode=batch", "mixops, list of samples", at_least=7),
            Ratio("timm FastCollateMixup, mode=batch", "mixops, rows of one array"),
        ],
        moved=2.0 * size,
        result=size,
        tolerance=1,
        notes=("timm rounds to the nearest integer, ours in 16-bit fixed point: they may differ by 1",),
    )
    yield measure(row, setup.rounds)
