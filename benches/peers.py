"""The peers, each called as its users call it, but made to draw the λ and the boxes of plans that we drew.

Every function returns a step ``(input, k) -> (images, targets)`` or ``-> images`` that does with the input what plan k
says. What a peer would spend on its own draw is thus not counted, a few microseconds in its favour.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

import mixops as mx

Step = Callable[[Any, int], Any]
Box = tuple[int, int, int, int]


@cache
def torchvision_schemas() -> torch.library.Library:
    """A CPU build of torch refuses to import torchvision, and timm with it, unless these two are known to it."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        try:
            library.define(schema)  # type: ignore[no-untyped-call]
        except RuntimeError:  # a build whose extension loads has defined them itself
            continue
    return library


def _quietly(load: Callable[[], Any]) -> Any:
    torchvision_schemas()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
        return load()


@cache
def _timm_mixup() -> Any:
    def load() -> Any:
        from timm.data import mixup

        return mixup

    return _quietly(load)


@cache
def _timm_erasing() -> Any:
    def load() -> Any:
        from timm.data import random_erasing

        return random_erasing

    return _quietly(load)


@cache
def _torchvision() -> Any:
    def load() -> Any:
        from torchvision.transforms import v2  # type: ignore[import-untyped]

        return v2

    return _quietly(load)


def box_of(plan: mx.Plan, row: int = 0, patch: int = 0) -> Box:
    """(top, bottom, left, right) of one patch, as Python ints."""
    top, bottom, left, right = plan.box[row, patch].tolist()
    return top, bottom, left, right


def own_share(plan: mx.Plan) -> float:
    """λ of a plan that has one for the batch."""
    return float(plan.lam[0])


def timm(plans: Sequence[mx.Plan], classes: int) -> Step:
    """timm's Mixup in batch mode, in place, on (images, labels): Mixup for whole-row plans, else CutMix."""
    peer = _timm_mixup()
    mixer = peer.Mixup(1.0, 1.0, mode="batch", label_smoothing=0.0, num_classes=classes)
    give = _timm_draws(peer, mixer, plans)

    def step(batch: tuple[torch.Tensor, torch.Tensor], k: int) -> Any:
        give(k)
        return mixer(*batch)

    return step


def timm_collate(plans: Sequence[mx.Plan], classes: int) -> Step:
    """timm's FastCollateMixup in batch mode on a list of (uint8 CHW array, label)."""
    peer = _timm_mixup()
    mixer = peer.FastCollateMixup(1.0, 1.0, mode="batch", label_smoothing=0.0, num_classes=classes)
    give = _timm_draws(peer, mixer, plans)

    def step(samples: list[tuple[np.ndarray, int]], k: int) -> Any:
        give(k)
        return mixer(samples)

    return step


def _timm_draws(peer: Any, mixer: Any, plans: Sequence[mx.Plan]) -> Callable[[int], None]:
    drawn = [(own_share(plan), bool(plan.rank), box_of(plan) if plan.rank else None) for plan in plans]

    def give(k: int) -> None:
        lam, cuts, box = drawn[k]
        mixer._params_per_batch = lambda: (lam, cuts)
        peer.cutmix_bbox_and_lam = lambda shape, lam, **options: (box, lam)

    return give


class Replay:
    """Stands in for the module ``random`` inside timm's RandomErasing: it says what leads to given boxes."""

    def __init__(self, boxes: Sequence[Box], extent: tuple[int, int]) -> None:
        self.coins: list[float] = []
        self.shares: list[float] = []
        self.corners: list[int] = []
        for top, bottom, left, right in boxes:
            high, wide = bottom - top, right - left
            self.coins.append(0.0 if high and wide else 2.0)  # above any probability: this row stays whole
            if high and wide:
                self.shares += [high * wide / (extent[0] * extent[1]), math.log(high / wide)]
                self.corners += [top, left]

    def rewind(self) -> None:
        self._coins, self._shares, self._corners = iter(self.coins), iter(self.shares), iter(self.corners)

    def random(self) -> float:
        return next(self._coins)

    def uniform(self, low: float, high: float) -> float:
        return next(self._shares)

    def randint(self, low: int, high: int) -> int:
        return next(self._corners)


