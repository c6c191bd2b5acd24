"""The peers, each called as its users call it, but made to draw the λ and the boxes of plans that we drew.

Every function returns a step ``(input, k) -> (images, targets)`` or ``-> images`` that does with the input what plan k
says. What a peer would spend on its own draw is thus not counted, a few microseconds in its favour.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from types import FunctionType
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
def timm_loader() -> Any:
    """timm.data.loader."""

    def load() -> Any:
        from timm.data import loader

        return loader

    return _quietly(load)


@cache
def kornia_augmentation() -> Any:
    """kornia.augmentation."""

    def load() -> Any:
        import kornia.augmentation

        return kornia.augmentation

    return _quietly(load)


@cache
def torchvision_v2() -> Any:
    """torchvision.transforms.v2."""

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


@contextmanager
def lent(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an object an attribute for a while: what a peer draws elsewhere in this process stays its own."""
    own = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, own)


def timm(plans: Sequence[mx.Plan], classes: int, mode: str = "batch") -> Step:
    """timm's Mixup in place on (images, labels); mode "elem" follows each row of a plan, "batch" the first."""
    peer = _timm_mixup()
    mixer = peer.Mixup(1.0, 1.0, mode=mode, label_smoothing=0.0, num_classes=classes)
    given = _timm_draws(peer, mixer, plans)

    def step(batch: tuple[torch.Tensor, torch.Tensor], k: int) -> Any:
        with given(k):
            return mixer(*batch)

    return step


def timm_images(plans: Sequence[mx.Plan], mode: str = "batch") -> Step:
    """What timm's Mixup does to images, in place, without the targets; mode as for ``timm``."""
    peer = _timm_mixup()
    mixer = peer.Mixup(1.0, 1.0, mode=mode)
    given = _timm_draws(peer, mixer, plans)
    mix = mixer._mix_elem if mode == "elem" else mixer._mix_batch

    def step(images: torch.Tensor, k: int) -> torch.Tensor:
        with given(k):
            mix(images)
        return images

    return step


def timm_collate(plans: Sequence[mx.Plan], classes: int, smoothing: float = 0.0, mode: str = "batch") -> Step:
    """timm's FastCollateMixup on a list of (uint8 CHW array, label); mode as for ``timm``."""
    peer = _timm_mixup()
    mixer = peer.FastCollateMixup(1.0, 1.0, mode=mode, label_smoothing=smoothing, num_classes=classes)
    given = _timm_draws(peer, mixer, plans)

    def step(samples: list[tuple[np.ndarray, int]], k: int) -> Any:
        with given(k):
            return mixer(samples)

    return step


def _timm_draws(peer: Any, mixer: Any, plans: Sequence[mx.Plan]) -> Callable[[int], AbstractContextManager[None]]:
    shares = [plan.lam for plan in plans]
    cuts = [bool(plan.rank) & (plan.opacity[:, 0] == 1) for plan in plans]
    # Where λ is 1, timm leaves the row alone and asks for no box.
    asked = [np.flatnonzero(cut & (share != 1)) for cut, share in zip(cuts, shares, strict=True)]
    boxes = [[box_of(plan, int(row)) for row in rows] for plan, rows in zip(plans, asked, strict=True)]

    def given(k: int) -> AbstractContextManager[None]:
        left = iter(boxes[k])
        mixer._params_per_batch = lambda: (float(shares[k][0]), bool(cuts[k][0]))
        mixer._params_per_elem = lambda n: (shares[k].copy(), cuts[k])
        return lent(peer, "cutmix_bbox_and_lam", lambda shape, lam, **options: (next(left), lam))

    return given


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


def timm_erasing(plans: Sequence[mx.Plan], mode: str, patch: int = 0, device: str = "cpu") -> Step:
    """timm's RandomErasing in place on images; ``patch`` says which patch of a plan holds the boxes."""
    peer = _timm_erasing()
    eraser = peer.RandomErasing(probability=1.0, mode=mode, device=device)
    replays = [Replay([box_of(p, row, patch) for row in range(p.n)], (p.shape[0], p.shape[1])) for p in plans]

    def step(images: torch.Tensor, k: int) -> torch.Tensor:
        replays[k].rewind()
        with lent(peer, "random", replays[k]):
            return eraser(images)

    return step


def torchvision(plans: Sequence[mx.Plan], classes: int) -> Step:
    """torchvision's MixUp (whole-row plans) or CutMix on (images, labels); its partner is always the row before."""
    v2 = torchvision_v2()
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

    mixer = kornia_augmentation().RandomMixUpV2(p=1.0, data_keys=["input", "class"])
    return lambda batch, k: mixer(*batch)


def _blend(x: torch.Tensor, lam: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    mixed = lam * x + (1 - lam) * x[partner]
    return mixed if x.dtype.is_floating_point else mixed.round().to(x.dtype)


def expression(plans: Sequence[mx.Plan], device: str = "cpu") -> Step:
    """Mixup of images as one line of torch."""
    drawn = _tensors(plans, device)
    return lambda images, k: _blend(images, *drawn[k])


def compiled_mixup(plans: Sequence[mx.Plan], out: torch.Tensor | None, device: str = "cpu") -> Step:
    """The same line through torch.compile, into fresh memory or into ``out``."""
    drawn = _tensors(plans, device)

    def into(out: torch.Tensor, x: torch.Tensor, lam: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
        return out.copy_(lam * x + (1 - lam) * x[partner])

    def fresh(x: torch.Tensor, lam: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
        return lam * x + (1 - lam) * x[partner]

    if out is None:
        fused = compiled(fresh)
        return lambda images, k: fused(images, *drawn[k])
    fused_into = compiled(into)
    return lambda images, k: fused_into(out, images, *drawn[k])


def compiled_cutmix(plans: Sequence[mx.Plan], out: torch.Tensor) -> Step:
    """CutMix as a select over all pixels through torch.compile, into ``out``."""
    drawn = [
        (torch.from_numpy(p.partner[:, 0].astype(np.int64)), *edges(torch.tensor(box_of(p)), *p.shape)) for p in plans
    ]

    def into(
        out: torch.Tensor, x: torch.Tensor, partner: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
    ) -> torch.Tensor:
        return out.copy_(torch.where(rows[:, None] & columns, x[partner], x))

    fused = compiled(into)
    return lambda images, k: fused(out, images, *drawn[k])


def compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """torch.compile for fixed shapes and as many threads as torch has now."""
    # Code of its own: torch counts compilations by code object, and runs uncompiled from the ninth on.
    own = FunctionType(
        function.__code__.replace(), function.__globals__, function.__name__, closure=function.__closure__
    )
    # The number of threads is baked into the code: said here, code made for another number is not taken for ours.
    return torch.compile(own, dynamic=False, options={"cpp.threads": torch.get_num_threads()})


def _tensors(plans: Sequence[mx.Plan], device: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    # λ as a tensor: a Python float would have torch.compile make a kernel for each.
    return [
        (torch.tensor(own_share(p), device=device), torch.from_numpy(p.partner[:, 0].astype(np.int64)).to(device))
        for p in plans
    ]


def edges(box: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(..., 4) boxes to the rows, (..., height) bool, and the columns, (..., width), that they cover."""
    rows, columns = torch.arange(height), torch.arange(width)
    top, bottom, left, right = box[..., None].unbind(-2)
    return (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
