"""The stand-ins inside real trainings: timm, Hugging Face's Trainer, Accelerate and Lightning."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_peers
import torch
from loading import stateful
from mixops.pipelines import KeyedBatchSampler, MixCollator, arrays, keyed
from mixops.pipelines.drop_in import huggingface, lightning_
from mixops.pipelines.drop_in.timm_ import Mixup
from mixops.pipelines.lightning_ import MixCallback
from small_images import CLASSES, FIELDS, OP, ROWS, SIZE, STEPS, X, Y, by_hand, drawn, network, pieces
from tiny_bert import close, weights
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import mixops as mx

real_peers.torchvision_schemas()  # these import torchvision where it is installed

import lightning.pytorch as pl  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from accelerate.data_loader import BatchSamplerShard  # noqa: E402
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification  # noqa: E402

pytestmark = [
    # Lightning 2.6 walks trees with what torch 2.13 has deprecated, and says what it thinks of tiny trainings.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]

# -- timm --------------------------------------------------------------------------------------------------------------


def test_a_network_of_timm_learns_the_same_from_our_mixup_as_from_timms() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
        import timm
        from timm.loss import SoftTargetCrossEntropy
    peer, draws, trained = real_peers.timm_mixup(), [], []
    options = {"mixup_alpha": 0.8, "label_smoothing": 0.1, "num_classes": CLASSES}
    x = X[:16].repeat_interleave(4, 2).repeat_interleave(4, 3)

    def theirs(step: int, *batch: Any) -> Any:
        with real_peers.listening(np.random, "beta") as heard:
            mixed = peer.Mixup(**options)(*batch)
        draws.append(float(heard.of("beta")[0]))
        return mixed

    def ours(step: int, *batch: Any) -> Any:
        return Mixup(**options)(*batch, lam=draws[step])

    for mixing in (theirs, ours):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002  # timm draws from the global generator
        model = timm.create_model("test_resnet", num_classes=CLASSES, in_chans=1)
        before, optimizer = weights(model), torch.optim.SGD(model.parameters(), 1e-2)
        for step in range(3):
            mixed, soft = mixing(step, x.clone(), Y[:16])
            optimizer.zero_grad()
            SoftTargetCrossEntropy()(model(mixed), soft).backward()
            optimizer.step()
        trained.append(weights(model))
        assert not close(before, trained[-1])
    assert all(torch.allclose(trained[0][name], trained[1][name], rtol=1e-3, atol=1e-4) for name in trained[0])


# -- Hugging Face ------------------------------------------------------------------------------------------------------


def vit() -> Any:
    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    drop = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return ViTForImageClassification(
        ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=CLASSES, **size, **drop)
    )


def hf_trainer(folder: Path, mixing: Any, model: Any = None, loss: Any = "its", labels: Any = Y, **options: Any) -> Any:
    data = [{"pixel_values": x, "labels": y} for x, y in zip(X, labels, strict=True)]
    settings: dict[str, Any] = {
        "per_device_train_batch_size": SIZE,
        "num_train_epochs": 2,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **options,
    }
    return Trainer(
        vit() if model is None else model,
        TrainingArguments(str(folder), **settings),
        train_dataset=data,
        eval_dataset=data[:8],
        callbacks=[mixing],
        compute_loss_func=mixing.loss if loss == "its" else loss,
    )


class Named(torch.nn.Module):
    """An image classifier that is no model of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, pixel_values: Any) -> Any:
        return {"logits": self.net(pixel_values)}


def named_trainer(folder: Path, mixing: Any, **options: Any) -> Any:
    return hf_trainer(folder, mixing, Named(), **{"label_names": ["labels"], "max_steps": 2, **options})


def hooks(model: Any) -> int:
    return len(model._forward_pre_hooks)


