"""Rows on single operations at the size of photographs: Mixup, CutMix and erasing, beside every peer that has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import peers
from batches import LAYOUT, Setup, Step, Tensors, kept_memory, off, pasted, plans_of, shape_of, stream
from harness import Contender, Ratio, Row, measure, rotation

import mixops as mx

#: How far averages may be apart: they may be rounded in another order, and the peers round bfloat16 and float16 more
#: than once. Pasted values do not differ, but shares of labels do.
ROUNDING = {"float32": 1e-6, "bfloat16": 1.6e-2, "float16": 2e-3, "uint8": 1}
PERMUTED = "the peer's partner is the row before, ours any row of a random permutation"
AIMS = (
    "aims against the floor and torch.compile are on the images alone, which is all that those do; aims against timm "
    "and torchvision are on mixops' draw, images and soft targets together"
)
NEW = "a new output lies in memory that mx.pool recycles once nobody holds its last result"
INSIDE = "in place the floor is a copy of the same bytes; it touches two stretches of memory, the operation only one"


def rolled(plans: Sequence[mx.Plan]) -> list[mx.Plan]:
    """The same λ and boxes with the row before as the partner."""
    before = [np.roll(np.arange(plan.n), 1)[:, None] for plan in plans]
    return [replace(plan, partner=partner) for plan, partner in zip(plans, before, strict=True)]


def mixer(kind: str, **options: Any) -> mx.Operator:
    return mx.Mixup(**options) if kind == "Mixup" else mx.CutMix(**options)


# -- in place ----------------------------------------------------------------------------------------------------------


def in_place(
    setup: Setup,
    kind: str,
    size: tuple[int, int],
    name: str,
    batch_aim: float | None = None,
    each_aim: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Flip pairs in place, beside timm: one choice for the batch (mode batch), and one for each row (mode elem)."""
    draws = setup.shares if kind == "Mixup" else setup.boxes
    data = Tensors.of(setup, size, mixer(kind, pairing="flip"), draws)
    each = data.drawing(mixer(kind, pairing="flip", per="sample"))
    batchwise, rowwise = f"timm {kind}, mode=batch", f"timm {kind}, mode=elem"
    row = Row(
        name,
        f"float32 {kind} in place, flip pairs, {shape_of(size)}",
        data.batches,
        draws,
        [
            data.contender(batchwise, peers.timm(data.plans, data.classes)),
            each.contender(rowwise, peers.timm(each.plans, data.classes, "elem")),
            data.contender("mixops", data.whole(in_place=True), ours=True),
            data.contender("mixops, images only", data.images(data.plans, in_place=True), ours=True),
            each.contender("mixops, per sample", each.whole(in_place=True), ours=True),
        ],
        [
            Ratio(batchwise, "mixops", at_least=batch_aim),
            Ratio(rowwise, "mixops, per sample", at_least=each_aim),
            Ratio("mixops, images only", "floor"),
        ],
        moved=2 * (data.bytes if kind == "Mixup" else pasted(data.plans, 3, 4)),
        result=data.bytes,
        tolerance=ROUNDING["float32"],
        notes=(AIMS, INSIDE),
    )
    yield measure(row, setup.rounds)


# -- out of place ------------------------------------------------------------------------------------------------------


