"""A few small images, and the plain loop that a training by a stand-in is held to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import mixops as mx
from mixops import streams

ROWS, SIZE, CLASSES, STEPS = 22, 4, 4, 6
OP = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)], per="sample") | mx.Cutout(size=1)
FIELDS = {0: mx.Field("b c h w"), 1: mx.Labels(CLASSES)}
X = torch.from_numpy(np.random.default_rng(3).normal(size=(ROWS, 1, 8, 8)).astype(np.float32))
Y = torch.arange(ROWS) % CLASSES


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, CLASSES))


def pieces() -> list[tuple[Any, Any]]:
    return [(X[i : i + SIZE], Y[i : i + SIZE]) for i in range(0, ROWS, SIZE)]


def drawn(epoch: int, step: int, x: Any, op: mx.Operator = OP) -> Any:
    return op.draw(streams.plan_stream(7, epoch, step, 0), mx.Spec.like(x, "b c h w", epoch=epoch))


def by_hand(model: Any, epochs: int = 2, *, op: mx.Operator = OP, smoothing: float = 0.0, whole: bool = False) -> Any:
    """A plain loop over the batches in their order, mixed by the plans of their keys: ``whole`` counts on and on."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for epoch in range(epochs):
        for step, (x, y) in enumerate(pieces()):
            plan = drawn(epoch, step + whole * epoch * STEPS, x, op)
            out = model(mx.mix(x, plan, "b c h w"))
            soft = mx.soft_targets(y, plan, CLASSES, smoothing)
            optimizer.zero_grad()
            F.cross_entropy(getattr(out, "logits", out), soft).backward()
            optimizer.step()
    return model
