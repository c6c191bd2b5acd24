"""Rows of a GPU on whole batches of images: ceilings, Mixup, CutMix, whole chains, sizes and layouts that hurt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gpu_peers
import peers
import torch
from batches import pasted, shape_of
from chain_work import MEAN, STD
from gpu_lab import LAYOUT, Lab, Offer, Work, donors, donors_said, row, spec_of
from gpu_timing import GpuRow
from harness import Contender, Ratio

import mixops as mx

#: What is aimed at; a ratio is of times, so "copy" is the share of the copy's bytes a second.
AIMS = {
    "copy": 0.85,
    "timm": 3.5,
    "torchvision": 3.5,
    "torch.compile": 1.2,
    "timm CutMix": 4,
    "chain": 7,
    "elem": 50,
}
OURS, KEPT = "mixops", "mixops, kept output"
COMPILED = "torch.compile"
PAIRED = "timm takes the row from the end, torchvision the row before, ours and torch.compile a random permutation"


# -- ceilings ----------------------------------------------------------------------------------------------------------


def copies(lab: Lab) -> GpuRow:
    """What a copy on the device moves, at the sizes of the rows that follow."""
    contenders, sizes = [], {}
    for dtype in ("float32", "bfloat16"):
        images = lab.images(lab.large, dtype)
        kept = torch.empty_like(images[0])
        sizes[dtype] = images[0].nbytes

        def copied(x: Any, k: int, images: Sequence[Any] = images, kept: Any = kept) -> None:
            kept.copy_(images[k % len(images)])

        def doubled(x: Any, k: int, images: Sequence[Any] = images, kept: Any = kept) -> None:
            torch.mul(images[k % len(images)], 2, out=kept)

        contenders += [
            Contender(f"{dtype}: copy_", copied, moved=2 * images[0].nbytes),
            Contender(f"{dtype}: mul, kept output", doubled, moved=2 * images[0].nbytes),
        ]
    return GpuRow(
        "copies",
        f"a copy, and the least that a kernel of torch does, {shape_of(lab.large)}",
        [None],
        lab.draws,
        contenders,
        result=sizes["float32"],
    )


def launches(lab: Lab) -> GpuRow:
    """What a launch takes that does nothing."""
    one = torch.zeros(1, device=lab.device)
    return GpuRow(
        "launches",
        "launches that do nothing, or next to it",
        [None],
        lab.draws,
        [
            Contender("empty kernel", lambda x, k: lab.clock.spin(0)),
            Contender("fill_ of one number", lambda x, k: one.fill_(k)),
        ],
        host=True,
        bursts=8,
    )


# -- Mixup and CutMix --------------------------------------------------------------------------------------------------


def mixup(lab: Lab, dtype: str) -> GpuRow:
    """Out of place, one λ for the batch."""
    work, spec, device = Work(lab.images(lab.large, dtype)), spec_of(lab.large), str(lab.device)
    plans, flipped, rolled = (lab.plans(mx.Mixup(pairing=p), spec) for p in ("random", "flip", "roll"))
    kept = [lab.empty(work.inputs[0].shape, dtype) for _ in range(3)]
    timm, vision, kornia = "timm Mixup, in place", "torchvision v2 MixUp", "kornia RandomMixUpV2, own draws"
    return row(
        lab,
        f"mixup-{dtype}",
        f"{dtype} Mixup out of place, {shape_of(lab.large)}",
        work,
        [
            Offer(OURS, lambda: work.ours(plans), plans, True),
            Offer(KEPT, lambda: work.ours(plans, out=kept[0]), plans, True),
            Offer(timm, lambda: peers.timm_images(flipped), flipped, package="timm"),
            Offer(vision, lambda: gpu_peers.torchvision(rolled), rolled, package="torchvision"),
            Offer("torch expression", lambda: peers.expression(plans, device), plans),
            Offer(COMPILED, lambda: peers.compiled_mixup(plans, None, device), plans),
            Offer(f"{COMPILED}, kept output", lambda: peers.compiled_mixup(plans, kept[1], device), plans),
            *(
                [Offer(kornia, lambda: gpu_peers.kornia(lab.device, lab.large[0]), None, package="kornia")]
                if dtype == "float32"
                else []
            ),
        ],
        [
            Ratio("copy", OURS, at_least=AIMS["copy"]),
            Ratio("copy", KEPT),
            Ratio(timm, OURS, at_least=AIMS["timm"]),
            Ratio(vision, OURS, at_least=AIMS["torchvision"]),
            Ratio(COMPILED, OURS, at_least=AIMS["torch.compile"]),
            Ratio(f"{COMPILED}, kept output", KEPT),
            Ratio("torch expression", OURS),
            *([Ratio(kornia, OURS)] if dtype == "float32" else []),
        ],
        moved=2.0 * work.result,
        notes=(PAIRED, donors_said(donors(plans, work.result / lab.large[0]))),
        host=True,
    )


def mixup_in_place(lab: Lab, dtype: str) -> GpuRow:
    """Flip pairs over their own input."""
    work, spec = Work(lab.images(lab.large, dtype)), spec_of(lab.large)
    plans = lab.plans(mx.Mixup(pairing="flip"), spec)
    timm = "timm Mixup, mode=batch"
    return row(
        lab,
        f"mixup-inplace-{dtype}",
        f"{dtype} Mixup in place, flip pairs, {shape_of(lab.large)}",
        work,
        [
            Offer(OURS, lambda: work.ours(plans, in_place=True), plans, True),
            Offer(timm, lambda: peers.timm_images(plans), plans, package="timm"),
            Offer(COMPILED, lambda: gpu_peers.compiled_in_place(plans, lab.device), plans),
        ],
        [
            Ratio("copy", OURS, at_least=AIMS["copy"]),
            Ratio(timm, OURS, at_least=AIMS["timm"]),
            Ratio(COMPILED, OURS, at_least=AIMS["torch.compile"]),
        ],
        moved=2.0 * work.result,
        notes=("pairs are read and written together: no donor is read twice",),
        host=True,
    )


def cutmix_in_place(lab: Lab, dtype: str) -> GpuRow:
    """Boxes exchanged between flip pairs."""
    work, spec = Work(lab.images(lab.large, dtype)), spec_of(lab.large)
    plans = lab.plans(mx.CutMix(pairing="flip"), spec)
    timm = "timm CutMix, mode=batch"
    return row(
        lab,
        f"cutmix-inplace-{dtype}",
        f"{dtype} CutMix in place, flip pairs, {shape_of(lab.large)}",
        work,
        [
            Offer(OURS, lambda: work.ours(plans, in_place=True), plans, True),
            Offer(timm, lambda: peers.timm_images(plans), plans, package="timm"),
        ],
        [
            Ratio(timm, OURS, at_least=AIMS["timm CutMix"] if dtype == "bfloat16" else None),
            Ratio("floor", OURS),
        ],
        moved=2 * pasted(plans, 3, work.inputs[0].element_size()),
        notes=("bytes: what lies in the boxes, read once and written once",),
        host=True,
    )


def cutmix(lab: Lab, dtype: str) -> GpuRow:
    """Out of place."""
    work, spec = Work(lab.images(lab.large, dtype)), spec_of(lab.large)
    plans, rolled = lab.plans(mx.CutMix(), spec), lab.plans(mx.CutMix(pairing="roll"), spec)
    vision = "torchvision v2 CutMix"
    return row(
        lab,
        f"cutmix-{dtype}",
        f"{dtype} CutMix out of place, {shape_of(lab.large)}",
        work,
        [
            Offer(OURS, lambda: work.ours(plans), plans, True),
            Offer(vision, lambda: gpu_peers.torchvision(rolled), rolled, package="torchvision"),
        ],
        [Ratio("copy", OURS), Ratio(vision, OURS)],
        moved=2.0 * work.result,
        notes=(PAIRED, donors_said(donors(plans, work.result / lab.large[0]))),
    )


def elem(lab: Lab, kind: str, dtype: str) -> GpuRow:
    """A λ or a box for each row, in place, beside timm's loop over rows."""
    work, spec = Work(lab.images(lab.large, dtype)), spec_of(lab.large)
    op: mx.Operator = (mx.Mixup if kind == "Mixup" else mx.CutMix)(pairing="flip", per="sample")
    plans, peer = lab.plans(op, spec), f"timm {kind}, mode=elem"
    moved = 2.0 * work.result if kind == "Mixup" else 2 * pasted(plans, 3, work.inputs[0].element_size())
    return row(
        lab,
        f"elem-{kind.lower()}-{dtype}",
        f"{dtype} {kind}, a choice for each row, in place, flip pairs, {shape_of(lab.large)}",
        work,
        [
            Offer(OURS, lambda: work.ours(plans, in_place=True), plans, True),
            Offer(peer, lambda: peers.timm_images(plans, "elem"), plans, package="timm"),
        ],
        [Ratio(peer, OURS, at_least=AIMS["elem"]), Ratio("floor", OURS)],
        moved=moved,
        notes=("timm calls a kernel or four for each row: what is timed is its host",),
        bursts=1,
        host=True,
    )