def test_the_trainer_learns_what_a_plain_loop_does_and_evaluates_unmixed(tmp_path: Path) -> None:
    mixing = huggingface.ImageMixing(OP, seed=7, smoothing=0.1)
    trainer = hf_trainer(tmp_path, mixing, eval_strategy="epoch")
    trainer.train()
    looped = by_hand(vit().train(), smoothing=0.1, whole=True)
    assert close(weights(trainer.model), weights(looped))
    assert not close(weights(trainer.model), weights(vit()))
    with torch.no_grad():
        plain = F.cross_entropy(looped.eval()(X[:8]).logits, Y[:8]).item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain, rel=1e-4)
    assert hooks(trainer.model) == 0


def test_labels_that_are_rows_weigh_as_their_ids_do(tmp_path: Path) -> None:
    rows = torch.eye(CLASSES)[Y].long()
    trainers = [named_trainer(tmp_path, huggingface.ImageMixing(OP, seed=7), labels=labels) for labels in (Y, rows)]
    for trainer in trainers:
        trainer.train()
    assert close(*(weights(trainer.model) for trainer in trainers))
    assert trainers[1].evaluate()["eval_loss"] == pytest.approx(trainers[0].evaluate()["eval_loss"], rel=1e-5)


def test_a_row_without_a_label_is_not_learnt_from_and_not_counted(tmp_path: Path) -> None:
    labels = Y.clone()
    labels[1] = -100
    trainer = named_trainer(tmp_path, huggingface.ImageMixing(OP, seed=7), labels=labels, max_steps=1)
    trainer.train()
    model, (x, _) = network(), pieces()[0]
    plan = drawn(0, 0, x)
    soft = mx.soft_targets(labels[:SIZE], plan, CLASSES, ignore_index=-100)
    (F.cross_entropy(model(mx.mix(x, plan, "b c h w")), soft, reduction="sum") / (SIZE - 1)).backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert close(weights(trainer.model.net), weights(model))


def test_a_model_that_the_trainer_compiles_learns_the_same(tmp_path: Path) -> None:
    mixing = huggingface.ImageMixing(OP, seed=7)
    trainers = [
        named_trainer(tmp_path, mixing),
        named_trainer(tmp_path, mixing, torch_compile=True, torch_compile_backend="eager"),
    ]
    for trainer in trainers:
        trainer.train()
    assert close(*(weights(trainer.model) for trainer in trainers))


