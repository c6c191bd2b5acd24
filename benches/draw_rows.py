"""Rows on what is drawn rather than computed: plans beside the parameters that peers draw, and soft targets."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from batches import Setup, off
from harness import Contender, PlainCopy, Ratio, Row, measure, summary
from peers import torchvision_schemas

import mixops as mx
from mixops import streams

EXTENT = 224
ALPHA = 0.8
SMOOTHING = 0.1
#: Seconds that a draw for 256 rows may take.
LIMIT = 0.3e-3
WARM = "one draw after the other: code and generators are in the caches; draw-cold has them out of the caches"
COLD = "a copy of 16 MiB runs, untimed, before every draw: the caches are as cold as in a loop that mixes batches"
LIBRARIES = "libraries take turns: each finds its code out of the nearer caches, as in a loop with other work"


def operators(labels: np.ndarray) -> dict[str, Callable[[np.random.Generator, mx.Spec], Any]]:
    """Every operator, every ``per``, and the combinators."""
    either: list[mx.Operator] = [mx.Mixup(ALPHA), mx.CutMix()]
    ops: dict[str, mx.Operator] = {
        "Mixup": mx.Mixup(ALPHA),
        "Mixup, per pair": mx.Mixup(ALPHA, per="pair"),
        "Mixup, per sample": mx.Mixup(ALPHA, per="sample"),
        "CutMix": mx.CutMix(),
        "CutMix, per pair": mx.CutMix(per="pair"),
        "CutMix, per sample": mx.CutMix(per="sample"),
        "Cutout": mx.Cutout(EXTENT // 4),
        "RandomErasing": mx.RandomErasing(),
        "RandomErasing, p=0.25": mx.RandomErasing(p=0.25),
        "Sometimes(CutMix, 0.5)": mx.Sometimes(mx.CutMix(), 0.5),
        "OneOf([Mixup, CutMix])": mx.OneOf(either),
        "OneOf([Mixup, CutMix]), per sample": mx.OneOf(either, per="sample"),
        "OneOf([Mixup, CutMix]) | Cutout": mx.OneOf(either) | mx.Cutout(EXTENT // 4),
        "OneOf([Mixup, CutMix]) | RandomErasing": mx.OneOf(either) | mx.RandomErasing(),
        "OneOf([Mixup, CutMix]), per sample, | RandomErasing": mx.OneOf(either, per="sample") | mx.RandomErasing(),
        "Mixup | CutMix (a sequence of two plans)": mx.Mixup(ALPHA) | mx.CutMix(),
    }
    draws: dict[str, Callable[[np.random.Generator, mx.Spec], Any]] = {name: op.draw for name, op in ops.items()}
    for pairing in ("derange", "same_class", "other_class"):
        op = mx.Mixup(ALPHA, pairing=pairing)
        draws[f"Mixup, pairing {pairing}"] = partial(op.draw, labels=labels) if "labels" in op.needs else op.draw
    return draws


def drawing(setup: Setup, rows: int, limit: float | None) -> Iterator[dict[str, Any]]:
    """Drawing a plan with each operator, one after the other."""
    row = _row(f"draw-{rows}", rows, 10, limit, WARM)
    yield measure(row, setup.rounds)


def cold(setup: Setup, rows: int, limit: float | None) -> Iterator[dict[str, Any]]:
    """The same with the caches swept before every draw."""
    row = _row(f"draw-cold-{rows}", rows, 2, limit, COLD)
    sweep = PlainCopy(16 << 20)
    rng = row.inputs[0]
    seconds = {name: np.zeros(setup.rounds) for name in [*(c.name for c in row.contenders), "copy"]}
    turn = 0
    for r in range(-1, setup.rounds):  # the first round warms up
        for k in range(row.draws):
            for contender in row.contenders:
                start = time.perf_counter()
                sweep.step(turn := turn + 1)
                swept = time.perf_counter()
                contender.step(rng, k)
                drawn = time.perf_counter()
                if r >= 0:
                    seconds[contender.name][r] += (drawn - swept) / row.draws
                    seconds["copy"][r] += (swept - start) / row.draws / len(row.contenders)
    yield summary(row, seconds, {})


def _row(name: str, rows: int, draws: int, limit: float | None, note: str) -> Row:
    spec = mx.Spec(rows, (EXTENT, EXTENT))
    ours = operators(np.random.default_rng(1).integers(0, 100, rows))
    contenders = [Contender(op, lambda rng, k, draw=draw: draw(rng, spec), True) for op, draw in ours.items()]
    stream = Contender("the generator of a batch, from its key", lambda rng, k: streams.plan_stream(7, 0, k), True)
    return Row(
        name,
        f"drawing a plan for {rows} rows of {EXTENT} pixels",
        [np.random.default_rng(0)],
        draws,
        [*contenders, stream],
        limit=limit,
        notes=(note,),
    )


# -- beside the peers --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peers:
    """What peers draw for a batch, without applying it.

    Args:
        timm: the modules ``mixup`` and ``random_erasing``.
        v2: torchvision's transforms.
        kornia: its augmentations.
    """

    timm: tuple[Any, Any]
    v2: Any
    kornia: Any

    @classmethod
    def loaded(cls) -> Peers:
        torchvision_schemas()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
            import kornia.augmentation
            from timm.data import mixup, random_erasing
            from torchvision.transforms import v2  # type: ignore[import-untyped]
        return cls((mixup, random_erasing), v2, kornia.augmentation)

    def draws(self, rows: int) -> dict[str, dict[str, Callable[[], Any]]]:
        """For each kind of draw, the peers' ways to make it."""
        module, erasing = self.timm
        shape, one = (rows, 3, EXTENT, EXTENT), torch.empty(3, EXTENT, EXTENT)
        images = torch.empty(1).expand(shape)
        mixup, cutmix = module.Mixup(ALPHA, 0.0), module.Mixup(0.0, 1.0)
        eraser = erasing.RandomErasing(probability=1.0, mode="const", device="cpu")
        v2_mixup, v2_cutmix = self.v2.MixUp(alpha=ALPHA, num_classes=10), self.v2.CutMix(num_classes=10)
        v2_erasing = self.v2.RandomErasing(p=1.0)
        kornia_mixup, kornia_cutmix = (self.kornia.RandomMixUpV2(p=1.0), self.kornia.RandomCutMixV2(p=1.0))
        kornia_erasing = self.kornia.RandomErasing(p=1.0)
        size = torch.Size(shape)

        def cut_of_a_batch() -> Any:
            lam, _ = cutmix._params_per_batch()
            return module.cutmix_bbox_and_lam(shape, lam)

        def cut_of_each() -> Any:
            lams, _ = cutmix._params_per_elem(rows)
            return [module.cutmix_bbox_and_lam(shape, lam) for lam in lams]

        def timm_holes() -> None:
            for _ in range(rows):
                eraser._erase(Sink(), 3, EXTENT, EXTENT, torch.float32)

        return {
            "Mixup": {
                "timm, mode=batch": mixup._params_per_batch,
                "torchvision": lambda: v2_mixup.make_params([]),
            },
            "Mixup, per sample": {
                "timm, mode=elem": lambda: mixup._params_per_elem(rows),
                "kornia": lambda: kornia_mixup.generate_parameters(size),
            },
            "CutMix": {
                "timm, mode=batch": cut_of_a_batch,
                "torchvision": lambda: v2_cutmix.make_params([images]),
            },
            "CutMix, per sample": {
                "timm, mode=elem": cut_of_each,
                "kornia": lambda: kornia_cutmix.generate_parameters(size),
            },
            "RandomErasing": {
                "timm": timm_holes,
                "torchvision, sample by sample": lambda: [v2_erasing.make_params([one]) for _ in range(rows)],
                "kornia": lambda: kornia_erasing.generate_parameters(size),
            },
        }