# -- whole chains ------------------------------------------------------------------------------------------------------


def chain(lab: Lab, dtype: str) -> GpuRow:
    """bytes to normalised numbers, mixed, with a box erased in a quarter of the rows, or one in all of them."""
    to = mx.Output(LAYOUT, dtype, MEAN, STD)
    work = Work(lab.images(lab.large, "uint8"), to=to, fill="mean", tolerance=0.08 if dtype == "bfloat16" else 1e-5)
    spec, kind = spec_of(lab.large), getattr(torch, dtype)
    each = lab.plans(mx.Mixup(pairing="flip") | mx.RandomErasing(p=0.25), spec)
    shared = lab.plans(mx.Mixup(pairing="roll") | mx.RandomErasing(per="batch"), spec)
    whole, timm, vision = "mixops, a box for all", "timm's chain", "torchvision's chain, a box for all"
    return row(
        lab,
        f"chain-{dtype}",
        f"uint8 → Mixup → erasing → normalised {dtype}, {shape_of(lab.large)}",
        work,
        [
            Offer(OURS, lambda: work.ours(each), each, True),
            Offer(whole, lambda: work.ours(shared), shared, True),
            Offer(timm, lambda: gpu_peers.timm_chain(each, lab.device, kind), each, package="timm"),
            Offer(vision, lambda: gpu_peers.torchvision_chain(shared, kind), shared, package="torchvision"),
            Offer(COMPILED, lambda: gpu_peers.compiled_chain(each, lab.device, kind), each),
        ],
        [
            Ratio(timm, OURS, at_least=AIMS["chain"] if dtype == "bfloat16" else None),
            Ratio(vision, whole, at_least=AIMS["chain"] if dtype == "bfloat16" else None),
            Ratio(COMPILED, OURS),
            Ratio("floor", OURS),
        ],
        moved=float(work.inputs[0].nbytes + work.result),
        notes=(
            "timm erases a box in each row with probability 1/4, row by row; torchvision one box for the batch",
            donors_said(donors(each, work.inputs[0].nbytes / lab.large[0])),
        ),
        host=True,
    )