def timm_erasing(plans: Sequence[mx.Plan], mode: str, patch: int = 0) -> Step:
    """timm's RandomErasing in place on images; ``patch`` says which patch of a plan holds the boxes."""
    peer = _timm_erasing()
    eraser = peer.RandomErasing(probability=1.0, mode=mode, device="cpu")
    replays = [Replay([box_of(p, row, patch) for row in range(p.n)], (p.shape[0], p.shape[1])) for p in plans]

    def step(images: torch.Tensor, k: int) -> torch.Tensor:
        replays[k].rewind()
        peer.random = replays[k]
        return eraser(images)

    return step


def torchvision(plans: Sequence[mx.Plan], classes: int) -> Step:
    """torchvision's MixUp (whole-row plans) or CutMix on (images, labels); its partner is always the row before."""
    v2 = _torchvision()
    given: dict[str, Any] = {}
    mixer = (v2.CutMix if plans[0].rank else v2.MixUp)(num_classes=classes)
    mixer.make_params = lambda flat_inputs: given
    draws: list[dict[str, Any]] = []
    for plan in plans:
        if plan.rank:
            top, bottom, left, right = box_of(plan)
            draws.append({"box": (left, top, right, bottom), "lam_adjusted": own_share(plan)})
        else:
            draws.append({"lam": own_share(plan)})

    def step(batch: tuple[torch.Tensor, torch.Tensor], k: int) -> Any:
        given.update(draws[k])
        return mixer(*batch)

    return step


def kornia_mixup() -> Step:
    """kornia's RandomMixUpV2 on (images, labels), with its own draws."""

    def load() -> Any:
        import kornia.augmentation

        return kornia.augmentation.RandomMixUpV2(p=1.0, data_keys=["input", "class"])

    mixer = _quietly(load)
    return lambda batch, k: mixer(*batch)


def expression(plans: Sequence[mx.Plan]) -> Step:
    """Mixup of images as one line of torch."""
    drawn = _tensors(plans)

    def step(images: torch.Tensor, k: int) -> torch.Tensor:
        lam, partner = drawn[k]
        return lam * images + (1 - lam) * images[partner]

    return step


