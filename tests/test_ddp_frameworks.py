"""Two processes of the libraries that start trainings: torchrun, Accelerate, Lightning."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import real_peers
import torch
from ddp_worker import launch, table
from mixops.pipelines import KeyedBatchSampler, MixCollator, MixLoader, keyed
from mixops.pipelines.exchange import ExchangeLoader
from torch.utils.data import DataLoader

import mixops as mx

real_peers.torchvision_schemas()  # these import torchvision where it is installed

import lightning.pytorch as pl  # noqa: E402
from accelerate import Accelerator  # noqa: E402

EXAMPLE = Path(__file__).parent.parent / "pipelines" / "examples" / "ddp.py"
FIELDS = {"image": mx.Field("b c h w"), "label": mx.Labels(3)}
N = 24


def environment(rank: int, world: int) -> None:
    """What torchrun sets; the group is there already."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0}
    os.environ.update({name: str(value) for name, value in names.items()})
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="1",
        TORCHELASTIC_RUN_ID="one",
        OMP_NUM_THREADS="1",
        ACCELERATE_USE_CPU="true",
    )


def mixing(**place: int) -> DataLoader[Any]:
    data = table(N)
    sampler = KeyedBatchSampler(data, 4, seed=5, shuffle=True, **place)
    return DataLoader(keyed(data), batch_sampler=sampler, collate_fn=MixCollator(mx.Mixup(0.8), FIELDS, 7))


def accelerated(rank: int, world: int, prepared: bool) -> list[list[int]]:
    environment(rank, world)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == world
    loader = accelerator.prepare(mixing(rank=0, world_size=1)) if prepared else mixing()
    model = accelerator.prepare(torch.nn.Linear(16, 3))
    ids = []
    for batch in loader:
        loss = torch.nn.functional.cross_entropy(model(batch["image"].float().flatten(1)), batch["label"])
        accelerator.backward(loss)
        ids.append(batch["id"].tolist())
    return ids


@pytest.mark.parametrize("prepared", [False, True])
def test_accelerate_trains_on_each_sample_once(prepared: bool, tmp_path: Path) -> None:
    got = launch(tmp_path / "run", 2, accelerated, prepared)
    assert not any(isinstance(answer, Exception) for answer in got), got
    assert [len(ids) for ids in got] == [3, 3]
    assert sorted(i for ids in got for batch in ids for i in batch) == list(range(N))


class Module(pl.LightningModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.ids = torch.nn.Linear(16, 3), []  # type: ignore[var-annotated]

    def training_step(self, batch: Any, index: int) -> Any:
        self.ids.append(batch["id"].tolist())
        return torch.nn.functional.cross_entropy(self.layer(batch["image"].float().flatten(1)), batch["label"])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def with_lightning(rank: int, world: int, kind: str) -> list[list[int]]:
    environment(rank, world)
    logging.disable()
    loader: Any = mixing()
    if kind != "collate":
        data = table(N)
        plain = DataLoader(data, batch_sampler=KeyedBatchSampler(data, 4, seed=5, shuffle=True))
        loader = (ExchangeLoader if kind == "exchange" else MixLoader)(plain, mx.Mixup(0.8), FIELDS, 7)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=world,
        strategy="ddp",
        use_distributed_sampler=False,
        enable_model_summary=False,
        **quiet,
    )
    module = Module()
    trainer.fit(module, loader)
    assert trainer.world_size == world
    return module.ids


@pytest.mark.parametrize("kind", ["collate", "loader", "exchange"])
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_lightning_trains_on_each_sample_once(kind: str, tmp_path: Path) -> None:
    got = launch(tmp_path / "run", 2, with_lightning, kind)
    assert not any(isinstance(answer, Exception) for answer in got), got
    assert [len(ids) for ids in got] == [3, 3]
    assert sorted(i for ids in got for batch in ids for i in batch) == list(range(N))


def test_torchrun_runs_the_example(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(EXAMPLE)]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["1 epochs on 2 ranks", "2 epochs on 2 ranks"]
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["loader"]["epoch"] == 2
