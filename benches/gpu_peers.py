"""The peers on a GPU: images alone, each as its users or its own code call it, made to draw what we drew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import peers
import torch
from batches import Step
from chain_work import MEAN, STD

import mixops as mx


def torchvision(plans: Sequence[mx.Plan]) -> Step:
    """What torchvision's MixUp or CutMix does to images; its partner is always the row before."""
    v2 = peers.torchvision_v2()
    mixer = (v2.CutMix if plans[0].rank else v2.MixUp)(num_classes=2)
    drawn = []
    for plan in plans:
        given: dict[str, Any] = {"labels": None, "batch_size": plan.n, "lam": peers.own_share(plan)}
        if plan.rank:
            top, bottom, left, right = peers.box_of(plan)
            given["box"] = (left, top, right, bottom)
        drawn.append(given)
    return lambda images, k: mixer.transform(images, drawn[k])


def kornia(device: torch.device, rows: int) -> Step:
    """kornia's RandomMixUpV2, with its own draws; it wants labels, and returns images with them."""
    labels = torch.zeros(rows, dtype=torch.int64, device=device)
    mixer = peers.kornia_mixup()
    return lambda images, k: mixer((images, labels), k)[0]


def compiled_in_place(plans: Sequence[mx.Plan], device: torch.device) -> Step:
    """Mixup over its own input, through torch.compile."""
    drawn = [(torch.tensor(peers.own_share(p), device=device), partner(p, device)) for p in plans]

    def over(x: torch.Tensor, lam: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
        return x.copy_(lam * x + (1 - lam) * x[partner])

    fused = peers.compiled(over)
    return lambda images, k: fused(images, *drawn[k])


def two_operations(plans: Sequence[mx.Plan], device: torch.device) -> Step:
    """Mixup of one λ as two calls of torch: take the partners, then lerp."""
    drawn = [(1 - peers.own_share(p), partner(p, device)) for p in plans]

    def step(images: torch.Tensor, k: int) -> torch.Tensor:
        share, rows = drawn[k]
        return torch.lerp(images, images[rows], share)

    return step


def partner(plan: mx.Plan, device: torch.device) -> torch.Tensor:
    """The first partners of a plan, on a device."""
    return torch.from_numpy(plan.partner[:, 0].astype(np.int64)).to(device)


def timm_chain(plans: Sequence[mx.Plan], device: torch.device, dtype: torch.dtype) -> Step:
    """bytes → cast, subtract, divide as timm's PrefetchLoader → its Mixup → its RandomErasing, row by row.

    Args:
        plans: patch 0 is Mixup with the row from the end, patch 1 what is erased.
        device: of the images.
        dtype: of the result.
    """
    mean, std = _columns(device, dtype, 255.0)
    mixing = peers.timm_images([_first(plan) for plan in plans])
    erasing = peers.timm_erasing(plans, "const", patch=1, device=str(device))
    return lambda images, k: erasing(mixing(images.to(dtype).sub_(mean).div_(std), k), k)


def torchvision_chain(plans: Sequence[mx.Plan], dtype: torch.dtype) -> Step:
    """bytes → scale, normalise, MixUp → erase one box of all rows, by torchvision v2.

    Args:
        plans: patch 0 is Mixup with the row before, patch 1 what is erased, the same in all rows.
        dtype: of the result.
    """
    functional = peers.torchvision_v2().functional
    mixing = torchvision([_first(plan) for plan in plans])
    boxes = [peers.box_of(plan, 0, 1) for plan in plans]

    def step(images: torch.Tensor, k: int) -> torch.Tensor:
        top, bottom, left, right = boxes[k]
        scaled = functional.to_dtype(images, dtype, scale=True)
        mixed = mixing(functional.normalize(scaled, MEAN, STD, inplace=True), k)
        zero = mixed.new_zeros(1, 1, 1)
        return functional.erase(mixed, top, left, bottom - top, right - left, zero, inplace=True)

    return step


def compiled_chain(plans: Sequence[mx.Plan], device: torch.device, dtype: torch.dtype, *, last: bool = False) -> Step:
    """bytes → normalised, mixed and with erased boxes, as planes, one expression through torch.compile.

    Args:
        plans: patch 0 is Mixup; patch 1, if any, what is erased.
        device: of the images.
        dtype: of the result.
        last: channels are the last axis of the images.
    """
    mean, std = _columns(device, torch.float32, 255.0)
    erases = plans[0].k > 1
    drawn: list[list[torch.Tensor | None]] = []
    for plan in plans:
        given = [torch.tensor(peers.own_share(plan), device=device), partner(plan, device)]
        if erases:
            boxes = torch.from_numpy(plan.box[:, 1].astype(np.int64))
            drawn.append([*given, *(edge.to(device) for edge in peers.edges(boxes, *plan.shape))])
        else:
            drawn.append([*given, None, None])

    def whole(
        x: torch.Tensor,
        lam: torch.Tensor,
        rows: torch.Tensor,
        down: torch.Tensor | None,
        across: torch.Tensor | None,
    ) -> torch.Tensor:
        x = x.permute(0, 3, 1, 2) if last else x
        mixed = (lam * x.float() + (1 - lam) * x[rows].float() - mean) / std
        if down is not None and across is not None:
            mixed = torch.where((down[:, :, None] & across[:, None, :])[:, None], 0.0, mixed)
        return mixed.to(dtype).contiguous()

    fused: Callable[..., torch.Tensor] = peers.compiled(whole)
    return lambda images, k: fused(images, *drawn[k])


def eager_planes(plans: Sequence[mx.Plan], device: torch.device, dtype: torch.dtype) -> Step:
    """bytes with channels last → planes, cast, normalised and mixed, as lines of torch."""
    mean, std = _columns(device, dtype, 255.0)
    mixing = two_operations(plans, device)
    return lambda images, k: mixing(images.permute(0, 3, 1, 2).contiguous().to(dtype).sub_(mean).div_(std), k)


def _columns(device: torch.device, dtype: torch.dtype, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (torch.tensor(v, device=device).mul(scale).to(dtype).view(-1, 1, 1) for v in (MEAN, STD))
    return mean, std


def _first(plan: mx.Plan) -> mx.Plan:
    """The mixing of whole rows that a plan begins with."""
    n = plan.n
    none = np.zeros((n, 1, 0), np.int32)
    return mx.Plan(plan.base, plan.partner[:, :1], none, none, plan.opacity[:, :1], plan.weight[:, :1], ())
