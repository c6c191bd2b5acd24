"""Rows of a GPU where the host decides: what a call takes, small batches, and a loader beside a model that computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gpu_peers
import numpy as np
import peers
import torch
from batches import LAYOUT, shape_of
from chain_work import MEAN, STD
from gpu_lab import Lab, Offer, Work, mix, row, spec_of
from gpu_timing import GpuRow
from harness import Contender, Ratio
from mixops.pipelines import MixLoader

import mixops as mx

#: Most seconds that a call may keep the host.
HOST = 15e-6
#: Batches of a pass, and the seconds that the model beside the loader computes for each.
BATCHES, COMPUTES = 20, 5e-3
PLAN, PLACED, WRITTEN, GRAPH = "a Plan", "a DevicePlan", "a Plan written into a DevicePlan", "a graph replayed"
TWO = "two operations of torch"


def host(lab: Lab) -> GpuRow:
    """What a call keeps the host, by the way the plan takes to the device."""
    work, spec = Work(lab.images(lab.small, "float32")), spec_of(lab.small)
    plans = lab.plans(mx.Mixup(), spec)
    kept = lab.empty(work.inputs[0].shape, "float32")
    placed = [mx.DevicePlan(plan, lab.device) for plan in plans]
    one = mx.DevicePlan(plans[0], lab.device)

    def written(x: torch.Tensor, k: int) -> Any:
        one.write(plans[k])
        return mix(x, one)

    def drawn(x: torch.Tensor, k: int) -> Any:
        return mix(x, mx.Mixup().draw(np.random.default_rng(k), spec))

    offers = [
        Offer(PLAN, lambda: work.ours(plans), plans, True),
        Offer(f"{PLAN}, kept output", lambda: work.ours(plans, out=kept), plans, True),
        Offer(PLACED, lambda: work.ours(placed), plans, True),
        Offer(WRITTEN, lambda: written, plans, True),
        Offer(f"{PLAN}, drawn for the call", lambda: drawn, None, True),
        Offer(TWO, lambda: gpu_peers.two_operations(plans, lab.device), plans),
        Offer("torch.compile", lambda: peers.compiled_mixup(plans, None, str(lab.device)), plans),
    ]
    if lab.clock.gpu:
        offers.append(Offer(GRAPH, lambda: _graph(lab, work, plans), plans, True))
    ours = (PLAN, f"{PLAN}, kept output", PLACED, WRITTEN, GRAPH)
    return row(
        lab,
        "host",
        f"host time of a call, float32 Mixup, {shape_of(lab.small)}",
        work,
        offers,
        [Ratio(TWO, PLAN), Ratio("torch.compile", PLAN)],
        moved=0,
        by="host",
        bursts=8,
        most_host={offer.name: HOST for offer in offers if offer.name in ours},
        notes=("aims are on the plan being there: the draw is NumPy's, and is timed once beside them",),
    )


def _graph(lab: Lab, work: Work, plans: list[mx.Plan]) -> Callable[[Any, int], Any]:
    """A CUDA graph of one mix of one input; each step writes its plan into the memory that the graph reads."""
    x, plan = work.inputs[0].clone(), mx.DevicePlan(plans[0], lab.device)
    out = mix(x, plan)
    graph = torch.cuda.CUDAGraph()
    lab.clock.wait()
    with torch.cuda.graph(graph):
        mix(x, plan, out=out)

    def step(given: torch.Tensor, k: int) -> torch.Tensor:
        plan.write(plans[k])
        graph.replay()
        return out

    return step


def small(lab: Lab, dtype: str) -> GpuRow:
    """Batches that a launch is too much for."""
    work, spec = Work(lab.images(lab.small, dtype)), spec_of(lab.small)
    plans = lab.plans(mx.Mixup(), spec)
    flipped = lab.plans(mx.Mixup(pairing="flip"), spec)
    timm = "timm Mixup, in place"
    return row(
        lab,
        f"small-{dtype}",
        f"{dtype} Mixup out of place, {shape_of(lab.small)}",
        work,
        [
            Offer("mixops", lambda: work.ours(plans), plans, True),
            Offer(TWO, lambda: gpu_peers.two_operations(plans, lab.device), plans),
            Offer(timm, lambda: peers.timm_images(flipped), flipped, package="timm"),
            Offer("torch.compile", lambda: peers.compiled_mixup(plans, None, str(lab.device)), plans),
        ],
        [Ratio(TWO, "mixops", at_least=1), Ratio(timm, "mixops"), Ratio("torch.compile", "mixops")],
        moved=2.0 * work.result,
        by="loop",
        bursts=25,
    )


class Batches:
    """Batches of bytes in pageable memory of the host, as a loader leaves them: 4 of them, in turn."""

    def __init__(self, lab: Lab, size: tuple[int, int], classes: int) -> None:
        made = torch.Generator().manual_seed(0)
        rows, extent = size
        self.batches = [
            {
                "image": torch.randint(256, (rows, 3, extent, extent), generator=made, dtype=torch.uint8),
                "label": torch.randint(classes, (rows,), generator=made),
            }
            for _ in range(4)
        ]

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self.batches[i % len(self.batches)] for i in range(BATCHES))


def loader(lab: Lab) -> GpuRow:
    """A pass over a loader: batches travel, are mixed and normalised, and a model computes for a known time."""
    classes = 1000
    source = Batches(lab, lab.large, classes)
    op, to = mx.Mixup(pairing="flip"), mx.Output(LAYOUT, "bfloat16", MEAN, STD)
    fields = {"image": mx.Field(LAYOUT), "label": mx.Labels(classes)}
    ahead = MixLoader(source, op, fields, 0, to={"image": to}, device=lab.device)
    spec = spec_of(lab.large)

    def computing(x: Any, k: int) -> None:
        for _ in range(BATCHES):
            lab.clock.spin(COMPUTES)

    def overlapped(x: Any, k: int) -> None:
        for _ in ahead:
            lab.clock.spin(COMPUTES)

    def one_by_one(x: Any, k: int) -> None:
        for i, batch in enumerate(source):
            plan = op.draw(np.random.default_rng(i), spec)
            mix(batch["image"].to(lab.device), plan, to=to)
            mx.soft_targets(batch["label"].to(lab.device), plan, classes)
            lab.clock.spin(COMPUTES)

    alone, ours, plain = "the model alone", "MixLoader, device=", "to(device), then mix, one by one"
    rows = BATCHES * lab.large[0]
    return GpuRow(
        "loader",
        f"{BATCHES} uint8 batches to the device, mixed and normalised, {COMPUTES * 1e3:g} ms of a model each, "
        f"{shape_of(lab.large)}",
        [None],
        1,
        [Contender(alone, computing), Contender(ours, overlapped, True), Contender(plain, one_by_one)],
        [Ratio(plain, ours), Ratio(ours, alone)],
        by="loop",
        bursts=1,
        notes=(f"a time is of {rows} samples: divide to get samples a second", "batches wait in pageable memory"),
    )


ROWS: dict[str, Callable[[Lab], GpuRow]] = {
    "host": host,
    "small-float32": lambda lab: small(lab, "float32"),
    "small-bfloat16": lambda lab: small(lab, "bfloat16"),
    "loader": loader,
}