class Sink:
    """Takes what timm's RandomErasing writes and drops it."""

    def __setitem__(self, where: Any, what: Any) -> None:
        pass


def beside_peers(setup: Setup, rows: int) -> Iterator[dict[str, Any]]:
    """One kind of draw at a time, beside the peers that have it."""
    spec = mx.Spec(rows, (EXTENT, EXTENT))
    ours = operators(np.zeros(rows, np.int64))
    for kind, theirs in Peers.loaded().draws(rows).items():
        contenders = [Contender(f"{name} {kind}", lambda x, k, draw=draw: draw()) for name, draw in theirs.items()]
        contenders.append(Contender("mixops", lambda rng, k, draw=ours[kind]: draw(rng, spec), True))
        row = Row(
            f"draw-{kind.lower().replace(', ', '-').replace(' ', '-')}-{rows}",
            f"drawing {kind} for {rows} rows of {EXTENT} pixels, beside the peers",
            [np.random.default_rng(0)],
            10,
            contenders,
            [Ratio(c.name, "mixops") for c in contenders if not c.ours],
            notes=(
                LIBRARIES,
                "ours is a whole plan: partners, boxes, opacities, shares of the target, frozen; timm and torchvision "
                "draw no partners (theirs are fixed), and one λ for a batch is one number",
                *(("timm's loop allocates the zeros it paints, a few µs a row",) if kind == "RandomErasing" else ()),
            ),
        )
        yield measure(row, setup.rounds)


# -- soft targets ------------------------------------------------------------------------------------------------------