def mixup_out(
    setup: Setup, size: tuple[int, int], name: str, dtype: str = "float32", aims: dict[str, float] | None = None
) -> Iterator[dict[str, Any]]:
    """Mixup with a random permutation into a kept buffer, beside all that blend this dtype; and in place."""
    aims = aims or {}
    data = Tensors.of(setup, size, mx.Mixup(), setup.shares, dtype)
    plans, kept, new, inside = data.plans, "mixops, images only", "mixops, images only, new output", "in place"
    contenders = [
        data.contender("mixops", data.whole(in_place=False), ours=True),
        data.contender(kept, data.images(plans), ours=True),
        data.contender(new, data.images(plans, new=True), ours=True),
        data.contender(f"{kept}, {inside}", data.images(plans, in_place=True), ours=True),
        data.contender("torch expression", data.unpacked(peers.expression(plans))),
        data.contender("torch.compile, fresh output", data.unpacked(peers.compiled_mixup(plans, None))),
        data.contender("torch.compile, kept output", data.unpacked(peers.compiled_mixup(plans, data.kept.clone()))),
    ]
    ratios = [
        Ratio(kept, "floor", at_most=aims.get("floor")),
        Ratio(f"{kept}, {inside}", "floor", at_most=aims.get("floor, in place")),
        Ratio("torch.compile, kept output", kept, at_least=aims.get("torch.compile")),
        Ratio("torch.compile, fresh output", new),
        Ratio("torch expression", kept),
    ]
    notes = [AIMS, INSIDE, NEW]
    if dtype != "uint8":
        step = peers.torchvision(plans, data.classes)
        contenders.append(data.contender("torchvision v2 Mixup", step, plans=rolled(plans)))
        ratios.append(Ratio("torchvision v2 Mixup", "mixops", at_least=aims.get("torchvision")))
        notes.append(PERMUTED)
    if dtype == "float32":
        contenders.append(Contender("kornia RandomMixUpV2, own draws", peers.kornia_mixup()))
        ratios.append(Ratio("kornia RandomMixUpV2, own draws", "mixops"))
    else:
        notes.append(f"timm and kornia, and torchvision for uint8, do not blend {dtype} tensors of this kind or refuse")
    row = Row(
        name,
        f"{dtype} Mixup out of place, random permutation, {shape_of(size)}",
        data.batches,
        len(plans),
        contenders,
        ratios,
        2.0 * data.bytes,
        data.bytes,
        tolerance=ROUNDING[dtype],
        notes=notes,
    )
    yield measure(row, setup.rounds)


def cutmix_out(
    setup: Setup, size: tuple[int, int], name: str, aims: dict[str, float] | None = None
) -> Iterator[dict[str, Any]]:
    """CutMix with a random permutation into a kept buffer, beside torchvision and torch.compile."""
    aims = aims or {}
    data = Tensors.of(setup, size, mx.CutMix(), setup.boxes)
    plans = data.plans
    compiled = data.unpacked(peers.compiled_cutmix(plans, data.kept.clone()))
    row = Row(
        name,
        f"float32 CutMix out of place, random permutation, {shape_of(size)}",
        data.batches,
        len(plans),
        [
            data.contender("torchvision v2 CutMix", peers.torchvision(plans, data.classes), plans=rolled(plans)),
            data.contender("mixops", data.whole(in_place=False), ours=True),
            data.contender("mixops, images only", data.images(plans), ours=True),
            data.contender("mixops, images only, new output", data.images(plans, new=True), ours=True),
            data.contender("torch.compile, kept output", compiled),
        ],
        [
            Ratio("torchvision v2 CutMix", "mixops", at_least=aims.get("torchvision")),
            Ratio("torch.compile, kept output", "mixops, images only"),
            Ratio("mixops, images only", "floor"),
        ],
        2.0 * data.bytes,
        data.bytes,
        tolerance=ROUNDING["float32"],
        notes=(AIMS, PERMUTED, NEW),
    )
    yield measure(row, setup.rounds)


# -- erasing -----------------------------------------------------------------------------------------------------------


