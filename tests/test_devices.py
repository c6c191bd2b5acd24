"""Tensors on a device: nothing that lies there is looked at, for that would wait for all the work before it.

A tensor on torch's device "meta" has a shape and no values: whatever reads one fails. So what runs on it here reads
none on a GPU either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import plans
from hypothesis import given, settings
from mixops.pipelines import mix_hidden

import mixops as mx
from mixops import targets

PLAN = mx.CutMix(1.0).draw(np.random.default_rng(0), mx.Spec(4, (6, 8)))
THREE = mx.Chain([mx.Mixup(per="sample"), mx.CutMix(), mx.RandomErasing(p=1.0, noise="pixel", area=(0.2, 0.4))]).draw(
    np.random.default_rng(0), mx.Spec(4, (6, 8))
)


def on_meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def test_a_look_at_a_value_would_be_noticed() -> None:
    with pytest.raises(RuntimeError):
        bool((on_meta(3) > 0).any())
    with pytest.raises(NotImplementedError):
        on_meta(3).cpu()


@settings(max_examples=25)
@given(plans())
def test_every_plan_mixes_without_a_look_at_the_values(drawn: Any) -> None:
    plan, layout, shape = drawn
    mixed = mx.mix(on_meta(*shape), plan, layout)
    expected = mx.mix(torch.zeros(shape), plan, layout, backend="torch")
    assert mixed.device.type == "meta"
    assert (mixed.shape, mixed.dtype, mixed.stride()) == (expected.shape, expected.dtype, expected.stride())


def test_the_tail_and_a_sequence_look_at_no_value() -> None:
    x, to = on_meta(4, 6, 8, 3, dtype=torch.uint8), mx.Output("b c h w", "bfloat16", mean=(0.1, 0.2, 0.3), std=0.5)
    mixed = mx.mix(x, THREE, "b h w c", to=to)
    assert (mixed.device.type, mixed.shape, mixed.dtype) == ("meta", (4, 3, 6, 8), torch.bfloat16)


@pytest.mark.parametrize("plan", [PLAN, THREE], ids=["a plan", "a sequence"])
def test_targets_look_at_no_label(plan: Any) -> None:
    ids, rows = on_meta(4, dtype=torch.int64), on_meta(4, 3, dtype=torch.int64)
    assert mx.soft_targets(ids, plan, 3, 0.1, ignore_index=2).shape == (4, 3)
    assert mx.soft_targets(rows, plan, 3, 0.1).shape == (4, 3)
    assert mx.soft_targets(on_meta(4), plan).shape == (4,)
    ids, weights = mx.sparse_targets(on_meta(4, dtype=torch.int64), plan, num_classes=3, ignore_index=2)
    assert {t.device.type for t in (ids, weights)} == {"meta"}


def test_a_batch_looks_at_no_value() -> None:
    fields = {
        "image": mx.Field("b c h w"),
        "mask": mx.Field("b h w", "discrete", fill=255, on_blend="heavier"),
        "planes": mx.Field("b h w", "discrete", on_blend="planes", num_classes=4),
        "label": mx.Labels(3, form="pair"),
    }
    batch = {
        "image": on_meta(4, 3, 6, 8),
        "mask": on_meta(4, 3, 4, dtype=torch.int64),
        "planes": on_meta(4, 6, 8, dtype=torch.int64),
        "label": on_meta(4, dtype=torch.int64),
    }
    mixed = mx.mix_batch(batch, PLAN, fields)
    assert mixed["planes"].shape == (4, 4, 6, 8)
    assert {t.device.type for t in (*list(mixed.values())[:3], *mixed["label"])} == {"meta"}


@pytest.mark.parametrize(
    "lam", [0.25, np.float32(0.25), np.full(4, 0.25, np.float32), torch.full((4,), 0.25)], ids=repr
)
def test_a_loss_looks_at_no_logit(lam: Any) -> None:
    ya, yb = np.arange(4) % 3, torch.arange(4) % 3
    loss = mx.mixed_loss(F.cross_entropy, on_meta(4, 3), ya, yb.to("meta"), lam)
    assert (loss.device.type, loss.shape) == ("meta", ())
    assert mx.SoftCrossEntropy()(on_meta(4, 3), on_meta(4, 3)).shape == ()


def test_mixing_inside_a_model_looks_at_no_value() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3)).to("meta")
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(4))
    with mix_hidden(model, "1", plan, "b d"):
        assert model(on_meta(4, 5)).shape == (4, 3)


def test_shares_are_added_at_ids_on_a_device_as_on_the_host() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        n, m, classes = rng.integers(1, 6, 3)
        ids, weights = rng.integers(0, classes, (n, m)), rng.random((n, m), np.float32)
        there = targets._scattered(torch.from_numpy(ids), torch.from_numpy(weights), int(classes))
        np.testing.assert_array_equal(there.numpy(), targets._scattered(ids, weights, int(classes)))


@pytest.mark.parametrize("wrong", [-1, 3])
def test_an_id_outside_the_classes_reaches_no_other_row_on_a_device(wrong: int) -> None:
    ids, weights = torch.tensor([[0], [wrong]]), torch.ones(2, 1)
    with pytest.raises(RuntimeError, match="out of bounds"):
        targets._scattered(ids, weights, 3)


def test_tensors_of_several_devices_are_refused() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.5, partner=[1, 0])
    with pytest.raises(mx.MixValueError, match="samples lie on cpu and meta: expected one device"):
        mx.mix([torch.zeros(3), on_meta(3)], plan, "b d")
    for x, out in ((on_meta(2, 3), torch.zeros(2, 3)), (torch.zeros(2, 3), on_meta(2, 3))):
        with pytest.raises(mx.MixTypeError, match=r"out is Tensor.*, expected a (tensor on meta|CPU tensor)"):
            mx.mix(x, plan, "b d", out=out)
    with pytest.raises(mx.MixTypeError, match=r'backend="cpu" on a tensor on meta: leave backend= away'):
        mx.mix(on_meta(2, 3), plan, "b d", backend="cpu")
    with pytest.raises(mx.MixTypeError, match=r'backend="cuda" on a tensor on meta: move it to the GPU'):
        mx.mix(on_meta(2, 3), plan, "b d", backend="cuda")


def test_memory_that_cannot_be_written_or_walked_is_refused() -> None:
    plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.5, partner=[1, 0])
    with pytest.raises(mx.MixValueError, match="several elements in one place"):
        mx.mix(on_meta(2, 3), plan, "b d", out=on_meta(1, 3).expand(2, 3))
    with pytest.raises(mx.MixTypeError, match=r"layout torch\.sparse_coo: expected a plain one, x\.to_dense\(\)"):
        mx.mix(torch.eye(2).to_sparse(), plan, "b d")