def test_the_plan_of_a_step_that_broke_off_is_not_that_of_an_evaluation(tmp_path: Path) -> None:
    def interrupted(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        raise KeyboardInterrupt

    mixing = huggingface.ImageMixing(OP, seed=7)
    trainer = named_trainer(tmp_path, mixing, loss=interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.compute_loss_func = mixing.loss
    plain = F.cross_entropy(network()(X[:8]), Y[:8]).item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain, rel=1e-5)


def test_accumulated_batches_weigh_as_one_and_have_plans_of_their_own(tmp_path: Path) -> None:
    trainer = hf_trainer(
        tmp_path, huggingface.ImageMixing(OP, seed=7), gradient_accumulation_steps=2, num_train_epochs=1
    )
    trainer.train()
    model = vit().train()
    optimizer, batches = torch.optim.SGD(model.parameters(), 0.1), pieces()
    for first in range(0, STEPS, 2):
        group = batches[first : first + 2]
        optimizer.zero_grad()
        for i, (x, y) in enumerate(group):
            plan = drawn(0, first + i, x)
            logits = model(mx.mix(x, plan, "b c h w")).logits
            soft = mx.soft_targets(y, plan, CLASSES)
            (F.cross_entropy(logits, soft, reduction="sum") / sum(len(b[1]) for b in group)).backward()
        optimizer.step()
    assert close(weights(trainer.model), weights(model))


def test_a_resumed_trainer_draws_on(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 4, "label_names": ["labels"]}
    whole = hf_trainer(tmp_path, huggingface.ImageMixing(OP, seed=7), Named(), **saving)
    whole.train()
    again = hf_trainer(tmp_path, pickle.loads(pickle.dumps(huggingface.ImageMixing(OP, seed=7))), Named(), **saving)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert again.state.global_step == 2 * STEPS
    assert close(weights(again.model), weights(whole.model))


def test_a_trainer_that_would_not_learn_from_the_mixing_is_refused(tmp_path: Path) -> None:
    mixing = huggingface.ImageMixing(OP, seed=7)
    model = vit()
    with pytest.raises(mx.MixError, match=r"compute_loss_func=mixing\.loss"):
        hf_trainer(tmp_path, mixing, model, loss=None).train()
    mixing.remove()
    assert hooks(model) == 0
    with pytest.raises(mx.MixError, match=r"ImageMixing\(smoothing=\.\.\.\)"):
        hf_trainer(tmp_path, mixing, label_smoothing_factor=0.1).train()
    with pytest.raises(mx.MixError, match=r"label_names=\['labels'\]"):
        hf_trainer(tmp_path, mixing, Named()).train()
    with pytest.raises(mx.MixError, match="name the entry that holds the images"):
        hf_trainer(tmp_path, huggingface.ImageMixing(OP, seed=7, images="image")).train()
    with pytest.raises(mx.MixError, match="TrainerMixin"):
        hf_trainer(tmp_path, huggingface.ImageMixing(mx.ManifoldMixup(["vit"]), seed=7)).train()
    with pytest.raises(mx.MixError, match="needs labels"):
        huggingface.ImageMixing(mx.Mixup(pairing="same_class"), seed=7)
    for wrong in ({"op": "mixup"}, {"seed": -1}, {"smoothing": 1.0}):
        with pytest.raises(mx.MixError):
            huggingface.ImageMixing(**{"op": OP, "seed": 7, **wrong})


# -- Accelerate --------------------------------------------------------------------------------------------------------


def keyed_loader(workers: int = 0) -> Any:
    data = arrays(image=X.numpy(), label=Y.numpy())
    sampler = KeyedBatchSampler(data, SIZE, shuffle=True, seed=7, drop_last=True, rank=0, world_size=1)
    fields = {"image": FIELDS[0], "label": FIELDS[1]}
    collate = MixCollator(OP, fields, seed=7, plan_key="plan" if not workers else None)
    return DataLoader(keyed(data), batch_sampler=sampler, collate_fn=collate, num_workers=workers)


def test_accelerate_hands_on_the_keys_of_batches() -> None:
    model = network()
    accelerator = Accelerator(cpu=True)
    prepared, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1), keyed_loader(1))
    before, plain = weights(model), list(keyed_loader())
    seen = list(loader)
    assert len(seen) == len(plain) == ROWS // SIZE
    for one, other in zip(seen, plain, strict=True):
        torch.testing.assert_close((one["image"], one["label"]), (other["image"], other["label"]))
    for batch in seen:
        accelerator.backward(F.cross_entropy(prepared(batch["image"]), batch["label"]))
        optimizer.step()
        optimizer.zero_grad()
    assert not close(before, weights(model))


def test_the_shares_of_accelerates_processes_are_whole_keyed_batches() -> None:
    sampler = keyed_loader().batch_sampler
    shares = [list(BatchSamplerShard(copy.deepcopy(sampler), 2, rank, even_batches=False)) for rank in (0, 1)]
    keys = [batch.key for share in shares for batch in share]
    assert sorted(keys) == [batch.key for batch in sampler][:4]  # the fifth has no other process to go with


# -- Lightning ---------------------------------------------------------------------------------------------------------


class Learns(pl.LightningModule):
    """Trains on what it is given."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.net, self.fails, self.seen = network(), fails, []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.fails:
            raise RuntimeError("on purpose")
        x, soft = batch if isinstance(batch, (list, tuple)) else (batch["x"], batch["y"])
        self.seen.append(x)
        return F.cross_entropy(self.net(x), soft)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


class Watched(Learns):
    """Is validated too."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        assert batch[1].ndim == 1


