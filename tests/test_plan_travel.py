"""Plans travel: with a batch from a worker process, and through a framework that moves batches to a device."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import mixops as mx


def test_a_plan_stays_where_it_is_when_its_batch_is_moved() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4))
    both = (mx.CutMix() | mx.Mixup()).draw(np.random.default_rng(0), mx.Spec(4, (8, 8)))
    assert plan.to("cuda", non_blocking=True) is plan
    assert both.to("cpu") is both


def test_a_copy_from_another_process_is_equal_and_read_only() -> None:
    plan = mx.CutMix(per="sample").draw(np.random.default_rng(0), mx.Spec(4, (8, 8)))
    assert plan.facts.used.any()
    again = pickle.loads(pickle.dumps(plan))  # as between the processes of one DataLoader
    assert again == plan
    assert again.donor is again.box
    assert "facts" not in vars(again)
    for name in ("base", "partner", "box", "opacity", "weight"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(again, name)[:] = 0
