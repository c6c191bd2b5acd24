"""Rows of a GPU with every operator of the library, each beside Mixup, or a copy, of the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from batches import shape_of
from gpu_lab import Lab, Offer, Work, donors, row, spec_of
from gpu_timing import GpuRow
from harness import Ratio

import mixops as mx

#: Every operator at Mixup's bytes a second, or at the copy's, but for 15 %.
SHARE = 0.85
IMAGES: dict[str, mx.Operator] = {
    "Mixup": mx.Mixup(),
    "Mixup, per sample": mx.Mixup(per="sample"),
    "CutMix": mx.CutMix(),
    "CutMix, per sample": mx.CutMix(per="sample"),
    "Cutout": mx.Cutout(fraction=0.25),
    "RandomErasing": mx.RandomErasing(),
    "RandomErasing, channel noise": mx.RandomErasing(noise="channel", std=0.2),
    "RandomErasing, pixel noise": mx.RandomErasing(noise="pixel", std=0.2),
    "OneOf": mx.OneOf([mx.Mixup(0.8), mx.CutMix()]),
    "OneOf, per sample": mx.OneOf([mx.Mixup(0.8), mx.CutMix(), mx.Cutout(16)], p=[0.4, 0.3, 0.2], per="sample"),
    "Sometimes": mx.Sometimes(mx.CutMix(per="sample"), 0.5, per="sample"),
    "Chain": mx.Mixup(0.8) | mx.RandomErasing(p=0.25),
}
STATES: dict[str, mx.Operator] = {
    "Mixup": mx.Mixup(),
    "WordMixup": mx.WordMixup(),
    "SentenceMixup": mx.SentenceMixup(),
    "ManifoldMixup": mx.ManifoldMixup(["input", "layer1"]),
    "TMix": mx.TMix([7, 9, 12]),
    "SeqMix": mx.SeqMix("sub", 5, 3),
    "Cutoff": mx.Cutoff(0.1),
    "Cutoff, feature": mx.Cutoff(0.1, "feature"),
    "HiddenCut": mx.HiddenCut("layer1", share=0.1),
}
IDS: dict[str, mx.Operator] = {
    "CutMix": mx.CutMix(),
    "SpanMix": mx.SpanMix(0.1),
    "SSMix": mx.SSMix(0.1),
    "Cutoff": mx.Cutoff(0.1, "span"),
}
EDITS: dict[str, mx.Operator] = {"TokenSwap": mx.TokenSwap(0.05), "TokenDelete": mx.TokenDelete(0.05)}
#: Draws of a row on tokens: plans of many patches take the host a while.
FEW = 2


def evidence(op: mx.Operator, spec: mx.Spec) -> dict[str, np.ndarray]:
    """Lengths of half a row up to a whole one, random scores, halves and tags: what an operator asks for."""
    rng, extent = np.random.default_rng(0), spec.shape[-1] if spec.shape else 1
    made: dict[str, np.ndarray] = {
        "lengths": rng.integers(max(extent // 2, 1), extent + 1, spec.n),
        "saliency": rng.normal(size=(spec.n, extent)).astype(np.float32),
        "segments": np.broadcast_to(np.arange(extent) * 2 // extent, (spec.n, extent)),
        "tags": rng.integers(0, 3, (spec.n, extent)),
    }
    return {name: made[name] for name in op.needs if name in made}


def images(lab: Lab) -> GpuRow:
    """On bfloat16 images."""
    work = Work(lab.images(lab.large, "bfloat16"))
    plans = {name: lab.plans(op, spec_of(lab.large)) for name, op in IMAGES.items()}
    title = f"every operator that draws on images, bfloat16, out of place, {shape_of(lab.large)}"
    return _row(lab, "operators-images", title, work, plans, "Mixup", lab.large[0], lab.draws)


def states(lab: Lab) -> GpuRow:
    """On bfloat16 hidden states."""
    work = Work(lab.states("bfloat16"), "b t d")
    b, t, d = lab.hidden
    plans = {}
    for name, op in STATES.items():
        shape = (t, d) if name == "Cutoff, feature" else (t,)
        plans[name] = _few(op, mx.Spec(b, shape))
    title = f"every operator that draws on hidden states, bfloat16, out of place, {lab.hidden}"
    layouts = {"Cutoff, feature": "b h w"}
    return _row(lab, "operators-states", title, work, plans, "Mixup", b, FEW, layouts=layouts)


def ids(lab: Lab) -> GpuRow:
    """On ids of which spans are mixed."""
    work = Work(lab.ids(lab.tokens), "b t", "discrete", fill=0)
    plans = {name: _few(op, mx.Spec(lab.tokens[0], lab.tokens[1:])) for name, op in IDS.items()}
    title = f"every operator that draws spans of ids, int64, out of place, {lab.tokens}"
    return _row(lab, "operators-ids", title, work, plans, "copy", lab.tokens[0], FEW)


def edits(lab: Lab) -> GpuRow:
    """On ids that are edited one by one: dozens of patches a row, so that plans travel apart from the launch."""
    work = Work(lab.ids(lab.edits), "b t", "discrete", fill=0)
    plans = {name: _few(op, mx.Spec(lab.edits[0], lab.edits[1:])) for name, op in EDITS.items()}
    swaps = plans["TokenSwap"]
    placed = [mx.DevicePlan(plan, lab.device) for plan in swaps]
    there = "TokenSwap, DevicePlan"
    moved = Offer(there, partial(replace(work, fill=None).ours, placed), swaps, True)
    title = f"every operator that edits ids, int64, out of place, {lab.edits}"
    note = f"a plan of TokenSwap takes {4 * placed[0].packing.words / 1e6:.3g} MB"
    return _row(lab, "operators-edits", title, work, plans, "copy", lab.edits[0], FEW, more=[moved], notes=[note])


def _few(op: mx.Operator, spec: mx.Spec) -> list[Any]:
    given = evidence(op, spec)
    return [op.draw(np.random.default_rng(k), spec, **given) for k in range(FEW)]


def _row(
    lab: Lab,
    name: str,
    title: str,
    work: Work,
    plans: Mapping[str, Sequence[mx.Plan]],
    base: str,
    rows: int,
    draws: int,
    *,
    layouts: Mapping[str, str] = MappingProxyType({}),
    more: Sequence[Offer] = (),
    notes: Sequence[str] = (),
) -> GpuRow:
    """All of them in turn; each is held to its plans, and compared with one."""
    offers = []
    for who, drawn in plans.items():
        own = replace(work, layout=layouts[who]) if who in layouts else work
        offers.append(Offer(who, partial(own.ours, drawn), drawn, True, work=own))
    besides = ", ".join(f"{who} {donors(drawn, work.result / rows):.3g}" for who, drawn in plans.items())
    told = ["bytes count each input and each result once", f"donors, MB more a call: {besides}", *notes]
    offers += more
    ratios = [Ratio(base, offer.name, at_least=SHARE) for offer in offers if offer.name != base]
    return row(lab, name, title, work, offers, ratios, moved=2.0 * work.result, notes=told, draws=draws)


ROWS: dict[str, Callable[[Lab], GpuRow]] = {
    "operators-images": images,
    "operators-states": states,
    "operators-ids": ids,
    "operators-edits": edits,
}
