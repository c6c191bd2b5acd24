"""How something is trained, and what has to be known of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from operator import index
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mixops import MixValueError

from .vocabulary import Coverage

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Args:
        epochs: passes over the sentences, 1 or more.
        batch_size: sentences a step, 1 or more.
        lr: of AdamW, above 0.
        weight_decay: of parameters with two axes or more, 0 or more.
        warmup: share of all steps over which the rate rises from 0, then it falls to 0 in a line; None keeps it.
        clip: largest norm of a step's gradient; None leaves it.
    """

    epochs: int = 10
    batch_size: int = 50
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            try:
                fits = index(value) >= 1 and not isinstance(value, bool)
            except TypeError:
                fits = False
            if not fits:
                raise MixValueError(f"{name}={value!r}, expected a whole number of 1 or more")
        if not isinstance(self.lr, (int, float)) or not 0 < self.lr < float("inf"):
            raise MixValueError(f"lr={self.lr!r}, expected a number above 0")
        if not isinstance(self.weight_decay, (int, float)) or not 0 <= self.weight_decay < float("inf"):
            raise MixValueError(f"weight_decay={self.weight_decay!r}, expected a number of 0 or more")

    @property
    def config(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    def optimizer(self, net: nn.Module, steps: int) -> tuple[Any, Any]:
        """(AdamW, its schedule) over ``steps`` steps, of the parameters that train."""
        import torch

        trained = [p for p in net.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        fused = trained[0].device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=self.lr, fused=fused)
        rise = 0 if self.warmup is None else max(round(self.warmup * steps), 1)

        def rate(step: int) -> float:
            if self.warmup is None:
                return 1.0
            return (step + 1) / rise if step < rise else (steps - step) / max(steps - rise, 1)

        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


class Learner(Protocol):
    """What ``train_text`` asks of that which it trains."""

    recipe: Recipe
    pad: int
    config: dict[str, Any]

    @property
    def coverage(self) -> Coverage | None:
        """How many words of the training sentences have a pretrained vector; None without such vectors."""

    @property
    def test_coverage(self) -> Coverage | None:
        """How many words of the test sentences are known; None where that has no meaning."""

    def encode(self, text: str) -> np.ndarray:
        """(T,) int64 ids of a sentence, T of 1 or more."""

    def build(self, classes: int) -> nn.Module:
        """The network, its first weights drawn from torch's generator."""

    def check(self, net: nn.Module, optimizer: Any) -> None:
        """Refuse a network that would train otherwise than was asked."""