def erasing(
    setup: Setup, size: tuple[int, int], name: str, noise: str, aim: float | None = None
) -> Iterator[dict[str, Any]]:
    """RandomErasing of every row in place, beside timm's with the same boxes."""
    draws = setup.boxes if noise == "none" else setup.shares  # pixel noise takes long, and nothing is aimed at
    data = Tensors.of(setup, size, mx.RandomErasing(noise=noise), draws)
    constant = noise == "none"
    mode = "const" if constant else "pixel"

    def whole(batch: Any, k: int) -> Any:
        plan = data.op.draw(stream(k), data.spec)
        return mx.mix(batch[0], plan, LAYOUT, out=batch[0], threads=1)

    def places(step: Step) -> float:
        """How many elements are painted on one side only: the noise itself is nobody else's."""
        k, images = len(data.plans) - 1, data.batches[0][0] + 1000  # noise meets no such number by chance
        bare = replace(data.plans[k], partner=np.full_like(data.plans[k].partner, -1), fills=mx.Fills.of(-1.0))
        expected = mx.mix(images, bare, LAYOUT, backend="torch") != images
        return float(((step((images.clone(), None), k) != images) != expected).sum())

    peer = f"timm RandomErasing, mode={mode}"
    steps = {
        peer: data.unpacked(peers.timm_erasing(data.plans, mode)),
        "mixops": whole,
        "mixops, images only": data.images(data.plans, in_place=True),
    }
    checks = {name: data.check(step, data.plans) if constant else partial(places, step) for name, step in steps.items()}
    row = Row(
        name,
        f"float32 erasing in place, one box a row, {'zeros' if constant else 'pixel noise'}, {shape_of(size)}",
        data.batches,
        len(data.plans),
        [Contender(name, step, name.startswith("mixops"), checks[name]) for name, step in steps.items()],
        [Ratio(peer, "mixops", at_least=aim), Ratio(peer, "mixops, images only")],
        moved=pasted(data.plans, 3, 4),
        result=data.bytes,
        notes=("nothing is read, and the boxes are written; " + AIMS,)
        if constant
        else ("ours replays from a saved plan and is the same on every backend; timm's does not",),
    )
    yield measure(row, setup.rounds)


# -- uint8 from a list of samples --------------------------------------------------------------------------------------


def collating(setup: Setup) -> Iterator[dict[str, Any]]:
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
    kept = kept_memory((n, 3, extent, extent), np.uint8)

    def collated(batch: Any, k: int) -> Any:
        plan = op.draw(stream(k), spec)
        mixed = mx.mix([image for image, _ in batch[1]], plan, LAYOUT, out=kept, threads=1)
        return mixed, mx.soft_targets(np.array([label for _, label in batch[1]]), plan, setup.classes)

    def gathered(batch: Any, k: int) -> Any:
        plan = op.draw(stream(k), spec).on(batch[0])
        return mx.mix(data, plan, LAYOUT, out=kept, threads=1), mx.soft_targets(labels, plan, setup.classes)

    collate = peers.timm_collate(plans, setup.classes)
    steps: dict[str, Callable[[Any, int], Any]] = {
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
        "collate-uint8",
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


FLOAT_AIMS = {"floor": 1.15, "floor, in place": 1.3, "torchvision": 7, "torch.compile": 1.2}
OTHER_AIMS = {"floor": 1.5, "floor, in place": 1.5, "torch.compile": 1}
ROWS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {
    "mixup-inplace": lambda s: in_place(s, "Mixup", s.large, "mixup-inplace", 9),
    "mixup-out": lambda s: mixup_out(s, s.large, "mixup-out", aims=FLOAT_AIMS),
    "mixup-out-bfloat16": lambda s: mixup_out(s, s.large, "mixup-out-bfloat16", "bfloat16", OTHER_AIMS),
    "mixup-out-uint8": lambda s: mixup_out(s, s.large, "mixup-out-uint8", "uint8", OTHER_AIMS),
    "mixup-out-float16": lambda s: mixup_out(s, s.large, "mixup-out-float16", "float16"),
    "cutmix-inplace": lambda s: in_place(s, "CutMix", s.large, "cutmix-inplace", 12),
    "cutmix-out": lambda s: cutmix_out(s, s.large, "cutmix-out", {"torchvision": 5}),
    "erase": lambda s: erasing(s, s.large, "erase", "none", 1.4),
    "erase-noise": lambda s: erasing(s, s.large, "erase-noise", "pixel"),
    "collate-uint8": collating,
}
HEADLINE = tuple(name for name in ROWS if name != "mixup-out-float16")
