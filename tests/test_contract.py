"""What users type: the lines that the library promises, as written, each followed by what it must mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mixops.pipelines import KeyedBatchSampler, MixCollator, MixLoader, keyed, mix_hidden
from torch.utils.data import DataLoader, RandomSampler

import mixops as mx

op = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)], p=[0.5, 0.5]) | mx.Cutout(size=16)
fields = {"image": mx.Field("b c h w"), "label": mx.Labels(10)}
seg = {"image": mx.Field("b c h w"), "mask": mx.Field("b h w", "discrete", fill=255, on_blend="heavier")}
mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Images:
    """A map-style data set such as anybody has: 200 images of one colour each, and their labels."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"image": torch.full((3, 32, 32), float(index)), "label": index % 10}


ds = Images()


@pytest.fixture(scope="module")
def plan() -> mx.Plan:
    drawn = mx.CutMix(1.0).draw(np.random.default_rng(0), mx.Spec(n=64, shape=(224, 224)))
    assert isinstance(drawn, mx.Plan)
    return drawn


@pytest.fixture(scope="module")
def u8() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (64, 224, 224, 3), np.uint8)


def test_the_operator_is_a_value() -> None:
    again = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)], p=[0.5, 0.5]) | mx.Cutout(size=16)
    assert op == again
    assert mx.parse_op(repr(op)) == op
    assert op.steps == 1


def test_a_loader_of_any_kind_yields_mixed_batches() -> None:
    loader = DataLoader(ds, batch_size=64)
    count = 0
    for batch in MixLoader(loader, op, fields, seed=7):
        assert batch["image"].shape[1:] == (3, 32, 32)
        assert batch["label"].shape == (len(batch["image"]), 10)
        assert torch.allclose(batch["label"].sum(1), torch.ones(len(batch["label"])))
        count += 1
    assert count == 4
    mixing = MixLoader(loader, op, fields, seed=7)
    next(iter(mixing))
    assert mixing.state_dict()["step"] == 1


def test_mixing_in_workers_makes_the_batches_that_mixing_without_them_makes() -> None:
    sampler = RandomSampler(ds)

    def batches(num_workers: int) -> list[dict[str, torch.Tensor]]:
        return list(
            DataLoader(
                keyed(ds),
                batch_sampler=KeyedBatchSampler(sampler, 64),
                collate_fn=MixCollator(op, fields, seed=7),
                num_workers=num_workers,
            )
        )

    here, there = batches(0), batches(2)
    assert len(here) == len(there) == 4
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])


def test_an_image_and_its_mask_take_one_plan() -> None:
    rng = np.random.default_rng(2)
    mask = rng.integers(0, 20, (8, 64, 64))
    batch = {"image": np.repeat(mask[:, None], 3, 1).astype(np.float32), "mask": mask}
    drawn = (mx.CutMix(1.0, per="sample") | mx.Cutout(size=16, fill=255)).draw(rng, mx.spec_of(batch, seg))
    mixed = mx.mix_batch(batch, drawn, seg)
    assert (mixed["mask"] != mask).any()
    assert (mixed["mask"] == 255).any()
    assert (mixed["image"] == mixed["mask"][:, None]).all()
    blend = mx.Mixup(1.0).draw(rng, mx.Spec(8), lam=0.25, partner=np.arange(8)[::-1])
    assert np.array_equal(mx.mix_batch(batch, blend, seg)["mask"], mask[::-1])
    for _ in range(8):
        assert mx.mix_batch(batch, op.draw(rng, mx.spec_of(batch, seg)), seg)["mask"].dtype == mask.dtype


def test_a_plan_mixes_numpy_arrays(plan: mx.Plan, u8: np.ndarray) -> None:
    x_np = u8[..., :1].astype(np.float32)
    a = mx.mix(x_np, plan, "b h w c")
    assert a.shape == x_np.shape
    for n in (0, 63):
        top, bottom, left, right = plan.box[n, 0]
        inside = np.zeros((224, 224, 1), bool)
        inside[top:bottom, left:right] = True
        assert np.array_equal(a[n], np.where(inside, x_np[plan.partner[n, 0]], x_np[n]))
        assert plan.lam[n] == pytest.approx(1 - inside.mean(), abs=1e-6)


def test_normalising_is_part_of_the_pass(plan: mx.Plan, u8: np.ndarray) -> None:
    y = mx.mix(u8, plan, "b h w c", to=mx.Output("b c h w", "float32", mean=mean, std=std))
    assert y.shape == (64, 3, 224, 224)
    assert y.dtype == np.float32
    pasted = mx.mix(u8, plan, "b h w c")
    expected = ((pasted / np.float32(255) - np.float32(mean)) / np.float32(std)).transpose(0, 3, 1, 2)
    assert np.allclose(y, expected, atol=1e-5)


def test_both_forms_of_the_target_say_the_same(plan: mx.Plan) -> None:
    labels = np.random.default_rng(3).integers(0, 1000, 64)
    soft = mx.soft_targets(labels, plan, 1000)
    ya, yb, lam = mx.pair_targets(labels, plan)
    expected = lam[:, None] * np.eye(1000)[ya] + (1 - lam[:, None]) * np.eye(1000)[yb]
    assert np.allclose(soft, expected, atol=1e-6)
    assert np.array_equal(ya, labels)
    assert np.array_equal(lam, plan.lam)


def test_a_plan_is_saved_loaded_and_read(
    plan: mx.Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plan.save("step812.npz")
    assert mx.Plan.load("step812.npz") == plan
    print(plan)
    table = capsys.readouterr().out
    assert f"row {plan.partner[0, 0]}" in table
    assert "224" in table


def test_the_loss_of_a_pair_is_the_loss_of_its_soft_target() -> None:
    x, y = torch.randn(16, 12), torch.arange(16) % 10
    model = torch.nn.Linear(12, 10)
    plan = mx.Mixup(1.0, per="sample").draw(np.random.default_rng(4), mx.Spec(n=len(x)))
    logits = model(mx.mix(x, plan, "b d"))
    loss = mx.mixed_loss(F.cross_entropy, logits, *mx.pair_targets(y, plan))
    soft = F.cross_entropy(logits, mx.soft_targets(y, plan, 10))
    assert loss.item() == pytest.approx(soft.item(), rel=1e-5)
    loss.backward()
    assert model.weight.grad is not None


class Net(torch.nn.Module):
    """A network with two named layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3)
        self.fc = torch.nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layer2(self.layer1(x).relu()).relu().mean((2, 3)))


def test_hidden_states_mix_inside_a_model() -> None:
    model, x, y = Net(), torch.randn(6, 3, 8, 8), torch.arange(6) % 5
    seen = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        plan = mx.ManifoldMixup(["input", "layer1", "layer2"], alpha=2.0).draw(rng, mx.Spec(n=len(x)))
        with mix_hidden(model, plan.layer, plan, "b c h w"):
            logits = model(x)
        loss = mx.mixed_loss(F.cross_entropy, logits, *mx.pair_targets(y, plan))
        loss.backward()
        seen.add(plan.layer)
        if plan.layer == "input":
            assert torch.allclose(logits, model(mx.mix(x, plan, "b c h w")), atol=1e-6)
    assert seen == {"input", "layer1", "layer2"}
    with pytest.raises(mx.MixError, match="nearest: layer1"), mix_hidden(model, "layer_1", plan, "b c h w"):
        pass