def compiled_mixup(plans: Sequence[mx.Plan], out: torch.Tensor | None) -> Step:
    """The same line through torch.compile, into fresh memory or into ``out``."""
    drawn = _tensors(plans)

    def into(out: torch.Tensor, x: torch.Tensor, lam: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
        return out.copy_(lam * x + (1 - lam) * x[partner])

    def fresh(x: torch.Tensor, lam: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
        return lam * x + (1 - lam) * x[partner]

    if out is None:
        compiled = _compiled(fresh)
        return lambda images, k: compiled(images, *drawn[k])
    compiled_into = _compiled(into)
    return lambda images, k: compiled_into(out, images, *drawn[k])


def compiled_cutmix(plans: Sequence[mx.Plan], out: torch.Tensor) -> Step:
    """CutMix as a select over all pixels through torch.compile, into ``out``."""
    drawn = [
        (torch.from_numpy(p.partner[:, 0].astype(np.int64)), *_edges(torch.tensor(box_of(p)), *p.shape)) for p in plans
    ]

    def into(
        out: torch.Tensor, x: torch.Tensor, partner: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
    ) -> torch.Tensor:
        return out.copy_(torch.where(rows[:, None] & columns, x[partner], x))

    compiled = _compiled(into)
    return lambda images, k: compiled(out, images, *drawn[k])


def _compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    # The number of threads is baked into the code: said here, code made for another number is not taken for ours.
    return torch.compile(function, dynamic=False, options={"cpp.threads": torch.get_num_threads()})


def _tensors(plans: Sequence[mx.Plan]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    # λ as a tensor: a Python float would have torch.compile make a kernel for each.
    return [(torch.tensor(own_share(p)), torch.from_numpy(p.partner[:, 0].astype(np.int64))) for p in plans]


def _edges(box: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(..., 4) boxes to the rows, (..., height) bool, and the columns, (..., width), that they cover."""
    rows, columns = torch.arange(height), torch.arange(width)
    top, bottom, left, right = box[..., None].unbind(-2)
    return (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)


class Chain:
    """uint8 samples to a CutMixed, cut out, normalised float32 NCHW batch, three ways.

    Args:
        plans: patch 0 pastes one box a batch, patch 1 paints one hole a row.
        mean, std: one for each channel, in units of [0, 1]; holes are 0 after normalising.
        classes: of the labels.
    """

    def __init__(self, plans: Sequence[mx.Plan], mean: Sequence[float], std: Sequence[float], classes: int) -> None:
        self.plans, self.classes = plans, classes
        self.mean, self.std = (torch.tensor(v).view(-1, 1, 1) for v in (mean, std))
        self.partner = [torch.from_numpy(p.partner[:, 0].astype(np.int64)) for p in plans]
        self.cut = [box_of(p) for p in plans]
        self.holes = [[box_of(p, row, 1) for row in range(p.n)] for p in plans]

    def plain(self) -> Step:
        """What a careful person writes in torch, on (uint8 NHWC tensor, labels)."""

        def step(batch: tuple[torch.Tensor, torch.Tensor], k: int) -> Any:
            images, labels = batch
            x = images.permute(0, 3, 1, 2).contiguous().float().div_(255).sub_(self.mean).div_(self.std)
            (top, bottom, left, right), partner, lam = self.cut[k], self.partner[k], own_share(self.plans[k])
            x[:, :, top:bottom, left:right] = x[partner, :, top:bottom, left:right]
            for i, (top, bottom, left, right) in enumerate(self.holes[k]):
                x[i, :, top:bottom, left:right] = 0
            y = torch.nn.functional.one_hot(labels, self.classes).float()
            return x, lam * y + (1 - lam) * y[partner]

        return step

    def compiled(self, out: torch.Tensor) -> Step:
        """One fused kernel from a uint8 NHWC tensor into ``out``; images only.

        The fastest of nine ways to write it that were tried: with masks from comparisons inside the kernel, or holes by
        ``torch.where``, the generated code leaves its vectors and takes up to seven times as long.
        """
        scale, shift = 1 / (255 * self.std), self.mean / self.std
        height, width = self.plans[0].shape
        edges = [
            (*_edges(torch.tensor(cut), height, width), *_edges(torch.tensor(holes), height, width))
            for cut, holes in zip(self.cut, self.holes, strict=True)
        ]

        def into(
            out: torch.Tensor,
            images: torch.Tensor,
            partner: torch.Tensor,
            cut_rows: torch.Tensor,
            cut_columns: torch.Tensor,
            hole_rows: torch.Tensor,
            hole_columns: torch.Tensor,
        ) -> torch.Tensor:
            x = images.permute(0, 3, 1, 2)
            mixed = torch.where(cut_rows[:, None] & cut_columns, x[partner].float(), x.float())
            holes = hole_rows.float()[:, None, :, None] * hole_columns.float()[:, None, None, :]
            return out.copy_((mixed * scale - shift) * (1 - holes))

        fused = _compiled(into)
        return lambda images, k: fused(out, images, self.partner[k], *edges[k])

    def timm(self) -> Step:
        """timm's collate, normalising as its prefetcher does, and its erasing, on a list of (uint8 CHW view, label)."""
        collate, erase = timm_collate(self.plans, self.classes), timm_erasing(self.plans, "const", patch=1)
        mean, std = self.mean * 255, self.std * 255

        def step(samples: list[tuple[np.ndarray, int]], k: int) -> Any:
            images, targets = collate(samples, k)
            return erase(images.float().sub_(mean).div_(std), k), targets

        return step
