"""Rows that start from uint8 samples: Mixup while collating, and the whole chain to a normalised float batch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import peers
import torch
from batches import LAYOUT, Setup, Step, off, plans_of, shape_of
from harness import Contender, Ratio, Row, measure, rotation

import mixops as mx

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# -- uint8 from a list of samples --------------------------------------------------------------------------------------


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


# -- the whole chain ---------------------------------------------------------------------------------------------------


def chain(setup: Setup, threads: int) -> Iterator[dict[str, Any]]:
    """uint8 NHWC samples to a CutMixed, cut out, normalised float32 NCHW batch with soft targets."""
    torch.set_num_threads(threads)
    n, extent = setup.large
    op = mx.CutMix(pairing="flip") | mx.Cutout(extent // 4)
    spec, tail = setup.spec(setup.large), mx.Output(LAYOUT, "float32", mean=MEAN, std=STD)
    plans = plans_of(op, spec, setup.shares)
    rng = np.random.default_rng(0)
    size = n * extent * extent * 3
    arrays = [rng.integers(0, 256, (n, extent, extent, 3), np.uint8) for _ in range(rotation(size))]
    labels = [rng.integers(0, setup.classes, n) for _ in arrays]
    batches = [
        {
            "tensors": (torch.from_numpy(a), torch.from_numpy(y)),
            "views": [(sample.transpose(2, 0, 1), int(label)) for sample, label in zip(a, y, strict=True)],
            "samples": [(sample, int(label)) for sample, label in zip(a, y, strict=True)],
        }
        for a, y in zip(arrays, labels, strict=True)
    ]
    kept, compiled_out = (torch.ones(n, 3, extent, extent) for _ in range(2))
    kept_array = kept.numpy()
    ways = peers.Chain(plans, MEAN, STD, setup.classes)
    plain, fused, timm = ways.plain(), ways.compiled(compiled_out), ways.timm()

    def array(batch: Any, k: int) -> Any:
        images, targets = batch["tensors"]
        plan = op.draw(np.random.default_rng(k), spec)
        mixed = mx.mix(images, plan, "b h w c", fill="mean", to=tail, out=kept)
        return mixed, mx.soft_targets(targets, plan, setup.classes)

    def listed(batch: Any, k: int) -> Any:
        plan = op.draw(np.random.default_rng(k), spec)
        images = [image for image, _ in batch["samples"]]
        mixed = mx.mix(images, plan, "b h w c", fill="mean", to=tail, out=kept_array)
        return mixed, mx.soft_targets(np.array([label for _, label in batch["samples"]]), plan, setup.classes)

    def images_only(batch: Any, k: int) -> Any:
        return mx.mix(batch["tensors"][0], plans[k], "b h w c", fill="mean", to=tail, out=kept)

    steps: dict[str, Step] = {
        "torch, op by op": lambda batch, k: plain(batch["tensors"], k),
        "timm FastCollateMixup, normalise, erase": lambda batch, k: timm(batch["views"], k),
        "torch.compile, images only, kept output": lambda batch, k: fused(batch["tensors"][0], k),
        "mixops, array": array,
        "mixops, list of samples": listed,
        "mixops, array, images only": images_only,
    }

    def check(step: Step) -> float:
        k, batch = len(plans) - 1, batches[0]
        result = step(batch, k)
        images, targets = batch["tensors"]
        expected = mx.mix(images, plans[k], "b h w c", fill="mean", to=tail, backend="torch")
        if not isinstance(result, tuple):
            return off(result, expected)
        return max(off(result[0], expected), off(result[1], mx.soft_targets(targets, plans[k], setup.classes)))

    row = Row(
        f"chain-{threads}",
        f"uint8 NHWC to CutMix, Cutout, normalised float32 NCHW and soft targets, {shape_of(setup.large)}",
        batches,
        len(plans),
        [Contender(name, step, name.startswith("mixops"), partial(check, step)) for name, step in steps.items()],
        [
            Ratio("torch, op by op", "mixops, array"),
            Ratio("timm FastCollateMixup, normalise, erase", "mixops, list of samples"),
            Ratio("torch.compile, images only, kept output", "mixops, array, images only"),
        ],
        moved=5.0 * size,
        result=4 * size,
        threads=threads,
        tolerance=1e-5,
    )
    try:
        yield measure(row, setup.rounds)
    finally:
        torch.set_num_threads(1)