def targets(setup: Setup, rows: int, classes: int) -> Iterator[dict[str, Any]]:
    """Soft targets of Mixup with flip pairs, smoothed, λ of the batch and of each row; tensors in, tensors out."""
    peers = Peers.loaded()
    mixup, v2 = peers.timm[0], peers.v2
    spec = mx.Spec(rows, (EXTENT, EXTENT))
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, classes, rows))
    rng = np.random.default_rng(0)
    batch = mx.Mixup(ALPHA, pairing="flip").draw(rng, spec)
    each = mx.Mixup(ALPHA, pairing="flip", per="sample").draw(rng, spec)
    holes = (mx.OneOf([mx.Mixup(ALPHA), mx.CutMix()], per="sample") | mx.RandomErasing()).draw(rng, spec)
    assert isinstance(batch, mx.Plan)
    assert isinstance(each, mx.Plan)
    lam, lams = float(batch.lam[0]), torch.from_numpy(each.lam)[:, None]
    flipped = torch.from_numpy(batch.partner[:, 0].astype(np.int64))
    v2_mixup = v2.MixUp(num_classes=classes)

    def by_hand() -> torch.Tensor:
        y = torch.nn.functional.one_hot(labels, classes).float() * (1 - SMOOTHING) + SMOOTHING / classes
        return lam * y + (1 - lam) * y[flipped]

    expected = partial(_plainly, labels, classes)
    one, own = (expected(plan.lam, flipped, SMOOTHING) for plan in (batch, each))
    # Ours and the peers' in turn: whoever runs after its like finds its code in the caches.
    steps: dict[str, tuple[Callable[[], Any], Any]] = {
        "torch by hand, one λ": (by_hand, one),
        "mixops, one λ": (lambda: mx.soft_targets(labels, batch, classes, SMOOTHING), one),
        "timm mixup_target, one λ": (
            lambda: mixup.mixup_target(labels, classes, lam, SMOOTHING),
            one,
        ),
        "mixops, λ of each row": (
            lambda: mx.soft_targets(labels, each, classes, SMOOTHING),
            own,
        ),
        "torchvision, one λ, no smoothing": (
            lambda: v2_mixup._mixup_label(labels, lam=lam),
            expected(batch.lam, torch.arange(rows).roll(1), 0.0),
        ),
        "mixops, OneOf(per sample) | RandomErasing": (lambda: mx.soft_targets(labels, holes, classes, SMOOTHING), None),
        "timm mixup_target, λ of each row": (
            lambda: mixup.mixup_target(labels, classes, lams, SMOOTHING),
            own,
        ),
        "mixops, ya, yb and λ instead": (lambda: mx.pair_targets(labels, batch), None),
    }
    row = Row(
        f"targets-{rows}x{classes}",
        f"soft targets, {rows} rows of {classes} classes, smoothing {SMOOTHING}",
        [None],
        20,
        [
            Contender(
                name,
                lambda x, k, step=step: step(),
                name.startswith("mixops"),
                None if wanted is None else lambda step=step, wanted=wanted: off(step(), wanted),
            )
            for name, (step, wanted) in steps.items()
        ],
        [
            Ratio("torch by hand, one λ", "mixops, one λ"),
            Ratio("timm mixup_target, one λ", "mixops, one λ"),
            Ratio("timm mixup_target, λ of each row", "mixops, λ of each row"),
            Ratio("torchvision, one λ, no smoothing", "mixops, one λ"),
        ],
        tolerance=1e-6,
        notes=("the plans are drawn beforehand", LIBRARIES),
    )
    yield measure(row, setup.rounds)


def _plainly(
    labels: torch.Tensor, classes: int, lam: np.ndarray, partner: torch.Tensor, smoothing: float
) -> np.ndarray:
    """The targets as loops say them, in float64."""
    soft = np.full((len(labels), classes), smoothing / classes)
    for i, other in enumerate(partner.tolist()):
        soft[i, int(labels[i])] += (1 - smoothing) * float(lam[i])
        soft[i, int(labels[other])] += (1 - smoothing) * (1 - float(lam[i]))
    return soft


ROWS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {
    "draw-64": lambda s: drawing(s, 64, None),
    "draw-256": lambda s: drawing(s, 256, LIMIT),
    "draw-1024": lambda s: drawing(s, 1024, None),
    "draw-cold": lambda s: cold(s, 256, LIMIT),
    "draw-peers-64": lambda s: beside_peers(s, 64),
    "draw-peers-256": lambda s: beside_peers(s, 256),
    "draw-peers-1024": lambda s: beside_peers(s, 1024),
    "targets-large": lambda s: targets(s, 64, 1000),
    "targets-small": lambda s: targets(s, 256, 100),
}
HEADLINE = ("draw-256", "draw-cold", "draw-peers-256", "targets-large", "targets-small")
