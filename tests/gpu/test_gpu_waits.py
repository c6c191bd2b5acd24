"""On a GPU: the host waits for nothing. torch itself tells: in this mode a synchronisation is an error."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mixops as mx

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning"),  # torch says so at the first use
]

PLAN = mx.CutMix(1.0).draw(np.random.default_rng(0), mx.Spec(8, (32, 32)))


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Kernels are compiled and memory is there before; from then on nothing may wait."""
    _step(torch.zeros(8, 3, 32, 32, device="cuda"), torch.arange(8, device="cuda") % 5)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def _step(x: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    to = mx.Output("b h w c", "float16", mean=(0.1, 0.2, 0.3), std=0.5)
    logits = torch.zeros(8, 5, device="cuda")
    return [
        mx.mix(x, PLAN, "b c h w"),
        mx.mix(x, PLAN, "b c h w", to=to),
        mx.mix(x, PLAN, "b c h w", backend="torch"),
        mx.mix(x, PLAN, "b c h w", to=to, backend="torch"),
        mx.soft_targets(labels, PLAN, 5, 0.1),
        *mx.sparse_targets(labels, PLAN, num_classes=5),
        *mx.pair_targets(labels, PLAN),
        mx.mixed_loss(F.cross_entropy, logits, *mx.pair_targets(labels, PLAN)),
        mx.mixed_loss(F.cross_entropy, logits, labels, labels.flip(0), 0.25),
        mx.mixed_loss(F.cross_entropy, logits, np.arange(8) % 5, np.arange(8) % 5, np.full(8, 0.5, np.float32)),
    ]


def test_a_wait_would_be_noticed(no_waiting: None) -> None:
    with pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(1, device="cuda").item()


def test_mixing_targets_and_losses_wait_for_nothing(no_waiting: None) -> None:
    x, labels = torch.ones(8, 3, 32, 32, device="cuda"), torch.arange(8, device="cuda") % 5
    results = _step(x, labels)
    torch.cuda.set_sync_debug_mode("default")
    assert all(bool(torch.isfinite(result.float()).all()) for result in results)
