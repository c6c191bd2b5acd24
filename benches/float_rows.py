"""Rows on float32 batches: Mixup and CutMix in place and out of place, erasing, per sample beside per batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import peers
from batches import LAYOUT, Floats, Setup, Step, shape_of
from harness import Contender, Ratio, Row, measure

import mixops as mx

#: Averages in float32 may be rounded in another order; pasted values may not differ at all.
ROUNDING = 1e-6
PERMUTED = "the peer's partner is the row before, ours any row of a random permutation"


def _rolled(plans: Sequence[mx.Plan]) -> list[mx.Plan]:
    """The same λ and boxes with the row before as the partner."""
    before = [np.roll(np.arange(plan.n), 1)[:, None] for plan in plans]
    return [replace(plan, partner=partner) for plan, partner in zip(plans, before, strict=True)]


def _pasted(plans: Sequence[mx.Plan], channels: int, itemsize: int) -> float:
    """Bytes inside the boxes of a plan, mean over the plans."""
    cells = [(p.box[..., 1::2] - p.box[..., 0::2]).prod(-1).sum() for p in plans]
    return float(np.mean(cells)) * channels * itemsize


# -- float32 Mixup and CutMix ------------------------------------------------------------------------------------------


def in_place(
    setup: Setup, kind: str, size: tuple[int, int], name: str, target: float | None
) -> Iterator[dict[str, Any]]:
    """Flip pairs in place, beside timm's batch mode."""
    op: mx.Operator = mx.Mixup(pairing="flip") if kind == "Mixup" else mx.CutMix(pairing="flip")
    data = Floats.of(setup, size, op, setup.shares if kind == "Mixup" else setup.boxes)
    row = Row(
        name,
        f"float32 {kind} in place, flip pairs, {shape_of(size)}",
        data.batches,
        len(data.plans),
        [
            data.contender(f"timm {kind}, mode=batch", peers.timm(data.plans, data.classes)),
            data.contender("mixops", data.whole(in_place=True), ours=True),
            data.contender("mixops, images only", data.images(data.plans, in_place=True), ours=True),
        ],
        [
            Ratio(f"timm {kind}, mode=batch", "mixops", at_least=target),
            Ratio(f"timm {kind}, mode=batch", "mixops, images only"),
        ],
        moved=2 * (data.bytes if kind == "Mixup" else _pasted(data.plans, 3, 4)),
        result=data.bytes,
        tolerance=ROUNDING,
    )
    yield measure(row, setup.rounds)


def out_of_place(
    setup: Setup, kind: str, size: tuple[int, int], name: str, targets: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """A random permutation into a kept buffer, beside torchvision, torch.compile, plain torch and kornia."""
    op: mx.Operator = mx.Mixup() if kind == "Mixup" else mx.CutMix()
    data = Floats.of(setup, size, op, setup.shares if kind == "Mixup" else setup.boxes)
    plans, compiled_out = data.plans, data.kept.clone()
    contenders = [
        data.contender(f"torchvision v2 {kind}", peers.torchvision(plans, data.classes), plans=_rolled(plans)),
        data.contender("mixops", data.whole(in_place=False), ours=True),
        data.contender("mixops, images only", data.images(plans), ours=True),
        data.contender("mixops, images only, fresh output", data.images(plans, fresh=True), ours=True),
    ]
    ratios = [
        Ratio(f"torchvision v2 {kind}", "mixops", at_least=targets.get("torchvision")),
        Ratio("torch.compile, kept output", "mixops, images only", at_least=targets.get("torch.compile")),
    ]
    if kind == "Mixup":
        kept = data.unpacked(peers.compiled_mixup(plans, compiled_out))
        fresh = data.unpacked(peers.compiled_mixup(plans, None))
        contenders += [
            data.contender("torch.compile, fresh output", fresh),
            data.contender("torch expression", data.unpacked(peers.expression(plans))),
            Contender("kornia RandomMixUpV2, own draws", peers.kornia_mixup()),
        ]
        ratios += [
            Ratio("torch.compile, fresh output", "mixops, images only, fresh output"),
            Ratio("torch expression", "mixops, images only"),
            Ratio("kornia RandomMixUpV2, own draws", "mixops"),
        ]
    else:
        kept = data.unpacked(peers.compiled_cutmix(plans, compiled_out))
    contenders.append(data.contender("torch.compile, kept output", kept))
    title = f"float32 {kind} out of place, random permutation, {shape_of(size)}"
    moved = 2.0 * data.bytes
    row = Row(
        name,
        title,
        data.batches,
        len(plans),
        contenders,
        ratios,
        moved,
        data.bytes,
        tolerance=ROUNDING,
        notes=(PERMUTED,),
    )
    yield measure(row, setup.rounds)


# -- erasing -----------------------------------------------------------------------------------------------------------


def erasing(setup: Setup, noise: str, target: float | None) -> Iterator[dict[str, Any]]:
    """RandomErasing of every row in place, beside timm's with the same boxes."""
    draws = setup.boxes if noise == "none" else setup.shares  # pixel noise takes long, and nothing is aimed at
    data = Floats.of(setup, setup.large, mx.RandomErasing(noise=noise), draws)
    constant = noise == "none"
    mode = "const" if constant else "pixel"

    def whole(batch: Any, k: int) -> Any:
        plan = data.op.draw(np.random.default_rng(k), data.spec)
        return mx.mix(batch[0], plan, LAYOUT, out=batch[0])

    def places(step: Step) -> float:
        """How many elements are painted on one side only: the noise itself is nobody else's."""
        k, images = len(data.plans) - 1, data.batches[0][0]
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
        "erase" if constant else "erase-noise",
        f"float32 erasing in place, one box a row, {'zeros' if constant else 'pixel noise'}, {shape_of(setup.large)}",
        data.batches,
        len(data.plans),
        [Contender(name, step, name.startswith("mixops"), checks[name]) for name, step in steps.items()],
        [Ratio(peer, "mixops", at_least=target), Ratio(peer, "mixops, images only")],
        moved=_pasted(data.plans, 3, 4),
        result=data.bytes,
        notes=() if constant else ("ours replays from a saved plan and is the same on every backend; timm's does not",),
    )
    yield measure(row, setup.rounds)


# -- per sample beside per batch ---------------------------------------------------------------------------------------


def per_sample(setup: Setup) -> Iterator[dict[str, Any]]:
    """λ and boxes of each row's own beside one for the batch; every row meets every box once: the areas are equal."""
    for kind, pairing in (("Mixup", "flip"), ("Mixup", "random"), ("CutMix", "flip"), ("CutMix", "random")):
        op: mx.Operator = mx.Mixup(pairing=pairing) if kind == "Mixup" else mx.CutMix(pairing=pairing)
        data = Floats.of(setup, setup.large, op, setup.boxes)
        inside = pairing == "flip"
        one, own = "per batch", "per sample"
        where = "in place, flip pairs" if inside else "out of place, random permutation"
        moved = 2 * (_pasted(data.plans, 3, 4) if kind == "CutMix" and inside else data.bytes)
        row = Row(
            f"per-sample-{kind.lower()}-{'inplace' if inside else 'out'}",
            f"float32 {kind} {where}, per sample beside per batch, {shape_of(setup.large)}",
            data.batches,
            len(data.plans),
            [
                data.contender(name, data.images(plans, in_place=inside), ours=True, plans=plans)
                for name, plans in ((one, data.plans), (own, _dealt_out(data.plans)))
            ],
            [Ratio(own, one, at_most=1.05)],
            moved,
            data.bytes,
            tolerance=ROUNDING,
            notes=("images only; 5 % are allowed for the clock",),
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
