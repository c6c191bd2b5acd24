"""Processes for the tests of distributed training: launched by fork, joined by a file, and never waited for in vain."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from hashlib import sha1
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # DistributedDataParallel imports it: once here, not in every process that is forked
import torch.distributed as dist
from mixops.pipelines import KeyedBatchSampler, MixLoader, arrays, keyed
from mixops.pipelines.exchange import ExchangeLoader
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import mixops as mx

PATIENCE = 40.0


def started(rank: int, world: int, folder: str, target: Callable[..., Any], given: tuple[Any, ...], say: Any) -> None:
    """One process: what ``target`` returns, or the error that ended it, is told."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/meeting", rank=rank, world_size=world, timeout=timedelta(seconds=20)
    )
    try:
        answer: Any = target(rank, world, *given)
    except Exception as error:
        answer = error if isinstance(error, mx.MixError) else RuntimeError(repr(error))
    say.put((rank, answer))
    with suppress(RuntimeError):  # where another rank is gone
        dist.barrier()
    dist.destroy_process_group()


def launch(folder: Path, world: int, target: Callable[..., Any], *given: Any, killed: int | None = None) -> list[Any]:
    """What ``target(rank, world, *given)`` returned or raised, by rank; None of one that was killed.

    Args:
        folder: where the processes meet; a new one each time.
        world: how many there are.
        target: runs in each.
        *given: for it.
        killed: rank that ends by a signal.
    """
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    say = context.Queue()
    ranks = [context.Process(target=started, args=(r, world, str(folder), target, given, say)) for r in range(world)]
    for process in ranks:
        process.start()
    answers: list[Any] = [None] * world
    deadline = time.monotonic() + PATIENCE
    try:
        for _ in range(world - (killed is not None)):
            rank, answers[rank] = say.get(timeout=max(deadline - time.monotonic(), 0.01))
        for process in ranks:
            process.join(max(deadline - time.monotonic(), 0.01))
        codes = [process.exitcode for process in ranks]
        assert codes == [-signal.SIGKILL if rank == killed else 0 for rank in range(world)], codes
    finally:
        for process in ranks:
            if process.is_alive():
                process.kill()
    return answers


def digest(batch: dict[str, Any]) -> str:
    """All bytes of images and labels, as a short word."""
    return sha1(batch["image"].numpy().tobytes() + batch["label"].numpy().tobytes()).hexdigest()


def table(n: int) -> Any:
    """Images, labels and ids."""
    rng = np.random.Generator(np.random.PCG64(1))
    images = rng.integers(0, 256, (n, 1, 4, 4), np.uint8)
    return arrays(image=images, label=np.arange(n) % 3, id=np.arange(n))


def loader_of(n: int, size: int, exchange: bool, workers: int = 0) -> MixLoader:
    """The loader of the run; one epoch of it in the process that forks loads the kernels for all."""
    data = table(n)
    sampler = KeyedBatchSampler(data, size, seed=7, shuffle=True)
    batches = DataLoader(keyed(data), batch_sampler=sampler, num_workers=workers)
    op = mx.OneOf([mx.Mixup(0.8), mx.CutMix(1.0)]) | mx.Cutout(2)
    fields = {"image": mx.Field("b c h w"), "label": mx.Labels(3)}
    to = {"image": mx.Output("b c h w", "float32", mean=0.5, std=0.5)}
    return (ExchangeLoader if exchange else MixLoader)(batches, op, fields, 7, to=to)


def train(
    rank: int, world: int, folder: str, n: int, size: int, exchange: bool, workers: int, kill: tuple[int, int] | None
) -> list[str]:
    """An epoch of DistributedDataParallel that saves its place at each step, goes on from it, and may be killed.

    Args:
        rank: of this process.
        world: processes.
        folder: of the checkpoint, and of what each step was given.
        n: samples.
        size: batch on each rank.
        exchange: partners across ranks.
        workers: that load.
        kill: (rank, step) of the process that kills itself after the backward pass of a step.

    Returns:
        A word for each batch.
    """
    place, loader = Path(folder), loader_of(n, size, exchange, workers)
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    saved = place / "checkpoint.pt"
    if saved.exists():
        checkpoint = torch.load(saved, weights_only=True)
        model.module.load_state_dict(checkpoint["model"])
        loader.load_state_dict(checkpoint["loader"])
    words = []
    for batch in loader:
        loss = torch.nn.functional.cross_entropy(model(batch["image"].flatten(1)), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        if kill == (rank, loader.step - 1):
            os.kill(os.getpid(), signal.SIGKILL)
        optimizer.step()
        words.append(digest(batch))
        with (place / f"rank{rank}.txt").open("a") as file:
            file.write(json.dumps([loader.step - 1, batch["id"].tolist()]) + "\n")
        dist.barrier()
        if rank == 0:  # the same on every rank
            torch.save({"model": model.module.state_dict(), "loader": loader.state_dict()}, place / "new.pt")
            (place / "new.pt").replace(saved)
    return words


def trained_ids(folder: Path, below: int | None = None) -> list[int]:
    """Ids of the steps that were finished by all, or of those below a step."""
    ids = []
    for log in folder.glob("rank*.txt"):
        for line in log.read_text().splitlines():
            step, named = json.loads(line)
            if below is None or step < below:
                ids += named
    return ids
