"""Images per second: samples in, a mixed and normalised float batch out, beside the same thing in plain torch ops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import mixops as mx

from ..loader import MixLoader
from ..sources import photographs

ROWS, SIZE, CLASSES = 64, 224, 1000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHAINS: dict[str, mx.Operator] = {
    "Mixup | Cutout": mx.Mixup(0.8) | mx.Cutout(64),
    "CutMix | Cutout": mx.CutMix(1.0) | mx.Cutout(64),
    "OneOf([Mixup, CutMix]) | Cutout": mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)]) | mx.Cutout(64),
}
_TAIL = mx.Output("b c h w", "float32", mean=MEAN, std=STD)
_FIELDS = {"image": mx.Field("b h w c"), "label": mx.Labels(CLASSES)}


@dataclass(frozen=True)
class Pace:
    """Images per second of one chain, medians over rounds.

    Args:
        chain: its name.
        mixed: samples to batch by one ``mx.mix(..., to=Output(...))``.
        loader: batches that torch has stacked, through ``MixLoader(..., to=...)``.
        plain: samples to batch in plain torch ops.
        difference: largest difference of the batches of ``mixed`` and ``loader`` from those of ``plain``, in units of
            the output.
    """

    chain: str
    mixed: float
    loader: float
    plain: float
    difference: float


def measure(rounds: int) -> Iterator[tuple[str, Pace]]:
    """Time every chain; the contenders take turns, so that a busy moment of the machine hits all.

    Args:
        rounds: times each contender is timed, 1 or more.

    Yields:
        (chain, its Pace) when it is done.
    """
    samples, labels = _samples()
    for step, (name, op) in enumerate(CHAINS.items()):
        yield name, _pace(name, op, samples, labels, rounds, step)


def _samples() -> tuple[list[np.ndarray], np.ndarray]:
    """What a DataLoader would have fetched: a list of uint8 images (h, w, c), and labels."""
    photos, _ = photographs(SIZE)
    turned = [np.ascontiguousarray(np.rot90(photos[i % len(photos)], i // len(photos))) for i in range(ROWS)]
    return turned, np.arange(ROWS) * 7 % CLASSES


def _pace(name: str, op: mx.Operator, samples: list[np.ndarray], labels: np.ndarray, rounds: int, step: int) -> Pace:
    import torch

    spec = mx.Spec(ROWS, (SIZE, SIZE))
    stacked = torch.from_numpy(np.stack(samples))
    batches = [{"image": stacked, "label": torch.from_numpy(labels)}] * (rounds + 1)
    loader = iter(MixLoader(batches, op, _FIELDS, step, to={"image": _TAIL}))
    times: dict[str, list[float]] = {"mixed": [], "loader": [], "plain": []}
    difference = 0.0
    for i in range(rounds + 1):
        rng = mx.streams.plan_stream(step, step=i)  # as the loader draws: all three make the same batch
        start = time.perf_counter()
        plan = op.draw(rng, spec)
        batch = mx.mix(samples, plan, "b h w c", to=_TAIL)
        mx.soft_targets(labels, plan, CLASSES)
        times["mixed"].append(time.perf_counter() - start)
        assert isinstance(plan, mx.Plan)  # these chains only paint after they mix
        drawn = _Drawn.of(plan)
        start = time.perf_counter()
        plain, _ = plain_torch(samples, labels, drawn)
        times["plain"].append(time.perf_counter() - start)
        start = time.perf_counter()
        loaded = next(loader)["image"]
        times["loader"].append(time.perf_counter() - start)
        for made in (batch, loaded):
            difference = max(difference, float(np.abs(np.asarray(made) - plain.numpy()).max()))
    pace = {who: ROWS / float(np.median(seconds[1:])) for who, seconds in times.items()}  # the first round warms up
    return Pace(name, pace["mixed"], pace["loader"], pace["plain"], difference)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A plan as the plain code wants it: Python numbers and torch indices, made outside the timing."""

    partner: Any
    lam: float
    box: tuple[int, int, int, int]
    holes: list[tuple[int, int, int, int]]
    blends: bool

    @classmethod
    def of(cls, plan: mx.Plan) -> _Drawn:
        import torch

        box = tuple(plan.box[0, 0].tolist())
        blends = box == (0, SIZE, 0, SIZE) and bool(plan.opacity[0, 0] < 1)
        holes = [tuple(hole) for hole in plan.box[:, -1].tolist()]
        return cls(torch.from_numpy(plan.partner[:, 0].astype(np.int64)), float(plan.lam[0]), box, holes, blends)


def plain_torch(samples: list[np.ndarray], labels: np.ndarray, drawn: _Drawn) -> tuple[Any, Any]:
    """What a careful person writes without mixops: collate, convert, mix, paint, and blend one-hot labels."""
    import torch
    from torch.nn.functional import one_hot

    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    x = torch.stack([torch.from_numpy(sample) for sample in samples])
    x = x.permute(0, 3, 1, 2).contiguous().float().div_(255).sub_(mean).div_(std)
    if drawn.blends:
        x = drawn.lam * x + (1 - drawn.lam) * x[drawn.partner]
    else:
        top, bottom, left, right = drawn.box
        x[:, :, top:bottom, left:right] = x[drawn.partner, :, top:bottom, left:right]
    black = -mean / std
    for i, (top, bottom, left, right) in enumerate(drawn.holes):
        x[i, :, top:bottom, left:right] = black
    y = one_hot(torch.from_numpy(labels), CLASSES).float()
    return x, drawn.lam * y + (1 - drawn.lam) * y[drawn.partner]