class Kept:
    """A loader that hands out the very batches that it holds."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def fit(
    folder: Path, module: Any, batches: Any, callback: Any, *more: Any, epochs: int = 2, resume: Path | None = None
) -> Any:
    trainer = pl.Trainer(
        default_root_dir=str(folder),
        callbacks=[callback],
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, batches, *more, ckpt_path=resume)
    return trainer


def mixing(op: mx.Operator = OP, seed: int = 7, fields: Any = FIELDS) -> Any:
    return lightning_.BatchMixing(op, fields, seed=seed)


def test_lightning_learns_what_a_plain_loop_does_and_batches_come_back(tmp_path: Path) -> None:
    loader, module = DataLoader(TensorDataset(X, Y), SIZE), Watched()
    fit(tmp_path, module, loader, pickle.loads(pickle.dumps(mixing())), loader)
    assert close(weights(module.net), weights(by_hand(network())))
    kept = [{"x": x, "y": y, "name": "row"} for x, y in pieces()]
    module, before = Learns(), [dict(batch) for batch in kept]
    fit(tmp_path, module, Kept(kept), mixing(fields={"x": FIELDS[0], "y": FIELDS[1]}))
    assert close(weights(module.net), weights(by_hand(network())))
    assert all(a[name] is b[name] for a, b in zip(kept, before, strict=True) for name in b)


def test_a_step_that_fails_gives_its_batch_back_and_tuples_are_refused(tmp_path: Path) -> None:
    kept = [list(piece) for piece in pieces()]
    before = [list(batch) for batch in kept]
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(tmp_path, Learns(fails=True), Kept(kept), mixing())
    assert all(a is b for after, was in zip(kept, before, strict=True) for a, b in zip(after, was, strict=True))
    with pytest.raises(mx.MixTypeError, match="MixLoader"):
        fit(tmp_path, Learns(), Kept(pieces()), mixing())


@pytest.mark.parametrize("make", [mixing, lambda op=OP, seed=7: MixCallback(op, seed)], ids=["batch", "inside"])
def test_a_checkpoint_knows_the_draws_and_refuses_others(make: Any) -> None:
    state = make().state_dict()
    make().load_state_dict(state)
    assert state == {"version": 1, "op": repr(OP), "seed": 7}
    for other, match in ((make(seed=8), "seed=7"), (make(mx.Mixup()), "op=")):
        with pytest.raises(mx.MixError, match=match):
            other.load_state_dict(state)


class Saves(Learns):
    """Saves a checkpoint after the third step of its training."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.place = place

    def on_train_batch_end(self, *given: Any) -> None:
        if self.trainer.global_step == 3:
            self.trainer.save_checkpoint(self.place)


@stateful
def test_a_training_of_lightning_goes_on_within_an_epoch_where_its_loader_does(tmp_path: Path) -> None:
    place, module = tmp_path / "within.ckpt", Learns()
    fit(tmp_path, Saves(place), StatefulDataLoader(TensorDataset(X, Y), SIZE), mixing(), epochs=1)
    fit(tmp_path, module, StatefulDataLoader(TensorDataset(X, Y), SIZE), mixing(), resume=place)
    assert len(module.seen) == 2 * STEPS - 3
    assert close(weights(module.net), weights(by_hand(network())))


def test_a_training_of_lightning_goes_on_from_its_checkpoint_with_the_same_draws(tmp_path: Path) -> None:
    loader, place, module = DataLoader(TensorDataset(X, Y), SIZE), tmp_path / "one.ckpt", Learns()
    fit(tmp_path, Learns(), loader, mixing(), epochs=1).save_checkpoint(place)
    fit(tmp_path, module, loader, mixing(), resume=place)
    assert close(weights(module.net), weights(by_hand(network())))
    with pytest.raises(mx.MixError, match="seed=7"):
        fit(tmp_path, Learns(), loader, mixing(seed=8), resume=place)