# -- layouts and sizes -------------------------------------------------------------------------------------------------


def planes(lab: Lab) -> GpuRow:
    """bytes with channels last to normalised planes."""
    to = mx.Output(LAYOUT, "bfloat16", MEAN, STD)
    work = Work(lab.images(lab.large, "uint8", "b h w c"), "b h w c", to=to, tolerance=0.08)
    plans = lab.plans(mx.Mixup(), spec_of(lab.large))
    return row(
        lab,
        "nhwc-nchw",
        f"uint8 b h w c → Mixup → normalised bfloat16 b c h w, {shape_of(lab.large)}",
        work,
        [
            Offer(OURS, lambda: work.ours(plans), plans, True),
            Offer("torch", lambda: gpu_peers.eager_planes(plans, lab.device, torch.bfloat16), plans),
            Offer(COMPILED, lambda: gpu_peers.compiled_chain(plans, lab.device, torch.bfloat16, last=True), plans),
        ],
        [Ratio("floor", OURS), Ratio("torch", OURS), Ratio(COMPILED, OURS)],
        moved=float(work.inputs[0].nbytes + work.result),
        notes=(donors_said(donors(plans, work.inputs[0].nbytes / lab.large[0])),),
    )


def odd(lab: Lab, dtype: str) -> GpuRow:
    """Rows that begin at addresses of every kind, so that no 16 bytes can be read at once."""
    work = Work(lab.images(lab.odd, dtype, "b h w c"), "b h w c")
    plans = lab.plans(mx.Mixup(), spec_of(lab.odd))
    device = str(lab.device)
    return row(
        lab,
        f"odd-{dtype}",
        f"{dtype} Mixup of b h w c images whose rows are no multiple of 16 bytes, {shape_of(lab.odd)}",
        work,
        [
            Offer(OURS, lambda: work.ours(plans), plans, True),
            Offer("torch expression", lambda: peers.expression(plans, device), plans),
            *([Offer(COMPILED, lambda: peers.compiled_mixup(plans, None, device), plans)] if dtype != "uint8" else []),
        ],
        [
            Ratio("copy", OURS),
            Ratio("torch expression", OURS),
            *([Ratio(COMPILED, OURS)] if dtype != "uint8" else []),
        ],
        moved=2.0 * work.result,
        notes=(donors_said(donors(plans, work.result / lab.odd[0])),),
    )


CEILINGS: dict[str, Callable[[Lab], GpuRow]] = {"copies": copies, "launches": launches}
IMAGES: dict[str, Callable[[Lab], GpuRow]] = {
    "mixup-float32": lambda lab: mixup(lab, "float32"),
    "mixup-bfloat16": lambda lab: mixup(lab, "bfloat16"),
    "mixup-inplace-float32": lambda lab: mixup_in_place(lab, "float32"),
    "mixup-inplace-bfloat16": lambda lab: mixup_in_place(lab, "bfloat16"),
    "cutmix-bfloat16": lambda lab: cutmix(lab, "bfloat16"),
    "cutmix-inplace-bfloat16": lambda lab: cutmix_in_place(lab, "bfloat16"),
    "elem-mixup-bfloat16": lambda lab: elem(lab, "Mixup", "bfloat16"),
    "elem-cutmix-bfloat16": lambda lab: elem(lab, "CutMix", "bfloat16"),
    "chain-bfloat16": lambda lab: chain(lab, "bfloat16"),
    "chain-float32": lambda lab: chain(lab, "float32"),
    "nhwc-nchw": planes,
    "odd-uint8": lambda lab: odd(lab, "uint8"),
    "odd-bfloat16": lambda lab: odd(lab, "bfloat16"),
}
